//! How a session is to be served.

use stratafs_core::Behaviours;

/// The transport that a session's requests come by, as far as the protocol must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// `/dev/fuse`: INTERRUPT ends waits, and SYNCFS is never sent.
    Dev,
    /// virtio-fs: there is no INTERRUPT, so nothing may wait. A lock that another holds is EAGAIN
    /// at once, for SETLKW too.
    Virtio,
}

/// How a session is to be served. Limits are upper ones: the client may ask for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The transport.
    pub transport: TransportKind,
    /// The largest write, in bytes: at least 4096. A transport's buffer holds this and 4096 more
    /// (the kernel refuses to read into a smaller one).
    pub max_write: u32,
    /// The largest request, in pages of the client, from 1. The kernel cuts it to its own limit
    /// (`fs.fuse.max_pages_limit`, 256 unless set).
    pub max_pages: u16,
    /// How much is read ahead at most, in bytes.
    pub max_readahead: u32,
    /// How many requests that nobody waits for (readahead, writeback) may be under way.
    pub max_background: u16,
    /// The number of those at which the client counts the filesystem as congested.
    pub congestion_threshold: u16,
    /// Answer every change with EROFS, by [`ReadOnly`](stratafs_core::ReadOnly).
    pub readonly: bool,
    /// How deep filesystems may be stacked with this one at the top, 1 or 2, where the kernel reads
    /// and writes files of the host by itself. With 1 those files' filesystem is on no other, and
    /// this one can be a layer of the kernel's overlay; with 2 it may be on another (an overlay),
    /// and cannot.
    pub max_stack_depth: u32,
    /// Promises of the filesystem that are not made use of.
    pub without: Behaviours,
}

impl SessionConfig {
    /// The defaults over `transport`: requests of up to 1 MiB, the largest that a kernel sends
    /// unless it was told otherwise, and 64 requests in the background.
    #[must_use]
    pub const fn new(transport: TransportKind) -> Self {
        Self {
            transport,
            max_write: 1 << 20,
            max_pages: 256,
            max_readahead: 1 << 20,
            max_background: 64,
            congestion_threshold: 48,
            readonly: false,
            max_stack_depth: 1,
            without: Behaviours::empty(),
        }
    }
}
