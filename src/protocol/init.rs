//! INIT: what a client offers and a filesystem's features come to.

use bitflags::bitflags;
use stratafs_core::{Behaviours, Errno, Features, Needs, Negotiated, Result};

use super::config::{SessionConfig, TransportKind};
use super::decode::{Args, take};
use super::wire::{INIT_OUT_SIZE, InitIn, InitInExt, InitOut, MAJOR, MINOR, MINOR_MIN};

bitflags! {
    /// The flags of INIT: FUSE_* of the kernel, `flags` in the low half and `flags2` in the high.
    ///
    /// Not here, since never agreed on: EXPORT_SUPPORT (names are never `.` or `..`), SPLICE_* (it
    /// never wins), HANDLE_KILLPRIV (the newer KILLPRIV_V2 is right about setgid), the DAX flags,
    /// HAS_RESEND, OVER_IO_URING and REQUEST_TIMEOUT (nothing here makes use of them).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// Several reads of one file at a time.
        const ASYNC_READ = 1 << 0;
        /// POSIX locks are kept here.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN honours O_TRUNC.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// The umask is applied here.
        const DONT_MASK = 1 << 6;
        /// flock(2) locks are kept here.
        const FLOCK_LOCKS = 1 << 10;
        /// Cached data is dropped when mtime or size turn out changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is served.
        const DO_READDIRPLUS = 1 << 13;
        /// READDIRPLUS only where lookups follow.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O in parallel pieces.
        const ASYNC_DIO = 1 << 15;
        /// The client writes back when it pleases.
        const WRITEBACK_CACHE = 1 << 16;
        /// ENOSYS to OPEN means that files work without.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// Lookups and listings of one directory in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// POSIX ACLs are kept here and checked by the client.
        const POSIX_ACL = 1 << 20;
        /// A read of the device after an abort says so.
        const ABORT_ERROR = 1 << 21;
        /// `max_pages` counts.
        const MAX_PAGES = 1 << 22;
        /// Symlink targets may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// ENOSYS to OPENDIR means that directories work without.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached data is dropped on notice only.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// Roots of mounts within the share are marked.
        const SUBMOUNTS = 1 << 27;
        /// setuid, setgid and capabilities are cleared here.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR in its longer form.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` counts.
        const INIT_EXT = 1 << 30;
        /// New objects come with their label.
        const SECURITY_CTX = 1 << 32;
        /// New objects come with the caller's group that equals the parent's.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// A notice can expire an entry without dropping it.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// Shared mappings of files that are opened for direct I/O.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// The client reads and writes files of the host by itself.
        const PASSTHROUGH = 1 << 37;
        /// No file handles for NFS.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// Mounts may map ids.
        const ALLOW_IDMAP = 1 << 40;
    }
}

bitflags! {
    /// What was agreed on, as far as serving a request depends on it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Agreed: u32 {
        const NO_OPEN = 1 << 0;
        const NO_OPENDIR = 1 << 1;
        const WRITEBACK = 1 << 2;
        const KILLPRIV_V2 = 1 << 3;
        const DONT_MASK = 1 << 4;
        const ATOMIC_O_TRUNC = 1 << 5;
        const SETXATTR_EXT = 1 << 6;
        const SUBMOUNTS = 1 << 7;
        /// Requests may end in extensions.
        const EXTENSIONS = 1 << 8;
        const ALLOW_IDMAP = 1 << 9;
        const PASSTHROUGH = 1 << 10;
    }
}

/// An INIT as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    max_readahead: u32,
    flags: InitFlags,
}

impl Offer {
    /// Reads the arguments of an INIT: 16 bytes, and more where they say so.
    pub(crate) fn read(args: &mut Args<'_>) -> Result<Self> {
        let head = take!(args, InitIn)?;
        let mut flags = u64::from(head.flags);
        if InitFlags::from_bits_retain(flags).contains(InitFlags::INIT_EXT) {
            flags |= u64::from(take!(args, InitInExt)?.flags2) << 32;
        }
        Ok(Self {
            major: head.major,
            minor: head.minor,
            max_readahead: head.max_readahead,
            flags: InitFlags::from_bits_truncate(flags),
        })
    }

    /// Whether this version is spoken.
    pub(crate) fn is_spoken(&self) -> bool {
        self.major == MAJOR && self.minor >= MINOR_MIN
    }
}

/// What an INIT comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) negotiated: Negotiated,
    pub(crate) agreed: Agreed,
    pub(crate) flags: InitFlags,
    reply: InitOut,
}

impl Outcome {
    /// `fuse_init_out`.
    pub(crate) fn to_bytes(self) -> [u8; INIT_OUT_SIZE] {
        padded(self.reply)
    }
}

