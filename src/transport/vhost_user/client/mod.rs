//! A VMM and its guest, played: a vhost-user frontend that drives the queues of any vhost-user-fs
//! server.
//!
//! ```no_run
//! use std::os::unix::net::UnixStream;
//! use stratafs::transport::vhost_user::client::{Setup, Vmm, fuse};
//!
//! let stream = UnixStream::connect("/run/vm/root.sock")?;
//! let (_vmm, mut queues) = Vmm::connect(stream, &Setup::default())?;
//! let guest = &mut queues[1];
//! fuse::init(guest)?;
//! let attributes = fuse::getattr(guest, fuse::ROOT)?;
//! # let _ = attributes;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`vmm`] | the connection: memory, features, queues |
//! | [`queue`] | the guest driver's side of a virtqueue, well-behaved or not |
//! | [`fuse`] | requests of the FUSE protocol |
//! | [`bench`](mod@bench) | requests per second |
//!
//! It plays by the rules unless it is told not to: [`Queue::poke`](queue::Queue::poke),
//! [`Queue::put_descriptor`](queue::Queue::put_descriptor) and [`Queue::offer`](queue::Queue::offer)
//! write whatever they are given.

pub mod bench;
pub mod fuse;
pub mod queue;
pub mod vmm;

pub use queue::{Call, Queue, Reply};
pub use vmm::{Setup, Vmm};
