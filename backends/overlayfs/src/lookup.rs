//! Finding objects in the layers, and the nodes that stand for them.
//!
//! A name is looked for from the top down. A whiteout ends the search, in whichever layer it is; so
//! does a non-directory, and an opaque directory once it was taken. Directories above that are
//! merged. Since the search starts from what the parent is made of, whatever hides an ancestor in
//! some layer hides all that the layers below hold under it.

use std::sync::Arc;

use stratafs_core::{Attr, Entry, Errno, FileType, Lookup, Name, NameBuf, NodeId, Result};

use crate::OverlayFs;
use crate::format::{self, Record, Redirect};
use crate::layer::{Real, UPPER};
use crate::links::Linked;
use crate::node::{Node, Of, Place};
use crate::origin;
use crate::table::Key;

/// What a layer's directory has under a name.
pub(crate) enum Probe {
    Absent,
    /// A mark that the name is gone, whatever the layers below have.
    Whiteout,
    /// An object. `alone`: nothing below is to be merged into it.
    Object {
        real: Real,
        attr: Attr,
        alone: bool,
    },
}

/// What the writable layer has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Absent,
    Whiteout,
    Object,
}

/// What the layers have under a name.
pub(crate) struct Resolved {
    pub(crate) slot: Slot,
    pub(crate) object: Option<Object>,
}

/// An object that a lookup found.
pub(crate) struct Object {
    pub(crate) upper: Option<Real>,
    /// As [`Place::lowers`].
    pub(crate) lowers: Vec<Real>,
    /// Of the topmost part.
    pub(crate) attr: Attr,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) linked: Linked,
    /// The number of the topmost part below the writable layer, mapped: of a directory, and of a
    /// file that was found in the index.
    lower_ino: Option<u64>,
    /// It is a file, and its data is in none of the parts yet.
    lacks_data: bool,
}

impl Object {
    fn new(attr: Attr) -> Self {
        Self {
            upper: None,
            lowers: Vec::new(),
            attr,
            redirect: None,
            linked: Linked::No,
            lower_ino: None,
            lacks_data: false,
        }
    }

    /// The file was copied up, by another name: it is `upper` now, and keeps its number.
    pub(crate) fn put_on_top(&mut self, upper: Real, attr: Attr, ino: u64, meta: bool) {
        if !meta {
            self.lowers = Vec::new();
        }
        (self.upper, self.attr, self.lower_ino) = (Some(upper), attr, Some(ino));
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.attr.is_dir()
    }

    pub(crate) fn top(&self) -> Result<&Real> {
        self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::EIO)
    }

    /// What a directory is made of, for a look at what is in it.
    pub(crate) fn as_place(&self) -> Place {
        Place {
            upper: self.upper.clone(),
            lowers: self.lowers.clone().into(),
            parent: None,
            redirect: self.redirect.clone(),
            linked: self.linked.clone(),
            superseded: false,
            removed: false,
        }
    }

    /// The key of the node that stands for it, as `name` in the directory `parent`.
    pub(crate) fn key(&self, parent: NodeId, name: Name<'_>) -> Key {
        match (&self.upper, &self.linked, self.lowers.first()) {
            (Some(upper), _, _) => Key::Upper(upper.id()),
            (None, Linked::Lower { .. }, Some(lower)) => Key::Linked(lower.layer, lower.id()),
            _ => Key::Lower(parent, name.to_owned()),
        }
    }
}

/// A node with a lookup that is given back on drop.
pub(crate) struct Looked<'a> {
    fs: &'a OverlayFs,
    pub(crate) node: Arc<Node>,
}

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        self.fs.table.forget(self.node.id, 1);
    }
}

/// Which parts of the layers below are searched, and by which path.
struct Search {
    /// Directories of layers, the topmost first.
    bases: Vec<Real>,
    /// One name, or more after a redirect.
    path: Vec<NameBuf>,
}

/// Whether something ends the search.
enum Step {
    Next,
    Done,
}

impl OverlayFs {
    /// The object `name` in the directory that `dir` describes.
    pub(crate) fn resolve(&self, dir: &Place, name: Name<'_>) -> Result<Resolved> {
        let mut resolved = self.resolve_names(dir, name)?;
        if let Some(object) = &mut resolved.object {
            self.settle(dir, name, object)?;
        }
        Ok(resolved)
    }

