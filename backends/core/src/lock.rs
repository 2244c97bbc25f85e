//! File locks that a filesystem keeps itself.
//!
//! By default locks stay with the client's kernel and none of this is asked for.

/// Who holds a lock, as the client names it: one value per open file description or process.
///
/// Two clients may use one value for two holders: a filesystem that keeps locks and serves more than
/// one session tells holders apart by the session of the [`Context`](crate::Context) too. A layer
/// that passes locks on, or gives them up for a client, does so with that client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner(pub u64);

/// What kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None: give up.
    Unlock,
}

/// Which of the two families, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockFlavour {
    /// fcntl(2) locks on byte ranges.
    Posix,
    /// flock(2) locks on whole files.
    Flock,
}

/// A lock on a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileLock {
    /// The kind.
    pub kind: LockKind,
    /// The first byte.
    pub start: u64,
    /// The last byte, itself included; `u64::MAX` is the end of any file.
    pub end: u64,
    /// The process that holds it, in the client's view.
    pub pid: u32,
}

impl FileLock {
    /// A lock of the bytes from `start` to `end`, both included.
    #[must_use]
    pub const fn new(kind: LockKind, start: u64, end: u64, pid: u32) -> Self {
        Self { kind, start, end, pid }
    }

    /// The same lock, of the bytes from `start` to `end`, both included.
    #[must_use]
    pub const fn with_range(self, start: u64, end: u64) -> Self {
        Self { start, end, ..self }
    }

    /// The same bytes, locked by `kind`.
    #[must_use]
    pub const fn with_kind(self, kind: LockKind) -> Self {
        Self { kind, ..self }
    }

    /// Whether both locks cover a common byte.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether the locks, held by different owners, exclude each other.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.overlaps(other)
            && self.kind != LockKind::Unlock
            && other.kind != LockKind::Unlock
            && (self.kind == LockKind::Write || other.kind == LockKind::Write)
    }
}
