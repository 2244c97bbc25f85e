//! Nothing deleted ever comes back, and nothing is left behind.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, FileType, OpKind, RenameFlags, XattrMode};

use crate::support::layers::{Layers, Watch, layer, nothing};
use crate::support::on;
use crate::support::tree::tree;

/// One layer with a directory that has something in it.
fn with_dir() -> Layers {
    Layers::new([layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/old", b"old").unwrap();
        w.file("f", b"lower").unwrap();
    })])
}

/// The names in `path` of the writable layer.
fn upper_names(layers: &Layers, path: &str) -> Vec<String> {
    on(&layers.scratch, |w| w.names(format!("upper/{path}")).unwrap())
}

#[test]
fn mkdir_over_a_whiteout_shows_nothing_of_what_was_deleted() {
    let layers = with_dir();
    let fs = layers.build();
    on(&fs, |w| {
        w.unlink("d/old").unwrap();
        w.rmdir("d").unwrap();
        w.mkdir("d", 0o755).unwrap();
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
        assert_eq!(w.stat("d/old").unwrap_err(), Errno::ENOENT);
        w.file("d/old", b"new").unwrap();
    });
    let seen = tree(&fs);
    drop(fs);
    assert_eq!(tree(&layers.build()), seen);
    on(&layers.scratch, |w| {
        assert_eq!(w.getxattr("upper/d", b"trusted.overlay.opaque").unwrap(), b"y");
    });
}

#[test]
fn whiteout_in_a_middle_layer_hides_below_a_directory_made_anew_above() {
    let bottom = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
        w.file("a/b/secret", b"").unwrap();
    });
    let middle = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mknod("a/b", FileType::CharDevice.mode_bits(), 0).unwrap();
    });
    let top = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
        w.file("a/b/new", b"").unwrap();
    });
    let fs = Layers::new([bottom, middle, top]).build();
    on(&fs, |w| {
        assert_eq!(w.names("a/b").unwrap(), ["new"]);
        assert_eq!(w.stat("a/b/secret").unwrap_err(), Errno::ENOENT);
    });
}

#[test]
fn opaque_ancestor_in_a_middle_layer_hides_below_a_directory_made_anew_above() {
    let bottom = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
        w.file("a/b/secret", b"").unwrap();
    });
    let middle = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.setxattr("a", b"trusted.overlay.opaque", b"y", XattrMode::Set).unwrap();
    });
    let top = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
    });
    let fs = Layers::new([bottom, middle, top]).build();
    on(&fs, |w| {
        assert_eq!(w.names("a/b").unwrap(), Vec::<String>::new());
        assert_eq!(w.stat("a/b/secret").unwrap_err(), Errno::ENOENT);
    });
}

#[test]
fn file_in_a_middle_layer_hides_a_directory_below_it() {
    let bottom = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.file("a/secret", b"").unwrap();
    });
    let middle = layer(|w| w.file("a", b"").unwrap());
    let top = layer(|w| w.mkdir("a", 0o755).unwrap());
    let fs = Layers::new([bottom, middle, top]).build();
    on(&fs, |w| assert_eq!(w.names("a").unwrap(), Vec::<String>::new()));
}

#[test]
fn deleted_names_are_neither_listed_nor_found_and_stay_so() {
    let layers = with_dir();
    let fs = layers.build();
    on(&fs, |w| {
        assert_eq!(w.names("").unwrap(), ["d", "f"]);
        w.unlink("f").unwrap();
        assert_eq!(w.names("").unwrap(), ["d"]);
        assert_eq!(w.stat("f").unwrap_err(), Errno::ENOENT);
        assert_eq!(w.unlink("f").unwrap_err(), Errno::ENOENT);
    });
    drop(fs);
    on(&layers.build(), |w| {
        assert_eq!(w.names("").unwrap(), ["d"]);
        assert_eq!(w.stat("f").unwrap_err(), Errno::ENOENT);
    });
}

#[test]
fn removal_inside_of_an_opaque_directory_leaves_no_whiteout() {
    let layers = with_dir();
    on(&layers.build(), |w| {
        w.unlink("d/old").unwrap();
        w.rmdir("d").unwrap();
        w.mkdir("d", 0o755).unwrap();
        w.file("d/old", b"new").unwrap();
        w.unlink("d/old").unwrap();
    });
    assert_eq!(upper_names(&layers, "d"), Vec::<String>::new());
}

