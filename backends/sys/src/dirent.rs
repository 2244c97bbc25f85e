//! Reading directories: getdents64(2).

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One entry, as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// The inode number.
    pub ino: u64,
    /// The position after this entry, for [`seek`](crate::file::seek).
    pub next: u64,
    /// The type: DT_* of readdir(3), 0 where the filesystem does not say.
    pub kind: u8,
    /// The name, `.` and `..` included.
    pub name: &'a [u8],
}

/// Fills `buffer` with the entries that follow the position of `dir`, and says how many bytes they
/// take; 0 at the end.
///
/// # Errors
/// * `EINVAL`: `buffer` is too small for one entry. `ENOTDIR`: no directory.
/// * `ENOENT`: the directory was removed.
pub fn read(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `buffer`, which lives through the call.
    let n = check(unsafe {
        libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    })?;
    usize::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EIO))
}

/// The first entry of what [`read`] filled in, and its length; `None` at the end, or where the
/// bytes are none.
#[must_use]
pub fn first(bytes: &[u8]) -> Option<(Dirent<'_>, usize)> {
    // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name with its NUL.
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (ino, next) = (word(0)?, word(8)?);
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    let kind = *bytes.get(18)?;
    let name = bytes.get(19..len)?;
    let end = name.iter().position(|b| *b == 0)?;
    Some((Dirent { ino, next, kind, name: name.get(..end)? }, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn read_of_a_directory_lists_what_the_standard_library_lists() {
        let dir = File::open("/proc/self").unwrap();
        let mut buffer = [0; 4096];
        let mut names = Vec::new();
        loop {
            let n = read(dir.as_fd(), &mut buffer).unwrap();
            if n == 0 {
                break;
            }
            let mut rest = &buffer[..n];
            while let Some((entry, len)) = first(rest) {
                names.push(entry.name.to_vec());
                rest = &rest[len..];
            }
            assert!(rest.is_empty());
        }
        assert!(names.iter().any(|name| name == b"fd") && names.iter().any(|name| name == b"."));
    }

    #[test]
    fn first_of_cut_off_bytes_is_none() {
        let dir = File::open("/proc/self").unwrap();
        let mut buffer = [0; 1024];
        let n = read(dir.as_fd(), &mut buffer).unwrap();
        let (_, len) = first(&buffer[..n]).unwrap();
        for short in 0..len {
            assert_eq!(first(&buffer[..short]), None);
        }
    }
}
