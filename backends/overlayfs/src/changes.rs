//! What differs between the merged tree and what it would be without the writable layer.
//!
//! Both trees are walked side by side, and only where the writable layer has a part in it: what is
//! read costs no more than what was changed. Opaque directories and moved ones need no rule of their
//! own, for the names on both sides are compared.

use std::collections::BTreeMap;
use std::fmt;

use stratafs_core::{Attr, Context, FileType, NameBuf, NodeId, Result};

use crate::OverlayFs;
use crate::layer::Real;
use crate::lookup::Object;
use crate::node::Place;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The read-only layers show nothing there.
    Added,
    /// They show something else, or the same with other attributes.
    Changed,
    /// They show something, and the merged tree does not.
    Deleted,
}

/// One change; see [`OverlayFs::changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Where, from the root, without a slash in front. Bytes, as names are.
    pub path: Vec<u8>,
    /// The type of the object, of a deleted one that it had.
    pub file_type: FileType,
    /// The size of a regular file, in bytes, of a deleted one that it had; 0 of anything else.
    pub size: u64,
}

impl fmt::Display for Change {
    /// A letter, the type's letter as ls(1) has it, the size in bytes, and the path with unusual
    /// bytes escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        let file_type = match self.file_type {
            FileType::Regular => '-',
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            FileType::CharDevice => 'c',
            FileType::BlockDevice => 'b',
            FileType::Fifo => 'p',
            FileType::Socket => 's',
        };
        write!(f, "{kind} {file_type} {} {}", self.size, self.path.escape_ascii())
    }
}

/// A directory on both sides, some of whose names are still to be compared.
struct Level {
    now: Option<Place>,
    before: Option<Place>,
    names: std::vec::IntoIter<NameBuf>,
    /// How long the path of the directory is.
    path: usize,
}

impl OverlayFs {
    /// Calls `each` with every change that the writable layer makes, in the order of paths, a
    /// directory before what is in it. Of a deleted directory only itself is told. A file that was
    /// copied up counts as changed, whether its data is another or not.
    ///
    /// # Errors
    /// What a layer answers.
    ///
    /// # Concurrency
    /// What is changed meanwhile may be told as it was or as it is.
    pub fn changes(&self, mut each: impl FnMut(&Change)) -> Result<()> {
        let Some(_) = &self.upper else { return Ok(()) };
        let now = self.table.get(NodeId::ROOT)?.place();
        let before = Place { upper: None, ..now.clone() };
        let mut path = Vec::new();
        let mut levels = vec![self.level(Some(now), Some(before), 0)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            path.truncate(level.path);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let now = match &level.now {
                Some(dir) => self.resolve(dir, name.as_name())?.object,
                None => None,
            };
            // What a name led to before, the index has no say in.
            let before = match &level.before {
                Some(dir) => self.resolve_names(dir, name.as_name())?.object,
                None => None,
            };
            if let Some(change) = self.compared(now.as_ref(), before.as_ref(), &path)? {
                each(&change);
            }
            if let Some(deeper) = self.deeper(now, before, path.len())? {
                levels.push(deeper);
            }
        }
        Ok(())
    }

    fn level(&self, now: Option<Place>, before: Option<Place>, path: usize) -> Result<Level> {
        let mut names = BTreeMap::new();
        for place in now.iter().chain(&before) {
            self.visible(place, |entry| {
                names.insert(entry.item.name, ());
                Ok(true)
            })?;
        }
        let names: Vec<NameBuf> = names.into_keys().collect();
        Ok(Level { now, before, names: names.into_iter(), path })
    }

    /// The level of a directory in which something may differ.
    fn deeper(
        &self,
        now: Option<Object>,
        before: Option<Object>,
        path: usize,
    ) -> Result<Option<Level>> {
        let Some(now) = now.filter(Object::is_dir) else { return Ok(None) };
        let before = before.filter(Object::is_dir);
        if before.as_ref().is_some_and(|before| is_same(&now, before)) {
            return Ok(None);
        }
        let before = before.map(|before| before.as_place());
        self.level(Some(now.as_place()), before, path).map(Some)
    }

    fn compared(
        &self,
        now: Option<&Object>,
        before: Option<&Object>,
        path: &[u8],
    ) -> Result<Option<Change>> {
        let (kind, attr) = match (now, before) {
            (None, None) => return Ok(None),
            (Some(now), None) => (ChangeKind::Added, &now.attr),
            (None, Some(before)) => (ChangeKind::Deleted, &before.attr),
            (Some(now), Some(before)) if self.is_unchanged(now, before)? => return Ok(None),
            (Some(now), Some(_)) => (ChangeKind::Changed, &now.attr),
        };
        let file_type = attr.kind();
        let size = if file_type == FileType::Regular { attr.size } else { 0 };
        Ok(Some(Change { kind, path: path.to_vec(), file_type, size }))
    }

    /// Whether it is one object, or two directories that differ in what is in them at the most.
    fn is_unchanged(&self, now: &Object, before: &Object) -> Result<bool> {
        if !now.is_dir() || !before.is_dir() {
            return Ok(is_same(now, before));
        }
        let shown = |attr: &Attr| (attr.mode, attr.uid, attr.gid);
        if shown(&now.attr) != shown(&before.attr) {
            return Ok(false);
        }
        Ok(is_same(now, before)
            || self.client_xattrs(now.top()?)? == self.client_xattrs(before.top()?)?)
    }

    /// The attributes of an object that are not the overlay's own.
    fn client_xattrs(&self, real: &Real) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let cx = Context::new(0, None);
        let names = stratafs_transfer::list(&cx, &**real.fs(), real.id())?;
        let copied = names.into_iter().filter(|name| self.names.is_copied(name));
        copied.map(|name| real.xattr(&name).map(|value| (name, value))).collect()
    }
}

/// Whether both are made of the same objects of the same layers.
fn is_same(now: &Object, before: &Object) -> bool {
    let same = |(a, b): (&Real, &Real)| a.layer == b.layer && a.id() == b.id();
    now.upper.is_none()
        && now.lowers.len() == before.lowers.len()
        && now.lowers.iter().zip(&before.lowers).all(same)
}
