//! Whether a writable layer is well-formed, and mending what is not.
//!
//! What is found is what no run leaves behind: it came from a crash, from another program, or from
//! layers that were exchanged. Nothing here takes away what shows.

use std::fmt;

use stratafs_core::{Context, Errno, NameBuf, NodeId, Result, XattrName};

use crate::OverlayFs;
use crate::builder::INCOMPAT;
use crate::format::{Record, Redirect};
use crate::fs::Upper;
use crate::layer::{Item, Real};
use crate::links;
use crate::lookup::{Object, Probe};
use crate::node::Place;
use crate::origin::{self, Origin};

/// What is wrong with something of a writable layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// It was left in the staging directory by a crash. The next build removes it, as a repair does.
    Leftover,
    /// A mark that keeps the layer from being used, with this name. Whether it may be removed is not
    /// known here, so a repair leaves it.
    Incompatible,
    /// A directory's lower parts should be where no layer has any. A repair makes it opaque: it goes
    /// on showing what it shows.
    DanglingRedirect,
    /// A file's data should be in a layer below and is not, or is not looked for there. There is
    /// nothing to mend it with.
    MissingData,
    /// A whiteout where nothing is merged from below. A repair removes it.
    UselessWhiteout,
    /// What it was copied up from is in none of the layers. A repair records that its origin is not
    /// known; its inode number is its own from then on, as it is already.
    MissingOrigin,
    /// A directory holds what was copied up, and is not marked so: its listings show other inode
    /// numbers than the objects. A repair marks it.
    NotImpure,
    /// An entry of the index without an object: no name is left that leads to it, or it is for
    /// another object than its name says. A repair removes it.
    OrphanedIndex,
}

impl Problem {
    /// A word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Leftover => "leftover",
            Self::Incompatible => "incompatible",
            Self::DanglingRedirect => "dangling-redirect",
            Self::MissingData => "missing-data",
            Self::UselessWhiteout => "useless-whiteout",
            Self::MissingOrigin => "missing-origin",
            Self::NotImpure => "not-impure",
            Self::OrphanedIndex => "orphaned-index",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Leftover => "was left by a crash",
            Self::Incompatible => "keeps the writable layer from being used",
            Self::DanglingRedirect => "its lower parts are recorded to be where nothing is",
            Self::MissingData => "its data is not found in the layers below",
            Self::UselessWhiteout => "is a whiteout where nothing is merged",
            Self::MissingOrigin => "was copied up from what is in none of the layers",
            Self::NotImpure => "holds what was copied up, and is not marked so",
            Self::OrphanedIndex => "is in the index for no object",
        }
    }
}

/// Where a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// The writable layer.
    Upper,
    /// The staging directory.
    Staging,
}

/// One thing that [`OverlayFs::check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// Where `path` begins.
    pub area: Area,
    /// Where, without a slash in front. Bytes, as names are; empty for the root.
    pub path: Vec<u8>,
    /// Whether it was mended.
    pub repaired: bool,
}

impl fmt::Display for Finding {
    /// One line, with unusual bytes of the path escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = match self.area {
            Area::Upper => "upper",
            Area::Staging => "work",
        };
        let (word, says) = (self.problem.word(), self.problem.says());
        write!(f, "{word}: {area}/{} {says}", self.path.escape_ascii())?;
        f.write_str(if self.repaired { " (repaired)" } else { "" })
    }
}

/// Whether a check mends what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// It only tells.
    #[default]
    No,
    /// It mends what can be mended without loss. Nobody else may use the layer meanwhile.
    Yes,
}

/// A directory of the writable layer that is walked.
struct Level {
    real: Real,
    place: Place,
    items: std::vec::IntoIter<Item>,
    path: usize,
    /// Whether it was seen, or need not be, that it is marked impure.
    impure: bool,
}

/// One run of a check.
struct Run<'a> {
    fs: &'a OverlayFs,
    repair: bool,
    each: &'a mut dyn FnMut(&Finding),
}

impl OverlayFs {
    /// Calls `each` with everything that is wrong with the writable layer, in the order of paths
    /// after what is wrong with the staging directory.
    ///
    /// Meant for an overlay of [`Builder::inspect`](crate::Builder::inspect): building one that can
    /// be written to mends some of it.
    ///
    /// # Errors
    /// What a layer answers. What was told is repaired by then, if it says so.
    pub fn check(&self, repair: Repair, mut each: impl FnMut(&Finding)) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let mut run = Run { fs: self, repair: repair == Repair::Yes, each: &mut each };
        run.staging(upper)?;
        run.index(upper)?;
        run.tree(&upper.root)
    }
}