    /// As [`resolve`](Self::resolve), by the names in the layers alone and not by the index.
    pub(crate) fn resolve_names(&self, dir: &Place, name: Name<'_>) -> Result<Resolved> {
        let mut slot = Slot::Absent;
        let mut object = None;
        if dir.removed {
            return Ok(Resolved { slot, object });
        }
        let mut search = Search { bases: dir.lowers.to_vec(), path: vec![name.to_owned()] };
        if let Some(upper) = &dir.upper {
            match self.probe(upper, name)? {
                Probe::Absent => {}
                Probe::Whiteout => return Ok(Resolved { slot: Slot::Whiteout, object: None }),
                Probe::Object { mut real, attr, alone } => {
                    slot = Slot::Object;
                    let is_dir = attr.is_dir();
                    let lacks_data = !is_dir && self.is_metacopy(&real, &attr)?;
                    let mut alone = alone || (!is_dir && !lacks_data);
                    let mut redirect = None;
                    if !alone && !self.lowers.is_empty() {
                        alone = is_dir && self.is_opaque(&mut real)?;
                        redirect = if alone { None } else { self.redirect(&real)? };
                    }
                    match &redirect {
                        Some(Redirect::Absolute(path)) => {
                            search.bases = self.lowers.to_vec();
                            search.path.clone_from(path);
                        }
                        Some(Redirect::Sibling(name)) => search.path = vec![name.clone()],
                        None => {}
                    }
                    let upper = Some(real);
                    object = Some(Object { upper, redirect, lacks_data, ..Object::new(attr) });
                    if alone {
                        return Ok(Resolved { slot, object });
                    }
                }
            }
        }
        self.search(search, &mut object)?;
        if object.as_ref().is_some_and(|object| object.lacks_data) {
            log::error!("overlay: the data of {name} is in no layer below (EIO)");
            return Err(Errno::EIO);
        }
        Ok(Resolved { slot, object })
    }

    /// Whether the layers below the writable one would show something under `name`, were it not for
    /// what the writable layer has there.
    pub(crate) fn shows_below(&self, dir: &Place, name: Name<'_>) -> Result<bool> {
        for base in &*dir.lowers {
            match self.probe(base, name)? {
                Probe::Absent => {}
                Probe::Whiteout => return Ok(false),
                Probe::Object { .. } => return Ok(true),
            }
        }
        Ok(false)
    }

    fn search(&self, mut search: Search, object: &mut Option<Object>) -> Result<()> {
        let mut at = 0;
        while let Some(base) = search.bases.get(at).cloned() {
            at += 1;
            let rest = search.bases.get(at..).unwrap_or_default().to_vec();
            let last = rest.is_empty();
            match self.search_layer(&base, &mut search, rest, last, object)? {
                Step::Done => return Ok(()),
                Step::Next => {}
            }
        }
        Ok(())
    }

    /// Follows the path in one layer. A redirect on the way changes what is searched in the layers
    /// below.
    fn search_layer(
        &self,
        base: &Real,
        search: &mut Search,
        rest: Vec<Real>,
        last: bool,
        object: &mut Option<Object>,
    ) -> Result<Step> {
        let mut dir = base.clone();
        let mut step = Step::Next;
        let path = search.path.clone();
        for (depth, name) in path.iter().enumerate() {
            let is_end = depth + 1 == path.len();
            let (mut real, attr, mut alone) = match self.probe(&dir, name.as_name())? {
                Probe::Absent => return Ok(step),
                Probe::Whiteout => return Ok(Step::Done),
                Probe::Object { real, attr, alone } => (real, attr, alone),
            };
            let wants_file = object.as_ref().is_some_and(|object| !object.is_dir());
            if !attr.is_dir() {
                if !is_end || !self.take_file(&real, attr, object)? {
                    return Ok(Step::Done);
                }
                if let Some(redirect) = self.redirect(&real)? {
                    self.redirected(search, base, &rest, &path, depth, redirect);
                }
                return Ok(Step::Next);
            }
            if is_end && wants_file {
                return Ok(Step::Done);
            }
            if !last {
                alone = alone || self.is_opaque(&mut real)?;
                if !alone && let Some(redirect) = self.redirect(&real)? {
                    self.redirected(search, base, &rest, &path, depth, redirect);
                }
            }
            if alone {
                step = Step::Done;
            }
            if is_end {
                let ino = self.map_ino(&real, attr.ino);
                let found = object.get_or_insert_with(|| Object::new(attr));
                found.lower_ino.get_or_insert(ino);
                found.lowers.push(real);
                return Ok(step);
            }
            dir = real;
        }
        Ok(step)
    }

