//! How long, and whether, a client's kernel may keep what it was told.

use std::time::Duration;

use crate::OpenedFlags;

/// How much a client's kernel may cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// Nothing: every read and every lookup reaches the filesystem (DIRECT_IO, timeouts of zero).
    /// Shared memory maps still work, or SQLite's WAL would not.
    Never,
    /// The kernel's usual way: data is kept while a file stays open, names and attributes for a
    /// second, absent names not at all.
    #[default]
    Auto,
    /// Everything, for as long as memory lasts: right where nobody else changes the files.
    Always,
}

/// A timeout that never ends, in practice: a day, after which asking again costs nothing.
const FOREVER: Duration = Duration::from_secs(86_400);

/// A cache policy with its timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// The policy.
    pub policy: CachePolicy,
    /// How long a name may be taken to lead to its node.
    pub entry_timeout: Duration,
    /// How long attributes may be kept.
    pub attr_timeout: Duration,
    /// How long a name may be taken to be absent.
    pub negative_timeout: Duration,
}

impl Cache {
    /// The policy with the timeouts that belong to it: `Never` zero; `Auto` one second and no
    /// absent names; `Always` a day.
    #[must_use]
    pub fn new(policy: CachePolicy) -> Self {
        let (positive, negative) = match policy {
            CachePolicy::Never => (Duration::ZERO, Duration::ZERO),
            CachePolicy::Auto => (Duration::from_secs(1), Duration::ZERO),
            CachePolicy::Always => (FOREVER, FOREVER),
        };
        Self { policy, entry_timeout: positive, attr_timeout: positive, negative_timeout: negative }
    }

    /// The flags with which a file opens.
    #[must_use]
    pub fn file_flags(&self) -> OpenedFlags {
        match self.policy {
            CachePolicy::Never => OpenedFlags::DIRECT_IO | OpenedFlags::PARALLEL_DIRECT_WRITES,
            CachePolicy::Auto => OpenedFlags::empty(),
            CachePolicy::Always => OpenedFlags::KEEP_CACHE,
        }
    }

    /// The flags with which a directory opens.
    #[must_use]
    pub fn dir_flags(&self) -> OpenedFlags {
        match self.policy {
            CachePolicy::Never | CachePolicy::Auto => OpenedFlags::empty(),
            CachePolicy::Always => OpenedFlags::CACHE_DIR | OpenedFlags::KEEP_CACHE,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(CachePolicy::default())
    }
}

impl From<CachePolicy> for Cache {
    fn from(policy: CachePolicy) -> Self {
        Self::new(policy)
    }
}
