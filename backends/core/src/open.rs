//! Opening: flags in, handle and I/O mode out.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bitflags::bitflags;

use crate::HandleId;

/// Which way data may flow through a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// O_RDONLY.
    Read,
    /// O_WRONLY. Under a writeback cache the protocol widens it to [`Access::ReadWrite`].
    Write,
    /// O_RDWR.
    ReadWrite,
}

/// The flags of open(2), as the client's kernel passes them on.
///
/// The raw value is in the numbering of the machine (O_DIRECT and its neighbours differ between
/// architectures; client and server are on the same).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpenFlags(u32);

const O_ACCMODE: u32 = 0o3;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;
const O_DSYNC: u32 = 0o10_000;
const O_SYNC: u32 = 0o4_010_000;
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECT: u32 = 0o200_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECT: u32 = 0o40_000;

impl OpenFlags {
    /// O_RDONLY.
    pub const READ_ONLY: Self = Self(0);
    /// O_WRONLY.
    pub const WRITE_ONLY: Self = Self(1);
    /// O_RDWR.
    pub const READ_WRITE: Self = Self(2);

    /// The flags with this raw value.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The raw value.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The direction; the meaningless value 3 counts as both.
    #[must_use]
    pub const fn access(self) -> Access {
        match self.0 & O_ACCMODE {
            0 => Access::Read,
            1 => Access::Write,
            _ => Access::ReadWrite,
        }
    }

    /// Whether data may be read.
    #[must_use]
    pub const fn readable(self) -> bool {
        !matches!(self.access(), Access::Write)
    }

    /// Whether data may be written.
    #[must_use]
    pub const fn writable(self) -> bool {
        !matches!(self.access(), Access::Read)
    }

    /// O_APPEND.
    #[must_use]
    pub const fn append(self) -> bool {
        self.0 & O_APPEND != 0
    }

    /// O_TRUNC.
    #[must_use]
    pub const fn truncate(self) -> bool {
        self.0 & O_TRUNC != 0
    }

    /// O_EXCL; of `tmpfile`: the file may never be linked.
    #[must_use]
    pub const fn exclusive(self) -> bool {
        self.0 & O_EXCL != 0
    }

    /// O_DIRECT.
    #[must_use]
    pub const fn direct(self) -> bool {
        self.0 & O_DIRECT != 0
    }

    /// O_SYNC or O_DSYNC.
    #[must_use]
    pub const fn sync(self) -> bool {
        self.0 & (O_SYNC | O_DSYNC) != 0
    }

    /// The same flags with O_APPEND.
    #[must_use]
    pub const fn with_append(self) -> Self {
        Self(self.0 | O_APPEND)
    }

    /// The same flags with O_TRUNC.
    #[must_use]
    pub const fn with_truncate(self) -> Self {
        Self(self.0 | O_TRUNC)
    }

    /// The same flags with O_EXCL.
    #[must_use]
    pub const fn with_exclusive(self) -> Self {
        Self(self.0 | O_EXCL)
    }

    /// The same flags without O_APPEND.
    #[must_use]
    pub const fn without_append(self) -> Self {
        Self(self.0 & !O_APPEND)
    }

    /// The same flags without O_TRUNC, for what was cut already.
    #[must_use]
    pub const fn without_truncate(self) -> Self {
        Self(self.0 & !O_TRUNC)
    }

    /// The same flags without O_EXCL.
    #[must_use]
    pub const fn without_exclusive(self) -> Self {
        Self(self.0 & !O_EXCL)
    }

    /// The same flags without O_DIRECT, whose alignment a client's buffers need not have here.
    #[must_use]
    pub const fn without_direct(self) -> Self {
        Self(self.0 & !O_DIRECT)
    }

    /// The flags of a client with a writeback cache: O_WRONLY becomes O_RDWR, since a partial page
    /// is read before it is written, and O_APPEND is dropped, since the client places the data.
    #[must_use]
    pub const fn for_writeback(self) -> Self {
        let raw = if self.0 & O_ACCMODE == 1 { (self.0 & !O_ACCMODE) | 2 } else { self.0 };
        Self(raw & !O_APPEND)
    }
}

impl fmt::Debug for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFlags({:?}", self.access())?;
        for (set, name) in [
            (self.append(), " append"),
            (self.truncate(), " truncate"),
            (self.exclusive(), " exclusive"),
            (self.direct(), " direct"),
            (self.sync(), " sync"),
        ] {
            if set {
                f.write_str(name)?;
            }
        }
        f.write_str(")")
    }
}

