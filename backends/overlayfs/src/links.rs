//! Hard links through copy-up.
//!
//! A file that several names of a read-only layer lead to is copied up once, into the index: a
//! directory beside the staging directory, under a name made of what it was copied from. A name that
//! still leads to the layer is looked up there, so that all names stay names of one file. As the
//! kernel does, a record counts the names of the merged tree relative to those of one object, and is
//! relative to whichever does not change in the next step.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use stratafs_core::{Attr, Context, Errno, FileType, Name, NameBuf, NodeRef, RenameFlags, Result};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::format::{NlinkOf, Record, nlink_value, parse_nlink};
use crate::layer::Real;
use crate::lookup::{Object, Slot};
use crate::node::{Node, Place};
use crate::origin::{self, Of};
use crate::stage::Staged;
use crate::table::Key;

/// The index.
pub(crate) struct Links {
    pub(crate) dir: Real,
    /// The names in it. Held exclusively while one is added, until the node of that file is known
    /// by what it has become.
    names: RwLock<HashSet<NameBuf>>,
    /// Counts the additions.
    version: AtomicU64,
}

/// What is known of an object's further names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Linked {
    /// It has none, or they part when it is copied up.
    #[default]
    No,
    /// It is of a read-only layer, has several names, and none of them was copied up when the index
    /// had this version.
    Lower { version: u64 },
    /// It is in the index.
    Index {
        /// Under this name.
        name: NameBuf,
        /// It has so many names more than its object in the writable layer.
        more: i64,
        /// How many names it has in the read-only layer, where that was looked at.
        lower: Option<u32>,
    },
}

impl Links {
    /// The index in `dir`. If `clean`, entries for which no name is left are removed; such is the
    /// record `nlink_record` of theirs.
    pub(crate) fn new(dir: Real, nlink_record: &[u8], clean: bool) -> Result<Self> {
        let mut names = HashSet::new();
        for item in dir.list()? {
            let name = item.name.as_name();
            if clean && is_leftover(&dir, name, nlink_record)? {
                dir.fs().unlink(&Context::internal(), dir.id(), name)?;
            } else if origin::of_index_name(name).is_some() {
                names.insert(item.name);
            }
        }
        Ok(Self { dir, names: RwLock::new(names), version: AtomicU64::new(0) })
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        self.names.read().is_empty()
    }

    /// The object under `name`, if there is one.
    fn get(&self, name: &NameBuf, kind: FileType) -> Result<Option<(Real, Attr)>> {
        if !self.names.read().contains(name) {
            return Ok(None);
        }
        let Some((real, attr)) = self.dir.child(name.as_name())? else { return Ok(None) };
        if attr.kind() != kind {
            log::error!(
                "overlay: the index has something of another type under {} (EIO)",
                name.as_name()
            );
            return Err(Errno::EIO);
        }
        Ok(Some((real, attr)))
    }
}

/// Whether an entry of the index was left by a crash: half made, or of a file whose last name went.
pub(crate) fn is_leftover(dir: &Real, name: Name<'_>, nlink_record: &[u8]) -> Result<bool> {
    let Some((real, attr)) = dir.child(name)? else { return Ok(false) };
    if attr.is_dir() {
        return Ok(false);
    }
    if name.as_bytes().starts_with(b"#") {
        return Ok(true);
    }
    if attr.nlink != 1 || crate::format::is_whiteout(&attr) {
        return Ok(false);
    }
    let record = real.xattr(nlink_record)?;
    Ok(record.as_deref().and_then(parse_nlink) == Some((NlinkOf::Upper, -1)))
}

impl OverlayFs {
    pub(crate) fn links(&self) -> Option<&Links> {
        self.upper.as_ref().and_then(|upper| upper.links.as_ref())
    }

    /// What `lower` is recorded as having been copied up from.
    pub(crate) fn origin_of(&self, lower: &Real, attr: &Attr) -> Result<Vec<u8>> {
        Ok(match lower.fs().persistent_id(lower.id())? {
            Some(id) => origin::value(&id, Of::Lower),
            None => {
                origin::own_value(self.counted_from_bottom(lower.layer), attr, lower.generation)
            }
        })
    }

