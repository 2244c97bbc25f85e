//! Finding and forgetting objects.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratafs_core::{Attr, Entry, Errno, FileType, Generation, Lookup, Name, NodeId, Result};
use stratafs_sys::openat;
use stratafs_sys::stat::{self, Stat};

use crate::PassthroughFs;
use crate::node::{Identity, Node};
use crate::owner::host_kind;

/// How often a lookup starts again because names in the directory were removed meanwhile.
const ATTEMPTS: usize = 16;

impl PassthroughFs {
    /// Finds `name` in `parent`: one system call for an object that is known, and whose record has
    /// not changed.
    pub(crate) fn lookup_in(&self, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let parent = self.dir_node(parent)?;
        if self.is_hidden(&parent, name) {
            return Ok(Lookup::Absent(self.options.cache.negative_timeout));
        }
        let dir = self.pin(&parent)?;
        match self.find(&parent, &dir, name) {
            Ok((node, attr)) => Ok(Lookup::Found(self.entry(&node, attr))),
            Err(Errno::ENOENT) => Ok(Lookup::Absent(self.options.cache.negative_timeout)),
            Err(errno) => Err(errno),
        }
    }

    /// Whether `name` is kept from clients: in the share of a single file all but one are.
    pub(crate) fn is_hidden(&self, parent: &Node, name: Name<'_>) -> bool {
        match &self.only {
            Some(only) => parent.id == NodeId::ROOT && only.as_bytes() != name.as_bytes(),
            None => false,
        }
    }

    /// A directory that entries may be made in, moved in and removed from.
    ///
    /// # Errors
    /// `EROFS`: a read-only share. `EPERM`: the root of the share of a single file.
    pub(crate) fn writable_dir(&self, id: NodeId) -> Result<Arc<Node>> {
        self.writable()?;
        let node = self.dir_node(id)?;
        if self.only.is_some() && id == NodeId::ROOT { Err(Errno::EPERM) } else { Ok(node) }
    }

    /// # Errors
    /// `EROFS`: a read-only share.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.options.readonly { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// The object `name` in `parent`, whose descriptor is `dir`, its lookup count raised by one.
    ///
    /// # Errors
    /// `ENOENT`: the name is absent.
    pub(crate) fn find(
        &self,
        parent: &Arc<Node>,
        dir: &OwnedFd,
        name: Name<'_>,
    ) -> Result<(Arc<Node>, Attr)> {
        for _ in 0..ATTEMPTS {
            let before = parent.removals.load(Ordering::SeqCst);
            let busy = parent.removing.load(Ordering::SeqCst) > 0;
            let (node, attr) = self.workable(parent, dir, || self.find_once(dir, name))?;
            if !self.place(&node, parent, name) {
                return self.counted(node, attr);
            }
            // Whoever takes the name away pins the node first, if it is there to be seen. One who
            // came before it was has not.
            if !busy && parent.removals.load(Ordering::SeqCst) == before {
                return self.counted(node, attr);
            }
            let gone = node.remove_place(parent, name);
            self.table.release(gone, &self.pins);
            self.forget_node(&node, 1);
            std::thread::yield_now();
        }
        // Names come and go too fast to rely on this one: the object is pinned until it is
        // forgotten.
        let fd = Arc::new(self.with_room(|| openat::pin_child(dir.as_fd(), name))?);
        let (node, attr) = self.adopt(&fd)?;
        let pinned = self.pins.keep(&self.table, &node, &fd);
        self.counted(node, if pinned { Ok(attr) } else { Err(Errno::ENFILE) })
    }

    /// [`find`](Self::find) without a note of the name, and with the attributes' outcome apart.
    fn find_once(&self, dir: &OwnedFd, name: Name<'_>) -> Result<(Arc<Node>, Result<Attr>)> {
        let stat = stat::of_child(dir.as_fd(), name)?;
        if let Some(known) = Identity::of(&stat).and_then(|identity| self.table.find(identity, 1)) {
            match self.attr(&known, &stat) {
                // No name that it is known by leads to it: it is just being entered, or moved. What
                // this name leads to is told by a descriptor then.
                Err(Errno::ESTALE) => self.forget_node(&known, 1),
                attr => return Ok((known, attr)),
            }
        }
        if !self.is_virtual()
            && let Some(identity) = Identity::of(&stat)
        {
            // What one call told is all there is to know: it is pinned when it is used.
            let kind = host_kind(&stat);
            let node = self.table.enter(identity, kind, kind);
            return Ok((node, Ok(self.shape(&stat, None))));
        }
        // The record must be that of the object whose attributes these are, so both are asked of
        // one descriptor.
        let fd = Arc::new(self.with_room(|| openat::pin_child(dir.as_fd(), name))?);
        let (node, attr) = self.adopt(&fd)?;
        self.pins.keep(&self.table, &node, &fd);
        Ok((node, Ok(attr)))
    }