impl Run<'_> {
    fn tell(&mut self, problem: Problem, area: Area, path: &[u8], repaired: bool) {
        (self.each)(&Finding { problem, area, path: path.to_vec(), repaired });
    }

    fn staging(&mut self, upper: &Upper) -> Result<()> {
        let Some(work) = child(&upper.staging, b"work")? else { return Ok(()) };
        for item in work.list()? {
            let path = [b"work/", item.name.as_bytes()].concat();
            if item.name.as_bytes() == INCOMPAT {
                let Some(marks) = child(&work, INCOMPAT)? else { continue };
                for mark in marks.list()? {
                    let path = [&path, &b"/"[..], mark.name.as_bytes()].concat();
                    self.tell(Problem::Incompatible, Area::Staging, &path, false);
                }
                continue;
            }
            if self.repair {
                let name = item.name.as_name();
                let is_dir = work.child(name)?.is_some_and(|(_, attr)| attr.is_dir());
                work.remove_tree(name, is_dir)?;
            }
            self.tell(Problem::Leftover, Area::Staging, &path, self.repair);
        }
        Ok(())
    }

    fn index(&mut self, upper: &Upper) -> Result<()> {
        let Some(dir) = child(&upper.staging, b"index")? else { return Ok(()) };
        let nlink = self.fs.names.name(Record::Nlink);
        for item in dir.list()? {
            let name = item.name.as_name();
            if !links::is_leftover(&dir, name, nlink)? && self.is_entry(&dir, &item)? {
                continue;
            }
            let path = [b"index/", name.as_bytes()].concat();
            if self.repair {
                let is_dir = dir.child(name)?.is_some_and(|(_, attr)| attr.is_dir());
                dir.remove_tree(name, is_dir)?;
            }
            self.tell(Problem::OrphanedIndex, Area::Staging, &path, self.repair);
        }
        Ok(())
    }

    /// Whether an entry of the index is for what its name says. The kernel's for directories and
    /// deleted files say nothing more.
    fn is_entry(&self, dir: &Real, item: &Item) -> Result<bool> {
        let Some(value) = origin::of_index_name(item.name.as_name()) else { return Ok(false) };
        let Some((real, attr)) = dir.child(item.name.as_name())? else { return Ok(true) };
        if attr.is_dir() || crate::format::is_whiteout(&attr) {
            return Ok(true);
        }
        Ok(real.xattr(self.fs.names.name(Record::Origin))?.as_ref() == Some(&value))
    }

    fn tree(&mut self, root: &Real) -> Result<()> {
        let mut place = self.fs.table.get(NodeId::ROOT)?.place();
        place.parent = None;
        let mut path = Vec::new();
        let mut levels = vec![self.level(root.clone(), place, 0)?];
        while let Some(level) = levels.last_mut() {
            let Some(item) = level.items.next() else {
                levels.pop();
                continue;
            };
            path.truncate(level.path);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(item.name.as_bytes());
            if let Some((real, place)) = self.entry(level, &item.name, &path)? {
                let deeper = self.level(real, place, path.len())?;
                levels.push(deeper);
            }
        }
        Ok(())
    }

    fn level(&self, real: Real, place: Place, path: usize) -> Result<Level> {
        // Where layers are merged in, listings look anyway.
        let merged = !place.lowers.is_empty();
        let impure = merged || real.xattr(self.fs.names.name(Record::Impure))?.is_some();
        let items = real.list()?.into_iter();
        Ok(Level { real, place, items, path, impure })
    }

    /// Looks at one entry. A directory comes back, to be walked.
    fn entry(
        &mut self,
        level: &mut Level,
        name: &NameBuf,
        path: &[u8],
    ) -> Result<Option<(Real, Place)>> {
        let (real, attr) = match self.fs.probe(&level.real, name.as_name())? {
            Probe::Absent => return Ok(None),
            Probe::Whiteout => {
                if level.place.lowers.is_empty() {
                    if self.repair {
                        let cx = Context::internal();
                        level.real.fs().unlink(&cx, level.real.id(), name.as_name())?;
                    }
                    self.tell(Problem::UselessWhiteout, Area::Upper, path, self.repair);
                }
                return Ok(None);
            }
            Probe::Object { real, attr, .. } => (real, attr),
        };
        self.origin(level, &real, path)?;
        let object = match self.fs.resolve_names(&level.place, name.as_name()) {
            Ok(resolved) => resolved.object,
            // A redirect or data that leads nowhere, or is not followed.
            Err(Errno::EIO | Errno::EPERM) => None,
            Err(errno) => return Err(errno),
        };
        if !attr.is_dir() {
            self.data(&real, object.as_ref(), path)?;
            return Ok(None);
        }
        let place = self.redirect(&real, object, path)?;
        Ok(Some((real, place)))
    }

    /// What a file or directory was copied up from.
    fn origin(&mut self, level: &mut Level, real: &Real, path: &[u8]) -> Result<()> {
        let record = self.fs.names.name(Record::Origin);
        let Some(value) = real.xattr(record)?.filter(|value| !value.is_empty()) else {
            return Ok(());
        };
        if !level.impure {
            level.impure = true;
            if self.repair {
                self.fs.mark_impure(&level.real)?;
            }
            let dir = path.get(..level.path).unwrap_or_default();
            self.tell(Problem::NotImpure, Area::Upper, dir, self.repair);
        }
        if !self.is_missing(&value) {
            return Ok(());
        }
        if self.repair {
            real.set_xattr(record, b"")?;
            remove(real, self.fs.names.name(Record::Ino))?;
        }
        self.tell(Problem::MissingOrigin, Area::Upper, path, self.repair);
        Ok(())
    }

    /// Whether an origin is of no layer here. Of what has no number that can be read, nobody knows.
    fn is_missing(&self, value: &[u8]) -> bool {
        let fs = self.fs;
        match origin::parse(value) {
            None => false,
            Some(Origin::Own { layer, .. }) => layer >= fs.lowers.len(),
            Some(Origin::Host { fsid, .. }) => {
                let mut layers = 1..=fs.lowers.len();
                // A layer whose filesystem is not known may be the one.
                layers.all(|layer| fs.inos.fsid(layer).is_some_and(|found| found != fsid))
            }
        }
    }

    fn data(&mut self, real: &Real, object: Option<&Object>, path: &[u8]) -> Result<()> {
        if real.xattr(self.fs.names.name(Record::Metacopy))?.is_none() {
            return Ok(());
        }
        let size = real.attr()?.size;
        if size > 0 && object.is_none_or(|object| object.lowers.is_empty()) {
            self.tell(Problem::MissingData, Area::Upper, path, false);
        }
        Ok(())
    }

    /// Where the lower parts of the directory `real` are. Gives what it is made of.
    fn redirect(&mut self, real: &Real, object: Option<Object>, path: &[u8]) -> Result<Place> {
        let record = self.fs.names.name(Record::Redirect);
        let place = match &object {
            Some(object) => object.as_place(),
            None => Place::of_upper(real.clone()),
        };
        let Some(value) = real.xattr(record)? else { return Ok(place) };
        let opaque = real.xattr(self.fs.names.name(Record::Opaque))?;
        let refused = object.is_none() && Redirect::parse(&value).is_some();
        if opaque.as_deref() == Some(b"y") || refused || !place.lowers.is_empty() {
            return Ok(place);
        }
        if self.repair {
            // Opaque first: without the record it would be merged with what has its name.
            real.set_xattr(self.fs.names.name(Record::Opaque), b"y")?;
            remove(real, record)?;
        }
        self.tell(Problem::DanglingRedirect, Area::Upper, path, self.repair);
        Ok(place)
    }
}

fn child(dir: &Real, name: &[u8]) -> Result<Option<Real>> {
    let found = dir.child(stratafs_core::Name::new(name)?)?;
    Ok(found.filter(|(_, attr)| attr.is_dir()).map(|(real, _)| real))
}

/// Removes an attribute that may not be there.
fn remove(real: &Real, name: &[u8]) -> Result<()> {
    match real.fs().removexattr(&Context::internal(), real.id(), XattrName::new(name)?) {
        Ok(()) | Err(Errno::ENODATA) => Ok(()),
        Err(errno) => Err(errno),
    }
}
