//! Directory listings: streamed into a callback, one entry at a time.

use crate::{Entry, FileType, Name};

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DirEntry<'a> {
    /// The inode number; equal to the object's `st_ino`.
    pub ino: u64,
    /// The type, where it is known without a look at the object (DT_UNKNOWN of readdir(3) otherwise).
    pub kind: Option<FileType>,
    /// The name: `.`, `..` or the bytes of a [`Name`].
    pub name: &'a [u8],
    /// Where the listing goes on after this entry. Never 0; stable across deletes of other
    /// entries and across rewinddir(3).
    pub cookie: u64,
}

impl<'a> DirEntry<'a> {
    /// The entry `name`.
    #[must_use]
    pub fn new(ino: u64, kind: impl Into<Option<FileType>>, name: Name<'a>, cookie: u64) -> Self {
        Self { ino, kind: kind.into(), name: name.as_bytes(), cookie }
    }

    /// The entry `.`.
    #[must_use]
    pub fn dot(ino: u64, cookie: u64) -> Self {
        Self { ino, kind: Some(FileType::Directory), name: b".", cookie }
    }

    /// The entry `..`.
    #[must_use]
    pub fn dotdot(ino: u64, cookie: u64) -> Self {
        Self { ino, kind: Some(FileType::Directory), name: b"..", cookie }
    }

    /// The name, unless it is `.` or `..`.
    #[must_use]
    pub fn entry_name(&self) -> Option<Name<'a>> {
        Name::new(self.name).ok()
    }
}

/// What became of an entry that was offered to a [`DirSink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Added {
    /// It is in the listing.
    Taken,
    /// It did not fit and was not taken: the listing ends before it.
    Full,
}

/// Where the entries of a listing go.
pub trait DirSink {
    /// Whether an entry with a name of `name_len` bytes would be taken: asked before an object is
    /// looked up for it.
    fn fits(&self, name_len: usize) -> bool;

    /// Offers an entry. For `readdirplus`, `plus` is the looked-up object, whose lookup count was
    /// raised by one; it is `None` for `.` and `..`, and for an object that could not be looked up.
    /// When the answer is [`Added::Full`] the caller still owns that reference.
    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added;
}
