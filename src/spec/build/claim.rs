//! One filesystem at a time on the directories that an overlay or a dual stages its changes in.
//!
//! A second one would clear away what the first has staged, as leftovers of a crash. The kernel
//! refuses such a mount of its overlay (EBUSY); here the directories are locked (flock(2)), which ends with the
//! server, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::report;
use crate::spec::error::SpecError;
use crate::spec::node::Node;

/// A directory that somebody else has claimed.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`, {path}, is in use by another filesystem (EBUSY)")]
struct InUse {
    name: String,
    path: String,
}

/// Directories that are one filesystem's until it is dropped.
#[derive(Debug)]
pub(in crate::spec) struct Claim {
    _locked: Vec<File>,
}

impl Claim {
    /// Claims the directories of the host that the overlay `node` writes to.
    pub(in crate::spec) fn of_overlay(node: &Node) -> Result<Self, SpecError> {
        let upper = node.filesystem("upper");
        let beside = || upper.and_then(|upper| upper.path("extra_root"));
        let root = upper.and_then(|upper| upper.path("root_dir"));
        Self::of(node, [("upper", root), ("work", node.path("work").or_else(beside))])
    }

    /// Claims the directory of the host that the dual `node` writes to: `a`, whoever watches it.
    pub(in crate::spec) fn of_dual(node: &Node) -> Result<Self, SpecError> {
        let mut written = node.filesystem("a");
        while let Some(inner) = written.and_then(|written| written.filesystem("inner")) {
            written = Some(inner);
        }
        Self::of(node, [("a", written.and_then(|written| written.path("root_dir")))])
    }

    fn of<const N: usize>(
        node: &Node,
        directories: [(&str, Option<&Path>); N],
    ) -> Result<Self, SpecError> {
        let mut locked = Vec::new();
        for (name, path) in directories {
            let Some(path) = path else { continue };
            locked.extend(lock(node, name, path)?);
        }
        Ok(Self { _locked: locked })
    }
}

/// Locks one directory; none where the host keeps no locks, which is said.
fn lock(node: &Node, name: &str, path: &Path) -> Result<Option<File>, SpecError> {
    let shown = path.as_os_str().as_encoded_bytes().escape_ascii();
    let locked = File::open(path).map_err(TryLockError::Error).and_then(|directory| {
        directory.try_lock()?;
        Ok(directory)
    });
    match locked {
        Ok(directory) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => {
            let cause = InUse { name: name.to_owned(), path: shown.to_string() };
            let next = "unmount or stop that one first: `findmnt -t fuse.stratafs` lists mounts";
            let report = Box::new(report(node, cause.to_string()).next(next));
            Err(SpecError::Build { report, cause: Box::new(cause) })
        }
        Err(TryLockError::Error(error)) => {
            log::warn!(
                "{}: `{name}`, {shown}, cannot be locked against another: {error}",
                node.backend.name
            );
            Ok(None)
        }
    }
}
