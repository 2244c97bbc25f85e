//! One list of operations on MemFs, on a host directory under either ownership, and on a plain
//! directory by system calls: the same errnos, attributes, data and listings, step by step.
//!
//! `STRATAFS_DIFFERENTIAL_LISTS`, `STRATAFS_DIFFERENTIAL_LENGTH` and `STRATAFS_DIFFERENTIAL_SEED`
//! make the run longer, or another. A difference is cut down to the steps that it takes.

mod ops;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use stratafs_core::attr::S_IFMT;
use stratafs_core::{Attr, DynFileSystem, FileType, XattrMode};
use stratafs_memfs::{ByteSize, MemFs};
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Client, InProcess, Mounted};

use ops::{Op, Random, SLOTS, Worker, digest, list};

/// Attributes, data and whatever else of each path, and of each open file.
type Seen = BTreeMap<String, String>;

/// What a step answered, and everything that can be seen after it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    answer: String,
    seen: Seen,
}

/// What the same lists are done on. The plain directory is what the others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Plain,
    Mem,
    Host,
    Virtual,
}

const COMPARED: [Subject; 3] = [Subject::Mem, Subject::Host, Subject::Virtual];

/// Where a subject may answer something else than the plain directory, and why.
struct Declared {
    who: Subject,
    why: &'static str,
    /// Whether it is about `op` on an object as it was before.
    holds: fn(&Op, Was) -> bool,
}

/// Type and number of names of the object that an operation is about.
#[derive(Clone, Copy)]
struct Was {
    kind: FileType,
    links: u32,
}

const DECLARED: [Declared; 2] = [
    Declared {
        who: Subject::Virtual,
        why: "every attribute is one in user. on the host, which symlinks of the host have not",
        holds: |op, was| {
            matches!(op, Op::Setxattr { .. } | Op::Getxattr { .. } | Op::Removexattr { .. })
                && was.kind == FileType::Symlink
        },
    },
    Declared {
        who: Subject::Virtual,
        why: "a symlink with an owner is a file, which cannot take the place of two names in one step",
        holds: |op, was| {
            matches!(op, Op::Chown { .. }) && was.kind == FileType::Symlink && was.links > 1
        },
    },
];

/// Does `ops` on a fresh `subject`, on a thread of its own, whose umask and ids are its own too.
fn transcript(subject: Subject, ops: &[Op]) -> Vec<Step> {
    std::thread::scope(|scope| scope.spawn(|| on_fresh(subject, ops)).join()).unwrap()
}

fn on_fresh(subject: Subject, ops: &[Op]) -> Vec<Step> {
    let dir = tempfile::tempdir().unwrap();
    // As the root of a MemFs is.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let share = |ownership: Ownership, budget: usize| {
        let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(ownership);
        Arc::new(builder.default_owner(0, 0).fd_budget(budget).build().unwrap())
    };
    match subject {
        Subject::Plain => run(&Mounted::new(dir.path()).unwrap(), ops),
        Subject::Mem => {
            let fs = MemFs::builder().capacity(ByteSize::mib(64)).build().unwrap();
            run(&InProcess::new(Arc::new(fs)), ops)
        }
        Subject::Host => served(share(Ownership::Host, 1000), ops),
        Subject::Virtual => {
            // So few descriptors that nodes are found again all the time.
            let steps = served(share(Ownership::Virtual, 12), ops);
            assert_plain(dir.path());
            steps
        }
    }
}

fn served(fs: Arc<PassthroughFs>, ops: &[Op]) -> Vec<Step> {
    let steps = run(&InProcess::new(Arc::clone(&fs) as Arc<dyn DynFileSystem>), ops);
    let usage = fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "all is given back");
    steps
}

/// Under virtual ownership the host has plain files, directories and symlinks alone.
fn assert_plain(dir: &Path) {
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{path:?}: {meta:?}");
        assert_eq!(meta.mode() & 0o7000, 0, "{path:?}: {:o}", meta.mode());
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path:?}");
        if kind.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

fn run(client: &dyn Client, ops: &[Op]) -> Vec<Step> {
    client.begin().unwrap();
    let mut worker = Worker { client, slots: [None; SLOTS] };
    let step = |op| {
        let answer = worker.perform(op);
        Step { answer, seen: look(&worker) }
    };
    let steps = ops.iter().map(step).collect();
    client.end().unwrap();
    steps
}

