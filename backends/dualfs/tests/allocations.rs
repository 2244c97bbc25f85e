//! Warm requests allocate nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{DynFileSystem, NodeId, OpenFlags, SliceSink, SliceSource, WriteFlags};
use support::sides::{Sides, policies};
use support::{cx, name, node, on};

const REQUESTS: usize = 10_000;

/// Each policy, on a file that A has, one that B has, and one that was transferred.
fn warm() -> impl Iterator<Item = (Arc<dyn DynFileSystem>, &'static str)> {
    policies().into_iter().enumerate().flat_map(|(at, policy)| {
        let sides = Sides::new(|w| {
            w.file("b", &[7; 8192]).unwrap();
            w.file("moved", &[7; 8192]).unwrap();
        });
        let fs = sides.build(&policy);
        on(&fs, |w| w.file("a", &[7; 8192]).unwrap());
        // The policy that never looks at B has but one of them.
        let of_both: &[&str] = if at == 1 { &["a"] } else { &["a", "b", "moved"] };
        if at != 1 {
            on(&fs, |w| w.chmod("moved", 0o600).unwrap());
        }
        of_both.iter().map(|name| (Arc::clone(&fs), *name)).collect::<Vec<_>>()
    })
}

/// Allocations of `request`, ten thousand times after the first.
fn count(mut request: impl FnMut()) -> u64 {
    request();
    allocation_counter::measure(|| (0..REQUESTS).for_each(|_| request())).count_total
}

#[test]
fn warm_lookups_and_getattrs_through_a_dual_allocate_nothing() {
    for (fs, path) in warm() {
        let held = node(&fs, path);
        let lookups = count(|| {
            let found = fs.lookup(&cx(), NodeId::ROOT, name(path)).unwrap().found().unwrap();
            fs.forget(found.node, 1);
        });
        let getattrs = count(|| {
            fs.getattr(&cx(), held, None).unwrap();
        });
        assert_eq!((lookups, getattrs), (0, 0), "{path} of {fs:?}");
    }
}

#[test]
fn warm_reads_and_writes_through_a_dual_allocate_nothing() {
    for (fs, path) in warm() {
        let file = node(&fs, path);
        let reading = fs.open(&cx(), file, OpenFlags::READ_ONLY, false).unwrap();
        let mut buf = [0; 4096];
        let reads = count(|| {
            let mut sink = SliceSink::new(&mut buf);
            assert_eq!(fs.read(&cx(), file, reading.handle, 0, 4096, &mut sink), Ok(4096));
        });
        let writing = fs.open(&cx(), file, OpenFlags::READ_WRITE, false).unwrap();
        let data = [1; 4096];
        let writes = count(|| {
            let mut source = SliceSource::new(&data);
            let flags = WriteFlags::empty();
            let written = fs.write(&cx(), file, writing.handle, 0, 4096, flags, &mut source);
            assert_eq!(written, Ok(4096));
        });
        assert_eq!((reads, writes), (0, 0), "{path} of {fs:?}");
    }
}
