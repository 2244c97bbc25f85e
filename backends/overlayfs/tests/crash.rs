//! Crashes and faults: the n-th call to a layer is the last one that is done, or fails.
//!
//! After each the overlay is built anew on what is left. Every path must then be wholly as before
//! the change or wholly as after it, and nothing may be left in the staging directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{
    Context, DynFileSystem, Errno, Intercept, Intercepted, Op, OpKind, RenameFlags, Result,
};
use stratafs_overlayfs::OverlayFs;
use support::tree::{Change, Tree, apply, tree};
use support::{mem, on};

/// Fails calls from the `first` on that changes something: all of them, or only that one.
struct Faulty {
    calls: AtomicU64,
    first: AtomicU64,
    errno: Errno,
    once: bool,
}

impl Faulty {
    fn new(errno: Errno, once: bool) -> Self {
        Self { calls: AtomicU64::new(0), first: AtomicU64::new(u64::MAX), errno, once }
    }

    /// From now on the call of this number is the first to fail.
    fn arm(&self, first: u64) {
        self.calls.store(0, Ordering::SeqCst);
        self.first.store(first, Ordering::SeqCst);
    }

    fn has_failed(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.first.load(Ordering::SeqCst)
    }
}

/// What changes nothing need not be counted for a crash; a fault may hit it as well.
fn changes(kind: OpKind) -> bool {
    !matches!(
        kind,
        OpKind::Lookup
            | OpKind::Getattr
            | OpKind::Readlink
            | OpKind::Open
            | OpKind::Read
            | OpKind::Release
            | OpKind::Opendir
            | OpKind::Readdir
            | OpKind::Releasedir
            | OpKind::Getxattr
            | OpKind::Listxattr
            | OpKind::Lseek
            | OpKind::Statfs
    )
}

impl Intercept for Faulty {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if matches!(op.kind(), OpKind::Release | OpKind::Releasedir) {
            return Ok(());
        }
        if !self.once && !changes(op.kind()) {
            return Ok(());
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let first = self.first.load(Ordering::SeqCst);
        let fails = if self.once { call == first } else { call >= first };
        if fails { Err(self.errno) } else { Ok(()) }
    }
}

/// Two read-only layers with all that the changes below work on.
fn lowers() -> Vec<Arc<dyn DynFileSystem>> {
    let base = mem();
    on(&base, |w| {
        for dir in ["d", "d/sub", "e", "gone", "empty", "deep", "deep/er"] {
            w.mkdir(dir, 0o755).unwrap();
        }
        for file in ["f", "g", "d/x", "d/y", "d/sub/z", "gone/old", "deep/er/f"] {
            w.file(file, file.as_bytes()).unwrap();
        }
        w.symlink("f", "link").unwrap();
        for (first, others) in [("h", ["h2", "d/h3"]), ("i", ["i2", "deep/i3"])] {
            w.file(first, first.as_bytes()).unwrap();
            others.iter().for_each(|other| w.link(first, other).unwrap());
        }
    });
    let app = mem();
    on(&app, |w| {
        w.mkdir("d", 0o700).unwrap();
        w.file("d/x", b"from app").unwrap();
        w.mkdir("e", 0o755).unwrap();
        w.file("e/only", b"here").unwrap();
    });
    vec![base, app]
}

/// What was done before the change under test: whiteouts, an opaque directory, copies, new files.
fn earlier() -> Vec<Change> {
    let path = |text: &str| text.to_owned();
    vec![
        Change::Write(path("new"), 1),
        Change::Mkdir(path("fresh")),
        Change::Write(path("fresh/n"), 2),
        Change::Unlink(path("gone/old")),
        Change::Rmdir(path("gone")),
        Change::Unlink(path("g")),
        Change::Chmod(path("d/y"), 0o600),
        Change::Append(path("i"), 5),
        Change::Chmod(path("deep/er/f"), 0o640),
        Change::Chmod(path("d/sub/z"), 0o640),
        Change::Unlink(path("i2")),
    ]
}

