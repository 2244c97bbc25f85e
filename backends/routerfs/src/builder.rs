//! Building a [`RouterFs`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stratafs_core::{
    Cache, CachePolicy, Context, DynFileSystem, Errno, Features, NameBuf, Needs, NodeId,
};

use crate::ids::{FIRST, INDICES};
use crate::{MountFlags, RouterFs, path};

/// Why no router was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is nothing to show.
    #[error("building a router (EINVAL): nothing is mounted; give at least one mount(…)")]
    NoMounts,
    /// A place that is none.
    #[error(
        "building a router: {path:?} is no place in the tree (EINVAL); give a path that begins with \
         / and has no . or .. in it"
    )]
    NoPlace {
        /// As it was given.
        path: PathBuf,
    },
    /// Two filesystems at one place.
    #[error("building a router: {path} is mounted twice (EBUSY); remove one of the two")]
    Twice {
        /// The place.
        path: String,
    },
    /// More filesystems than ids can tell apart.
    #[error("building a router: there are more than {most} mounts beside the root (ENOSPC)")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
    /// The root of a filesystem is no directory.
    #[error("building a router: the root of what is mounted at {path} is no directory (ENOTDIR)")]
    NotADirectory {
        /// Where it is mounted.
        path: String,
    },
    /// Filesystems that differ in who keeps locks.
    #[error(
        "building a router: what is mounted at {keeps} keeps file locks itself, and what is mounted \
         at {leaves} leaves them to the client's kernel (EINVAL), which asks for all files or for \
         none; let all of them keep locks, or none"
    )]
    MixedLocks {
        /// Where one is mounted that keeps them.
        keeps: String,
        /// Where one is that does not.
        leaves: String,
    },
    /// A filesystem answered an error.
    #[error("building a router: looking at what is mounted at {path}: {errno}")]
    Member {
        /// Where it is mounted.
        path: String,
        /// What it answered.
        errno: Errno,
    },
}

/// Locks that a client asks for, for all files or for none.
pub(crate) const LOCKS: Needs = Needs::POSIX_LOCKS.union(Needs::FLOCK);

/// A filesystem and where it is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) names: Vec<NameBuf>,
    pub(crate) fs: Arc<dyn DynFileSystem>,
    pub(crate) flags: MountFlags,
}

/// What a router is to be like; see [`RouterFs::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    mounts: Vec<(PathBuf, Arc<dyn DynFileSystem>, MountFlags)>,
    expected: Vec<Features>,
    cache: Cache,
}

impl Builder {
    /// Mounts `fs` at `path`, which begins with `/`. What is not under the path of a mount belongs to
    /// the one at `/`; without that, the root shows nothing but mounts.
    pub fn mount(self, path: impl AsRef<Path>, fs: Arc<dyn DynFileSystem>) -> Self {
        self.mount_with(path, fs, MountFlags::empty())
    }

    /// As [`mount`](Self::mount), with these flags.
    pub fn mount_with(
        mut self,
        path: impl AsRef<Path>,
        fs: Arc<dyn DynFileSystem>,
        flags: MountFlags,
    ) -> Self {
        self.mounts.push((path.as_ref().to_owned(), fs, flags));
        self
    }

    /// Says that a filesystem with these features may be mounted later, so that the router's own
    /// leave room for it: they never change. Without a call, what is mounted later must promise at
    /// least as much, and need no more, than what was there at the start.
    pub fn expecting(mut self, features: Features) -> Self {
        self.expected.push(features);
        self
    }

    /// What clients may cache of the names of mounts, and of directories that are made up, with the
    /// timeouts that belong to it. `Auto` if not called. Each filesystem decides for what is in it.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.cache = Cache::new(policy);
        self
    }

    /// How long a client may take a name to lead to a mount. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn entry_timeout(mut self, timeout: Duration) -> Self {
        self.cache.entry_timeout = timeout;
        self
    }

    /// How long a client may keep the attributes of directories that are made up. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn attr_timeout(mut self, timeout: Duration) -> Self {
        self.cache.attr_timeout = timeout;
        self
    }

    /// How long a client may take a name in such a directory to be absent. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.cache.negative_timeout = timeout;
        self
    }

    /// Builds the router.
    ///
    /// # Errors
    /// [`BuildError`] says what does not fit.
    pub fn build(self) -> Result<RouterFs, BuildError> {
        let mut planned: Vec<Planned> = Vec::new();
        for (at, fs, flags) in self.mounts {
            let names = path::parse(&at).ok_or(BuildError::NoPlace { path: at })?;
            if planned.iter().any(|other| other.names == names) {
                return Err(BuildError::Twice { path: path::show(&names) });
            }
            check_root(&names, &fs)?;
            planned.push(Planned { names, fs, flags });
        }
        if planned.is_empty() {
            return Err(BuildError::NoMounts);
        }
        let most = INDICES - FIRST;
        if planned.iter().filter(|mount| !mount.names.is_empty()).count() > most {
            return Err(BuildError::TooMany { most });
        }
        refuse_mixed_locks(&planned)?;
        // A mount is looked for in what is around it, so that comes first.
        planned.sort_by_key(|mount| mount.names.len());
        Ok(RouterFs::from_builder(planned, &self.expected, self.cache))
    }
}

fn check_root(names: &[NameBuf], fs: &Arc<dyn DynFileSystem>) -> Result<(), BuildError> {
    match fs.getattr(&Context::internal(), NodeId::ROOT, None) {
        Ok(root) if root.attr.is_dir() => Ok(()),
        Ok(_) => Err(BuildError::NotADirectory { path: path::show(names) }),
        Err(errno) => Err(BuildError::Member { path: path::show(names), errno }),
    }
}

fn refuse_mixed_locks(planned: &[Planned]) -> Result<(), BuildError> {
    let locks = |mount: &&Planned| mount.fs.features().needs & LOCKS;
    let Some(keeps) = planned.iter().find(|mount| !locks(mount).is_empty()) else { return Ok(()) };
    let Some(leaves) = planned.iter().find(|mount| locks(mount) != locks(&keeps)) else {
        return Ok(());
    };
    Err(BuildError::MixedLocks {
        keeps: path::show(&keeps.names),
        leaves: path::show(&leaves.names),
    })
}
