//! Identities that outlive a mount: name_to_handle_at(2), FS_IOC_GETFSUUID.
//!
//! There is no way back from a handle to an object here: open_by_handle_at(2) takes handles of
//! objects outside any share.

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// MAX_HANDLE_SZ of fcntl.h.
const MAX_HANDLE: usize = 128;

/// `struct file_handle` with room for the longest one.
#[repr(C)]
struct Raw {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// A file handle: a type and bytes that mean something to its filesystem alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    kind: i32,
    len: usize,
    bytes: [u8; MAX_HANDLE],
}

impl Handle {
    /// The type of the handle.
    #[must_use]
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The handle of what `file` pins.
///
/// # Errors
/// * `EOPNOTSUPP`: the filesystem has none.
pub fn of(file: BorrowedFd<'_>) -> io::Result<Handle> {
    let mut raw = Raw { len: MAX_HANDLE as u32, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount = 0;
    // SAFETY: the path is empty, which means the descriptor itself; `raw` has the layout of
    // struct file_handle with the room that `len` tells; all live through the call.
    check(unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    })?;
    let len = (raw.len as usize).min(MAX_HANDLE);
    Ok(Handle { kind: raw.kind, len, bytes: raw.bytes })
}

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `FS_IOC_GETFSUUID`, `_IOR(0x15, 0, struct fsuuid2)`.
const GETFSUUID: libc::Ioctl = libc::_IOR::<FsUuid>(0x15, 0);

/// The UUID of the filesystem that the open file `file` is on.
///
/// # Errors
/// * `ENOTTY`: a kernel before 6.9, or a filesystem without one. `EBADF`: an O_PATH descriptor.
pub fn filesystem_uuid(file: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    let mut found = FsUuid { len: 0, uuid: [0; 16] };
    // SAFETY: the request fills one struct fsuuid2, which `found` is.
    check(unsafe { libc::ioctl(file.as_raw_fd(), GETFSUUID, &raw mut found) })?;
    if found.len != 16 {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    Ok(found.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn uuid_ioctl_has_the_kernels_number() {
        assert_eq!(GETFSUUID, 0x8011_1500);
    }

    #[test]
    fn of_the_same_file_twice_is_the_same_handle() {
        let exe = File::open("/proc/self/exe").unwrap();
        let again = File::open("/proc/self/exe").unwrap();
        match (of(exe.as_fd()), of(again.as_fd())) {
            (Ok(one), Ok(two)) => {
                assert_eq!(one, two);
                assert!(!one.as_bytes().is_empty());
            }
            (one, _) => {
                let errno = one.unwrap_err().raw_os_error();
                assert_eq!(errno, Some(libc::EOPNOTSUPP));
            }
        }
    }
}
