//! How much of the host's tree a sandbox sees: tables of mounts that are used as they are.
//!
//! ```no_run
//! use stratafs::mount_mode::MountMode;
//!
//! // What is below the home directory, at its own path, and memory everywhere else.
//! let fs = MountMode::default().build()?;
//! # Ok::<(), stratafs::mount_mode::MountModeError>(())
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_memfs::MemFs;
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::PassthroughFs;
use stratafs_routerfs::RouterFs;

/// A table of mounts.
///
/// Paths that a table does not name belong to the mount at `/`. Nothing of the host is reached but what
/// a table names, by no path and by no link: symlinks are followed by the client, whose root is the
/// table's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountMode {
    /// The host's whole tree, and memory at `/v`.
    ///
    /// | place | what is there |
    /// |---|---|
    /// | `/` | the host's `/` |
    /// | `/v` | memory |
    Passthrough,
    /// One directory of the host, at its own path.
    ///
    /// | place | what is there |
    /// |---|---|
    /// | `/` | memory |
    /// | `root` | the host's `root` |
    /// | `/tmp` | memory, or the host's with [`Mounts::share_tmp`] |
    /// | `/v` | memory |
    Sandboxed {
        /// The directory; `$HOME` if none is given.
        root: Option<PathBuf>,
    },
    /// Memory alone. No file of the host is touched.
    ///
    /// | place | what is there |
    /// |---|---|
    /// | `/`, `/tmp`, `/v` | memory |
    NoLocal,
    /// One directory of the host, at its own path; what is changed there stays in memory.
    ///
    /// | place | what is there |
    /// |---|---|
    /// | `/` | memory |
    /// | `root` | the host's `root`, below a writable layer in memory |
    /// | `/tmp`, `/v` | memory |
    CopyOnWrite {
        /// The directory; `$HOME` if none is given.
        root: Option<PathBuf>,
    },
}

impl Default for MountMode {
    /// [`Sandboxed`](Self::Sandboxed) in `$HOME`.
    fn default() -> Self {
        Self::Sandboxed { root: None }
    }
}

/// Why no table was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountModeError {
    /// There is no `$HOME`.
    #[error("building a sandbox (ENOENT): no root is given and $HOME is not set; give the root")]
    NoHome,
    /// A directory of the host can't be shared.
    #[error(transparent)]
    Host(#[from] stratafs_passthroughfs::BuildError),
    /// Memory can't be had.
    #[error(transparent)]
    Memory(#[from] stratafs_memfs::BuildError),
    /// The copy-on-write layer can't be had.
    #[error(transparent)]
    Overlay(#[from] stratafs_overlayfs::BuildError),
    /// The places do not make a table.
    #[error(transparent)]
    Router(#[from] stratafs_routerfs::BuildError),
}

impl MountMode {
    /// The table, to be settled further.
    pub fn mounts(self) -> Mounts {
        Mounts { mode: self, share_tmp: false }
    }

    /// Builds the table as it is.
    ///
    /// # Errors
    /// [`MountModeError`] says what can't be had.
    pub fn build(self) -> Result<RouterFs, MountModeError> {
        self.mounts().build()
    }
}

/// A [`MountMode`] with options.
#[derive(Clone, Debug)]
#[must_use]
pub struct Mounts {
    mode: MountMode,
    share_tmp: bool,
}

impl Mounts {
    /// Whether `/tmp` of a sandbox is the host's. Off if not called.
    pub fn share_tmp(mut self, share_tmp: bool) -> Self {
        self.share_tmp = share_tmp;
        self
    }

    /// Builds the table.
    ///
    /// # Errors
    /// [`MountModeError`] says what can't be had.
    pub fn build(self) -> Result<RouterFs, MountModeError> {
        let mut table: Vec<(PathBuf, Arc<dyn DynFileSystem>)> = Vec::new();
        match &self.mode {
            MountMode::Passthrough => table.push(("/".into(), host(Path::new("/"))?)),
            MountMode::Sandboxed { root } => {
                let root = or_home(root.as_deref())?;
                table.push((root.clone(), host(&root)?));
                if self.share_tmp && root != Path::new("/tmp") {
                    table.push(("/tmp".into(), host(Path::new("/tmp"))?));
                }
            }
            MountMode::NoLocal => {}
            MountMode::CopyOnWrite { root } => {
                let root = or_home(root.as_deref())?;
                table.push((root.clone(), copy_on_write(&root)?));
            }
        }
        let memories: &[&str] = match self.mode {
            MountMode::Passthrough => &["/v"],
            _ => &["/", "/tmp", "/v"],
        };
        for place in memories {
            if !table.iter().any(|(taken, _)| taken == Path::new(place)) {
                let mode = if *place == "/tmp" { 0o1777 } else { 0o755 };
                table.push(((*place).into(), Arc::new(MemFs::builder().root_mode(mode).build()?)));
            }
        }
        let builder = RouterFs::builder();
        let mount = |builder: stratafs_routerfs::Builder, (place, fs)| builder.mount(place, fs);
        Ok(table.into_iter().fold(builder, mount).build()?)
    }
}

fn or_home(root: Option<&Path>) -> Result<PathBuf, MountModeError> {
    match root {
        Some(root) => Ok(root.to_owned()),
        None => std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .ok_or(MountModeError::NoHome),
    }
}

/// The directory may be a symlink, as a home directory often is: what it leads to is shown there.
fn host(dir: &Path) -> Result<Arc<dyn DynFileSystem>, MountModeError> {
    Ok(Arc::new(PassthroughFs::builder().root_dir(dir).follow_root(true).build()?))
}

fn copy_on_write(dir: &Path) -> Result<Arc<dyn DynFileSystem>, MountModeError> {
    let lower = PassthroughFs::builder().root_dir(dir).follow_root(true).readonly(true).build()?;
    let upper = Arc::new(MemFs::builder().build()?);
    Ok(Arc::new(OverlayFs::builder().layer(Arc::new(lower)).writable(upper).build()?))
}
