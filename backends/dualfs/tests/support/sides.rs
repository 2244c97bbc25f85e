//! Pairs of filesystems to try things on, and what is asked of them.

use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{Context, DynFileSystem, Errno, Intercept, Intercepted, Op, OpKind, Result};
use stratafs_dualfs::{
    BackendAFallbackToBackendBRead, BackendAOnly, DispatchPolicy, DualFs,
    MergeReadsBackendAPrecedence, ReadBackendBWriteBackendA,
};
use stratafs_testkit::World;

use super::{mem, on};

/// Every policy that is built in.
pub(crate) fn policies() -> [Arc<dyn DispatchPolicy>; 4] {
    [
        Arc::new(ReadBackendBWriteBackendA),
        Arc::new(BackendAOnly),
        Arc::new(BackendAFallbackToBackendBRead),
        Arc::new(MergeReadsBackendAPrecedence),
    ]
}

/// Those that look at both sides.
pub(crate) fn of_both() -> [Arc<dyn DispatchPolicy>; 3] {
    let [read_b, _, fallback, merge] = policies();
    [read_b, fallback, merge]
}

/// A filesystem that `fill` fills.
pub(crate) fn side(fill: impl FnOnce(&World<'_>)) -> Arc<dyn DynFileSystem> {
    let fs = mem();
    on(&fs, fill);
    fs
}

/// Two filesystems that outlive what is built on them.
#[derive(Clone)]
pub(crate) struct Sides {
    pub(crate) a: Arc<dyn DynFileSystem>,
    pub(crate) b: Arc<dyn DynFileSystem>,
}

impl Sides {
    /// An empty A, and a B that `fill` fills.
    pub(crate) fn new(fill: impl FnOnce(&World<'_>)) -> Self {
        Self { a: mem(), b: side(fill) }
    }

    pub(crate) fn build(&self, policy: &Arc<dyn DispatchPolicy>) -> Arc<dyn DynFileSystem> {
        Arc::new(self.dual(policy))
    }

    pub(crate) fn dual(&self, policy: &Arc<dyn DispatchPolicy>) -> DualFs {
        DualFs::builder()
            .backend_a(Arc::clone(&self.a))
            .backend_b(Arc::clone(&self.b))
            .shared_policy(Arc::clone(policy))
            .build()
            .unwrap()
    }
}

/// Counts the requests that reach a filesystem, and may refuse some.
pub(crate) struct Watch {
    seen: Mutex<Vec<OpKind>>,
    refuse: Mutex<fn(&Op<'_>) -> Option<Errno>>,
}

impl Watch {
    /// `fs`, watched.
    pub(crate) fn over(fs: Arc<dyn DynFileSystem>) -> (Arc<dyn DynFileSystem>, Arc<Self>) {
        let watch = Self { seen: Mutex::default(), refuse: Mutex::new(|_| None) };
        let watched = Intercepted::new(fs, watch);
        let watch = Arc::clone(watched.intercept());
        (Arc::new(watched), watch)
    }

    /// From now on `refuse` may answer in the filesystem's place.
    pub(crate) fn refuse(&self, refuse: fn(&Op<'_>) -> Option<Errno>) {
        *self.refuse.lock() = refuse;
    }

    /// How many requests of this kind came, since the last [`clear`](Self::clear).
    pub(crate) fn count(&self, kind: OpKind) -> usize {
        self.seen.lock().iter().filter(|seen| **seen == kind).count()
    }

    /// What came since, once each, in the order of the kinds.
    pub(crate) fn kinds(&self) -> Vec<OpKind> {
        let mut kinds = self.seen.lock().clone();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    pub(crate) fn clear(&self) {
        self.seen.lock().clear();
    }
}

impl Intercept for Watch {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        self.seen.lock().push(op.kind());
        (self.refuse.lock())(op).map_or(Ok(()), Err)
    }
}
