//! What a filesystem must remember to go on after its server was replaced.

/// The captured state of a filesystem and of those it is made of.
///
/// A stack is captured and restored children first. Objects are named by path, never by a host
/// handle, for a handle may lead out of the share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// The kind of filesystem that wrote it; restoring it into another kind is refused.
    pub kind: String,
    /// The version of `bytes`, counted by the kind.
    pub version: u32,
    /// The state itself, in the kind's own form. Validated whole before anything is changed.
    pub bytes: Vec<u8>,
    /// The states of its members, in the order in which they were composed.
    pub children: Vec<State>,
    /// What could not be captured, one sentence each.
    pub uncaptured: Vec<String>,
}

impl State {
    /// The state `bytes` of a filesystem of `kind`, in its `version`.
    #[must_use]
    pub fn new(kind: impl Into<String>, version: u32, bytes: Vec<u8>) -> Self {
        Self { kind: kind.into(), version, bytes, ..Self::default() }
    }
}
