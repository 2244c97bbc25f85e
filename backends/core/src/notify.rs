//! Telling a client's kernel that what it keeps is no longer true.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Name, NodeId, SessionId};

/// A way to one client's caches.
///
/// Every method only queues: it never blocks, whatever locks the caller holds, and never fails. A
/// queue that overflows turns into one notice that drops everything, so an invalidation is late at
/// worst and never lost where [`Notifier::reaches_kernel`] holds.
///
/// A filesystem has one for each of its sessions and tells them all: a notice of a node that this
/// client was not given is dropped here, before anything is written.
pub trait Notifier: Send + Sync {
    /// The data of `node` in `len` bytes from `offset` changed, and its attributes too; a `len` of
    /// 0 is up to the end. With an `offset` below 0 only the attributes did.
    fn inval_inode(&self, node: NodeId, offset: i64, len: i64);

    /// The name `name` in `parent` may lead elsewhere.
    fn inval_entry(&self, parent: NodeId, name: Name<'_>);

    /// The name `name` in `parent`, that led to `child`, is gone; whoever watches it is told.
    fn delete(&self, parent: NodeId, child: NodeId, name: Name<'_>);

    /// Every name that the client keeps may lead elsewhere (NOTIFY_INC_EPOCH).
    fn inval_all_entries(&self);

    /// The session whose client this is, where it has one.
    fn session(&self) -> Option<SessionId> {
        None
    }

    /// Whether notices reach the kernel at all. Over virtio-fs they do not, for mainline guests have
    /// no queue for them: there timeouts alone bound staleness.
    fn reaches_kernel(&self) -> bool;

    /// Whether the client is gone for good, so that the notifier can be let go of.
    fn is_closed(&self) -> bool;
}

/// The notifiers attached to a filesystem: one for each session that is served.
#[derive(Default)]
pub struct Notifiers(Mutex<Arc<[Arc<dyn Notifier>]>>);

impl Notifiers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a notifier, and lets go of those that are closed.
    pub fn attach(&self, notifier: Arc<dyn Notifier>) {
        let mut list = self.0.lock();
        let open = list.iter().filter(|n| !n.is_closed()).cloned();
        *list = open.chain([notifier]).collect();
    }

    /// Calls `notice` with each notifier, with no lock held.
    pub fn each(&self, notice: impl Fn(&dyn Notifier)) {
        self.each_but(None, notice);
    }

    /// Calls `notice` with each notifier but that of `origin`, with no lock held: the session that a
    /// change came from knows of it, and would throw away what it has just written.
    pub fn each_but(&self, origin: Option<SessionId>, notice: impl Fn(&dyn Notifier)) {
        let list = Arc::clone(&self.0.lock());
        for notifier in list.iter() {
            if origin.is_none() || notifier.session() != origin {
                notice(notifier.as_ref());
            }
        }
    }

    /// Whether notices reach every attached client; without any client, they do.
    #[must_use]
    pub fn reach_kernel(&self) -> bool {
        Arc::clone(&self.0.lock()).iter().all(|n| n.is_closed() || n.reaches_kernel())
    }
}

impl fmt::Debug for Notifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notifiers({})", self.0.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of a session, and the nodes that it was told of.
    struct Client(SessionId, Mutex<Vec<NodeId>>);

    impl Notifier for Client {
        fn inval_inode(&self, node: NodeId, _: i64, _: i64) {
            self.1.lock().push(node);
        }
        fn inval_entry(&self, _: NodeId, _: Name<'_>) {}
        fn delete(&self, _: NodeId, _: NodeId, _: Name<'_>) {}
        fn inval_all_entries(&self) {}
        fn session(&self) -> Option<SessionId> {
            Some(self.0)
        }
        fn reaches_kernel(&self) -> bool {
            true
        }
        fn is_closed(&self) -> bool {
            false
        }
    }

    #[test]
    fn each_but_leaves_out_the_session_a_change_came_from() {
        let notifiers = Notifiers::new();
        let clients = [1, 2].map(|session| Arc::new(Client(SessionId(session), Mutex::default())));
        for client in &clients {
            notifiers.attach(Arc::<Client>::clone(client));
        }
        notifiers.each_but(Some(SessionId(1)), |client| client.inval_inode(NodeId(7), 0, 0));
        notifiers.each_but(None, |client| client.inval_inode(NodeId(8), 0, 0));
        assert_eq!(*clients[0].1.lock(), [NodeId(8)]);
        assert_eq!(*clients[1].1.lock(), [NodeId(7), NodeId(8)]);
    }
}
