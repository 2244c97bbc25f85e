//! A client that drives a filesystem with no kernel.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::attr::S_ISGID;
use stratafs_core::{
    Added, Attr, Context, CopyRange, Credentials, DirEntry, DirSink, DynFileSystem, Entry, Errno,
    FallocateMode, FileLock, HandleId, HandleRef, LockFlavour, LockKind, LockOwner, Name, NodeId,
    NodeRef, OpenFlags, Opened, Release, RenameFlags, Result, SeekTo, SetAttr, SetTime, SliceSink,
    SliceSource, StatFs, WriteFlags, XattrMode, XattrName,
};

use super::{Caller, Client, Fd, Listed};
use crate::Ledger;

/// O_CREAT, which a kernel leaves in what it sends.
const O_CREAT: u32 = 0o100;

/// The largest value and the longest list of extended attributes: XATTR_SIZE_MAX, XATTR_LIST_MAX.
const XATTR_MAX: usize = 65_536;

/// What the client keeps of an open file or directory. Fields are given back in this order.
struct Open {
    handle: HandleRef,
    node: NodeRef,
    flags: OpenFlags,
    dir: bool,
}

/// A client of a filesystem in this process: a path walker over lookups, which gives back every
/// reference that it took.
///
/// Where the kernel stands between a program and a filesystem this client does what the kernel
/// would: O_TRUNC of an open becomes a setattr, kill-priv is asked for when the caller is not root,
/// and a chmod by a caller outside the file's group loses setgid. It checks no permissions.
pub struct InProcess {
    fs: Arc<dyn DynFileSystem>,
    uncounted: Arc<dyn DynFileSystem>,
    caller: Mutex<Caller>,
    files: Mutex<HashMap<Fd, Arc<Open>>>,
    next: AtomicU64,
}

impl InProcess {
    /// A client of `fs`.
    #[must_use]
    pub fn new(fs: Arc<dyn DynFileSystem>) -> Self {
        Self {
            uncounted: Arc::clone(&fs),
            fs,
            caller: Mutex::new(Caller::ROOT),
            files: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// A client of `fs`, with a [`Ledger`] of what it gives.
    #[must_use]
    pub fn counted(fs: Arc<dyn DynFileSystem>) -> (Self, Arc<Ledger>) {
        let (counted, ledger) = Ledger::keep(Arc::clone(&fs));
        (Self { uncounted: fs, ..Self::new(counted) }, ledger)
    }

    /// The filesystem behind the ledger: for calls that a client should not make.
    #[must_use]
    pub fn uncounted(&self) -> &Arc<dyn DynFileSystem> {
        &self.uncounted
    }

    /// The filesystem.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn DynFileSystem> {
        &self.fs
    }

    /// Finds the object at `path`. The reference is given back when the result is dropped.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`: as for path_resolution(7). `ENAMETOOLONG`: a name of more than 255
    /// bytes, which no filesystem is ever asked for.
    pub fn walk(&self, path: &[u8]) -> Result<NodeRef> {
        self.walk_entry(path).map(|(node, _)| node)
    }

    /// As [`walk`](Self::walk), with the entry that the last lookup answered; `None` for the root.
    ///
    /// # Errors
    /// As [`walk`](Self::walk).
    pub fn walk_entry(&self, path: &[u8]) -> Result<(NodeRef, Option<Entry>)> {
        let mut at = NodeRef::root(Arc::clone(&self.fs));
        let mut last = None;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let cx = self.context();
            let found = self.fs.lookup(&cx, at.node(), Name::new(name)?)?.found()?;
            at = NodeRef::adopt(Arc::clone(&self.fs), &found);
            last = Some(found);
        }
        Ok((at, last))
    }

