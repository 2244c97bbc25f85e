//! A process of the host that swaps directories, files and links under the share, while clients do
//! everything that they can there: nothing outside is read, changed or shown.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stratafs_core::{
    DynFileSystem, Errno, HandleId, Name, NodeId, OpenFlags, RenameFlags, Result, SetAttr, SetTime,
    SliceSink, SliceSource, Timestamp, WriteFlags, XattrMode, XattrName,
};
use stratafs_passthroughfs::{OpenMode, Ownership, PassthroughFs};
use stratafs_sys::at::{self, Place, Rename, rename};
use stratafs_sys::openat::pin_path;
use stratafs_sys::proc::Proc;
use stratafs_testkit::{Client, InProcess, World};

use crate::support::{As, DEADLINE, Share, in_child, root, snapshot};

const SECRET: &[u8] = b"outside the share";

/// In what is outside, and nowhere in the share.
const ONLY_OUTSIDE: &str = "only-outside";

/// Tells the racing process what to race on.
const RACER: &str = "STRATAFS_PASSTHROUGH_TEST_RACER";

/// How long the clients run at it; `STRATAFS_RACE_SECONDS` makes it longer.
fn race_time() -> Duration {
    let seconds = std::env::var("STRATAFS_RACE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(5))
}

/// What lies outside: a tree with the names of the share's own, and a place that directories of the
/// share are moved to.
struct Outside {
    dir: tempfile::TempDir,
}

impl Outside {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let canary = dir.path().join("canary");
        furnish(&canary, SECRET);
        std::fs::write(canary.join(ONLY_OUTSIDE), SECRET).unwrap();
        std::fs::create_dir(dir.path().join("away")).unwrap();
        Self { dir }
    }

    fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// Sets the time of the last access to long ago, so that whoever reads moves it.
    fn rest(&self) {
        let proc = Proc::open().unwrap();
        let past = Some(SetTime::At(Timestamp::new(1, 0)));
        for path in self.paths() {
            proc.set_times(pin_path(&path, false).unwrap().as_fd(), past, None).unwrap();
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let names = ["", ONLY_OUTSIDE].into_iter().chain(NAMES);
        names.map(|name| self.canary().join(name)).collect()
    }

    /// When each object was last read and changed.
    fn times(&self) -> Vec<(PathBuf, i64, i64, i64)> {
        let times = |path: PathBuf| {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            (path, meta.atime(), meta.ctime(), meta.ctime_nsec())
        };
        self.paths().into_iter().map(times).collect()
    }

    fn inodes(&self) -> BTreeSet<u64> {
        self.paths().iter().map(|path| path.metadata().unwrap().ino()).collect()
    }
}

/// The second guest: it swaps a directory and a link of its own making under the first one's feet.
fn swap_as_a_guest(fs: Arc<PassthroughFs>, canary: &Path, watch: &Watch) -> Result<()> {
    let client = InProcess::new(fs as _);
    let w = World::new(&client as &dyn Client, b"".as_slice());
    w.mkdir("guests", 0o755)?;
    w.mkdir("guests/deep", 0o755)?;
    w.file("guests/f", b"inside")?;
    w.file("guests/deep/f", b"inside")?;
    w.symlink(canary.as_os_str().as_bytes(), "link")?;
    while !watch.is_over() {
        // What the others do there may be in the way of one or the other, and never of the next.
        fail_well(w.rename2("guests", "link", RenameFlags::EXCHANGE))?;
        fail_well(w.rename2("link", "guests", RenameFlags::EXCHANGE))?;
        fail_well(w.rename("guests/deep", "moved"))?;
        fail_well(w.symlink(canary.join("deep").as_os_str().as_bytes(), "guests/deep"))?;
        fail_well(w.unlink("guests/deep"))?;
        fail_well(w.rename("moved", "guests/deep"))?;
    }
    Ok(())
}

/// What is in a furnished directory.
const NAMES: [&str; 6] = ["f", "g", "sub", "sub/f", "deep", "deep/f"];

fn furnish(dir: &Path, data: &[u8]) {
    for name in ["", "sub", "deep"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    for name in ["f", "g", "sub/f", "deep/f"] {
        std::fs::write(dir.join(name), data).unwrap();
    }
}

/// The other process, killed at the end; should this one be killed first, it sees its input end.
struct Racer(Child);

impl Racer {
    fn start(test: &str, share: &Path, outside: &Outside) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        let places = format!("{}:{}", share.display(), outside.dir.path().display());
        command.env(RACER, places).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the other process does, for ever. It holds the directories by descriptors, for by path it
/// would meet its own links.
fn race(places: &str) -> ! {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let (share, outside) = places.split_once(':').unwrap();
    let (share, outside) = (Path::new(share), Path::new(outside));
    let pin = |path: PathBuf| pin_path(&path, false).unwrap();
    let (top, inner) = (pin(share.to_owned()), pin(share.join("a")));
    let away = pin(outside.join("away"));
    let canary = outside.join("canary");
    let name = |text: &'static str| Name::new(text.as_bytes()).unwrap();
    let exchange = |dir: &OwnedFd, a, b| {
        let place = |name| Place { dir: dir.as_fd(), name };
        let _ = rename(place(name(a)), place(name(b)), Rename::EXCHANGE);
    };
    let deep = |dir| Place { dir, name: name("deep") };
    let (here, there) = (inner.as_fd(), away.as_fd());
    let turns = name("turns");
    let mut round = 0_u64;
    loop {
        round += 1;
        exchange(&top, "a", "b");
        exchange(&inner, "sub", "link-to-sub");
        exchange(&inner, "f", "link-to-f");
        match round % 8 {
            0 => exchange(&top, "file", "fifo"),
            1 => drop(rename(deep(here), deep(there), Rename::NO_REPLACE)),
            3 => drop(rename(deep(there), deep(here), Rename::NO_REPLACE)),
            // A name that is a directory, nothing, a link, and nothing by turns.
            4 => drop(at::make_dir(top.as_fd(), turns, 0o700)),
            5 => drop(at::remove_dir(top.as_fd(), turns)),
            6 => drop(at::make_symlink(canary.as_os_str().as_bytes(), top.as_fd(), turns)),
            7 => drop(at::remove_file(top.as_fd(), turns)),
            _ => exchange(&top, "file", "link-to-file"),
        }
    }
}

/// The errors that an operation may end with where its names lead elsewhere by the time.
fn fail_well<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(
            Errno::ENOTDIR
            | Errno::ENOENT
            | Errno::ESTALE
            | Errno::EEXIST
            | Errno::EISDIR
            | Errno::ENOTEMPTY
            | Errno::EPERM
            | Errno::EINVAL
            | Errno::ELOOP
            | Errno::ENODATA
            | Errno::ENXIO
            | Errno::EBADF
            | Errno::EOPNOTSUPP
            | Errno::EXDEV
            | Errno::ENFILE,
        ) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What the clients count, and when they end.
struct Watch {
    outside: BTreeSet<u64>,
    start: Instant,
    done: AtomicU64,
}

impl Watch {
    fn is_over(&self) -> bool {
        self.start.elapsed() >= race_time()
    }

    fn saw_data(&self, data: &[u8]) {
        assert_ne!(data, SECRET, "read from outside");
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn saw_inode(&self, ino: u64) {
        assert!(!self.outside.contains(&ino), "inode {ino} is outside");
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything by path, as a guest's programs do it.
fn attack_by_path(fs: Arc<PassthroughFs>, watch: &Watch) -> Result<()> {
    let client = InProcess::new(fs as _);
    let w = World::new(&client as &dyn Client, b"".as_slice());
    let mut round = 0;
    while !watch.is_over() {
        round += 1;
        let new = format!("a/new{}", round % 7);
        let new = new.as_str();
        for file in ["a/f", "a/sub/f", "a/deep/f", "turns/f", "file", "guests/f", "guests/deep/f"] {
            if let Some(data) = fail_well(w.read(file))? {
                watch.saw_data(&data);
            }
            if let Some(attr) = fail_well(w.stat(file))? {
                // A link itself is a link, wherever it leads.
                watch.saw_inode(attr.ino);
            }
            fail_well(w.write_at(file, 0, b"overwritten"))?;
            fail_well(w.truncate(file, 1))?;
            fail_well(w.chmod(file, 0o777))?;
            fail_well(w.chown(file, Some(1), Some(1)))?;
            fail_well(w.setxattr(file, b"user.x", b"1", XattrMode::Set))?;
            fail_well(w.removexattr(file, b"user.x"))?;
            fail_well(w.utimens(file, Some(SetTime::Now), Some(SetTime::Now)))?;
        }
        for dir in ["a", "a/sub", "a/deep", "turns", "guests", "guests/deep"] {
            let at = |name: &str| format!("{dir}/{name}");
            if let Some(names) = fail_well(w.names(dir))? {
                assert!(names.iter().all(|name| name != ONLY_OUTSIDE), "{dir}: {names:?}");
            }
            fail_well(w.mkdir(at("d"), 0o755))?;
            fail_well(w.rmdir(at("d")))?;
            fail_well(w.file(at("n"), b"made"))?;
            fail_well(w.symlink("x", at("l")))?;
            fail_well(w.mknod(at("p"), 0o010_644, 0))?;
            for name in ["n", "l", "p"] {
                fail_well(w.unlink(at(name)))?;
            }
            let unnamed = w.tmpfile(dir, OpenFlags::READ_WRITE, 0o600);
            if let Some(fd) = fail_well(unnamed)? {
                w.close(fd)?;
            }
        }
        fail_well(w.rename("a/f", new))?;
        fail_well(w.link("a/f", new))?;
        fail_well(w.rename("a/sub/f", "a/deep/g"))?;
        fail_well(w.rename("a/deep/g", "a/sub/f"))?;
        fail_well(w.rename2("a/sub", "turns", RenameFlags::EXCHANGE))?;
        fail_well(w.rename(new, "a/f"))?;
        fail_well(w.unlink(new))?;
    }
    Ok(())
}

/// Nodes that are found before the race and held: directories, and files in them.
#[derive(Clone, Copy)]
struct Held {
    dirs: [NodeId; 3],
    files: [NodeId; 2],
}

impl Held {
    fn find(share: &Share) -> Self {
        let find = |parent, name| share.lookup(parent, name).unwrap().node;
        let dir = find(NodeId::ROOT, "a");
        let (sub, deep) = (find(dir, "sub"), find(dir, "deep"));
        Self { dirs: [dir, sub, deep], files: [find(dir, "f"), find(sub, "f")] }
    }
}

/// Everything by held nodes: they must be found again, and again, for there are few descriptors.
fn attack_by_node(fs: &PassthroughFs, held: Held, watch: &Watch) -> Result<()> {
    let cx = root();
    let name = |text: &'static str| Name::new(text.as_bytes()).unwrap();
    let Held { dirs, files } = held;
    let sub = dirs[1];
    while !watch.is_over() {
        for file in files {
            if let Some(attr) = fail_well(fs.getattr(&cx, file, None))? {
                watch.saw_inode(attr.attr.ino);
            }
            let opened = fs.open(&cx, file, OpenFlags::READ_WRITE, true);
            if let Some(opened) = fail_well(opened)? {
                let mut data = [0; 64];
                let mut sink = SliceSink::new(&mut data);
                // With a handle nothing that is done to names matters any more.
                let sure = |outcome: Result<usize>| match opened.handle {
                    HandleId::NONE => fail_well(outcome),
                    _ => outcome.map(Some),
                };
                if let Some(read) = sure(fs.read(&cx, file, opened.handle, 0, 64, &mut sink))? {
                    watch.saw_data(&data[..read]);
                }
                let mut source = SliceSource::new(b"overwritten");
                let flags = WriteFlags::KILL_PRIV;
                sure(fs.write(&cx, file, opened.handle, 0, 11, flags, &mut source))?;
                fs.release(&cx, file, opened.handle, Default::default())?;
            }
            let mut set = SetAttr::new();
            (set.mode, set.uid, set.size) = (Some(0o640), Some(7), Some(3));
            fail_well(fs.setattr(&cx, file, &set))?;
            let x = XattrName::new(b"user.x").unwrap();
            fail_well(fs.setxattr(&cx, file, x, b"1", XattrMode::Set, false))?;
            fail_well(fs.listxattr(&cx, file, &mut [0; 256]))?;
        }
        for dir in dirs {
            if let Some(opened) = fail_well(fs.opendir(&cx, dir, OpenFlags::READ_ONLY))? {
                let mut names = Seen { fs, watch };
                fs.readdirplus(&cx, dir, opened.handle, 0, &mut names)?;
                fs.releasedir(&cx, dir, opened.handle)?;
            }
            if let Some(entry) = fail_well(fs.mkdir(&cx, dir, name("by-node"), 0o700))? {
                fs.forget(entry.node, 1);
            }
            fail_well(fs.rmdir(&cx, dir, name("by-node")))?;
            let flags = OpenFlags::READ_WRITE;
            let made = fs.create(&cx, dir, name("n2"), 0o600, flags, false);
            if let Some((entry, opened)) = fail_well(made)? {
                watch.saw_inode(entry.attr.ino);
                fs.release(&cx, entry.node, opened.handle, Default::default())?;
                fs.forget(entry.node, 1);
            }
            fail_well(fs.rename(&cx, dir, name("n2"), sub, name("n3"), RenameFlags::empty()))?;
            fail_well(fs.unlink(&cx, sub, name("n3")))?;
            if let Some(entry) = fail_well(fs.link(&cx, files[0], dir, name("n4")))? {
                fs.forget(entry.node, 1);
            }
            fail_well(fs.unlink(&cx, dir, name("n4")))?;
        }
    }
    fs.batch_forget(&dirs.map(|node| (node, 1)));
    fs.batch_forget(&files.map(|node| (node, 1)));
    Ok(())
}

/// A listing with its objects, each looked at and forgotten.
struct Seen<'a> {
    fs: &'a PassthroughFs,
    watch: &'a Watch,
}

impl stratafs_core::DirSink for Seen<'_> {
    fn fits(&self, _: usize) -> bool {
        true
    }
    fn add(
        &mut self,
        entry: &stratafs_core::DirEntry<'_>,
        plus: Option<&stratafs_core::Entry>,
    ) -> stratafs_core::Added {
        assert_ne!(entry.name, ONLY_OUTSIDE.as_bytes(), "listed the outside");
        if let Some(plus) = plus {
            self.watch.saw_inode(plus.attr.ino);
            self.fs.forget(plus.node, 1);
        }
        stratafs_core::Added::Taken
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A share, what lies outside of it, and a process that swaps the one for the other.
fn attacked(test: &str, ownership: Ownership, open: OpenMode) {
    if let Ok(places) = std::env::var(RACER) {
        race(&places);
    }
    if !in_child(test, As::SameUser) {
        return;
    }
    let outside = Outside::new();
    let before = snapshot(&outside.canary());
    outside.rest();
    let times = outside.times();
    // The smallest budget: nodes are resolved again and again, which is where the race is.
    let share = Share::new(|b| b.ownership(ownership).open(open).fd_budget(8));
    furnish(&share.host("a"), b"inside");
    symlink(outside.canary(), share.host("b")).unwrap();
    symlink(outside.canary().join("sub"), share.host("a/link-to-sub")).unwrap();
    symlink(outside.canary().join("f"), share.host("a/link-to-f")).unwrap();
    std::fs::write(share.host("file"), b"inside").unwrap();
    symlink(outside.canary().join("f"), share.host("link-to-file")).unwrap();
    let top = pin_path(share.dir.path(), false).unwrap();
    at::make_node(top.as_fd(), Name::new(b"fifo").unwrap(), 0o010_600, (0, 0)).unwrap();
    drop(top);
    let open_before = descriptors();
    let held = Held::find(&share);
    let mut racer = Racer::start(test, share.dir.path(), &outside);
    let watch = Watch { outside: outside.inodes(), start: Instant::now(), done: AtomicU64::new(0) };
    let watch = Arc::new(watch);
    let (ended, outcomes) = std::sync::mpsc::channel();
    for attacker in 0..4 {
        let (fs, watch, ended) = (Arc::clone(&share.fs), Arc::clone(&watch), ended.clone());
        let canary = outside.canary();
        std::thread::spawn(move || {
            ended.send(match attacker {
                0 => attack_by_node(&fs, held, &watch),
                1 => swap_as_a_guest(fs, &canary, &watch),
                _ => attack_by_path(fs, &watch),
            })
        });
    }
    drop(ended);
    for _ in 0..4 {
        let outcome = outcomes.recv_timeout(race_time() + DEADLINE).expect("hangs, or panicked");
        outcome.unwrap();
    }
    assert!(racer.is_running(), "or this was no race");
    drop(racer);
    println!("{} looks", watch.done.load(Ordering::Relaxed));
    assert!(watch.done.load(Ordering::Relaxed) > 0);
    assert_eq!(outside.times(), times, "something outside was read or changed");
    assert_eq!(snapshot(&outside.canary()), before, "the outside was changed");
    let usage = share.fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "something is kept");
    assert_eq!(descriptors(), open_before, "a descriptor is left open");
}

#[test]
fn racing_process_under_virtual_ownership_gets_nothing_outside() {
    let test = "races::racing_process_under_virtual_ownership_gets_nothing_outside";
    attacked(test, Ownership::Virtual, OpenMode::Handles);
}

#[test]
fn racing_process_under_host_ownership_gets_nothing_outside() {
    let test = "races::racing_process_under_host_ownership_gets_nothing_outside";
    attacked(test, Ownership::Host, OpenMode::Stateless);
}
