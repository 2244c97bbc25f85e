//! A node: an inode, its counts, and its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use stratafs_core::attr::{S_ISGID, S_ISUID, S_IXGRP};
use stratafs_core::{Attr, Errno, FileType, Result, Timestamp};

use crate::charge::{DIR_COST, NODE_COST, target_cost};
use crate::entries::Entries;
use crate::extent::Extents;
use crate::rank::{self, Rank, ReadGuard, WriteGuard};
use crate::xattr::Xattrs;

/// What `read_at` holds when no read was noted since atime was last set.
const UNREAD: i64 = i64::MIN;

/// Nanoseconds of a second.
const NANOS: i64 = 1_000_000_000;

/// An atime older than this, in seconds, is renewed by any read: relatime's day.
const STALE_ATIME: i64 = 86_400;

/// A [`Timestamp`] without the padding: four of them are a tenth of an inode.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Packed {
    sec: i64,
    nsec: u32,
}

impl From<Timestamp> for Packed {
    fn from(time: Timestamp) -> Self {
        Self { sec: time.sec, nsec: time.nsec }
    }
}

impl From<Packed> for Timestamp {
    fn from(time: Packed) -> Self {
        Self::new(time.sec, time.nsec)
    }
}

/// An inode with what is counted beside its lock.
pub(crate) struct Node {
    /// Its number: node id and inode number in one.
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    /// Of a device.
    rdev: u32,
    /// The directory that a directory is in; itself for the root. Changes only with the
    /// filesystem's rename mutex held.
    parent: AtomicU64,
    lookups: AtomicU64,
    handles: AtomicU32,
    /// When it was last read, in nanoseconds since the epoch, if that is newer than `atime`: a
    /// read notes it under the shared lock.
    read_at: AtomicI64,
    inode: RwLock<Inode>,
}

/// What a node's lock guards.
pub(crate) struct Inode {
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    atime: Packed,
    mtime: Packed,
    ctime: Packed,
    btime: Packed,
    pub(crate) xattrs: Xattrs,
    pub(crate) body: Body,
    /// A file of O_TMPFILE that may still be given its first name.
    pub(crate) linkable: bool,
    /// Its storage was given back: no name, no lookup and no handle was left.
    pub(crate) dead: bool,
}

/// What an inode holds, by type.
pub(crate) enum Body {
    File(File),
    Dir(Box<Entries>),
    Symlink(Box<[u8]>),
    /// A device, FIFO or socket; or anything, dead.
    None,
}

/// The content of a regular file.
///
/// Bytes of `extents` at and beyond `size` are zeros.
#[derive(Default)]
pub(crate) struct File {
    pub(crate) size: u64,
    pub(crate) extents: Extents,
}

impl Node {
    /// A node with one lookup.
    pub(crate) fn new(ino: u64, parent: u64, rdev: u32, inode: Inode) -> Self {
        Self {
            ino,
            kind: FileType::from_mode(inode.mode).unwrap_or(FileType::Regular),
            rdev,
            parent: AtomicU64::new(parent),
            lookups: AtomicU64::new(1),
            handles: AtomicU32::new(0),
            read_at: AtomicI64::new(UNREAD),
            inode: RwLock::new(inode),
        }
    }

