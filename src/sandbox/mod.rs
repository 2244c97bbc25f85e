//! What a server takes from itself before it serves: namespaces, another root directory,
//! privileges, system calls.
//!
//! ```no_run
//! use stratafs::sandbox::{Begun, Sandbox, Tree};
//!
//! let begun = Sandbox::new().tree(Tree::new(["/srv/guest"])).begin()?;
//! if let Begun::Inside(mut inside) = begun {
//!     // `/srv/guest` is here, and nothing else of the host: open it.
//!     inside.confine()?;
//!     // Serve.
//!     inside.ready();
//! }
//! # Ok::<(), stratafs::sandbox::SandboxError>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`] | why there is no sandbox, and what to do |
//! | `pair` | the process outside and the one inside |
//! | `ids` | which users a user namespace knows |
//! | `root` | a root directory with what is served, and nothing else |
//! | [`seccomp`] | the system calls that serving takes |
//!
//! # Two processes
//!
//! With namespaces or another root directory the server is a child, the first process of its own
//! process namespace. The process that was started stays outside, where the server's socket has a
//! name: it waits, passes signals on, removes the socket at the end, and exits as the server did.
//! It is what a manager of services knows. When it dies the server is killed.
//!
//! # The order
//!
//! Each step takes what the next would forbid. The socket is bound and the process forked while
//! the host's paths are there; the id maps are written from outside; copies of the served trees are
//! made before the root changes; the filesystem is opened in the new root, without privilege;
//! then Landlock, which needs directories to name, and seccomp, which allows none of this.
//!
//! # What it does not hold up
//!
//! The filesystems confine a guest by themselves: by names without a slash, and by descriptors
//! beneath which every path is resolved. This is for the day on which one of them is wrong.
//!
//! # Absences
//!
//! It knows directories and no filesystem, and no transport.

pub mod error;
mod ids;
mod pair;
mod root;
pub mod seccomp;

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bitflags::bitflags;
use stratafs_core::Errno;
use stratafs_sys::capability::{self, Capabilities};
use stratafs_sys::namespace::{self, Namespaces};
use stratafs_sys::proc::Proc;
use stratafs_sys::{creds, landlock, openat, process};

pub use error::SandboxError;
pub use pair::Outside;
pub use seccomp::Action;

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    creds::effective().0 == 0
}

/// How the server is kept from the host's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In namespaces of its own, with a root directory that holds what is served alone.
    #[default]
    Namespace,
    /// In an empty root directory. It takes root, and is weaker.
    Chroot,
    /// Not at all; there is one process.
    None,
}

bitflags! {
    /// What a server may keep that takes privilege on the host.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Privileges: u8 {
        /// To act as every owner of files, and to make files of every kind and owner.
        const EVERY_OWNER = 1;
        /// To change files whoever owns them, and no owners.
        const EVERY_FILE = 1 << 1;
        /// Attributes of the kind `trusted.`; it is as much as being root.
        const TRUSTED_ATTRIBUTES = 1 << 2;
    }
}

impl Privileges {
    fn capabilities(self) -> Capabilities {
        let mut needed = Capabilities::empty();
        if self.intersects(Self::EVERY_OWNER | Self::EVERY_FILE) {
            needed |= Capabilities::DAC_OVERRIDE | Capabilities::FOWNER | Capabilities::FSETID;
        }
        if self.contains(Self::EVERY_OWNER) {
            needed |= Capabilities::CHOWN
                | Capabilities::DAC_READ_SEARCH
                | Capabilities::MKNOD
                | Capabilities::SETFCAP;
        }
        if self.contains(Self::TRUSTED_ATTRIBUTES) {
            needed |= Capabilities::SYS_ADMIN;
        }
        needed
    }
}

/// Directories of the host that are served, or belong to what is.
#[derive(Clone, Debug)]
pub struct Tree {
    directories: Vec<PathBuf>,
    is_readonly: bool,
}

impl Tree {
    /// These directories, or single files. Several are such between which files are renamed: they
    /// stay on one mount.
    pub fn new(directories: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { directories: directories.into_iter().map(Into::into).collect(), is_readonly: false }
    }