/// Looks at everything.
fn look(worker: &Worker<'_>) -> Seen {
    let mut seen = Seen::new();
    // Inode numbers mean nothing but who is the same object as who.
    let mut objects: BTreeMap<u64, usize> = BTreeMap::new();
    let mut object = |ino: u64| {
        let next = objects.len();
        *objects.entry(ino).or_insert(next)
    };
    let client = worker.client;
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let shown = path.escape_ascii().to_string();
        let attr = match client.stat(&path) {
            Ok(attr) => attr,
            Err(errno) => {
                seen.insert(shown, errno.to_string());
                continue;
            }
        };
        let mut text = format!("object {} {}", object(attr.ino), described(&attr));
        match attr.kind() {
            FileType::Directory => {
                let names = list(client, &path, 1000);
                let children = client.opendir(&path).and_then(|fd| {
                    let entries = client.readdir(fd, 0, 1000);
                    client.close(fd)?;
                    entries
                });
                let mut children = children.unwrap_or_default();
                children.retain(|child| child.name != b"." && child.name != b"..");
                children.sort_by(|a, b| a.name.cmp(&b.name));
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                waiting.extend(children.iter().rev().map(|c| [&path, slash, &c.name].concat()));
                text += &format!(" {names:?}");
            }
            FileType::Regular => {
                let opened = client.open(&path, stratafs_core::OpenFlags::READ_ONLY);
                let data = opened.and_then(|fd| {
                    let data = data(client, fd, attr.size);
                    client.close(fd)?;
                    Ok(data)
                });
                text += &format!(" {data:?}");
            }
            FileType::Symlink => {
                text += &format!(" {:?}", client.readlink(&path).map(|target| digest(&target)))
            }
            _ => {}
        }
        if matches!(attr.kind(), FileType::Regular | FileType::Directory) {
            let mut names = client.listxattr(&path).unwrap_or_default();
            // A host may label every file of its own accord.
            names.retain(|name| [b".a", b".b"].iter().any(|end| name.ends_with(*end)));
            names.sort();
            for name in names {
                let value = client.getxattr(&path, &name).map(|value| digest(&value));
                text += &format!(" {}={value:?}", name.escape_ascii());
            }
        }
        seen.insert(shown, text);
    }
    for (slot, fd) in worker.slots.iter().enumerate() {
        let Some((fd, _)) = fd else { continue };
        let text = match client.fstat(*fd) {
            Ok(attr) => {
                let data = data(client, *fd, attr.size);
                format!("object {} {} {data}", object(attr.ino), described(&attr))
            }
            Err(errno) => errno.to_string(),
        };
        seen.insert(format!("slot {slot}"), text);
    }
    seen
}

/// Attributes in words. Sizes of directories mean nothing; a time is shown where a step set it,
/// and else that it is the present; atime is moved by looking.
fn described(attr: &Attr) -> String {
    let size = if attr.is_dir() { 0 } else { attr.size };
    let mtime = if attr.mtime.sec < 1_000_000_000 {
        format!("{}.{:09}", attr.mtime.sec, attr.mtime.nsec)
    } else {
        "now".to_owned()
    };
    format!(
        "{:o}/{:o} {}:{} links {} size {size} rdev {:x} mtime {mtime}",
        attr.mode & S_IFMT,
        attr.mode & !S_IFMT,
        attr.uid,
        attr.gid,
        attr.nlink,
        attr.rdev,
    )
}

/// The first and the last part of the data: sparse files are larger than any memory.
fn data(client: &dyn Client, fd: stratafs_testkit::Fd, size: u64) -> String {
    const PART: u64 = 32 * 1024;
    let read = |offset: u64| match client.pread(fd, offset, PART as usize) {
        Ok(data) => digest(&data),
        Err(errno) => errno.to_string(),
    };
    if size <= PART { read(0) } else { format!("{} … {}", read(0), read(size - PART)) }
}

/// The first step on which `got` differs from the plain directory's, and not as declared; `met`
/// counts how often each declared difference came up. What follows one that leaves another tree
/// behind cannot be compared.
fn difference(
    subject: Subject,
    ops: &[Op],
    plain: &[Step],
    got: &[Step],
    met: &mut [u32],
) -> Option<String> {
    for (at, op) in ops.iter().enumerate() {
        let (want, got) = (&plain[at], &got[at]);
        if want == got {
            continue;
        }
        let was = at.checked_sub(1).and_then(|before| was(op, &plain[before]));
        let is = |declared: &Declared| {
            declared.who == subject && was.is_some_and(|was| (declared.holds)(op, was))
        };
        let Some(declared) = DECLARED.iter().position(is) else {
            return Some(told(subject, at, op, want, got));
        };
        met[declared] += 1;
        if want.seen != got.seen {
            return None;
        }
    }
    None
}

