//! The table of nodes: by id for the client, by what they are made of for lookups.
//!
//! A node that the client forgot may live on, since those below it keep it: then a lookup must find
//! the same one, so it is found by its key for as long as anything holds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use stratafs_core::{Errno, HandleId, NameBuf, NodeId, Result};

use crate::node::Node;

/// What makes two lookups find one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// This object of the writable layer, whose lookup the node holds.
    Upper(NodeId),
    /// What read-only layers have under this name in the directory of this id. It never moves: to be
    /// renamed, an object is copied up first.
    Lower(NodeId, NameBuf),
    /// This object of the read-only layer of this number, whose lookup the node holds: one with
    /// several names, which stays one when it is copied up.
    Linked(usize, NodeId),
}

/// A node with what the client holds of it.
struct Held {
    node: Arc<Node>,
    lookups: u64,
    handles: u64,
}

#[derive(Default)]
struct Inner {
    ids: HashMap<NodeId, Held>,
    keys: HashMap<Key, Weak<Node>>,
}

/// The table.
pub(crate) struct Table {
    inner: Mutex<Inner>,
    next: AtomicU64,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), next: AtomicU64::new(NodeId::ROOT.0 + 1) }
    }

    /// An id that no node had.
    pub(crate) fn number(&self) -> NodeId {
        NodeId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Enters the root, which stays.
    pub(crate) fn set_root(&self, node: Arc<Node>) {
        self.inner.lock().ids.insert(NodeId::ROOT, Held { node, lookups: 1, handles: 0 });
    }

    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE`: none that the client holds.
    pub(crate) fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        let inner = self.inner.lock();
        inner.ids.get(&id).map(|held| Arc::clone(&held.node)).ok_or(Errno::ESTALE)
    }

    /// The node of `key`, if there is one.
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Node>> {
        self.inner.lock().keys.get(key).and_then(Weak::upgrade)
    }

    /// The node of `key`: the one that there is, if it is of the same object, or `new`. Raises its
    /// lookup count by one.
    pub(crate) fn enter(&self, key: Key, new: Node) -> Arc<Node> {
        let new = Arc::new(new);
        let mut inner = self.inner.lock();
        let found = inner.keys.get(&key).and_then(Weak::upgrade);
        let same = |node: &Arc<Node>| node.is_same(&new);
        let stale = found.as_ref().filter(|node| !same(node)).cloned();
        let node = match found.filter(same) {
            Some(node) => node,
            None => {
                *new.key().lock() = Some(key.clone());
                inner.keys.insert(key, Arc::downgrade(&new));
                Arc::clone(&new)
            }
        };
        Self::raise(&mut inner, &node);
        drop(inner);
        // What is not the one goes here, where no lock is held.
        drop((new, stale));
        node
    }

    fn raise(inner: &mut Inner, node: &Arc<Node>) {
        let new = || Held { node: Arc::clone(node), lookups: 0, handles: 0 };
        let held = inner.ids.entry(node.id).or_insert_with(new);
        held.lookups = held.lookups.saturating_add(1);
    }

    /// Raises the lookup count of `node` by one.
    pub(crate) fn look_up(&self, node: &Arc<Node>) {
        Self::raise(&mut self.inner.lock(), node);
    }

    /// The node has become what `key` says.
    pub(crate) fn rekey(&self, node: &Arc<Node>, key: Option<Key>) {
        let mut inner = self.inner.lock();
        let old = std::mem::replace(&mut *node.key().lock(), key.clone());
        if let Some(old) = old {
            Self::unkey(&mut inner, &old, node);
        }
        if let Some(key) = key {
            inner.keys.insert(key, Arc::downgrade(node));
        }
    }

    fn unkey(inner: &mut Inner, key: &Key, node: &Node) {
        // One that is going may have moved; nobody can find it any more.
        let is_it =
            |weak: &Weak<Node>| std::ptr::eq(weak.as_ptr(), node) || weak.strong_count() == 0;
        if inner.keys.get(key).is_some_and(is_it) {
            inner.keys.remove(key);
        }
    }

    /// A node with this key is going.
    pub(crate) fn dropped(&self, key: &Key, node: &Node) {
        Self::unkey(&mut self.inner.lock(), key, node);
    }

    /// Lowers the lookup count of `id` by `count`.
    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        if id == NodeId::ROOT {
            return;
        }
        let gone = self.lower(id, |held| held.lookups = held.lookups.saturating_sub(count));
        drop(gone);
    }

    /// A handle was opened on `node`.
    pub(crate) fn opened(&self, node: &Arc<Node>) {
        let mut inner = self.inner.lock();
        let new = || Held { node: Arc::clone(node), lookups: 0, handles: 0 };
        inner.ids.entry(node.id).or_insert_with(new).handles += 1;
    }

    /// A handle on `node` was released. Says whether it was the last.
    pub(crate) fn closed(&self, node: &Node) -> bool {
        let mut last = false;
        let gone = self.lower(node.id, |held| {
            held.handles = held.handles.saturating_sub(1);
            last = held.handles == 0;
        });
        drop(gone);
        last
    }

    /// Changes what the client holds of `id`; what it holds no more comes back, to be dropped when
    /// no lock is held.
    fn lower(&self, id: NodeId, change: impl FnOnce(&mut Held)) -> Option<Held> {
        let mut inner = self.inner.lock();
        let held = inner.ids.get_mut(&id)?;
        change(held);
        if held.lookups > 0 || held.handles > 0 || id == NodeId::ROOT {
            return None;
        }
        let gone = inner.ids.remove(&id);
        if inner.ids.capacity() > 1024 && inner.ids.len() < inner.ids.capacity() / 8 {
            // A burst must not pin the table's memory for good.
            let len = inner.ids.len();
            inner.ids.shrink_to(len * 2);
            inner.keys.shrink_to(len * 2);
        }
        gone
    }

    /// How many nodes the client holds, the root counted.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().ids.len()
    }
}

/// Numbers for handles.
pub(crate) struct Handles<T> {
    open: Mutex<HashMap<HandleId, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(1) }
    }

    pub(crate) fn enter(&self, handle: Arc<T>) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.lock().insert(id, handle);
        id
    }

    /// # Errors
    /// `EBADF`: not open.
    pub(crate) fn get(&self, id: HandleId) -> Result<Arc<T>> {
        self.open.lock().get(&id).cloned().ok_or(Errno::EBADF)
    }

    /// # Errors
    /// `EBADF`: not open.
    pub(crate) fn take(&self, id: HandleId, is_it: impl FnOnce(&T) -> bool) -> Result<Arc<T>> {
        let mut open = self.open.lock();
        if !open.get(&id).is_some_and(|handle| is_it(handle)) {
            return Err(Errno::EBADF);
        }
        open.remove(&id).ok_or(Errno::EBADF)
    }
}
