//! Namespaces, and another root directory.

use crate::{c_path, check};
use bitflags::bitflags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

bitflags! {
    /// Kinds of namespaces; namespaces(7).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Namespaces: libc::c_int {
        /// Users, groups and capabilities.
        const USER = libc::CLONE_NEWUSER;
        /// Mounts.
        const MOUNT = libc::CLONE_NEWNS;
        /// Processes: of the children of the caller, not its own.
        const PID = libc::CLONE_NEWPID;
        /// Network devices, addresses and abstract sockets.
        const NETWORK = libc::CLONE_NEWNET;
        /// System V objects and POSIX message queues.
        const IPC = libc::CLONE_NEWIPC;
    }
}

/// Moves this process, which must have one thread, into new namespaces of these kinds.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`), and no user namespace among them; or user namespaces
///   are forbidden here.
/// * `EINVAL`: a user namespace, in a process of several threads; or the kernel has not all kinds.
/// * `ENOSPC`, `EUSERS`: there are as many as are allowed.
///
/// # Source
/// unshare(2).
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(kinds.bits()) }).map(drop)
}

/// Makes the working directory, which must be a mount, the root of this mount namespace. The root
/// that was is mounted on top of it, for the caller to detach by the path `.`.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`).
/// * `EINVAL`: the directory is no mount, or its parent's mount is shared with other namespaces.
/// * `EBUSY`: it is the root already.
///
/// # Source
/// pivot_root(2), `pivot_root(".", ".")`.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: both are NUL-terminated strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Makes the directory that `directory` holds the working directory of this process.
///
/// # Errors
/// `ENOTDIR`, `EACCES`.
///
/// # Source
/// fchdir(2).
pub fn change_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

/// Makes `directory` the root directory of this process. The working directory stays.
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_CHROOT`).
/// * Those of a path.
///
/// # Source
/// chroot(2).
pub fn change_root(directory: &Path) -> io::Result<()> {
    let directory = c_path(directory)?;
    // SAFETY: the path is a live, NUL-terminated string.
    check(unsafe { libc::chroot(directory.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_root_to_nothing_is_refused() {
        let error = change_root(Path::new("/no such directory")).unwrap_err().raw_os_error();
        assert!([Some(libc::ENOENT), Some(libc::EPERM)].contains(&error), "{error:?}");
    }
}
