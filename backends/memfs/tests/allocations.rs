//! Warm requests allocate nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stratafs_core::{
    Context, Credentials, DynFileSystem, HandleId, Name, NodeId, OpenFlags, SliceSink, SliceSource,
    WriteFlags,
};
use stratafs_memfs::MemFs;

const REQUESTS: usize = 10_000;

/// A file of some pages, by each way a request may come: with a handle and without.
struct Warm {
    fs: MemFs,
    node: NodeId,
    handles: [HandleId; 2],
}

fn cx() -> Context<'static> {
    Context::new(1, Some(Credentials::new(0, 0)))
}

fn name() -> Name<'static> {
    Name::new(b"file").unwrap()
}

fn warm() -> Warm {
    let fs = MemFs::builder().build().unwrap();
    let flags = OpenFlags::READ_WRITE;
    let (entry, opened) = fs.create(&cx(), NodeId::ROOT, name(), 0o644, flags, false).unwrap();
    let warm = Warm { fs, node: entry.node, handles: [opened.handle, HandleId::NONE] };
    write(&warm, 0, &[1; 1 << 20]);
    warm
}

fn write(warm: &Warm, request: usize, data: &[u8]) {
    let offset = (request * 4096 % (1 << 19)) as u64;
    let handle = warm.handles[request % 2];
    let mut source = SliceSource::new(data);
    let flags = WriteFlags::KILL_PRIV;
    let fs = &warm.fs;
    let written = fs.write(&cx(), warm.node, handle, offset, data.len(), flags, &mut source);
    assert_eq!(written, Ok(data.len()));
}

fn read(warm: &Warm, request: usize, buf: &mut [u8]) {
    let offset = (request * 4096 % (1 << 19)) as u64;
    let (handle, len) = (warm.handles[request % 2], buf.len());
    let mut sink = SliceSink::new(buf);
    let read = warm.fs.read(&cx(), warm.node, handle, offset, len, &mut sink);
    assert_eq!(read, Ok(len));
}

/// Allocations of `request`, ten thousand times after the first.
fn count(mut request: impl FnMut(usize)) -> u64 {
    request(0);
    let counted = allocation_counter::measure(|| (0..REQUESTS).for_each(&mut request));
    counted.count_total
}

#[test]
fn warm_lookups_and_getattrs_allocate_nothing() {
    let warm = warm();
    let lookups = count(|_| {
        let found = warm.fs.lookup(&cx(), NodeId::ROOT, name()).unwrap().found().unwrap();
        warm.fs.forget(found.node, 1);
    });
    let getattrs = count(|request| {
        warm.fs.getattr(&cx(), warm.node, Some(warm.handles[request % 2])).unwrap();
    });
    assert_eq!((lookups, getattrs), (0, 0));
}

#[test]
fn warm_reads_and_writes_of_a_page_and_more_allocate_nothing() {
    let warm = warm();
    let data = vec![2; 1 << 19];
    let mut buf = vec![0; 1 << 19];
    for len in [1, 4096, 100_000] {
        let written = count(|request| write(&warm, request, &data[..len]));
        let read = count(|request| read(&warm, request, &mut buf[..len]));
        assert_eq!((written, read), (0, 0), "{len} bytes");
    }
}

#[test]
fn opens_and_releases_allocate_nothing_once_warm() {
    let warm = warm();
    // The table of handles keeps its room for as many as were open.
    let opens = count(|_| {
        let opened = warm.fs.open(&cx(), warm.node, OpenFlags::READ_ONLY, false).unwrap();
        warm.fs.release(&cx(), warm.node, opened.handle, Default::default()).unwrap();
    });
    assert!(opens <= 64, "{opens} allocations: at most one a shard");
}
