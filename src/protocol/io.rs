//! The seam between the protocol and a transport.
//!
//! A transport hands the protocol one request as a [`WriteSource`](stratafs_core::WriteSource) that
//! gives the request's bytes in order, from its header on, and a [`ReplySlot`] for the answer. The
//! protocol copies header and arguments out once, and leaves file data where it is: it is pulled by
//! the filesystem from the same source, and put by it into the slot's payload.

use std::fmt;
use std::os::fd::BorrowedFd;

use stratafs_core::{Errno, ReadSink, Result as CoreResult};

/// Length of `fuse_out_header`, in bytes: every reply begins with one.
pub const OUT_HEADER_LEN: usize = 16;

/// A reply could not be given: the client was interrupted or is gone. What the reply carried (a
/// lookup, a handle) is undone by the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undeliverable;

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client did not take the reply")
    }
}

impl std::error::Error for Undeliverable {}

/// The place for the answer to one request.
///
/// Exactly one of the consuming methods is called for each slot. The transport writes the header
/// (`fuse_out_header`: length, error, unique) by itself, from what it is told.
pub trait ReplySlot: Sized {
    /// The sink for the payload, which follows the header. Its room is what the client offers, or
    /// the transport's largest reply.
    fn payload(&mut self) -> &mut dyn ReadSink;

    /// Throws away what the payload holds.
    fn clear(&mut self);

    /// Answers success with the payload, or the error alone.
    ///
    /// # Errors
    /// [`Undeliverable`]: the client did not take it.
    fn send(self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable>;

    /// Ends a request that has no reply (FORGET), or one so malformed that there is nobody to
    /// answer.
    fn finish(self);

    /// Takes the duty to answer away from the worker, for an answer that comes later and has no
    /// payload.
    fn detach(self) -> Box<dyn DetachedReply>;
}

/// The duty to answer, taken from its worker by [`ReplySlot::detach`]. Dropped unanswered, the
/// client waits for ever: the protocol never does.
pub trait DetachedReply: Send {
    /// Answers success without a payload, or the error.
    fn send(self: Box<Self>, unique: u64, answer: Result<(), Errno>);
}

/// What the client's kernel calls a file of the host that it was named; from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackingId(pub i32);

/// The client's kernel, as far as it can read and write files of the host by itself
/// (FUSE_PASSTHROUGH). A transport that reaches such a kernel gives one to its session.
pub trait BackingRegistry: Send + Sync {
    /// Names `file` to the kernel, which keeps it from then on.
    ///
    /// # Errors
    /// * `EPERM`: the process may register no file at all.
    /// * `ELOOP`: the file's filesystem is stacked too deep.
    /// * Anything else: this file does not do.
    fn register(&self, file: BorrowedFd<'_>) -> CoreResult<BackingId>;

    /// Takes back what [`Self::register`] answered. What is open by it goes on.
    fn unregister(&self, id: BackingId);
}

/// A sink that takes no more than it was told to, whatever the one behind it could.
pub(crate) struct Limited<'a> {
    sink: &'a mut dyn ReadSink,
    left: usize,
}

impl<'a> Limited<'a> {
    /// At most `left` bytes of `sink`.
    pub(crate) fn new(sink: &'a mut dyn ReadSink, left: usize) -> Self {
        Self { sink, left }
    }

    fn took(&mut self, taken: usize) -> usize {
        self.left = self.left.saturating_sub(taken);
        taken
    }
}

impl ReadSink for Limited<'_> {
    fn remaining(&self) -> usize {
        self.sink.remaining().min(self.left)
    }

    fn write_slice(&mut self, data: &[u8]) -> CoreResult<usize> {
        let data = data.get(..self.left).unwrap_or(data);
        let taken = self.sink.write_slice(data)?;
        Ok(self.took(taken))
    }

    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> CoreResult<usize> {
        let taken = self.sink.write_from_fd(fd, offset, len.min(self.left))?;
        Ok(self.took(taken))
    }

    fn write_zeros(&mut self, len: usize) -> CoreResult<usize> {
        let taken = self.sink.write_zeros(len.min(self.left))?;
        Ok(self.took(taken))
    }
}
