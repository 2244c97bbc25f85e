//! Random changes, on ours, on the kernel's and on both in turns.

use stratafs_core::FileType;

use crate::host::{FLAVOURS, Flavour, Host, assert_same};
use crate::support::on;
use crate::support::tree::{
    Change, Random, Tree, agree, apply, apply_to, numbers_of, tree, tree_of,
};

/// Whether `change` is about a symlink of `tree`.
fn is_symlink(tree: &Tree, change: &Change) -> bool {
    let link = FileType::Symlink.mode_bits();
    change.paths().iter().any(|path| {
        tree.get(*path).is_some_and(|seen| seen.mode & stratafs_core::attr::S_IFMT == link)
    })
}

/// How many seeds are tried; `STRATAFS_MODEL_LISTS` may say more.
fn seeds() -> u64 {
    let more = std::env::var("STRATAFS_MODEL_LISTS").ok().and_then(|text| text.parse().ok());
    more.unwrap_or(4)
}

/// Every flavour with several seeds.
fn cases() -> impl Iterator<Item = (u64, Flavour)> {
    (0..seeds()).flat_map(|seed| FLAVOURS.map(|flavour| (seed, flavour)))
}

#[test]
fn kernel_shows_what_our_overlay_left() {
    for (seed, flavour) in cases() {
        let Some(host) = Host::new(seed, flavour) else { return };
        let fs = host.ours();
        let mut random = Random::new(seed + 100);
        let changes: Vec<Change> = (0..40).map(|_| random.change()).collect();
        for change in &changes {
            let _ = apply(&fs, change);
        }
        let (ours, numbers) = (tree(&fs), on(&fs, numbers_of));
        drop(fs);
        let (theirs, their_numbers) = host.kernel(|w| (tree_of(w), numbers_of(w)));
        assert_same(&ours, &theirs, &format!("{flavour:?}, seed {seed} after {changes:?}"));
        assert_same(&numbers, &their_numbers, &format!("{flavour:?}, seed {seed}: numbers"));
    }
}

#[test]
fn our_overlay_shows_what_the_kernel_left() {
    for (seed, flavour) in cases() {
        let Some(host) = Host::new(seed, flavour) else { return };
        let mut random = Random::new(seed + 200);
        let changes: Vec<Change> = (0..40).map(|_| random.change()).collect();
        let theirs = host.kernel(|w| {
            for change in &changes {
                let _ = apply_to(w, change);
            }
            tree_of(w)
        });
        // Of a later mount: what can bear no record has another then.
        let their_numbers = host.kernel(numbers_of);
        let fs = host.ours();
        assert_same(&tree(&fs), &theirs, &format!("{flavour:?}, seed {seed} after {changes:?}"));
        let numbers = on(&fs, numbers_of);
        assert_same(&numbers, &their_numbers, &format!("{flavour:?}, seed {seed}: numbers"));
    }
}

#[test]
fn same_changes_on_ours_and_the_kernel_s_come_to_the_same() {
    for (seed, flavour) in cases() {
        let (Some(host), Some(other)) = (Host::new(seed, flavour), Host::new(seed, flavour)) else {
            return;
        };
        let fs = host.ours();
        let mut random = Random::new(seed + 300);
        let mut done = Vec::new();
        let theirs = other.kernel(|w| {
            for _ in 0..60 {
                let change = random.change();
                done.push(change.clone());
                // Which error it is that a symlink gets is the client's affair.
                let through_link = is_symlink(&tree(&fs), &change);
                let (ours, theirs) = (apply(&fs, &change), apply_to(w, &change));
                let both_fail = ours.is_err() && theirs.is_err();
                let what = format!("{flavour:?}, seed {seed}, after {done:?}");
                assert!(
                    agree(ours, theirs) || (through_link && both_fail),
                    "ours {ours:?}, the kernel's {theirs:?}: {what}"
                );
                assert_same(&tree(&fs), &tree_of(w), &what);
            }
            tree_of(w)
        });
        assert_same(&tree(&fs), &theirs, &format!("{flavour:?}, seed {seed}"));
    }
}

#[test]
fn both_in_turns_on_one_writable_layer_agree_with_each_other() {
    for (seed, flavour) in cases() {
        let Some(host) = Host::new(seed, flavour) else { return };
        let mut random = Random::new(seed + 400);
        for turn in 0..4 {
            let changes: Vec<Change> = (0..10).map(|_| random.change()).collect();
            let what = format!("{flavour:?}, seed {seed}, turn {turn}, after {changes:?}");
            if turn % 2 == 0 {
                let fs = host.ours();
                for change in &changes {
                    let _ = apply(&fs, change);
                }
                let ours = tree(&fs);
                drop(fs);
                assert_same(&ours, &host.kernel(tree_of), &what);
            } else {
                let theirs = host.kernel(|w| {
                    for change in &changes {
                        let _ = apply_to(w, change);
                    }
                    tree_of(w)
                });
                assert_same(&tree(&host.ours()), &theirs, &what);
            }
        }
    }
}
