//! A host directory for an untrusted guest: confined, with virtual ownership and bounded
//! descriptors.
//!
//! ```no_run
//! use stratafs_core::CachePolicy;
//! use stratafs_passthroughfs::{Ownership, PassthroughFs};
//!
//! let share = PassthroughFs::builder()
//!     .root_dir("/srv/guest")
//!     .ownership(Ownership::Virtual)
//!     .cache_policy(CachePolicy::Auto)
//!     .build()?;
//! # Ok::<(), stratafs_passthroughfs::BuildError>(())
//! ```
//!
//! # Confinement
//!
//! Objects are reached by descriptor and never by path. A child is opened by one validated name,
//! relative to the O_PATH descriptor of its directory, with openat2(2) and its RESOLVE flags. What is
//! opened for I/O is reopened from an O_PATH descriptor whose type is known, so nothing but files and
//! directories ever is, and no FIFO or device of the host is touched. File handles identify; none is
//! ever opened.
//!
//! # Nodes
//!
//! A node is known by device, inode number and creation time, or a digest of its file handle where
//! the filesystem keeps no such time. It is pinned by an O_PATH descriptor when it is first used,
//! within a budget; beyond it the descriptors of nodes that were not used for a while are closed,
//! and such a node is found again by the names that were seen to lead to it, parents first, and
//! checked by its identity: ESTALE if it is another object. A node whose last name goes is pinned
//! first, and stays so. A node costs about 470 bytes while a client knows it (measured; 512 are promised), and nothing after.
//!
//! Names are hints. Two clients that rename the same name at the same time may leave a hint that is
//! wrong; an unpinned node then answers ESTALE, and is found by the next lookup.
//!
//! # Ownership
//!
//! See [`Ownership`]. Under `Virtual` the record of an object is kept in its node for as long as the
//! object's ctime does not change, so getattr costs one system call. A record that was read within
//! 20 ms of that ctime is read again, since a second change could hide behind it; one that was written
//! here is not. With `exclusive` it is read once.
//!
//! Records are written by one process at a time: two servers of one directory may lose each other's
//! changes of owner and mode.
//!
//! POSIX ACLs are kept with [`Builder::posix_acl`], and are EOPNOTSUPP without.
//!
//! # A successor
//!
//! `capture_state` gives what another server of the same directory takes up with `restore_state`: all
//! ids of nodes and handles, by names from the root and checked by inode number and time of creation.
//! Files that have no name any more are reported, and lost to it.
//!
//! | module | what it holds |
//! |---|---|
//! | `builder`, `error`, `features` | [`Builder`], its checks, errors and outcome |
//! | `fs` | the trait, one line for each method |
//! | `lookup`, `attr`, `create`, `remove`, `rename`, `file`, `dir`, `xattrs`, `symlink` | the operations |
//! | `resolve` | from a node to a descriptor |
//! | `prepared` | what is whole before it has a name |
//! | `owner`, `record`, `idmap` | owners, modes and types |
//! | `acls`, `acl` | POSIX ACLs: where they are kept, and what one is |
//! | `node`, `table`, `pins`, `handles`, `devices` | what is remembered |
//! | `state` | what is remembered for a successor |
//!
//! # Lock order
//!
//! 1. a node's `update`: held while its ownership record is read, changed and written back, the one
//!    lock that is held across system calls;
//! 2. a shard of the node table by identity;
//! 3. a shard of the node table by id;
//! 4. a node's `state`.
//!
//! The clock of the pins, a shard of the handles, the streams of directory handles, the devices and
//! the log of corrupt records are leaves, taken with none of the others but `update`.
//!
//! # Absences
//!
//! It keeps no locks of files, checks no permissions, starts no threads, and knows no other backend
//! and no transport.

#![forbid(unsafe_code)]

mod acl;
mod acls;
mod attr;
mod builder;
mod create;
mod devices;
mod dir;
mod error;
mod features;
mod file;
mod fs;
mod handles;
mod idmap;
mod lookup;
mod node;
mod owner;
mod pins;
mod prepared;
mod record;
mod remove;
mod rename;
mod resolve;
mod state;
mod symlink;
mod table;
mod xattrs;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use stratafs_core::{Features, NameBuf, NodeId};
use stratafs_sys::proc::Proc;

pub use builder::{Builder, OpenMode, Ownership};
pub use error::BuildError;
pub use idmap::{IdRule, IdRuleError};

/// A host directory as a filesystem. See the [crate's page](crate).
pub struct PassthroughFs {
    options: builder::Options,
    /// Effective user and group of this process, who owns what is made.
    server: (u32, u32),
    process_umask: u32,
    proc: Proc,
    root: Arc<node::Node>,
    extra: Option<Arc<node::Node>>,
    /// The one name that there is in the root of the share of a single file.
    only: Option<NameBuf>,
    /// The root, open for real.
    root_dir: Option<OwnedFd>,
    fsid: Option<[u8; 16]>,
    features: Features,
    table: table::Table,
    pins: pins::Pins,
    handles: handles::Handles,
    devices: devices::Devices,
    logged: owner::Logged,
    /// Whether a session has agreed on FUSE_PASSTHROUGH, so that backing files are of use.
    lends: AtomicBool,
    /// A client, or a layer above, does not check ACLs.
    unchecked: AtomicBool,
}

/// What a [`PassthroughFs`] holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Nodes in the table.
    pub nodes: usize,
    /// Descriptors that pin nodes, or that nodes keep open for stateless I/O.
    pub pins: usize,
    /// Open handles.
    pub handles: usize,
}

impl PassthroughFs {
    /// Options to set.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The node of the second root, where there is one. Its lookup count never reaches zero, and
    /// renames and links between the two trees are single steps. It is not part of the tree that is
    /// served.
    #[must_use]
    pub fn extra_root(&self) -> Option<NodeId> {
        self.extra.as_ref().map(|node| node.id)
    }

    /// What it holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let nodes = self.table.len();
        Usage { nodes, pins: self.pins.held(), handles: self.handles.open() }
    }
}

impl fmt::Debug for PassthroughFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassthroughFs")
            .field("ownership", &self.options.ownership)
            .field("readonly", &self.options.readonly)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
