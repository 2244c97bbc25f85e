//! Building an [`OverlayFs`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use stratafs_core::{Behaviours, Cache, CachePolicy, DynFileSystem, Errno, Features, Name};

use crate::OverlayFs;
use crate::format::{Namespace, Record};
use crate::fs::Upper;
use crate::layer::{Item, Layer, Real, UPPER};
use crate::{index, stage};

/// What becomes of directories with lower parts that are renamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectDir {
    /// They are renamed, which leaves a record in them; such records are followed.
    #[default]
    On,
    /// Renaming one is EXDEV, upon which mv(1) copies it; records that are there are followed. The
    /// kernel's `off`, as it is built by default.
    Off,
    /// As [`Off`](Self::Off).
    Follow,
    /// As [`Off`](Self::Off), and a directory with a record cannot be looked up: EPERM. For layers
    /// whose author is not trusted to show one place of a layer in another.
    NoFollow,
}

/// How layers mark deletions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// As the kernel's overlay does: a character device `0:0`, an attribute of an opaque directory.
    #[default]
    Kernel,
    /// In read-only layers also as an OCI layer does: `.wh.NAME` and `.wh..wh..opq`.
    Oci,
}

/// Why no overlay was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is nothing to show.
    #[error(
        "building an overlay (EINVAL): it has no layer; give at least one by layer(…) or writable(…)"
    )]
    NoLayers,
    /// A staging directory without a writable layer.
    #[error(
        "building an overlay (EINVAL): it has a staging directory and no writable layer to be \
         staged for; give writable(…), or drop staging(…)"
    )]
    NothingToStage,
    /// The writable layer can't do what is needed.
    #[error(
        "building an overlay: the writable layer ({kind}) lacks {lacks} (EOPNOTSUPP): {why}; put \
         the writable layer on another filesystem"
    )]
    Unfit {
        /// What kind of filesystem it is.
        kind: &'static str,
        /// What it lacks.
        lacks: &'static str,
        /// What that is needed for.
        why: &'static str,
    },
    /// The staging directory is on another filesystem than the writable layer.
    #[error(
        "building an overlay: the staging directory is on another filesystem than the writable \
         layer (EXDEV): nothing can be moved from one to the other in one step; use a directory \
         beside the writable layer's"
    )]
    StagingElsewhere,
    /// One directory is used twice.
    #[error(
        "building an overlay: {first} and {second} are one directory (ELOOP): what is written \
         would change what is read; use two directories"
    )]
    Twice {
        /// One use of it.
        first: String,
        /// The other.
        second: &'static str,
    },
    /// A layer's root is no directory.
    #[error("building an overlay: the root of {layer} is no directory (ENOTDIR)")]
    NotADirectory {
        /// Which layer.
        layer: String,
    },
    /// The writable layer was used in a way that leaves it in doubt.
    #[error(
        "building an overlay: the writable layer was last used with the option {feature} \
         (EUCLEAN), which promises nothing after a crash: discard it, or, if the host did not crash, \
         remove work/incompat/{feature} from the staging directory"
    )]
    Incompatible {
        /// The option.
        feature: String,
    },
    /// The writable layer was last used with a form of this overlay's own.
    #[error(
        "building an overlay: the writable layer was last used with userxattr and redirect_dir=on \
         (EUCLEAN), which the kernel does not know together: give both, or remove \
         work/incompat/{EXTENDED} from the staging directory and let renamed directories be empty"
    )]
    Extended,
    /// Two options do not go together.
    #[error("building an overlay (EINVAL): {option} does not go together with {other}: {why}")]
    Conflict {
        /// The one.
        option: &'static str,
        /// The other.
        other: &'static str,
        /// Why.
        why: &'static str,
    },
    /// The index belongs to other layers.
    #[error(
        "building an overlay: the index in the staging directory is for {what} (ESTALE): names of \
         one file would be taken for those of another; use the layers that it was made with, or \
         index=off, with which copied files part with their other names"
    )]
    OtherLayers {
        /// What it is for.
        what: &'static str,
    },
    /// A layer answered an error.
    #[error("building an overlay: {operation} of {layer}: {errno}")]
    Layer {
        /// What was tried.
        operation: &'static str,
        /// Which layer.
        layer: String,
        /// What it answered.
        errno: Errno,
    },
}

