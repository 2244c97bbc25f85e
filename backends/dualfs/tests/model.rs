//! Random changes of two random filesystems under one tree, which is built anew after every step,
//! against one plain filesystem that holds what both show together.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, FileType, Result, XattrMode};
use stratafs_dualfs::DispatchPolicy;
use support::sides::{Sides, of_both};
use support::tree::{Random, XATTR, agree, apply, tree};
use support::{mem, on};

/// Seeds that are tried; `STRATAFS_MODEL_LISTS` may say more.
fn seeds() -> u64 {
    let more = std::env::var("STRATAFS_MODEL_LISTS").ok().and_then(|text| text.parse().ok());
    more.unwrap_or(40)
}

/// A filesystem that was changed at random.
fn random_side(random: &mut Random, changes: usize) -> Arc<dyn DynFileSystem> {
    let fs = mem();
    for _ in 0..changes {
        let _ = apply(&fs, &random.change());
    }
    fs
}

/// A plain filesystem that holds what `shown` shows, hard links too.
fn plain(shown: &Arc<dyn DynFileSystem>) -> Arc<dyn DynFileSystem> {
    let (fs, all) = (mem(), tree(shown));
    let numbers =
        on(shown, |w| -> Vec<u64> { all.keys().map(|path| w.stat(path).unwrap().ino).collect() });
    let mut first = HashMap::new();
    on(&fs, |w| {
        for ((path, seen), ino) in all.iter().zip(numbers) {
            if let Some(other) = first.insert(ino, path) {
                w.link(other, path).unwrap();
                continue;
            }
            let kind = FileType::from_mode(seen.mode).unwrap();
            match kind {
                _ if path.is_empty() => {}
                FileType::Directory => w.mkdir(path, 0o700).unwrap(),
                FileType::Regular => w.file(path, &seen.content).unwrap(),
                FileType::Symlink => {
                    let target = std::str::from_utf8(&seen.content).unwrap();
                    w.symlink(target, path).unwrap();
                }
                _ => w.mknod(path, seen.mode, 0).unwrap(),
            }
            w.chown(path, Some(seen.owner.0), Some(seen.owner.1)).unwrap();
            if kind != FileType::Symlink {
                w.chmod(path, seen.mode & 0o7777).unwrap();
            }
            if let Some(value) = &seen.xattr {
                w.setxattr(path, XATTR.as_bytes(), value, XattrMode::Set).unwrap();
            }
        }
    });
    fs
}

/// What both sides of a seed show, and a plain filesystem that holds the same. None if a name that a
/// file has on B is hidden by another object on A, for then the file shows fewer names than it has.
fn start(sides: &Sides, policy: &Arc<dyn DispatchPolicy>) -> Option<[Arc<dyn DynFileSystem>; 2]> {
    let fs = sides.build(policy);
    let model = plain(&fs);
    (tree(&fs) == tree(&model)).then_some([fs, model])
}

/// Whether an answer is one that a plain filesystem need not give: a rename that the policy leaves to
/// mv(1), or a change that a directory is in the way of which the policy hides.
fn is_policys(policy: &dyn DispatchPolicy, got: Result<()>) -> bool {
    match got {
        Err(Errno::EXDEV) => policy.name() == "backend-a-fallback-to-backend-b-read",
        Err(Errno::EEXIST) => policy.name() == "read-backend-b-write-backend-a",
        _ => false,
    }
}

/// Both sides, at random. What both have is the same on A and on B in half of the cases.
fn random_sides(random: &mut Random) -> Sides {
    let changes = random.below(3) * 6;
    let a = random_side(random, changes);
    Sides { a, b: random_side(random, 20) }
}

#[test]
fn random_changes_with_a_rebuild_after_each_agree_with_a_plain_filesystem() {
    let mut tried = 0;
    for policy in of_both() {
        for seed in 0..seeds() {
            let mut random = Random::new(seed);
            let sides = random_sides(&mut random);
            let before = tree(&sides.b);
            let Some([mut fs, model]) = start(&sides, &policy) else { continue };
            tried += 1;
            let mut done = Vec::new();
            let at = |done: &Vec<_>| format!("{} seed {seed} after {done:?}", policy.name());
            for _ in 0..25 {
                let change = random.change();
                done.push(change.clone());
                let got = apply(&fs, &change);
                if !is_policys(&*policy, got) {
                    let want = apply(&model, &change);
                    assert!(agree(got, want), "{got:?} for {want:?}: {}", at(&done));
                }
                assert_eq!(tree(&fs), tree(&model), "before a rebuild: {}", at(&done));
                drop(fs);
                fs = sides.build(&policy);
                assert_eq!(tree(&fs), tree(&model), "after a rebuild: {}", at(&done));
            }
            drop(fs);
            assert_eq!(tree(&sides.b), before, "B was changed: {}", at(&done));
        }
    }
    assert!(tried > 2 * seeds(), "{tried} of {}", 3 * seeds());
}

#[test]
fn random_changes_of_one_tree_agree_with_a_plain_filesystem() {
    let mut tried = 0;
    for policy in of_both() {
        for seed in 1000..1000 + seeds() {
            let mut random = Random::new(seed);
            let sides = random_sides(&mut random);
            let Some([fs, model]) = start(&sides, &policy) else { continue };
            tried += 1;
            let mut done = Vec::new();
            for _ in 0..60 {
                let change = random.change();
                done.push(change.clone());
                let got = apply(&fs, &change);
                if !is_policys(&*policy, got) {
                    let want = apply(&model, &change);
                    let at = format!("{} seed {seed} after {done:?}", policy.name());
                    assert!(agree(got, want), "{got:?} for {want:?}: {at}");
                }
                let at = || format!("{} seed {seed} after {done:?}", policy.name());
                assert_eq!(tree(&fs), tree(&model), "{}", at());
            }
            let left = tree(&fs);
            drop(fs);
            let again = tree(&sides.build(&policy));
            assert_eq!(again, left, "after a rebuild: {} seed {seed}: {done:?}", policy.name());
        }
    }
    assert!(tried > 2 * seeds(), "{tried} of {}", 3 * seeds());
}