    /// The directory that `path` is in, and the name that it has there.
    ///
    /// # Errors
    /// As [`walk`](Self::walk); `EINVAL` for the root, `ENOTDIR` in what is no directory.
    pub fn parent<'p>(&self, path: &'p [u8]) -> Result<(NodeRef, Name<'p>)> {
        let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let (dir, entry) = self.walk_entry(dir)?;
        // Before anything else is resolved, as the kernel's walk does.
        if entry.is_some_and(|entry| !entry.attr.is_dir()) {
            return Err(Errno::ENOTDIR);
        }
        Ok((dir, Name::new(name)?))
    }

    /// The context of the present caller.
    #[must_use]
    pub fn context(&self) -> Context<'static> {
        let caller = self.caller.lock();
        let credentials = Credentials::new(caller.uid, caller.gid);
        Context::new(std::process::id(), Some(credentials)).with_umask(caller.umask)
    }

    /// The context for a creation in `parent`: with the supplementary group that is the parent's,
    /// as CREATE_SUPP_GROUP sends it.
    fn creation(&self, parent: &NodeRef) -> Result<Context<'static>> {
        let cx = self.context();
        let groups = self.caller.lock().groups.clone();
        if groups.is_empty() {
            return Ok(cx);
        }
        let gid = self.fs.getattr(&cx, parent.node(), None)?.attr.gid;
        Ok(cx.with_supplementary_group(groups.contains(&gid).then_some(gid)))
    }

    /// Whether a kernel would ask for kill-priv: the caller lacks CAP_FSETID.
    fn kill_priv(&self) -> bool {
        self.caller.lock().uid != 0
    }

    fn adopt(&self, entry: &Entry) -> NodeRef {
        NodeRef::adopt(Arc::clone(&self.fs), entry)
    }

    fn keep_file(&self, node: NodeRef, opened: &Opened, flags: OpenFlags) -> Fd {
        let fd = Fd(self.next.fetch_add(1, Ordering::Relaxed));
        let release = Release::new(None, Some(LockOwner(fd.0)));
        let handle = HandleRef::file(Arc::clone(&self.fs), node.node(), opened.handle, release);
        self.files.lock().insert(fd, Arc::new(Open { handle, node, flags, dir: false }));
        fd
    }

    /// The node and the handle that `fd` stands for.
    ///
    /// # Errors
    /// `EBADF`: not open.
    pub fn ids(&self, fd: Fd) -> Result<(NodeId, HandleId)> {
        let open = self.open_file(fd)?;
        Ok((open.node.node(), open.handle.handle()))
    }

    /// An empty sink for listings that takes `max` entries, and no objects with them.
    #[must_use]
    pub fn listing(&self, max: usize) -> impl DirSink {
        Listing { entries: Vec::new(), max }
    }

    /// The entries of the directory `fd` after `cookie`, `max` at the most, with the objects that
    /// readdirplus looked up for them.
    ///
    /// # Errors
    /// `EBADF`: not open. What readdirplus answers.
    pub fn list_plus(
        &self,
        fd: Fd,
        cookie: u64,
        max: usize,
    ) -> Result<Vec<(Listed, Option<NodeRef>)>> {
        let (node, handle) = self.ids(fd)?;
        let mut sink = PlusListing { client: self, entries: Vec::new(), max };
        self.fs.readdirplus(&self.context(), node, handle, cookie, &mut sink)?;
        Ok(sink.entries)
    }

    fn open_file(&self, fd: Fd) -> Result<Arc<Open>> {
        self.files.lock().get(&fd).cloned().ok_or(Errno::EBADF)
    }

    fn setattr(&self, path: &[u8], set: &SetAttr) -> Result<()> {
        let node = self.walk(path)?;
        self.fs.setattr(&self.context(), node.node(), set).map(drop)
    }
}

/// What an xattr name that is no [`XattrName`] gets from the kernel, which knows the limits too.
fn xattr_name(name: &[u8]) -> Result<XattrName<'_>> {
    XattrName::new(name).map_err(|_| Errno::ERANGE)
}

impl Client for InProcess {
    fn begin(&self) -> Result<()> {
        self.set_caller(&Caller::ROOT)
    }

    fn end(&self) -> Result<usize> {
        self.set_caller(&Caller::ROOT)?;
        let files = std::mem::take(&mut *self.files.lock());
        Ok(files.len())
    }

    fn set_caller(&self, caller: &Caller) -> Result<()> {
        *self.caller.lock() = caller.clone();
        Ok(())
    }

    fn in_process(&self) -> Option<&InProcess> {
        Some(self)
    }

