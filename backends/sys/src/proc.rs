//! Reaching the object behind an O_PATH descriptor through `/proc/self/fd`.
//!
//! Most calls that change an object refuse O_PATH descriptors. The link `/proc/self/fd/N` leads to
//! exactly the object that descriptor N holds, wherever it was moved and whatever its old name now
//! leads to, so following it is no walk of a path that others could change.

use crate::openat::open_raw;
use crate::{check, with_name, xattr};
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs_core::{Name, SetTime};

/// A descriptor of `/proc`, opened while the server still sees it.
#[derive(Debug)]
pub struct Proc(OwnedFd);

/// A link of `/proc`, as `self/fd/N` or `/proc/self/fd/N`, on the stack.
pub(crate) struct Link([u8; 32]);

impl Link {
    pub(crate) fn new(prefix: &str, fd: BorrowedFd<'_>) -> Self {
        let mut bytes = [0; 32];
        // The longest is 14 + 10 bytes and a NUL, so this cannot fail.
        let _ = write!(&mut bytes[..31], "{prefix}self/fd/{}", fd.as_raw_fd());
        Self(bytes)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Set once `/proc` is the working directory and not where its name says.
static IS_WORKING_DIRECTORY: AtomicBool = AtomicBool::new(false);

/// What leads to `/proc` in a path.
pub(crate) fn prefix() -> &'static str {
    if IS_WORKING_DIRECTORY.load(Ordering::Relaxed) { "" } else { "/proc/" }
}

/// Set once linkat with AT_EMPTY_PATH was refused where the other way worked: a kernel before 6.10
/// without CAP_DAC_READ_SEARCH.
static NO_EMPTY_LINK: AtomicBool = AtomicBool::new(false);

impl Proc {
    /// Opens `/proc`, and makes sure that it is.
    ///
    /// # Errors
    /// * `ENOENT`, `EACCES`: `/proc` is not mounted or hidden.
    /// * `ENODEV`: something else is mounted there.
    pub fn open() -> io::Result<Self> {
        let fd = open_raw(libc::AT_FDCWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        if crate::stat::filesystem(fd.as_fd())?.magic != libc::PROC_SUPER_MAGIC {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(Self(fd))
    }

    /// Makes `/proc` the working directory of this process and finds links by it from now on: for
    /// one whose root directory is about to hold it no longer, or does not any more.
    ///
    /// # Errors
    /// None is known.
    pub fn enter(&self) -> io::Result<()> {
        crate::namespace::change_directory(self.0.as_fd())?;
        IS_WORKING_DIRECTORY.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Opens the object that `file` pins, with the open(2) flags `flags`.
    ///
    /// The caller knows its type: opening a device or a FIFO has effects of its own.
    ///
    /// # Errors
    /// Those of open(2); `ELOOP`: a symbolic link.
    pub fn reopen(&self, file: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
        open_raw(self.0.as_raw_fd(), Link::new("", file).as_c_str(), flags, 0)
    }

    /// Sets the permission bits of what `file` pins: fchmodat(2).
    ///
    /// # Errors
    /// * `EPERM`: not its owner. `EOPNOTSUPP`: a symbolic link. `EROFS`.
    pub fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        let link = Link::new("", file);
        let dir = self.0.as_raw_fd();
        // SAFETY: the path is NUL-terminated and lives through the call.
        check(unsafe { libc::fchmodat(dir, link.as_c_str().as_ptr(), mode, 0) }).map(drop)
    }

    /// Whether this process may make, move and remove names in the directory that `dir` pins, as far
    /// as its mode, its ACL and its mount go: faccessat(2) for the effective ids.
    ///
    /// # Errors
    /// * `EACCES`: it may not. `EROFS`: nobody may.
    pub fn may_change_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let link = Link::new("", dir);
        let (at, mode, flags) = (self.0.as_raw_fd(), libc::W_OK | libc::X_OK, libc::AT_EACCESS);
        // SAFETY: the path is NUL-terminated and lives through the call.
        check(unsafe { libc::faccessat(at, link.as_c_str().as_ptr(), mode, flags) }).map(drop)
    }

    /// Sets access and modification time of what `file` pins: utimensat(2). `None` leaves one.
    ///
    /// # Errors
    /// * `EPERM`, `EACCES`: not its owner. `EROFS`.
    pub fn set_times(
        &self,
        file: BorrowedFd<'_>,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
    ) -> io::Result<()> {
        let spec = |time: Option<SetTime>| match time {
            None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            Some(SetTime::Now) => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
            Some(SetTime::At(at)) => {
                libc::timespec { tv_sec: at.sec, tv_nsec: i64::from(at.nsec.min(999_999_999)) }
            }
        };
        let times = [spec(atime), spec(mtime)];
        let link = Link::new("", file);
        let dir = self.0.as_raw_fd();
        // SAFETY: the path is NUL-terminated; two timespecs; both live through the call.
        check(unsafe { libc::utimensat(dir, link.as_c_str().as_ptr(), times.as_ptr(), 0) })
            .map(drop)
    }

    /// Gives what `file` holds the further name `name` in `dir`, its first one if it was made by
    /// [`unnamed_file`](crate::openat::unnamed_file): linkat(2).
    ///
    /// # Errors
    /// * `EEXIST`, `ENOENT`, `EMLINK`, `EXDEV`, `EPERM`, `EROFS`, `ENOSPC`, `EDQUOT`.
    pub fn link(
        &self,
        file: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> io::Result<()> {
        with_name(name, |name| {
            let to = dir.as_raw_fd();
            if !NO_EMPTY_LINK.load(Ordering::Relaxed) {
                let flags = libc::AT_EMPTY_PATH;
                let from = file.as_raw_fd();
                // SAFETY: both paths are NUL-terminated and live through the call.
                let direct =
                    check(unsafe { libc::linkat(from, c"".as_ptr(), to, name.as_ptr(), flags) });
                // ENOENT and EPERM are also how a kernel says that it does not allow this way.
                match direct.as_ref().map_err(io::Error::raw_os_error) {
                    Err(Some(libc::ENOENT | libc::EPERM | libc::EINVAL)) => {}
                    _ => return direct.map(drop),
                }
            }
            let link = Link::new("", file);
            let flags = libc::AT_SYMLINK_FOLLOW;
            // SAFETY: both paths are NUL-terminated and live through the call.
            check(unsafe {
                libc::linkat(self.0.as_raw_fd(), link.as_c_str().as_ptr(), to, name.as_ptr(), flags)
            })?;
            NO_EMPTY_LINK.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    /// An extended attribute of what `file` pins; see [`xattr::get`].
    ///
    /// # Errors
    /// As [`xattr::get`].
    pub fn xattr(&self, file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> io::Result<usize> {
        xattr::get_behind(self.0.as_fd(), file, name, value)
    }

    /// Sets an extended attribute of what `file` pins; see [`xattr::set`].
    ///
    /// # Errors
    /// As [`xattr::set`].
    pub fn set_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &CStr,
        value: &[u8],
        flags: i32,
    ) -> io::Result<()> {
        xattr::set_behind(self.0.as_fd(), file, name, value, flags)
    }

    /// The names of all attributes of what `file` pins, each ended by a NUL; with an empty `names`
    /// their size alone.
    ///
    /// # Errors
    /// * `ERANGE`: `names` is too small. `EOPNOTSUPP`: no attributes on this filesystem.
    pub fn list_xattrs(&self, file: BorrowedFd<'_>, names: &mut [u8]) -> io::Result<usize> {
        xattr::list_behind(self.0.as_fd(), file, names)
    }

    /// Removes an extended attribute of what `file` pins.
    ///
    /// # Errors
    /// * `ENODATA`: there is none. `EPERM`, `EACCES`, `EROFS`, `EOPNOTSUPP`.
    pub fn remove_xattr(&self, file: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        xattr::remove_behind(self.0.as_fd(), file, name)
    }
}