/// The settled options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) redirect_dir: RedirectDir,
    pub(crate) oci: bool,
    pub(crate) volatile: bool,
    pub(crate) metacopy: bool,
    pub(crate) xino: bool,
    /// Where records are kept.
    pub(crate) names: Namespace,
}

impl Options {
    pub(crate) fn makes_redirects(&self) -> bool {
        self.redirect_dir == RedirectDir::On
    }

    pub(crate) fn follows_redirects(&self) -> bool {
        self.redirect_dir != RedirectDir::NoFollow
    }
}

/// What an overlay is to be like; see [`OverlayFs::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    /// The bottom first.
    layers: Vec<Layer>,
    writable: Option<Layer>,
    staging: Option<Layer>,
    redirect_dir: Option<RedirectDir>,
    whiteouts: Whiteouts,
    volatile: bool,
    userxattr: bool,
    metacopy: bool,
    index: Option<bool>,
    xino: bool,
    cache: Cache,
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            writable: None,
            staging: None,
            redirect_dir: None,
            whiteouts: Whiteouts::default(),
            volatile: false,
            userxattr: false,
            metacopy: false,
            index: None,
            xino: true,
            cache: Cache::default(),
            kept: None,
        }
    }
}

impl Builder {
    /// Puts a read-only layer on top of those given before: **the bottom layer comes first**, the
    /// other way round than in `lowerdir=`.
    pub fn layer(mut self, layer: impl Into<Layer>) -> Self {
        self.layers.push(layer.into());
        self
    }

    /// The layer that takes all changes, on top of all others. Without one every change is EROFS.
    pub fn writable(mut self, layer: impl Into<Layer>) -> Self {
        self.writable = Some(layer.into());
        self
    }

    /// A directory on the writable layer's filesystem, beside it and not in it, where changes are
    /// prepared. Nobody else may use it; what is found in it is removed. If not called, the layer
    /// given as writable is divided: its directories `upper` and `work`, made if they are not there,
    /// are the two.
    pub fn staging(mut self, layer: impl Into<Layer>) -> Self {
        self.staging = Some(layer.into());
        self
    }

    /// What becomes of directories with lower parts that are renamed. [`RedirectDir::On`] if not
    /// called, but with [`userxattr`](Self::userxattr), where the kernel knows no redirects:
    /// [`RedirectDir::Off`].
    pub fn redirect_dir(mut self, redirect_dir: RedirectDir) -> Self {
        self.redirect_dir = Some(redirect_dir);
        self
    }

    /// Keeps `what` until the overlay is gone: a claim on the writable layer, for one, of which two
    /// overlays at a time would each clear away what the other stages.
    pub fn keep(mut self, what: impl Any + Send + Sync) -> Self {
        self.kept = Some(Arc::new(what));
        self
    }

    /// How layers mark deletions. [`Whiteouts::Kernel`] if not called.
    pub fn whiteouts(mut self, whiteouts: Whiteouts) -> Self {
        self.whiteouts = whiteouts;
        self
    }

    /// Whether nothing is ever synced: fast, and after a crash of the host the writable layer is to
    /// be discarded, which the next build insists on. Off if not called.
    pub fn volatile(mut self, volatile: bool) -> Self {
        self.volatile = volatile;
        self
    }

    /// Whether records are kept in `user.overlay.*`, which takes no privilege, and not in
    /// `trusted.overlay.*`. Off if not called. Together with [`RedirectDir::On`] the writable layer is
    /// marked as one that the kernel does not mount, for it knows no redirects there.
    pub fn userxattr(mut self, userxattr: bool) -> Self {
        self.userxattr = userxattr;
        self
    }

    /// Whether a change of attributes alone leaves a file's data in its layer, until it is opened for
    /// writing; such files are only followed with this. It needs [`RedirectDir::On`], or, without a
    /// writable layer, that redirects are followed. Off if not called.
    pub fn metacopy(mut self, metacopy: bool) -> Self {
        self.metacopy = metacopy;
        self
    }

