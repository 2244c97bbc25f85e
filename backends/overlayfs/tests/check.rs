//! What a check finds, one test for each problem, and what a repair makes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, FileType, XattrMode};
use stratafs_overlayfs::{Finding, OverlayFs, Problem, Repair};
use stratafs_testkit::World;
use support::layers::{Layers, layer};
use support::on;
use support::tree::{Tree, tree};

/// Two layers, and a writable one that was used a little.
fn used() -> Layers {
    let base = layer(|w| {
        for dir in ["d", "d/sub", "other", "gone"] {
            w.mkdir(dir, 0o755).unwrap();
        }
        w.file("d/f", b"data").unwrap();
        w.file("other/g", b"data").unwrap();
        w.file("h", b"both").unwrap();
        w.link("h", "h2").unwrap();
    });
    let layers = Layers::new([base, layer(|w| w.mkdir("d", 0o700).unwrap())]);
    on(&layers.build(), |w| {
        w.chmod("d/f", 0o600).unwrap();
        w.chmod("h", 0o600).unwrap();
        w.rmdir("gone").unwrap();
        w.mkdir("gone", 0o755).unwrap();
        w.rename("other", "moved").unwrap();
        w.mkdir("new", 0o755).unwrap();
        w.rename("d/f", "new/f").unwrap();
    });
    layers
}

fn inspect(layers: &Layers) -> OverlayFs {
    layers.builder().inspect().unwrap()
}

fn check(layers: &Layers, repair: Repair) -> Vec<Finding> {
    let mut found = Vec::new();
    inspect(layers).check(repair, |finding| found.push(finding.clone())).unwrap();
    found
}

