//! What the tests of bounds share.

use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use stratafs_core::{
    Added, Context, Credentials, DirEntry, DirSink, DynFileSystem, Entry, FileType, HandleId, Name,
    NodeId,
};
use stratafs_memfs::MemFs;

/// The environment variable by which a test knows that it has its process to itself.
const ALONE: &str = "MEMFS_TEST_ALONE";

/// How long a test may take before it counts as hanging, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// Root, without a umask.
pub(crate) fn cx() -> Context<'static> {
    Context::new(1, Some(Credentials::new(0, 0)))
}

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// Whether the test `test` has this process to itself. If not, it is run in one that it has, and
/// must succeed there.
pub(crate) fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program).args(["--exact", test]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("1 passed"), "{test} is no test here");
    false
}

/// Ends the process if the returned value is not dropped in time: a deadlock must fail, not hang.
#[must_use]
pub(crate) fn watchdog() -> Sender<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        if receiver.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("no end after {PATIENCE:?}: a deadlock");
            std::process::abort();
        }
    });
    sender
}

/// A number in /proc/self/status, in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// What of the process is resident now, in bytes.
pub(crate) fn rss() -> u64 {
    status("VmRSS:")
}

/// The most that ever was, in bytes.
pub(crate) fn peak_rss() -> u64 {
    status("VmHWM:")
}

/// Random numbers that are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.0 >> 33) as usize % end
    }
}

/// A sink that keeps names and types.
struct Listing(Vec<(Vec<u8>, FileType)>);

impl DirSink for Listing {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
        if entry.entry_name().is_some() {
            self.0.push((entry.name.to_vec(), entry.kind.expect("told without a look")));
        }
        Added::Taken
    }
}

/// Removes everything in `dir`.
pub(crate) fn remove_tree(fs: &MemFs, dir: NodeId) {
    let mut listing = Listing(Vec::new());
    fs.readdir(&cx(), dir, HandleId::NONE, 0, &mut listing).unwrap();
    for (bytes, kind) in listing.0 {
        let entry = Name::new(&bytes).unwrap();
        if kind == FileType::Directory {
            let found = fs.lookup(&cx(), dir, entry).unwrap().found().unwrap();
            remove_tree(fs, found.node);
            fs.rmdir(&cx(), dir, entry).unwrap();
            fs.forget(found.node, 1);
        } else {
            fs.unlink(&cx(), dir, entry).unwrap();
        }
    }
}
