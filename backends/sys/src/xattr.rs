//! Extended attributes, by descriptor: xattr(7).
//!
//! fgetxattr(2) and its kin refuse O_PATH descriptors. Since Linux 6.13 getxattrat(2) takes a
//! path relative to a descriptor, so `self/fd/N` below a descriptor of `/proc` will do; before it
//! the same link is named from the root.

use crate::proc::{Link, prefix};
use crate::{check, with_name};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs_core::Name;

// One numbering for all architectures; include/uapi/asm-generic/unistd.h.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// Set once the calls above answered ENOSYS.
static NO_XATTRAT: AtomicBool = AtomicBool::new(false);

/// `struct xattr_args` of include/uapi/linux/xattr.h.
#[repr(C, align(8))]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

impl Args {
    fn new(value: *const u8, size: usize, flags: i32) -> Self {
        // Beyond 64 KiB the kernel refuses a value and never fills one.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        Self { value: value as u64, size, flags: flags.cast_unsigned() }
    }
}

/// Runs `modern`, and `old` where the kernel has no such call.
fn either<T>(
    modern: impl FnOnce() -> io::Result<T>,
    old: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    if !NO_XATTRAT.load(Ordering::Relaxed) {
        match modern() {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                NO_XATTRAT.store(true, Ordering::Relaxed);
            }
            answer => return answer,
        }
    }
    old()
}

fn size<T: TryInto<usize>>(value: T) -> io::Result<usize> {
    value.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EIO))
}

/// The attribute `name` of `file`, which is open and no O_PATH descriptor: its size, and with a
/// `value` that is not empty the value.
///
/// # Errors
/// * `ENODATA`: there is none. `ERANGE`: `value` is too small.
/// * `EOPNOTSUPP`: the filesystem keeps none of this kind.
pub fn get(file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the name is NUL-terminated; pointer and length describe `value`; both live through
    // the call.
    let n = check(unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    })?;
    size(n)
}

/// Sets the attribute `name` of `file`, which is open and no O_PATH descriptor. `flags` is 0,
/// XATTR_CREATE or XATTR_REPLACE.
///
/// # Errors
/// * `EEXIST`, `ENODATA`: as the flag says. `ENOSPC`, `EDQUOT`, `E2BIG`, `EPERM`, `EROFS`.
/// * `EOPNOTSUPP`: the filesystem keeps none of this kind.
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated; pointer and length describe `value`; both live through
    // the call.
    check(unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
    .map(drop)
}

/// The attribute `xattr` of the child `name` of `dir`, a symbolic link's own.
///
/// # Errors
/// As [`get`]; `ENOENT`: no such child; `ENOSYS`: a kernel before 6.13.
pub fn get_of_child(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    xattr: &CStr,
    value: &mut [u8],
) -> io::Result<usize> {
    with_name(name, |name| get_at(dir, name, libc::AT_SYMLINK_NOFOLLOW, xattr, value))
}

fn get_at(
    dir: BorrowedFd<'_>,
    path: &CStr,
    at: libc::c_int,
    name: &CStr,
    value: &mut [u8],
) -> io::Result<usize> {
    let args = Args::new(value.as_mut_ptr(), value.len(), 0);
    // SAFETY: both strings are NUL-terminated; `args` is as long as said and describes `value`;
    // all live through the call.
    let n = check(unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            at,
            name.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    })?;
    size(n)
}

pub(crate) fn get_behind(
    proc: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    name: &CStr,
    value: &mut [u8],
) -> io::Result<usize> {
    if !NO_XATTRAT.load(Ordering::Relaxed) {
        match get_at(proc, Link::new("", file).as_c_str(), 0, name, value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                NO_XATTRAT.store(true, Ordering::Relaxed);
            }
            answer => return answer,
        }
    }
    let link = Link::new(prefix(), file);
    // SAFETY: both strings are NUL-terminated; pointer and length describe `value`; all live
    // through the call.
    let n = check(unsafe {
        libc::getxattr(
            link.as_c_str().as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    })?;
    size(n)
}