fn lines(found: &[Finding]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

/// `break_it` is found as `line`, which a check only tells; a repair mends it and what shows stays.
#[track_caller]
fn found_and_mended(break_it: impl FnOnce(&World<'_>), line: &str) {
    let before = |layers: &Layers| {
        let fs: Arc<dyn DynFileSystem> = Arc::new(inspect(layers));
        tree(&fs)
    };
    found_and_mended_to(break_it, line, before);
}

/// As [`found_and_mended`], where what is broken shows as something else than what is mended.
#[track_caller]
fn found_and_mended_to(
    break_it: impl FnOnce(&World<'_>),
    line: &str,
    expected: impl FnOnce(&Layers) -> Tree,
) {
    let layers = used();
    on(&layers.scratch, break_it);
    let shown = || {
        let fs: Arc<dyn DynFileSystem> = Arc::new(inspect(&layers));
        tree(&fs)
    };
    assert_eq!(lines(&check(&layers, Repair::No)), [line]);
    let before = expected(&layers);
    assert_eq!(lines(&check(&layers, Repair::Yes)), [format!("{line} (repaired)")]);
    assert_eq!(lines(&check(&layers, Repair::No)), [""; 0]);
    assert_eq!(shown(), before);
}

#[test]
fn check_of_what_was_used_finds_nothing() {
    assert_eq!(lines(&check(&used(), Repair::No)), [""; 0]);
}

#[test]
fn check_finds_leftovers_in_staging() {
    found_and_mended(
        |w| {
            w.mkdir("work/work/#7", 0o755).unwrap();
            w.file("work/work/#7/x", b"half").unwrap();
        },
        "leftover: work/work/#7 was left by a crash",
    );
}

#[test]
fn check_finds_redirects_that_lead_nowhere() {
    let line = "dangling-redirect: upper/new its lower parts are recorded to be where nothing is";
    let redirect = |w: &World<'_>, target: &[u8]| {
        w.setxattr("upper/new", b"trusted.overlay.redirect", target, XattrMode::Set).unwrap();
    };
    for target in [&b"/not/there"[..], b"nowhere"] {
        found_and_mended(|w| redirect(w, target), line);
    }
    // What cannot be read cannot be looked up, but listed.
    for target in [&b"a/b"[..], b"", b"/"] {
        let layers = used();
        on(&layers.scratch, |w| redirect(w, target));
        let fs: Arc<dyn DynFileSystem> = Arc::new(inspect(&layers));
        on(&fs, |w| {
            assert!(w.names("").unwrap().contains(&"new".to_owned()));
            assert_eq!(w.stat("new").unwrap_err(), Errno::EIO);
        });
        let whole: Arc<dyn DynFileSystem> = Arc::new(inspect(&used()));
        found_and_mended_to(|w| redirect(w, target), line, |_| tree(&whole));
    }
}

#[test]
fn check_finds_whiteouts_where_nothing_is_merged() {
    for dir in ["gone", "new"] {
        let whiteout = FileType::CharDevice.mode_bits();
        found_and_mended(
            |w| w.mknod(format!("upper/{dir}/w"), whiteout, 0).unwrap(),
            &format!("useless-whiteout: upper/{dir}/w is a whiteout where nothing is merged"),
        );
    }
}

#[test]
fn check_finds_origins_of_no_layer() {
    let layers = used();
    // With fewer layers below, what came from the topmost is of none.
    let fewer =
        Layers { lowers: layers.lowers[1..].to_vec(), scratch: Arc::clone(&layers.scratch) };
    let above = layer(|w| w.file("late", b"x").unwrap());
    let more = Layers {
        lowers: layers.lowers.iter().cloned().chain([above]).collect(),
        scratch: Arc::clone(&layers.scratch),
    };
    on(&more.build(), |w| w.chmod("late", 0o600).unwrap());
    let line = "missing-origin: upper/late was copied up from what is in none of the layers";
    assert_eq!(lines(&check(&layers, Repair::No)), [line]);
    assert_eq!(lines(&check(&layers, Repair::Yes)), [format!("{line} (repaired)")]);
    assert_eq!(lines(&check(&layers, Repair::No)), [""; 0]);
    on(&layers.build(), |w| assert_eq!(w.read("late").unwrap(), b"x"));
    let problems: Vec<Problem> =
        check(&fewer, Repair::No).iter().map(|finding| finding.problem).collect();
    assert!(problems.contains(&Problem::DanglingRedirect), "{problems:?}");
}

#[test]
fn check_finds_directories_that_hold_copies_and_do_not_say_so() {
    let whole: Arc<dyn DynFileSystem> = Arc::new(inspect(&used()));
    found_and_mended_to(
        |w| w.removexattr("upper/new", b"trusted.overlay.impure").unwrap(),
        "not-impure: upper/new holds what was copied up, and is not marked so",
        |_| tree(&whole),
    );
}

#[test]
fn check_finds_entries_of_the_index_for_no_object() {
    let hex = "00fb1d000107070707070707070707070707070707abababababababab";
    found_and_mended(
        |w| w.file("work/index/#3", b"").unwrap(),
        "orphaned-index: work/index/#3 is in the index for no object",
    );
    found_and_mended(
        |w| w.file("work/index/not-hex", b"").unwrap(),
        "orphaned-index: work/index/not-hex is in the index for no object",
    );
    found_and_mended(
        |w| w.file(format!("work/index/{hex}"), b"").unwrap(),
        &format!("orphaned-index: work/index/{hex} is in the index for no object"),
    );
    found_and_mended(
        |w| {
            let names = w.names("work/index").unwrap();
            let path = format!("work/index/{}", names[0]);
            w.unlink("upper/h").unwrap();
            let whiteout = FileType::CharDevice.mode_bits();
            w.mknod("upper/h", whiteout, 0).unwrap();
            w.mknod("upper/h2", whiteout, 0).unwrap();
            w.setxattr(&path, b"trusted.overlay.nlink", b"U-1", XattrMode::Set).unwrap();
            w.rename(&path, "work/index/#h").unwrap();
        },
        "orphaned-index: work/index/#h is in the index for no object",
    );
}

#[test]
fn check_finds_marks_and_missing_data_and_leaves_them() {
    let layers = used();
    on(&layers.scratch, |w| {
        w.mkdir("work/work/incompat", 0o700).unwrap();
        w.mkdir("work/work/incompat/volatile", 0o700).unwrap();
        w.setxattr("upper/new/f", b"trusted.overlay.metacopy", b"", XattrMode::Set).unwrap();
    });
    let expected = [
        "incompatible: work/work/incompat/volatile keeps the writable layer from being used",
        "missing-data: upper/new/f its data is not found in the layers below",
    ];
    assert_eq!(lines(&check(&layers, Repair::No)), expected);
    assert_eq!(lines(&check(&layers, Repair::Yes)), expected);
}

#[test]
fn inspection_changes_nothing_and_refuses_every_change() {
    let layers = used();
    on(&layers.scratch, |w| {
        w.mkdir("work/work/incompat", 0o700).unwrap();
        w.mkdir("work/work/incompat/volatile", 0o700).unwrap();
        w.file("work/work/#1", b"staged by somebody").unwrap();
    });
    let before = tree(&layers.scratch);
    let fs: Arc<dyn DynFileSystem> = Arc::new(inspect(&layers));
    on(&fs, |w| {
        assert_eq!(w.read("new/f").unwrap(), b"data");
        assert_eq!(w.stat("h2").unwrap().mode & 0o7777, 0o600, "the index is looked at too");
        for refused in [
            w.chmod("new/f", 0o644),
            w.chmod("h2", 0o644),
            w.unlink("new/f"),
            w.mkdir("x", 0o755),
            w.rename("new", "newer"),
            w.write_at("new/f", 0, b"x"),
        ] {
            assert_eq!(refused.unwrap_err(), Errno::EROFS);
        }
    });
    drop(fs);
    assert_eq!(tree(&layers.scratch), before);
    let fresh = Layers::new([support::mem()]);
    let fs: Arc<dyn DynFileSystem> = Arc::new(inspect(&fresh));
    on(&fs, |w| assert_eq!(w.names("").unwrap(), Vec::<String>::new()));
    on(&fresh.scratch, |w| assert_eq!(w.names("").unwrap(), Vec::<String>::new()));
}
