//! FUSE over `/dev/fuse`: a filesystem mounted on this host.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn filesystem() -> Arc<dyn stratafs_core::DynFileSystem> { unimplemented!() }
//! use std::path::Path;
//! use stratafs::transport::fuse_dev::{Mount, MountOptions};
//!
//! let server = Mount::builder(filesystem())
//!     .options(MountOptions::parse(["ro,noatime"])?)
//!     .mount(Path::new("/mnt/x"))?;
//! server.wait();
//! # Ok::<(), stratafs::transport::fuse_dev::MountError>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | `-o` options |
//! | [`error`] | why a mount failed, and what to do |
//! | `mountpoint` | dead, busy and missing mountpoints |
//! | `attachment` | mount(2), `fusermount3`, and the end of both |
//! | [`server`] | the builder, and the handle of what is served |
//! | `device` | requests out of a descriptor, replies into it |
//! | `worker`, `crew`, `linger` | threads, how many of them read at a time, and when they sleep |
//! | `notify` | telling the kernel what changed |
//!
//! # Threads
//!
//! N workers with a descriptor each, and one thread that writes notices and serves nothing. A
//! request that waits for another client (a lock) holds no worker: the protocol parks it.
//!
//! # Lock order
//!
//! The crew's and the notice queue's locks are leaves: nothing is called while one is held.
//!
//! # Absences
//!
//! No backend is known here, and no field of a request beyond what a reply must repeat.

pub mod error;
pub mod options;
pub mod server;

mod attachment;
mod crew;
mod device;
mod linger;
mod mountpoint;
mod notify;
mod worker;

pub use error::MountError;
pub use options::MountOptions;
pub use server::{Ended, Mount, Server};