    /// Whether the names of a file stay names of one file when it is copied up. If not called they
    /// do, but where the index in the staging directory is for another writable layer; if true, the
    /// index of another topmost layer is refused too, as the kernel refuses it.
    pub fn index(mut self, index: bool) -> Self {
        self.index = Some(index);
        self
    }

    /// Whether inode numbers carry the number of their filesystem in their topmost bits, and stay
    /// the same in every run; otherwise those of all filesystems but the first come from a table. On
    /// if not called.
    pub fn xino(mut self, xino: bool) -> Self {
        self.xino = xino;
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

    /// Builds the overlay. What a crash left in the staging directory is removed.
    ///
    /// # Errors
    /// [`BuildError`] says what does not fit.
    pub fn build(self) -> Result<OverlayFs, BuildError> {
        self.built(false)
    }

    /// Builds the overlay to be looked at: nothing is made, marked or removed, every change is EROFS,
    /// and a writable layer is looked at too that is in use or in doubt. One that is not there yet
    /// counts as none.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn inspect(self) -> Result<OverlayFs, BuildError> {
        self.built(true)
    }

    fn built(self, inspect: bool) -> Result<OverlayFs, BuildError> {
        if self.layers.is_empty() && self.writable.is_none() {
            return Err(BuildError::NoLayers);
        }
        let redirect_dir = self.redirect_dir.unwrap_or(match self.userxattr {
            true => RedirectDir::Off,
            false => RedirectDir::On,
        });
        let options = Options {
            redirect_dir,
            oci: self.whiteouts == Whiteouts::Oci,
            volatile: self.volatile,
            metacopy: self.metacopy,
            xino: self.xino,
            names: if self.userxattr { Namespace::User } else { Namespace::Trusted },
        };
        self.refuse_conflicts(&options)?;
        let mut upper = match (&self.writable, &self.staging) {
            (None, None) => None,
            (None, Some(_)) => return Err(BuildError::NothingToStage),
            (Some(writable), staging) if inspect => inspected(writable, staging.as_ref())?,
            (Some(writable), staging) => Some(self.upper(writable, staging.as_ref(), &options)?),
        };
        let lowers = self
            .layers
            .iter()
            .rev()
            .enumerate()
            .map(|(number, layer)| Real::shared(number + 1, Arc::clone(&layer.root)));
        let lowers: Vec<Real> = lowers.collect();
        self.refuse_twice(upper.as_ref(), &lowers)?;
        let mut origins_hold = true;
        if let (Some(upper), Some(lower)) = (&mut upper, lowers.first()) {
            let of = index::Of { upper, lower, names: options.names, inspect };
            (upper.links, origins_hold) = index::open(&of, self.index)?;
        }
        let mut fs = OverlayFs::from_builder(upper, lowers, options, origins_hold, self.cache)?;
        fs.kept = self.kept;
        Ok(if inspect { fs.inspected() } else { fs })
    }

    fn refuse_conflicts(&self, options: &Options) -> Result<(), BuildError> {
        if !self.metacopy {
            return Ok(());
        }
        let conflict = |other, why| BuildError::Conflict { option: "metacopy=on", other, why };
        if self.userxattr {
            return Err(conflict("userxattr", "the kernel would not follow such files"));
        }
        if self.writable.is_some() && !options.makes_redirects() {
            let why = "a renamed file could not say where its data is";
            return Err(conflict("redirect_dir other than on", why));
        }
        if !options.follows_redirects() {
            return Err(conflict("redirect_dir=nofollow", "data would be looked for elsewhere"));
        }
        Ok(())
    }

