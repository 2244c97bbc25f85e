//! Identities: what a client holds to speak of an object.

use std::fmt;
use std::time::Duration;

use crate::Attr;

/// The identity of an object towards a client.
///
/// A node id is a capability: a session that was not given it gets `ESTALE` before any filesystem
/// sees it. `0` is never a node; `1` is the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of every filesystem: FUSE_ROOT_ID. Its lookup count never reaches zero.
    pub const ROOT: Self = Self(1);
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// The identity of an open file or directory within its filesystem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

impl HandleId {
    /// No handle: the filesystem keeps nothing per open, and finds what it needs by the node.
    pub const NONE: Self = Self(0);
}

impl fmt::Debug for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handle {}", self.0)
    }
}

/// A session: one client's connection, from its INIT to its end. Unique within the process.
///
/// Sessions that share a filesystem share its node ids, and know nothing of one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Tells two objects apart that held the same inode number one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// An identity that outlives the server: the same object gives the same bytes in a later run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PersistentId {
    /// The filesystem, as a UUID.
    pub fsid: [u8; 16],
    /// The object within it: at most 128 bytes (MAX_HANDLE_SZ of name_to_handle_at(2)).
    pub bytes: Vec<u8>,
}

impl PersistentId {
    /// The object `bytes` of the filesystem `fsid`.
    #[must_use]
    pub const fn new(fsid: [u8; 16], bytes: Vec<u8>) -> Self {
        Self { fsid, bytes }
    }
}

/// What a lookup or a creation answers: an object, and how long the answer may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The object. Each `Entry` handed out raises its lookup count by one.
    pub node: NodeId,
    /// Tells it from an earlier object of the same inode number.
    pub generation: Generation,
    /// Its attributes.
    pub attr: Attr,
    /// How long `attr` may be kept.
    pub attr_timeout: Duration,
    /// How long the name may be taken to lead to this node.
    pub entry_timeout: Duration,
    /// Whether it is the root of a mount within the share (FUSE_ATTR_SUBMOUNT).
    pub submount: bool,
}

impl Entry {
    /// An entry that may not be kept; see the fields for more.
    #[must_use]
    pub fn new(node: NodeId, attr: Attr) -> Self {
        Self {
            node,
            generation: Generation(0),
            attr,
            attr_timeout: Duration::ZERO,
            entry_timeout: Duration::ZERO,
            submount: false,
        }
    }

    /// The same entry with these timeouts.
    #[must_use]
    pub fn with_timeouts(mut self, entry: Duration, attr: Duration) -> Self {
        self.entry_timeout = entry;
        self.attr_timeout = attr;
        self
    }

    /// The same entry with this generation.
    #[must_use]
    pub fn with_generation(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }
}
