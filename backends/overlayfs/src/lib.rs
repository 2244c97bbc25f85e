//! Read-only layers and a writable one as one tree, in the format of the kernel's overlayfs.
//!
//! [`OverlayFs`] shows any number of read-only layers and at most one writable layer, each of them
//! any [`DynFileSystem`](stratafs_core::DynFileSystem) or a directory in one. The writable layer is
//! one that the kernel's overlayfs mounts, and one of the kernel's is taken up here.
//!
//! ```
//! use std::sync::Arc;
//! use stratafs_core::{Context, DynFileSystem, Name, NodeId};
//! use stratafs_memfs::MemFs;
//! use stratafs_overlayfs::OverlayFs;
//!
//! let base = Arc::new(MemFs::builder().build()?);
//! base.mkdir(&Context::internal(), NodeId::ROOT, Name::new(b"etc")?, 0o755)?;
//! let scratch = Arc::new(MemFs::builder().build()?);
//!
//! // The bottom layer first; `scratch` gets the directories `upper` and `work`.
//! let fs = OverlayFs::builder().layer(base).writable(scratch).build()?;
//! fs.rmdir(&Context::internal(), NodeId::ROOT, Name::new(b"etc")?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! **Nothing deleted ever comes back, nothing is ever half there.** Every change is prepared in a
//! staging directory and made visible by one rename of the writable layer. After a crash at any
//! point each path is wholly old or wholly new, and what was staged is removed by the next build.
//!
//! A whiteout or an opaque directory in *any* layer hides all that the layers below have under it,
//! also where a layer above makes the directory anew.
//!
//! An object keeps its inode number when it is copied up, in every later run too; `st_ino` equals
//! `d_ino`, and no two objects of different layers have one number. Names of one file stay names of
//! one file, with one node, one number and the right count of them.
//!
//! # Limits
//!
//! * Files whose data is in another layer than their attributes (`metacopy`) are refused (EIO) when
//!   their data is asked for, unless the option is given.
//! * A name of a file that was copied up by another of its names, in a directory of which the writable
//!   layer has no part, is no change that [`OverlayFs::changes`] tells.
//! * Where the writable layer cannot hold a record, as `user.` attributes on a symlink, a copy has a
//!   number of its own, and parts with other names of its file.
//! * RENAME_WHITEOUT and a device `0:0` are refused to clients: they would be deletions.
//! * Locks stay with the client's kernel.
//! * A file of a read-only layer that the client's kernel reads by itself stays the one that its open
//!   handles read after a copy-up, as in the kernel's overlayfs. An open by the node that it had
//!   before is ESTALE, upon which a kernel looks the name up again; all others see the copy.
//! * An extended attribute that the writable layer may not hold is left out by a copy-up, and logged.
//! * `nlink` of a merged directory is 1.
//!
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | `fs` | [`OverlayFs`], and its one implementation of the trait |
//! | `builder` | [`Builder`], and what it refuses |
//! | `layer` | [`Layer`], and what is asked of one in the overlay's own name |
//! | `format` | the marks of the on-disk format |
//! | `node`, `table` | nodes, and how they are found |
//! | `ino` | inode numbers |
//! | `origin` | file handles that say what was copied up from where |
//! | `index`, `links` | hard links through copy-up |
//! | `lookup`, `search` | finding objects in the layers |
//! | `merge`, `dir` | merged listings |
//! | `stage` | the staging directory |
//! | `copy_up` | copy-up |
//! | `create`, `remove`, `rename` | changes of names |
//! | `file`, `attr`, `xattr` | what is done to one object |
//! | `notify` | telling other clients |
//! | `changes` | [`OverlayFs::changes`], and [`Change`] |
//! | `explain` | [`OverlayFs::explain`] |
//! | `check` | [`OverlayFs::check`]: whether a writable layer is well-formed, and mending it |
//!
//! # Lock order
//!
//! 1. A node's `copying`, then those of its ancestors.
//! 2. The mutex `renames`.
//! 3. `names` of directories: an ancestor before what is below it, else the smaller id first.
//! 4. `names` of the index.
//! 5. The leaves: a node's `index`, `place` and `key`, the tables.
//!
//! The leaves are never held across a call into a layer. The others are: a change of names may take
//! several calls, which must be one to others. None is held across a sink, a source or a client's
//! callback.
//!
//! # Absences
//!
//! It names no other backend and no transport, makes no system call and starts no thread.

#![forbid(unsafe_code)]

mod attr;
mod builder;
mod changes;
mod check;
mod copy_up;
mod create;
mod dir;
mod explain;
mod file;
mod format;
mod fs;
mod index;
mod ino;
mod layer;
mod links;
mod lookup;
mod merge;
mod node;
mod notify;
mod origin;
mod remove;
mod rename;
mod search;
mod stage;
mod table;
mod xattr;

pub use builder::{BuildError, Builder, RedirectDir, Whiteouts};
pub use changes::{Change, ChangeKind};
pub use check::{Area, Finding, Problem, Repair};
pub use explain::{Part, Role};
pub use fs::OverlayFs;
pub use layer::Layer;
