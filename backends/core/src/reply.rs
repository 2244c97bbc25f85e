//! Answers that come later.
//!
//! What can block for as long as another client pleases (a wait for a lock, above all) never holds a
//! worker: the request's [`Reply`] moves to where the wait ends, and the caller gets a [`Pending`]
//! by which the wait can be called off.

use std::fmt;
use std::sync::Arc;

use crate::{Errno, Result};

/// The right, and the duty, to answer one request. Any thread may use it, once.
///
/// Dropped unanswered it answers EIO, so that no client waits for ever.
#[must_use]
pub struct Reply<T>(Option<Box<dyn FnOnce(Result<T>) + Send>>);

impl<T> Reply<T> {
    /// A reply that hands the answer to `complete`.
    pub fn new(complete: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(complete)))
    }

    /// Answers. No lock may be held by the caller that the filesystem's methods take.
    pub fn send(mut self, answer: Result<T>) {
        if let Some(complete) = self.0.take() {
            complete(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(complete) = self.0.take() {
            complete(Err(Errno::EIO));
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reply(open)" } else { "Reply(sent)" })
    }
}

/// Something that waits and can be told to stop.
pub trait Cancel: Send + Sync {
    /// Ends the wait: its reply is answered with EINTR, unless it was answered before. Harmless
    /// afterwards, and from any thread.
    fn cancel(&self);
}

/// A request whose [`Reply`] is still to come.
#[derive(Clone)]
pub struct Pending(Arc<dyn Cancel>);

impl Pending {
    /// A pending request that `cancel` can end.
    #[must_use]
    pub fn new(cancel: Arc<dyn Cancel>) -> Self {
        Self(cancel)
    }

    /// Calls the wait off; see [`Cancel::cancel`].
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn reply_dropped_unanswered_is_eio() {
        let (tx, rx) = mpsc::channel();
        drop(Reply::<()>::new(move |answer| tx.send(answer).unwrap()));
        assert_eq!(rx.recv(), Ok(Err(Errno::EIO)));
    }

    #[test]
    fn reply_sent_answers_once() {
        let (tx, rx) = mpsc::channel();
        Reply::new(move |answer| tx.send(answer).unwrap()).send(Ok(7));
        assert_eq!(rx.iter().collect::<Vec<_>>(), [Ok(7)]);
    }
}
