//! A filesystem in memory, with an honest capacity.
//!
//! [`MemFs`] holds files, directories, links, special files and extended attributes as tmpfs does,
//! and more of what a client may ask for: creation times, holes and shared storage, every form of
//! rename2 and fallocate. Whatever is kept is charged to the capacity before it is made, so what is
//! in use never exceeds it, and given back when it goes; a full filesystem answers ENOSPC.
//!
//! ```
//! use stratafs_core::CachePolicy;
//! use stratafs_memfs::{MemFs, SizeExt};
//!
//! let fs = MemFs::builder()
//!     .capacity(64.mib())
//!     .max_inodes(10_000)
//!     .cache_policy(CachePolicy::Always)
//!     .build()?;
//! assert_eq!(fs.usage().inodes, 1);
//! # Ok::<(), stratafs_memfs::BuildError>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `builder` | [`Builder`], its defaults and its errors |
//! | `fs` | the implementation of the trait: one line a method |
//! | `lookup`, `attr`, `create`, `remove`, `rename`, `file`, `space`, `dir`, `xattr`, `lock` | the operations |
//! | `node` | a node: an inode, its counts and its lock |
//! | `entries` | a directory's entries, by name and by cookie |
//! | `extent`, `chunk` | a file's data: sparse, in chunks that are shared until written |
//! | `handle` | open files |
//! | `table` | the sharded tables of nodes and handles |
//! | `rank` | the order of locks, checked in debug builds |
//! | `charge` | the account: what is in use, and what each object costs |
//! | `notify` | what other clients are told |
//! | `clock` | where the time comes from |
//!
//! # What an object costs
//!
//! An inode takes its place among `max_inodes`, and bytes of the capacity as every name, attribute
//! and chunk of data does; the amounts are in `charge`, and cover what the process really holds. An
//! empty file with a name of up to 24 bytes is charged less than 400 bytes. Data is stored in pages
//! of 4096 bytes, each charged some 2% more, and the end of a file in as little as 64 bytes. Chunks
//! that files share after `copy_file_range` are charged to each of them, so that a write to one
//! never meets ENOSPC for it.
//!
//! Beside the account there are, for each worker, up to 1 MiB of buffer and the chunks of one read
//! on its way (64 KiB), and for each open handle less than 100 bytes, up to `max_handles`.
//!
//! # Numbers
//!
//! Inode numbers count up from 1, the root, and are never given out twice; the node id is the
//! inode number. The same operations in the same order give the same numbers.
//!
//! # Lock order
//!
//! 1. the rename mutex: held by a rename between two directories, so that no directory moves
//!    meanwhile;
//! 2. the locks of directories in which entries change: of two, an ancestor first, else the lower
//!    number first;
//! 3. the locks of the nodes that the entries lead to: of two, the lower number first;
//! 4. a shard of a table, or the lock table: leaves, never two at a time.
//!
//! A debug build checks this at each lock (`rank`).
//!
//! The account is made of atomics. No lock is held while a sink, a source, a reply or the clock
//! runs, nor while much memory is freed.
//!
//! # Absences
//!
//! No system call is made here and no thread started; no transport and no other backend is known.
//! POSIX ACLs are not kept, nor inode flags. fsync has nothing to do. A removed entry that leads to
//! a whiteout (character device `0:0`) counts like any other: only a layering filesystem gives it a
//! meaning.

#![forbid(unsafe_code)]

mod attr;
mod builder;
mod charge;
mod chunk;
mod clock;
mod create;
mod dir;
mod entries;
mod extent;
mod file;
mod fs;
mod handle;
mod lock;
mod lookup;
mod node;
mod notify;
mod rank;
mod remove;
mod rename;
mod space;
mod table;
#[cfg(test)]
mod test_util;
mod xattr;

pub use builder::{BuildError, Builder, DEFAULT_CAPACITY, Locks, SizeExt};
pub use bytesize::ByteSize;
pub use clock::{Clock, ManualClock, SystemClock};
pub use fs::{MemFs, Usage};