    /// Says that nothing in them is ever changed.
    #[must_use]
    pub fn readonly(mut self, is_readonly: bool) -> Self {
        self.is_readonly = is_readonly;
        self
    }
}

/// What is to be taken, and what is to be left.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Sandbox {
    mode: Mode,
    is_required: bool,
    trees: Vec<Tree>,
    privileges: Privileges,
    seccomp: Action,
}

impl Sandbox {
    /// Namespaces, no directory, no privilege, and death for a forbidden system call.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another way to keep it from the host's files.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether what cannot be had is an error, and not a warning. Landlock is none of it: a kernel
    /// without has the others.
    pub fn required(mut self, is_required: bool) -> Self {
        self.is_required = is_required;
        self
    }

    /// Leaves a tree.
    pub fn tree(mut self, tree: Tree) -> Self {
        self.trees.push(tree);
        self
    }

    /// Leaves privileges, of those that the process has.
    pub fn privileges(mut self, privileges: Privileges) -> Self {
        self.privileges |= privileges;
        self
    }

    /// What becomes of a server that makes a system call that serving does not take.
    pub fn seccomp(mut self, action: Action) -> Self {
        self.seccomp = action;
        self
    }

    /// Whether every directory is there; if not, whoever opens them says it better.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut paths = self.trees.iter().flat_map(|tree| &tree.directories);
        paths.all(|path| openat::pin_path(path, true).is_ok())
    }

    /// Goes in, as far as it can be before the directories are opened. This process must have one
    /// thread.
    ///
    /// # Errors
    /// [`SandboxError`]; then this process is to end. The two processes fail each for itself.
    pub fn begin(self) -> Result<Begun, SandboxError> {
        match self.mode {
            Mode::None => Inside::new(self, None).limited().map(Begun::Inside),
            Mode::Chroot => pair::split(&self, None).and_then(|split| split.begun(self)),
            Mode::Namespace => {
                let kinds = self.namespaces();
                pair::split(&self, Some(kinds)).and_then(|split| split.begun(self))
            }
        }
    }

    /// A user namespace wherever no privilege is needed on the host: one of a namespace makes no
    /// device node and no `trusted.` attribute.
    fn namespaces(&self) -> Namespaces {
        let others = Namespaces::MOUNT | Namespaces::PID | Namespaces::NETWORK | Namespaces::IPC;
        if is_root() && !self.privileges.is_empty() { others } else { others | Namespaces::USER }
    }
}

/// Which of the two this process is.
#[derive(Debug)]
pub enum Begun {
    /// The one outside: it waits.
    Outside(Outside),
    /// The server, or all there is.
    Inside(Inside),
}

/// The server's process, on its way in.
#[derive(Debug)]
pub struct Inside {
    sandbox: Sandbox,
    /// To the process outside.
    link: Option<UnixStream>,
    active: Active,
}

/// What holds, for the log.
#[derive(Debug, Default)]
struct Active {
    namespaces: Option<Namespaces>,
    root: Option<&'static str>,
    capabilities: Capabilities,
    landlock: bool,
    seccomp: Action,
}

impl Inside {
    fn new(sandbox: Sandbox, link: Option<UnixStream>) -> Self {
        Self { sandbox, link, active: Active { seccomp: Action::None, ..Active::default() } }
    }

