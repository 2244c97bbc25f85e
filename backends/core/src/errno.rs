//! Errors as the kernel numbers them.

use std::fmt;

/// The result of every trait method.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

/// An error number, Linux's on every host.
///
/// Expected answers (`ENOENT`, `ENODATA`) are as cheap as a number. An error that surprises is
/// logged once, where its cause is known, before it becomes an `Errno`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

/// The largest error number the kernel accepts from a FUSE server is 511; it drops the connection's
/// request with EINVAL beyond that (`fuse_dev_do_write`).
const MAX_WIRE_ERRNO: i32 = 511;

impl Errno {
    /// The error of the raw number `raw`; anything that is no error number becomes [`Errno::EIO`].
    #[must_use]
    pub const fn from_raw(raw: i32) -> Self {
        if raw > 0 && raw <= MAX_WIRE_ERRNO { Self(raw as u16) } else { Self::EIO }
    }

    /// The positive error number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0 as i32
    }

    /// The symbolic name, when it is one of those known here.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(errno, _, _)| *errno == self).map(|(_, name, _)| *name)
    }

    /// What the number means, in the words of errno(3).
    #[must_use]
    pub fn description(self) -> &'static str {
        NAMES
            .iter()
            .find(|(errno, _, _)| *errno == self)
            .map_or("unknown error", |(_, _, text)| *text)
    }
}

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*
        }
        const NAMES: &[(Errno, &str, &str)] = &[$((Errno::$name, stringify!($name), $text),)*];
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument list too long";
    EBADF = 9, "bad handle";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "device or resource busy";
    EEXIST = 17, "file exists";
    EXDEV = 18, "cross-device link";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "inappropriate ioctl";
    ETXTBSY = 26, "text file busy";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    ESPIPE = 29, "illegal seek";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    EPIPE = 32, "broken pipe";
    ERANGE = 34, "result too large";
    EDEADLK = 35, "resource deadlock avoided";
    ENAMETOOLONG = 36, "file name too long";
    ENOLCK = 37, "no locks available";
    ENOSYS = 38, "function not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many levels of symbolic links";
    ENODATA = 61, "no data available";
    EPROTO = 71, "protocol error";
    EOVERFLOW = 75, "value too large";
    EUCLEAN = 117, "structure needs cleaning";
    EOPNOTSUPP = 95, "operation not supported";
    ENOTCONN = 107, "not connected";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "connection refused";
    ESTALE = 116, "stale file handle";
    EDQUOT = 122, "quota exceeded";
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.description()),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    /// The system's number where the error has one; EIO otherwise.
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_raw)
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_raw_of_no_error_number_is_eio() {
        for raw in [0, -1, i32::MIN, MAX_WIRE_ERRNO + 1, i32::MAX] {
            assert_eq!(Errno::from_raw(raw), Errno::EIO);
        }
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
    }

    #[test]
    fn numbers_are_distinct_and_named() {
        for (i, (errno, name, _)) in NAMES.iter().enumerate() {
            assert_eq!(errno.name(), Some(*name));
            assert!(NAMES[..i].iter().all(|(other, _, _)| other != errno), "{name} twice");
        }
    }

    #[test]
    fn display_names_the_number_and_says_what_it_means() {
        assert_eq!(Errno::ENOENT.to_string(), "ENOENT (no such file or directory)");
        assert_eq!(Errno::from_raw(300).to_string(), "errno 300");
    }
}
