//! `/dev/fuse`: opening it, cloning a connection's descriptor, moving requests and replies, and
//! naming files of the host for the kernel's own I/O.

use crate::check;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The device node.
pub const DEVICE: &str = "/dev/fuse";

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)` in include/uapi/linux/fuse.h.
const DEV_IOC_CLONE: libc::Ioctl = libc::_IOR::<u32>(229, 0);

/// `FUSE_DEV_IOC_BACKING_OPEN`, `_IOW(229, 1, struct fuse_backing_map)`.
const DEV_IOC_BACKING_OPEN: libc::Ioctl = libc::_IOW::<BackingMap>(229, 1);

/// `FUSE_DEV_IOC_BACKING_CLOSE`, `_IOW(229, 2, uint32_t)`.
const DEV_IOC_BACKING_CLOSE: libc::Ioctl = libc::_IOW::<u32>(229, 2);

/// `struct fuse_backing_map`.
#[repr(C)]
#[derive(Debug, Default)]
struct BackingMap {
    fd: i32,
    /// None is known; any makes it EINVAL.
    flags: u32,
    padding: u64,
}

/// Opens the device: a descriptor that a mount can turn into a connection.
///
/// # Errors
/// * `ENOENT`: the device node is missing.
/// * `ENODEV`, `ENXIO`: the kernel has no FUSE.
/// * `EACCES`, `EPERM`: this process may not open it.
pub fn open() -> io::Result<OwnedFd> {
    // std sets O_CLOEXEC.
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(DEVICE)?;
    Ok(file.into())
}

/// Opens the device again as one more descriptor of `session`'s connection.
///
/// All clones share one queue of requests; a reply must be written to the descriptor that the
/// request was read from.
///
/// # Errors
/// As [`open`], and `EINVAL` or `EPERM`: `session` is no mounted connection.
pub fn clone(session: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let device = open()?;
    let mut source = session.as_raw_fd().cast_unsigned();
    // SAFETY: the request reads one u32, which `source` is and which lives through the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), DEV_IOC_CLONE, &raw mut source) })?;
    Ok(device)
}

/// The kernel's page size in bytes, in which it counts the size of requests.
#[must_use]
pub fn page_size() -> usize {
    // SAFETY: the call takes an integer.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It cannot fail for this name; 4096 is the smallest of all.
    usize::try_from(size).unwrap_or(4096)
}

/// Reads one request into `buffer` and answers its length.
///
/// # Errors
/// * `EINTR`, `EAGAIN`: try again.
/// * `ENOENT`: the request was interrupted before it could be read; try again.
/// * `ENODEV`: the filesystem is unmounted, or the connection was aborted.
/// * `EINVAL`: `buffer` is smaller than the kernel's minimum (8 KiB, or what INIT made of it).
pub fn read(device: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `buffer`, which lives through the call.
    let n =
        check(unsafe { libc::read(device.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })?;
    Ok(n.cast_unsigned())
}

/// Reads one request into `buffers`, one after another; otherwise as [`read`].
///
/// # Errors
/// As [`read`].
pub fn readv(device: BorrowedFd<'_>, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(buffers.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: IoSliceMut is guaranteed to be laid out as iovec; the buffers live through the call.
    let n = check(unsafe { libc::readv(device.as_raw_fd(), buffers.as_mut_ptr().cast(), count) })?;
    Ok(n.cast_unsigned())
}

/// Writes one whole reply or notification, which is in one piece; otherwise as [`writev`].
///
/// # Errors
/// As [`writev`].
pub fn write(device: BorrowedFd<'_>, message: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `message`, which lives through the call.
    let n =
        check(unsafe { libc::write(device.as_raw_fd(), message.as_ptr().cast(), message.len()) })?;
    Ok(n.cast_unsigned())
}

/// Writes one whole reply or notification.
///
/// # Errors
/// * `ENOENT`: the request was interrupted and nobody waits for this reply. For a notification:
///   the kernel does not know that object.
/// * `EINVAL`: the message is malformed, or its length differs from what its header says.
/// * `ENODEV`: the filesystem is unmounted.
pub fn writev(device: BorrowedFd<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(buffers.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: IoSlice is guaranteed to be laid out as iovec; the buffers live through the call.
    let n = check(unsafe { libc::writev(device.as_raw_fd(), buffers.as_ptr().cast(), count) })?;
    Ok(n.cast_unsigned())
}

/// Moves up to `len` bytes between two descriptors, one of which is a pipe: splice(2).
///
/// # Errors
/// * `EINVAL`: neither end is a pipe, or one end cannot be spliced.
/// * `EAGAIN`: a non-blocking end is not ready.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    let flags = libc::SPLICE_F_MOVE;
    // SAFETY: both offsets are null, which means "the descriptor's own position".
    let n =
        check(unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, len, flags) })?;
    Ok(n.cast_unsigned())
}

/// Names the regular file `file` to the kernel, for replies to OPEN that have the kernel do the I/O
/// by itself: the id, from 1 on. Until [`close_backing`] and the last release of what was opened by
/// it the kernel keeps the file, whatever becomes of the descriptor.
///
/// Each handle opens the file anew as its own flags say, with the credentials of the process as they
/// are now.
///
/// # Errors
/// * `EPERM`: the process has no CAP_SYS_ADMIN (in the first user namespace), or INIT did not agree
///   on FUSE_PASSTHROUGH, or on a writeback cache.
/// * `ELOOP`: the file's filesystem is itself on another, deeper than INIT's `max_stack_depth`.
/// * `EOPNOTSUPP`: the file cannot be read and written by the kernel; `EISDIR`, `EINVAL`: it is no
///   regular file; `EBADF`.
/// * `ENOTTY`: the kernel is older than 6.9.
pub fn open_backing(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<i32> {
    let mut map = BackingMap { fd: file.as_raw_fd(), ..BackingMap::default() };
    // SAFETY: the request reads one BackingMap, which `map` is and which lives through the call.
    let id = check(unsafe { libc::ioctl(device.as_raw_fd(), DEV_IOC_BACKING_OPEN, &raw mut map) })?;
    Ok(id)
}

/// Takes back the id that [`open_backing`] answered. What was opened by it goes on.
///
/// # Errors
/// * `ENOENT`: there is no such id.
/// * `EPERM`: as for [`open_backing`].
pub fn close_backing(device: BorrowedFd<'_>, id: i32) -> io::Result<()> {
    let mut id = id.cast_unsigned();
    // SAFETY: the request reads one u32, which `id` is and which lives through the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), DEV_IOC_BACKING_CLOSE, &raw mut id) })?;
    Ok(())
}

/// Sets or clears `O_NONBLOCK`. It belongs to the open description, so a clone has its own.
///
/// # Errors
/// None is known for an open descriptor.
pub fn set_nonblocking(device: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(device.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(device.as_raw_fd(), libc::F_SETFL, wanted) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn ioctls_have_the_kernels_numbers() {
        assert_eq!(DEV_IOC_CLONE, 0x8004_e500);
        assert_eq!(DEV_IOC_BACKING_OPEN, 0x4010_e501);
        assert_eq!(DEV_IOC_BACKING_CLOSE, 0x4004_e502);
    }

    #[test]
    fn page_size_is_a_power_of_two_from_4096_on() {
        assert!(page_size() >= 4096 && page_size().is_power_of_two());
    }

    #[test]
    fn read_before_a_mount_is_refused() {
        let Ok(device) = open() else {
            eprintln!("skipped: no /dev/fuse");
            return;
        };
        let error = read(device.as_fd(), &mut [0; 8192]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        // EPERM since 6.18, EINVAL before.
        let errno = clone(device.as_fd()).unwrap_err().raw_os_error();
        assert!(errno == Some(libc::EPERM) || errno == Some(libc::EINVAL), "{errno:?}");
    }
}