bitflags! {
    /// How the client's kernel treats a handle: FOPEN_* of the FUSE protocol, with its bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenedFlags: u32 {
        /// Past the page cache.
        const DIRECT_IO = 1 << 0;
        /// Keep what the page cache holds of the file.
        const KEEP_CACHE = 1 << 1;
        /// No seeking.
        const NONSEEKABLE = 1 << 2;
        /// Cache the listing.
        const CACHE_DIR = 1 << 3;
        /// A stream: no position at all.
        const STREAM = 1 << 4;
        /// No `flush` at close(2).
        const NOFLUSH = 1 << 5;
        /// Direct writes of one file may run in parallel.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
    }
}

/// A host file through which the kernel may do a node's I/O by itself (FUSE_PASSTHROUGH).
///
/// It is never offered for writing on a file with setuid, setgid or capability bits, for a
/// passthrough write does not clear them, nor by or through anything that must see the bytes.
#[derive(Clone, Debug)]
pub struct BackingFile {
    fd: Arc<OwnedFd>,
    size: Option<u64>,
}

impl BackingFile {
    /// The backing file `fd`.
    #[must_use]
    pub fn new(fd: Arc<OwnedFd>) -> Self {
        Self { fd, size: None }
    }

    /// The same with its size in bytes at this moment, as a hint for an open that only reads: a small
    /// file that the client keeps in its cache is read faster from there.
    #[must_use]
    pub fn with_size(mut self, size: Option<u64>) -> Self {
        self.size = size;
        self
    }

    /// Its size, if that was told.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }
}

impl AsFd for BackingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an open answers.
///
/// The kernel allows one I/O mode per node: while any handle of a node is open, all of them are
/// either cached or passed through to one and the same backing file; a second open in another mode
/// fails with EIO. So the mode belongs to the *node*, from its first open to its last release. The
/// transport keeps it: a filesystem may offer a backing with every open, and only the first open's
/// answer counts. An open that is offered none while the node is passed through (a write to a file
/// that became setuid, say) is answered with the node's backing *and* DIRECT_IO: its reads and
/// writes then come to the filesystem all the same. Without opens
/// ([`NO_OPEN`](crate::Behaviours::NO_OPEN)) nothing is passed through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The handle, or [`HandleId::NONE`] where the filesystem keeps nothing per open.
    pub handle: HandleId,
    /// How the kernel treats it.
    pub flags: OpenedFlags,
    /// A file for the kernel's own I/O.
    pub backing: Option<BackingFile>,
}

impl Opened {
    /// The handle `handle`, treated as `flags` say, without a backing file.
    #[must_use]
    pub fn new(handle: HandleId, flags: OpenedFlags) -> Self {
        Self { handle, flags, backing: None }
    }

    /// No handle: the filesystem keeps nothing per open.
    #[must_use]
    pub fn stateless(flags: OpenedFlags) -> Self {
        Self::new(HandleId::NONE, flags)
    }

    /// The same with this backing file.
    #[must_use]
    pub fn with_backing(mut self, backing: Option<BackingFile>) -> Self {
        self.backing = backing;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_writeback_widens_write_only_and_drops_append() {
        let flags = OpenFlags::WRITE_ONLY.with_append().with_truncate().for_writeback();
        assert_eq!(flags.access(), Access::ReadWrite);
        assert!(!flags.append() && flags.truncate());
        assert_eq!(OpenFlags::READ_ONLY.for_writeback(), OpenFlags::READ_ONLY);
    }

    #[test]
    fn without_takes_one_flag_and_leaves_the_others() {
        let direct = OpenFlags::from_raw(O_DIRECT);
        let all = OpenFlags::from_raw(O_DIRECT | O_DSYNC | 2);
        let all = all.with_append().with_truncate().with_exclusive();
        assert!(!all.without_append().append() && all.without_append().with_append() == all);
        assert!(!all.without_truncate().truncate());
        assert_eq!(all.without_truncate().with_truncate(), all);
        assert!(!all.without_exclusive().exclusive());
        assert_eq!(all.without_exclusive().with_exclusive(), all);
        assert!(!all.without_direct().direct());
        assert_eq!(all.without_direct().raw() | direct.raw(), all.raw());
    }
}
