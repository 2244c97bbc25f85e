//! Policies: which of the two sides an operation goes to.
//!
//! A policy decides nothing by itself: it answers a [`Plan`], and one executor does what that says. So a
//! policy can be written down as a table, and tested as one.

use std::fmt;

use stratafs_core::{FileType, Name, OpKind};

/// One of the two backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Backend A.
    A,
    /// Backend B.
    B,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "backend A",
            Self::B => "backend B",
        })
    }
}

/// Where names are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// On one side; what the other has does not exist.
    Only(Side),
    /// On both. A name that both have leads to what the side named here has, unless it was changed
    /// through this filesystem: then to what it was changed to. Directories that both have are merged.
    Both(Side),
}

impl Look {
    /// Whether `side` is looked at.
    #[must_use]
    pub fn includes(self, side: Side) -> bool {
        match self {
            Self::Only(only) => only == side,
            Self::Both(_) => true,
        }
    }
}

/// Which object an operation acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// The one that was found, on whichever side it is.
    Found,
    /// The one on the written side.
    Written,
}

/// What is brought to the written side first, where an operation acts there and the object is not
/// there. Its parents always come with it, and before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// Nothing: the operation is refused, with EXDEV if it is a rename and EROFS otherwise.
    Nothing,
    /// The object; of a directory, itself and not what is in it.
    Object,
    /// The object, and everything in it.
    Tree,
}

/// How an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Plan {
    /// Where to look. Taken from the plans of `lookup`, `readdir` and `statfs` alone: a name is looked
    /// for in one way, whatever the operation is.
    pub look: Look,
    /// Where to act. An operation that changes something acts on the written side or is refused, so
    /// [`Act::Found`] lets it be done only to what is there already.
    pub act: Act,
    /// What to transfer first.
    pub transfer: Transfer,
}

impl Plan {
    /// Looks as `look` says, acts on what was found, transfers nothing.
    #[must_use]
    pub const fn read(look: Look) -> Self {
        Self { look, act: Act::Found, transfer: Transfer::Nothing }
    }

    /// Looks as `look` says, acts on the written side, and transfers to it what `transfer` says.
    #[must_use]
    pub const fn write(look: Look, transfer: Transfer) -> Self {
        Self { look, act: Act::Written, transfer }
    }
}

/// What a plan is asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The operation.
    pub op: OpKind,
    /// Whether it would change something.
    pub changes: bool,
    /// The type of the object that it is about, where that is known: of an operation on a name that
    /// is not there yet, of the directory.
    pub kind: Option<FileType>,
    /// The name that it is about, if any.
    pub name: Option<Name<'a>>,
}

impl<'a> Request<'a> {
    /// A request of `op`, which changes something or does not.
    #[must_use]
    pub const fn new(op: OpKind, changes: bool) -> Self {
        Self { op, changes, kind: None, name: None }
    }

    /// The same, about an object of this type.
    #[must_use]
    pub const fn of(mut self, kind: FileType) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The same, about this name.
    #[must_use]
    pub const fn named(mut self, name: Name<'a>) -> Self {
        self.name = Some(name);
        self
    }
}

/// A policy: which of the two sides an operation goes to.
///
/// ```
/// use stratafs_core::OpKind;
/// use stratafs_dualfs::{DispatchPolicy, Look, Plan, Request, Side, Transfer};
///
/// /// Reads and writes A, and brings a file of B to it as soon as it is opened.
/// struct ReadThrough;
///
/// impl DispatchPolicy for ReadThrough {
///     fn name(&self) -> &'static str {
///         "read-through"
///     }
///
///     fn plan(&self, request: &Request<'_>) -> Plan {
///         let look = Look::Both(Side::A);
///         match request.op {
///             OpKind::Open => Plan::write(look, Transfer::Object),
///             _ if request.changes => Plan::write(look, Transfer::Tree),
///             _ => Plan::read(look),
///         }
///     }
/// }
/// ```
pub trait DispatchPolicy: Send + Sync {
    /// The name, in kebab-case.
    fn name(&self) -> &'static str;

    /// The side that is written. The other is never changed. The same answer at every call.
    fn written(&self) -> Side {
        Side::A
    }

    /// How `request` is done. The same answer for the same request, or the tree would not make sense.
    ///
    /// Called for every request; it should neither block nor allocate.
    fn plan(&self, request: &Request<'_>) -> Plan;
}

impl fmt::Debug for dyn DispatchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DispatchPolicy({})", self.name())
    }
}

/// Reads go to B and changes to A.
///
/// | operation | looks | acts on | transfers first |
/// |---|---|---|---|
/// | lookup, readdir | B, then A | | |
/// | statfs | A | | |
/// | what reads | | what was found | nothing |
/// | rename | | A | the object, with everything in it |
/// | what changes | | A | the object |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadBackendBWriteBackendA;

/// Everything goes to A. B is not looked at.
///
/// | operation | looks | acts on | transfers first |
/// |---|---|---|---|
/// | lookup, readdir, statfs | A | | |
/// | what reads | | what was found | nothing |
/// | what changes | | A | nothing |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendAOnly;

/// Reads try A, and fall back to B for what A has not. What is on B alone is not renamed but copied:
/// EXDEV, upon which mv(1) does that.
///
/// | operation | looks | acts on | transfers first |
/// |---|---|---|---|
/// | lookup, readdir | A, then B | | |
/// | statfs | A | | |
/// | what reads | | what was found | nothing |
/// | rename | | A | nothing |
/// | what changes | | A | the object |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendAFallbackToBackendBRead;

/// Both are one tree, in which A wins where both have a name.
///
/// | operation | looks | acts on | transfers first |
/// |---|---|---|---|
/// | lookup, readdir | A, then B | | |
/// | statfs | both | | |
/// | what reads | | what was found | nothing |
/// | rename | | A | the object, with everything in it |
/// | what changes | | A | the object |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReadsBackendAPrecedence;

/// The plan of a policy that looks as `look` says, whose renames transfer `renamed`.
fn plan(request: &Request<'_>, look: Look, renamed: Transfer) -> Plan {
    match request.op {
        OpKind::Rename => Plan::write(look, renamed),
        _ if request.changes => Plan::write(look, Transfer::Object),
        _ => Plan::read(look),
    }
}

impl DispatchPolicy for ReadBackendBWriteBackendA {
    fn name(&self) -> &'static str {
        "read-backend-b-write-backend-a"
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        match request.op {
            OpKind::Statfs => Plan::read(Look::Only(Side::A)),
            _ => plan(request, Look::Both(Side::B), Transfer::Tree),
        }
    }
}

impl DispatchPolicy for BackendAOnly {
    fn name(&self) -> &'static str {
        "backend-a-only"
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        let look = Look::Only(Side::A);
        if request.changes { Plan::write(look, Transfer::Nothing) } else { Plan::read(look) }
    }
}

impl DispatchPolicy for BackendAFallbackToBackendBRead {
    fn name(&self) -> &'static str {
        "backend-a-fallback-to-backend-b-read"
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        match request.op {
            OpKind::Statfs => Plan::read(Look::Only(Side::A)),
            _ => plan(request, Look::Both(Side::A), Transfer::Nothing),
        }
    }
}

impl DispatchPolicy for MergeReadsBackendAPrecedence {
    fn name(&self) -> &'static str {
        "merge-reads-backend-a-precedence"
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        plan(request, Look::Both(Side::A), Transfer::Tree)
    }
}
