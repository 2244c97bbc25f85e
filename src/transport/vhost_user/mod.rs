//! virtio-fs: a share for a virtual machine, over vhost-user.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn filesystem() -> Arc<dyn stratafs_core::DynFileSystem> { unimplemented!() }
//! use std::path::Path;
//! use stratafs::transport::vhost_user::{Listener, Share};
//!
//! let listener = Listener::bind(Path::new("/run/vm/root.sock"), None)?;
//! let server = Share::builder(filesystem()).request_queues(2).serve(listener)?;
//! # drop(server);
//! # Ok::<(), stratafs::transport::vhost_user::ServeError>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | the builder, connections, and the handle of what is served |
//! | [`error`] | why a share cannot be served, and what to do |
//! | [`config`] | tags, numbers of queues, the configuration space |
//! | [`socket`] | where VMMs connect; dead sockets are taken over |
//! | `client` | a VMM and its guest, played (feature `ring`) |
//! | `control` | the messages of vhost-user |
//! | `memory` | the guest's memory |
//! | `ring` | a virtqueue: taking requests, giving answers back |
//! | `chain` | descriptor chains, checked |
//! | `data` | file data straight between the guest's memory and a descriptor |
//! | `slot` | the answer to one request |
//! | `worker` | threads |
//! | `watch` | what waits behind a reader that is stuck |
//!
//! # Threads
//!
//! One waits for VMMs and does what they say; one reads each queue that the VMM started and serves
//! what it reads; a few, shared, serve requests that may take long, so that nothing waits behind
//! them. Any request may turn out to take long, a read of a slow disk for one: one more thread sees
//! it within milliseconds, and has what waits behind it served by the few. A filesystem that promises
//! PROMPT has none of the latter.
//!
//! # What a guest cannot do
//!
//! End the server or a queue, whatever it writes into its memory and when: a request is copied out
//! once before anything is decided by it; a chain that makes no sense is given back unanswered;
//! file data is never interpreted. A session, and so all that a guest was given, lives until its
//! next INIT or DESTROY; that the VMM went away alone ends nothing.
//!
//! # Why the connection is handled here
//!
//! `vhost-user-backend` has a handler for all of this. It is not used: it answers GET_VRING_BASE
//! while requests are under way, whose answers are then lost; it takes one connection in its life, and
//! a new one per connection leaves a descriptor behind each time; and it reads each kick, one system
//! call more per request.
//!
//! What it costs stands in `MEASURED.md`, beside this file.
//!
//! # Lock order
//!
//! The state of a ring, the pool's queue, the list of what is watched and the server's stream are
//! leaves: nothing is called while one is held.
//!
//! # Absences
//!
//! No backend is known here. Types of `vhost`, `virtio-queue` and `vm-memory` do not leave this
//! module.

#[cfg(feature = "ring")]
pub mod client;
pub mod config;
pub mod error;
pub mod server;
pub mod socket;

mod chain;
mod control;
mod data;
mod memory;
mod ring;
mod slot;
mod watch;
mod worker;

pub use config::Tag;
pub use error::ServeError;
pub use server::{Ended, Server, Share};
pub use socket::Listener;
