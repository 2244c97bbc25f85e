//! A share of a temporary directory, and what the host has in it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use stratafs_core::{
    Context, Credentials, DynFileSystem, Entry, Name, NodeId, OpenFlags, Release, Result,
};
use stratafs_passthroughfs::{Builder, Ownership, PassthroughFs};
use stratafs_sys::openat::pin_path;
use stratafs_sys::proc::Proc;
use stratafs_testkit::{Caller, Client, InProcess, World};

pub(crate) const RECORD: &str = "user.containers.override_stat";

/// The user and group that drop to nothing, in the tests that need an unprivileged server.
pub(crate) const NOBODY: u32 = 65_534;

/// Long enough for any machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Share {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fs: Arc<PassthroughFs>,
    pub(crate) client: InProcess,
}

impl Share {
    /// A share of a new directory with virtual ownership, whatever else `configure` says.
    pub(crate) fn new(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::over(tempfile::tempdir().unwrap(), configure)
    }

    pub(crate) fn over(dir: tempfile::TempDir, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = PassthroughFs::builder()
            .root_dir(dir.path())
            .ownership(Ownership::Virtual)
            .default_owner(0, 0);
        let fs = Arc::new(configure(builder).build().unwrap());
        let client = InProcess::new(Arc::clone(&fs) as _);
        Self { dir, fs, client }
    }

    pub(crate) fn plain() -> Self {
        Self::new(|builder| builder)
    }

    pub(crate) fn world(&self) -> World<'_> {
        World::new(&self.client as &dyn Client, b"".as_slice())
    }

    pub(crate) fn ask_for(&self, caller: &Caller) {
        self.client.set_caller(caller).unwrap();
    }

    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn host_mode(&self, path: &str) -> u32 {
        std::fs::symlink_metadata(self.host(path)).unwrap().mode()
    }

    pub(crate) fn record(&self, path: &str) -> Option<String> {
        host_xattr(&self.host(path), RECORD)
    }

    pub(crate) fn set_record(&self, path: &str, text: &str) {
        set_host_xattr(&self.host(path), RECORD, text.as_bytes());
    }

    pub(crate) fn lookup(&self, parent: NodeId, name: &str) -> Result<Entry> {
        self.fs.lookup(&root(), parent, Name::new(name.as_bytes())?)?.found()
    }

    /// Looks up so many other names that a node not used meanwhile loses its descriptor.
    pub(crate) fn push_out(&self) {
        let others = self.host("others");
        if !others.exists() {
            std::fs::create_dir(&others).unwrap();
            for number in 0..200 {
                std::fs::write(others.join(number.to_string()), b"").unwrap();
            }
        }
        let dir = self.lookup(NodeId::ROOT, "others").unwrap();
        let mut held = Vec::new();
        for number in 0..200 {
            let node = self.lookup(dir.node, &number.to_string()).unwrap().node;
            // Under host ownership an object is pinned when it is used.
            let opened = self.fs.open(&root(), node, OpenFlags::READ_ONLY, false).unwrap();
            self.fs.release(&root(), node, opened.handle, Release::default()).unwrap();
            held.push(node);
        }
        for node in held {
            self.fs.forget(node, 1);
        }
        self.fs.forget(dir.node, 1);
    }
}

pub(crate) fn root() -> Context<'static> {
    Context::new(1, Some(Credentials::new(0, 0)))
}

/// An attribute that the host has, as text.
pub(crate) fn host_xattr(path: &Path, name: &str) -> Option<String> {
    let file = pin_path(path, false).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let mut value = [0; 256];
    let len = Proc::open().unwrap().xattr(file.as_fd(), &name, &mut value).ok()?;
    Some(value[..len].escape_ascii().to_string())
}

pub(crate) fn set_host_xattr(path: &Path, name: &str, value: &[u8]) {
    let file = pin_path(path, false).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    Proc::open().unwrap().set_xattr(file.as_fd(), &name, value, 0).unwrap();
}

/// Everything that a tree is: types, modes, owners, sizes, link targets and contents.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            std::fs::read(&path).unwrap().escape_ascii().to_string()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let record = if meta.is_symlink() { None } else { host_xattr(&path, RECORD) };
        let text = format!(
            "{:o} {}:{} {} links {} {record:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.len(),
            meta.nlink()
        );
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, text);
    }
    found
}

/// Whether this process is root, said aloud where it is not and a test must be skipped.
pub(crate) fn is_root(what: &str) -> bool {
    let root = stratafs_sys::creds::effective().0 == 0;
    if !root {
        eprintln!("SKIPPED: {what} takes root");
    }
    root
}

const CHILD: &str = "STRATAFS_PASSTHROUGH_TEST_CHILD";

/// How a test goes on in a process of its own.
pub(crate) enum As {
    SameUser,
    Nobody,
}

/// Whether this is the process in which `test` is to run. If not, it is started, and must succeed:
/// limits and users belong to a whole process.
pub(crate) fn in_child(test: &str, user: As) -> bool {
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        return true;
    }
    // A copy, for the build directory may be out of an unprivileged user's reach.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, test).env("TMPDIR", dir.path());
    if matches!(user, As::Nobody) {
        use std::os::unix::process::CommandExt;
        command.uid(NOBODY).gid(NOBODY);
    }
    // A process that another test starts at this moment may still have the copy open for writing.
    let start = Instant::now();
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                assert!(start.elapsed() < DEADLINE, "{error}");
                std::thread::yield_now();
            }
            output => break output.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Runs `work` on a thread of its own, and fails if it has not ended by the deadline, which comes so
/// much later as the work is told to go on.
pub(crate) fn within_deadline<T: Send + 'static>(
    told: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    outcome.recv_timeout(told + DEADLINE).unwrap()
}

/// What was logged since the start.
pub(crate) fn logged() -> &'static Mutex<Vec<String>> {
    struct Keeper;
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static INSTALLED: OnceLock<()> = OnceLock::new();

    impl log::Log for Keeper {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }

    INSTALLED.get_or_init(|| {
        log::set_logger(&Keeper).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    &LINES
}