    fn stat(&self, path: &[u8]) -> Result<Attr> {
        let node = self.walk(path)?;
        Ok(self.fs.getattr(&self.context(), node.node(), None)?.attr)
    }

    fn fstat(&self, fd: Fd) -> Result<Attr> {
        let (node, handle) = self.ids(fd)?;
        Ok(self.fs.getattr(&self.context(), node, Some(handle))?.attr)
    }

    fn chmod(&self, path: &[u8], mode: u32) -> Result<()> {
        let node = self.walk(path)?;
        let attr = self.fs.getattr(&self.context(), node.node(), None)?.attr;
        let caller = self.caller.lock().clone();
        let in_group =
            caller.uid == 0 || caller.gid == attr.gid || caller.groups.contains(&attr.gid);
        let mut set = SetAttr::new();
        // `setattr_prepare` does it, for only the kernel knows all groups of the caller.
        set.mode = Some(if in_group { mode } else { mode & !S_ISGID });
        self.fs.setattr(&self.context(), node.node(), &set).map(drop)
    }

    fn chown(&self, path: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let mut set = SetAttr::new();
        (set.uid, set.gid) = (uid, gid);
        self.setattr(path, &set)
    }

    fn truncate(&self, path: &[u8], size: u64) -> Result<()> {
        let mut set = SetAttr::new();
        set.size = Some(size);
        set.kill_priv = self.kill_priv();
        self.setattr(path, &set)
    }

    fn ftruncate(&self, fd: Fd, size: u64) -> Result<()> {
        let (node, handle) = self.ids(fd)?;
        // `do_sys_ftruncate` refuses it. What an open with O_RDONLY and O_TRUNC sends looks the
        // same to a filesystem, and must work.
        if !self.open_file(fd)?.flags.writable() {
            return Err(Errno::EINVAL);
        }
        let mut set = SetAttr::new();
        set.size = Some(size);
        set.handle = Some(handle);
        set.kill_priv = self.kill_priv();
        self.fs.setattr(&self.context(), node, &set).map(drop)
    }

    fn utimens(&self, path: &[u8], atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
        let mut set = SetAttr::new();
        (set.atime, set.mtime) = (atime, mtime);
        self.setattr(path, &set)
    }

    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>> {
        let node = self.walk(path)?;
        let mut target = vec![0; 4096];
        let mut sink = SliceSink::new(&mut target);
        let n = self.fs.readlink(&self.context(), node.node(), &mut sink)?;
        if n != sink.filled() {
            return Err(Errno::EIO);
        }
        target.truncate(n);
        Ok(target)
    }

    fn symlink(&self, target: &[u8], path: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let cx = self.creation(&dir)?;
        self.fs.symlink(&cx, dir.node(), name, target).map(|entry| drop(self.adopt(&entry)))
    }

