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

/// What the crate's page says of the memory of a node, with names of ten bytes.
const NODE_BYTES: i64 = 512;

#[test]
fn known_node_costs_no_more_memory_than_promised_and_none_when_forgotten() {
    const FILES: usize = 5_000;
    for ownership in [Ownership::Virtual, Ownership::Host] {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..FILES).map(|number| format!("f{number:09}")).collect();
        for name in &names {
            std::fs::File::create(dir.path().join(name)).unwrap();
        }
        let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(ownership);
        let fs = builder.fd_budget(1000).build().unwrap();
        let cx = Context::new(1, None);
        let mut nodes = Vec::with_capacity(FILES);
        let known = measure(|| {
            for name in &names {
                let name = Name::new(name.as_bytes()).unwrap();
                let found = fs.lookup(&cx, NodeId::ROOT, name).unwrap().found().unwrap();
                nodes.push((found.node, 1));
            }
        });
        let each = known.bytes_current / i64::try_from(FILES).unwrap();
        println!("{ownership:?}: {each} bytes a node");
        assert!(each <= NODE_BYTES, "{ownership:?}: {each} bytes");
        let forgotten = measure(|| fs.batch_forget(&nodes));
        let left = known.bytes_current + forgotten.bytes_current;
        // The tables keep some room, as small ones do.
        assert!(left <= known.bytes_current / 8, "{ownership:?}: {left} bytes are left");
    }
}
