//! A case: one promise, and the steps that show whether it is kept.

use std::fmt;

use crate::{Capabilities, Verdict, World};

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Family {
    /// Finding objects, and the life of nodes.
    Lookup,
    /// Attributes: mode, owner, size.
    Attr,
    /// Making objects.
    Create,
    /// Removing names.
    Remove,
    /// Moving names.
    Rename,
    /// Hard links and symlinks.
    Link,
    /// Reading and writing.
    File,
    /// Holes, allocation and copies of ranges.
    Sparse,
    /// Listings.
    Dir,
    /// Extended attributes.
    Xattr,
    /// FIFOs, sockets, devices.
    Special,
    /// Files without a name.
    Tmpfile,
    /// Setuid, setgid and setgid directories.
    Privilege,
    /// Times.
    Times,
    /// What is too long, too large or too many.
    Limits,
    /// Locks.
    Lock,
    /// Several threads at once.
    Concurrency,
}

/// Where a case makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In process and through a kernel.
    Anywhere,
    /// In process only, for this reason.
    InProcess(&'static str),
    /// Through a kernel only, for this reason.
    Mounted(&'static str),
}

/// One case of the conformance map.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// Operation, condition, outcome.
    pub name: &'static str,
    /// What it is about.
    pub family: Family,
    /// What it needs of the stack.
    pub needs: Capabilities,
    /// Where it makes sense.
    pub place: Place,
    /// The steps, in a fresh directory, begun as root without a umask.
    pub run: fn(&World<'_>) -> Verdict,
}

impl Case {
    /// A case that needs nothing and makes sense anywhere.
    #[must_use]
    pub const fn new(name: &'static str, family: Family, run: fn(&World<'_>) -> Verdict) -> Self {
        Self { name, family, needs: Capabilities::empty(), place: Place::Anywhere, run }
    }

    /// The same case, needing these too.
    #[must_use]
    pub const fn needing(mut self, needs: Capabilities) -> Self {
        self.needs = self.needs.union(needs);
        self
    }

    /// The same case, in process only, for this reason.
    #[must_use]
    pub const fn in_process(mut self, reason: &'static str) -> Self {
        self.place = Place::InProcess(reason);
        self
    }

    /// The same case, through a kernel only, for this reason.
    #[must_use]
    pub const fn mounted(mut self, reason: &'static str) -> Self {
        self.place = Place::Mounted(reason);
        self
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({:?} {})", self.family, self.name)
    }
}

/// A case of the family that the calling module calls `FAMILY`, named by its function:
/// `case!(function)` or `case!(function, CAPABILITY | …)`.
macro_rules! case {
    ($run:ident) => {
        $crate::Case::new(stringify!($run), FAMILY, $run)
    };
    ($run:ident, $($need:ident)|+) => {
        case!($run)$(.needing($crate::Capabilities::$need))+
    };
}
pub(crate) use case;