/// Single changes of every kind and in every combination of layers that differs.
fn singles() -> Vec<Change> {
    let path = |text: &str| text.to_owned();
    let rename = |a: &str, b: &str| Change::Rename(path(a), path(b), RenameFlags::empty());
    let swap = |a: &str, b: &str| Change::Rename(path(a), path(b), RenameFlags::EXCHANGE);
    vec![
        Change::Write(path("f"), 9),
        Change::CutOpen(path("f")),
        Change::Truncate(path("deep/er/f"), 3),
        Change::CutOpen(path("deep/er/f")),
        Change::Append(path("deep/er/f"), 3),
        Change::Link(path("deep/er/f"), path("g")),
        rename("deep/er/f", "deep/er/g"),
        rename("d/sub/z", "h2"),
        Change::Chmod(path("d/sub"), 0o700),
        Change::Chown(path("link"), 5),
        Change::Setxattr(path("d/sub/z"), 7),
        Change::Write(path("g"), 3),
        Change::Write(path("d/new"), 3),
        Change::Mkdir(path("gone")),
        Change::Mkdir(path("g")),
        Change::Mkdir(path("other")),
        Change::Symlink(path("g")),
        Change::Socket(path("g")),
        Change::Link(path("f"), path("g")),
        Change::Link(path("f"), path("deep/f")),
        Change::Unlink(path("f")),
        Change::Unlink(path("new")),
        Change::Unlink(path("d/y")),
        Change::Unlink(path("d/x")),
        Change::Rmdir(path("empty")),
        Change::Write(path("h"), 9),
        Change::Append(path("deep/i3"), 9),
        Change::Chmod(path("h2"), 0o600),
        Change::Unlink(path("d/h3")),
        Change::Unlink(path("i")),
        Change::Unlink(path("deep/i3")),
        Change::Link(path("h"), path("g")),
        Change::Link(path("deep/i3"), path("deep/i4")),
        rename("h", "g"),
        rename("deep/i3", "f"),
        rename("new", "i"),
        rename("f", "h2"),
        rename("i", "h"),
        swap("h", "i"),
        swap("d", "h2"),
        rename("f", "g"),
        rename("f", "new"),
        rename("f", "d/x"),
        rename("new", "f"),
        rename("new", "g"),
        rename("new", "d/moved"),
        rename("d", "moved"),
        rename("d", "empty"),
        rename("d", "gone"),
        rename("e", "deep/e"),
        rename("d/sub", "gone"),
        rename("fresh", "empty"),
        rename("fresh", "gone"),
        rename("fresh", "d/sub2"),
        swap("f", "new"),
        swap("d", "e"),
        swap("d", "fresh"),
        swap("f", "d"),
    ]
}

/// An overlay on `lowers` and `scratch`.
fn build(
    lowers: &[Arc<dyn DynFileSystem>],
    scratch: Arc<dyn DynFileSystem>,
    metacopy: bool,
) -> Arc<dyn DynFileSystem> {
    let builder = OverlayFs::builder();
    let builder = lowers.iter().fold(builder, |builder, lower| builder.layer(Arc::clone(lower)));
    Arc::new(builder.writable(scratch).metacopy(metacopy).build().unwrap())
}

/// The overlay's state before a change, with a layer that can be made to fail.
struct Case {
    lowers: Vec<Arc<dyn DynFileSystem>>,
    scratch: Arc<dyn DynFileSystem>,
    faulty: Arc<Faulty>,
    fs: Arc<dyn DynFileSystem>,
    metacopy: bool,
}

impl Case {
    fn new(before: &[Change], (errno, once): (Errno, bool), metacopy: bool) -> Self {
        let (lowers, scratch) = (lowers(), mem());
        let failing = Intercepted::new(Arc::clone(&scratch), Faulty::new(errno, once));
        let faulty = Arc::clone(failing.intercept());
        let fs = build(&lowers, Arc::new(failing), metacopy);
        for change in before {
            apply(&fs, change).unwrap();
        }
        Self { lowers, scratch, faulty, fs, metacopy }
    }

    /// What a new overlay shows on what is left.
    fn reopened(self) -> Tree {
        drop(self.fs);
        let fs = build(&self.lowers, Arc::clone(&self.scratch), self.metacopy);
        let seen = tree(&fs);
        on(&self.scratch, |w| {
            assert_eq!(w.names("work/work").unwrap(), Vec::<String>::new(), "staging is clean");
        });
        seen
    }
}

/// What is seen after `changes` when nothing fails.
fn undisturbed(changes: &[Change], metacopy: bool) -> Tree {
    Case::new(changes, (Errno::EIO, false), metacopy).reopened()
}

/// Steps that a change may leave between its two outcomes: a write is two, for the file is made or
/// cut first and filled then, each of which a client asks for.
fn between(change: &Change, before: &[Change], metacopy: bool) -> Vec<Tree> {
    let with = |change: Change| undisturbed(&[before, &[change]].concat(), metacopy);
    let shorter = |mut tree: Tree, path: &str| {
        if let Some(file) = tree.get_mut(path) {
            file.content.truncate(file.content.len().saturating_sub(3));
        }
        tree
    };
    match change {
        Change::Write(path, _) => vec![
            shorter(with(Change::Append(path.clone(), 0)), path),
            shorter(undisturbed(before, metacopy), path),
        ],
        Change::CutOpen(path) if undisturbed(before, metacopy).contains_key(path) => {
            vec![with(Change::Truncate(path.clone(), 0))]
        }
        // There is no such file, so it is made.
        Change::CutOpen(path) => vec![shorter(with(change.clone()), path)],
        Change::Append(path, _) if !undisturbed(before, metacopy).contains_key(path) => {
            vec![shorter(with(change.clone()), path)]
        }
        _ => Vec::new(),
    }
}

