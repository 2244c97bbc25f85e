//! Finding names, and what an id leads to.

use std::sync::Arc;

use stratafs_core::{Attr, Context, Entry, Errno, FileType, Lookup, Name, NodeId, NodeRef, Result};

use crate::RouterFs;
use crate::ids::MADE_UP;
use crate::member::Member;
use crate::point::{Covered, Point, Real};

/// What an id leads to.
pub(crate) enum Place {
    Real(Real),
    /// A directory that no filesystem has.
    MadeUp(Arc<Point>),
}

/// One lookup or handle that a client is about to hold of a member. Given back on drop.
pub(crate) struct Pin<'a> {
    fs: &'a RouterFs,
    pub(crate) member: Arc<Member>,
    kept: bool,
}

impl Pin<'_> {
    /// The client has it now.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.fs.lower(&self.member, 1);
        }
    }
}

impl RouterFs {
    #[inline]
    fn slot(&self, index: usize) -> Result<Arc<Member>> {
        self.slots.get(index).and_then(|slot| slot.read().clone()).ok_or(Errno::ESTALE)
    }

    /// What `id` leads to.
    ///
    /// # Errors
    /// `ESTALE`: to nothing that a client could know.
    #[inline]
    pub(crate) fn place(&self, id: NodeId) -> Result<Place> {
        let (index, node) = self.ids.node(id)?;
        if index == MADE_UP {
            return self.made_up(node).map(Place::MadeUp);
        }
        match self.slot(index) {
            Ok(member) => Ok(Place::Real(Real { member, node })),
            Err(_) if id == NodeId::ROOT => Ok(Place::MadeUp(Arc::clone(&self.root))),
            Err(errno) => Err(errno),
        }
    }

    /// The point of this number. There are few: one for each mount and each directory above one.
    fn made_up(&self, node: NodeId) -> Result<Arc<Point>> {
        self.root.numbered(node.0).ok_or(Errno::ESTALE)
    }

    /// What `id` leads to, where that is an object of a member.
    ///
    /// # Errors
    /// `ESTALE` as [`place`](Self::place); `made_up` of a directory that no member has.
    #[inline]
    pub(crate) fn real(&self, id: NodeId, made_up: Errno) -> Result<Real> {
        match self.place(id)? {
            Place::Real(real) => Ok(real),
            Place::MadeUp(_) => Err(made_up),
        }
    }

