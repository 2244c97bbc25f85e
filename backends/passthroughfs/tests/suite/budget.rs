//! Descriptors are bounded, and their want never shows as a missing entry.

use std::fs::File;

use stratafs_core::{DynFileSystem, Errno, Name, NodeId, OpenFlags};
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_sys::file::set_descriptor_limit;
use stratafs_testkit::{Client, InProcess, World};

use crate::support::{As, Share, in_child, root};

/// How many files are in each directory of the large tree.
const FILES: usize = 1000;

/// How many files the large tree has; `STRATAFS_TREE_FILES` makes it larger.
fn tree_files() -> usize {
    let files = std::env::var("STRATAFS_TREE_FILES").ok();
    files.and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A tree of directories of [`FILES`] files each.
fn large_tree() -> (tempfile::TempDir, usize) {
    let tree = tempfile::tempdir().unwrap();
    let dirs = tree_files().div_ceil(FILES);
    for number in 0..dirs {
        let path = tree.path().join(format!("d{number}"));
        std::fs::create_dir(&path).unwrap();
        for file in 0..FILES {
            File::create(path.join(format!("f{file}"))).unwrap();
        }
    }
    (tree, dirs)
}

/// Lists and looks up all of a tree of `dirs` directories, forgets nothing, and uses every file in an
/// order of no use to a cache.
fn walk_everything(tree: &std::path::Path, dirs: usize, ownership: Ownership, limit: u64) {
    set_descriptor_limit(limit).unwrap();
    let limit = usize::try_from(limit).unwrap();
    let fs = PassthroughFs::builder().root_dir(tree).ownership(ownership).build().unwrap();
    let fs = std::sync::Arc::new(fs);
    let client = InProcess::new(std::sync::Arc::clone(&fs) as _);
    let w = World::new(&client as &dyn Client, b"".as_slice());
    let mut expected: Vec<_> = (0..FILES).map(|file| format!("f{file}")).collect();
    expected.sort();
    assert_eq!(w.names("").unwrap().len(), dirs);
    let mut nodes = Vec::with_capacity(dirs * (FILES + 1));
    for number in 0..dirs {
        let at = format!("d{number}");
        let mut names = w.names(&at).unwrap();
        names.sort();
        assert_eq!(names, expected, "{at}");
        let name = Name::new(at.as_bytes()).unwrap();
        let dir = fs.lookup(&root(), NodeId::ROOT, name).unwrap().found().unwrap();
        for name in &names {
            let name = Name::new(name.as_bytes()).unwrap();
            nodes.push((fs.lookup(&root(), dir.node, name).unwrap().found().unwrap().node, 1));
        }
        nodes.push((dir.node, 1));
        assert!(descriptors() < limit, "{} are open", descriptors());
    }
    assert_eq!(fs.usage().nodes, nodes.len() + 1);
    // The step shares no factor with the number of nodes, so each comes up once.
    let step = 7919;
    assert_ne!(nodes.len() % step, 0);
    for at in 0..nodes.len() {
        let (node, _) = nodes[(at * step) % nodes.len()];
        let attr = fs.getattr(&root(), node, None).unwrap().attr;
        if attr.is_dir() {
            continue;
        }
        assert_eq!(attr.size, 0);
        if at % 10 == 0 {
            let opened = fs.open(&root(), node, OpenFlags::READ_WRITE, false).unwrap();
            fs.release(&root(), node, opened.handle, Default::default()).unwrap();
            assert!(descriptors() < limit, "{} are open", descriptors());
        }
    }
    fs.batch_forget(&nodes);
    let usage = fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0));
}

#[test]
fn hundred_thousand_files_with_256_and_with_64_descriptors_are_all_there() {
    let test = "budget::hundred_thousand_files_with_256_and_with_64_descriptors_are_all_there";
    if in_child(test, As::SameUser) {
        let (tree, dirs) = large_tree();
        walk_everything(tree.path(), dirs, Ownership::Virtual, 256);
        walk_everything(tree.path(), dirs, Ownership::Host, 64);
    }
}