    /// Locks it, shared, by itself or as what an entry leads to.
    pub(crate) fn read(&self) -> ReadGuard<'_, Inode> {
        rank::read(&self.inode, Rank::Node)
    }

    /// Locks it, by itself or as what an entry leads to.
    pub(crate) fn write(&self) -> WriteGuard<'_, Inode> {
        rank::write(&self.inode, Rank::Node)
    }

    /// Locks it, shared, as the directory in which entries are sought.
    pub(crate) fn read_dir(&self) -> ReadGuard<'_, Inode> {
        rank::read(&self.inode, Rank::Dir)
    }

    /// Locks it as the directory in which entries change.
    pub(crate) fn write_dir(&self) -> WriteGuard<'_, Inode> {
        rank::write(&self.inode, Rank::Dir)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(crate) fn parent(&self) -> u64 {
        self.parent.load(Ordering::Acquire)
    }

    pub(crate) fn set_parent(&self, parent: u64) {
        self.parent.store(parent, Ordering::Release);
    }

    /// Raises the lookup count by one, up to the largest number and not beyond.
    ///
    /// The caller holds a lock by which the node keeps a name, or the node's own.
    pub(crate) fn raise(&self) {
        let _ = self.lookups.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            Some(count.saturating_add(1))
        });
    }

    /// Lowers the lookup count, to zero at the least, and says whether it is zero.
    pub(crate) fn lower(&self, by: u64) -> bool {
        let lowered = self.lookups.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            Some(count.saturating_sub(by))
        });
        lowered.is_ok_and(|before| before <= by)
    }

    pub(crate) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::SeqCst)
    }

    /// Counts a handle. The caller holds the node's lock and saw that it is not dead.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// Uncounts a handle, and says whether it was the last.
    pub(crate) fn drop_handle(&self) -> bool {
        self.handles.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether nothing but a name keeps it.
    pub(crate) fn is_idle(&self) -> bool {
        self.lookups() == 0 && self.handles.load(Ordering::SeqCst) == 0
    }

    /// Notes a read, by the rule of relatime: only where atime is not after mtime and ctime, or a
    /// day old, so that reading costs no more than a look.
    pub(crate) fn touch(&self, inode: &Inode, now: Timestamp) {
        let atime = self.atime(inode);
        let due = atime <= inode.mtime.into()
            || atime <= inode.ctime.into()
            || now.sec.saturating_sub(atime.sec) >= STALE_ATIME;
        if !due || atime == now {
            return;
        }
        let nanos = now.sec.checked_mul(NANOS).and_then(|n| n.checked_add(i64::from(now.nsec)));
        if let Some(nanos) = nanos {
            self.read_at.store(nanos, Ordering::Relaxed);
        }
    }

    fn atime(&self, inode: &Inode) -> Timestamp {
        match self.read_at.load(Ordering::Relaxed) {
            UNREAD => inode.atime.into(),
            nanos => Timestamp::new(nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS) as u32),
        }
    }

    /// Sets atime; `inode` is this node's, locked.
    pub(crate) fn set_atime(&self, inode: &mut Inode, atime: Timestamp) {
        self.read_at.store(UNREAD, Ordering::Relaxed);
        inode.atime = atime.into();
    }

    /// The attributes; `inode` is this node's, locked.
    pub(crate) fn attr(&self, inode: &Inode) -> Attr {
        let mut attr = Attr::new(self.ino, inode.mode);
        attr.nlink = inode.nlink;
        attr.uid = inode.uid;
        attr.gid = inode.gid;
        attr.rdev = self.rdev;
        (attr.size, attr.blocks) = inode.size_and_blocks();
        attr.atime = self.atime(inode);
        attr.mtime = inode.mtime.into();
        attr.ctime = inode.ctime.into();
        attr.btime = Some(inode.btime.into());
        attr
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let now = Timestamp::default();
        let owner = stratafs_core::Credentials::new(0, 0);
        Self::new(9, 0, 0, Inode::new(0o100_644, owner.uid, owner.gid, now, Body::None))
    }
}

impl Inode {
    /// An inode with one name, or two if it is a directory.
    pub(crate) fn new(mode: u32, uid: u32, gid: u32, now: Timestamp, body: Body) -> Self {
        let nlink = if matches!(body, Body::Dir(_)) { 2 } else { 1 };
        Self {
            mode,
            nlink,
            uid,
            gid,
            atime: now.into(),
            mtime: now.into(),
            ctime: now.into(),
            btime: now.into(),
            xattrs: Xattrs::default(),
            body,
            linkable: false,
            dead: false,
        }
    }