    fn mknod(&self, path: &[u8], mode: u32, rdev: u32) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let cx = self.creation(&dir)?;
        self.fs.mknod(&cx, dir.node(), name, mode, rdev).map(|entry| drop(self.adopt(&entry)))
    }

    fn mkdir(&self, path: &[u8], mode: u32) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let cx = self.creation(&dir)?;
        self.fs.mkdir(&cx, dir.node(), name, mode).map(|entry| drop(self.adopt(&entry)))
    }

    fn unlink(&self, path: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        self.fs.unlink(&self.context(), dir.node(), name)
    }

    fn rmdir(&self, path: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        self.fs.rmdir(&self.context(), dir.node(), name)
    }

    fn rename(&self, from: &[u8], to: &[u8], flags: RenameFlags) -> Result<()> {
        let (dir, name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        self.fs.rename(&self.context(), dir.node(), name, new_dir.node(), new_name, flags)
    }

    fn link(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let node = self.walk(from)?;
        let (dir, name) = self.parent(to)?;
        let entry = self.fs.link(&self.context(), node.node(), dir.node(), name)?;
        drop(self.adopt(&entry));
        if entry.node == node.node() { Ok(()) } else { Err(Errno::EIO) }
    }

    fn link_fd(&self, fd: Fd, to: &[u8]) -> Result<()> {
        let open = self.open_file(fd)?;
        let (dir, name) = self.parent(to)?;
        let entry = self.fs.link(&self.context(), open.node.node(), dir.node(), name)?;
        drop(self.adopt(&entry));
        if entry.node == open.node.node() { Ok(()) } else { Err(Errno::EIO) }
    }

    fn open(&self, path: &[u8], flags: OpenFlags) -> Result<Fd> {
        let node = self.walk(path)?;
        let opened = self.fs.open(&self.context(), node.node(), flags, false)?;
        let fd = self.keep_file(node, &opened, flags);
        if flags.truncate() {
            let (node, handle) = self.ids(fd)?;
            let mut set = SetAttr::new();
            set.size = Some(0);
            set.handle = Some(handle);
            set.kill_priv = self.kill_priv();
            if let Err(errno) = self.fs.setattr(&self.context(), node, &set) {
                self.close(fd)?;
                return Err(errno);
            }
        }
        Ok(fd)
    }

    fn create(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd> {
        let (dir, name) = self.parent(path)?;
        let cx = self.creation(&dir)?;
        let sent = OpenFlags::from_raw(flags.raw() | O_CREAT);
        let kill_priv = flags.truncate() && self.kill_priv();
        let (entry, opened) =
            self.fs.create(&cx, dir.node(), name, mode & 0o7777, sent, kill_priv)?;
        Ok(self.keep_file(self.adopt(&entry), &opened, flags))
    }

    fn tmpfile(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd> {
        let dir = self.walk(path)?;
        let cx = self.creation(&dir)?;
        let (entry, opened) = self.fs.tmpfile(&cx, dir.node(), mode & 0o7777, flags)?;
        Ok(self.keep_file(self.adopt(&entry), &opened, flags))
    }

    fn pread(&self, fd: Fd, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (node, handle) = self.ids(fd)?;
        let mut data = vec![0; len];
        let mut sink = SliceSink::new(&mut data);
        let n = self.fs.read(&self.context(), node, handle, offset, len, &mut sink)?;
        if n != sink.filled() {
            return Err(Errno::EIO);
        }
        data.truncate(n);
        Ok(data)
    }

    fn pwrite(&self, fd: Fd, offset: u64, data: &[u8]) -> Result<usize> {
        let open = self.open_file(fd)?;
        let mut flags = WriteFlags::empty();
        flags.set(WriteFlags::APPEND, open.flags.append());
        flags.set(WriteFlags::SYNC, open.flags.sync());
        flags.set(WriteFlags::KILL_PRIV, self.kill_priv());
        let (node, handle) = (open.node.node(), open.handle.handle());
        let mut source = SliceSource::new(data);
        self.fs.write(&self.context(), node, handle, offset, data.len(), flags, &mut source)
    }

    fn fsync(&self, fd: Fd, datasync: bool) -> Result<()> {
        let open = self.open_file(fd)?;
        let (cx, node, handle) = (self.context(), open.node.node(), open.handle.handle());
        if open.dir {
            self.fs.fsyncdir(&cx, node, handle, datasync)
        } else {
            self.fs.fsync(&cx, node, handle, datasync)
        }
    }

    fn close(&self, fd: Fd) -> Result<()> {
        let open = self.files.lock().remove(&fd).ok_or(Errno::EBADF)?;
        if open.dir {
            return Ok(());
        }
        let (node, handle) = (open.node.node(), open.handle.handle());
        self.fs.flush(&self.context(), node, handle, LockOwner(fd.0))
    }

    fn fallocate(&self, fd: Fd, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let (node, handle) = self.ids(fd)?;
        self.fs.fallocate(&self.context(), node, handle, mode, offset, len)
    }

    fn seek(&self, fd: Fd, offset: u64, to: SeekTo) -> Result<u64> {
        let (node, handle) = self.ids(fd)?;
        self.fs.lseek(&self.context(), node, handle, offset, to)
    }

    fn copy_range(&self, from: (Fd, u64), to: (Fd, u64), len: u64) -> Result<usize> {
        let range =
            |(fd, offset)| self.ids(fd).map(|(node, handle)| CopyRange::new(node, handle, offset));
        self.fs.copy_file_range(&self.context(), range(from)?, range(to)?, len)
    }

    fn flock(&self, fd: Fd, kind: LockKind) -> Result<()> {
        let (node, handle) = self.ids(fd)?;
        let lock = FileLock::new(kind, 0, u64::MAX, std::process::id());
        let owner = LockOwner(fd.0);
        self.fs.setlk(&self.context(), node, handle, owner, lock, LockFlavour::Flock)
    }

    fn opendir(&self, path: &[u8]) -> Result<Fd> {
        let node = self.walk(path)?;
        let opened = self.fs.opendir(&self.context(), node.node(), OpenFlags::READ_ONLY)?;
        let fd = Fd(self.next.fetch_add(1, Ordering::Relaxed));
        let handle = HandleRef::dir(Arc::clone(&self.fs), node.node(), opened.handle);
        let open = Open { handle, node, flags: OpenFlags::READ_ONLY, dir: true };
        self.files.lock().insert(fd, Arc::new(open));
        Ok(fd)
    }

    fn readdir(&self, fd: Fd, cookie: u64, max: usize) -> Result<Vec<Listed>> {
        let (node, handle) = self.ids(fd)?;
        let mut sink = Listing { entries: Vec::new(), max };
        self.fs.readdir(&self.context(), node, handle, cookie, &mut sink)?;
        Ok(sink.entries)
    }

    fn getxattr(&self, path: &[u8], name: &[u8]) -> Result<Vec<u8>> {
        let node = self.walk(path)?;
        let mut value = vec![0; XATTR_MAX];
        let n = self.fs.getxattr(&self.context(), node.node(), xattr_name(name)?, &mut value)?;
        value.truncate(n);
        Ok(value)
    }

    fn getxattr_sized(&self, path: &[u8], name: &[u8], size: usize) -> Result<usize> {
        let node = self.walk(path)?;
        self.fs.getxattr(&self.context(), node.node(), xattr_name(name)?, &mut vec![0; size])
    }

    fn setxattr(&self, path: &[u8], name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let node = self.walk(path)?;
        self.fs.setxattr(&self.context(), node.node(), xattr_name(name)?, value, mode, false)
    }

    fn listxattr(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let node = self.walk(path)?;
        let mut list = vec![0; XATTR_MAX];
        let n = self.fs.listxattr(&self.context(), node.node(), &mut list)?;
        Ok(super::split_names(list.get(..n).ok_or(Errno::EIO)?))
    }

    fn listxattr_sized(&self, path: &[u8], size: usize) -> Result<usize> {
        let node = self.walk(path)?;
        self.fs.listxattr(&self.context(), node.node(), &mut vec![0; size])
    }

    fn removexattr(&self, path: &[u8], name: &[u8]) -> Result<()> {
        let node = self.walk(path)?;
        self.fs.removexattr(&self.context(), node.node(), xattr_name(name)?)
    }

    fn statfs(&self) -> Result<StatFs> {
        self.fs.statfs(&self.context(), NodeId::ROOT)
    }
}

/// Collects at most `max` entries.
struct Listing {
    entries: Vec<Listed>,
    max: usize,
}

impl DirSink for Listing {
    fn fits(&self, _: usize) -> bool {
        self.entries.len() < self.max
    }

    fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
        if self.entries.len() == self.max {
            return Added::Full;
        }
        self.entries.push(listed(entry));
        Added::Taken
    }
}

/// Collects at most `max` entries with their objects.
struct PlusListing<'c> {
    client: &'c InProcess,
    entries: Vec<(Listed, Option<NodeRef>)>,
    max: usize,
}

impl DirSink for PlusListing<'_> {
    // Says yes always, so that the answer Full comes with an object already looked up.
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if self.entries.len() == self.max {
            return Added::Full;
        }
        let node = plus.map(|plus| self.client.adopt(plus));
        self.entries.push((listed(entry), node));
        Added::Taken
    }
}

fn listed(entry: &DirEntry<'_>) -> Listed {
    Listed { ino: entry.ino, kind: entry.kind, name: entry.name.to_vec(), cookie: entry.cookie }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InProcess({:?})", self.fs)
    }
}