    fn upper(
        &self,
        writable: &Layer,
        staging: Option<&Layer>,
        options: &Options,
    ) -> Result<Upper, BuildError> {
        let is_extended = self.userxattr && options.makes_redirects();
        self.check_fit(writable.fs().features())?;
        if staging.is_some_and(|staging| !Arc::ptr_eq(staging.fs(), writable.fs())) {
            return Err(BuildError::StagingElsewhere);
        }
        let failed = |operation, layer: &str| {
            let layer = layer.to_owned();
            move |errno| BuildError::Layer { operation, layer, errno }
        };
        let whole = Real::shared(UPPER, Arc::clone(&writable.root));
        let name = |text: &'static str| Name::new(text.as_bytes()).map_err(Errno::from);
        let sub = |dir: &Real, text: &'static str, mode| {
            name(text).and_then(|name| stage::directory(dir, name, mode))
        };
        let (root, staging) = match staging {
            Some(staging) => (whole, Real::shared(UPPER, Arc::clone(&staging.root))),
            None => (
                sub(&whole, "upper", 0o755)
                    .map_err(failed("making upper/", "the writable layer"))?,
                sub(&whole, "work", 0o700).map_err(failed("making work/", "the writable layer"))?,
            ),
        };
        let staging_name = "the staging directory";
        let work = sub(&staging, "work", 0o700).map_err(failed("making work/", staging_name))?;
        self.refuse_incompatible(&work, is_extended)?;
        stage::clean(&work, &[INCOMPAT]).map_err(failed("cleaning", staging_name))?;
        self.probe(&work, options, writable.fs().features().kind)?;
        if self.volatile {
            sub(&work, "incompat", 0o700)
                .and_then(|incompat| sub(&incompat, "volatile", 0o700))
                .and_then(|mark| name("dirty").and_then(|name| stage::file(&mark, name)))
                .map_err(failed("marking as volatile", staging_name))?;
        }
        if is_extended {
            sub(&work, "incompat", 0o700)
                .and_then(|incompat| sub(&incompat, EXTENDED, 0o700))
                .map_err(failed("marking", staging_name))?;
        }
        Ok(Upper::new(root, staging, work))
    }

    /// Tries what [`check_fit`](Self::check_fit) was promised: a share may not know what the
    /// filesystem of the host cannot do.
    fn probe(&self, work: &Real, options: &Options, kind: &'static str) -> Result<(), BuildError> {
        let unfit = |lacks, why| {
            move |errno| {
                log::warn!("overlay: trying {lacks} of the writable layer: {errno}");
                BuildError::Unfit { kind, lacks, why }
            }
        };
        let attributes = match options.names {
            Namespace::User => "attributes in user.",
            Namespace::Trusted => "attributes in trusted.",
        };
        let why = match options.names {
            Namespace::User => "records are kept there",
            Namespace::Trusted => "records are kept there, unless userxattr says otherwise",
        };
        work.try_xattr(options.names.name(Record::Opaque)).map_err(unfit(attributes, why))?;
        let why = "deletions are marked by them";
        stage::try_whiteout(work).map_err(unfit("whiteouts, or RENAME_EXCHANGE", why))
    }

    fn check_fit(&self, features: Features) -> Result<(), BuildError> {
        let records = if self.userxattr {
            (Behaviours::XATTR_USER, "attributes in user.", "records are kept there")
        } else {
            (
                Behaviours::XATTR_TRUSTED,
                "attributes in trusted.",
                "records are kept there, unless userxattr says otherwise",
            )
        };
        let needed = [
            (
                Behaviours::EXCHANGE,
                "RENAME_EXCHANGE",
                "a whiteout takes a directory's place in one step",
            ),
            (Behaviours::WHITEOUT, "whiteouts", "deletions are marked by them"),
            (
                Behaviours::STAGING_RENAME,
                "renames between any two directories",
                "what is staged is moved to its place",
            ),
            records,
        ];
        let unfit = |lacks, why| BuildError::Unfit { kind: features.kind, lacks, why };
        if features.bears(Behaviours::READ_ONLY) {
            return Err(unfit("write access", "it takes all changes"));
        }
        match needed.into_iter().find(|(behaviour, _, _)| !features.bears(*behaviour)) {
            Some((_, lacks, why)) => Err(unfit(lacks, why)),
            None => Ok(()),
        }
    }

    /// What the kernel does with an upper that was mounted with an option of which it knows that it
    /// leaves something behind.
    fn refuse_incompatible(&self, work: &Real, is_extended: bool) -> Result<(), BuildError> {
        let look = || -> Result<Option<String>, Errno> {
            let Some((incompat, _)) = work.child(Name::new(INCOMPAT)?)? else { return Ok(None) };
            let known = |item: &Item| is_extended && item.name.as_bytes() == EXTENDED.as_bytes();
            let first = incompat.list()?.into_iter().find(|item| !known(item));
            Ok(first.map(|item| item.name.as_bytes().escape_ascii().to_string()))
        };
        match look() {
            Ok(None) => Ok(()),
            Ok(Some(feature)) if feature == EXTENDED => Err(BuildError::Extended),
            Ok(Some(feature)) => Err(BuildError::Incompatible { feature }),
            Err(errno) => {
                let layer = "the staging directory".to_owned();
                Err(BuildError::Layer { operation: "listing work/incompat", layer, errno })
            }
        }
    }

    fn refuse_twice(&self, upper: Option<&Upper>, lowers: &[Real]) -> Result<(), BuildError> {
        let Some(upper) = upper else { return Ok(()) };
        // Two shares of one directory of the host are two filesystems here.
        let id = |real: &Real| real.fs().persistent_id(real.id()).ok().flatten();
        let ids = (id(&upper.root), id(&upper.staging));
        let same = |a: &Real, b: &Real| Arc::ptr_eq(a.fs(), b.fs()) && a.id() == b.id();
        if same(&upper.root, &upper.staging) || (ids.0.is_some() && ids.0 == ids.1) {
            let first = "the writable layer".to_owned();
            return Err(BuildError::Twice { first, second: "the staging directory" });
        }
        for lower in lowers {
            let lower_id = id(lower);
            for (other, id, second) in [
                (&upper.root, &ids.0, "the writable layer"),
                (&upper.staging, &ids.1, "the staging directory"),
            ] {
                if same(lower, other) || (id.is_some() && lower_id == *id) {
                    return Err(BuildError::Twice { first: layer_name(lower.layer), second });
                }
            }
        }
        Ok(())
    }
}

