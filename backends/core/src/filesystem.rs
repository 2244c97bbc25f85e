//! The trait that every filesystem implements, and its contract.

use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;

use crate::{
    Access, Attr, BackingFile, Context, DirSink, Entry, Errno, Features, FileLock, HandleId,
    LockFlavour, LockOwner, Name, Negotiated, NodeId, Notifier, OpenFlags, Opened, OpenedFlags,
    Pending, PersistentId, ReadSink, Reply, Result, SetAttr, StatFs, State, TimedAttr, WriteFlags,
    WriteSource, XattrName,
};

/// What a lookup answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name leads to an object, whose lookup count was raised by one.
    Found(Entry),
    /// The name is absent, and may be taken to be so for this long.
    Absent(Duration),
}

impl Lookup {
    /// The entry.
    ///
    /// # Errors
    /// `ENOENT` where the name is absent.
    pub fn found(self) -> Result<Entry> {
        match self {
            Self::Found(entry) => Ok(entry),
            Self::Absent(_) => Err(Errno::ENOENT),
        }
    }
}

bitflags! {
    /// The flags of renameat2(2), with its bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RenameFlags: u32 {
        /// Fail with EEXIST where the new name exists.
        const NOREPLACE = 1 << 0;
        /// Swap the two names, which must both exist.
        const EXCHANGE = 1 << 1;
        /// Leave a whiteout under the old name, in the same step.
        const WHITEOUT = 1 << 2;
    }
}

bitflags! {
    /// The mode of fallocate(2), with its bits. None set: allocate, and extend the size.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// The size stays.
        const KEEP_SIZE = 1 << 0;
        /// Free the range: it reads as zeros. Comes with KEEP_SIZE.
        const PUNCH_HOLE = 1 << 1;
        /// Cut the range out; what follows moves down.
        const COLLAPSE_RANGE = 1 << 3;
        /// The range reads as zeros, allocated.
        const ZERO_RANGE = 1 << 4;
        /// Make room in the middle; what follows moves up.
        const INSERT_RANGE = 1 << 5;
        /// Make shared storage the file's own.
        const UNSHARE_RANGE = 1 << 6;
    }
}

/// How a setxattr treats an attribute that exists, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XattrMode {
    /// Make or replace.
    #[default]
    Set,
    /// Make only: `EEXIST` where it exists (XATTR_CREATE).
    Create,
    /// Replace only: `ENODATA` where it does not (XATTR_REPLACE).
    Replace,
}

/// What an lseek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeekTo {
    /// The next data (SEEK_DATA).
    Data,
    /// The next hole, the end of the file included (SEEK_HOLE).
    Hole,
}

/// One side of a copy_file_range: where in which open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyRange {
    /// The node.
    pub node: NodeId,
    /// The handle it is open by.
    pub handle: HandleId,
    /// The first byte.
    pub offset: u64,
}

impl CopyRange {
    /// The file from byte `offset` on, by an open handle.
    #[must_use]
    pub const fn new(node: NodeId, handle: HandleId, offset: u64) -> Self {
        Self { node, handle, offset }
    }
}

/// How a file handle is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Release {
    /// Flush as at close(2), POSIX locks of this owner included.
    pub flush: Option<LockOwner>,
    /// Give up the flock(2) lock of this owner.
    pub flock: Option<LockOwner>,
}

impl Release {
    /// A release that flushes for, and gives up the lock of, whoever is named.
    #[must_use]
    pub const fn new(flush: Option<LockOwner>, flock: Option<LockOwner>) -> Self {
        Self { flush, flock }
    }
}

