//! Copies between filesystems in memory; those between directories of the host are tested where a
//! layering filesystem uses them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use stratafs_core::{
    Attr, Context, DynFileSystem, Errno, Intercept, Intercepted, Lookup, Name, NodeId, NodeRef, Op,
    OpKind, OpenFlags, Result, SetAttr, SliceSink, SliceSource, WriteFlags,
};
use stratafs_memfs::MemFs;
use stratafs_transfer::{Data, Options, Source, Target, copy};

fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// A file of `data` at `offset`, in a new filesystem.
fn file(offset: u64, data: &[u8]) -> (Arc<dyn DynFileSystem>, NodeId) {
    let fs = mem();
    let cx = Context::internal();
    let flags = OpenFlags::READ_WRITE.with_exclusive();
    let (entry, opened) = fs.create(&cx, NodeId::ROOT, name("f"), 0o640, flags, false).unwrap();
    let (mut source, flags) = (SliceSource::new(data), WriteFlags::empty());
    fs.write(&cx, entry.node, opened.handle, offset, data.len(), flags, &mut source).unwrap();
    (fs, entry.node)
}

fn attr(fs: &Arc<dyn DynFileSystem>, node: NodeId) -> Attr {
    fs.getattr(&Context::internal(), node, None).unwrap().attr
}

/// Copies `node` of `from` as `copy` into the root of `to`.
fn copied(
    from: &Arc<dyn DynFileSystem>,
    node: NodeId,
    to: &Arc<dyn DynFileSystem>,
    data: Data,
) -> Result<NodeRef> {
    let attr = attr(from, node);
    let options = Options { data, keep: &|_| true, durable: true };
    let target = Target { fs: to, dir: NodeId::ROOT, name: name("copy") };
    copy(Source { fs: from, node, attr: &attr }, target, &options)
}

fn content(fs: &Arc<dyn DynFileSystem>, node: NodeId) -> Vec<u8> {
    let cx = Context::internal();
    let opened = fs.open(&cx, node, OpenFlags::READ_ONLY, false).unwrap();
    let mut data = vec![0; 1 << 20];
    let mut sink = SliceSink::new(&mut data);
    let len = fs.read(&cx, node, opened.handle, 0, 1 << 20, &mut sink).unwrap();
    data.truncate(len);
    data
}

#[test]
fn copy_of_all_the_first_bytes_or_a_hole_has_the_size_that_it_should() {
    let (from, node) = file(0, &[7; 10_000]);
    for (data, right) in [
        (Data::All, vec![7; 10_000]),
        (Data::First(5000), vec![7; 5000]),
        (Data::First(0), Vec::new()),
        (Data::First(20_000), vec![7; 10_000]),
        (Data::Hole, vec![0; 10_000]),
    ] {
        let to = mem();
        let made = copied(&from, node, &to, data).unwrap();
        assert_eq!(content(&to, made.node()), right, "{data:?}");
        assert_eq!(attr(&to, made.node()).mtime, attr(&from, node).mtime);
    }
}

#[test]
fn copy_of_a_file_with_holes_takes_no_more_room() {
    let (from, node) = file(1 << 40, b"far");
    let to = mem();
    let made = copied(&from, node, &to, Data::All).unwrap();
    let attr = attr(&to, made.node());
    assert_eq!(attr.size, (1 << 40) + 3);
    assert!(attr.blocks <= 16, "{} blocks", attr.blocks);
}

#[test]
fn copy_within_one_filesystem_is_a_copy() {
    let (fs, node) = file(0, b"data");
    let made = copied(&fs, node, &fs, Data::All).unwrap();
    assert_eq!(content(&fs, made.node()), b"data");
    let mut set = SetAttr::new();
    set.size = Some(0);
    fs.setattr(&Context::internal(), made.node(), &set).unwrap();
    assert_eq!(content(&fs, node), b"data");
}

/// Refuses every request of one kind.
struct Refuse(OpKind, Errno);

impl Intercept for Refuse {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if op.kind() == self.0 { Err(self.1) } else { Ok(()) }
    }
}

#[test]
fn copy_that_fails_at_any_step_leaves_nothing_behind() {
    let (from, node) = file(0, &[7; 10_000]);
    for (kind, errno) in [
        (OpKind::Create, Errno::ENOSPC),
        (OpKind::Write, Errno::ENOSPC),
        (OpKind::Write, Errno::EDQUOT),
        (OpKind::Setattr, Errno::EIO),
        (OpKind::Fsync, Errno::EIO),
    ] {
        let inner = mem();
        let to: Arc<dyn DynFileSystem> =
            Arc::new(Intercepted::new(Arc::clone(&inner), Refuse(kind, errno)));
        assert_eq!(copied(&from, node, &to, Data::All).unwrap_err(), errno, "{kind:?}");
        let left = inner.lookup(&Context::internal(), NodeId::ROOT, name("copy")).unwrap();
        assert!(matches!(left, Lookup::Absent(_)), "{kind:?}");
    }
}
