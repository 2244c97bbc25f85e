//! Mounts that are nowhere yet: made or copied, restricted, then put in their place.

use crate::{c_path, check};
use bitflags::bitflags;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

bitflags! {
    /// What a mount does not allow; mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Restrictions: u64 {
        /// Writing (`MOUNT_ATTR_RDONLY`).
        const READ_ONLY = libc::MOUNT_ATTR_RDONLY;
        /// setuid and setgid bits and file capabilities (`MOUNT_ATTR_NOSUID`).
        const NO_SUID = libc::MOUNT_ATTR_NOSUID;
        /// Opening device nodes (`MOUNT_ATTR_NODEV`).
        const NO_DEV = libc::MOUNT_ATTR_NODEV;
        /// Running programs (`MOUNT_ATTR_NOEXEC`).
        const NO_EXEC = libc::MOUNT_ATTR_NOEXEC;
    }
}

// linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// # Safety
/// `answer` is what a system call answered that makes a descriptor.
unsafe fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    let number = check(answer)?;
    let number = RawFd::try_from(number).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of what is mounted at `path` and below, which nobody else sees. Of a directory within a
/// mount the copy has that directory for its root.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`).
/// * `EINVAL`: a mount may not be copied. `ENOSYS`: before Linux 5.2.
/// * Those of a path. A symbolic link at its end is followed.
///
/// # Source
/// open_tree(2).
pub fn copy(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.cast_unsigned();
    // SAFETY: the path is a live, NUL-terminated string; the call makes a descriptor.
    unsafe { owned(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)) }
}

/// A new filesystem of type `kind` with these options.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`), or this type may not be mounted by whoever has none on
///   the host.
/// * `ENODEV`: the kernel does not know the type. `EINVAL`: nor an option. `ENOSYS`: before Linux 5.2.
///
/// # Source
/// fsopen(2), fsconfig(2), fsmount(2).
pub fn new(kind: &CStr, options: &[(&CStr, &CStr)]) -> io::Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated; the call makes a descriptor.
    let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC)) }?;
    for (key, value) in options {
        let command = FSCONFIG_SET_STRING;
        configure(context.as_fd(), command, key.as_ptr(), value.as_ptr())?;
    }
    configure(context.as_fd(), FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    let context = context.as_raw_fd();
    // SAFETY: no pointers; the call makes a descriptor.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, 0)) }
}

fn configure(
    context: BorrowedFd<'_>,
    command: libc::c_uint,
    key: *const libc::c_char,
    value: *const libc::c_char,
) -> io::Result<()> {
    let context = context.as_raw_fd();
    // SAFETY: the two strings are null or NUL-terminated, as the command has it, and live through
    // the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0) }).map(drop)
}

/// Restricts the mount whose root `tree` is, and with `is_recursive` those below it.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`).
/// * `EINVAL`: `tree` is no root of a mount. `ENOSYS`: before Linux 5.12.
/// * `EBUSY`: a file is open for writing, and it was to be read-only.
///
/// # Source
/// mount_setattr(2).
pub fn restrict(
    tree: BorrowedFd<'_>,
    restrictions: Restrictions,
    is_recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: restrictions.bits(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is NUL-terminated; the struct is as long as said; both live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Mounts `tree` at `path`, from `directory`.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`).
/// * `EINVAL`: `tree` is no mount that can be moved. `ELOOP`.
/// * `ENOTDIR`: one is a directory and the other is not. Those of a path.
///
/// # Source
/// move_mount(2).
pub fn attach(tree: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: both paths are NUL-terminated and live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn copy_of_a_missing_path_is_refused() {
        let error = copy(Path::new("/no such directory")).unwrap_err().raw_os_error();
        assert!([Some(libc::ENOENT), Some(libc::EPERM)].contains(&error), "{error:?}");
    }

    #[test]
    fn restrict_of_a_directory_that_is_no_mount_is_refused() {
        let directory = std::env::temp_dir().join(format!("sys-tree-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let file = File::open(&directory).unwrap();
        let error = restrict(file.as_fd(), Restrictions::READ_ONLY, true).unwrap_err();
        std::fs::remove_dir(&directory).unwrap();
        let error = error.raw_os_error();
        assert!([Some(libc::EINVAL), Some(libc::EPERM)].contains(&error), "{error:?}");
    }

    #[test]
    fn new_of_an_unknown_type_is_refused() {
        let error = new(c"no such type", &[]).unwrap_err().raw_os_error();
        assert!([Some(libc::ENODEV), Some(libc::EPERM)].contains(&error), "{error:?}");
    }
}
