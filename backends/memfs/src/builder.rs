//! Building a [`MemFs`].

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use stratafs_core::{Cache, CachePolicy};

use crate::MemFs;
use crate::charge::{DIR_COST, NODE_COST};
use crate::clock::{Clock, SystemClock};

/// The capacity where none is asked for, in bytes: 1 GiB. A part of the host's memory, as tmpfs
/// takes it, would make the same composition hold more on one host than on the next.
pub const DEFAULT_CAPACITY: u64 = 1 << 30;

/// Bytes of capacity for each inode where no limit of inodes is asked for: 1024, so that a gibibyte
/// holds a little more than a million files.
const CAPACITY_PER_INODE: u64 = 1024;

/// Handles that may be open at a time whatever the capacity, where no limit is asked for.
const LEAST_HANDLES: u64 = 65_536;

/// The longest file, hence the largest capacity that means anything: the largest `off_t`.
const MAX_CAPACITY: u64 = i64::MAX as u64;

/// Who keeps file locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locks {
    /// The client's kernel: processes of one client see each other's locks. Costs nothing.
    #[default]
    Local,
    /// The filesystem: clients that share it see each other's locks. Each lock is a request, each
    /// close(2) is one more, and every open is a request.
    Remote,
}

/// Why no filesystem was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The capacity does not even hold the root directory.
    #[error(
        "building a MemFs: capacity {capacity} (ENOSPC): the root directory alone takes {least}; \
         give a capacity of at least {least}"
    )]
    CapacityTooSmall {
        /// What was asked for.
        capacity: ByteSize,
        /// What is needed.
        least: ByteSize,
    },
    /// The capacity is beyond the largest file.
    #[error(
        "building a MemFs: capacity of {bytes} bytes (EFBIG): no file can be longer than \
         {MAX_CAPACITY} bytes; give a capacity up to that"
    )]
    CapacityTooLarge {
        /// What was asked for, in bytes.
        bytes: u64,
    },
    /// No inode is allowed.
    #[error(
        "building a MemFs: max_inodes 0 (ENOSPC): the root directory is an inode; give max_inodes \
         of at least 1"
    )]
    NoInodes,
    /// Writeback caching was asked for where nothing may be cached.
    #[error(
        "building a MemFs: writeback with cache policy {policy:?} (EINVAL): a client that keeps \
         written data needs to be told to cache; use cache_policy(Always) or drop writeback(true)"
    )]
    WritebackUncached {
        /// The cache policy.
        policy: CachePolicy,
    },
}

/// Sizes in binary units, as `64.mib()`.
pub trait SizeExt {
    /// This many kibibytes (1024 bytes).
    fn kib(self) -> ByteSize;
    /// This many mebibytes (1024 kibibytes).
    fn mib(self) -> ByteSize;
    /// This many gibibytes (1024 mebibytes).
    fn gib(self) -> ByteSize;
}

impl SizeExt for u64 {
    fn kib(self) -> ByteSize {
        ByteSize(self.saturating_mul(bytesize::KIB))
    }

    fn mib(self) -> ByteSize {
        ByteSize(self.saturating_mul(bytesize::MIB))
    }

    fn gib(self) -> ByteSize {
        ByteSize(self.saturating_mul(bytesize::GIB))
    }
}

/// What a [`MemFs`] is to be like; see [`MemFs::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) capacity: ByteSize,
    pub(crate) max_inodes: Option<u64>,
    pub(crate) max_handles: Option<u64>,
    pub(crate) cache: Cache,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) root_mode: u32,
    pub(crate) root_owner: (u32, u32),
    pub(crate) locks: Locks,
    pub(crate) writeback: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            capacity: ByteSize(DEFAULT_CAPACITY),
            max_inodes: None,
            max_handles: None,
            cache: Cache::new(CachePolicy::Always),
            clock: Arc::new(SystemClock),
            root_mode: 0o755,
            root_owner: (0, 0),
            locks: Locks::default(),
            writeback: false,
        }
    }
}

impl Builder {
    /// The most bytes to hold, everything counted: data, names, attributes, and what it takes to
    /// keep them. [`DEFAULT_CAPACITY`] if not called.
    pub fn capacity(mut self, capacity: ByteSize) -> Self {
        self.capacity = capacity;
        self
    }

    /// The most inodes to hold, the root counted. If not called, one for each 1024 bytes of
    /// capacity.
    pub fn max_inodes(mut self, max_inodes: u64) -> Self {
        self.max_inodes = Some(max_inodes);
        self
    }

