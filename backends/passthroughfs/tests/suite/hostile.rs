//! Ids that were never given, and numbers at every edge.

use stratafs_core::{
    CopyRange, DynFileSystem, Errno, FallocateMode, HandleId, Name, NodeId, OpenFlags, RenameFlags,
    Result, SeekTo, SetAttr, SliceSink, SliceSource, WriteFlags, XattrMode, XattrName,
};
use stratafs_passthroughfs::{OpenMode, Ownership, PassthroughFs};

use crate::support::{Share, root, snapshot};

/// Takes nothing, and says so.
struct Nothing;

impl stratafs_core::DirSink for Nothing {
    fn fits(&self, _: usize) -> bool {
        false
    }
    fn add(
        &mut self,
        _: &stratafs_core::DirEntry<'_>,
        _: Option<&stratafs_core::Entry>,
    ) -> stratafs_core::Added {
        stratafs_core::Added::Full
    }
}

/// Every method that takes a node, with `node`; each that takes two with `node` in either place.
fn by_node(fs: &PassthroughFs, node: NodeId) -> Vec<(&'static str, Result<()>)> {
    let (cx, good) = (root(), NodeId::ROOT);
    let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
    let x = XattrName::new(b"user.x").unwrap();
    let both = OpenFlags::READ_WRITE;
    let mut set = SetAttr::new();
    (set.mode, set.uid) = (Some(0o777), Some(7));
    let mut data = [0; 16];
    let none = RenameFlags::empty();
    vec![
        ("lookup", fs.lookup(&cx, node, a).map(drop)),
        ("getattr", fs.getattr(&cx, node, None).map(drop)),
        ("setattr", fs.setattr(&cx, node, &set).map(drop)),
        ("readlink", fs.readlink(&cx, node, &mut SliceSink::new(&mut [0; 16])).map(drop)),
        ("symlink", fs.symlink(&cx, node, a, b"t").map(drop)),
        ("mknod", fs.mknod(&cx, node, a, 0o100_644, 0).map(drop)),
        ("mkdir", fs.mkdir(&cx, node, a, 0o755).map(drop)),
        ("unlink", fs.unlink(&cx, node, a)),
        ("rmdir", fs.rmdir(&cx, node, a)),
        ("rename from", fs.rename(&cx, node, a, good, b, none)),
        ("rename to", fs.rename(&cx, good, a, node, b, none)),
        ("link of", fs.link(&cx, node, good, b).map(drop)),
        ("link to", fs.link(&cx, good, node, b).map(drop)),
        ("open", fs.open(&cx, node, both, true).map(drop)),
        ("create", fs.create(&cx, node, a, 0o644, both, false).map(drop)),
        ("tmpfile", fs.tmpfile(&cx, node, 0o644, both).map(drop)),
        ("opendir", fs.opendir(&cx, node, OpenFlags::READ_ONLY).map(drop)),
        ("getxattr", fs.getxattr(&cx, node, x, &mut data).map(drop)),
        ("setxattr", fs.setxattr(&cx, node, x, b"1", XattrMode::Set, false)),
        ("listxattr", fs.listxattr(&cx, node, &mut data).map(drop)),
        ("removexattr", fs.removexattr(&cx, node, x)),
        ("statfs", fs.statfs(&cx, node).map(drop)),
        ("syncfs", fs.syncfs(&cx, node)),
        ("inode_flags", fs.inode_flags(&cx, node).map(drop)),
        ("set_inode_flags", fs.set_inode_flags(&cx, node, 0)),
        ("persistent_id", fs.persistent_id(node).map(drop)),
    ]
}

