//! Positioned and vectored reads and writes, and copies between files.

use crate::check;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// The file offset type, refused where it would be negative.
fn offset(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Reads at `position` into `buffers`, one after another; short at the end of the file.
///
/// # Errors
/// * `EINVAL`: `position` is beyond what a file can have.
/// * `EISDIR`, `ESPIPE`: not a file that can be read so.
pub fn read_at(
    file: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    position: u64,
) -> io::Result<usize> {
    let count = libc::c_int::try_from(buffers.len()).unwrap_or(libc::c_int::MAX);
    let position = offset(position)?;
    // SAFETY: IoSliceMut is guaranteed to be laid out as iovec; the buffers live through the call.
    let n = check(unsafe {
        libc::preadv64(file.as_raw_fd(), buffers.as_mut_ptr().cast(), count, position)
    })?;
    Ok(n.cast_unsigned())
}

/// Writes `buffers`, one after another, at `position`; may be short.
///
/// # Errors
/// * `EINVAL`: `position` is beyond what a file can have.
/// * `ENOSPC`, `EDQUOT`, `EFBIG`, `ESPIPE`: the file cannot take it.
pub fn write_at(file: BorrowedFd<'_>, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
    let count = libc::c_int::try_from(buffers.len()).unwrap_or(libc::c_int::MAX);
    let position = offset(position)?;
    // SAFETY: IoSlice is guaranteed to be laid out as iovec; the buffers live through the call.
    let n = check(unsafe {
        libc::pwritev64(file.as_raw_fd(), buffers.as_ptr().cast(), count, position)
    })?;
    Ok(n.cast_unsigned())
}

/// A place in a file.
#[derive(Debug, Clone, Copy)]
pub struct At<'fd> {
    /// The file.
    pub file: BorrowedFd<'fd>,
    /// The offset in bytes.
    pub position: u64,
}

/// Copies up to `len` bytes from one place to another without passing through this process;
/// answers how many, 0 at the end of the source: copy_file_range(2).
///
/// # Errors
/// * `EXDEV`, `EOPNOTSUPP`, `EINVAL`: these two files cannot; copy by hand.
/// * `ENOSPC`, `EDQUOT`, `EFBIG`: the target cannot take it.
pub fn copy_range(from: At<'_>, to: At<'_>, len: usize) -> io::Result<usize> {
    let mut source = offset(from.position)?;
    let mut target = offset(to.position)?;
    // SAFETY: both offsets live through the call.
    let n = check(unsafe {
        libc::copy_file_range(
            from.file.as_raw_fd(),
            &mut source,
            to.file.as_raw_fd(),
            &mut target,
            len,
            0,
        )
    })?;
    Ok(n.cast_unsigned())
}

/// An empty file in memory that has no path: memfd_create(2). `name` shows in `/proc` only.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no descriptor is left.
pub fn memory_file(name: &std::ffi::CStr) -> io::Result<std::fs::File> {
    // SAFETY: the name is NUL-terminated.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { std::fs::File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn write_at_then_read_at_in_other_pieces_returns_the_bytes() {
        let file = memory_file(c"test").unwrap();
        let pieces = [IoSlice::new(b"abc"), IoSlice::new(b"defg")];
        assert_eq!(write_at(file.as_fd(), &pieces, 5).unwrap(), 7);
        let (mut a, mut b) = ([0; 6], [0; 10]);
        let mut buffers = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(read_at(file.as_fd(), &mut buffers, 4).unwrap(), 8);
        assert_eq!((&a, &b[..2]), (b"\0abcde", &b"fg"[..]));
    }

    #[test]
    fn read_at_of_an_offset_above_i64_is_refused() {
        let file = memory_file(c"test").unwrap();
        let error = read_at(file.as_fd(), &mut [], u64::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn copy_range_between_files_copies_and_ends_at_eof() {
        let (source, target) = (memory_file(c"test").unwrap(), memory_file(c"test").unwrap());
        write_at(source.as_fd(), &[IoSlice::new(b"0123456789")], 0).unwrap();
        let from = |position| At { file: source.as_fd(), position };
        let to = At { file: target.as_fd(), position: 3 };
        assert_eq!(copy_range(from(4), to, 100).unwrap(), 6);
        assert_eq!(copy_range(from(10), to, 100).unwrap(), 0);
        let mut copied = [0; 16];
        let n = read_at(target.as_fd(), &mut [IoSliceMut::new(&mut copied)], 0).unwrap();
        assert_eq!(&copied[..n], b"\0\0\x00456789");
    }
}