    /// Completes what the layers have under `name` in `dir` by what the index has.
    pub(crate) fn settle(&self, dir: &Place, name: Name<'_>, object: &mut Object) -> Result<()> {
        let Some(links) = self.links() else { return Ok(()) };
        if object.is_dir() || object.attr.nlink < 2 {
            return Ok(());
        }
        let kind = object.attr.kind();
        if let Some(upper) = &object.upper {
            if links.is_empty() {
                return Ok(());
            }
            let origin = upper.xattr(self.names.name(Record::Origin))?;
            let Some(entry) = origin.as_deref().and_then(origin::index_name) else {
                return Ok(());
            };
            if links.get(&entry, kind)?.is_none_or(|(real, _)| real.id() != upper.id()) {
                return Ok(());
            }
            let below = || self.below(dir, name);
            let more = self.more_names(upper, object.attr.nlink, below)?;
            object.linked = Linked::Index { name: entry, more, lower: None };
            return Ok(());
        }
        let Some(lower) = object.lowers.first() else { return Ok(()) };
        if !self.takes_records(kind) {
            return Ok(());
        }
        object.linked = Linked::Lower { version: links.version() };
        if links.is_empty() {
            return Ok(());
        }
        let nlink = object.attr.nlink;
        let Some(entry) = origin::index_name(&self.origin_of(lower, &object.attr)?) else {
            object.linked = Linked::No;
            return Ok(());
        };
        if let Some((real, attr)) = links.get(&entry, kind)? {
            let more = self.more_names(&real, attr.nlink, || Ok(Some(nlink)))?;
            object.linked = Linked::Index { name: entry, more, lower: Some(nlink) };
            let ino = self.map_ino(lower, object.attr.ino);
            let meta = self.is_metacopy(&real, &attr)?;
            object.put_on_top(real, attr, ino, meta);
        }
        Ok(())
    }

    /// How many names the read-only layers' file under `name` has.
    fn below(&self, dir: &Place, name: Name<'_>) -> Result<Option<u32>> {
        let lowers = Place { upper: None, ..dir.clone() };
        let found = self.resolve_names(&lowers, name)?.object;
        Ok(found.filter(|object| !object.is_dir()).map(|object| object.attr.nlink))
    }

    /// How many names more than its object `upper`, which has `nlink`, a file has by its record.
    fn more_names(
        &self,
        upper: &Real,
        nlink: u32,
        lower: impl FnOnce() -> Result<Option<u32>>,
    ) -> Result<i64> {
        let record = upper.xattr(self.names.name(Record::Nlink))?;
        Ok(match record.as_deref().and_then(parse_nlink) {
            Some((NlinkOf::Upper, more)) => more,
            Some((NlinkOf::Lower, more)) => {
                let lower = match self.recorded_below(upper)? {
                    None => lower()?,
                    recorded => recorded,
                };
                lower.map_or(0, |lower| i64::from(lower) + more - i64::from(nlink))
            }
            None => 0,
        })
    }

