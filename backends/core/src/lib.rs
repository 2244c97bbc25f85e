//! The filesystem trait of stratafs and its vocabulary.
//!
//! [`DynFileSystem`] is the one interface between what stores files (a backend), what composes them
//! (a layer over other filesystems) and what serves them (a transport). Everything else here is a
//! word of that interface.
//!
//! | module | what it holds |
//! |---|---|
//! | [`filesystem`] | the trait and its contract |
//! | [`name`] | [`Name`] and [`XattrName`], the only names the trait accepts |
//! | [`errno`] | [`Errno`], the only error the trait speaks |
//! | [`id`] | [`NodeId`], [`HandleId`], [`SessionId`], [`Generation`], [`PersistentId`] |
//! | [`attr`] | [`Attr`], [`SetAttr`], [`FileType`], [`Timestamp`], [`StatFs`] |
//! | [`context`] | [`Context`]: who asks |
//! | [`features`] | [`Features`]: what a filesystem needs and bears, and how composers combine it |
//! | [`cache`] | [`CachePolicy`] and its timeouts |
//! | [`data`] | [`ReadSink`] and [`WriteSource`]: file data on its way, without a bounce |
//! | [`open`] | [`OpenFlags`], [`Opened`], [`BackingFile`] |
//! | [`dir`] | [`DirEntry`], [`DirSink`] |
//! | [`lock`] | [`FileLock`] and its owner |
//! | [`reply`] | [`Reply`] and [`Pending`]: answers that come later |
//! | [`notify`] | [`Notifier`]: telling the client's kernel what changed |
//! | [`state`] | [`State`]: what survives a restart |
//! | [`refs`] | [`NodeRef`], [`HandleRef`]: references that give themselves back |
//! | [`intercept`] | [`Intercept`]: what looks at every request; [`Intercepted`] forwards them |
//! | [`readonly`] | [`ReadOnly`], an intercept that refuses every change |
//! | [`traced`] | [`Traced`], an intercept that logs every request |
//! | [`simple`] | [`SimpleFs`] and [`Simple`]: a filesystem in sixty lines |
//!
//! # Nodes and inodes
//!
//! A *node* is what the client sees, named by a [`NodeId`]; an *inode* is an object of a backing
//! filesystem. The same object has the same `NodeId` while its lookup count is above zero.
//!
//! # Lock order
//!
//! This crate holds two locks, both leaves: the list inside [`notify::Notifiers`] and the tables of
//! the author's layer. Neither is held across a callback or a call into a filesystem.
//!
//! # Absences
//!
//! No system call is made here, no thread is started, and no transport, wire format or backend is
//! known. File descriptors pass through as values only.

#![forbid(unsafe_code)]

pub mod attr;
pub mod cache;
pub mod context;
pub mod data;
pub mod dir;
pub mod errno;
pub mod features;
pub mod filesystem;
pub mod id;
pub mod intercept;
pub mod lock;
pub mod name;
pub mod notify;
pub mod open;
pub mod readonly;
pub mod refs;
pub mod reply;
pub mod simple;
pub mod state;
pub mod traced;

pub use attr::{Attr, FileType, SetAttr, SetTime, StatFs, TimedAttr, Timestamp};
pub use cache::{Cache, CachePolicy};
pub use context::{Context, Credentials, SecurityContext};
pub use data::{ReadSink, SliceSink, SliceSource, WriteFlags, WriteSource};
pub use dir::{Added, DirEntry, DirSink};
pub use errno::{Errno, Result};
pub use features::{Behaviours, Features, Needs, Negotiated};
pub use filesystem::{
    CopyRange, DynFileSystem, FallocateMode, Lookup, Release, RenameFlags, SeekTo, XattrMode,
};
pub use id::{Entry, Generation, HandleId, NodeId, PersistentId, SessionId};
pub use intercept::{Answer, Intercept, Intercepted, Op, OpKind, Outcome};
pub use lock::{FileLock, LockFlavour, LockKind, LockOwner};
pub use name::{Name, NameBuf, NameError, XattrName};
pub use notify::{Notifier, Notifiers};
pub use open::{Access, BackingFile, OpenFlags, Opened, OpenedFlags};
pub use readonly::ReadOnly;
pub use refs::{HandleRef, NodeRef};
pub use reply::{Cancel, Pending, Reply};
pub use simple::{NewObject, Simple, SimpleFs, WriteAt};
pub use state::State;
pub use traced::Traced;
