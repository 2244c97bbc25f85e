//! Files with several names, through copy-up.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, OpenFlags, RenameFlags};

use crate::support::layers::{Layers, layer};
use crate::support::tree::tree;
use crate::support::{cx, node, on};

/// A layer where `a`, `b` and `d/c` are one file.
fn linked(content: &'static str) -> Arc<dyn DynFileSystem> {
    layer(move |w| {
        w.file("a", content.as_bytes()).unwrap();
        w.mkdir("d", 0o755).unwrap();
        w.link("a", "b").unwrap();
        w.link("a", "d/c").unwrap();
    })
}

/// What the index of the writable layer has.
fn index(layers: &Layers) -> usize {
    on(&layers.scratch, |w| w.names("work/index").unwrap().len())
}

/// The same in this run and in a later one.
#[track_caller]
fn assert_stays(layers: &Layers, fs: Arc<dyn DynFileSystem>) {
    let seen = tree(&fs);
    drop(fs);
    assert_eq!(tree(&layers.build()), seen);
}

#[test]
fn names_of_a_file_stay_names_of_one_file_when_it_is_copied_up() {
    let layers = Layers::new([linked("both")]);
    let fs = layers.build();
    on(&fs, |w| {
        let before = w.stat("a").unwrap();
        w.write_at("b", 0, b"B").unwrap();
        for name in ["a", "b", "d/c"] {
            assert_eq!(w.read(name).unwrap(), b"Both", "{name}");
            let attr = w.stat(name).unwrap();
            assert_eq!((attr.ino, attr.nlink), (before.ino, 3), "{name}");
        }
        w.chmod("d/c", 0o600).unwrap();
        assert_eq!(w.stat("a").unwrap().mode & 0o7777, 0o600);
    });
    assert_eq!(index(&layers), 1, "one copy");
    assert_stays(&layers, fs);
}

#[test]
fn names_of_a_file_lead_to_one_node_before_and_after_a_copy_up() {
    let layers = Layers::new([linked("x")]);
    let fs = layers.build();
    let (a, b) = (node(&fs, "a"), node(&fs, "b"));
    assert_eq!(a, b);
    on(&fs, |w| w.write_at("d/c", 0, b"y").unwrap());
    let again = node(&fs, "a");
    assert_eq!(again, a);
    fs.forget(a, 3);
    assert!(fs.getattr(&cx(), a, None).is_err());
}

#[test]
fn handle_on_one_name_sees_what_is_written_by_another() {
    let layers = Layers::new([linked("old")]);
    let fs = layers.build();
    on(&fs, |w| {
        let fd = w.open("a", OpenFlags::READ_ONLY).unwrap();
        w.write_at("b", 0, b"new").unwrap();
        assert_eq!(w.read_fd(fd).unwrap(), b"new");
        w.close(fd).unwrap();
    });
}

#[test]
fn names_are_counted_as_they_come_and_go_and_the_index_gives_up_the_last() {
    let layers = Layers::new([linked("x")]);
    let fs = layers.build();
    let count = |name: &'static str| on(&fs, |w| w.stat(name).unwrap().nlink);
    on(&fs, |w| w.unlink("a").unwrap());
    assert_eq!((count("b"), count("d/c")), (2, 2));
    on(&fs, |w| w.link("b", "new").unwrap());
    assert_eq!((count("new"), count("d/c")), (3, 3));
    on(&fs, |w| w.rename("d/c", "moved").unwrap());
    assert_eq!(count("moved"), 3);
    on(&fs, |w| {
        w.file("other", b"").unwrap();
        w.rename("other", "b").unwrap();
    });
    assert_eq!(count("new"), 2);
    on(&fs, |w| w.rename2("b", "new", RenameFlags::EXCHANGE).unwrap());
    assert_eq!((count("b"), count("new")), (2, 1));
    on(&fs, |w| {
        w.unlink("moved").unwrap();
        assert_eq!(w.read("b").unwrap(), b"x");
    });
    assert_eq!((count("b"), index(&layers)), (1, 1));
    on(&fs, |w| {
        let fd = w.open("b", OpenFlags::READ_ONLY).unwrap();
        w.unlink("b").unwrap();
        assert_eq!(w.fstat(fd).unwrap().nlink, 0);
        assert_eq!(w.read_fd(fd).unwrap(), b"x");
        w.close(fd).unwrap();
    });
    assert_eq!(index(&layers), 0);
    assert_stays(&layers, fs);
}

#[test]
fn files_of_two_layers_with_the_same_number_are_not_mixed_up() {
    let upper = layer(|w| {
        w.file("e", b"from above").unwrap();
        w.link("e", "f").unwrap();
        w.link("e", "g").unwrap();
    });
    let layers = Layers::new([linked("from below"), upper]);
    let fs = layers.build();
    on(&fs, |w| {
        w.chmod("b", 0o600).unwrap();
        w.chmod("f", 0o640).unwrap();
        assert_eq!(w.read("a").unwrap(), b"from below");
        assert_eq!(w.read("e").unwrap(), b"from above");
        assert_eq!(w.stat("g").unwrap().mode & 0o7777, 0o640);
    });
    assert_eq!(index(&layers), 2);
    assert_stays(&layers, fs);
}

#[test]
fn special_files_and_symlinks_with_several_names_stay_one() {
    let layers = Layers::new([layer(|w| {
        w.symlink("target", "l1").unwrap();
        w.link("l1", "l2").unwrap();
        w.mknod("p1", stratafs_core::FileType::Fifo.mode_bits() | 0o600, 0).unwrap();
        w.link("p1", "p2").unwrap();
    })]);
    let fs = layers.build();
    on(&fs, |w| {
        w.chown("l1", Some(7), None).unwrap();
        w.chmod("p2", 0o644).unwrap();
        assert_eq!((w.stat("l2").unwrap().uid, w.stat("l2").unwrap().nlink), (7, 2));
        assert_eq!(w.stat("p1").unwrap().mode & 0o7777, 0o644);
        assert_eq!(w.readlink("l2").unwrap(), b"target");
    });
    assert_stays(&layers, fs);
}

#[test]
fn names_part_without_an_index() {
    let layers = Layers::new([linked("both")]);
    let build =
        || -> Arc<dyn DynFileSystem> { Arc::new(layers.builder().index(false).build().unwrap()) };
    let fs = build();
    on(&fs, |w| {
        w.write_at("a", 0, b"A").unwrap();
        assert_eq!((w.read("a").unwrap(), w.read("b").unwrap()), (b"Aoth".into(), b"both".into()));
        let (a, b) = (w.stat("a").unwrap(), w.stat("b").unwrap());
        assert_ne!(a.ino, b.ino, "they are two files now");
        assert_eq!(a.nlink, 1);
    });
    let seen = tree(&fs);
    drop(fs);
    assert_eq!(tree(&build()), seen);
    on(&layers.scratch, |w| assert!(!w.exists("work/index").unwrap()));
}

#[test]
fn leftovers_of_the_index_go_when_the_overlay_is_built() {
    let layers = Layers::new([linked("x")]);
    drop(layers.build());
    let left = "work/index/00fb1d000107070707070707070707070707070707abababababababab";
    on(&layers.scratch, |w| {
        w.file("work/index/#7", b"").unwrap();
        w.file(left, b"").unwrap();
        let record = b"trusted.overlay.nlink";
        w.setxattr(left, record, b"U-1", stratafs_core::XattrMode::Set).unwrap();
    });
    drop(layers.build());
    assert_eq!(index(&layers), 0);
}
