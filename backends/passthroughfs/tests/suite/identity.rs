//! A node is its object and no other, wherever the object's names go.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use stratafs_core::{
    DynFileSystem, Errno, HandleId, Name, NodeId, OpenFlags, RenameFlags, Result, SliceSink,
};
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::Client;

use crate::support::{Share, root};

fn read(fs: &PassthroughFs, node: NodeId) -> Result<Vec<u8>> {
    let opened = fs.open(&root(), node, OpenFlags::READ_ONLY, false)?;
    let mut data = [0; 64];
    let mut sink = SliceSink::new(&mut data);
    let len = fs.read(&root(), node, opened.handle, 0, 64, &mut sink);
    fs.release(&root(), node, opened.handle, Default::default())?;
    Ok(data[..len?].to_vec())
}

fn ino(fs: &PassthroughFs, node: NodeId) -> Result<u64> {
    Ok(fs.getattr(&root(), node, None)?.attr.ino)
}

const BOTH: [Ownership; 2] = [Ownership::Virtual, Ownership::Host];

#[test]
fn evicted_hard_link_is_found_by_any_of_its_names() {
    for ownership in BOTH {
        let share = Share::new(|b| b.fd_budget(8).ownership(ownership));
        let w = share.world();
        w.file("a", b"data").unwrap();
        let a = share.lookup(NodeId::ROOT, "a").unwrap();
        w.link("a", "b").unwrap();
        w.link("a", "c").unwrap();
        let b = share.lookup(NodeId::ROOT, "b").unwrap();
        assert_eq!(a.node, b.node);
        // The host takes away one name, and the client another.
        std::fs::remove_file(share.host("a")).unwrap();
        w.unlink("c").unwrap();
        share.push_out();
        assert_eq!(read(&share.fs, a.node).unwrap(), b"data", "{ownership:?}");
        assert_eq!(share.fs.getattr(&root(), a.node, None).unwrap().attr.nlink, 1);
        share.fs.forget(a.node, 2);
        assert_eq!(share.fs.usage().nodes, 1);
    }
}

#[test]
fn evicted_nodes_are_found_again_after_their_directories_were_renamed() {
    for ownership in BOTH {
        let share = Share::new(|b| b.fd_budget(8).ownership(ownership));
        let w = share.world();
        w.mkdir("one", 0o755).unwrap();
        w.mkdir("one/two", 0o755).unwrap();
        w.file("one/two/f", b"data").unwrap();
        w.mkdir("other", 0o755).unwrap();
        let one = share.lookup(NodeId::ROOT, "one").unwrap();
        let two = share.lookup(one.node, "two").unwrap();
        let file = share.lookup(two.node, "f").unwrap();
        share.push_out();
        w.rename("one", "other/uno").unwrap();
        share.push_out();
        assert_eq!(read(&share.fs, file.node).unwrap(), b"data");
        w.rename("other/uno/two", "due").unwrap();
        w.rename("due/f", "due/g").unwrap();
        share.push_out();
        assert_eq!(read(&share.fs, file.node).unwrap(), b"data");
        w.file("x", b"else").unwrap();
        share.client.rename(b"x", b"due/g", RenameFlags::EXCHANGE).unwrap();
        share.push_out();
        assert_eq!(read(&share.fs, file.node).unwrap(), b"data", "by its name after an exchange");
        for node in [one.node, two.node, file.node] {
            share.fs.forget(node, 1);
        }
        assert_eq!(share.fs.usage().nodes, 1);
    }
}

#[test]
fn file_replaced_by_the_host_is_another_node_and_never_passes_for_the_old_one() {
    for ownership in BOTH {
        let share = Share::new(|b| b.fd_budget(8).ownership(ownership));
        std::fs::write(share.host("f"), b"old").unwrap();
        let old = share.lookup(NodeId::ROOT, "f").unwrap();
        share.push_out();
        std::fs::write(share.host("new"), b"new").unwrap();
        std::fs::rename(share.host("new"), share.host("f")).unwrap();
        assert_eq!(ino(&share.fs, old.node).unwrap_err(), Errno::ESTALE, "{ownership:?}");
        assert_eq!(read(&share.fs, old.node).unwrap_err(), Errno::ESTALE);
        let new = share.lookup(NodeId::ROOT, "f").unwrap();
        assert_ne!(new.node, old.node);
        assert_eq!(read(&share.fs, new.node).unwrap(), b"new");
        share.fs.forget(old.node, 1);
        share.fs.forget(new.node, 1);
    }
}