#[test]
fn descriptors_used_up_by_others_are_enfile_and_never_enoent() {
    let test = "budget::descriptors_used_up_by_others_are_enfile_and_never_enoent";
    if !in_child(test, As::SameUser) {
        return;
    }
    set_descriptor_limit(256).unwrap();
    let share = Share::plain();
    let w = share.world();
    for number in 0..300 {
        std::fs::write(share.host(&number.to_string()), b"data").unwrap();
    }
    // Nodes that hold pins which can be given up.
    let held: Vec<_> = (0..50)
        .map(|number| share.lookup(NodeId::ROOT, &number.to_string()).unwrap().node)
        .collect();
    let mut others = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        others.push(file);
    }
    for number in 0..300 {
        assert_eq!(w.read(number.to_string()).unwrap(), b"data", "pins make room");
    }
    // Now without any to give up.
    for node in held {
        share.fs.forget(node, 1);
    }
    while let Ok(file) = File::open("/dev/null") {
        others.push(file);
    }
    let mut full = 0;
    for number in 0..300 {
        match w.read(number.to_string()) {
            Ok(data) => assert_eq!(data, b"data"),
            Err(errno) => {
                assert_eq!(errno, Errno::ENFILE);
                full += 1;
            }
        }
    }
    assert!(full > 0);
    assert_eq!(
        w.mkdir("new", 0o755).and(w.rmdir("new")).err().unwrap_or(Errno::ENFILE),
        Errno::ENFILE
    );
    drop(others);
    assert_eq!(w.read("299").unwrap(), b"data", "all is well again");
    w.mkdir("newer", 0o755).unwrap();
}

#[test]
fn open_beyond_the_handle_limit_is_enfile_and_makes_nothing() {
    let share = Share::new(|b| b.max_handles(10));
    let w = share.world();
    w.file("f", b"data").unwrap();
    let open: Vec<_> = (0..10).map(|_| w.open("f", OpenFlags::READ_ONLY).unwrap()).collect();
    assert_eq!(w.open("f", OpenFlags::READ_ONLY).unwrap_err(), Errno::ENFILE);
    assert_eq!(w.create("new", OpenFlags::READ_WRITE, 0o644).unwrap_err(), Errno::ENFILE);
    assert_eq!(w.tmpfile("", OpenFlags::READ_WRITE, 0o644).unwrap_err(), Errno::ENFILE);
    assert_eq!(share.client.opendir(b"").unwrap_err(), Errno::ENFILE);
    assert!(!share.host("new").exists());
    assert_eq!(w.stat("f").unwrap().size, 4, "what takes no handle works");
    w.close(open[0]).unwrap();
    assert_eq!(w.read("f").unwrap(), b"data");
    for fd in &open[1..] {
        w.close(*fd).unwrap();
    }
}

#[test]
fn unlinked_nodes_beyond_the_budget_refuse_the_unlink_and_lose_nothing() {
    let share = Share::new(|b| b.fd_budget(8));
    let mut held = Vec::new();
    let mut outcome = Ok(());
    for number in 0..20 {
        let name = number.to_string();
        std::fs::write(share.host(&name), name.as_bytes()).unwrap();
        let node = share.lookup(NodeId::ROOT, &name).unwrap().node;
        held.push((node, name));
        let name = held.last().unwrap().1.as_bytes();
        outcome = share.fs.unlink(&root(), NodeId::ROOT, Name::new(name).unwrap());
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome.unwrap_err(), Errno::ENFILE);
    assert!(held.len() > 4 && held.len() < 12, "{}", held.len());
    for (node, name) in &held {
        let size = share.fs.getattr(&root(), *node, None).unwrap().attr.size;
        assert_eq!(size, name.len() as u64);
    }
    for (node, _) in &held {
        share.fs.forget(*node, 1);
    }
    let (_, last) = held.last().unwrap();
    share.fs.unlink(&root(), NodeId::ROOT, Name::new(last.as_bytes()).unwrap()).unwrap();
}