/// The answer to a client of a larger major version: the one that is spoken here. The client then
/// comes again with that one.
pub(crate) fn other_major() -> [u8; INIT_OUT_SIZE] {
    padded(InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() })
}

fn padded(reply: InitOut) -> [u8; INIT_OUT_SIZE] {
    let mut bytes = [0; INIT_OUT_SIZE];
    if let Some(head) = bytes.first_chunk_mut() {
        *head = reply.to_bytes();
    }
    bytes
}

/// Bytes of the smallest page there is; also the least `max_write`.
const PAGE: u32 = 4096;
/// Pages of a request where MAX_PAGES is not offered (FUSE_DEFAULT_MAX_PAGES_PER_REQ).
const DEFAULT_PAGES: u32 = 32;

/// How deep the kernel stacks filesystems at most (FILESYSTEM_MAX_STACK_DEPTH).
const MAX_STACK_DEPTH: u32 = 2;

/// The promises that an INIT decides on; others hold whatever the client says.
const NEGOTIABLE: Behaviours = Behaviours::NO_OPEN
    .union(Behaviours::NO_OPENDIR)
    .union(Behaviours::WRITEBACK)
    .union(Behaviours::KILLPRIV_V2)
    .union(Behaviours::PASSTHROUGH)
    .union(Behaviours::POSIX_ACL)
    .union(Behaviours::DONT_MASK)
    .union(Behaviours::PARALLEL_DIROPS)
    .union(Behaviours::CACHE_SYMLINKS)
    .union(Behaviours::ALLOW_IDMAP)
    .union(Behaviours::ATOMIC_O_TRUNC);

/// The promises that need nothing but the client's flag, with that flag.
const BY_FLAG: [(Behaviours, InitFlags); 9] = [
    (Behaviours::NO_OPEN, InitFlags::NO_OPEN_SUPPORT),
    (Behaviours::NO_OPENDIR, InitFlags::NO_OPENDIR_SUPPORT),
    (Behaviours::WRITEBACK, InitFlags::WRITEBACK_CACHE),
    (Behaviours::KILLPRIV_V2, InitFlags::HANDLE_KILLPRIV_V2),
    (Behaviours::POSIX_ACL, InitFlags::POSIX_ACL),
    (Behaviours::DONT_MASK, InitFlags::DONT_MASK),
    (Behaviours::PARALLEL_DIROPS, InitFlags::PARALLEL_DIROPS),
    (Behaviours::CACHE_SYMLINKS, InitFlags::CACHE_SYMLINKS),
    (Behaviours::ALLOW_IDMAP, InitFlags::ALLOW_IDMAP),
];

/// Flags that are always taken where they are offered.
const ALWAYS: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::ABORT_ERROR)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::HAS_EXPIRE_ONLY)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::NO_EXPORT_SUPPORT);

/// What the client is promised, and by which flags.
fn promises(features: &Features, config: &SessionConfig, offered: InitFlags) -> Behaviours {
    let mut promised = features.behaviours.difference(config.without);
    let mut usable = promised.difference(NEGOTIABLE);
    // RELEASE gives a flock up, and a client without OPEN sends none.
    if features.needs.intersects(Needs::OPEN | Needs::FLOCK) {
        promised.remove(Behaviours::NO_OPEN);
    }
    if features.needs(Needs::OPENDIR) {
        promised.remove(Behaviours::NO_OPENDIR);
    }
    for (behaviour, flag) in BY_FLAG {
        if promised.contains(behaviour) && offered.contains(flag) {
            usable |= behaviour;
        }
    }
    // Without OPEN nobody would see its O_TRUNC.
    if promised.contains(Behaviours::ATOMIC_O_TRUNC)
        && offered.contains(InitFlags::ATOMIC_O_TRUNC)
        && !usable.contains(Behaviours::NO_OPEN)
    {
        usable |= Behaviours::ATOMIC_O_TRUNC;
    }
    // The kernel leaves it out beside a writeback cache, and asks nobody about a file without OPEN.
    if promised.contains(Behaviours::PASSTHROUGH)
        && offered.contains(InitFlags::PASSTHROUGH)
        && !usable.intersects(Behaviours::WRITEBACK | Behaviours::NO_OPEN)
    {
        usable |= Behaviours::PASSTHROUGH;
    }
    usable
}