#[test]
fn inode_number_used_again_by_the_host_is_a_new_node() {
    let share = Share::new(|b| b.fd_budget(8));
    std::fs::write(share.host("f"), b"old").unwrap();
    let old = share.lookup(NodeId::ROOT, "f").unwrap();
    share.push_out();
    let number = share.host("f").metadata().unwrap().ino();
    std::fs::remove_file(share.host("f")).unwrap();
    let mut again = false;
    for attempt in 0..100 {
        // Where a number is free the next file gets it, on ext4; elsewhere never.
        let path = share.host(&format!("again{attempt}"));
        std::fs::write(&path, b"new").unwrap();
        if path.metadata().unwrap().ino() == number {
            std::fs::rename(&path, share.host("f")).unwrap();
            again = true;
            break;
        }
    }
    if !again {
        std::fs::write(share.host("f"), b"new").unwrap();
    }
    let new = share.lookup(NodeId::ROOT, "f").unwrap();
    assert_ne!(new.node, old.node, "the number was used again: {again}");
    assert_eq!(ino(&share.fs, old.node).unwrap_err(), Errno::ESTALE);
    share.fs.forget(old.node, 1);
    share.fs.forget(new.node, 1);
}

#[test]
fn unlinked_node_is_usable_without_a_handle_whatever_else_is_looked_up() {
    for ownership in BOTH {
        let share = Share::new(|b| b.fd_budget(8).ownership(ownership));
        let w = share.world();
        w.file("f", b"data").unwrap();
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        share.push_out();
        w.unlink("f").unwrap();
        share.push_out();
        assert_eq!(read(&share.fs, entry.node).unwrap(), b"data", "{ownership:?}");
        w.file("f", b"other").unwrap();
        assert_eq!(read(&share.fs, entry.node).unwrap(), b"data");
        share.fs.forget(entry.node, 1);
        assert_eq!(ino(&share.fs, entry.node).unwrap_err(), Errno::ESTALE);
        assert_eq!(share.fs.usage().nodes, 1);
    }
}

#[test]
fn file_unlinked_by_the_host_stays_usable_through_its_handle() {
    let share = Share::new(|b| b.fd_budget(8).ownership(Ownership::Host));
    std::fs::write(share.host("f"), b"data").unwrap();
    let w = share.world();
    let fd = w.open("f", OpenFlags::READ_ONLY).unwrap();
    let (node, _) = share.client.ids(fd).unwrap();
    share.push_out();
    std::fs::remove_file(share.host("f")).unwrap();
    assert_eq!(share.fs.getattr(&root(), node, None).unwrap().attr.nlink, 0);
    assert_eq!(w.read_fd(fd).unwrap(), b"data");
    w.close(fd).unwrap();
}

#[test]
fn unlinked_file_released_before_it_is_forgotten_stays_usable() {
    let share = Share::new(|b| b.fd_budget(8).ownership(Ownership::Host));
    let w = share.world();
    w.file("f", b"data").unwrap();
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    let fd = w.open("f", OpenFlags::READ_ONLY).unwrap();
    w.unlink("f").unwrap();
    w.close(fd).unwrap();
    share.push_out();
    assert_eq!(read(&share.fs, entry.node).unwrap(), b"data");
    share.fs.forget(entry.node, 1);
    assert_eq!((share.fs.usage().nodes, share.fs.usage().pins), (1, share.fs.usage().pins));
}

