//! The FUSE wire: bytes in, trait call, bytes out.
//!
//! A transport makes one [`Session`] for each connection and gives it every request that comes, from
//! as many workers as it likes, each with a [`Scratch`] of its own. The session decides everything
//! that is FUSE: INIT, what is decoded how, which request reaches the filesystem, what the client
//! may name, and that each request has its one reply.
//!
//! | module | what it holds |
//! |---|---|
//! | [`io`] | the seam: a request's source, a reply's slot |
//! | `config`, `session` | [`SessionConfig`], [`Session`], [`SessionState`] |
//! | `init` | INIT: [`InitFlags`] from the filesystem's features |
//! | `opcode`, `wire` | [`Opcode`] and the structures of the wire, 7.31 to 7.45 |
//! | `decode`, `encode` | arguments out of bytes, replies into bytes; bounded |
//! | `dispatch`, `ops` | from a request to the one method that serves it |
//! | `backing` | which nodes the kernel reads and writes by itself |
//! | `ledger` | the node ids and handles that the client was given |
//! | `pending` | waits and the INTERRUPTs that end them |
//! | [`notice`] | notifications as bytes |
//! | [`null`] | a filesystem that does nothing: what the protocol costs by itself |
//!
//! # Malformed requests
//!
//! Whatever the bytes are, [`Session::handle`] returns, answers once where the client waits, and
//! allocates nothing by their say: arguments go into the worker's buffer, file data stays where it
//! is. An id that the session was not given is ESTALE (a node) or EBADF (a handle) before the
//! filesystem sees it.
//!
//! # ENOSYS
//!
//! The kernel remembers it for the whole connection, so only the dispatcher says it, and only of
//! what no member of the filesystem needs. A filesystem's own becomes EOPNOTSUPP.
//!
//! # Locks
//!
//! The shards of the ledger and of the backings, the table of waits and the session's state each have one, all leaves:
//! none is held across a call of the filesystem, a reply or another of them. A session's INIT and
//! DESTROY exclude each other by one more, which no other request takes.
//!
//! # Absences
//!
//! No file descriptor is owned here, no I/O is done and no thread is started.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unreachable
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "a test that panics says where"
    )
)]

mod backing;
mod config;
mod decode;
mod dispatch;
mod encode;
mod init;
pub mod io;
mod ledger;
pub mod notice;
pub mod null;
mod opcode;
mod ops;
mod pending;
mod scratch;
mod session;
mod wire;

pub use config::{SessionConfig, TransportKind};
pub use init::InitFlags;
pub use opcode::Opcode;
pub use scratch::Scratch;
pub use session::{Rejected, Session, SessionState};
