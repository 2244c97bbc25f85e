//! A filesystem that is mounted, with the conformance map's client on it.

use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_memfs::{Builder, ByteSize};
use stratafs_testkit::{Capabilities, Ledger, Stack};

use crate::stage::Stage;

/// A mounted filesystem. What the kernel was given of it is counted, and must be given back.
///
/// The fields are dropped in this order: a client has the mount's root open.
pub(crate) struct Served {
    stack: Stack,
    stage: Stage,
    ledger: Arc<Ledger>,
}

impl Served {
    /// Mounts what `memfs` builds; `None` where nothing can be mounted.
    pub(crate) fn new(name: &str, memfs: Builder) -> Option<Self> {
        let fs = memfs.capacity(ByteSize::mib(256)).build().unwrap();
        Self::over(name, Arc::new(fs))
    }

    /// Mounts `fs`; `None` where nothing can be mounted.
    pub(crate) fn over(name: &str, fs: Arc<dyn DynFileSystem>) -> Option<Self> {
        let (counted, ledger) = Ledger::keep(fs);
        // Cases act for other users too.
        let stage = Stage::with(counted, "allow_other", 2)?;
        let stack = Stack::mounted(name, stage.mountpoint.path())
            .unwrap()
            .without(
                Capabilities::COLLAPSE_RANGE | Capabilities::INSERT_RANGE,
                "the kernel's FUSE client passes no such fallocate on",
            )
            // Seen with every request answered rightly: of two links and unlinks of one file at a
            // time, an unlink lowers a count that was read after it was answered.
            .without(
                Capabilities::RACING_LINKS,
                "the kernel's FUSE client counts links wrongly where an unlink meets a getattr",
            );
        Some(Self { stack, stage, ledger })
    }

    /// The same without `gap`, for this reason.
    pub(crate) fn without(mut self, gap: Capabilities, reason: &str) -> Self {
        self.stack = self.stack.without(gap, reason);
        self
    }

    /// The same, whose cases work in the directory `path`.
    pub(crate) fn below(mut self, path: &str) -> Self {
        self.stack = self.stack.below(path);
        self
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Unmounts, and checks that every lookup was forgotten and every handle released.
    pub(crate) fn end(self) {
        let Self { stack, stage: Stage { server, mountpoint }, ledger } = self;
        drop(stack);
        server.unmount().unwrap();
        assert!(!mountpoint.is_mounted());
        ledger.check().unwrap();
    }
}
