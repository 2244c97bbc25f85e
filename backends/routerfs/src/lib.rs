//! Several filesystems in one tree, each at its own path.
//!
//! [`RouterFs`] is a mount table: a path belongs to the filesystem that is mounted at its longest
//! prefix. Each of them is any [`DynFileSystem`](stratafs_core::DynFileSystem).
//!
//! ```
//! use std::sync::Arc;
//! use stratafs_core::{Context, DynFileSystem, Errno, Name, NodeId};
//! use stratafs_memfs::MemFs;
//! use stratafs_routerfs::{MountFlags, RouterFs};
//!
//! let root = Arc::new(MemFs::builder().build()?);
//! let data = Arc::new(MemFs::builder().build()?);
//! let fs = RouterFs::builder()
//!     .mount("/", root)
//!     .mount_with("/srv/data", data, MountFlags::NOSUID | MountFlags::NODEV)
//!     .build()?;
//!
//! // `/srv` is in no filesystem, and shows all the same.
//! let cx = Context::internal();
//! let srv = fs.lookup(&cx, NodeId::ROOT, Name::new(b"srv")?)?.found()?;
//! assert!(fs.lookup(&cx, srv.node, Name::new(b"data")?)?.found()?.submount);
//! assert_eq!(fs.rmdir(&cx, srv.node, Name::new(b"data")?), Err(Errno::EBUSY));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! * A mount shows in every listing of the directory that it is in, whatever that directory is: one of
//!   a filesystem, the root of another mount, or one that no filesystem has. A directory on the way to
//!   a mount which no filesystem has is made up; nothing can be made in it (EROFS).
//! * Renames and links from one mount to another are EXDEV. A mount point, and a directory on the way
//!   to one, can be neither removed nor renamed nor replaced: EBUSY.
//! * `statfs` is that of the mount that a node is in. The root of a mount is marked as one
//!   (FUSE_ATTR_SUBMOUNT), so that a virtio-fs guest shows it as a mount of its own.
//! * `st_ino` equals `d_ino`, and no two objects of different mounts have one number.
//! * What is not in the table cannot be reached: names never are `..`, and a symlink is followed by the
//!   client, whose root is the router's.
//!
//! # Flags of a mount
//!
//! The protocol knows no flags of a part of a share, so they are put into what is shown; see
//! [`MountFlags`].
//!
//! # Features
//!
//! Those of all filesystems together by the table of [`stratafs_core::features`], with these
//! exceptions: STAGING_RENAME is never promised; where a filesystem has no `readdirplus`, `lseek` or
//! `syncfs` and another needs it, the router answers for the former (entries without their objects; a
//! file without holes; nothing to do). Filesystems that keep locks themselves and such that leave them
//! to the client's kernel can't be mounted side by side, for the client asks either for all files or
//! for none.
//!
//! # While it is served
//!
//! [`RouterFs::mount`] and [`RouterFs::unmount`] change the table at any time. An unmounted filesystem
//! is detached, as by umount2(2) with MNT_DETACH: what is open goes on, and the last forget lets go of
//! it. Clients are told; where notices don't reach the kernel (virtio-fs), a name that was looked up
//! before stays as it was for as long as its timeout says.
//!
//! # Limits
//!
//! * 253 mounts beside the root at a time.
//! * Ids and inode numbers carry the number of their mount in their topmost bits. Those that leave no
//!   room come from a table; that of inode numbers grows with the objects seen.
//! * `nlink` of a directory that holds mounts is 1, "not counted".
//!
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | `fs` | [`RouterFs`], and its one implementation of the trait |
//! | `builder` | [`Builder`], and what it refuses |
//! | `path` | places in the tree as text |
//! | `table` | [`RouterFs::mount`], [`RouterFs::unmount`], [`RouterFs::mounts`] |
//! | `point` | mount points and what is on the way to them |
//! | `member` | a mounted filesystem |
//! | `ids` | node ids, handles and inode numbers of several filesystems as one |
//! | `lookup` | finding names |
//! | `create`, `remove`, `rename` | changes of names |
//! | `dir` | listings |
//! | `file`, `attr`, `xattr` | what is done to one object |
//! | `notify` | notices of the members, in the router's ids |
//!
//! # Lock order
//!
//! 1. The mutex `changes` of the table.
//! 2. `below` of a point, then its `state`.
//! 3. The leaves: the slots, a member's `reals`, the tables of `ids`, the list of clients.
//!
//! None is held across a call into a member, a sink, a source or a client's callback.
//!
//! # Absences
//!
//! It names no other backend and no transport, makes no system call and starts no thread. It knows no
//! paths of the host: what is mounted is a filesystem already.

#![forbid(unsafe_code)]

mod attr;
mod builder;
mod create;
mod dir;
mod file;
mod fs;
mod ids;
mod lookup;
mod member;
mod notify;
mod path;
mod point;
mod remove;
mod rename;
mod table;
mod xattr;

pub use builder::{BuildError, Builder};
pub use fs::RouterFs;
pub use member::MountFlags;
pub use table::{Mount, MountError};
