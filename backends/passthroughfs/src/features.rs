//! What this filesystem needs and promises.

use std::os::fd::{AsFd, OwnedFd};

use stratafs_core::{Behaviours, CachePolicy, Features, Needs};
use stratafs_sys::{openat, stat};

use crate::builder::{OpenMode, Options, Ownership};

/// Filesystems where a copy shares storage: linux/magic.h.
const REFLINK: [i64; 3] =
    [0x9123_683e /* btrfs */, 0x5846_5342 /* xfs */, 0xca45_1a4e /* bcachefs */];

pub(crate) fn of(
    options: &Options,
    root: &OwnedFd,
    dir: &Option<OwnedFd>,
    server: u32,
    persistent: bool,
) -> Features {
    let mut needs = Needs::FSYNC
        | Needs::FSYNCDIR
        | Needs::FALLOCATE
        | Needs::LSEEK
        | Needs::COPY_FILE_RANGE
        | Needs::READDIRPLUS
        | Needs::SYNCFS
        | Needs::STATX
        | Needs::RENAME2
        | Needs::INODE_FLAGS;
    let mut behaviours = Behaviours::KILLPRIV_V2
        | Behaviours::EXCHANGE
        | Behaviours::WHITEOUT
        | Behaviours::STAGING_RENAME
        | Behaviours::DONT_MASK
        | Behaviours::PARALLEL_DIROPS
        | Behaviours::CACHE_SYMLINKS
        | Behaviours::ALLOW_IDMAP;
    let private = options.ownership == Ownership::Virtual;
    if options.xattr {
        needs |= Needs::XATTR | Needs::SETXATTR;
        behaviours |= Behaviours::XATTR_USER;
        if private || server == 0 {
            behaviours |= Behaviours::XATTR_TRUSTED | Behaviours::XATTR_SECURITY;
        }
    }
    if dir.as_ref().is_some_and(has_unnamed_files) {
        needs |= Needs::TMPFILE;
        behaviours |= Behaviours::TMPFILE;
    }
    match options.open {
        OpenMode::Stateless => {
            behaviours |= Behaviours::NO_OPEN;
            if options.cache.policy == CachePolicy::Always {
                behaviours |= Behaviours::NO_OPENDIR;
            }
        }
        OpenMode::Handles => {
            needs |= Needs::OPEN;
            behaviours |= Behaviours::ATOMIC_O_TRUNC;
            if !options.writeback && options.cache.policy != CachePolicy::Never {
                behaviours |= Behaviours::PASSTHROUGH;
            }
        }
    }
    needs.set(Needs::OPENDIR, !behaviours.contains(Behaviours::NO_OPENDIR));
    behaviours.set(Behaviours::POSIX_ACL, options.posix_acl);
    behaviours.set(Behaviours::WRITEBACK, options.writeback);
    behaviours.set(Behaviours::EXCLUSIVE, options.exclusive);
    behaviours.set(Behaviours::READ_ONLY, options.readonly);
    behaviours.set(Behaviours::PERSISTENT_IDS, persistent);
    let magic = stat::filesystem(root.as_fd()).map_or(0, |found| found.magic);
    behaviours.set(Behaviours::REFLINK, REFLINK.contains(&magic));
    // Ids count lookups of new objects: 48 bits last for ever.
    Features::new("passthrough").needing(needs).promising(behaviours).with_node_id_bits(48)
}

/// Whether O_TMPFILE works, as far as it can be told: where the root may not be written to, a
/// directory below may, so only the filesystem's own refusal counts.
fn has_unnamed_files(dir: &OwnedFd) -> bool {
    match openat::unnamed_file(dir.as_fd(), libc::O_RDWR, 0o600) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EROFS | libc::EINVAL)
        ),
    }
}