    /// Takes what is no directory, `real` of a read-only layer, into `object`. Says whether its data
    /// is to be looked for further down.
    fn take_file(&self, real: &Real, attr: Attr, object: &mut Option<Object>) -> Result<bool> {
        let goes_on = match object {
            None => self.is_metacopy(real, &attr)?,
            Some(file) if file.lacks_data && attr.kind() == FileType::Regular => {
                self.is_metacopy(real, &attr)?
            }
            // It is hidden.
            Some(_) => return Ok(false),
        };
        let file = object.get_or_insert_with(|| Object::new(attr));
        file.lowers.push(real.clone());
        file.lacks_data = goes_on;
        Ok(goes_on)
    }

    /// Whether the data of the file `real` is in a layer below.
    pub(crate) fn is_metacopy(&self, real: &Real, attr: &Attr) -> Result<bool> {
        if !self.options.metacopy || attr.kind() != FileType::Regular || attr.size == 0 {
            return Ok(false);
        }
        Ok(real.xattr(self.names.name(Record::Metacopy))?.is_some())
    }

    /// The layers below `base` are searched as `redirect` says, which was found on the name at
    /// `depth` of `path`.
    fn redirected(
        &self,
        search: &mut Search,
        base: &Real,
        rest: &[Real],
        path: &[NameBuf],
        depth: usize,
        redirect: Redirect,
    ) {
        let tail = path.get(depth + 1..).unwrap_or_default();
        let (bases, head) = match redirect {
            Redirect::Absolute(names) => {
                let below = self.lowers.iter().filter(|root| root.layer > base.layer);
                (below.cloned().collect(), names)
            }
            Redirect::Sibling(name) => {
                let mut names = path.get(..depth).unwrap_or_default().to_vec();
                names.push(name);
                (rest.to_vec(), names)
            }
        };
        search.path = [&head, tail].concat();
        // The search goes on after as many bases as it has seen.
        let seen = search.bases.len() - rest.len();
        search.bases.truncate(seen);
        search.bases.extend::<Vec<Real>>(bases);
    }

    /// What `dir` has under `name`.
    pub(crate) fn probe(&self, dir: &Real, name: Name<'_>) -> Result<Probe> {
        let oci = self.options.oci && dir.layer != UPPER;
        if oci && name.as_bytes().starts_with(format::OCI_PREFIX) {
            return Ok(Probe::Absent);
        }
        let found = dir.child(name)?;
        let hidden = match format::oci_whiteout(name).filter(|_| oci) {
            Some(whiteout) => dir.child(whiteout.as_name())?.is_some(),
            None => false,
        };
        let Some((real, attr)) = found else {
            return Ok(if hidden { Probe::Whiteout } else { Probe::Absent });
        };
        let is_file_whiteout = || -> Result<bool> {
            let empty = attr.kind() == FileType::Regular && attr.size == 0;
            let record = self.names.name(Record::Whiteout);
            Ok(dir.file_whiteouts && empty && real.xattr(record)?.is_some())
        };
        if format::is_whiteout(&attr) || is_file_whiteout()? {
            return Ok(Probe::Whiteout);
        }
        Ok(Probe::Object { real, attr, alone: hidden })
    }

    /// Whether nothing below is merged into the directory `real`. Learns too whether whiteouts in it
    /// may be files.
    pub(crate) fn is_opaque(&self, real: &mut Real) -> Result<bool> {
        match real.xattr(self.names.name(Record::Opaque))?.as_deref() {
            Some(b"y") => return Ok(true),
            Some(b"x") => real.file_whiteouts = true,
            _ => {}
        }
        if real.layer == UPPER {
            return Ok(false);
        }
        if real.xattr(b"user.fuseoverlayfs.opaque")?.as_deref() == Some(b"y") {
            return Ok(true);
        }
        match Name::new(format::OCI_OPAQUE) {
            Ok(mark) if self.options.oci => Ok(real.child(mark)?.is_some()),
            _ => Ok(false),
        }
    }

    /// Where the parts of the directory `real` in the layers below are, if not under its own name.
    fn redirect(&self, real: &Real) -> Result<Option<Redirect>> {
        let Some(value) = real.xattr(self.names.name(Record::Redirect))? else { return Ok(None) };
        if !self.options.follows_redirects() {
            log::warn!("overlay: a directory is redirected, which is not followed here (EPERM)");
            return Err(Errno::EPERM);
        }
        let parsed = Redirect::parse(&value).filter(|_| value.len() <= format::REDIRECT_MAX);
        if parsed.is_none() {
            log::warn!("overlay: a redirect to \"{}\" leads nowhere (EIO)", value.escape_ascii());
            return Err(Errno::EIO);
        }
        Ok(parsed)
    }