/// A filesystem, as everything in stratafs sees it.
///
/// One `Arc<dyn DynFileSystem>` is shared by every worker of every session that serves it.
///
/// # The contract common to all methods
///
/// **Lookup counts.** An [`Entry`] that a method returns, or gives to a [`DirSink`] and sees taken,
/// raises its node's lookup count by one; [`forget`](Self::forget) lowers it. The same object has
/// the same [`NodeId`] while its count is above zero. An object whose last name is removed stays
/// usable through its node until the count is zero and every handle is released. The root counts
/// as looked up for ever. Counts saturate, and never wrap.
///
/// **Ids.** A caller passes only ids that it was given. A filesystem nevertheless never panics on
/// another: it answers `ESTALE` for a node that it does not know and `EBADF` for a handle.
///
/// **Permissions** are the kernel's: a filesystem checks no access, and an owner's rights come into
/// play only where the kernel leaves them to it (the setgid bit of a new mode).
///
/// **Errors** are [`Errno`]s. `ENOSYS` never comes from a filesystem, since a kernel remembers it for
/// the whole connection; a method that a filesystem does not have answers `EOPNOTSUPP`, as the
/// defaults here do. A failed call changes nothing that a client could see, unless its documentation
/// says otherwise. Any method may answer `EIO`, `ENOMEM`, `ENOSPC` or `EDQUOT` for what they mean.
///
/// **Concurrency.** Every method may be called from any number of threads at a time, with the same
/// arguments too. Each change of the namespace is atomic: another thread sees all of it or none. No
/// lock of a filesystem is held across a sink, a source, a [`Reply`] or a call into another
/// filesystem, but for a per-node lock of copy-up or transfer.
///
/// **Durability.** What `fsync` or `fsyncdir` answered is durable as far as the filesystem's medium
/// is; before it nothing need be.
///
/// **Times.** A change of data sets mtime and ctime, a change of anything else ctime, and a change of
/// a directory's entries both of the directory, as inode(7) has it. Whether reading sets atime is
/// the filesystem's to choose.
///
/// # Source
/// The kernel's `include/linux/fs.h` and `Documentation/filesystems/vfs.rst`; fuse(4); the man page
/// named at each method.
pub trait DynFileSystem: Send + Sync {
    /// What this filesystem needs and promises. The same answer at every call.
    fn features(&self) -> Features;

