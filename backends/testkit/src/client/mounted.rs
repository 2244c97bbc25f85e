//! A client that makes the system calls on a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{self, AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, RawDir, SeekFrom, Uid};
use rustix::thread;
use stratafs_core::attr::S_IFMT;
use stratafs_core::{
    Attr, Errno, FallocateMode, FileType, LockKind, OpenFlags, RenameFlags, Result, SeekTo,
    SetTime, StatFs, Timestamp, XattrMode,
};

use super::{Caller, Client, Fd, Listed};

/// The largest value and the longest list of extended attributes that a call gives:
/// XATTR_SIZE_MAX and XATTR_LIST_MAX.
const XATTR_MAX: usize = 65_536;

/// A client of whatever filesystem a directory of the host is on: the mount of a filesystem under
/// test, or the kernel's own filesystems, against which the cases themselves are tested.
///
/// Other callers than root are acted for by the calling thread's own ids, so a case must stay on the
/// thread that began it, or on threads started by that.
pub struct Mounted {
    path: PathBuf,
    root: OwnedFd,
    files: Mutex<HashMap<Fd, Arc<OwnedFd>>>,
    next: AtomicU64,
    privileged: bool,
}

impl Mounted {
    /// A client of the directory `path`.
    ///
    /// # Errors
    /// What open(2) answers.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, &path, flags, Mode::empty())?;
        Ok(Self {
            path,
            root,
            files: Mutex::default(),
            next: AtomicU64::new(1),
            privileged: rustix::process::geteuid().is_root(),
        })
    }

    /// Whether this process is root, and may act for others.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    fn keep(&self, file: OwnedFd) -> Fd {
        let fd = Fd(self.next.fetch_add(1, Ordering::Relaxed));
        self.files.lock().insert(fd, Arc::new(file));
        fd
    }

    fn file(&self, fd: Fd) -> Result<Arc<OwnedFd>> {
        self.files.lock().get(&fd).cloned().ok_or(Errno::EBADF)
    }

    fn open_raw(&self, path: &[u8], flags: OFlags, mode: u32) -> Result<Fd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&self.root, dot(path), flags, Mode::from_raw_mode(mode));
        Ok(self.keep(file.map_err(errno)?))
    }

    /// The path for the calls that take no directory: those of extended attributes.
    fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }
}

/// The empty path, which the system calls do not take for the directory itself.
fn dot(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(if path.is_empty() { b"." } else { path })
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The kernel's 32-bit encoding of a device number: `new_encode_dev`.
fn encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn decode_dev(rdev: u32) -> u64 {
    fs::makedev((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}

fn attr_of(statx: &fs::Statx) -> Attr {
    let time = |t: fs::StatxTimestamp| Timestamp::new(t.tv_sec, t.tv_nsec);
    let mut attr = Attr::new(statx.stx_ino, u32::from(statx.stx_mode));
    attr.nlink = statx.stx_nlink;
    attr.uid = statx.stx_uid;
    attr.gid = statx.stx_gid;
    attr.rdev = encode_dev(statx.stx_rdev_major, statx.stx_rdev_minor);
    attr.size = statx.stx_size;
    attr.blocks = statx.stx_blocks;
    attr.blksize = statx.stx_blksize;
    attr.atime = time(statx.stx_atime);
    attr.mtime = time(statx.stx_mtime);
    attr.ctime = time(statx.stx_ctime);
    attr.btime =
        (statx.stx_mask & fs::StatxFlags::BTIME.bits() != 0).then(|| time(statx.stx_btime));
    attr
}

fn timespec(time: Option<SetTime>) -> fs::Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, fs::UTIME_OMIT),
        Some(SetTime::Now) => (0, fs::UTIME_NOW),
        Some(SetTime::At(at)) => (at.sec, i64::from(at.nsec)),
    };
    fs::Timespec { tv_sec, tv_nsec }
}

fn statx(fd: impl std::os::fd::AsFd, path: &OsStr, flags: AtFlags) -> Result<Attr> {
    let want = fs::StatxFlags::BASIC_STATS | fs::StatxFlags::BTIME;
    Ok(attr_of(&fs::statx(fd, path, flags, want).map_err(errno)?))
}