    /// The number of an object of a layer, in the merged tree.
    pub(crate) fn map_ino(&self, real: &Real, ino: u64) -> u64 {
        self.inos.map(real.layer, ino)
    }

    /// The number of `object`, which stays when it is copied up.
    pub(crate) fn ino_of(&self, object: &Object) -> Result<u64> {
        if let Some(ino) = object.lower_ino {
            return Ok(ino);
        }
        let top = object.top()?;
        if let Some(upper) = &object.upper
            && !object.is_dir()
            && let Some(ino) = self.ino_below(upper)?
        {
            return Ok(ino);
        }
        Ok(self.map_ino(top, object.attr.ino))
    }

    /// The number of what `upper` was copied up from, as it records it.
    fn ino_below(&self, upper: &Real) -> Result<Option<u64>> {
        let origin = upper.xattr(self.names.name(Record::Origin))?;
        let Some(origin) = origin.filter(|_| self.origins_hold) else { return Ok(None) };
        if let Some(ino) = origin::parse(&origin).and_then(|origin| self.ino_of_origin(origin)) {
            return Ok(Some(ino));
        }
        let Some(value) = upper.xattr(self.names.name(Record::Ino))? else { return Ok(None) };
        let Some((from_bottom, ino)) = format::parse_ino(&value) else { return Ok(None) };
        let layer = self.lowers.len().checked_sub(from_bottom).filter(|layer| *layer > UPPER);
        Ok(layer.map(|layer| self.inos.map(layer, ino)))
    }

    /// The node that stands for `object`, found as `name` in `parent`, looked up once more.
    pub(crate) fn enter(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        object: Object,
    ) -> Result<(Arc<Node>, Attr)> {
        let mut object = object;
        // No file goes into the index between the look there and the node's being known.
        let held = loop {
            let held = match object.linked {
                Linked::Lower { .. } => self.hold_links(),
                _ => None,
            };
            if self.is_settled(&object.linked) {
                break held;
            }
            drop(held);
            self.settle(&parent.place(), name, &mut object)?;
        };
        let ino = self.ino_of(&object)?;
        let key = object.key(parent.id, name);
        let generation = object.top()?.generation;
        let Object { upper, lowers, attr, redirect, linked, .. } = object;
        let place = Place {
            upper,
            lowers: lowers.into(),
            parent: Some((Arc::clone(parent), name.to_owned())),
            redirect,
            linked,
            superseded: false,
            removed: false,
        };
        let of = Of { kind: attr.kind(), ino, generation };
        let new = Node::new(self.table.number(), of, place, &self.table);
        let node = self.table.enter(key, new);
        drop(held);
        Ok((node, attr))
    }

    /// The node of `name` in `parent`, with a lookup to be given back.
    pub(crate) fn find(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
    ) -> Result<Option<(Arc<Node>, Attr)>> {
        parent.require_dir()?;
        let _names = parent.names.read();
        let resolved = self.resolve(&parent.place(), name)?;
        resolved.object.map(|object| self.enter(parent, name, object)).transpose()
    }

    /// What is under `name` in `parent` at this moment.
    pub(crate) fn peek(&self, parent: &Node, name: Name<'_>) -> Result<Option<Object>> {
        // What is removed meanwhile may answer anything.
        let _names = parent.names.read();
        Ok(self.resolve(&parent.place(), name)?.object)
    }

    /// As [`find`](Self::find), with the lookup given back on drop.
    pub(crate) fn find_held(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
    ) -> Result<Option<Looked<'_>>> {
        let found = self.find(parent, name)?;
        Ok(found.map(|(node, _)| Looked { fs: self, node }))
    }

    pub(crate) fn look_up(&self, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let parent = self.table.get(parent)?;
        Ok(match self.find(&parent, name)? {
            Some((node, attr)) => Lookup::Found(self.entry(&node, attr)),
            None => Lookup::Absent(self.cache.negative_timeout),
        })
    }

    /// What the client is told of `node`, whose topmost part has these attributes.
    pub(crate) fn entry(&self, node: &Arc<Node>, attr: Attr) -> Entry {
        Entry::new(node.id, self.shown(node, attr))
            .with_timeouts(self.cache.entry_timeout, self.cache.attr_timeout)
            .with_generation(node.generation)
    }
}