/// Every method that takes a handle, with `node` and `handle`.
fn by_handle(
    fs: &PassthroughFs,
    node: NodeId,
    handle: HandleId,
) -> Vec<(&'static str, Result<()>)> {
    let cx = root();
    let mut set = SetAttr::new();
    (set.size, set.handle) = (Some(0), Some(handle));
    let mut data = [0; 16];
    let range = CopyRange::new(node, handle, 0);
    let punch = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    let none = WriteFlags::empty();
    let mut sink = SliceSink::new(&mut data);
    vec![
        ("getattr", fs.getattr(&cx, node, Some(handle)).map(drop)),
        ("setattr", fs.setattr(&cx, node, &set).map(drop)),
        ("read", fs.read(&cx, node, handle, 0, 16, &mut sink).map(drop)),
        ("write", {
            let mut source = SliceSource::new(b"overwritten");
            fs.write(&cx, node, handle, 0, 11, none, &mut source).map(drop)
        }),
        ("fsync", fs.fsync(&cx, node, handle, false)),
        ("fallocate", fs.fallocate(&cx, node, handle, punch, 0, 4096)),
        ("lseek", fs.lseek(&cx, node, handle, 0, SeekTo::Data).map(drop)),
        ("copy_file_range", fs.copy_file_range(&cx, range, range, 4).map(drop)),
        ("readdir", fs.readdir(&cx, node, handle, 0, &mut Nothing)),
        ("readdirplus", fs.readdirplus(&cx, node, handle, 0, &mut Nothing)),
        ("fsyncdir", fs.fsyncdir(&cx, node, handle, false)),
        ("release", fs.release(&cx, node, handle, Default::default())),
        ("releasedir", fs.releasedir(&cx, node, handle)),
    ]
}

#[test]
fn forged_and_freed_ids_are_refused_by_every_method_and_change_nothing() {
    let share = Share::plain();
    let w = share.world();
    for name in ["a", "gone", "other"] {
        w.file(name, b"precious").unwrap();
    }
    let gone = share.lookup(NodeId::ROOT, "gone").unwrap().node;
    share.fs.forget(gone, 1);
    let before = snapshot(share.dir.path());
    for node in [0, 2, gone.0, 1 << 40, (1 << 48) - 1, 1 << 48, u64::MAX] {
        for (method, outcome) in by_node(&share.fs, NodeId(node)) {
            // Of a directory there is no link, wherever to.
            let refused = matches!(outcome, Err(Errno::ESTALE)) || method == "link to";
            assert!(refused && outcome.is_err(), "{method} of {node}: {outcome:?}");
        }
        share.fs.forget(NodeId(node), u64::MAX);
    }

    let open = |name: &str| {
        let node = share.lookup(NodeId::ROOT, name).unwrap().node;
        let opened = share.fs.open(&root(), node, OpenFlags::READ_WRITE, false).unwrap();
        (node, opened.handle)
    };
    let (node, handle) = open("a");
    let (other, foreign) = open("other");
    let dir = share.fs.opendir(&root(), NodeId::ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    let freed = share.fs.open(&root(), node, OpenFlags::READ_ONLY, false).unwrap().handle;
    share.fs.release(&root(), node, freed, Default::default()).unwrap();
    for forged in [foreign, dir, freed, HandleId(1 << 40), HandleId(u64::MAX)] {
        for (method, outcome) in by_handle(&share.fs, node, forged) {
            // What is no directory is seen before the handle is looked at.
            let refusal = if method == "fsyncdir" { Errno::ENOTDIR } else { Errno::EBADF };
            assert_eq!(outcome, Err(refusal), "{method} by {forged:?}");
        }
    }
    assert_eq!(snapshot(share.dir.path()), before);
    assert_eq!(w.read("a").unwrap(), b"precious", "and none of it closed anything");
    share.fs.release(&root(), node, handle, Default::default()).unwrap();
    share.fs.release(&root(), other, foreign, Default::default()).unwrap();
    share.fs.releasedir(&root(), NodeId::ROOT, dir).unwrap();
    share.fs.batch_forget(&[(node, 1), (other, 1), (node, u64::MAX), (NodeId::ROOT, u64::MAX)]);
    let usage = share.fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0));
}