#[test]
fn forget_of_everything_frees_everything() {
    let share = Share::plain();
    let w = share.world();
    w.mkdir("d", 0o755).unwrap();
    for number in 0..500 {
        w.file(format!("d/{number}"), b"").unwrap();
    }
    let dir = share.lookup(NodeId::ROOT, "d").unwrap();
    let mut nodes = vec![dir.node];
    for number in 0..500 {
        nodes.push(share.lookup(dir.node, &number.to_string()).unwrap().node);
    }
    assert_eq!(share.fs.usage().nodes, 502);
    // Parents first: they stay for as long as children are found by them.
    for node in nodes {
        share.fs.forget(node, 1);
        share.fs.forget(node, u64::MAX);
    }
    share.fs.forget(NodeId::ROOT, u64::MAX);
    let usage = share.fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0));
    assert_eq!(w.names("d").unwrap().len(), 500);
}

#[test]
fn node_ids_are_never_used_again() {
    let share = Share::plain();
    std::fs::write(share.host("f"), b"").unwrap();
    let mut last = 0;
    for _ in 0..100 {
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        assert!(entry.node.0 > last);
        last = entry.node.0;
        share.fs.forget(entry.node, 1);
    }
}

#[test]
fn deep_tree_is_found_again_and_torn_down_without_recursion() {
    const DEPTH: usize = 20_000;
    // In memory, where a directory costs nothing.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    let share = Share::over(dir, |b| b.fd_budget(8));
    let name = Name::new(b"d").unwrap();
    let mut chain = vec![NodeId::ROOT];
    for _ in 0..DEPTH {
        let parent = *chain.last().unwrap();
        chain.push(share.fs.mkdir(&root(), parent, name, 0o755).unwrap().node);
    }
    share.push_out();
    let deepest = *chain.last().unwrap();
    assert!(share.fs.getattr(&root(), deepest, None).unwrap().attr.is_dir());
    // The way up is forgotten; the deepest alone keeps it.
    for node in &chain[1..DEPTH] {
        share.fs.forget(*node, 1);
    }
    assert!(share.fs.getattr(&root(), deepest, None).is_ok());
    share.fs.forget(deepest, 1);
    assert_eq!(share.fs.usage().nodes, 1);
    // The same once more, and dropped as it is.
    let mut at = NodeId::ROOT;
    for _ in 0..DEPTH / 10 {
        at = share.fs.lookup(&root(), at, name).unwrap().found().unwrap().node;
    }
    let Share { dir, fs, client } = share;
    drop(client);
    assert!(Arc::into_inner(fs).is_some());
    // A plain removal would recurse or meet ENAMETOOLONG.
    let removed = std::process::Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn stateless_reads_of_a_file_that_moves_go_on() {
    let share = Share::new(|b| b.open(stratafs_passthroughfs::OpenMode::Stateless).fd_budget(8));
    let w = share.world();
    w.file("f", b"data").unwrap();
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    let read = || {
        let mut data = [0; 8];
        let mut sink = SliceSink::new(&mut data);
        let len = share.fs.read(&root(), entry.node, HandleId::NONE, 0, 8, &mut sink)?;
        Ok::<_, Errno>(data[..len].to_vec())
    };
    assert_eq!(read().unwrap(), b"data");
    w.rename("f", "g").unwrap();
    share.push_out();
    assert_eq!(read().unwrap(), b"data");
    w.unlink("g").unwrap();
    share.push_out();
    assert_eq!(read().unwrap(), b"data", "until it is forgotten");
    share.fs.forget(entry.node, 1);
}

#[test]
fn persistent_id_is_the_same_in_a_later_server_and_differs_between_objects() {
    let share = Share::plain();
    std::fs::write(share.host("a"), b"").unwrap();
    std::fs::write(share.host("b"), b"").unwrap();
    let id = |fs: &PassthroughFs, name: &[u8]| {
        let entry = fs.lookup(&root(), NodeId::ROOT, Name::new(name).unwrap()).unwrap();
        fs.persistent_id(entry.found().unwrap().node).unwrap()
    };
    let Some(a) = id(&share.fs, b"a") else {
        eprintln!("SKIPPED: the temporary directory's filesystem has no file handles");
        return;
    };
    assert!(a.bytes.len() <= 128);
    assert_ne!(Some(&a), id(&share.fs, b"b").as_ref());
    let later = PassthroughFs::builder().root_dir(share.dir.path()).build().unwrap();
    assert_eq!(Some(a), id(&later, b"a"));
}