    /// Takes hold of `member`, which is not let go of before the pin is.
    pub(crate) fn pin(&self, member: &Arc<Member>) -> Result<Pin<'_>> {
        let slot = self.slots.get(member.index).ok_or(Errno::ESTALE)?.read();
        // Under the lock of its slot, so that whoever clears that sees it.
        match &*slot {
            Some(there) if Arc::ptr_eq(there, member) => member.raise(1),
            _ => return Err(Errno::ESTALE),
        }
        drop(slot);
        Ok(Pin { fs: self, member: Arc::clone(member), kept: false })
    }

    /// Clients hold so much less of `member`, which is let go of if it was detached.
    pub(crate) fn lower(&self, member: &Arc<Member>, count: u64) {
        if member.lower(count) {
            self.let_go(member);
        }
    }

    /// Lets go of a member that was detached, if clients hold nothing of it.
    pub(crate) fn let_go(&self, member: &Arc<Member>) {
        let Some(slot) = self.slots.get(member.index) else { return };
        let mut slot = slot.write();
        let is_it = slot.as_ref().is_some_and(|there| Arc::ptr_eq(there, member));
        let gone = if is_it && member.is_unused() { slot.take() } else { None };
        drop(slot);
        drop(gone);
    }

    pub(crate) fn forget_node(&self, id: NodeId, count: u64) {
        let Ok((index, node)) = self.ids.node(id) else { return };
        let Ok(member) = self.slot(index) else { return };
        self.ids.forgotten(id, count);
        member.fs.forget(node, count);
        self.lower(&member, count);
    }

    /// What a client sees of the attributes of an object of `member`.
    #[inline]
    pub(crate) fn shown(&self, member: &Member, node: NodeId, attr: &mut Attr) {
        attr.ino = self.ids.ino(member.index, attr.ino);
        member.masked(attr);
        if attr.is_dir() && member.point_at(node).is_some_and(|point| !point.is_leaf()) {
            // Mounts are not among the directories that the member counts.
            attr.nlink = 1;
        }
    }

    /// `entry` of a member as the client gets it, whose lookup it carries. The client's hold of the
    /// member is the caller's to see to.
    pub(crate) fn wrapped(&self, member: &Member, mut entry: Entry) -> Entry {
        self.shown(member, entry.node, &mut entry.attr);
        entry.node = self.ids.looked_up(member.index, entry.node);
        entry
    }

    /// The point under `name` in the directory `real`, if there is one.
    pub(crate) fn point_in(&self, real: &Real, name: Name<'_>) -> Option<Arc<Point>> {
        real.member.point_at(real.node)?.child(name)
    }

    pub(crate) fn look_up(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Lookup> {
        let real = match self.place(parent)? {
            Place::Real(real) => real,
            Place::MadeUp(point) => {
                return match point.child(name) {
                    Some(child) => self.show(cx, &child).map(Lookup::Found),
                    None => Ok(Lookup::Absent(self.cache.negative_timeout)),
                };
            }
        };
        if let Some(point) = self.point_in(&real, name) {
            return self.show(cx, &point).map(Lookup::Found);
        }
        let pin = self.pin(&real.member)?;
        match pin.member.fs.lookup(cx, real.node, name)? {
            Lookup::Found(entry) => {
                let entry = self.wrapped(&pin.member, entry);
                pin.keep();
                Ok(Lookup::Found(entry))
            }
            absent @ Lookup::Absent(_) => Ok(absent),
        }
    }

    /// A point, looked up once more.
    pub(crate) fn show(&self, cx: &Context<'_>, point: &Arc<Point>) -> Result<Entry> {
        let (entry, attr) = (self.cache.entry_timeout, self.cache.attr_timeout);
        if let Some(member) = point.mount() {
            let pin = self.pin(&member)?;
            let root = member.fs.getattr(cx, NodeId::ROOT, None)?;
            let of = Entry::new(NodeId::ROOT, root.attr).with_timeouts(entry, root.timeout);
            let mut shown = self.wrapped(&member, of);
            shown.submount = true;
            pin.keep();
            return Ok(shown);
        }
        if let Some((pin, found)) = self.resolve(cx, point)? {
            let found = self.wrapped(&pin.member, found);
            pin.keep();
            return Ok(found);
        }
        let made_up = Entry::new(self.made_up_id(point), self.made_up_attr(point));
        Ok(made_up.with_timeouts(entry, attr))
    }

    /// Finds out which directory of a member `point` is, and gives that with one lookup; `None` where
    /// there is none. Nothing is mounted at it.
    pub(crate) fn resolve(
        &self,
        cx: &Context<'_>,
        point: &Arc<Point>,
    ) -> Result<Option<(Pin<'_>, Entry)>> {
        let above = point.parent().and_then(|(parent, name)| Some((parent.view()?, name)));
        let Some((real, name)) = above else {
            drop(point.set_real(None));
            return Ok(None);
        };
        let pin = self.pin(&real.member)?;
        let fs = &pin.member.fs;
        let find = || fs.lookup(cx, real.node, name.as_name());
        let entry = match find()? {
            Lookup::Found(entry) if entry.attr.is_dir() => entry,
            other => {
                if let Lookup::Found(entry) = other {
                    fs.forget(entry.node, 1);
                }
                drop(point.set_real(None));
                return Ok(None);
            }
        };
        if !point.is_real(&pin.member, entry.node) {
            // The point holds a lookup of its own, so that the id stays what it is.
            let first = NodeRef::adopt(Arc::clone(fs), &entry);
            let second = match find()? {
                Lookup::Found(again) => NodeRef::adopt(Arc::clone(fs), &again),
                Lookup::Absent(_) => return Ok(None),
            };
            if second.node() != entry.node {
                return Ok(None);
            }
            let real = Covered { member: Arc::clone(&pin.member), node: Arc::new(second) };
            drop(point.set_real(Some(real)));
            let _ = first.into_node();
        }
        Ok(Some((pin, entry)))
    }

    /// The id of a directory that is made up.
    pub(crate) fn made_up_id(&self, point: &Point) -> NodeId {
        if point.parent().is_none() {
            return NodeId::ROOT;
        }
        // Numbers of points are counted up, which no shift is too small for.
        self.ids.known(MADE_UP, NodeId(point.number)).unwrap_or(NodeId::ROOT)
    }

    /// The attributes of a directory that is made up.
    pub(crate) fn made_up_attr(&self, point: &Point) -> Attr {
        let ino = self.ids.ino(MADE_UP, point.number);
        let mut attr = Attr::new(ino, FileType::Directory.mode_bits() | 0o755);
        attr.nlink = 2u32.saturating_add(u32::try_from(point.len()).unwrap_or(u32::MAX));
        (attr.atime, attr.mtime, attr.ctime) = (self.made, self.made, self.made);
        attr
    }

    /// The inode number of what a point shows.
    pub(crate) fn ino_of(&self, cx: &Context<'_>, point: &Point) -> Result<u64> {
        match point.view() {
            Some(real) => {
                let attr = real.member.fs.getattr(cx, real.node, None)?.attr;
                Ok(self.ids.ino(real.member.index, attr.ino))
            }
            None => Ok(self.ids.ino(MADE_UP, point.number)),
        }
    }
}