const EDGES: [u64; 16] = [
    0,
    1,
    4,
    5,
    4095,
    4096,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 4096,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 1,
    u64::MAX,
];

#[test]
fn every_length_and_offset_is_answered_and_writes_nothing_elsewhere() {
    for open in [OpenMode::Handles, OpenMode::Stateless] {
        let share = Share::new(|builder| builder.ownership(Ownership::Squash).open(open));
        std::fs::write(share.host("f"), b"data").unwrap();
        std::fs::write(share.host("other"), b"precious").unwrap();
        let (fs, cx) = (&share.fs, root());
        let node = share.lookup(NodeId::ROOT, "f").unwrap().node;
        let handle = fs.open(&cx, node, OpenFlags::READ_WRITE, false).unwrap().handle;
        let dir = fs.opendir(&cx, NodeId::ROOT, OpenFlags::READ_ONLY).unwrap().handle;
        let punch = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        for at in EDGES {
            let reset = || std::fs::write(share.host("f"), b"data").unwrap();
            let mut buffer = [0; 16];
            for size in [0, 1, 16, 4096, usize::MAX] {
                let mut sink = SliceSink::new(&mut buffer);
                match fs.read(&cx, node, handle, at, size, &mut sink) {
                    Ok(n) => assert!(n <= size.min(16) && (n == 0 || at < 4), "{n} at {at}"),
                    Err(errno) => assert_eq!(errno, Errno::EINVAL, "read at {at}"),
                }
            }
            for (len, flags) in [(0, WriteFlags::empty()), (4, WriteFlags::SYNC)] {
                let mut source = SliceSource::new(b"wxyz");
                match fs.write(&cx, node, handle, at, len, flags, &mut source) {
                    Ok(n) => assert!(n <= len),
                    Err(errno) => assert!(matches!(errno, Errno::EFBIG | Errno::EINVAL), "{errno}"),
                }
                reset();
            }
            for to in [SeekTo::Data, SeekTo::Hole] {
                match fs.lseek(&cx, node, handle, at, to) {
                    Ok(found) => assert!(at < 4 && found >= at && found <= 4),
                    Err(errno) => assert_eq!(errno, Errno::ENXIO, "lseek from {at}"),
                }
            }
            let mut set = SetAttr::new();
            set.size = Some(at);
            match fs.setattr(&cx, node, &set) {
                Ok(attr) => assert_eq!(attr.attr.size, at),
                Err(errno) => assert!(matches!(errno, Errno::EFBIG | Errno::EINVAL), "{errno}"),
            }
            reset();
            for other in EDGES {
                // A hole takes no room, however long.
                let punched = fs.fallocate(&cx, node, handle, punch, at, other);
                let fine = punched.err().is_none_or(|errno| {
                    matches!(errno, Errno::EFBIG | Errno::EINVAL | Errno::EOPNOTSUPP)
                });
                assert!(fine, "punch {at} {other}: {punched:?}");
                reset();
                let range = |offset| CopyRange::new(node, handle, offset);
                let copied = fs.copy_file_range(&cx, range(at), range(other), 4);
                let fine = copied.as_ref().err().is_none_or(|errno| {
                    matches!(*errno, Errno::EFBIG | Errno::EINVAL | Errno::EOVERFLOW)
                });
                assert!(fine, "copy {at} {other}: {copied:?}");
                reset();
            }
            let mut listed = Nothing;
            match fs.readdir(&cx, NodeId::ROOT, dir, at, &mut listed) {
                Ok(()) => {}
                Err(errno) => assert_eq!(errno, Errno::EINVAL, "readdir from {at}"),
            }
        }
        assert_eq!(std::fs::read(share.host("other")).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(share.dir.path()).unwrap().count(), 2);
        fs.releasedir(&cx, NodeId::ROOT, dir).unwrap();
        fs.release(&cx, node, handle, Default::default()).unwrap();
        fs.forget(node, 1);
    }
}