/// The flags of the answer.
fn answer_flags(features: &Features, used: Behaviours, offered: InitFlags) -> InitFlags {
    let mut flags = ALWAYS;
    for (behaviour, flag) in BY_FLAG {
        flags.set(flag, used.contains(behaviour));
    }
    flags.set(InitFlags::ATOMIC_O_TRUNC, used.contains(Behaviours::ATOMIC_O_TRUNC));
    flags.set(InitFlags::PASSTHROUGH, used.contains(Behaviours::PASSTHROUGH));
    flags.set(InitFlags::POSIX_LOCKS, features.needs(Needs::POSIX_LOCKS));
    flags.set(InitFlags::FLOCK_LOCKS, features.needs(Needs::FLOCK));
    let plus = features.needs(Needs::READDIRPLUS);
    flags.set(InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO, plus);
    // Where nobody else changes the files, a change of mtime is the client's own, and no reason to
    // drop what it just wrote.
    let exclusive = features.bears(Behaviours::EXCLUSIVE);
    flags.set(InitFlags::AUTO_INVAL_DATA, !exclusive);
    flags.set(InitFlags::EXPLICIT_INVAL_DATA, exclusive);
    flags.set(InitFlags::SECURITY_CTX, features.bears(Behaviours::XATTR_SECURITY));
    flags & offered
}

/// Computes the outcome of an `offer` whose version is spoken.
///
/// # Errors
/// * `EINVAL`: a configured limit is too low for any request.
pub(crate) fn negotiate(
    features: &Features,
    config: &SessionConfig,
    offer: &Offer,
) -> Result<Outcome> {
    if config.max_write < PAGE || config.max_pages == 0 {
        return Err(Errno::EINVAL);
    }
    let minor = offer.minor.min(MINOR);
    let mut offered = offer.flags;
    if minor < 36 || !offered.contains(InitFlags::INIT_EXT) {
        offered &= InitFlags::from_bits_retain(u64::from(u32::MAX)).difference(InitFlags::INIT_EXT);
    }
    if minor < 38 {
        // Before 7.38 the label is where nobody can tell it from the arguments.
        offered.remove(InitFlags::SECURITY_CTX | InitFlags::CREATE_SUPP_GROUP);
    }
    if minor < 40 {
        offered.remove(InitFlags::PASSTHROUGH);
    }
    let used = promises(features, config, offered);
    let flags = answer_flags(features, used, offered);

    // Where the client counts pages itself it knows their size; where it does not, it has its own
    // bound, and is told nothing beyond it.
    let (max_pages, max_write) = if flags.contains(InitFlags::MAX_PAGES) {
        (config.max_pages, config.max_write)
    } else {
        (0, config.max_write.min(PAGE.saturating_mul(DEFAULT_PAGES)))
    };

    let mut agreed = Agreed::empty();
    for (agreement, holds) in [
        (Agreed::NO_OPEN, used.contains(Behaviours::NO_OPEN)),
        (Agreed::NO_OPENDIR, used.contains(Behaviours::NO_OPENDIR)),
        (Agreed::WRITEBACK, used.contains(Behaviours::WRITEBACK)),
        (Agreed::KILLPRIV_V2, used.contains(Behaviours::KILLPRIV_V2)),
        (Agreed::DONT_MASK, used.contains(Behaviours::DONT_MASK)),
        (Agreed::ATOMIC_O_TRUNC, used.contains(Behaviours::ATOMIC_O_TRUNC)),
        (Agreed::ALLOW_IDMAP, used.contains(Behaviours::ALLOW_IDMAP)),
        (Agreed::PASSTHROUGH, used.contains(Behaviours::PASSTHROUGH)),
        (Agreed::SETXATTR_EXT, flags.contains(InitFlags::SETXATTR_EXT)),
        (Agreed::SUBMOUNTS, flags.contains(InitFlags::SUBMOUNTS)),
        (Agreed::EXTENSIONS, minor >= 38),
    ] {
        agreed.set(agreement, holds);
    }

    let [low, high] = [flags.bits(), flags.bits() >> 32]
        .map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
    let reply = InitOut {
        major: MAJOR,
        minor,
        max_readahead: offer.max_readahead.min(config.max_readahead),
        flags: low,
        max_background: config.max_background,
        congestion_threshold: config.congestion_threshold,
        max_write,
        time_gran: features.time_granularity_ns.clamp(1, 1_000_000_000),
        max_pages,
        flags2: high,
        max_stack_depth: if flags.contains(InitFlags::PASSTHROUGH) {
            config.max_stack_depth.clamp(1, MAX_STACK_DEPTH)
        } else {
            0
        },
        ..InitOut::default()
    };
    Ok(Outcome { negotiated: Negotiated::new(minor, max_write, used), agreed, flags, reply })
}

/// Whether a client of this transport can end what waits.
pub(crate) fn may_wait(transport: TransportKind) -> bool {
    matches!(transport, TransportKind::Dev)
}