impl Client for Mounted {
    fn begin(&self) -> Result<()> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for UnshareFlags::FILES, which is not asked for"
        )]
        // The umask belongs to the process, and other tests run beside this one.
        thread::unshare(thread::UnshareFlags::FS).map_err(errno)?;
        self.set_caller(&Caller::ROOT)
    }

    fn end(&self) -> Result<usize> {
        self.set_caller(&Caller::ROOT)?;
        let files = std::mem::take(&mut *self.files.lock());
        Ok(files.len())
    }

    fn set_caller(&self, caller: &Caller) -> Result<()> {
        rustix::process::umask(Mode::from_raw_mode(caller.umask));
        if !self.privileged {
            return if *caller == Caller::ROOT.with_umask(caller.umask) {
                Ok(())
            } else {
                Err(Errno::EPERM)
            };
        }
        let groups: Vec<Gid> = caller.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        // Back to root first, which alone may become anyone.
        thread::set_thread_res_uid(None, Uid::ROOT, None).map_err(errno)?;
        thread::set_thread_groups(&groups).map_err(errno)?;
        thread::set_thread_res_gid(None, Gid::from_raw(caller.gid), None).map_err(errno)?;
        thread::set_thread_res_uid(None, Uid::from_raw(caller.uid), None).map_err(errno)
    }

    fn stat(&self, path: &[u8]) -> Result<Attr> {
        statx(&self.root, dot(path), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn fstat(&self, fd: Fd) -> Result<Attr> {
        statx(&*self.file(fd)?, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    fn chmod(&self, path: &[u8], mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        fs::chmodat(&self.root, dot(path), mode, AtFlags::empty()).map_err(errno)
    }

    fn chown(&self, path: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        fs::chownat(&self.root, dot(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)
    }

    fn truncate(&self, path: &[u8], size: u64) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = fs::openat(&self.root, dot(path), flags, Mode::empty()).map_err(errno)?;
        fs::ftruncate(&file, size).map_err(errno)
    }

    fn ftruncate(&self, fd: Fd, size: u64) -> Result<()> {
        fs::ftruncate(&*self.file(fd)?, size).map_err(errno)
    }

    fn utimens(&self, path: &[u8], atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
        let times =
            fs::Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        fs::utimensat(&self.root, dot(path), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)
    }

    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>> {
        let target = fs::readlinkat(&self.root, dot(path), Vec::new()).map_err(errno)?;
        Ok(target.into_bytes())
    }

    fn symlink(&self, target: &[u8], path: &[u8]) -> Result<()> {
        fs::symlinkat(OsStr::from_bytes(target), &self.root, dot(path)).map_err(errno)
    }

    fn mknod(&self, path: &[u8], mode: u32, rdev: u32) -> Result<()> {
        let kind = fs::FileType::from_raw_mode(mode & S_IFMT);
        let mode = Mode::from_raw_mode(mode & !S_IFMT);
        fs::mknodat(&self.root, dot(path), kind, mode, decode_dev(rdev)).map_err(errno)
    }

    fn mkdir(&self, path: &[u8], mode: u32) -> Result<()> {
        fs::mkdirat(&self.root, dot(path), Mode::from_raw_mode(mode)).map_err(errno)
    }

    fn unlink(&self, path: &[u8]) -> Result<()> {
        fs::unlinkat(&self.root, dot(path), AtFlags::empty()).map_err(errno)
    }

    fn rmdir(&self, path: &[u8]) -> Result<()> {
        fs::unlinkat(&self.root, dot(path), AtFlags::REMOVEDIR).map_err(errno)
    }

    fn rename(&self, from: &[u8], to: &[u8], flags: RenameFlags) -> Result<()> {
        let flags = fs::RenameFlags::from_bits_retain(flags.bits());
        fs::renameat_with(&self.root, dot(from), &self.root, dot(to), flags).map_err(errno)
    }

    fn link(&self, from: &[u8], to: &[u8]) -> Result<()> {
        fs::linkat(&self.root, dot(from), &self.root, dot(to), AtFlags::empty()).map_err(errno)
    }

    fn link_fd(&self, fd: Fd, to: &[u8]) -> Result<()> {
        // The way of open(2), which needs no capability, as AT_EMPTY_PATH does.
        let from = format!("/proc/self/fd/{}", self.file(fd)?.as_raw_fd());
        fs::linkat(CWD, from, &self.root, dot(to), AtFlags::SYMLINK_FOLLOW).map_err(errno)
    }

    fn open(&self, path: &[u8], flags: OpenFlags) -> Result<Fd> {
        self.open_raw(path, OFlags::from_bits_retain(flags.raw()), 0)
    }

    fn create(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd> {
        self.open_raw(path, OFlags::from_bits_retain(flags.raw()) | OFlags::CREATE, mode)
    }

    fn tmpfile(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Fd> {
        self.open_raw(path, OFlags::from_bits_retain(flags.raw()) | OFlags::TMPFILE, mode)
    }

    fn pread(&self, fd: Fd, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        let n = rustix::io::pread(&*self.file(fd)?, &mut data[..], offset).map_err(errno)?;
        data.truncate(n);
        Ok(data)
    }

    fn pwrite(&self, fd: Fd, offset: u64, data: &[u8]) -> Result<usize> {
        rustix::io::pwrite(&*self.file(fd)?, data, offset).map_err(errno)
    }

    fn fsync(&self, fd: Fd, datasync: bool) -> Result<()> {
        let file = self.file(fd)?;
        if datasync { fs::fdatasync(&*file) } else { fs::fsync(&*file) }.map_err(errno)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        self.files.lock().remove(&fd).map(drop).ok_or(Errno::EBADF)
    }

    fn fallocate(&self, fd: Fd, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode.bits());
        fs::fallocate(&*self.file(fd)?, mode, offset, len).map_err(errno)
    }

    fn seek(&self, fd: Fd, offset: u64, to: SeekTo) -> Result<u64> {
        let position = match to {
            SeekTo::Data => SeekFrom::Data(offset),
            SeekTo::Hole => SeekFrom::Hole(offset),
        };
        fs::seek(&*self.file(fd)?, position).map_err(errno)
    }

    fn copy_range(&self, from: (Fd, u64), to: (Fd, u64), len: u64) -> Result<usize> {
        let (mut from_offset, mut to_offset) = (from.1, to.1);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (from, to) = (self.file(from.0)?, self.file(to.0)?);
        fs::copy_file_range(&*from, Some(&mut from_offset), &*to, Some(&mut to_offset), len)
            .map_err(errno)
    }

    fn flock(&self, fd: Fd, kind: LockKind) -> Result<()> {
        let operation = match kind {
            LockKind::Read => fs::FlockOperation::NonBlockingLockShared,
            LockKind::Write => fs::FlockOperation::NonBlockingLockExclusive,
            LockKind::Unlock => fs::FlockOperation::NonBlockingUnlock,
        };
        fs::flock(&*self.file(fd)?, operation).map_err(errno)
    }

    fn opendir(&self, path: &[u8]) -> Result<Fd> {
        self.open_raw(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)
    }

    fn readdir(&self, fd: Fd, cookie: u64, max: usize) -> Result<Vec<Listed>> {
        let file = self.file(fd)?;
        fs::seek(&*file, SeekFrom::Start(cookie)).map_err(errno)?;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut dir = RawDir::new(&*file, &mut buffer);
        let mut entries = Vec::new();
        while entries.len() < max {
            let Some(entry) = dir.next() else { break };
            let entry = entry.map_err(errno)?;
            entries.push(Listed {
                ino: entry.ino(),
                kind: FileType::from_mode(entry.file_type().as_raw_mode()),
                name: entry.file_name().to_bytes().to_vec(),
                cookie: entry.next_entry_cookie(),
            });
        }
        Ok(entries)
    }

    fn getxattr(&self, path: &[u8], name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; XATTR_MAX];
        let n = fs::lgetxattr(self.full(path), name, &mut value[..]).map_err(errno)?;
        value.truncate(n);
        Ok(value)
    }

    fn getxattr_sized(&self, path: &[u8], name: &[u8], size: usize) -> Result<usize> {
        match size {
            // An empty buffer does not reach the kernel as one of size 0.
            0 => fs::lgetxattr_query(self.full(path), name),
            _ => fs::lgetxattr(self.full(path), name, &mut vec![0; size][..]),
        }
        .map_err(errno)
    }

    fn setxattr(&self, path: &[u8], name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let flags = match mode {
            XattrMode::Set => fs::XattrFlags::empty(),
            XattrMode::Create => fs::XattrFlags::CREATE,
            XattrMode::Replace => fs::XattrFlags::REPLACE,
        };
        fs::lsetxattr(self.full(path), name, value, flags).map_err(errno)
    }

    fn listxattr(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut list = vec![0; XATTR_MAX];
        let n = fs::llistxattr(self.full(path), &mut list[..]).map_err(errno)?;
        Ok(super::split_names(&list[..n]))
    }

    fn listxattr_sized(&self, path: &[u8], size: usize) -> Result<usize> {
        match size {
            0 => fs::llistxattr_query(self.full(path)),
            _ => fs::llistxattr(self.full(path), &mut vec![0; size][..]),
        }
        .map_err(errno)
    }

    fn removexattr(&self, path: &[u8], name: &[u8]) -> Result<()> {
        fs::lremovexattr(self.full(path), name).map_err(errno)
    }

    fn statfs(&self) -> Result<StatFs> {
        let stat = fs::fstatvfs(&self.root).map_err(errno)?;
        let mut all = StatFs::default();
        all.blocks = stat.f_blocks;
        all.bfree = stat.f_bfree;
        all.bavail = stat.f_bavail;
        all.files = stat.f_files;
        all.ffree = stat.f_ffree;
        all.bsize = u32::try_from(stat.f_bsize).map_err(|_| Errno::EOVERFLOW)?;
        all.frsize = u32::try_from(stat.f_frsize).map_err(|_| Errno::EOVERFLOW)?;
        all.namelen = u32::try_from(stat.f_namemax).map_err(|_| Errno::EOVERFLOW)?;
        Ok(all)
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mounted({})", Path::display(&self.path))
    }
}
