//! A server that is replaced: the ids of its clients stay good.

use std::os::unix::fs::symlink;

use stratafs_core::{
    DynFileSystem, Errno, HandleId, Name, NodeId, OpenFlags, RenameFlags, SliceSink, SliceSource,
    State, WriteFlags,
};
use stratafs_passthroughfs::{Ownership, PassthroughFs};

use crate::support::{Share, root};

/// Another server of the same directory.
fn successor(share: &Share) -> PassthroughFs {
    let builder = PassthroughFs::builder().root_dir(share.dir.path()).fd_budget(16);
    builder.ownership(Ownership::Virtual).default_owner(0, 0).build().unwrap()
}

fn read(fs: &PassthroughFs, node: NodeId, handle: HandleId) -> Result<Vec<u8>, Errno> {
    let mut data = [0; 64];
    let mut sink = SliceSink::new(&mut data);
    let len = fs.read(&root(), node, handle, 0, 64, &mut sink)?;
    Ok(data[..len].to_vec())
}

fn find(fs: &PassthroughFs, parent: NodeId, name: &str) -> NodeId {
    let name = Name::new(name.as_bytes()).unwrap();
    fs.lookup(&root(), parent, name).unwrap().found().unwrap().node
}

fn open(fs: &PassthroughFs, node: NodeId) -> HandleId {
    fs.open(&root(), node, OpenFlags::READ_WRITE, false).unwrap().handle
}

/// Takes entries up to a number of them, and keeps the last place.
struct Part {
    names: Vec<Vec<u8>>,
    most: usize,
    cookie: u64,
}

impl stratafs_core::DirSink for Part {
    fn fits(&self, _: usize) -> bool {
        true
    }
    fn add(
        &mut self,
        entry: &stratafs_core::DirEntry<'_>,
        _: Option<&stratafs_core::Entry>,
    ) -> stratafs_core::Added {
        if self.names.len() == self.most {
            return stratafs_core::Added::Full;
        }
        self.names.push(entry.name.to_vec());
        self.cookie = entry.cookie;
        stratafs_core::Added::Taken
    }
}

#[test]
fn successor_answers_to_every_id_and_gives_out_no_old_one() {
    let share = Share::plain();
    let w = share.world();
    w.mkdir("a", 0o755).unwrap();
    w.mkdir("a/b", 0o755).unwrap();
    w.file("a/b/f", b"data").unwrap();
    w.link("a/b/f", "g").unwrap();
    w.mknod("pipe", 0o010_644, 0).unwrap();
    symlink("target", share.host("link")).unwrap();
    let fs = &share.fs;
    let a = find(fs, NodeId::ROOT, "a");
    let b = find(fs, a, "b");
    let file = find(fs, b, "f");
    let (pipe, link) = (find(fs, NodeId::ROOT, "pipe"), find(fs, NodeId::ROOT, "link"));
    assert_eq!(find(fs, NodeId::ROOT, "g"), file);
    let ino = |fs: &PassthroughFs, node| fs.getattr(&root(), node, None).unwrap().attr.ino;
    w.chown("link", Some(5), None).unwrap();
    let inos = [a, b, file, pipe, link].map(|node| ino(fs, node));
    let (handle, none) = (open(fs, file), RenameFlags::empty());
    let name = |text: &'static str| Name::new(text.as_bytes()).unwrap();
    fs.rename(&root(), NodeId::ROOT, name("a"), NodeId::ROOT, name("moved"), none).unwrap();
    let dir = fs.opendir(&root(), b, OpenFlags::READ_ONLY).unwrap().handle;
    let mut listed = Part { names: Vec::new(), most: 2, cookie: 0 };
    fs.readdir(&root(), b, dir, 0, &mut listed).unwrap();

    let state = fs.capture_state().unwrap();
    assert_eq!(state.uncaptured, [""; 0]);
    let next = successor(&share);
    next.restore_state(&state).unwrap();
    assert_eq!(next.capture_state().unwrap(), state, "nothing is lost on the way");
    assert_eq!([a, b, file, pipe, link].map(|node| ino(&next, node)), inos);
    assert_eq!(read(&next, file, handle).unwrap(), b"data");
    let mut source = SliceSource::new(b"more");
    let empty = WriteFlags::empty();
    assert_eq!(next.write(&root(), file, handle, 4, 4, empty, &mut source), Ok(4));
    let mut rest = Part { names: Vec::new(), most: 9, cookie: 0 };
    next.readdir(&root(), b, dir, listed.cookie, &mut rest).unwrap();
    assert_eq!(rest.names, [b"f"], "the listing goes on where it stopped");
    assert_eq!(find(&next, b, "f"), file);
    std::fs::write(share.host("new"), b"").unwrap();
    let new = find(&next, NodeId::ROOT, "new");
    assert!(new.0 > link.0.max(file.0), "{new:?}");
    let opened = open(&next, file);
    assert!(opened.0 > handle.0.max(dir.0), "{opened:?}");

    next.release(&root(), file, opened, Default::default()).unwrap();
    next.release(&root(), file, handle, Default::default()).unwrap();
    next.releasedir(&root(), b, dir).unwrap();
    next.batch_forget(&[(a, 1), (b, 1), (file, 3), (pipe, 1), (link, 1), (new, 1)]);
    let usage = next.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0));
    assert_eq!(std::fs::read(share.host("moved/b/f")).unwrap(), b"datamore");
}