    /// A session begins; `negotiated` is what it agreed on with its client. Called once for each
    /// session, before its other calls. A filesystem that serves several sessions does not bend to
    /// the last one's terms: what one of them has agreed on (a backing file, say) it offers in every
    /// answer, and the protocol strips what that session did not agree on.
    ///
    /// # Errors
    /// Any: the session is refused.
    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        let _ = negotiated;
        Ok(())
    }

    /// A session ends: that of `cx`. Its lookups are forgotten and its handles released before; what
    /// else is kept for its client is given up now, its locks above all, since a client that is gone
    /// gives none up and nobody else can.
    fn destroy(&self, cx: &Context<'_>) {
        let _ = cx;
    }

    /// Gives a way to tell a client of changes that do not come from it. Kept until it is closed.
    fn attach(&self, notifier: Arc<dyn Notifier>) {
        let _ = notifier;
    }

    /// Finds the object `name` in `parent`.
    ///
    /// Raises the lookup count of the object found by one.
    ///
    /// # Errors
    /// * `ENOTDIR`: `parent` is no directory.
    ///
    /// An absent name is no error but [`Lookup::Absent`].
    ///
    /// # Source
    /// path_resolution(7)
    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup>;

    /// Lowers the lookup count of `node` by `count`, to zero at the least. At zero the node is gone
    /// once no handle is open on it, and the memory kept for it is free. Of the root: no effect.
    fn forget(&self, node: NodeId, count: u64);

    /// [`forget`](Self::forget) for each of `nodes`.
    fn batch_forget(&self, nodes: &[(NodeId, u64)]) {
        for (node, count) in nodes {
            self.forget(*node, *count);
        }
    }

    /// The attributes of `node`, its creation time included where it is known. A `handle` that is
    /// open on it may serve to find them. Answers statx(2) as well as stat(2).
    ///
    /// # Source
    /// stat(2), statx(2)
    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr>;

    /// Changes attributes of `node`, all that `set` names or none, and gives the new ones.
    ///
    /// chown(2) of a file that is no directory clears setuid, setgid where the group may execute, and
    /// file capabilities. A change of size clears capabilities, and the others where `kill_priv` says
    /// that the caller may not keep them (it lacks CAP_FSETID). That a chmod(2) by a caller outside
    /// the file's group clears setgid is the kernel's work, which alone knows all of its groups. A
    /// size may come by a handle that is open for reading only: of an open with O_RDONLY and O_TRUNC.
    ///
    /// # Errors
    /// * `EISDIR`: a size for a directory. `EINVAL`: a size for another special object.
    /// * `EFBIG`: a size beyond what the filesystem can hold.
    /// * `EPERM`: the filesystem cannot keep what is asked.
    ///
    /// # Source
    /// chmod(2), chown(2), truncate(2), utimensat(2); `setattr_prepare` of the kernel
    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        let _ = (cx, node, set);
        Err(Errno::EOPNOTSUPP)
    }

    /// Writes the target of the symlink `node` into `target`, and says how many bytes that were.
    ///
    /// # Errors
    /// * `EINVAL`: it is no symlink.
    ///
    /// # Source
    /// readlink(2)
    fn readlink(&self, cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        let _ = (cx, node, target);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes `name` in `parent` a symlink to `target`, which is kept as it is: 1 to 4095 bytes
    /// without NUL.
    ///
    /// Raises the lookup count of the new node by one.
    ///
    /// # Errors
    /// * `EEXIST`: the name exists. `ENOTDIR`: `parent` is no directory. `ENOENT`: `parent` was
    ///   removed. `ENAMETOOLONG`: a target of more than 4095 bytes. `ENOENT`: an empty target.
    ///
    /// # Source
    /// symlink(2)
    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        let _ = (cx, parent, name, target);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes `name` in `parent` an object of the type in `mode`: a regular file, device, FIFO or
    /// socket. The umask of the context is applied; in a setgid directory the group is the
    /// directory's.
    ///
    /// Raises the lookup count of the new node by one.
    ///
    /// # Errors
    /// * `EEXIST`, `ENOTDIR`, `ENOENT`: as [`symlink`](Self::symlink).
    /// * `EINVAL`: `mode` has no type, or that of a directory or symlink. No type bits at all mean
    ///   a regular file.
    /// * `EPERM`: a whiteout (character device `0:0`) where the filesystem keeps those to itself.
    ///
    /// # Source
    /// mknod(2)
    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let _ = (cx, parent, name, mode, rdev);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes `name` in `parent` an empty directory. In a setgid directory it is setgid too, and its
    /// group the parent's.
    ///
    /// Raises the lookup count of the new node by one.
    ///
    /// # Errors
    /// * `EEXIST`, `ENOTDIR`, `ENOENT`: as [`symlink`](Self::symlink). `EMLINK`: too many
    ///   directories in `parent`.
    ///
    /// # Source
    /// mkdir(2)
    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        let _ = (cx, parent, name, mode);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes the name `name`, which leads to no directory, from `parent`.
    ///
    /// The node stays usable until its lookup count is zero and its handles are released.
    ///
    /// # Errors
    /// * `ENOENT`: the name is absent. `EISDIR`: it leads to a directory.
    ///
    /// # Source
    /// unlink(2)
    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (cx, parent, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes the empty directory `name` from `parent`.
    ///
    /// The node stays usable until its lookup count is zero; nothing can be made in it any more.
    ///
    /// # Errors
    /// * `ENOENT`: the name is absent. `ENOTDIR`: it leads to no directory.
    /// * `ENOTEMPTY`: a visible child remains; whiteouts do not count.
    ///
    /// # Concurrency
    /// Atomic against a creation in the removed directory.
    ///
    /// # Source
    /// rmdir(2)
    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (cx, parent, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// Moves `name` in `parent` to `new_name` in `new_parent`, in one step, replacing what is there.
    ///
    /// Two names of one object: nothing happens, successfully.
    ///
    /// # Errors
    /// * `ENOENT`: the old name is absent, or the new one with EXCHANGE, or a parent was removed.
    /// * `EEXIST`: the new name exists, with NOREPLACE.
    /// * `EISDIR`, `ENOTDIR`: a directory would replace something else, or be replaced by it.
    /// * `ENOTEMPTY`: a directory that is not empty would be replaced.
    /// * `EINVAL`: a directory would become its own descendant; flags that exclude each other
    ///   (EXCHANGE with one of the others) or are unknown.
    /// * `EXDEV`: the move needs more than one step.
    ///
    /// # Source
    /// rename(2), `renameat2`
    fn rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (cx, parent, name, new_parent, new_name, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives `node`, which is no directory, the further name `new_name` in `new_parent`. A file of
    /// [`tmpfile`](Self::tmpfile) gets its first name so.
    ///
    /// Raises the lookup count of `node` by one.
    ///
    /// # Errors
    /// * `EEXIST`, `ENOTDIR`, `ENOENT`: as [`symlink`](Self::symlink). `EPERM`: a directory.
    /// * `EMLINK`: too many names. `ENOENT`: `node` has no name left and did not come of a
    ///   `tmpfile` that allows one.
    ///
    /// # Source
    /// link(2)
    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        let _ = (cx, node, new_parent, new_name);
        Err(Errno::EOPNOTSUPP)
    }

    /// Opens the regular file `node`. O_CREAT, O_EXCL and O_NOCTTY are not in `flags`; O_TRUNC is
    /// only where ATOMIC_O_TRUNC was agreed on, and then `kill_priv` goes with it.
    ///
    /// # Errors
    /// * `EISDIR`: a directory. `ENXIO` or `EINVAL`: another special object.
    /// * `ENFILE`: the limit of open handles is reached.
    /// * `ESTALE`: the object is to be looked up again, which the kernel does by itself, once.
    ///
    /// # Source
    /// open(2)
    fn open(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let _ = (cx, node, flags, kill_priv);
        Ok(Opened::stateless(OpenedFlags::empty()))
    }

    /// Makes `name` in `parent` a regular file of permissions `mode`, and opens it, in one step. A
    /// name that exists is opened instead (and cut with O_TRUNC), unless O_EXCL is in `flags`.
    ///
    /// Raises the node's lookup count by one.
    ///
    /// # Errors
    /// * `EEXIST`: the name exists, with O_EXCL. `EISDIR`: it leads to a directory.
    /// * `ENOTDIR`, `ENOENT`: as [`symlink`](Self::symlink). `ENFILE`: as [`open`](Self::open); then
    ///   nothing was made.
    ///
    /// # Source
    /// open(2), O_CREAT
    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(Entry, Opened)> {
        let _ = (cx, parent, name, mode, flags, kill_priv);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a regular file without a name, on the filesystem of the directory `parent`, and opens
    /// it. [`link`](Self::link) can give it a name unless O_EXCL is in `flags`.
    ///
    /// Raises the new node's lookup count by one.
    ///
    /// # Errors
    /// * `ENOTDIR`: `parent` is no directory. `EOPNOTSUPP`: not here.
    ///
    /// # Source
    /// open(2), O_TMPFILE
    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let _ = (cx, parent, mode, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Puts up to `size` bytes of the file from `offset` into `sink`, and says how many: fewer only
    /// at the end of the file or of the sink.
    ///
    /// # Errors
    /// * `EBADF`: the handle is not open for reading. `EISDIR`: a directory.
    ///
    /// After an error whatever the sink took is void.
    ///
    /// # Concurrency
    /// Not atomic against a write of several pages, as read(2) is not on Linux.
    ///
    /// # Source
    /// pread(2)
    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let _ = (cx, node, handle, offset, size, sink);
        Err(Errno::EOPNOTSUPP)
    }

    /// Writes what `source` gives, up to `size` bytes, into the file from `offset`, and says how
    /// many. With KILL_PRIV it clears setuid, setgid and capabilities first. A size of 0 changes
    /// nothing.
    ///
    /// # Errors
    /// * `EBADF`: the handle is not open for writing. `EFBIG`: beyond what a file can hold.
    /// * `ENOSPC`, `EDQUOT`: not one byte fits; where some do, their count is the answer.
    ///
    /// # Durability
    /// With SYNC the data is durable before the answer.
    ///
    /// # Source
    /// pwrite(2)
    #[expect(clippy::too_many_arguments, reason = "the operands of pwrite(2), and who asks")]
    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let _ = (cx, node, handle, offset, size, flags, source);
        Err(Errno::EOPNOTSUPP)
    }

    /// A descriptor of `handle` was closed; others may remain. Errors of delayed writes come out
    /// here, and POSIX locks of `owner` are given up where the filesystem keeps them.
    ///
    /// # Source
    /// close(2)
    fn flush(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        let _ = (cx, node, handle, owner);
        Ok(())
    }

    /// Makes the file durable: its data, and unless `datasync` its attributes.
    ///
    /// There is no default: what answers without having done so loses a user's data.
    ///
    /// # Errors
    /// * `EIO`: some of it is lost; told once.
    ///
    /// # Source
    /// fsync(2)
    fn fsync(&self, cx: &Context<'_>, node: NodeId, handle: HandleId, datasync: bool)
    -> Result<()>;

    /// Ends an open handle of a file. It is gone whatever the answer.
    fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        let _ = (cx, node, handle, release);
        Ok(())
    }

    /// Allocates, frees or moves storage of the file, as `mode` says.
    ///
    /// # Errors
    /// * `EOPNOTSUPP`: a mode that the filesystem has not. `EINVAL`: an empty range, a mode that
    ///   contradicts itself, a collapse or an insert that is not at a block's bounds or reaches the
    ///   end. `EFBIG`: the range ends beyond what a file can hold. `ENOSPC`: then nothing changed.
    /// * `EBADF`: the handle is not open for writing. `ENODEV`: no regular file.
    ///
    /// # Source
    /// fallocate(2)
    fn fallocate(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let _ = (cx, node, handle, mode, offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// The first offset at or after `offset` that is in data, or in a hole.
    ///
    /// # Errors
    /// * `ENXIO`: `offset` is at or after the end, or no data follows.
    ///
    /// # Source
    /// lseek(2), SEEK_DATA and SEEK_HOLE
    fn lseek(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let _ = (cx, node, handle, offset, to);
        Err(Errno::EOPNOTSUPP)
    }

    /// Copies up to `len` bytes from one open file into another, or within one, and says how many:
    /// fewer at the end of `from`. It may share storage. Like a write it clears setuid and setgid
    /// of the target.
    ///
    /// # Errors
    /// * `EINVAL`: the ranges overlap in one file. `EBADF`: a handle is not open that way.
    /// * `EXDEV`, `EOPNOTSUPP`: not here; the kernel then copies by itself.
    ///
    /// # Source
    /// copy_file_range(2)
    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        let _ = (cx, from, to, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// Opens the directory `node` for listing.
    ///
    /// # Errors
    /// * `ENOTDIR`: no directory. `ENFILE`: as [`open`](Self::open).
    ///
    /// # Source
    /// opendir(3)
    fn opendir(&self, cx: &Context<'_>, node: NodeId, flags: OpenFlags) -> Result<Opened> {
        let _ = (cx, node, flags);
        Ok(Opened::stateless(OpenedFlags::empty()))
    }

    /// Offers the entries of the directory that follow `cookie` to `sink`, `.` and `..` first,
    /// until it is full or none is left. A cookie of 0 is the start, and sees the directory as it
    /// is then: rewinddir(3) shows a fresh listing.
    ///
    /// Takes no lookup reference. An entry that is there from the first call to the last is listed
    /// once and only once, whatever comes and goes beside it.
    ///
    /// # Errors
    /// * `ENOTDIR`: no directory.
    ///
    /// Once an entry was taken no error is answered: the listing ends there, and the next call meets
    /// the error again. So what a sink took always counts.
    ///
    /// # Source
    /// readdir(3), getdents64(2)
    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()>;

    /// [`readdir`](Self::readdir) with each entry looked up.
    ///
    /// Raises the lookup count of each object that the sink took by one, and never answers an error
    /// after that.
    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let _ = (cx, node, handle, cookie, sink);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes the entries of the directory durable.
    ///
    /// There is no default, as for [`fsync`](Self::fsync).
    ///
    /// # Source
    /// fsync(2) of a directory
    fn fsyncdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()>;

    /// Ends an open handle of a directory. It is gone whatever the answer.
    fn releasedir(&self, cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        let _ = (cx, node, handle);
        Ok(())
    }

    /// The value of the attribute `name`. With an empty `value` only its size is told; otherwise it
    /// is put there and its size told.
    ///
    /// # Errors
    /// * `ENODATA`: no such attribute. `ERANGE`: `value` is too small, and not empty.
    /// * `EOPNOTSUPP`: attributes of this kind are not kept.
    ///
    /// # Source
    /// getxattr(2), xattr(7)
    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        let _ = (cx, node, name, value);
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets the attribute `name` to `value`, of at most 65,536 bytes. `clear_setgid` is set for an
    /// ACL that the caller may not keep the setgid bit with.
    ///
    /// # Errors
    /// * `EEXIST`, `ENODATA`: as `mode` says. `ENOSPC`: no room. `E2BIG`: too long a value.
    /// * `EOPNOTSUPP`: attributes of this kind are not kept. `EPERM`: not on this type of object.
    ///
    /// # Source
    /// setxattr(2)
    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
        clear_setgid: bool,
    ) -> Result<()> {
        let _ = (cx, node, name, value, mode, clear_setgid);
        Err(Errno::EOPNOTSUPP)
    }

    /// The names of all attributes, each ended by a NUL. With an empty `names` only their size is
    /// told.
    ///
    /// # Errors
    /// * `ERANGE`: `names` is too small, and not empty.
    ///
    /// # Source
    /// listxattr(2)
    fn listxattr(&self, cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        let _ = (cx, node, names);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes the attribute `name`.
    ///
    /// # Errors
    /// * `ENODATA`: no such attribute. `EOPNOTSUPP`, `EPERM`: as [`setxattr`](Self::setxattr).
    ///
    /// # Source
    /// removexattr(2)
    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let _ = (cx, node, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether the caller may do `mask` (R_OK, W_OK, X_OK). Asked only of a filesystem that needs
    /// it, for permissions are the kernel's.
    ///
    /// # Source
    /// access(2)
    fn access(&self, cx: &Context<'_>, node: NodeId, mask: u32) -> Result<()> {
        let _ = (cx, node, mask);
        Ok(())
    }

    /// Size and use of the filesystem that `node` is on.
    ///
    /// # Source
    /// statfs(2)
    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<StatFs> {
        let _ = (cx, node);
        Ok(StatFs::default())
    }

    /// Makes all of the filesystem durable.
    ///
    /// # Source
    /// syncfs(2)
    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        let _ = (cx, node);
        Err(Errno::EOPNOTSUPP)
    }

    /// The first lock that keeps `owner` from `lock`; of kind `Unlock` where none does.
    ///
    /// # Source
    /// fcntl(2), F_GETLK
    fn getlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        let _ = (cx, node, handle, owner, lock);
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes `lock`, or gives it up, without waiting.
    ///
    /// # Errors
    /// * `EAGAIN`: another owner has a lock that conflicts. `ENOLCK`: too many locks.
    ///
    /// # Source
    /// fcntl(2), F_SETLK; flock(2) with LOCK_NB
    fn setlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
    ) -> Result<()> {
        let _ = (cx, node, handle, owner, lock, flavour);
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes `lock`, waiting for it as long as it takes. The answer goes through `reply`, now or
    /// later; the calling worker never waits. Where the answer is still to come the result is the
    /// means to call it off, upon which it is EINTR.
    ///
    /// # Errors
    /// (through `reply`)
    /// * `EINTR`: called off. `EDEADLK`: POSIX waits would form a ring. `ENOLCK`: too many locks.
    ///
    /// # Source
    /// fcntl(2), F_SETLKW; flock(2)
    #[expect(clippy::too_many_arguments, reason = "the operands of F_SETLKW, and who asks")]
    fn setlkw(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        let _ = (cx, node, handle, owner, lock, flavour);
        reply.send(Err(Errno::EOPNOTSUPP));
        None
    }

    /// The inode's flags: FS_*_FL of chattr(1).
    ///
    /// # Source
    /// ioctl_iflags(2), FS_IOC_GETFLAGS
    fn inode_flags(&self, cx: &Context<'_>, node: NodeId) -> Result<u32> {
        let _ = (cx, node);
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets the inode's flags.
    ///
    /// # Errors
    /// * `EOPNOTSUPP`: a flag that is not kept here.
    ///
    /// # Source
    /// ioctl_iflags(2), FS_IOC_SETFLAGS
    fn set_inode_flags(&self, cx: &Context<'_>, node: NodeId, flags: u32) -> Result<()> {
        let _ = (cx, node, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// A host file, open for `access`, that holds the data of `node`: for a copy that shares storage
    /// and for DAX. `None` where there is none, or not for that access.
    fn mapping_source(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        let _ = (node, access);
        None
    }

    /// An identity of `node` that outlives this server; `None` where the filesystem has none.
    ///
    /// # Errors
    /// What keeps it from being found out, which is not the same as there being none: a layer that
    /// would write it down fails instead of leaving it out.
    ///
    /// # Source
    /// name_to_handle_at(2)
    fn persistent_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        let _ = node;
        Ok(None)
    }

    /// Everything a successor needs so that the ids of live sessions stay good.
    fn capture_state(&self) -> Result<State> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes up where the filesystem that wrote `state` stopped: node and handle ids are restored
    /// exactly. Called before `init`.
    ///
    /// # Errors
    /// * `EINVAL`: another kind, an unknown version, or a state that contradicts itself; then
    ///   nothing changed.
    fn restore_state(&self, state: &State) -> Result<()> {
        let _ = state;
        Err(Errno::EOPNOTSUPP)
    }
}

impl std::fmt::Debug for dyn DynFileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DynFileSystem({})", self.features().kind)
    }
}

/// The mode of a new object in a directory, by the rules of inode(7): the umask applied, and in a
/// setgid directory the parent's group inherited. Gives `(mode, gid)`; `mode` carries its type.
///
/// A file that the caller could not make setgid by itself (it is outside the group and may be
/// executed by it) loses the bit, as `mode_strip_sgid` of the kernel has it.
#[must_use]
pub fn inherit(cx: &Context<'_>, parent: &Attr, mode: u32) -> (u32, u32) {
    use crate::attr::{FileType, S_ISGID, S_IXGRP};

    let is_dir = FileType::from_mode(mode) == Some(FileType::Directory);
    let mut mode = mode & !(cx.umask & 0o777);
    if parent.mode & S_ISGID == 0 {
        return (mode, cx.owner().gid);
    }
    if is_dir {
        mode |= S_ISGID;
    } else if mode & (S_ISGID | S_IXGRP) == (S_ISGID | S_IXGRP) && !cx.is_in_group(parent.gid) {
        mode &= !S_ISGID;
    }
    (mode, parent.gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn inherit_in_a_setgid_directory_takes_its_group() {
        let mut parent = Attr::new(1, 0o042_775);
        parent.gid = 50;
        let cx = Context::new(1, Some(Credentials::new(7, 7))).with_umask(0o022);
        assert_eq!(inherit(&cx, &parent, 0o040_777), (0o042_755, 50));
        assert_eq!(inherit(&cx, &parent, 0o102_775), (0o100_755, 50), "outside the group");
        let member = cx.with_supplementary_group(Some(50));
        assert_eq!(inherit(&member, &parent, 0o102_775), (0o102_755, 50));
        parent.mode = 0o040_775;
        assert_eq!(inherit(&cx, &parent, 0o102_666), (0o102_644, 7));
    }
}
