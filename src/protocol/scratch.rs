//! A worker's buffers, allocated once.

use std::fmt;

use stratafs_core::NodeId;

use super::config::SessionConfig;
use super::wire::InHeader;

/// The longest value of an attribute and the longest list of names: XATTR_SIZE_MAX and
/// XATTR_LIST_MAX of linux/limits.h, in bytes.
pub(crate) const XATTR_SIZE_MAX: usize = 65_536;

/// The longest arguments of a request, file data and BATCH_FORGET apart: a value of 64 KiB (SETXATTR,
/// or the label of a new object) with two names, a path of 4 KiB and the structures around. What is
/// longer was not made by a kernel, and is E2BIG.
const MAX_ARGS: usize = XATTR_SIZE_MAX + 8192;

/// How many nodes of a BATCH_FORGET are passed on at a time.
pub(crate) const FORGET_BATCH: usize = 256;

/// The buffers of one worker, so that serving a request allocates nothing.
pub struct Scratch {
    pub(crate) args: Box<[u8]>,
    pub(crate) spare: Spare,
}

/// What an operation may use beside its arguments.
pub(crate) struct Spare {
    /// For the value of an attribute, or a list of names.
    pub(crate) value: Box<[u8]>,
    /// Nodes to forget.
    pub(crate) forgets: Vec<(NodeId, u64)>,
    /// Nodes that a READDIRPLUS looked up, to be forgotten if its reply does not arrive.
    pub(crate) granted: Vec<NodeId>,
}

impl Scratch {
    /// Buffers for a worker of a session of this configuration.
    #[must_use]
    pub fn new(config: &SessionConfig) -> Self {
        // A reply of `max_write` bytes holds at most so many entries: names have a byte at least.
        let largest = usize::try_from(config.max_write).unwrap_or(usize::MAX).min(1 << 20);
        let granted = largest.checked_div(MIN_PLUS_ENTRY).unwrap_or(0);
        Self {
            args: vec![0; MAX_ARGS.saturating_sub(InHeader::SIZE)].into(),
            spare: Spare {
                value: vec![0; XATTR_SIZE_MAX].into(),
                forgets: Vec::with_capacity(FORGET_BATCH),
                granted: Vec::with_capacity(granted),
            },
        }
    }
}

/// Bytes of the shortest entry of a READDIRPLUS: `fuse_direntplus` and a name of one byte, padded.
const MIN_PLUS_ENTRY: usize = 160;

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}
