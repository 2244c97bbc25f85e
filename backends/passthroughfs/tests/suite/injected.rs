//! Each system call of each operation fails in its turn, by strace(1): what an operation says was done
//! is whole, and of what it says was not there is nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use stratafs_core::{
    Context, Credentials, DynFileSystem, Errno, Name, NodeId, OpenFlags, RenameFlags, Result,
    SetAttr, SliceSource, WriteFlags, XattrMode, XattrName,
};
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Client, InProcess, World};

use crate::support::{RECORD, set_host_xattr};

const TEST: &str = "injected::every_system_call_that_fails_leaves_each_operation_done_or_not_done";

/// The directory that the traced process works on.
const CHILD: &str = "STRATAFS_PASSTHROUGH_TEST_INJECTED";

/// The client, whose owner is not what a file without a record shows.
const UID: u32 = 7;

type Act = fn(&PassthroughFs, &Context<'_>) -> Result<()>;

/// An operation, and the names that tell whether it was done: one that is there by then, and one
/// that is not.
struct Step {
    name: &'static str,
    act: Act,
    /// What is there to begin with.
    files: &'static [&'static str],
    /// Whether it was done, by what is there in the end.
    is_done: fn(&World<'_>) -> bool,
    /// Whether nothing of it was done.
    is_undone: fn(&World<'_>) -> bool,
}

fn name(text: &'static str) -> Name<'static> {
    Name::new(text.as_bytes()).unwrap()
}

fn node(fs: &PassthroughFs, cx: &Context<'_>, wanted: &'static str) -> Result<NodeId> {
    Ok(fs.lookup(cx, NodeId::ROOT, name(wanted))?.found()?.node)
}

fn is(w: &World<'_>, path: &str, mode: u32) -> bool {
    w.stat(path).is_ok_and(|attr| (attr.mode, attr.uid) == (mode, UID))
}

fn gone(w: &World<'_>, path: &str) -> bool {
    w.stat(path) == Err(Errno::ENOENT)
}

fn holds(w: &World<'_>, path: &str, data: &str) -> bool {
    w.read(path) == Ok(data.as_bytes().to_vec())
}

const ROOT: NodeId = NodeId::ROOT;

const STEPS: [Step; 15] = [
    Step {
        name: "create",
        act: |fs, cx| {
            let flags = OpenFlags::READ_WRITE.with_exclusive();
            let (entry, opened) = fs.create(cx, ROOT, name("c"), 0o640, flags, false)?;
            fs.release(cx, entry.node, opened.handle, Default::default())
        },
        files: &[],
        is_done: |w| is(w, "c", 0o100_640),
        is_undone: |w| gone(w, "c"),
    },
    Step {
        name: "mkdir",
        act: |fs, cx| fs.mkdir(cx, ROOT, name("m"), 0o751).map(drop),
        files: &[],
        is_done: |w| is(w, "m", 0o040_751),
        is_undone: |w| gone(w, "m"),
    },
    Step {
        name: "mkfifo",
        act: |fs, cx| fs.mknod(cx, ROOT, name("p"), 0o010_640, 0).map(drop),
        files: &[],
        is_done: |w| is(w, "p", 0o010_640),
        is_undone: |w| gone(w, "p"),
    },
    Step {
        name: "mknod",
        act: |fs, cx| fs.mknod(cx, ROOT, name("n"), 0o100_640, 0).map(drop),
        files: &[],
        is_done: |w| is(w, "n", 0o100_640),
        is_undone: |w| gone(w, "n"),
    },
    Step {
        name: "symlink",
        act: |fs, cx| fs.symlink(cx, ROOT, name("l"), b"target").map(drop),
        files: &[],
        is_done: |w| is(w, "l", 0o120_777) && w.readlink("l") == Ok(b"target".to_vec()),
        is_undone: |w| gone(w, "l"),
    },
    Step {
        name: "symlink of the default owner",
        act: |fs, _| {
            let cx = Context::new(1, Some(Credentials::new(0, 0)));
            fs.symlink(&cx, ROOT, name("s"), b"target").map(drop)
        },
        files: &[],
        is_done: |w| w.readlink("s") == Ok(b"target".to_vec()),
        is_undone: |w| gone(w, "s"),
    },
    Step {
        name: "link",
        act: |fs, cx| fs.link(cx, node(fs, cx, "h1")?, ROOT, name("h2")).map(drop),
        files: &["h1"],
        is_done: |w| holds(w, "h2", "h1") && holds(w, "h1", "h1"),
        is_undone: |w| gone(w, "h2") && holds(w, "h1", "h1"),
    },
    Step {
        name: "rename",
        act: |fs, cx| fs.rename(cx, ROOT, name("r1"), ROOT, name("r2"), RenameFlags::empty()),
        files: &["r1"],
        is_done: |w| holds(w, "r2", "r1") && gone(w, "r1"),
        is_undone: |w| holds(w, "r1", "r1") && gone(w, "r2"),
    },
    Step {
        name: "rename over a file",
        act: |fs, cx| {
            node(fs, cx, "o2")?;
            fs.rename(cx, ROOT, name("o1"), ROOT, name("o2"), RenameFlags::empty())
        },
        files: &["o1", "o2"],
        is_done: |w| holds(w, "o2", "o1") && gone(w, "o1"),
        is_undone: |w| holds(w, "o1", "o1") && holds(w, "o2", "o2"),
    },
    Step {
        name: "unlink",
        act: |fs, cx| {
            node(fs, cx, "u")?;
            fs.unlink(cx, ROOT, name("u"))
        },
        files: &["u"],
        is_done: |w| gone(w, "u"),
        is_undone: |w| holds(w, "u", "u"),
    },
    Step {
        name: "chmod",
        act: |fs, cx| {
            let mut set = SetAttr::new();
            set.mode = Some(0o4711);
            fs.setattr(cx, node(fs, cx, "k1")?, &set).map(drop)
        },
        files: &["k1"],
        is_done: |w| is(w, "k1", 0o104_711),
        is_undone: |w| is(w, "k1", 0o100_644),
    },
    Step {
        name: "chown",
        act: |fs, cx| {
            let mut set = SetAttr::new();
            set.gid = Some(99);
            fs.setattr(cx, node(fs, cx, "k2")?, &set).map(drop)
        },
        files: &["k2"],
        is_done: |w| is(w, "k2", 0o100_644) && w.stat("k2").is_ok_and(|attr| attr.gid == 99),
        is_undone: |w| is(w, "k2", 0o100_644) && w.stat("k2").is_ok_and(|attr| attr.gid == 8),
    },
    Step {
        name: "truncate",
        act: |fs, cx| {
            let mut set = SetAttr::new();
            set.size = Some(1);
            fs.setattr(cx, node(fs, cx, "t1")?, &set).map(drop)
        },
        files: &["t1"],
        is_done: |w| holds(w, "t1", "t"),
        is_undone: |w| holds(w, "t1", "t1"),
    },
    Step {
        name: "setxattr",
        act: |fs, cx| {
            let x = XattrName::new(b"user.x").unwrap();
            fs.setxattr(cx, node(fs, cx, "x1")?, x, b"value", XattrMode::Set, false)
        },
        files: &["x1"],
        is_done: |w| w.getxattr("x1", b"user.x") == Ok(b"value".to_vec()),
        is_undone: |w| w.getxattr("x1", b"user.x") == Err(Errno::ENODATA),
    },
    Step {
        name: "write",
        act: |fs, cx| {
            let node = node(fs, cx, "w1")?;
            let handle = fs.open(cx, node, OpenFlags::READ_WRITE, true)?.handle;
            let mut source = SliceSource::new(b"new data");
            let none = WriteFlags::empty();
            let written = fs.write(cx, node, handle, 0, 8, none, &mut source);
            fs.release(cx, node, handle, Default::default())?;
            if written? == 8 { Ok(()) } else { Err(Errno::EIO) }
        },
        files: &["w1"],
        is_done: |w| holds(w, "w1", "new data"),
        is_undone: |w| holds(w, "w1", "w1"),
    },
];

/// Where failures may come after the deed: what cannot be taken back is said to have failed though it
/// was done.
const DONE_THOUGH_REFUSED: [(&str, &str); 3] = [
    ("chmod", "the mode is set, and what the object is then cannot be told"),
    ("chown", "as for chmod"),
    ("truncate", "as for chmod"),
];

fn builder(dir: &Path) -> PassthroughFs {
    let builder = PassthroughFs::builder().root_dir(dir).ownership(Ownership::Virtual);
    builder.default_owner(0, 0).build().unwrap()
}

fn furnish(dir: &Path) {
    for name in STEPS.iter().flat_map(|step| step.files) {
        std::fs::write(dir.join(name), name).unwrap();
        set_host_xattr(&dir.join(name), RECORD, b"7:8:0644");
    }
}

/// What strace sees of the beginning and the end.
fn mark(name: &str) {
    let _ = std::fs::symlink_metadata(format!("/no-such-mark/{name}"));
}

/// The traced process: every step, and what it answers.
fn perform(dir: &Path) {
    let fs = builder(dir);
    let cx = Context::new(1, Some(Credentials::new(UID, 8)));
    mark("begin");
    let answers = STEPS.map(|step| (step.act)(&fs, &cx));
    mark("end");
    for (step, answer) in STEPS.iter().zip(answers) {
        println!("ANSWER {}={}", step.name, answer.map_or_else(|errno| errno.raw(), |()| 0));
    }
}

fn traced(dir: &Path, log: &Path, inject: Option<&str>) -> std::io::Result<Output> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "64", "-o"]).arg(log);
    if let Some(inject) = inject {
        command.args(["-e", inject]);
    }
    command.arg(std::env::current_exe()?);
    command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    command.output()
}

