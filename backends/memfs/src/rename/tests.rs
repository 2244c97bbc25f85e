//! The tests of the parent module.

use stratafs_core::DynFileSystem;

use super::*;
use crate::test_util::{Fixture, ROOT, name, root};
use crate::{ByteSize, SizeExt};

const NONE: RenameFlags = RenameFlags::empty();
const NOREPLACE: RenameFlags = RenameFlags::NOREPLACE;
const EXCHANGE: RenameFlags = RenameFlags::EXCHANGE;
const WHITEOUT: RenameFlags = RenameFlags::WHITEOUT;

/// `a/` and `b/` in the root, `a/f` and `b/g` files, `a/d/` and `b/e/` empty directories.
struct Tree {
    fx: Fixture,
    a: NodeId,
    b: NodeId,
    f: NodeId,
    d: NodeId,
    e: NodeId,
}

fn tree() -> Tree {
    let fx = Fixture::new();
    let (a, b) = (fx.mkdir(ROOT, "a"), fx.mkdir(ROOT, "b"));
    let (f, _) = (fx.file(a, "f"), fx.file(b, "g"));
    let (d, e) = (fx.mkdir(a, "d"), fx.mkdir(b, "e"));
    Tree { fx, a, b, f, d, e }
}

#[test]
fn rename_refuses_what_the_kernel_refuses_and_changes_nothing() {
    let Tree { fx, a, b, d, .. } = tree();
    fx.file(d, "inner");
    let before = (fx.usage(), fx.attr(a), fx.attr(b), fx.list(a, 0, 9), fx.list(b, 0, 9));
    for (from, to, flags, errno) in [
        ((a, "x"), (b, "y"), NONE, Errno::ENOENT),
        ((a, "x"), (a, "x"), NONE, Errno::ENOENT),
        ((a, "f"), (b, "g"), NOREPLACE, Errno::EEXIST),
        ((a, "f"), (a, "f"), NOREPLACE, Errno::EEXIST),
        ((a, "f"), (b, "x"), EXCHANGE, Errno::ENOENT),
        ((a, "f"), (b, "e"), NONE, Errno::EISDIR),
        ((b, "e"), (a, "f"), NONE, Errno::ENOTDIR),
        ((b, "e"), (a, "d"), NONE, Errno::ENOTEMPTY),
        ((ROOT, "a"), (d, "x"), NONE, Errno::EINVAL),
        ((ROOT, "a"), (a, "x"), NONE, Errno::EINVAL),
        ((ROOT, "a"), (d, "inner"), EXCHANGE, Errno::EINVAL),
        ((d, "inner"), (ROOT, "a"), EXCHANGE, Errno::EINVAL),
        ((d, "inner"), (ROOT, "a"), NONE, Errno::ENOTEMPTY),
        ((a, "d"), (ROOT, "a"), NONE, Errno::ENOTEMPTY),
        ((a, "f"), (b, "g"), EXCHANGE.union(NOREPLACE), Errno::EINVAL),
        ((a, "f"), (b, "g"), EXCHANGE.union(WHITEOUT), Errno::EINVAL),
        ((a, "f"), (b, "g"), RenameFlags::from_bits_retain(8), Errno::EINVAL),
        ((NodeId(999), "f"), (b, "g"), NONE, Errno::ESTALE),
    ] {
        assert_eq!(fx.rename(from, to, flags), Err(errno), "{from:?} {to:?} {flags:?}");
    }
    let after = (fx.usage(), fx.attr(a), fx.attr(b), fx.list(a, 0, 9), fx.list(b, 0, 9));
    assert_eq!(after, before);
}

#[test]
fn rename_moves_a_file_and_sets_times() {
    let Tree { fx, a, b, f, .. } = tree();
    let used = fx.usage().bytes;
    let now = fx.tick();
    fx.rename((a, "f"), (b, "h"), NONE).unwrap();
    assert_eq!(fx.find(b, "h").unwrap().node, f);
    assert_eq!(fx.find(a, "f").unwrap_err(), Errno::ENOENT);
    assert_eq!((fx.attr(a).mtime, fx.attr(b).mtime, fx.attr(f).ctime), (now, now, now));
    assert_eq!(fx.usage().bytes, used);
}

#[test]
fn rename_of_a_directory_moves_its_dotdot_and_counts() {
    let Tree { fx, a, b, d, .. } = tree();
    fx.rename((a, "d"), (b, "d2"), NONE).unwrap();
    assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink), (2, 4));
    assert_eq!(fx.fs.node(d).unwrap().parent(), b.0);
    fx.rename((ROOT, "a"), (d, "a"), NONE).unwrap();
    assert_eq!(fx.rename((b, "d2"), (a, "x"), NONE), Err(Errno::EINVAL));
    assert_eq!(fx.attr(ROOT).nlink, 3);
}

#[test]
fn rename_over_a_file_removes_it_but_its_handle_stays() {
    let Tree { fx, a, b, f, .. } = tree();
    let g = fx.find(b, "g").unwrap().node;
    fx.write(g, 0, b"old").unwrap();
    let used = fx.usage().bytes;
    let now = fx.tick();
    fx.rename((a, "f"), (b, "g"), NONE).unwrap();
    assert_eq!(fx.find(b, "g").unwrap().node, f);
    assert_eq!((fx.attr(g).nlink, fx.attr(g).ctime), (0, now));
    assert_eq!(fx.read(g, 0, 9).unwrap(), b"old");
    fx.forget(g);
    assert!(fx.usage().bytes < used);
}

