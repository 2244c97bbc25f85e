//! What the tests of the router share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use stratafs_core::{Context, DynFileSystem, Name, NodeId};
use stratafs_memfs::MemFs;
use stratafs_testkit::{InProcess, World};

/// An empty filesystem in memory.
pub(crate) fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
}

/// A filesystem in memory that `fill` fills.
pub(crate) fn filled(fill: impl FnOnce(&World<'_>)) -> Arc<dyn DynFileSystem> {
    let fs = mem();
    on(&fs, fill);
    fs
}

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// Does `work` on `fs` by path, from its root.
pub(crate) fn on<T>(fs: &Arc<dyn DynFileSystem>, work: impl FnOnce(&World<'_>) -> T) -> T {
    let client = InProcess::new(Arc::clone(fs));
    work(&World::new(&client, ""))
}

/// A request in the router's own name.
pub(crate) fn cx() -> Context<'static> {
    Context::internal()
}

/// Looks `path` up in `fs` and leaves the last lookup to the caller; the others are given back.
pub(crate) fn node(fs: &dyn DynFileSystem, path: &str) -> NodeId {
    let mut at = NodeId::ROOT;
    for part in path.split('/') {
        let next = fs.lookup(&cx(), at, name(part)).unwrap().found().unwrap().node;
        fs.forget(at, 1);
        at = next;
    }
    at
}