#[test]
fn rename_and_removal_of_what_is_only_in_the_writable_layer_leave_no_whiteout() {
    let layers = with_dir();
    on(&layers.build(), |w| {
        w.file("new", b"").unwrap();
        w.rename("new", "moved").unwrap();
        w.rename("moved", "d/moved").unwrap();
        w.mkdir("dir", 0o755).unwrap();
        w.rename("dir", "dir2").unwrap();
        w.rmdir("dir2").unwrap();
        w.unlink("d/moved").unwrap();
    });
    assert_eq!(upper_names(&layers, ""), ["d"]);
    assert_eq!(upper_names(&layers, "d"), Vec::<String>::new());
}

#[test]
fn rename_to_where_a_directory_was_deleted_leaves_no_whiteout_behind() {
    let layers = with_dir();
    on(&layers.build(), |w| {
        w.unlink("d/old").unwrap();
        w.rmdir("d").unwrap();
        w.mkdir("new", 0o755).unwrap();
        w.file("new/x", b"").unwrap();
        w.rename("new", "d").unwrap();
        assert_eq!(w.names("d").unwrap(), ["x"]);
    });
    assert_eq!(upper_names(&layers, ""), ["d"]);
    on(&layers.build(), |w| assert_eq!(w.names("d").unwrap(), ["x"]));
}

#[test]
fn rename_of_a_merged_directory_is_one_rename_of_the_writable_layer() {
    let mut layers = with_dir();
    let (watched, watch) = Watch::over(Arc::clone(&layers.scratch), nothing);
    layers.scratch = watched;
    let fs = layers.build();
    on(&fs, |w| {
        w.chmod("d", 0o700).unwrap();
        watch.clear();
        w.rename("d", "e").unwrap();
        assert_eq!(watch.count(OpKind::Rename), 1);
        assert_eq!(watch.count(OpKind::Mknod), 0, "the whiteout comes with the rename");
        assert_eq!(w.read("e/old").unwrap(), b"old");
        assert_eq!(w.stat("d").unwrap_err(), Errno::ENOENT);
    });
    drop(fs);
    on(&layers.build(), |w| {
        assert_eq!(w.names("").unwrap(), ["e", "f"]);
        assert_eq!(w.read("e/old").unwrap(), b"old");
    });
}

#[test]
fn rename_of_a_directory_keeps_what_is_deleted_in_it_deleted() {
    let layers = with_dir();
    on(&layers.build(), |w| {
        w.unlink("d/old").unwrap();
        w.rename("d", "e").unwrap();
        w.mkdir("d", 0o755).unwrap();
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
        w.mkdir("p", 0o755).unwrap();
        w.rename("e", "p/e").unwrap();
        w.rename("p", "q").unwrap();
    });
    on(&layers.build(), |w| {
        assert_eq!(w.names("q/e").unwrap(), Vec::<String>::new());
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
    });
}

#[test]
fn new_directory_moved_over_where_a_layer_has_one_shows_nothing_of_it() {
    let layers = Layers::new([layer(|w| {
        w.mkdir("empty", 0o755).unwrap();
        w.mkdir("d", 0o755).unwrap();
        w.file("d/old", b"").unwrap();
    })]);
    on(&layers.build(), |w| {
        w.mkdir("n", 0o755).unwrap();
        w.unlink("d/old").unwrap();
        w.rename("n", "d").unwrap();
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
        w.mkdir("m", 0o755).unwrap();
        w.rename2("m", "d", RenameFlags::EXCHANGE).unwrap();
    });
    on(&layers.build(), |w| {
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
        assert_eq!(w.names("m").unwrap(), Vec::<String>::new());
    });
}

#[test]
fn staging_directory_is_cleaned_when_the_overlay_is_built() {
    let layers = with_dir();
    drop(layers.build());
    on(&layers.scratch, |w| {
        w.mkdir("work/work/#7", 0o755).unwrap();
        w.mknod("work/work/#7/w", FileType::CharDevice.mode_bits(), 0).unwrap();
        w.file("work/work/#8", b"half").unwrap();
    });
    drop(layers.build());
    on(&layers.scratch, |w| assert_eq!(w.names("work/work").unwrap(), Vec::<String>::new()));
}

#[test]
fn removed_directory_that_is_held_has_nothing_and_takes_nothing() {
    let layers = with_dir();
    let fs: Arc<dyn DynFileSystem> = layers.build();
    on(&fs, |w| {
        let fd = w.opendir("d").unwrap();
        w.unlink("d/old").unwrap();
        w.rmdir("d").unwrap();
        let client = w.client().in_process().unwrap();
        let (node, _) = client.ids(fd).unwrap();
        let cx = crate::support::cx();
        let made = fs.mkdir(&cx, node, crate::support::name("x"), 0o755);
        assert_eq!(made.unwrap_err(), Errno::ENOENT);
        assert_eq!(fs.getattr(&cx, node, None).unwrap().attr.nlink, 0);
        w.close(fd).unwrap();
    });
}
