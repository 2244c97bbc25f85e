//! Building a [`DualFs`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use stratafs_core::{
    Behaviours, Cache, CachePolicy, Context, DynFileSystem, Errno, Features, NodeId, OpKind,
};

use crate::DualFs;
use crate::policy::{DispatchPolicy, Look, ReadBackendBWriteBackendA, Request, Side};
use crate::record::Namespace;
use crate::stage::Staging;

/// Why no filesystem was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A backend is missing.
    #[error(
        "building a dual filesystem (EINVAL): {side} is missing; give backend_a(…) and backend_b(…)"
    )]
    Missing {
        /// Which one.
        side: Side,
    },
    /// Both are one.
    #[error(
        "building a dual filesystem: both backends are one filesystem (ELOOP): what is written \
         would change what is read; use two"
    )]
    Twice,
    /// The side that is written can't do what is needed.
    #[error(
        "building a dual filesystem: {side} ({kind}) is written and lacks {lacks} (EOPNOTSUPP): \
         {why}; use another filesystem there, or the policy backend-a-only"
    )]
    Unfit {
        /// Which one.
        side: Side,
        /// What kind of filesystem it is.
        kind: &'static str,
        /// What it lacks.
        lacks: &'static str,
        /// What that is needed for.
        why: &'static str,
    },
    /// A backend's root is no directory.
    #[error("building a dual filesystem: the root of {side} is no directory (ENOTDIR)")]
    NotADirectory {
        /// Which one.
        side: Side,
    },
    /// A backend answered an error.
    #[error("building a dual filesystem: {operation} of {side}: {errno}")]
    Backend {
        /// What was tried.
        operation: &'static str,
        /// Which one.
        side: Side,
        /// What it answered.
        errno: Errno,
    },
}

/// What a dual filesystem is to be like; see [`DualFs::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    a: Option<Arc<dyn DynFileSystem>>,
    b: Option<Arc<dyn DynFileSystem>>,
    policy: Arc<dyn DispatchPolicy>,
    userxattr: bool,
    cache: Cache,
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("a", &self.a)
            .field("b", &self.b)
            .field("policy", &self.policy.name())
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            a: None,
            b: None,
            policy: Arc::new(ReadBackendBWriteBackendA),
            userxattr: false,
            cache: Cache::default(),
            kept: None,
        }
    }
}

/// What was built from, settled.
pub(crate) struct Parts {
    pub(crate) sides: [Arc<dyn DynFileSystem>; 2],
    pub(crate) policy: Arc<dyn DispatchPolicy>,
    pub(crate) staging: Option<Staging>,
    pub(crate) names: Namespace,
    pub(crate) cache: Cache,
    pub(crate) kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl Builder {
    /// Backend A, as a whole.
    pub fn backend_a(mut self, fs: Arc<dyn DynFileSystem>) -> Self {
        self.a = Some(fs);
        self
    }

    /// Backend B, as a whole.
    pub fn backend_b(mut self, fs: Arc<dyn DynFileSystem>) -> Self {
        self.b = Some(fs);
        self
    }

    /// Which of the two an operation goes to. [`ReadBackendBWriteBackendA`] if not called.
    pub fn policy(self, policy: impl DispatchPolicy + 'static) -> Self {
        self.shared_policy(Arc::new(policy))
    }

    /// As [`policy`](Self::policy), with one that is chosen at run time.
    pub fn shared_policy(mut self, policy: Arc<dyn DispatchPolicy>) -> Self {
        self.policy = policy;
        self
    }

    /// Whether records are kept in `user.dual.*`, which takes no privilege, and not in
    /// `trusted.dual.*`. Off if not called. Records of one kind are not found by the other.
    pub fn userxattr(mut self, userxattr: bool) -> Self {
        self.userxattr = userxattr;
        self
    }

    /// Keeps `what` until the filesystem is gone: a claim on the written side, for one, of which two
    /// such filesystems at a time would each clear away what the other stages.
    pub fn keep(mut self, what: impl Any + Send + Sync) -> Self {
        self.kept = Some(Arc::new(what));
        self
    }

    /// What clients may cache, with the timeouts that belong to it. `Auto` if not called.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.cache = Cache::new(policy);
        self
    }

