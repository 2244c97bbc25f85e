//! Two filesystems under one tree, with a policy that chooses between them.
//!
//! [`DualFs`] shows backend A and backend B, each of them any
//! [`DynFileSystem`](stratafs_core::DynFileSystem), as one. A [`DispatchPolicy`] says for every
//! operation where to look, where to act, and what is transferred first.
//!
//! ```
//! use std::sync::Arc;
//! use stratafs_core::{Context, DynFileSystem, Name, NodeId};
//! use stratafs_dualfs::{DualFs, ReadBackendBWriteBackendA};
//! use stratafs_memfs::MemFs;
//!
//! let tree = Arc::new(MemFs::builder().build()?);
//! tree.mkdir(&Context::internal(), NodeId::ROOT, Name::new(b"etc")?, 0o755)?;
//! let changes = Arc::new(MemFs::builder().build()?);
//!
//! let fs = DualFs::builder()
//!     .backend_a(changes)
//!     .backend_b(tree)
//!     .policy(ReadBackendBWriteBackendA)
//!     .build()?;
//! fs.rmdir(&Context::internal(), NodeId::ROOT, Name::new(b"etc")?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Policies
//!
//! | policy | finds | changes | what is on B alone, when renamed | statfs |
//! |---|---|---|---|---|
//! | [`ReadBackendBWriteBackendA`] (default) | B, then A | go to A | is transferred | A |
//! | [`BackendAOnly`] | A | go to A | | A |
//! | [`BackendAFallbackToBackendBRead`] | A, then B | go to A | is EXDEV | A |
//! | [`MergeReadsBackendAPrecedence`] | A, then B | go to A | is transferred | both |
//!
//! A write to an object of the side that is not written transfers it first, with its parents before
//! it. Directories that both have are merged; their attributes are the written side's. An embedder can
//! write a policy: it answers [`Plan`]s, and what those say is done in one place. What is to watch or
//! to refuse operations of one side is an [`Intercept`](stratafs_core::Intercept) before that side.
//!
//! # What it promises
//!
//! * What was written through it is read through it, also by the next one that is built on the same
//!   backends: a changed object shows in place of the other side's, whichever is looked at first.
//! * The side that is not written is never changed. What is deleted of it is remembered on the
//!   written one, and stays deleted.
//! * A transfer is seen as a whole or not at all. If it fails, both sides are as they were.
//! * A node keeps its id and its inode number when it is transferred, the number in every later run
//!   too. A file that has several names on the other side is transferred once for all of them.
//! * `st_ino` equals `d_ino`; cookies of a listing stay.
//!
//! # On the written side
//!
//! Objects are there as they are. Beside them are records, as attributes that no client sees: in
//! `trusted.dual.*`, or in `user.dual.*`. A deletion is an empty file with such a record. The directory
//! `.stratafs-dual` in the root is for staging, and shows to no client.
//!
//! # Limits
//!
//! * Nobody else may change the backends meanwhile.
//! * Of a name that both sides had before they were put together, what is hidden on the written side
//!   is replaced when the name is written. A directory that is hidden so is not: EEXIST. Symlinks and
//!   special files of the written side are never hidden.
//! * Special files and symlinks with several names part when they are transferred.
//! * A directory of which the other side has a part moves with everything in it transferred first.
//! * Locks stay with the client's kernel, and no backing file is offered to it.
//! * An extended attribute that the written side may not hold is left out by a transfer, and logged.
//! * `nlink` of a merged directory and of the root is 1.
//!
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | `fs` | [`DualFs`], and its one implementation of the trait |
//! | `builder` | [`Builder`], and what it refuses |
//! | `policy` | [`DispatchPolicy`], [`Plan`], and the policies |
//! | `plan` | the executor of plans |
//! | `side` | objects of the sides, and what is asked of them in this filesystem's own name |
//! | `record` | the records |
//! | `node`, `table` | nodes, and how they are found |
//! | `ino` | inode numbers |
//! | `lookup` | finding objects on the sides |
//! | `merge`, `dir` | merged listings |
//! | `stage` | the staging directory |
//! | `transfer`, `links` | transfer, of files with one name and with several |
//! | `create`, `remove`, `rename` | changes of names |
//! | `file`, `attr`, `xattr` | what is done to one object |
//! | `notify` | telling other clients |
//!
//! # Lock order
//!
//! 1. A node's `transferring`, of one node at a time.
//! 2. The mutex `renames`.
//! 3. `names` of directories: an ancestor before what is below it, else the smaller id first.
//! 4. The mutex `counting`.
//! 5. The tables; then the leaves: a node's `index`, `place`, `keys` and `links`.
//!
//! The tables and the leaves are never held across a call into a side. The others are: a change of
//! names may take several calls, which must be one to others. None is held across a sink, a source or a
//! client's callback.
//!
//! # Absences
//!
//! It names no other backend and no transport, makes no system call and starts no thread.

#![forbid(unsafe_code)]

mod attr;
mod builder;
mod create;
mod dir;
mod file;
mod fs;
mod ino;
mod links;
mod lookup;
mod merge;
mod node;
mod notify;
mod plan;
mod policy;
mod record;
mod remove;
mod rename;
mod side;
mod stage;
mod table;
mod transfer;
mod xattr;

pub use builder::{BuildError, Builder};
pub use fs::DualFs;
pub use policy::{
    Act, BackendAFallbackToBackendBRead, BackendAOnly, DispatchPolicy, Look,
    MergeReadsBackendAPrecedence, Plan, ReadBackendBWriteBackendA, Request, Side, Transfer,
};
