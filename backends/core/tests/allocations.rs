//! What the layers for authors allocate for a request: nothing, once the objects are known.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::sync::Arc;

use allocation_counter::measure;
use stratafs_core::{
    Attr, Context, DynFileSystem, Errno, HandleId, Intercepted, Name, NameBuf, NodeId, OpenFlags,
    ReadOnly, ReadSink, Result, Simple, SimpleFs, SliceSink, SliceSource, Traced, WriteAt,
    WriteFlags, WriteSource,
};

const REQUESTS: u64 = 10_000;

/// A root with one file in it, which takes whatever is written and holds zeros.
struct Zeros;

impl SimpleFs for Zeros {
    type File = bool;

    fn root(&self) -> bool {
        true
    }

    fn attr(&self, is_root: &bool) -> Result<Attr> {
        Ok(Attr::new(0, if *is_root { 0o040_755 } else { 0o100_644 }))
    }

    fn child(&self, _: &bool, name: Name<'_>) -> Result<bool> {
        if name.as_bytes() == b"zeros" { Ok(false) } else { Err(Errno::ENOENT) }
    }

    fn list(&self, _: &bool) -> Result<Vec<NameBuf>> {
        Ok(vec![Name::new(b"zeros")?.to_owned()])
    }

    fn read(&self, _: &bool, _: u64, sink: &mut dyn ReadSink) -> Result<usize> {
        sink.write_zeros(sink.remaining())
    }

    fn write(&self, _: &bool, _: WriteAt, source: &mut dyn WriteSource) -> Result<usize> {
        source.read_slice(&mut [0; 4096])
    }
}

/// A round of the requests that a client makes most, on a file that it has open.
fn round(fs: &dyn DynFileSystem, node: NodeId, handle: HandleId) {
    let cx = Context::new(1, None);
    let (zeros, none) = (Name::new(b"zeros").unwrap(), Name::new(b"none").unwrap());
    fs.lookup(&cx, NodeId::ROOT, zeros).unwrap().found().unwrap();
    fs.lookup(&cx, NodeId::ROOT, none).unwrap();
    fs.getattr(&cx, node, Some(handle)).unwrap();
    let mut buf = [1; 4096];
    fs.read(&cx, node, handle, 0, 4096, &mut SliceSink::new(&mut buf)).unwrap();
    let flags = WriteFlags::empty();
    // ReadOnly refuses it, which may not allocate either.
    let _ = fs.write(&cx, node, handle, 0, 4096, flags, &mut SliceSource::new(&buf));
    fs.batch_forget(&[(node, 1)]);
}

fn allocations(fs: &dyn DynFileSystem, flags: OpenFlags) -> u64 {
    let cx = Context::new(1, None);
    let zeros = Name::new(b"zeros").unwrap();
    let node = fs.lookup(&cx, NodeId::ROOT, zeros).unwrap().found().unwrap().node;
    let handle = fs.open(&cx, node, flags, false).unwrap().handle;
    round(fs, node, handle);
    measure(|| (0..REQUESTS).for_each(|_| round(fs, node, handle))).count_total
}

#[test]
fn warm_requests_of_simple_allocate_nothing() {
    assert_eq!(allocations(&Simple::new("zeros", Zeros), OpenFlags::READ_WRITE), 0);
}

#[test]
fn warm_requests_through_intercepts_allocate_nothing() {
    let simple = Arc::new(Simple::new("zeros", Zeros));
    let traced: Arc<dyn DynFileSystem> = Arc::new(Intercepted::new(simple, Traced::new("zeros")));
    assert_eq!(allocations(&*traced, OpenFlags::READ_WRITE), 0);
    let read_only = Intercepted::new(traced, ReadOnly::new());
    assert_eq!(allocations(&read_only, OpenFlags::READ_ONLY), 0);
}

#[test]
fn the_count_counts() {
    let counted = measure(|| drop(std::hint::black_box(vec![0_u8; 10])));
    assert_eq!(counted.count_total, 1);
}
