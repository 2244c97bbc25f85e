//! Inode numbers, listings and what is kept in memory.

use std::collections::HashMap;
use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, NodeId, OpKind, OpenFlags};
use stratafs_overlayfs::OverlayFs;

use crate::support::layers::{Layers, Watch, layer, nothing};
use crate::support::{cx, mem, name, on};

/// Two layers of two filesystems, whose numbers are the same ones.
fn layers() -> Layers {
    let fill = |which: &'static str| {
        layer(move |w| {
            w.mkdir("d", 0o755).unwrap();
            w.mkdir(format!("d/only-{which}"), 0o755).unwrap();
            for file in ["f", "d/g", which] {
                w.file(file, which.as_bytes()).unwrap();
            }
        })
    };
    Layers::new([fill("base"), fill("app")])
}

/// The number of each path.
fn numbers(fs: &Arc<dyn DynFileSystem>) -> HashMap<String, u64> {
    let tree = crate::support::tree::tree(fs);
    on(fs, |w| {
        let number = |path: &String| (path.clone(), w.stat(path).unwrap().ino);
        tree.keys().map(number).collect()
    })
}

#[test]
fn inode_numbers_are_unique_across_layers() {
    let numbers = numbers(&layers().build());
    let mut seen: Vec<u64> = numbers.values().copied().collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), numbers.len(), "{numbers:?}");
}

#[test]
fn inode_numbers_stay_through_copy_up_rename_and_a_rebuild() {
    let layers = layers();
    let fs = layers.build();
    let before = numbers(&fs);
    on(&fs, |w| {
        for path in ["f", "d/g", "base", "d/only-app", "d"] {
            w.chmod(path, 0o755).unwrap();
        }
    });
    assert_eq!(numbers(&fs), before);
    on(&fs, |w| w.rename("d", "e").unwrap());
    on(&fs, |w| w.rename("f", "e/f2").unwrap());
    let moved: HashMap<_, _> = before
        .iter()
        .map(|(path, ino)| match path.as_str() {
            "f" => ("e/f2".to_owned(), *ino),
            other if other == "d" || other.starts_with("d/") => (other.replacen('d', "e", 1), *ino),
            other => (other.to_owned(), *ino),
        })
        .collect();
    assert_eq!(numbers(&fs), moved);
    drop(fs);
    assert_eq!(numbers(&layers.build()), moved);
}

#[test]
fn cookies_stay_when_others_go_and_listings_of_changes_are_fresh() {
    let many = layer(|w| {
        for i in 0..50 {
            w.file(format!("lower-{i:02}"), b"").unwrap();
        }
    });
    on(&Layers::new([many]).build(), |w| {
        w.file("new", b"").unwrap();
        let before: HashMap<_, _> =
            w.list("").unwrap().into_iter().map(|e| (e.name, e.cookie)).collect();
        w.unlink("lower-07").unwrap();
        w.chmod("lower-08", 0o600).unwrap();
        w.unlink("new").unwrap();
        let after = w.list("").unwrap();
        assert_eq!(after.len(), before.len() - 2);
        for entry in after {
            assert_eq!(before[&entry.name], entry.cookie, "{}", entry.name.escape_ascii());
        }
    });
}

#[test]
fn second_listing_asks_no_layer() {
    let (base, watch) = Watch::over(layer(|w| w.file("f", b"").unwrap()), nothing);
    on(&Layers::new([base]).build(), |w| {
        let dir = w.opendir("").unwrap();
        w.list("").unwrap();
        watch.clear();
        assert_eq!(w.names("").unwrap(), ["f"]);
        assert_eq!(watch.count(OpKind::Readdir) + watch.count(OpKind::Opendir), 0);
        w.close(dir).unwrap();
    });
}