pub(crate) fn set_behind(
    proc: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    name: &CStr,
    value: &[u8],
    flags: i32,
) -> io::Result<()> {
    either(
        || {
            let args = Args::new(value.as_ptr(), value.len(), flags);
            let link = Link::new("", file);
            // SAFETY: both strings are NUL-terminated; `args` is as long as said and describes
            // `value`; all live through the call.
            check(unsafe {
                libc::syscall(
                    SYS_SETXATTRAT,
                    proc.as_raw_fd(),
                    link.as_c_str().as_ptr(),
                    0,
                    name.as_ptr(),
                    &raw const args,
                    size_of::<Args>(),
                )
            })
            .map(drop)
        },
        || {
            let link = Link::new(prefix(), file);
            // SAFETY: both strings are NUL-terminated; pointer and length describe `value`; all
            // live through the call.
            check(unsafe {
                libc::setxattr(
                    link.as_c_str().as_ptr(),
                    name.as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    flags,
                )
            })
            .map(drop)
        },
    )
}

/// The names of all attributes of what `file` pins, each ended by a NUL; with an empty `names`
/// their size alone.
pub(crate) fn list_behind(
    proc: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    names: &mut [u8],
) -> io::Result<usize> {
    if !NO_XATTRAT.load(Ordering::Relaxed) {
        let link = Link::new("", file);
        // SAFETY: the path is NUL-terminated; pointer and length describe `names`; both live
        // through the call.
        let answer = check(unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                proc.as_raw_fd(),
                link.as_c_str().as_ptr(),
                0,
                names.as_mut_ptr(),
                names.len(),
            )
        });
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                NO_XATTRAT.store(true, Ordering::Relaxed);
            }
            answer => return size(answer?),
        }
    }
    let link = Link::new(prefix(), file);
    // SAFETY: the path is NUL-terminated; pointer and length describe `names`; both live through
    // the call.
    let n = check(unsafe {
        libc::listxattr(link.as_c_str().as_ptr(), names.as_mut_ptr().cast(), names.len())
    })?;
    size(n)
}

pub(crate) fn remove_behind(
    proc: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<()> {
    either(
        || {
            let link = Link::new("", file);
            // SAFETY: both strings are NUL-terminated and live through the call.
            check(unsafe {
                libc::syscall(
                    SYS_REMOVEXATTRAT,
                    proc.as_raw_fd(),
                    link.as_c_str().as_ptr(),
                    0,
                    name.as_ptr(),
                )
            })
            .map(drop)
        },
        || {
            let link = Link::new(prefix(), file);
            // SAFETY: both strings are NUL-terminated and live through the call.
            check(unsafe { libc::removexattr(link.as_c_str().as_ptr(), name.as_ptr()) }).map(drop)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openat::pin_path;
    use crate::proc::Proc;
    use std::os::fd::AsFd;

    fn round_trip() {
        let path = std::env::temp_dir().join(format!("sys-xattr-{}", std::process::id()));
        std::fs::write(&path, b"").unwrap();
        let file = pin_path(&path, false).unwrap();
        let proc = Proc::open().unwrap();
        let mut value = [0; 8];
        let error = proc.xattr(file.as_fd(), c"user.test", &mut value).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODATA));
        proc.set_xattr(file.as_fd(), c"user.test", b"abc", 0).unwrap();
        assert_eq!(proc.xattr(file.as_fd(), c"user.test", &mut []).unwrap(), 3);
        assert_eq!(proc.xattr(file.as_fd(), c"user.test", &mut value).unwrap(), 3);
        assert_eq!(&value[..3], b"abc");
        let mut names = [0; 64];
        let n = proc.list_xattrs(file.as_fd(), &mut names).unwrap();
        assert!(names[..n].split(|b| *b == 0).any(|name| name == b"user.test"));
        proc.remove_xattr(file.as_fd(), c"user.test").unwrap();
        assert!(proc.xattr(file.as_fd(), c"user.test", &mut value).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn attributes_behind_a_pin_work_by_either_call() {
        round_trip();
        NO_XATTRAT.store(true, Ordering::Relaxed);
        round_trip();
        NO_XATTRAT.store(false, Ordering::Relaxed);
    }
}