/// The calls between begin and end: by name, which of their kind they are in their thread, from 1.
fn calls(trace: &str) -> BTreeSet<(String, usize)> {
    let threads: Vec<_> = trace.lines().filter_map(|line| line.split_once(' ')).collect();
    let begin = threads.iter().find(|(_, call)| call.contains("/no-such-mark/begin")).unwrap();
    let (mut counts, mut found, mut inside) = (BTreeMap::new(), BTreeSet::new(), false);
    for (_, call) in threads.iter().filter(|(thread, _)| *thread == begin.0) {
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        let count = counts.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if call.contains("/no-such-mark/") {
            inside = !inside;
        } else if inside {
            found.insert((name.to_owned(), *count));
        }
    }
    found
}

/// The calls whose failure is a matter of the host's filesystem.
fn is_filesystem(name: &str) -> bool {
    let others = ["futex", "mmap", "munmap", "madvise", "brk", "close", "fcntl", "sched_yield"];
    // What is newer than strace has no name, and cannot be made to fail.
    let known = !name.starts_with("syscall_");
    known && !others.contains(&name) && !name.starts_with("rt_") && !name.starts_with("clock_")
}

fn check(dir: &Path, output: &Output, inject: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{inject}: {text}{errors}");
    let client = InProcess::new(std::sync::Arc::new(builder(dir)));
    let w = World::new(&client as &dyn Client, b"".as_slice());
    let mut answered = 0;
    for step in &STEPS {
        let answer = text.lines().find_map(|line| {
            let line = line.split_once("ANSWER ")?.1;
            line.strip_prefix(step.name)?.strip_prefix('=')?.parse::<i32>().ok()
        });
        let answer =
            answer.unwrap_or_else(|| panic!("{inject}: no answer to {}: {text}", step.name));
        let late = DONE_THOUGH_REFUSED.iter().any(|(name, _)| *name == step.name);
        let (done, undone) = ((step.is_done)(&w), (step.is_undone)(&w));
        let right = if answer == 0 { done } else { undone || (late && done) };
        assert!(right, "{inject}: {} answers {answer}: {done} {undone}", step.name);
        answered += 1;
    }
    assert_eq!(answered, STEPS.len());
    let names = w.names("").unwrap();
    assert!(names.iter().all(|name| !name.starts_with(".stratafs")), "{inject}: {names:?}");
}