#[test]
fn lookup_in_a_large_directory_opens_nothing() {
    let (base, watch) = Watch::over(
        layer(|w| (0..500).for_each(|i| w.file(format!("f{i}"), b"").unwrap())),
        nothing,
    );
    on(&Layers::new([base]).build(), |w| {
        watch.clear();
        w.stat("f250").unwrap();
        assert_eq!(watch.count(OpKind::Open) + watch.count(OpKind::Opendir), 0);
        assert!(watch.count(OpKind::Lookup) <= 1);
    });
}

#[test]
fn deep_lookup_costs_no_call_for_layers_that_lack_the_directory() {
    let watched: Vec<_> = (0..10)
        .map(|_| Watch::over(layer(|w| w.mkdir("other", 0o755).unwrap()), nothing))
        .collect();
    let deep = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
        w.mkdir("a/b/c", 0o755).unwrap();
    });
    let fs = Layers::new(watched.iter().map(|(fs, _)| Arc::clone(fs)).chain([deep])).build();
    on(&fs, |w| w.stat("a/b/c").unwrap());
    for (_, watch) in &watched {
        assert_eq!(watch.count(OpKind::Lookup), 1, "for `a` alone");
    }
}

#[test]
fn names_of_any_bytes_are_shown_and_changed() {
    let strange: &[u8] = b"\xff\xfe\n name";
    let base = layer(|w| {
        let fd = w.create(strange, OpenFlags::WRITE_ONLY, 0o644).unwrap();
        w.close(fd).unwrap();
    });
    on(&Layers::new([base]).build(), |w| {
        assert!(w.list("").unwrap().iter().any(|entry| entry.name == strange));
        w.chmod(strange, 0o600).unwrap();
        w.rename(strange, "plain").unwrap();
        assert_eq!(w.stat("plain").unwrap().mode & 0o7777, 0o600);
    });
}

#[test]
fn what_the_client_forgot_leaves_no_memory_behind() {
    let base = layer(|w| {
        for dir in 0..20 {
            w.mkdir(format!("d{dir}"), 0o755).unwrap();
            (0..50).for_each(|i| w.file(format!("d{dir}/f{i}"), b"").unwrap());
        }
    });
    let fs = Arc::new(OverlayFs::builder().layer(base).writable(mem()).build().unwrap());
    let shared: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
    crate::support::tree::tree(&shared);
    on(&shared, |w| (0..20).for_each(|dir| w.chmod(format!("d{dir}/f1"), 0o600).unwrap()));
    assert_eq!(fs.nodes(), 1, "the root alone");
}

#[test]
fn fsync_of_a_directory_works_in_every_layer() {
    on(&layers().build(), |w| {
        for path in ["d", ""] {
            let fd = w.opendir(path).unwrap();
            w.fsync(fd, false).unwrap();
            w.close(fd).unwrap();
        }
        w.chmod("d", 0o700).unwrap();
        let fd = w.opendir("d").unwrap();
        w.fsync(fd, false).unwrap();
        w.close(fd).unwrap();
    });
}

#[test]
fn tree_that_is_deeper_than_a_stack_is_copied_up_and_let_go_of_from_the_top() {
    const DEEP: usize = 4_000;
    let lower = mem();
    let mut at = NodeId::ROOT;
    for _ in 0..DEEP {
        at = lower.mkdir(&cx(), at, name("d"), 0o755).unwrap().node;
    }
    let work = move || {
        let fs = Layers::new([lower]).build();
        let mut nodes = vec![NodeId::ROOT];
        for _ in 0..DEEP {
            let at = *nodes.last().unwrap();
            nodes.push(fs.lookup(&cx(), at, name("d")).unwrap().found().unwrap().node);
        }
        let made = fs.mkdir(&cx(), *nodes.last().unwrap(), name("new"), 0o755).unwrap();
        // A client's kernel lets go of the deepest first; a hostile one does not.
        nodes.into_iter().for_each(|node| fs.forget(node, 1));
        fs.forget(made.node, 1);
        assert_eq!(fs.getattr(&cx(), made.node, None).unwrap_err(), Errno::ESTALE);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(work).unwrap().join().unwrap();
}
