//! What the tests of the dual filesystem share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod sides;
pub(crate) mod tree;

use std::sync::Arc;

use stratafs_core::{Context, DynFileSystem, Name, NodeId, OpenFlags};
use stratafs_memfs::MemFs;
use stratafs_testkit::{InProcess, World};

/// An empty filesystem in memory.
pub(crate) fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
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

/// A filesystem with files, directories and links.
pub(crate) fn populated() -> Arc<dyn DynFileSystem> {
    let fs = mem();
    populate(&fs);
    fs
}

/// Fills `fs` with files, directories and links.
pub(crate) fn populate(fs: &Arc<dyn DynFileSystem>) {
    on(fs, |w| {
        w.mkdir("etc", 0o755).unwrap();
        w.file("etc/file", b"of B").unwrap();
        w.mkdir("only-b", 0o700).unwrap();
        w.symlink("file", "etc/link").unwrap();
        w.link("etc/file", "etc/other-name").unwrap();
    });
}

/// The bottom of every path: the root's context.
pub(crate) fn cx() -> Context<'static> {
    Context::internal()
}

/// Looks `path` up in `fs` and leaves the lookup to the caller.
pub(crate) fn node(fs: &Arc<dyn DynFileSystem>, path: &str) -> NodeId {
    let mut at = NodeId::ROOT;
    for part in path.split('/') {
        at = fs.lookup(&cx(), at, name(part)).unwrap().found().unwrap().node;
    }
    at
}

/// O_RDWR.
pub(crate) const RW: OpenFlags = OpenFlags::READ_WRITE;
