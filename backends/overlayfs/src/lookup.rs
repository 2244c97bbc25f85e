//! Finding objects in the layers, and the nodes that stand for them.
//!
//! A name is looked for from the top down. A whiteout ends the search, in whichever layer it is; so
//! does a non-directory, and an opaque directory once it was taken. Directories above that are
//! merged. Since the search starts from what the parent is made of, whatever hides an ancestor in
//! some layer hides all that the layers below hold under it.

use std::sync::Arc;

use stratafs_core::{Attr, Context, Entry, Errno, FileType, Lookup, Name, NodeId, Result};

use crate::OverlayFs;
use crate::format::{self, Record, Redirect};
use crate::layer::{Real, UPPER};
use crate::links::Linked;
use crate::node::{Node, Of, Place};
use crate::origin;
use crate::search::Search;
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
    pub(crate) lower_ino: Option<u64>,
    /// It is a file, and its data is in none of the parts yet.
    pub(crate) lacks_data: bool,
}

impl Object {
    pub(crate) fn new(attr: Attr) -> Self {
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

/// The mark of fuse-overlayfs for a directory into which nothing is merged.
const FUSE_OPAQUE: &[u8] = b"user.fuseoverlayfs.opaque";

/// Which marks an object has.
struct Marks {
    opaque: bool,
    redirect: bool,
    fuse_opaque: bool,
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
        let above = match &dir.upper {
            Some(upper) if !dir.removed => self.probe(upper, name)?,
            _ => Probe::Absent,
        };
        self.resolve_below(dir, name, above)
    }

    /// As [`resolve_names`](Self::resolve_names), where the writable layer has `above`.
    fn resolve_below(&self, dir: &Place, name: Name<'_>, above: Probe) -> Result<Resolved> {
        let mut slot = Slot::Absent;
        let mut object = None;
        if dir.removed {
            return Ok(Resolved { slot, object });
        }
        let mut search = Search { bases: dir.lowers.to_vec(), path: Arc::new([name.to_owned()]) };
        match above {
            Probe::Absent => {}
            Probe::Whiteout => return Ok(Resolved { slot: Slot::Whiteout, object: None }),
            Probe::Object { mut real, attr, alone } => {
                slot = Slot::Object;
                let is_dir = attr.is_dir();
                let lacks_data = !is_dir && self.is_metacopy(&real, &attr)?;
                let mut alone = alone || (!is_dir && !lacks_data);
                let mut redirect = None;
                if !alone && !self.lowers.is_empty() {
                    if is_dir {
                        (alone, redirect) = self.opaque_or_redirect(&mut real)?;
                    } else {
                        redirect = self.redirect(&real)?;
                    }
                }
                match &redirect {
                    Some(Redirect::Absolute(path)) => {
                        search.bases = self.lowers.to_vec();
                        search.path = path.clone().into();
                    }
                    Some(Redirect::Sibling(name)) => search.path = Arc::new([name.clone()]),
                    None => {}
                }
                let upper = Some(real);
                object = Some(Object { upper, redirect, lacks_data, ..Object::new(attr) });
                if alone {
                    return Ok(Resolved { slot, object });
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

    /// Whether the data of the file `real` is in a layer below.
    pub(crate) fn is_metacopy(&self, real: &Real, attr: &Attr) -> Result<bool> {
        if !self.options.metacopy || attr.kind() != FileType::Regular || attr.size == 0 {
            return Ok(false);
        }
        Ok(real.xattr(self.names.name(Record::Metacopy))?.is_some())
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
        let marks = self.marks(real)?;
        self.is_marked_opaque(real, &marks)
    }

    /// Which marks the object `real` has: most have none, which is one call to find out.
    fn marks(&self, real: &Real) -> Result<Marks> {
        let names = stratafs_transfer::list(&Context::internal(), &**real.fs(), real.id())?;
        let has = |name: &[u8]| names.iter().any(|found| found == name);
        Ok(Marks {
            opaque: has(self.names.name(Record::Opaque)),
            redirect: has(self.names.name(Record::Redirect)),
            fuse_opaque: has(FUSE_OPAQUE),
        })
    }

    fn is_marked_opaque(&self, real: &mut Real, marks: &Marks) -> Result<bool> {
        if marks.opaque {
            match real.xattr(self.names.name(Record::Opaque))?.as_deref() {
                Some(b"y") => return Ok(true),
                Some(b"x") => real.file_whiteouts = true,
                _ => {}
            }
        }
        if real.layer == UPPER {
            return Ok(false);
        }
        if marks.fuse_opaque && real.xattr(FUSE_OPAQUE)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
        match Name::new(format::OCI_OPAQUE) {
            Ok(mark) if self.options.oci => Ok(real.child(mark)?.is_some()),
            _ => Ok(false),
        }
    }

    /// Whether nothing below is merged into the directory `real`, or where what is merged is.
    pub(crate) fn opaque_or_redirect(&self, real: &mut Real) -> Result<(bool, Option<Redirect>)> {
        let marks = self.marks(real)?;
        let opaque = self.is_marked_opaque(real, &marks)?;
        let redirect = if opaque || !marks.redirect { None } else { self.redirect(real)? };
        Ok((opaque, redirect))
    }

    /// Where the parts of the directory `real` in the layers below are, if not under its own name; of
    /// a file, its data.
    pub(crate) fn redirect(&self, real: &Real) -> Result<Option<Redirect>> {
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
            && let Some(ino) = self.ino_below(upper, &object.linked)?
        {
            return Ok(ino);
        }
        Ok(self.map_ino(top, object.attr.ino))
    }

    /// The number of what `upper` was copied up from, as it records it.
    fn ino_below(&self, upper: &Real, linked: &Linked) -> Result<Option<u64>> {
        // In the index it is found by its origin, so that is one of these layers.
        let holds = self.origins_hold || matches!(linked, Linked::Index { .. });
        if !holds {
            return Ok(None);
        }
        let Some(origin) = upper.xattr(self.names.name(Record::Origin))? else { return Ok(None) };
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
        if parent.lists_no(name) {
            return Ok(None);
        }
        let dir = parent.place();
        if dir.removed {
            return Ok(None);
        }
        let above = match &dir.upper {
            Some(upper) => self.probe(upper, name)?,
            None => Probe::Absent,
        };
        if let Some(known) = self.find_known(parent, &dir, name, &above)? {
            return Ok(Some(known));
        }
        let mut resolved = self.resolve_below(&dir, name, above)?;
        if let Some(object) = &mut resolved.object {
            self.settle(&dir, name, object)?;
        }
        resolved.object.map(|object| self.enter(parent, name, object)).transpose()
    }

    /// The node of `name`, where there is one already: what it is made of need not be searched for in
    /// all layers again. The layer that shows it is asked, since a name there can go elsewhere.
    fn find_known(
        &self,
        parent: &Node,
        dir: &Place,
        name: Name<'_>,
        above: &Probe,
    ) -> Result<Option<(Arc<Node>, Attr)>> {
        let (node, attr) = match above {
            Probe::Whiteout => return Ok(None),
            Probe::Object { real, attr, .. } => {
                let Some(node) = self.table.find(&Key::Upper(real.id())) else { return Ok(None) };
                (node, attr.clone())
            }
            Probe::Absent => {
                let key = Key::Lower(parent.id, name.to_owned());
                let Some(node) = self.table.find(&key) else { return Ok(None) };
                let top = node.see(|place| match &place.upper {
                    None => place.lowers.first().map(|lower| (lower.layer, lower.id())),
                    Some(_) => None,
                });
                let Some((layer, id)) = top else { return Ok(None) };
                let Some(base) = dir.lowers.iter().find(|base| base.layer == layer) else {
                    return Ok(None);
                };
                match self.probe(base, name)? {
                    Probe::Object { real, attr, .. } if real.id() == id => (node, attr),
                    _ => return Ok(None),
                }
            }
        };
        if node.kind != attr.kind() {
            return Ok(None);
        }
        self.table.look_up(&node);
        Ok(Some((node, attr)))
    }

    /// What is under `name` in the directory `parent`, whose place is `dir`, for one who is to make
    /// something there. Its lock of names is held.
    pub(crate) fn resolve_new(
        &self,
        parent: &Node,
        dir: &Place,
        name: Name<'_>,
    ) -> Result<Resolved> {
        if let (true, Some(upper)) = (parent.lists_no(name), &dir.upper) {
            let slot = match self.probe(upper, name)? {
                Probe::Absent => Some(Slot::Absent),
                Probe::Whiteout => Some(Slot::Whiteout),
                Probe::Object { .. } => None,
            };
            if let Some(slot) = slot {
                return Ok(Resolved { slot, object: None });
            }
        }
        self.resolve(dir, name)
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