    /// How long a client may take a name to lead to its node. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn entry_timeout(mut self, timeout: Duration) -> Self {
        self.cache.entry_timeout = timeout;
        self
    }

    /// How long a client may keep attributes. Call after [`cache_policy`](Self::cache_policy).
    pub fn attr_timeout(mut self, timeout: Duration) -> Self {
        self.cache.attr_timeout = timeout;
        self
    }

    /// How long a client may take a name to be absent. Call after
    /// [`cache_policy`](Self::cache_policy).
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.cache.negative_timeout = timeout;
        self
    }

    /// Builds the filesystem. What a crash left in the staging directory is removed.
    ///
    /// # Errors
    /// [`BuildError`] says what does not fit.
    pub fn build(self) -> Result<DualFs, BuildError> {
        let a = self.a.ok_or(BuildError::Missing { side: Side::A })?;
        let b = self.b.ok_or(BuildError::Missing { side: Side::B })?;
        if Arc::ptr_eq(&a, &b) {
            return Err(BuildError::Twice);
        }
        let sides = [a, b];
        let look = self.policy.plan(&Request::new(OpKind::Lookup, false)).look;
        let writes = self.policy.written();
        for (side, fs) in [Side::A, Side::B].into_iter().zip(&sides) {
            check_root(side, fs)?;
        }
        let of = |side| if side == Side::A { &sides[0] } else { &sides[1] };
        let names = if self.userxattr { Namespace::User } else { Namespace::Trusted };
        // Where only the written side is looked at, nothing is transferred and nothing hidden.
        let staging = match look {
            Look::Only(only) if only == writes => None,
            _ => {
                check_fit(writes, of(writes).features(), self.userxattr)?;
                let opened = Staging::open(writes, of(writes));
                Some(opened.map_err(|errno| BuildError::Backend {
                    operation: "making the staging directory",
                    side: writes,
                    errno,
                })?)
            }
        };
        let (policy, cache, kept) = (self.policy, self.cache, self.kept);
        let parts = Parts { sides, policy, staging, names, cache, kept };
        DualFs::from_parts(parts).map_err(|errno| BuildError::Backend {
            operation: "looking at the root",
            side: writes,
            errno,
        })
    }
}

fn check_root(side: Side, fs: &Arc<dyn DynFileSystem>) -> Result<(), BuildError> {
    match fs.getattr(&Context::internal(), NodeId::ROOT, None) {
        Ok(root) if root.attr.is_dir() => Ok(()),
        Ok(_) => Err(BuildError::NotADirectory { side }),
        Err(errno) => Err(BuildError::Backend { operation: "looking at the root", side, errno }),
    }
}

fn check_fit(side: Side, features: Features, userxattr: bool) -> Result<(), BuildError> {
    let records = if userxattr {
        (Behaviours::XATTR_USER, "attributes in user.", "records are kept there")
    } else {
        (
            Behaviours::XATTR_TRUSTED,
            "attributes in trusted.",
            "records are kept there, unless userxattr says otherwise",
        )
    };
    let needed = [
        records,
        (
            Behaviours::EXCHANGE,
            "RENAME_EXCHANGE",
            "the mark of a deletion takes a directory's place in one step",
        ),
        (
            Behaviours::STAGING_RENAME,
            "renames between any two directories",
            "what is staged is moved to its place",
        ),
    ];
    let unfit = |lacks, why| BuildError::Unfit { side, kind: features.kind, lacks, why };
    if features.bears(Behaviours::READ_ONLY) {
        return Err(unfit("write access", "it takes all changes"));
    }
    match needed.into_iter().find(|(behaviour, _, _)| !features.bears(*behaviour)) {
        Some((_, lacks, why)) => Err(unfit(lacks, why)),
        None => Ok(()),
    }
}