/// A difference in words.
fn told(subject: Subject, at: usize, op: &Op, want: &Step, got: &Step) -> String {
    let mut text = format!("{subject:?} differs after step {} ({op:?})", at + 1);
    if want.answer != got.answer {
        text += &format!("\n  answers    {}\n  instead of {}", got.answer, want.answer);
    }
    let more = got.seen.keys().filter(|path| !want.seen.contains_key(*path));
    for path in want.seen.keys().chain(more) {
        let (want, got) = (want.seen.get(path), got.seen.get(path));
        if want != got {
            text += &format!("\n  {path:?} is {got:?}\n  instead of {want:?}");
        }
    }
    text
}

/// The object that `op` names, as it was before.
fn was(op: &Op, before: &Step) -> Option<Was> {
    let path = op.paths().first()?.escape_ascii().to_string();
    let mut words = before.seen.get(&path)?.split(' ');
    let mode = words.nth(2)?.split('/').next()?;
    let kind = FileType::from_mode(u32::from_str_radix(mode, 8).ok()?)?;
    Some(Was { kind, links: words.nth(2)?.parse().ok()? })
}

/// The first difference of all subjects.
fn differences(ops: &[Op], met: &mut [u32]) -> Option<(Subject, String)> {
    let plain = transcript(Subject::Plain, ops);
    COMPARED.into_iter().find_map(|subject| {
        let got = transcript(subject, ops);
        difference(subject, ops, &plain, &got, met).map(|text| (subject, text))
    })
}

/// Leaves out steps for as long as a difference of the same subject remains.
fn cut_down(mut ops: Vec<Op>, subject: Subject) -> Vec<Op> {
    let mut met = [0; DECLARED.len()];
    let mut piece = ops.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            match differences(&fewer, &mut met) {
                Some((who, _)) if who == subject => ops = fewer,
                _ => at += piece,
            }
        }
        piece /= 2;
    }
    ops
}

/// What this host lets its root do in a plain directory: a container's root may lack some of it.
struct Allowed {
    devices: bool,
    /// Kinds of attributes that take privilege, and are refused.
    refused: Vec<&'static str>,
}

impl Allowed {
    fn find_out() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = Mounted::new(dir.path()).unwrap();
        let devices = client.mknod(b"device", FileType::CharDevice.mode_bits(), 0x103).is_ok();
        let sets = |kind: &str| {
            let name = format!("{kind}a");
            client.setxattr(b"", name.as_bytes(), b"", XattrMode::Set).is_ok()
        };
        let refused: Vec<_> =
            ["user.", "trusted.", "security."].into_iter().filter(|kind| !sets(kind)).collect();
        if !devices || !refused.is_empty() {
            eprintln!("left out: devices {}, attributes in {refused:?}", !devices);
        }
        Self { devices, refused }
    }

    fn allows(&self, op: &Op) -> bool {
        match op {
            Op::Mknod { rdev, .. } => self.devices || *rdev == 0,
            Op::Setxattr { name, .. }
            | Op::Getxattr { name, .. }
            | Op::Removexattr { name, .. } => {
                !self.refused.iter().any(|kind| name.starts_with(kind))
            }
            _ => true,
        }
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    let name = format!("STRATAFS_DIFFERENTIAL_{name}");
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn same_operations_on_memory_host_directories_and_the_host_agree() {
    if std::fs::metadata("/proc/self").map(|meta| meta.uid()).ok() != Some(0) {
        eprintln!("SKIPPED: owners and devices on a plain directory take root");
        return;
    }
    let (lists, length) = (from_env("LISTS", 60), from_env("LENGTH", 60) as usize);
    let seed = from_env("SEED", 0);
    let allowed = Allowed::find_out();
    let mut met = [0; DECLARED.len()];
    for list in seed..seed + lists {
        let mut ops = Random(list).list(length);
        ops.retain(|op| allowed.allows(op));
        if let Some((subject, _)) = differences(&ops, &mut met) {
            let ops = cut_down(ops, subject);
            let (_, text) = differences(&ops, &mut [0; DECLARED.len()]).unwrap();
            let steps: Vec<_> = ops.iter().map(|op| format!("    {op:?}\n")).collect();
            panic!("{text}\nafter (SEED={list}, {} steps):\n{}", ops.len(), steps.concat());
        }
    }
    for (declared, met) in DECLARED.iter().zip(met) {
        println!("{:?}: {met} times: {}", declared.who, declared.why);
    }
}