    /// Size in bytes and storage in units of 512. A directory's size is 20 bytes an entry, as
    /// tmpfs has it.
    fn size_and_blocks(&self) -> (u64, u64) {
        match &self.body {
            Body::File(file) => (file.size, file.extents.stored().div_ceil(512)),
            Body::Dir(entries) => (entries.len() as u64 * 20, 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::None => (0, 0),
        }
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// `ENOTDIR`: it is none.
    pub(crate) fn dir(&self) -> Result<&Entries> {
        match &self.body {
            Body::Dir(entries) => Ok(entries),
            Body::None if self.dead => Err(Errno::ESTALE),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn dir_mut(&mut self) -> Result<&mut Entries> {
        match &mut self.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The entries of a directory in which something is to change.
    ///
    /// # Errors
    /// `ENOTDIR`: it is none. `ENOENT`: it was removed.
    pub(crate) fn live_dir_mut(&mut self) -> Result<&mut Entries> {
        let removed = self.nlink == 0;
        let entries = self.dir_mut()?;
        if removed { Err(Errno::ENOENT) } else { Ok(entries) }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// `EINVAL`: it is none.
    pub(crate) fn target(&self) -> Result<&[u8]> {
        match &self.body {
            Body::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The content of a regular file.
    ///
    /// # Errors
    /// `EISDIR`: a directory. `ESTALE`: dead. `EINVAL`: something else.
    pub(crate) fn file(&self) -> Result<&File> {
        match &self.body {
            Body::File(file) => Ok(file),
            _ => Err(self.no_file()),
        }
    }

    /// As [`file`](Self::file), to change it.
    pub(crate) fn file_mut(&mut self) -> Result<&mut File> {
        let errno = self.no_file();
        match &mut self.body {
            Body::File(file) => Ok(file),
            _ => Err(errno),
        }
    }

    fn no_file(&self) -> Errno {
        match &self.body {
            Body::Dir(_) => Errno::EISDIR,
            Body::None if self.dead => Errno::ESTALE,
            _ => Errno::EINVAL,
        }
    }

    /// A change of the data, or of a directory's entries.
    pub(crate) fn modified(&mut self, now: Timestamp) {
        self.mtime = now.into();
        self.ctime = now.into();
    }

    pub(crate) fn set_mtime(&mut self, mtime: Timestamp) {
        self.mtime = mtime.into();
    }

    /// A change of anything but the data.
    pub(crate) fn changed(&mut self, now: Timestamp) {
        self.ctime = now.into();
    }

    /// Clears setuid, and setgid where the group may execute (elsewhere it means mandatory
    /// locking).
    pub(crate) fn clear_suid_sgid(&mut self) {
        self.mode &= !S_ISUID;
        if self.mode & S_IXGRP != 0 {
            self.mode &= !S_ISGID;
        }
    }

    /// What it is charged, its names apart.
    pub(crate) fn cost(&self) -> u64 {
        let body = match &self.body {
            Body::File(file) => file.extents.charged(),
            Body::Dir(_) => DIR_COST,
            Body::Symlink(target) => target_cost(target.len()),
            Body::None => 0,
        };
        NODE_COST + body + self.xattrs.charged()
    }
}

/// A copy of `bytes`.
///
/// # Errors
/// `ENOMEM`: the host has no memory for it.
pub(crate) fn copy_of(bytes: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

/// A shared node.
pub(crate) type NodeArc = Arc<Node>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_below_zero_stops_at_zero() {
        let node = Node::for_tests();
        node.raise();
        assert!(!node.lower(1));
        assert!(node.lower(u64::MAX));
        assert_eq!(node.lookups(), 0);
        assert!(node.lower(1));
    }

    #[test]
    fn raise_saturates() {
        let node = Node::for_tests();
        node.lookups.store(u64::MAX, Ordering::SeqCst);
        node.raise();
        assert_eq!(node.lookups(), u64::MAX);
    }

    #[test]
    fn touch_follows_relatime() {
        let node = Node::for_tests();
        let mut inode = node.write();
        inode.modified(Timestamp::new(100, 0));
        node.set_atime(&mut inode, Timestamp::new(50, 0));
        node.touch(&inode, Timestamp::new(200, 5));
        assert_eq!(node.attr(&inode).atime, Timestamp::new(200, 5));
        node.touch(&inode, Timestamp::new(300, 0));
        assert_eq!(node.attr(&inode).atime, Timestamp::new(200, 5), "already after mtime");
        node.touch(&inode, Timestamp::new(200 + STALE_ATIME, 0));
        assert_eq!(node.attr(&inode).atime.sec, 200 + STALE_ATIME);
        node.set_atime(&mut inode, Timestamp::new(-7, 3));
        assert_eq!(node.attr(&inode).atime, Timestamp::new(-7, 3));
    }
}