fn check(change: &Change, n: u64, seen: &Tree, outcomes: &[Tree]) {
    if outcomes.contains(seen) {
        return;
    }
    let (old, new) = (&outcomes[0], &outcomes[1]);
    let mut wrong = Vec::new();
    for path in seen.keys().chain(old.keys()).chain(new.keys()) {
        let (is, was, will) = (seen.get(path), old.get(path), new.get(path));
        if is != was || is != will {
            wrong.push(format!("{path:?} is {is:?}, was {was:?}, would be {will:?}"));
        }
    }
    wrong.dedup();
    panic!("{change:?}, call {n}: neither before nor after:\n{}", wrong.join("\n"));
}

#[test]
fn crash_at_any_call_leaves_every_path_as_before_or_as_after() {
    crash_at_any_call(false);
}

#[test]
fn crash_at_any_call_with_metacopy_leaves_every_path_as_before_or_as_after() {
    crash_at_any_call(true);
}

fn crash_at_any_call(metacopy: bool) {
    let before = earlier();
    for change in singles() {
        crash_at_any_call_of(&change, &before, metacopy);
    }
}

fn crash_at_any_call_of(change: &Change, before: &[Change], metacopy: bool) {
    let mut outcomes = vec![
        undisturbed(before, metacopy),
        undisturbed(&[before, std::slice::from_ref(change)].concat(), metacopy),
    ];
    outcomes.extend(between(change, before, metacopy));
    for n in 0.. {
        let case = Case::new(before, (Errno::EIO, false), metacopy);
        case.faulty.arm(n);
        let _ = apply(&case.fs, change);
        let has_failed = case.faulty.has_failed();
        check(change, n, &case.reopened(), &outcomes);
        if !has_failed {
            // A rename of one name of a file to another changes nothing.
            assert!(n > 0 || outcomes[0] == outcomes[1], "{change:?} makes no call");
            break;
        }
    }
}

/// Every change on what another has left, where both can be made; `STRATAFS_CRASH_PAIRS=all` tries
/// every pair, and otherwise each change has two partners.
#[test]
fn crash_at_any_call_after_another_change_leaves_every_path_as_before_or_as_after() {
    let all = std::env::var("STRATAFS_CRASH_PAIRS").is_ok_and(|which| which == "all");
    let (changes, mut pairs) = (singles(), 0);
    for (i, first) in changes.iter().enumerate() {
        let before = [&earlier()[..], std::slice::from_ref(first)].concat();
        for (j, second) in changes.iter().enumerate() {
            if !all && ![11, 29].contains(&((i + j) % changes.len())) {
                continue;
            }
            let case = Case::new(&before, (Errno::EIO, false), false);
            if apply(&case.fs, second).is_ok() {
                crash_at_any_call_of(second, &before, false);
                pairs += 1;
            }
        }
    }
    assert!(pairs > changes.len() / 2, "only {pairs} pairs can be made");
}

#[test]
fn fault_of_any_call_leaves_every_path_as_before_or_as_after_and_what_is_shown_is_there() {
    fault_of_any_call(false);
}

#[test]
fn fault_of_any_call_with_metacopy_leaves_every_path_as_before_or_as_after() {
    fault_of_any_call(true);
}

fn fault_of_any_call(metacopy: bool) {
    let before = earlier();
    for change in singles() {
        let mut outcomes = vec![
            undisturbed(&before, metacopy),
            undisturbed(&[&before[..], std::slice::from_ref(&change)].concat(), metacopy),
        ];
        outcomes.extend(between(&change, &before, metacopy));
        for (n, errno) in
            (0..).zip([Errno::ENOSPC, Errno::EIO, Errno::EDQUOT, Errno::EMFILE].iter().cycle())
        {
            let case = Case::new(&before, (*errno, true), metacopy);
            case.faulty.arm(n);
            let answer = apply(&case.fs, &change);
            let has_failed = case.faulty.has_failed();
            case.faulty.arm(u64::MAX);
            let live = tree(&case.fs);
            check(&change, n, &live, &outcomes);
            if answer.is_ok() {
                assert_eq!(live, outcomes[1], "{change:?}, call {n}: answered that it is done");
            }
            assert_eq!(case.reopened(), live, "{change:?}, call {n}: after a rebuild");
            if !has_failed {
                assert_eq!(answer, Ok(()), "{change:?}");
                break;
            }
        }
    }
}
