//! What a stack can do, as far as cases depend on it.

use bitflags::bitflags;
use stratafs_core::{Behaviours, Features, Needs};

bitflags! {
    /// What a case needs of the stack that it runs on.
    ///
    /// A stack is taken to have all of them; what it lacks is declared as a
    /// [gap](crate::Stack::without) with its reason.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// The right to change owners, to make devices and to act as another user.
        const PRIVILEGE = 1 << 0;
        /// link(2).
        const HARD_LINKS = 1 << 1;
        /// symlink(2).
        const SYMLINKS = 1 << 2;
        /// FIFOs and sockets.
        const SPECIAL_FILES = 1 << 3;
        /// Device nodes.
        const DEVICES = 1 << 4;
        /// Attributes in `user.`.
        const XATTR_USER = 1 << 5;
        /// Attributes in `trusted.`.
        const XATTR_TRUSTED = 1 << 6;
        /// Attributes in `security.`.
        const XATTR_SECURITY = 1 << 7;
        /// O_TMPFILE.
        const TMPFILE = 1 << 8;
        /// RENAME_NOREPLACE.
        const NOREPLACE = 1 << 9;
        /// RENAME_EXCHANGE.
        const EXCHANGE = 1 << 10;
        /// RENAME_WHITEOUT.
        const WHITEOUT = 1 << 11;
        /// fallocate(2) that allocates.
        const ALLOCATE = 1 << 12;
        /// FALLOC_FL_PUNCH_HOLE.
        const PUNCH_HOLE = 1 << 13;
        /// FALLOC_FL_ZERO_RANGE.
        const ZERO_RANGE = 1 << 14;
        /// FALLOC_FL_COLLAPSE_RANGE.
        const COLLAPSE_RANGE = 1 << 15;
        /// FALLOC_FL_INSERT_RANGE.
        const INSERT_RANGE = 1 << 16;
        /// SEEK_DATA and SEEK_HOLE that see holes, and `st_blocks` that does not count them.
        const SPARSE = 1 << 17;
        /// copy_file_range(2).
        const COPY_RANGE = 1 << 18;
        /// A creation time in statx(2).
        const BTIME = 1 << 19;
        /// flock(2).
        const FLOCK = 1 << 20;
        /// POSIX locks that the filesystem keeps itself.
        const POSIX_LOCKS = 1 << 21;
        /// setuid and setgid bits that do not survive a write, a truncate or a chown.
        const KILL_PRIV = 1 << 22;
        /// statfs(2) counts that go down with use and come back afterwards.
        const ACCOUNTING = 1 << 23;
        /// Times finer than a second.
        const FINE_TIMES = 1 << 24;
        /// Attributes of kinds that the kernel keeps from symlinks and special files.
        const XATTR_ON_SYMLINK = 1 << 25;
        /// Names of any bytes but `/` and NUL.
        const BYTE_NAMES = 1 << 26;
        /// Handles of open files, which a filesystem tells apart.
        const HANDLES = 1 << 27;
        /// Link counts that stay right when several threads link and unlink one file.
        const RACING_LINKS = 1 << 28;
    }
}

/// The capabilities that `features` rule out, each with the reason, for an in-process run.
pub(crate) fn gaps_of(features: &Features) -> Vec<(Capabilities, &'static str)> {
    let bears = |behaviour, capability, reason| {
        (!features.bears(behaviour)).then_some((capability, reason))
    };
    let needs = |need, capability, reason| (!features.needs(need)).then_some((capability, reason));
    [
        bears(Behaviours::TMPFILE, Capabilities::TMPFILE, "TMPFILE is not promised"),
        bears(Behaviours::EXCHANGE, Capabilities::EXCHANGE, "EXCHANGE is not promised"),
        bears(Behaviours::XATTR_USER, Capabilities::XATTR_USER, "XATTR_USER is not promised"),
        bears(
            Behaviours::XATTR_TRUSTED,
            Capabilities::XATTR_TRUSTED | Capabilities::XATTR_ON_SYMLINK,
            "XATTR_TRUSTED is not promised",
        ),
        bears(
            Behaviours::XATTR_SECURITY,
            Capabilities::XATTR_SECURITY,
            "XATTR_SECURITY is not promised",
        ),
        bears(Behaviours::KILLPRIV_V2, Capabilities::KILL_PRIV, "KILLPRIV_V2 is not promised"),
        needs(
            Needs::FALLOCATE,
            Capabilities::ALLOCATE
                | Capabilities::PUNCH_HOLE
                | Capabilities::ZERO_RANGE
                | Capabilities::COLLAPSE_RANGE
                | Capabilities::INSERT_RANGE,
            "FALLOCATE is not needed",
        ),
        needs(Needs::LSEEK, Capabilities::SPARSE, "LSEEK is not needed"),
        needs(
            Needs::COPY_FILE_RANGE,
            Capabilities::COPY_RANGE,
            "COPY_FILE_RANGE is not needed: the kernel copies by itself",
        ),
        needs(
            Needs::RENAME2,
            Capabilities::NOREPLACE | Capabilities::EXCHANGE | Capabilities::WHITEOUT,
            "RENAME2 is not needed",
        ),
        needs(Needs::OPEN, Capabilities::HANDLES, "OPEN is not needed: nothing is kept per handle"),
        needs(Needs::FLOCK, Capabilities::FLOCK, "flock(2) stays with the client's kernel"),
        needs(
            Needs::POSIX_LOCKS,
            Capabilities::POSIX_LOCKS,
            "POSIX locks stay with the client's kernel",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
