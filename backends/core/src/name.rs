//! Names: the only form in which a directory entry or an attribute is named.
//!
//! mkdirat(2), unlinkat(2) and their kin take no RESOLVE flag, so for them the check made here *is*
//! the wall around a share: nothing but a [`Name`] reaches a backend.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

/// The longest name of a directory entry, in bytes: NAME_MAX of limits.h.
pub const NAME_MAX: usize = 255;

/// The longest name of an extended attribute, in bytes: XATTR_NAME_MAX of linux/limits.h.
pub const XATTR_NAME_MAX: usize = 255;

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// No bytes at all.
    Empty,
    /// More than 255 bytes.
    TooLong,
    /// A `/` or a NUL is in it.
    ForbiddenByte,
    /// `.` or `..`, which name a place and not an entry.
    Dots,
}

impl From<NameError> for crate::Errno {
    /// `ENAMETOOLONG` for a long name, `EINVAL` for what no kernel sends.
    fn from(error: NameError) -> Self {
        match error {
            NameError::TooLong => Self::ENAMETOOLONG,
            NameError::Empty | NameError::ForbiddenByte | NameError::Dots => Self::EINVAL,
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a name may not be empty",
            Self::TooLong => "a name may not be longer than 255 bytes",
            Self::ForbiddenByte => "a name may hold neither `/` nor NUL",
            Self::Dots => "`.` and `..` are not names of an entry",
        })
    }
}

impl std::error::Error for NameError {}

/// The name of a directory entry: 1 to 255 bytes without `/` and NUL, not `.` or `..`.
///
/// Bytes, not UTF-8: whatever a Linux filesystem can hold passes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks `bytes` (without a terminating NUL) and makes them a name.
    ///
    /// # Errors
    /// The first rule that `bytes` break, as a [`NameError`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > NAME_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::ForbiddenByte),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes, without a NUL.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The name as the host's string type.
    #[must_use]
    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned(self) -> NameBuf {
        NameBuf(self.0.into())
    }
}

impl Deref for Name<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A [`Name`] that owns its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameBuf(Box<[u8]>);

impl NameBuf {
    /// The borrowed form.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }

    /// The bytes, without a NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for NameBuf {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name().fmt(f)
    }
}

impl From<Name<'_>> for NameBuf {
    fn from(name: Name<'_>) -> Self {
        name.to_owned()
    }
}

/// The name of an extended attribute: 1 to 255 bytes without NUL, namespace included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName<'a>(&'a [u8]);

impl<'a> XattrName<'a> {
    /// Checks `bytes` (without a terminating NUL) and makes them an attribute's name.
    ///
    /// # Errors
    /// The first rule that `bytes` break, as a [`NameError`]. The kernel answers a name that is too
    /// long with ERANGE; callers that speak to a kernel map [`NameError::TooLong`] so.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            _ if bytes.len() > XATTR_NAME_MAX => Err(NameError::TooLong),
            _ if bytes.contains(&0) => Err(NameError::ForbiddenByte),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes, without a NUL.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The namespace: what stands before the first dot, or nothing.
    #[must_use]
    pub fn namespace(self) -> &'a [u8] {
        self.0.iter().position(|b| *b == b'.').map_or(&[], |dot| &self.0[..dot])
    }
}

impl fmt::Debug for XattrName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_of_bytes_that_name_no_entry_says_which_rule_they_break() {
        let long = [b'a'; NAME_MAX + 1];
        for (bytes, error) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::ForbiddenByte),
            (b"a/", NameError::ForbiddenByte),
            (b"/", NameError::ForbiddenByte),
            (b"a\0", NameError::ForbiddenByte),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(Name::new(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn new_of_any_other_bytes_keeps_them() {
        let longest = [b'a'; NAME_MAX];
        for bytes in [&b"a"[..], b"...", b".a", b"\xff\xfe", b" ", b"a\\b", &longest] {
            assert_eq!(Name::new(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn xattr_namespace_ends_at_the_first_dot() {
        assert_eq!(XattrName::new(b"user.a.b").unwrap().namespace(), b"user");
        assert_eq!(XattrName::new(b"none").unwrap().namespace(), b"");
    }
}