    /// Whether there is no process outside.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.link.is_none()
    }

    /// In the new namespaces, where there are any: changes the root.
    fn rooted(mut self, namespaces: Option<Namespaces>) -> Result<Self, SandboxError> {
        self.active.namespaces = namespaces;
        if namespaces.is_none() {
            return Ok(self);
        }
        let trees = &self.sandbox.trees;
        match root::change(trees) {
            Ok(root) => self.active.root = Some(root),
            Err(failed) if failed.is_fatal => return Err(failed.into()),
            Err(failed) => self.lacks(failed.into())?,
        }
        Ok(self)
    }

    /// Gives up privileges.
    fn limited(mut self) -> Result<Self, SandboxError> {
        let failed = |operation| move |error| SandboxError::failed(operation, error);
        process::gain_no_privileges().map_err(failed("forgo privileges"))?;
        let mut keep = self.sandbox.privileges.capabilities();
        if self.sandbox.mode == Mode::Chroot {
            // And what takes it out of the bounding set afterwards.
            keep |= Capabilities::SYS_CHROOT | Capabilities::SETPCAP;
        }
        self.active.capabilities =
            capability::limit_to(keep).map_err(failed("give up capabilities"))?;
        Ok(self)
    }

    /// Goes all the way in: from now on nothing of the host but what was opened, and what lies
    /// below the trees, can be reached, and no system call but those of serving made.
    ///
    /// # Errors
    /// [`SandboxError`]: something cannot be had that is required.
    pub fn confine(&mut self) -> Result<(), SandboxError> {
        let directories = if self.sandbox.mode == Mode::None { None } else { Some(self.pinned()?) };
        if self.sandbox.mode == Mode::Chroot {
            match change_to_empty_root() {
                Ok(()) => self.active.root = Some("empty"),
                Err(error) => self.lacks(SandboxError::failed("chroot", error))?,
            }
            self.active.capabilities = capability::limit_to(self.sandbox.privileges.capabilities())
                .map_err(|error| SandboxError::failed("give up capabilities", error))?;
        }
        if let Some(directories) = directories {
            let directories: Vec<_> = directories.iter().map(OwnedFd::as_fd).collect();
            match landlock::restrict_to(&directories) {
                Ok(()) => self.active.landlock = true,
                Err(error) => log::info!("sandbox: Landlock: {error}"),
            }
        }
        match seccomp::install(self.sandbox.seccomp) {
            Ok(()) => self.active.seccomp = self.sandbox.seccomp,
            Err(error) => self.lacks(error)?,
        }
        log::info!("sandbox: {}", self.active);
        Ok(())
    }

    /// Tells the process outside that the server serves.
    pub fn ready(&self) {
        if let Some(mut link) = self.link.as_ref() {
            // It is gone only if this process is about to be.
            let _ = link.write_all(&[pair::READY]);
        }
    }

    fn lacks(&self, error: SandboxError) -> Result<(), SandboxError> {
        self.sandbox.lacks(error)
    }

    /// The directories that a thread may change things below.
    fn pinned(&self) -> Result<Vec<OwnedFd>, SandboxError> {
        let mut pinned = Vec::new();
        for path in self.sandbox.trees.iter().flat_map(|tree| &tree.directories) {
            let failed = |error| SandboxError::failed("open what is served", error);
            let is_directory = path.metadata().map_err(failed)?.is_dir();
            let directory = if is_directory { path } else { parent(path) };
            pinned.push(openat::pin_path(directory, true).map_err(failed)?);
        }
        Ok(pinned)
    }
}

impl Sandbox {
    /// What cannot be had: an error if it is required, and otherwise a warning.
    fn lacks(&self, error: SandboxError) -> Result<(), SandboxError> {
        if self.is_required {
            return Err(error);
        }
        log::warn!("sandbox: {error}");
        Ok(())
    }
}

/// A single file is found by its name in its directory.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A directory that was removed: nothing is in it and nothing can be made in it.
fn change_to_empty_root() -> io::Result<()> {
    let proc = Proc::open()?;
    let path = std::env::temp_dir().join(format!("stratafs-root-{}", std::process::id()));
    std::fs::create_dir(&path)?;
    let opened = File::open(&path);
    std::fs::remove_dir(&path)?;
    namespace::change_directory(opened?.as_fd())?;
    namespace::change_root(Path::new("."))?;
    // Attributes are reached through /proc before Linux 6.13.
    proc.enter()
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespaces {
            Some(kinds) => {
                f.write_str("namespaces")?;
                for (name, _) in kinds.iter_names() {
                    write!(f, " {}", name.to_ascii_lowercase())?;
                }
            }
            None => f.write_str("no namespaces")?,
        }
        write!(f, "; root: {}; no_new_privs", self.root.unwrap_or("the host's"))?;
        if self.capabilities.is_empty() {
            f.write_str("; no capabilities")?;
        } else {
            f.write_str("; capabilities")?;
            for (name, _) in self.capabilities.iter_names() {
                write!(f, " {}", name.to_ascii_lowercase())?;
            }
        }
        f.write_str(if self.landlock { "; Landlock" } else { "; no Landlock" })?;
        write!(f, "; seccomp: {}", self.seccomp)
    }
}

/// How a step failed that was one of several.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
