//! What a filesystem needs and what it bears, and how a composition's answer is computed.
//!
//! The kernel remembers one ENOSYS for the whole connection, so no filesystem ever answers it. A
//! filesystem declares; composers combine; the dispatcher alone turns "no member needs it" into
//! ENOSYS or into a flag left out of INIT.
//!
//! | | combined by | because |
//! |---|---|---|
//! | [`Needs`] | union | a request that one member needs must be sent |
//! | [`Behaviours`] | intersection | a promise holds for the tree if it holds for each part |
//! | `node_id_bits` | maximum | an id of any member must fit |
//! | `time_granularity_ns` | maximum | the coarsest member bounds what the tree can keep |

use bitflags::bitflags;

bitflags! {
    /// Requests that the client must send because a member of the composition acts on them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Needs: u64 {
        /// `flush` at each close(2).
        const FLUSH = 1 << 0;
        /// `fsync` of a file.
        const FSYNC = 1 << 1;
        /// `fsyncdir`.
        const FSYNCDIR = 1 << 2;
        /// Reading and listing extended attributes.
        const XATTR = 1 << 3;
        /// Setting and removing extended attributes.
        const SETXATTR = 1 << 4;
        /// `access`; not needed where the kernel checks permissions, which every mount here has.
        const ACCESS = 1 << 5;
        /// `getlk`, `setlk` and `setlkw` of POSIX and OFD locks: kept by the filesystem, not by
        /// the client's kernel.
        const POSIX_LOCKS = 1 << 6;
        /// flock(2) kept by the filesystem.
        const FLOCK = 1 << 7;
        /// `inode_flags` and `set_inode_flags`.
        const INODE_FLAGS = 1 << 8;
        /// `fallocate`.
        const FALLOCATE = 1 << 9;
        /// `lseek` for SEEK_DATA and SEEK_HOLE.
        const LSEEK = 1 << 10;
        /// `copy_file_range`.
        const COPY_FILE_RANGE = 1 << 11;
        /// `readdirplus`.
        const READDIRPLUS = 1 << 12;
        /// `syncfs`; only virtio-fs sends it.
        const SYNCFS = 1 << 13;
        /// `statx`: `getattr` with a creation time in it.
        const STATX = 1 << 14;
        /// `open` and `release` of files: state per open handle.
        const OPEN = 1 << 15;
        /// `opendir` and `releasedir`.
        const OPENDIR = 1 << 16;
        /// `rename` with NOREPLACE, EXCHANGE or WHITEOUT.
        const RENAME2 = 1 << 17;
        /// `tmpfile`.
        const TMPFILE = 1 << 18;
    }
}

bitflags! {
    /// Promises about how a filesystem behaves.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Behaviours: u64 {
        /// Files work without `open`: every file method accepts [`HandleId::NONE`](crate::HandleId::NONE),
        /// and an unlinked node stays usable until it is forgotten. Never together with
        /// ATOMIC_O_TRUNC, for then O_TRUNC would be lost, nor with [`Needs::FLOCK`], for RELEASE
        /// is what gives a flock up.
        const NO_OPEN = 1 << 0;
        /// Directories work without `opendir`, and listings may be cached: a choice of the whole
        /// mount, never of one member.
        const NO_OPENDIR = 1 << 1;
        /// The client may keep written data and send it later: nobody else changes the files, and
        /// the client's mtime and ctime are accepted.
        const WRITEBACK = 1 << 2;
        /// `setattr`, `open`, `create` and `write` clear setuid, setgid and capabilities when told
        /// to by `kill_priv`, and a change of owner always does.
        const KILLPRIV_V2 = 1 << 3;
        /// `open` may offer a backing file, so that the kernel does the I/O.
        const PASSTHROUGH = 1 << 4;
        /// `rename` honours EXCHANGE.
        const EXCHANGE = 1 << 5;
        /// `mknod` makes whiteouts (character device `0:0`) for an internal context.
        const WHITEOUT = 1 << 6;
        /// `tmpfile` and a `link` of its result work.
        const TMPFILE = 1 << 7;
        /// Attributes in `user.` are kept.
        const XATTR_USER = 1 << 8;
        /// Attributes in `trusted.` are kept.
        const XATTR_TRUSTED = 1 << 9;
        /// Attributes in `security.` are kept.
        const XATTR_SECURITY = 1 << 10;
        /// A copy may share storage.
        const REFLINK = 1 << 11;
        /// POSIX ACLs are kept, and mode and ACL are kept in step.
        const POSIX_ACL = 1 << 12;
        /// `persistent_id` answers.
        const PERSISTENT_IDS = 1 << 13;
        /// `rename` works between any two directories of the filesystem.
        const STAGING_RENAME = 1 << 14;
        /// No method waits for a disk, a network or another process, `setlkw` apart: one worker
        /// serves a client best.
        const PROMPT = 1 << 15;
        /// The umask is applied by the filesystem (DONT_MASK), from the context.
        const DONT_MASK = 1 << 16;
        /// `lookup` and `readdir` of one directory may run at a time with each other and with
        /// changes of it.
        const PARALLEL_DIROPS = 1 << 17;
        /// A symlink's target may be cached.
        const CACHE_SYMLINKS = 1 << 18;
        /// Ids are used for the ownership of new objects only, so an id-mapped mount is right.
        const ALLOW_IDMAP = 1 << 19;
        /// Nobody but this filesystem changes what it serves; caches need no timeout.
        const EXCLUSIVE = 1 << 20;
        /// O_TRUNC of `open` is honoured, so the client need not send a setattr first.
        const ATOMIC_O_TRUNC = 1 << 21;
        /// Every change is answered with EROFS: a mount of it may be `ro`, and no layer can be put
        /// on it to be written to.
        const READ_ONLY = 1 << 23;
    }
}