/// The writable layer as it is, if it is there.
fn inspected(writable: &Layer, staging: Option<&Layer>) -> Result<Option<Upper>, BuildError> {
    let whole = Real::shared(UPPER, Arc::clone(&writable.root));
    let (root, staging) = match staging {
        Some(staging) if !Arc::ptr_eq(staging.fs(), writable.fs()) => {
            return Err(BuildError::StagingElsewhere);
        }
        Some(staging) => (whole, Real::shared(UPPER, Arc::clone(&staging.root))),
        None => {
            let sub = |text: &[u8]| whole.child(Name::new(text)?);
            let both = sub(b"upper").and_then(|upper| Ok((upper, sub(b"work")?)));
            let (upper, work) = both.map_err(|errno| {
                let layer = "the writable layer".to_owned();
                BuildError::Layer { operation: "looking for upper/ and work/", layer, errno }
            })?;
            match (upper, work) {
                (Some((upper, _)), Some((work, _))) => (upper, work),
                _ => return Ok(None),
            }
        }
    };
    // Nothing is staged.
    let work = staging.clone();
    Ok(Some(Upper::new(root, staging, work)))
}

/// The directory in the staging directory's `work` that names options which leave an upper in doubt.
pub(crate) const INCOMPAT: &[u8] = b"incompat";

/// What marks a writable layer with redirects in `user.overlay.*` there.
const EXTENDED: &str = "stratafs.redirect_dir";

/// The layer of this number, in words.
pub(crate) fn layer_name(layer: usize) -> String {
    match layer {
        UPPER => "the writable layer".to_owned(),
        number => format!("read-only layer {number} from the top"),
    }
}

/// Whether two filesystems are one.
pub(crate) fn same_filesystem(a: &Arc<dyn DynFileSystem>, b: &Arc<dyn DynFileSystem>) -> bool {
    Arc::ptr_eq(a, b)
}
