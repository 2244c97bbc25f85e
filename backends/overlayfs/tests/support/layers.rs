//! Overlays to try things on, and what is asked of their layers.

use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{Context, DynFileSystem, Errno, Intercept, Intercepted, Op, OpKind, Result};
use stratafs_overlayfs::{Builder, OverlayFs};
use stratafs_testkit::World;

use super::{mem, on};

/// A layer that `fill` makes.
pub(crate) fn layer(fill: impl FnOnce(&World<'_>)) -> Arc<dyn DynFileSystem> {
    let fs = mem();
    on(&fs, fill);
    fs
}

/// Read-only layers, the bottom first, and a writable one, that outlive the overlays built on them.
pub(crate) struct Layers {
    pub(crate) lowers: Vec<Arc<dyn DynFileSystem>>,
    pub(crate) scratch: Arc<dyn DynFileSystem>,
}

impl Layers {
    pub(crate) fn new(lowers: impl IntoIterator<Item = Arc<dyn DynFileSystem>>) -> Self {
        Self { lowers: lowers.into_iter().collect(), scratch: mem() }
    }

    pub(crate) fn builder(&self) -> Builder {
        let builder = OverlayFs::builder();
        let lowers = self.lowers.iter();
        let builder = lowers.fold(builder, |builder, lower| builder.layer(Arc::clone(lower)));
        builder.writable(Arc::clone(&self.scratch))
    }

    pub(crate) fn build(&self) -> Arc<dyn DynFileSystem> {
        Arc::new(self.builder().build().unwrap())
    }
}

/// Counts the requests that reach a filesystem, and may refuse some.
pub(crate) struct Watch {
    seen: Mutex<Vec<OpKind>>,
    refuse: fn(&Op<'_>) -> Option<Errno>,
}

impl Watch {
    /// `fs`, watched; `refuse` may answer in its place.
    pub(crate) fn over(
        fs: Arc<dyn DynFileSystem>,
        refuse: fn(&Op<'_>) -> Option<Errno>,
    ) -> (Arc<dyn DynFileSystem>, Arc<Self>) {
        let watched = Intercepted::new(fs, Self { seen: Mutex::default(), refuse });
        let watch = Arc::clone(watched.intercept());
        (Arc::new(watched), watch)
    }

    /// How many requests of this kind came, since the last [`clear`](Self::clear).
    pub(crate) fn count(&self, kind: OpKind) -> usize {
        self.seen.lock().iter().filter(|seen| **seen == kind).count()
    }

    /// How many requests came.
    pub(crate) fn all(&self) -> usize {
        self.seen.lock().len()
    }

    pub(crate) fn clear(&self) {
        self.seen.lock().clear();
    }
}

impl Intercept for Watch {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        self.seen.lock().push(op.kind());
        (self.refuse)(op).map_or(Ok(()), Err)
    }
}

/// Nothing is refused.
pub(crate) fn nothing(_: &Op<'_>) -> Option<Errno> {
    None
}
