//! Warm requests allocate nothing.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

use allocation_counter::measure;
use stratafs_core::{
    Context, DynFileSystem, HandleId, Name, NodeId, OpenFlags, Release, WriteFlags, XattrName,
};
use stratafs_passthroughfs::{OpenMode, Ownership, PassthroughFs};
use stratafs_sys::buffer::{BufferSink, BufferSource};

const REQUESTS: u64 = 2_000;

/// A round of the requests that a client makes most, on a file that it knows.
fn round(fs: &PassthroughFs, node: NodeId, handle: HandleId) {
    let cx = Context::new(1, None);
    let (file, none) = (Name::new(b"file").unwrap(), Name::new(b"none").unwrap());
    fs.lookup(&cx, NodeId::ROOT, file).unwrap().found().unwrap();
    fs.lookup(&cx, NodeId::ROOT, none).unwrap();
    fs.getattr(&cx, node, None).unwrap();
    let mut buf = [1; 4096];
    fs.read(&cx, node, handle, 0, 4096, &mut BufferSink::new(&mut buf)).unwrap();
    let flags = WriteFlags::KILL_PRIV;
    fs.write(&cx, node, handle, 0, 4096, flags, &mut BufferSource::new(&buf)).unwrap();
    let xattr = XattrName::new(b"security.capability").unwrap();
    fs.getxattr(&cx, node, xattr, &mut buf).unwrap_err();
    fs.batch_forget(&[(node, 1)]);
}

fn allocate_nothing(ownership: Ownership, open: OpenMode) {
    let dir = tempfile::tempdir().unwrap();
    let fs = PassthroughFs::builder()
        .root_dir(dir.path())
        .ownership(ownership)
        .open(open)
        .build()
        .unwrap();
    std::fs::write(dir.path().join("file"), [0; 4096]).unwrap();
    let cx = Context::new(1, None);
    let name = Name::new(b"file").unwrap();
    let node = fs.lookup(&cx, NodeId::ROOT, name).unwrap().found().unwrap().node;
    let handle = fs.open(&cx, node, OpenFlags::READ_WRITE, false).unwrap().handle;
    round(&fs, node, handle);
    let allocated = measure(|| {
        for _ in 0..REQUESTS {
            round(&fs, node, handle);
        }
    });
    assert_eq!(allocated.count_total, 0, "{ownership:?} {open:?}");
    fs.release(&cx, node, handle, Release::default()).unwrap();
}

#[test]
fn warm_requests_allocate_nothing() {
    allocate_nothing(Ownership::Virtual, OpenMode::Handles);
    allocate_nothing(Ownership::Virtual, OpenMode::Stateless);
    allocate_nothing(Ownership::Host, OpenMode::Handles);
}
