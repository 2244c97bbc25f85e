//! Why a share is refused: operation, object, error, cause, and what to do.

use std::path::PathBuf;

use stratafs_core::Errno;

use crate::acl::AclKind;
use crate::builder::MIN_BUDGET;
use crate::record::RECORD;

/// Why a share cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No directory was given.
    #[error("passthrough: no directory: say which with root_dir(PATH)")]
    NoRoot,
    /// The path cannot be opened.
    #[error("passthrough: open {path}: {cause}: {hint}")]
    Open {
        /// The path.
        path: PathBuf,
        /// The error.
        cause: Errno,
        /// What to do about it.
        hint: &'static str,
    },
    /// The path is a symbolic link.
    #[error(
        "passthrough: {0} is a symbolic link: whoever can change it would choose what is shared; \
         give its target, or allow it with follow_root"
    )]
    Symlink(PathBuf),
    /// The path is neither a directory nor a regular file.
    #[error("passthrough: {0} is neither a directory nor a regular file: share one of these")]
    Type(PathBuf),
    /// A second root that is no directory.
    #[error("passthrough: {0} is no directory, which a second root must be: choose one")]
    ExtraType(PathBuf),
    /// A second root on another mount.
    #[error(
        "passthrough: {0} is on another filesystem or mount than the root: renames and links \
         between them would fail with EXDEV; choose a directory on the root's"
    )]
    ExtraMount(PathBuf),
    /// Records cannot be kept.
    #[error(
        "passthrough: {path} is on a filesystem without user extended attributes ({cause}), where \
         ownership=virtual keeps owners and modes: use ownership=squash, or ownership=host as root, \
         or readonly"
    )]
    NoXattr {
        /// The path.
        path: PathBuf,
        /// The error.
        cause: Errno,
    },
    /// The root's own ownership record is corrupt, so nothing could be made in it.
    #[error(
        "passthrough: read {} of {path}: EIO: \"{text}\" is no ownership record: set it to \
         UID:GID:MODE with setfattr -n, or remove it with setfattr -x",
        RECORD.to_string_lossy()
    )]
    Record {
        /// The path.
        path: PathBuf,
        /// What is in the attribute.
        text: String,
    },
    /// The host keeps no ACLs there.
    #[error(
        "passthrough: read {} of {path}: {cause}, so posix_acl has nothing to keep ACLs in: mount \
         it with acl, or use ownership=virtual, or leave posix_acl out",
        AclKind::Access.name().to_string_lossy()
    )]
    NoAcl {
        /// The path.
        path: PathBuf,
        /// The error.
        cause: Errno,
    },
    /// `/proc` is needed and is not there.
    #[error("passthrough: open /proc: {0}: mount it, for files are reopened through it")]
    NoProc(Errno),
    /// The descriptor budget is too small to work with.
    #[error("passthrough: fd_budget={0} is too few: at least {MIN_BUDGET}")]
    Budget(usize),
    /// Options that exclude each other.
    #[error("passthrough: {0}")]
    Conflict(&'static str),
    /// Something else that the host refused.
    #[error("passthrough: {operation} {path}: {cause}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The error.
        cause: Errno,
    },
}
