//! The difference that a writable layer makes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{DynFileSystem, OpKind, RenameFlags};
use stratafs_overlayfs::OverlayFs;
use support::layers::{Layers, Watch, layer, nothing};
use support::on;

/// Does `work` on an overlay of `layers`, and gives the lines of what it changed; in a later run
/// they are the same.
fn lines(layers: &Layers, work: impl FnOnce(&stratafs_testkit::World<'_>)) -> Vec<String> {
    let fs = Arc::new(layers.builder().build().unwrap());
    let shared: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
    on(&shared, work);
    let seen = changes(&fs);
    drop((fs, shared));
    assert_eq!(changes(&layers.builder().build().unwrap()), seen, "in a later run");
    seen
}

fn changes(fs: &OverlayFs) -> Vec<String> {
    let mut seen = Vec::new();
    fs.changes(|change| seen.push(change.to_string())).unwrap();
    seen
}

fn layers() -> Layers {
    let base = layer(|w| {
        for dir in ["d", "d/sub", "e", "big"] {
            w.mkdir(dir, 0o755).unwrap();
        }
        for file in ["f", "g", "d/x", "d/sub/y", "e/z"] {
            w.file(file, b"four").unwrap();
        }
    });
    Layers::new([base])
}

#[test]
fn changes_of_an_overlay_that_was_only_read_are_none() {
    let seen = lines(&layers(), |w| {
        w.read("f").unwrap();
        w.names("d").unwrap();
    });
    assert_eq!(seen, Vec::<String>::new());
}

#[test]
fn changes_tell_what_was_added_changed_and_deleted() {
    let seen = lines(&layers(), |w| {
        w.write_at("f", 4, b"5").unwrap();
        w.unlink("g").unwrap();
        w.unlink("e/z").unwrap();
        w.rmdir("e").unwrap();
        w.chmod("d/sub", 0o700).unwrap();
        w.file("d/new", b"123").unwrap();
        w.mkdir("n", 0o755).unwrap();
        w.symlink("f", "n/link").unwrap();
        w.file("temporary", b"").unwrap();
        w.unlink("temporary").unwrap();
    });
    let right =
        ["A - 3 d/new", "C d 0 d/sub", "D d 0 e", "C - 5 f", "D - 4 g", "A d 0 n", "A l 0 n/link"];
    assert_eq!(seen, right);
}

#[test]
fn changes_tell_what_an_opaque_directory_hides() {
    let seen = lines(&layers(), |w| {
        w.unlink("d/x").unwrap();
        w.unlink("d/sub/y").unwrap();
        w.rmdir("d/sub").unwrap();
        w.rmdir("d").unwrap();
        w.mkdir("d", 0o755).unwrap();
        w.file("d/x", b"again").unwrap();
    });
    assert_eq!(seen, ["D d 0 d/sub", "C - 5 d/x"]);
}

#[test]
fn changes_tell_all_of_a_moved_directory_in_its_new_place() {
    let seen = lines(&layers(), |w| w.rename("d", "moved").unwrap());
    let right = ["D d 0 d", "A d 0 moved", "A d 0 moved/sub", "A - 4 moved/sub/y", "A - 4 moved/x"];
    assert_eq!(seen, right);
}

#[test]
fn changes_tell_both_sides_of_an_exchange() {
    let seen = lines(&layers(), |w| w.rename2("e", "f", RenameFlags::EXCHANGE).unwrap());
    assert_eq!(seen, ["C - 4 e", "C d 0 f", "A - 4 f/z"]);
}

#[test]
fn changes_cost_nothing_where_nothing_was_changed() {
    let mut all = layers();
    let (watched, watch) = Watch::over(Arc::clone(&all.lowers[0]), nothing);
    all.lowers[0] = watched;
    let fs = Arc::new(all.builder().build().unwrap());
    let shared: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
    on(&shared, |w| w.file("n", b"").unwrap());
    watch.clear();
    assert_eq!(changes(&fs), ["A - 0 n"]);
    assert!(watch.count(OpKind::Readdir) <= 4, "the root alone is listed");
}

#[test]
fn changes_escape_what_would_forge_a_line() {
    let seen = lines(&layers(), |w| w.file("a\nD - 0 f", b"").unwrap());
    assert_eq!(seen, ["A - 0 a\\nD - 0 f"]);
}
