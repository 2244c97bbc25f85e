//! A MemFs that is mounted, with the conformance map's client on it.

use std::sync::Arc;

use stratafs_memfs::{Builder, ByteSize};
use stratafs_testkit::{Capabilities, Ledger, Stack};

use crate::stage::Stage;

/// A mounted MemFs. What the kernel was given of it is counted, and must be given back.
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
        let (counted, ledger) = Ledger::keep(Arc::new(fs));
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