    /// How many names a file of the index has in the read-only layer by its record. A name that it got
    /// later may lead to another file there, which says nothing about it.
    fn recorded_below(&self, upper: &Real) -> Result<Option<u32>> {
        let record = upper.xattr(self.names.name(Record::LowerNlink))?;
        Ok(record.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()))
    }

    /// Whether nothing came into the index since `linked` was found out.
    pub(crate) fn is_settled(&self, linked: &Linked) -> bool {
        match (linked, self.links()) {
            (Linked::Lower { version }, Some(links)) => links.version() == *version,
            _ => true,
        }
    }

    /// Keeps the index from growing while what this gives lives.
    pub(crate) fn hold_links(&self) -> Option<parking_lot::RwLockReadGuard<'_, HashSet<NameBuf>>> {
        self.links().map(|links| links.names.read())
    }

    /// Moves the copy of a file with several names into the index, and gives the name that leads to
    /// it one in the writable layer. Its node's `copying` is held.
    pub(crate) fn publish_linked(
        &self,
        node: &Arc<Node>,
        attr: &Attr,
        origin: &[u8],
        (staged, upper): (&mut Staged<'_>, &Real),
        meta: bool,
    ) -> Result<()> {
        let (Some(links), Some(name)) = (self.links(), origin::index_name(origin)) else {
            return Err(Errno::EIO);
        };
        upper.set_xattr(self.names.name(Record::Nlink), &nlink_value(NlinkOf::Lower, 0))?;
        let below = attr.nlink.to_string();
        upper.set_xattr(self.names.name(Record::LowerNlink), below.as_bytes())?;
        let mut names = links.names.write();
        staged.publish(&links.dir, name.as_name(), RenameFlags::NOREPLACE)?;
        names.insert(name.clone());
        links.version.fetch_add(1, Ordering::Release);
        let linked =
            Linked::Index { name, more: i64::from(attr.nlink) - 1, lower: Some(attr.nlink) };
        if node.become_upper(upper, meta, |place| place.linked = linked) {
            self.supersede(node);
        } else {
            self.table.rekey(node, Some(Key::Upper(upper.id())));
        }
        drop(names);
        Ok(())
    }

    /// Gives `node`, which is in the index and is found as `name` in `dir` by way of a layer, that
    /// name in the writable layer. Does nothing where that is not so.
    pub(crate) fn link_up(&self, node: &Arc<Node>, dir: &Arc<Node>, name: Name<'_>) -> Result<()> {
        let upper_dir = self.copy_up(dir, Data::All)?;
        let _copying = node.copying.lock();
        self.link_up_locked(node, dir, &upper_dir, name)
    }

    /// As [`link_up`](Self::link_up), with the node's `copying` held and the directory copied up.
    pub(crate) fn link_up_locked(
        &self,
        node: &Arc<Node>,
        dir: &Arc<Node>,
        upper_dir: &Real,
        name: Name<'_>,
    ) -> Result<()> {
        let _names = dir.names.write();
        let Some(upper) = node.upper() else { return Ok(()) };
        let resolved = self.resolve(&dir.place(), name)?;
        let Some(object) = resolved.object.filter(|_| resolved.slot == Slot::Absent) else {
            return Ok(());
        };
        let found = object.upper.as_ref().is_some_and(|found| found.id() == upper.id());
        let Linked::Index { more, lower: Some(lower), .. } = object.linked else { return Ok(()) };
        if !found {
            return Ok(());
        }
        let record = self.names.name(Record::Nlink);
        let all = i64::from(object.attr.nlink) + more;
        upper.set_xattr(record, &nlink_value(NlinkOf::Lower, all - i64::from(lower)))?;
        self.mark_impure(upper_dir)?;
        let before = upper_dir.attr()?;
        let cx = Context::internal();
        let entry = upper.fs().link(&cx, upper.id(), upper_dir.id(), name)?;
        drop(NodeRef::adopt(Arc::clone(upper.fs()), &entry));
        self.keep_times(upper_dir, &before);
        node.change(|place| {
            if let Linked::Index { more, .. } = &mut place.linked {
                *more -= 1;
            }
        });
        if let Err(errno) = upper.set_xattr(record, &nlink_value(NlinkOf::Upper, more - 1)) {
            // It is still right as long as no name comes or goes, before which it is written again.
            log::warn!("overlay: a count of names stays relative to a layer: {errno}");
        }
        Ok(())
    }

    /// Before a name of `node` comes or goes: makes its record count along.
    pub(crate) fn count_along(&self, node: &Arc<Node>) -> Result<()> {
        let place = self.current(node).place();
        if place.superseded {
            // Nobody counts in its name; the record was made to count along when it was copied up.
            return Ok(());
        }
        match (&place.linked, &place.upper) {
            (Linked::Index { more, .. }, Some(upper)) => {
                upper.set_xattr(self.names.name(Record::Nlink), &nlink_value(NlinkOf::Upper, *more))
            }
            _ => Ok(()),
        }
    }

    /// Before the name `name` of `dir`, which leads to `node`, goes elsewhere: makes sure that it is
    /// one of the writable layer, whose one step then counts the file's names too.
    pub(crate) fn before_name_goes(
        &self,
        node: &Arc<Node>,
        dir: &Arc<Node>,
        name: Name<'_>,
    ) -> Result<()> {
        if node.place().linked == Linked::No {
            return Ok(());
        }
        self.copy_up(node, Data::Hole)?;
        self.link_up(node, dir, name)?;
        self.count_along(node)
    }

    /// After a name of `node` went: takes it out of the index if that was the last.
    pub(crate) fn after_name_went(&self, node: &Arc<Node>) {
        let place = self.current(node).place();
        let (Linked::Index { name, more, .. }, Some(upper), Some(links)) =
            (&place.linked, &place.upper, self.links())
        else {
            return;
        };
        let gone = upper.attr().and_then(|attr| {
            if i64::from(attr.nlink) + more > 0 {
                return Ok(());
            }
            let mut names = links.names.write();
            let is_it =
                links.dir.child(name.as_name())?.is_some_and(|(at, _)| at.id() == upper.id());
            if is_it {
                links.dir.fs().unlink(&Context::internal(), links.dir.id(), name.as_name())?;
                names.remove(name);
            }
            Ok(())
        });
        if let Err(errno) = gone {
            log::warn!("overlay: a file without a name stays until the next mount: {errno}");
        }
    }

    /// The node that stands for the object of `node` now.
    pub(crate) fn current(&self, node: &Arc<Node>) -> Arc<Node> {
        let key = node.see(|place| match &place.upper {
            Some(upper) if place.superseded => Some(Key::Upper(upper.id())),
            _ => None,
        });
        key.and_then(|key| self.table.find(&key)).unwrap_or_else(|| Arc::clone(node))
    }

    /// The number of a layer, counted from the bottom.
    pub(crate) fn counted_from_bottom(&self, layer: usize) -> usize {
        self.lowers.len().saturating_sub(layer)
    }
}
