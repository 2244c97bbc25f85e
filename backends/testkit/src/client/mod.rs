//! A client of a filesystem, as cases and models see it: paths and open files, in the terms of the
//! system calls.
//!
//! [`InProcess`] drives a filesystem with no kernel at all; [`Mounted`] makes the system calls on a
//! directory, be it of a mount or of the host.
//!
//! Paths are bytes relative to the root of the filesystem, without a leading `/`; the empty path
//! is the root itself. The last component is never followed when it is a symlink.

mod in_process;
mod mounted;

use std::fmt;

use stratafs_core::{
    Attr, FallocateMode, FileType, LockKind, OpenFlags, RenameFlags, Result, SeekTo, SetTime,
    StatFs, XattrMode,
};

pub use in_process::InProcess;
pub use mounted::Mounted;

/// An open file or directory of a [`Client`]. Closed by [`Client::close`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fd(pub u64);

/// For whom a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id. Any but 0 has none of root's capabilities.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The umask.
    pub umask: u32,
}

impl Caller {
    /// Root, without a umask: for whom every case starts.
    pub const ROOT: Self = Self { uid: 0, gid: 0, groups: Vec::new(), umask: 0 };

    /// The user `uid` of the group `gid` alone.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..Self::ROOT }
    }

    /// The same caller, a member of `group` too.
    #[must_use]
    pub fn in_group(mut self, group: u32) -> Self {
        self.groups.push(group);
        self
    }

    /// The same caller with this umask.
    #[must_use]
    pub fn with_umask(mut self, umask: u32) -> Self {
        self.umask = umask;
        self
    }
}

/// An entry of a listing.
#[derive(Clone, PartialEq, Eq)]
pub struct Listed {
    /// The inode number (`d_ino`).
    pub ino: u64,
    /// The type (`d_type`), where it is told.
    pub kind: Option<FileType>,
    /// The name, `.` and `..` included.
    pub name: Vec<u8>,
    /// Where the listing goes on after it (`d_off`).
    pub cookie: u64,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" {:?} ino {}", self.name.escape_ascii(), self.kind, self.ino)
    }
}

/// A client of one filesystem. Each method is the system call of its name; errors are the call's.
///
/// A client keeps what it opened in a table of [`Fd`]s, so that a run can close what a failed case
/// left open.
pub trait Client: Send + Sync {
    /// Prepares the calling thread, which stays with the client until [`Client::end`].
    fn begin(&self) -> Result<()>;
    /// Closes everything that is open, and is root again. Says how many files were left open.
    fn end(&self) -> Result<usize>;
    /// From now on asks for `caller`, on this thread.
    fn set_caller(&self, caller: &Caller) -> Result<()>;
    /// The filesystem driven in process, for cases that speak to it directly.
    fn in_process(&self) -> Option<&InProcess> {
        None
    }

    /// lstat(2), with the creation time of statx(2) where there is one.
    fn stat(&self, path: &[u8]) -> Result<Attr>;
    /// fstat(2).
    fn fstat(&self, fd: Fd) -> Result<Attr>;
    /// chmod(2).
    fn chmod(&self, path: &[u8], mode: u32) -> Result<()>;
    /// lchown(2).
    fn chown(&self, path: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()>;
    /// truncate(2).
    fn truncate(&self, path: &[u8], size: u64) -> Result<()>;
    /// ftruncate(2).
    fn ftruncate(&self, fd: Fd, size: u64) -> Result<()>;
    /// utimensat(2).
    fn utimens(&self, path: &[u8], atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()>;

    /// readlink(2).
    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>>;
    /// symlink(2).
    fn symlink(&self, target: &[u8], path: &[u8]) -> Result<()>;
    /// mknod(2); `rdev` in the kernel's 32-bit encoding.
    fn mknod(&self, path: &[u8], mode: u32, rdev: u32) -> Result<()>;
    /// mkdir(2).
    fn mkdir(&self, path: &[u8], mode: u32) -> Result<()>;
    /// unlink(2).
    fn unlink(&self, path: &[u8]) -> Result<()>;
    /// rmdir(2).
    fn rmdir(&self, path: &[u8]) -> Result<()>;
    /// renameat2(2).
    fn rename(&self, from: &[u8], to: &[u8], flags: RenameFlags) -> Result<()>;
    /// link(2), which does not follow.
    fn link(&self, from: &[u8], to: &[u8]) -> Result<()>;
    /// linkat(2) of an open file.
    fn link_fd(&self, fd: Fd, to: &[u8]) -> Result<()>;

    /// open(2) of what exists.
    fn open(&self, path: &[u8], flags: OpenFlags) -> Result<Fd>;
    /// open(2) with O_CREAT.
    fn create(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd>;
    /// open(2) with O_TMPFILE, in the directory `path`.
    fn tmpfile(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd>;
    /// pread(2), once.
    fn pread(&self, fd: Fd, offset: u64, len: usize) -> Result<Vec<u8>>;
    /// pwrite(2), once; at the end for a file that is open with O_APPEND.
    fn pwrite(&self, fd: Fd, offset: u64, data: &[u8]) -> Result<usize>;
    /// fsync(2) or fdatasync(2), of a directory too.
    fn fsync(&self, fd: Fd, datasync: bool) -> Result<()>;
    /// close(2).
    fn close(&self, fd: Fd) -> Result<()>;
    /// fallocate(2).
    fn fallocate(&self, fd: Fd, mode: FallocateMode, offset: u64, len: u64) -> Result<()>;
    /// lseek(2) for data or holes.
    fn seek(&self, fd: Fd, offset: u64, to: SeekTo) -> Result<u64>;
    /// copy_file_range(2), once.
    fn copy_range(&self, from: (Fd, u64), to: (Fd, u64), len: u64) -> Result<usize>;
    /// flock(2) with LOCK_NB.
    fn flock(&self, fd: Fd, kind: LockKind) -> Result<()>;

    /// open(2) of a directory.
    fn opendir(&self, path: &[u8]) -> Result<Fd>;
    /// The entries after `cookie` (0: the start), `max` at the most; empty at the end.
    fn readdir(&self, fd: Fd, cookie: u64, max: usize) -> Result<Vec<Listed>>;

    /// lgetxattr(2) of the whole value.
    fn getxattr(&self, path: &[u8], name: &[u8]) -> Result<Vec<u8>>;
    /// lgetxattr(2) into `size` bytes; 0 asks for the size. Gives what the call gives.
    fn getxattr_sized(&self, path: &[u8], name: &[u8], size: usize) -> Result<usize>;
    /// lsetxattr(2).
    fn setxattr(&self, path: &[u8], name: &[u8], value: &[u8], mode: XattrMode) -> Result<()>;
    /// llistxattr(2) of the whole list.
    fn listxattr(&self, path: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// llistxattr(2) into `size` bytes; 0 asks for the size. Gives what the call gives.
    fn listxattr_sized(&self, path: &[u8], size: usize) -> Result<usize>;
    /// lremovexattr(2).
    fn removexattr(&self, path: &[u8], name: &[u8]) -> Result<()>;

    /// statfs(2).
    fn statfs(&self) -> Result<StatFs>;
}

impl fmt::Debug for dyn Client + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.in_process().is_some() {
            "Client(in process)"
        } else {
            "Client(mounted)"
        })
    }
}

/// The names in a list of extended attributes, each of which ends with a NUL.
fn split_names(list: &[u8]) -> Vec<Vec<u8>> {
    list.split_inclusive(|b| *b == 0)
        .map(|name| name.strip_suffix(&[0]).unwrap_or(name).to_vec())
        .collect()
}