#[test]
fn rename_over_an_empty_directory_removes_it() {
    let Tree { fx, a, b, d, e, .. } = tree();
    fx.rename((a, "d"), (b, "e"), NONE).unwrap();
    assert_eq!(fx.find(b, "e").unwrap().node, d);
    assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink, fx.attr(e).nlink), (2, 3, 0));
    let made = fx.fs.mkdir(&root(), e, name("x"), 0);
    assert_eq!(made.unwrap_err(), Errno::ENOENT);
}

#[test]
fn rename_between_two_names_of_one_file_does_nothing() {
    let Tree { fx, a, b, f, .. } = tree();
    fx.fs.link(&root(), f, b, name("link")).unwrap();
    let before = (fx.usage(), fx.attr(f), fx.attr(a), fx.attr(b));
    fx.tick();
    for flags in [NONE, EXCHANGE, WHITEOUT] {
        fx.rename((a, "f"), (b, "link"), flags).unwrap();
        fx.rename((a, "f"), (a, "f"), flags).unwrap();
    }
    assert_eq!((fx.usage(), fx.attr(f), fx.attr(a), fx.attr(b)), before);
}

#[test]
fn rename_with_exchange_swaps_a_file_and_a_directory() {
    let Tree { fx, a, b, f, e, .. } = tree();
    let used = fx.usage();
    let now = fx.tick();
    fx.rename((a, "f"), (b, "e"), EXCHANGE).unwrap();
    assert_eq!(fx.find(a, "f").unwrap().node, e);
    assert_eq!(fx.find(b, "e").unwrap().node, f);
    assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink), (4, 2));
    assert_eq!(fx.fs.node(e).unwrap().parent(), a.0);
    assert_eq!((fx.attr(e).ctime, fx.attr(f).ctime, fx.attr(a).mtime), (now, now, now));
    assert_eq!(fx.usage().bytes, used.bytes);
    fx.rename((a, "f"), (b, "e"), EXCHANGE).unwrap();
    fx.rename((a, "f"), (a, "d"), EXCHANGE).unwrap();
    assert_eq!(fx.find(a, "d").unwrap().node, f);
}

#[test]
fn rename_with_whiteout_leaves_a_device_under_the_old_name() {
    let Tree { fx, a, b, f, .. } = tree();
    let used = fx.usage();
    fx.rename((a, "f"), (b, "h"), WHITEOUT).unwrap();
    assert_eq!(fx.find(b, "h").unwrap().node, f);
    let whiteout = fx.find(a, "f").unwrap();
    assert_eq!((whiteout.attr.mode, whiteout.attr.rdev), (0o020_000, 0));
    fx.fs.forget(whiteout.node, 1);
    assert_eq!(fx.usage().inodes, used.inodes + 1);
    fx.unlink(a, "f").unwrap();
    fx.rename((b, "h"), (a, "f"), NONE).unwrap();
    fx.fs.forget(f, 1);
    assert_eq!(fx.usage(), used);
    fx.rename((a, "f"), (a, "f2"), WHITEOUT | NOREPLACE).unwrap();
    assert_eq!(fx.find(a, "f").unwrap().attr.mode, 0o020_000);
}

#[test]
fn rename_in_a_full_filesystem_works_for_a_name_no_longer() {
    let fx = Fixture::with(|b| b.capacity(8.kib()));
    fx.mkdir(ROOT, "d");
    fx.file(ROOT, "old name of 24 bytes ok!");
    let file = fx.file(ROOT, "fill");
    let mut at = 0;
    while fx.write(file, at, b"x").is_ok() {
        at += 4096;
    }
    let d = fx.find(ROOT, "d").unwrap().node;
    let long = "n".repeat(255);
    let old = (ROOT, "old name of 24 bytes ok!");
    assert_eq!(fx.rename(old, (d, &long), NONE), Err(Errno::ENOSPC));
    assert_eq!(fx.rename(old, (d, "x"), WHITEOUT), Err(Errno::ENOSPC));
    fx.rename(old, (d, "new name of 24 bytes ok!"), NONE).unwrap();
    assert!(ByteSize(fx.usage().bytes) <= 8.kib());
}

#[test]
fn renames_against_each_other_and_the_tree_do_not_deadlock() {
    let Tree { fx, a, b, d, e, .. } = tree();
    let dirs = [(ROOT, "a"), (ROOT, "b"), (a, "d"), (b, "e"), (d, "x"), (e, "x")];
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let fx = &fx;
            scope.spawn(move || {
                let mut seed = thread as u64 + 1;
                for _ in 0..20_000 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    let pick = |shift: u32| dirs[(seed >> shift) as usize % dirs.len()];
                    let (from, to) = (pick(33), pick(43));
                    let _ = match (seed >> 53) % 6 {
                        0 => fx.rmdir(from.0, from.1),
                        1 => fx.fs.mkdir(&root(), from.0, name(from.1), 0o755).map(drop),
                        2 => fx.rename(from, to, EXCHANGE),
                        3 => fx.find(from.0, from.1).map(drop),
                        _ => fx.rename(from, to, NONE),
                    };
                }
            });
        }
    });
    // Whatever happened, counts and parents agree with the entries.
    let mut nodes = Vec::new();
    fx.fs.nodes.each(|node| nodes.push(Arc::clone(node)));
    for dir in nodes {
        let inode = dir.read_dir();
        let Ok(entries) = inode.dir() else { continue };
        let below: Vec<_> = entries.after(0).filter(|(_, node)| node.is_dir()).collect();
        if inode.nlink != 0 {
            assert_eq!(inode.nlink as usize, 2 + below.len());
        }
        for (_, node) in below {
            assert_eq!(node.parent(), dir.ino);
        }
    }
}