#[test]
fn what_the_host_replaced_meanwhile_is_lost_to_the_successor_and_nothing_else() {
    let share = Share::plain();
    let w = share.world();
    for name in ["kept", "replaced", "removed"] {
        w.file(name, b"old").unwrap();
    }
    w.mkdir("dir", 0o755).unwrap();
    w.file("dir/f", b"old").unwrap();
    let nodes =
        ["kept", "replaced", "removed", "dir"].map(|name| find(&share.fs, NodeId::ROOT, name));
    let [kept, replaced, removed, dir] = nodes;
    let inside = find(&share.fs, dir, "f");
    let handles = [kept, replaced, removed, inside].map(|node| (node, open(&share.fs, node)));
    let state = share.fs.capture_state().unwrap();
    // Made first, so that no number can be used again.
    std::fs::write(share.host("other"), b"new").unwrap();
    std::fs::rename(share.host("other"), share.host("replaced")).unwrap();
    std::fs::remove_file(share.host("removed")).unwrap();
    std::fs::rename(share.host("dir"), share.host("elsewhere")).unwrap();
    std::fs::create_dir(share.host("dir")).unwrap();
    std::fs::write(share.host("dir/f"), b"new").unwrap();

    let next = successor(&share);
    next.restore_state(&state).unwrap();
    let reads = handles.map(|(node, handle)| read(&next, node, handle));
    let lost = Err(Errno::EBADF);
    assert_eq!(reads, [Ok(b"old".to_vec()), lost.clone(), lost.clone(), lost]);
    for node in [replaced, removed, dir, inside] {
        assert_eq!(next.getattr(&root(), node, None).unwrap_err(), Errno::ESTALE);
    }
    next.release(&root(), kept, handles[0].1, Default::default()).unwrap();
    next.batch_forget(&nodes.map(|node| (node, 1)));
    assert_eq!(next.usage().nodes, 1);
}

#[test]
fn what_has_no_name_is_reported_as_not_captured() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"data").unwrap();
    w.file("g", b"data").unwrap();
    let (gone, there) = (find(&share.fs, NodeId::ROOT, "f"), find(&share.fs, NodeId::ROOT, "g"));
    let handle = open(&share.fs, gone);
    w.unlink("f").unwrap();
    let state = share.fs.capture_state().unwrap();
    assert_eq!(state.uncaptured.len(), 2, "{:?}", state.uncaptured);
    assert!(state.uncaptured[0].contains(&format!("node {} has no name", gone.0)));
    assert!(state.uncaptured[1].contains(&format!("handle {} is open", handle.0)));
    let next = successor(&share);
    next.restore_state(&state).unwrap();
    assert_eq!(next.getattr(&root(), gone, None).unwrap_err(), Errno::ESTALE);
    assert_eq!(next.getattr(&root(), there, None).unwrap().attr.size, 4);
}

#[test]
fn state_that_is_not_one_of_its_own_is_refused_and_changes_nothing() {
    let share = Share::plain();
    std::fs::write(share.host("f"), b"data").unwrap();
    let node = find(&share.fs, NodeId::ROOT, "f");
    let state = share.fs.capture_state().unwrap();
    let next = successor(&share);
    let bytes = || state.bytes.clone();
    let mut with_a_child = state.clone();
    with_a_child.children.push(State::new("mem", 1, Vec::new()));
    let mut longer = state.clone();
    longer.bytes.push(0);
    for wrong in [
        State::new("mem", 1, bytes()),
        State::new("passthrough", 2, bytes()),
        State::new("passthrough", 1, Vec::new()),
        with_a_child,
        longer,
    ] {
        assert_eq!(next.restore_state(&wrong), Err(Errno::EINVAL));
        assert_eq!(next.usage().nodes, 1);
    }
    let two = share.dir.path().join("two");
    std::fs::create_dir(&two).unwrap();
    let builder = PassthroughFs::builder().root_dir(share.dir.path()).extra_root(&two);
    let other = builder.ownership(Ownership::Virtual).build().unwrap();
    assert_eq!(other.restore_state(&state), Err(Errno::EINVAL), "it has a second root");
    find(&next, NodeId::ROOT, "f");
    assert_eq!(next.restore_state(&state), Err(Errno::EBUSY), "it is in use");
    assert_eq!(share.fs.getattr(&root(), node, None).unwrap().attr.size, 4);
}

#[test]
fn state_with_any_bit_flipped_harms_nothing() {
    let share = Share::plain();
    let w = share.world();
    w.mkdir("d", 0o755).unwrap();
    w.file("d/f", b"data").unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), b"outside").unwrap();
    symlink(outside.path(), share.host("out")).unwrap();
    let dir = find(&share.fs, NodeId::ROOT, "d");
    let file = find(&share.fs, dir, "f");
    let handle = open(&share.fs, file);
    let state = share.fs.capture_state().unwrap();
    for bit in 0..state.bytes.len() * 8 {
        let mut flipped = state.clone();
        flipped.bytes[bit / 8] ^= 1 << (bit % 8);
        let next = successor(&share);
        match next.restore_state(&flipped) {
            Err(errno) => assert_eq!((errno, next.usage().nodes), (Errno::EINVAL, 1), "bit {bit}"),
            Ok(()) => {
                if let Ok(data) = read(&next, file, handle) {
                    assert_eq!(data, b"data", "bit {bit}");
                }
                // Whatever it became, its clients can give it back.
                for id in 2..300 {
                    let _ = next.release(&root(), NodeId(id), handle, Default::default());
                    next.forget(NodeId(id), u64::MAX);
                }
            }
        }
    }
}
