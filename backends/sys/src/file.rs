//! What can be done to an open file: size, storage, durability, position, flags.

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn offset(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Writes `data` at the end of `file`, in one step with finding the end; may be short: pwritev2(2)
/// with RWF_APPEND.
///
/// # Errors
/// * `ENOSPC`, `EDQUOT`, `EFBIG`: the file cannot take it. `EBADF`: not open for writing.
pub fn append(file: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    let piece = io::IoSlice::new(data);
    // SAFETY: IoSlice is guaranteed to be laid out as iovec; it and its bytes live through the
    // call.
    let n = check(unsafe {
        libc::pwritev2(file.as_raw_fd(), (&raw const piece).cast(), 1, 0, libc::RWF_APPEND)
    })?;
    Ok(n.cast_unsigned())
}

/// Cuts or extends `file` to `size` bytes: ftruncate(2).
///
/// # Errors
/// * `EFBIG`: more than a file can have. `EINVAL`: not open for writing. `EPERM`, `ENOSPC`.
pub fn set_size(file: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    let size = offset(size)?;
    // SAFETY: no pointers.
    check(unsafe { libc::ftruncate64(file.as_raw_fd(), size) }).map(drop)
}

/// Makes `file` durable, attributes included: fsync(2).
///
/// # Errors
/// * `EIO`, `ENOSPC`, `EDQUOT`: some of it is lost; told once.
pub fn sync(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fsync(file.as_raw_fd()) }).map(drop)
}

/// Makes the data of `file` durable: fdatasync(2).
///
/// # Errors
/// As [`sync`].
pub fn sync_data(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fdatasync(file.as_raw_fd()) }).map(drop)
}

/// Makes the filesystem of `file`, no O_PATH descriptor, durable: syncfs(2).
///
/// # Errors
/// As [`sync`].
pub fn sync_filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
}

/// Allocates, frees or moves storage: fallocate(2) with its mode bits.
///
/// # Errors
/// Those of fallocate(2).
pub fn allocate(file: BorrowedFd<'_>, mode: u32, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: no pointers.
    check(unsafe { libc::fallocate64(file.as_raw_fd(), mode.cast_signed(), at, len) }).map(drop)
}

/// The first byte of data at or after `position`.
///
/// # Errors
/// * `ENXIO`: none follows. `EINVAL`: a position that no file has.
pub fn seek_data(file: BorrowedFd<'_>, position: u64) -> io::Result<u64> {
    lseek(file, position, libc::SEEK_DATA)
}

/// The first byte of a hole at or after `position`; the end of the file counts as one.
///
/// # Errors
/// * `ENXIO`: `position` is at or after the end. `EINVAL`: a position that no file has.
pub fn seek_hole(file: BorrowedFd<'_>, position: u64) -> io::Result<u64> {
    lseek(file, position, libc::SEEK_HOLE)
}

/// Sets the position of an open file or directory.
///
/// # Errors
/// * `EINVAL`: a position that it does not have.
pub fn seek(file: BorrowedFd<'_>, position: u64) -> io::Result<u64> {
    lseek(file, position, libc::SEEK_SET)
}

fn lseek(file: BorrowedFd<'_>, position: u64, whence: libc::c_int) -> io::Result<u64> {
    // A directory's position may use all 64 bits; a file's is refused by the kernel then.
    let position = position.cast_signed();
    // SAFETY: no pointers.
    let found = unsafe { libc::lseek64(file.as_raw_fd(), position, whence) };
    if found == -1 { Err(io::Error::last_os_error()) } else { Ok(found.cast_unsigned()) }
}

/// The flags of chattr(1): FS_IOC_GETFLAGS.
///
/// # Errors
/// * `ENOTTY`: the filesystem has none.
pub fn inode_flags(file: BorrowedFd<'_>) -> io::Result<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the request fills one int, whatever the `long` in its definition says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags.cast_unsigned())
}

/// Sets the flags of chattr(1): FS_IOC_SETFLAGS.
///
/// # Errors
/// * `EPERM`: no privilege for one of them. `EOPNOTSUPP`, `ENOTTY`: not kept here.
pub fn set_inode_flags(file: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let flags = flags.cast_signed();
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) })
        .map(drop)
}

/// How many descriptors this process may have open: the soft limit of RLIMIT_NOFILE.
///
/// # Errors
/// None is known.
pub fn descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit.rlim_cur)
}

/// Sets the umask of the whole process; what it was.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: the call takes an integer and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Whether the filesystem of the open `file` does direct I/O: O_DIRECT is set for a moment, so `file`
/// must be nobody else's yet.
#[must_use]
pub fn takes_direct(file: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return false;
    }
    // SAFETY: F_SETFL takes an integer.
    let set =
        |flags: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } == 0;
    set(flags | libc::O_DIRECT) && set(flags & !libc::O_DIRECT)
}

/// Sets the soft limit of RLIMIT_NOFILE.
///
/// # Errors
/// * `EINVAL`: above the hard limit.
pub fn set_descriptor_limit(count: u64) -> io::Result<()> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = count;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit64(libc::RLIMIT_NOFILE, &limit) }).map(drop)
}

/// Raises the soft limit of RLIMIT_NOFILE to `count`, or as far as the hard limit allows; what it
/// is afterwards. It is never lowered.
///
/// # Errors
/// None is known.
pub fn raise_descriptor_limit(count: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = count.min(limit.rlim_max).max(limit.rlim_cur);
    // SAFETY: as above.
    check(unsafe { libc::setrlimit64(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn set_size_beyond_what_a_file_can_have_is_efbig() {
        let path = std::env::temp_dir().join(format!("sys-file-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let error = set_size(file.as_fd(), u64::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        set_size(file.as_fd(), 8192).unwrap();
        assert_eq!(seek_hole(file.as_fd(), 0).unwrap(), 0);
        assert_eq!(seek_data(file.as_fd(), 0).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn append_goes_to_the_end_whatever_the_position() {
        let path = std::env::temp_dir().join(format!("sys-append-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(append(file.as_fd(), b"abc").unwrap(), 3);
        assert_eq!(append(file.as_fd(), b"de").unwrap(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), b"abcde");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn takes_direct_tells_filesystems_apart_and_leaves_the_flags() {
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert!(!takes_direct(proc.as_fd()));
        let program = std::fs::File::open("/proc/self/exe").unwrap();
        let before = flags_of(&program);
        let _ = takes_direct(program.as_fd());
        assert_eq!(flags_of(&program), before);
    }

    fn flags_of(file: &std::fs::File) -> libc::c_int {
        // SAFETY: F_GETFL takes no argument.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
    }

    #[test]
    fn descriptor_limit_is_at_least_what_is_open() {
        assert!(descriptor_limit().unwrap() > 3);
    }
}