/// What a filesystem needs and bears. Constant for the life of the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// A short word for the kind, such as `mem`: the part after `stratafs:` of a mount's source.
    pub kind: &'static str,
    /// Requests that must reach it.
    pub needs: Needs,
    /// Promises it makes.
    pub behaviours: Behaviours,
    /// Node ids are below 2 to the power of this. A composer packs a member's index above them.
    pub node_id_bits: u8,
    /// The finest step of its times, in nanoseconds: a power of ten from 1 to 1,000,000,000.
    pub time_granularity_ns: u32,
}

impl Features {
    /// A filesystem of `kind` that needs nothing and promises nothing, with ids of 64 bits.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            needs: Needs::empty(),
            behaviours: Behaviours::empty(),
            node_id_bits: 64,
            time_granularity_ns: 1,
        }
    }

    /// The same with these needs added.
    #[must_use]
    pub fn needing(mut self, needs: Needs) -> Self {
        self.needs |= needs;
        self
    }

    /// The same with these promises added.
    #[must_use]
    pub fn promising(mut self, behaviours: Behaviours) -> Self {
        self.behaviours |= behaviours;
        self
    }

    /// The same with ids of `bits` bits.
    #[must_use]
    pub fn with_node_id_bits(mut self, bits: u8) -> Self {
        self.node_id_bits = bits;
        self
    }

    /// The features of a tree made of `self` and `other`, by the module's table; `kind` is
    /// `self`'s.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        Self {
            kind: self.kind,
            needs: self.needs | other.needs,
            behaviours: self.behaviours & other.behaviours,
            node_id_bits: self.node_id_bits.max(other.node_id_bits),
            time_granularity_ns: self.time_granularity_ns.max(other.time_granularity_ns),
        }
    }

    /// Whether every one of `needs` must reach the filesystem.
    #[must_use]
    pub fn needs(&self, needs: Needs) -> bool {
        self.needs.contains(needs)
    }

    /// Whether every one of `behaviours` is promised.
    #[must_use]
    pub fn bears(&self, behaviours: Behaviours) -> bool {
        self.behaviours.contains(behaviours)
    }
}

/// What a session and its client agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated {
    /// The minor version of the FUSE protocol, 7.x, that is spoken.
    pub minor: u32,
    /// The largest write, in bytes.
    pub max_write: u32,
    /// The promises that the client makes use of.
    pub behaviours: Behaviours,
}

impl Negotiated {
    /// The outcome of an INIT.
    #[must_use]
    pub fn new(minor: u32, max_write: u32, behaviours: Behaviours) -> Self {
        Self { minor, max_write, behaviours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combine_unites_needs_and_intersects_promises() {
        let a = Features::new("a")
            .needing(Needs::FLUSH)
            .promising(Behaviours::NO_OPEN | Behaviours::PROMPT)
            .with_node_id_bits(40);
        let b = Features::new("b")
            .needing(Needs::XATTR)
            .promising(Behaviours::PROMPT)
            .with_node_id_bits(48);
        let both = a.combine(b);
        assert_eq!(both.kind, "a");
        assert_eq!(both.needs, Needs::FLUSH | Needs::XATTR);
        assert_eq!(both.behaviours, Behaviours::PROMPT);
        assert_eq!(both.node_id_bits, 48);
    }
}
