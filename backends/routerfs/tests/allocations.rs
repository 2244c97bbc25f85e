//! Warm requests allocate nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use stratafs_core::{
    DynFileSystem, HandleId, NodeId, OpenFlags, SliceSink, SliceSource, WriteFlags,
};
use stratafs_routerfs::RouterFs;
use support::{cx, mem, name, node, on};

const REQUESTS: usize = 10_000;

/// A router with a file in a mount within a mount, on the way to which is a directory that nobody has.
fn routed() -> RouterFs {
    let inner = mem();
    on(&inner, |w| w.file("file", &[7; 8192]).unwrap());
    let builder = RouterFs::builder().mount("/", mem()).mount("/made/up/m", inner);
    builder.build().unwrap()
}

/// Allocations of `request`, ten thousand times after the first.
fn count(mut request: impl FnMut(usize)) -> u64 {
    request(0);
    allocation_counter::measure(|| (0..REQUESTS).for_each(&mut request)).count_total
}

#[test]
fn warm_lookups_and_getattrs_through_a_router_allocate_nothing() {
    let fs = routed();
    let steps =
        [(NodeId::ROOT, "made"), (node(&fs, "made/up"), "m"), (node(&fs, "made/up/m"), "file")];
    let file = node(&fs, "made/up/m/file");
    let lookups = count(|request| {
        let (parent, last) = steps[request % 3];
        let found = fs.lookup(&cx(), parent, name(last)).unwrap().found().unwrap();
        fs.forget(found.node, 1);
    });
    let getattrs = count(|_| {
        fs.getattr(&cx(), file, None).unwrap();
    });
    assert_eq!((lookups, getattrs), (0, 0));
}

#[test]
fn warm_reads_and_writes_through_a_router_allocate_nothing() {
    let fs = routed();
    let file = node(&fs, "made/up/m/file");
    let opened = fs.open(&cx(), file, OpenFlags::READ_WRITE, false).unwrap();
    let mut buf = [0; 4096];
    let reads = count(|_| {
        let mut sink = SliceSink::new(&mut buf);
        assert_eq!(fs.read(&cx(), file, opened.handle, 0, 4096, &mut sink), Ok(4096));
    });
    let data = [1; 4096];
    let writes = count(|_| {
        let mut source = SliceSource::new(&data);
        let flags = WriteFlags::empty();
        let written = fs.write(&cx(), file, HandleId::NONE, 0, 4096, flags, &mut source);
        assert_eq!(written, Ok(4096));
    });
    assert_eq!((reads, writes), (0, 0));
}