#[test]
fn every_system_call_that_fails_leaves_each_operation_done_or_not_done() {
    if let Some(dir) = std::env::var_os(CHILD) {
        perform(Path::new(&dir));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("trace");
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        furnish(dir.path());
        dir
    };
    let dir = fresh();
    let Ok(output) = traced(dir.path(), &log, None) else {
        eprintln!("SKIPPED: strace is not installed");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ptrace") && errors.contains("not permitted") {
        eprintln!("SKIPPED: strace may not trace here");
        return;
    }
    check(dir.path(), &output, "nothing");
    let calls = calls(&std::fs::read_to_string(&log).unwrap());
    let calls: Vec<_> = calls.iter().filter(|(name, _)| is_filesystem(name)).collect();
    assert!(calls.len() > 40, "{calls:?}");
    for (at, (name, ordinal)) in calls.into_iter().enumerate() {
        let errors: &[&str] = if name.starts_with("open") {
            &["EMFILE", "EIO"]
        } else {
            &["EIO", "ENOSPC", "EDQUOT"]
        };
        let error = errors[at % errors.len()];
        let inject = format!("inject={}:error={error}:when={ordinal}", name);
        let dir = fresh();
        let output = traced(dir.path(), &log, Some(&inject)).unwrap();
        check(dir.path(), &output, &inject);
    }
}
