//! A mountpoint of its own for each test, and what keeps a hang from lasting.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use stratafs::transport::fuse_dev::{Mount, MountOptions, Server};
use stratafs_core::DynFileSystem;
use stratafs_sys::{creds, mount};
use tempfile::TempDir;

/// How long a test may take before its connection is aborted. Far above any on a loaded machine.
const HANG: Duration = Duration::from_secs(120);
/// How long the test has after that to fail by itself.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Whether this machine can run these tests; says so where not.
pub(crate) fn can_mount() -> bool {
    let missing = if !Path::new("/dev/fuse").exists() {
        "no /dev/fuse"
    } else if creds::effective().0 != 0 {
        "not root"
    } else {
        return true;
    };
    eprintln!("\n********** skipped: {missing} **********\n");
    false
}

/// An empty directory to mount on, watched over.
pub(crate) struct Mountpoint {
    _watchdog: Watchdog,
    dir: TempDir,
    path: PathBuf,
}

impl Mountpoint {
    /// `None` where nothing can be mounted.
    pub(crate) fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("stratafs-test-").tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("mountpoint");
        std::fs::create_dir(&path).unwrap();
        Some(Self { _watchdog: Watchdog::new(&path), dir, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory beside the mountpoint, for the test's own files.
    pub(crate) fn beside(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn is_mounted(&self) -> bool {
        mount::mount_at(&self.path).unwrap().is_some()
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        // Whatever a failed test left there, also several on top of each other.
        while self.is_mounted() && mount::detach(&self.path).is_ok() {}
    }
}

/// A filesystem mounted by this process. Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) mountpoint: Mountpoint,
}

impl Stage {
    /// Mounts with two threads and no options.
    pub(crate) fn new(filesystem: Arc<dyn DynFileSystem>) -> Option<Self> {
        Self::with(filesystem, "", 2)
    }

    pub(crate) fn with(
        filesystem: Arc<dyn DynFileSystem>,
        options: &str,
        threads: usize,
    ) -> Option<Self> {
        let mountpoint = Mountpoint::new()?;
        let server = Mount::builder(filesystem)
            .options(MountOptions::parse([options]).unwrap())
            .threads(threads)
            .mount(mountpoint.path())
            .unwrap();
        Some(Self { server, mountpoint })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.path().join(name)
    }
}

/// Waits until `condition` holds; the test fails where it never does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Joins a thread, which the test's watchdog unblocks if need be.
#[track_caller]
pub(crate) fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("the thread panicked")
}

/// Turns a hang into a failure: aborts the connection, so that every request in it ends with an
/// error, and ends the process if that does not help.
struct Watchdog(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

impl Watchdog {
    fn new(path: &Path) -> Self {
        let (alive, watched) = mpsc::channel::<()>();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let path = path.to_owned();
        thread::spawn(move || {
            if watched.recv_timeout(HANG) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            eprintln!("{test} hangs; its connection is aborted");
            // Both flags together abort the connection and detach the mount.
            let _ = Command::new("umount").args(["-f", "-l"]).arg(&path).status();
            if watched.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs for good");
                std::process::exit(101);
            }
        });
        Self(alive)
    }
}