    /// Gives the count of `node` back where its attributes can't be told.
    fn counted(&self, node: Arc<Node>, attr: Result<Attr>) -> Result<(Arc<Node>, Attr)> {
        match attr {
            Ok(attr) => Ok((node, attr)),
            Err(errno) => {
                self.forget_node(&node, 1);
                Err(errno)
            }
        }
    }

    /// Notes that `name` in `parent` leads to `node`, and says whether that is new.
    pub(crate) fn place(&self, node: &Node, parent: &Arc<Node>, name: Name<'_>) -> bool {
        let (new, gone) = node.add_place(parent, name);
        self.table.release(gone, &self.pins);
        new
    }

    /// The object that `fd` holds, found as `name` in `parent`, its lookup count raised by one.
    pub(crate) fn find_pinned(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        fd: &Arc<OwnedFd>,
    ) -> Result<(Arc<Node>, Attr)> {
        let (node, attr) = self.adopt(fd)?;
        self.place(&node, parent, name);
        self.pins.keep(&self.table, &node, fd);
        Ok((node, attr))
    }

    /// The node of the object that `fd` holds, its lookup count raised by one.
    pub(crate) fn adopt(&self, fd: &OwnedFd) -> Result<(Arc<Node>, Attr)> {
        let stat = stat::of(fd.as_fd())?;
        let record = self.read_record(fd.as_fd(), &stat)?;
        let mut attr = self.shape(&stat, record.as_ref());
        let node = self.enter(fd, &stat, attr.kind());
        attr.ino = self.devices.ino(node.dev, node.ino);
        self.remember(&node, &stat, record, false);
        if node.kind == attr.kind() {
            return Ok((node, attr));
        }
        self.forget_node(&node, 1);
        Err(Errno::ESTALE)
    }

    /// The identity of the object that `fd` holds, its type as a client sees it and as the host does.
    pub(crate) fn what_is(&self, fd: &OwnedFd) -> Result<(Identity, FileType, FileType)> {
        let stat = stat::of(fd.as_fd())?;
        let record = self.read_record(fd.as_fd(), &stat)?;
        let kind = self.shape(&stat, record.as_ref()).kind();
        Ok((self.identity(&stat, fd), kind, host_kind(&stat)))
    }

    /// The node of the object that `fd` holds and `stat` describes.
    pub(crate) fn enter(&self, fd: &OwnedFd, stat: &Stat, kind: FileType) -> Arc<Node> {
        self.table.enter(self.identity(stat, fd), kind, host_kind(stat))
    }

    /// The node that `name` in `dir` leads to, if it is one that a client knows; not counted.
    ///
    /// # Errors
    /// `ENFILE`: where it takes a descriptor to tell, and none is left. Others: it cannot be told, and
    /// what may be known must not lose its name then.
    pub(crate) fn known_child(&self, dir: &OwnedFd, name: Name<'_>) -> Result<Option<Arc<Node>>> {
        let stat = match stat::of_child(dir.as_fd(), name).map_err(Errno::from) {
            Ok(stat) => stat,
            // What is absent or out of reach is so for the call that follows too.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ENAMETOOLONG) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        };
        let identity = match Identity::of(&stat) {
            Some(identity) => identity,
            None => {
                let fd = match self.with_room(|| openat::pin_child(dir.as_fd(), name)) {
                    Ok(fd) => fd,
                    Err(Errno::ENFILE) => return Err(Errno::ENFILE),
                    Err(_) => return Ok(None),
                };
                self.identity(&stat::of(fd.as_fd())?, &fd)
            }
        };
        Ok(self.table.find(identity, 0))
    }

    pub(crate) fn entry(&self, node: &Node, attr: Attr) -> Entry {
        let cache = &self.options.cache;
        node.set_size(Some(attr.size));
        // Node ids are never used again, so they tell apart what inode numbers do not.
        let mut entry = Entry::new(node.id, attr)
            .with_timeouts(cache.entry_timeout, cache.attr_timeout)
            .with_generation(Generation(node.id.0));
        if node.is_dir() && !self.devices.is_root(node.dev) {
            let state = node.state.lock();
            entry.submount = state.places.first().is_some_and(|place| place.parent.dev != node.dev);
        }
        entry
    }

    pub(crate) fn forget_node(&self, node: &Arc<Node>, count: u64) {
        if node.uncount(count) {
            self.table.reap(node, &self.pins);
        }
    }
}
