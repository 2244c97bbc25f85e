//! Changing the entries of a directory, and objects that are pinned by descriptor.
//!
//! None of these calls takes a RESOLVE flag: that a [`Name`] has one component is what keeps them
//! inside the directory.

use crate::{check, with_name};
use bitflags::bitflags;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use stratafs_core::Name;

/// Makes the directory `name` in `dir`: mkdirat(2).
///
/// # Errors
/// * `EEXIST`, `ENOENT`, `ENOTDIR`, `EACCES`, `EMLINK`, `ENOSPC`, `EDQUOT`, `EROFS`.
pub fn make_dir(dir: BorrowedFd<'_>, name: Name<'_>, mode: u32) -> io::Result<()> {
    with_name(name, |name| {
        // SAFETY: the name is NUL-terminated and lives through the call.
        check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
    })
}

/// Makes the special file `name` in `dir`: mknodat(2). `device` is a major and a minor number.
///
/// # Errors
/// As [`make_dir`]; `EPERM`: no privilege, or not on this filesystem.
pub fn make_node(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    mode: u32,
    device: (u32, u32),
) -> io::Result<()> {
    let device = libc::makedev(device.0, device.1);
    with_name(name, |name| {
        // SAFETY: the name is NUL-terminated and lives through the call.
        check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
    })
}

/// Makes `name` in `dir` a symbolic link to `target`: symlinkat(2).
///
/// # Errors
/// As [`make_dir`]; `ENAMETOOLONG`: a target that is too long; `EINVAL`: it holds a NUL.
pub fn make_symlink(target: &[u8], dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<()> {
    let target = CString::new(target).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    with_name(name, |name| {
        // SAFETY: both strings are NUL-terminated and live through the call.
        check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
    })
}

/// Removes the name `name`, no directory's, from `dir`: unlinkat(2).
///
/// # Errors
/// * `ENOENT`, `EISDIR`, `EACCES`, `EPERM`, `EBUSY`, `EROFS`.
pub fn remove_file(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<()> {
    remove(dir, name, 0)
}

/// Removes the empty directory `name` from `dir`: unlinkat(2) with AT_REMOVEDIR.
///
/// # Errors
/// * `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EACCES`, `EPERM`, `EBUSY`, `EROFS`.
pub fn remove_dir(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<()> {
    remove(dir, name, libc::AT_REMOVEDIR)
}

fn remove(dir: BorrowedFd<'_>, name: Name<'_>, flags: libc::c_int) -> io::Result<()> {
    with_name(name, |name| {
        // SAFETY: the name is NUL-terminated and lives through the call.
        check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
    })
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Rename: u32 {
        /// Fail where the new name exists (`RENAME_NOREPLACE`).
        const NO_REPLACE = libc::RENAME_NOREPLACE;
        /// Swap the two (`RENAME_EXCHANGE`).
        const EXCHANGE = libc::RENAME_EXCHANGE;
        /// Leave a whiteout (`RENAME_WHITEOUT`).
        const WHITEOUT = libc::RENAME_WHITEOUT;
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The directory.
    pub dir: BorrowedFd<'a>,
    /// The name in it.
    pub name: Name<'a>,
}

/// Moves `from` to `to`: renameat2(2).
///
/// # Errors
/// * Those of rename(2); `EINVAL`: the filesystem does not have that flag.
pub fn rename(from: Place<'_>, to: Place<'_>, flags: Rename) -> io::Result<()> {
    with_name(from.name, |old| {
        with_name(to.name, |new| {
            // SAFETY: both names are NUL-terminated and live through the call.
            check(unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    from.dir.as_raw_fd(),
                    old.as_ptr(),
                    to.dir.as_raw_fd(),
                    new.as_ptr(),
                    flags.bits(),
                )
            })
            .map(drop)
        })
    })
}

/// Puts the target of the symbolic link `link`, an O_PATH descriptor, into `target`, and says how
/// long it is; cut off where `target` is too short.
///
/// # Errors
/// * `EINVAL`, `ENOENT`: no symbolic link.
pub fn read_link(link: BorrowedFd<'_>, target: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the path is empty, which means the descriptor itself; the pointer and length
    // describe `target`, which lives through the call.
    let n = check(unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len())
    })?;
    Ok(n.cast_unsigned())
}

/// Gives `file`, which may be an O_PATH descriptor, an owner and a group; `None` leaves one as it
/// is.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_CHOWN`). `EINVAL`: an id without a mapping. `EROFS`, `EDQUOT`.
pub fn set_owner(file: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let keep = u32::MAX;
    // SAFETY: the path is empty, which means the descriptor itself.
    check(unsafe {
        libc::fchownat(
            file.as_raw_fd(),
            c"".as_ptr(),
            uid.unwrap_or(keep),
            gid.unwrap_or(keep),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}