    /// The most handles that may be open at a time; beyond it an open fails with ENFILE. If not
    /// called, 65,536 and one more for each page (4096 bytes) of capacity.
    pub fn max_handles(mut self, max_handles: u64) -> Self {
        self.max_handles = Some(max_handles);
        self
    }

    /// What clients may cache, with the timeouts that belong to it. `Always` if not called, for the
    /// memory here is the only place where the files are, and each client is told of what others
    /// change. Clients that no notice reaches (over virtio-fs) and that share a filesystem are
    /// better off with `Auto`, which bounds by a second how long one is behind.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.cache = Cache::new(policy);
        self
    }

    /// How long a client may take a name to lead to its node. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn entry_timeout(mut self, timeout: Duration) -> Self {
        self.cache.entry_timeout = timeout;
        self
    }

    /// How long a client may keep attributes. Call after [`cache_policy`](Self::cache_policy).
    pub fn attr_timeout(mut self, timeout: Duration) -> Self {
        self.cache.attr_timeout = timeout;
        self
    }

    /// How long a client may take a name to be absent. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.cache.negative_timeout = timeout;
        self
    }

    /// Where the time comes from. The host's clock if not called.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Permissions of the root directory (07777). 0755 if not called.
    pub fn root_mode(mut self, mode: u32) -> Self {
        self.root_mode = mode;
        self
    }

    /// Owner and group of the root directory. `0:0` if not called.
    pub fn root_owner(mut self, uid: u32, gid: u32) -> Self {
        self.root_owner = (uid, gid);
        self
    }

    /// Who keeps file locks. [`Locks::Local`] if not called.
    pub fn locks(mut self, locks: Locks) -> Self {
        self.locks = locks;
        self
    }

    /// Whether a client may keep written data for a while and send it in larger parts. Off if not
    /// called: what is not sent yet is neither charged nor refused, so a full filesystem shows only
    /// at fsync(2) or close(2), and the times of a change are the client's.
    pub fn writeback(mut self, writeback: bool) -> Self {
        self.writeback = writeback;
        self
    }

    /// Builds the filesystem.
    ///
    /// # Errors
    /// [`BuildError`] says what contradicts what.
    pub fn build(self) -> Result<MemFs, BuildError> {
        let capacity = self.capacity.as_u64();
        let least = NODE_COST + DIR_COST;
        if capacity < least {
            let (capacity, least) = (self.capacity, ByteSize(least));
            return Err(BuildError::CapacityTooSmall { capacity, least });
        }
        if capacity > MAX_CAPACITY {
            return Err(BuildError::CapacityTooLarge { bytes: capacity });
        }
        if self.max_inodes == Some(0) {
            return Err(BuildError::NoInodes);
        }
        if self.writeback && self.cache.policy == CachePolicy::Never {
            return Err(BuildError::WritebackUncached { policy: self.cache.policy });
        }
        let max_inodes = self.max_inodes.unwrap_or((capacity / CAPACITY_PER_INODE).max(16));
        let max_handles = self.max_handles.unwrap_or(LEAST_HANDLES.saturating_add(capacity / 4096));
        Ok(MemFs::from_builder(self, capacity, max_inodes, max_handles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_with_contradicting_options_says_what_to_do() {
        let build = |builder: Builder| builder.build().map(drop).unwrap_err().to_string();
        let small = build(MemFs::builder().capacity(ByteSize(10)));
        assert!(small.contains("capacity of at least"), "{small}");
        assert!(build(MemFs::builder().capacity(ByteSize(u64::MAX))).contains("EFBIG"));
        assert!(build(MemFs::builder().max_inodes(0)).contains("at least 1"));
        let never = MemFs::builder().cache_policy(CachePolicy::Never).writeback(true);
        assert!(build(never).contains("drop writeback(true)"));
    }

    #[test]
    fn build_with_the_least_capacity_holds_the_root() {
        let least = ByteSize(NODE_COST + DIR_COST);
        let fs = MemFs::builder().capacity(least).max_inodes(1).build().unwrap();
        assert_eq!(fs.usage().bytes, least.as_u64());
    }

    #[test]
    fn size_ext_counts_in_binary_units() {
        assert_eq!(1.kib().as_u64(), 1024);
        assert_eq!(64.mib().as_u64(), 64 << 20);
        assert_eq!(3.gib().as_u64(), 3 << 30);
        assert_eq!(u64::MAX.gib().as_u64(), u64::MAX);
    }
}
