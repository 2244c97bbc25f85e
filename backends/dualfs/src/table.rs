//! The table of nodes: by id for the client, by what they are made of for lookups.
//!
//! A node that the client forgot may live on, since those below it keep it: then a lookup must find
//! the same one, so it is found by its key for as long as anything holds it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use stratafs_core::{Errno, HandleId, NodeId, Result};

use crate::node::{Count, Node};
use crate::policy::Side;

/// What makes two lookups find one node: this object of this side, whose lookup the node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) Side, pub(crate) NodeId);

/// A hash of numbers that are counted up, here or by a side: no client chooses them, so none can make
/// them collide, and one multiplication spreads them.
#[derive(Default)]
pub(crate) struct CountHasher(u64);

impl Hasher for CountHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// A map by such numbers.
type Counted<K, V> = HashMap<K, V, BuildHasherDefault<CountHasher>>;

/// A node with what the client holds of it.
struct Held {
    node: Arc<Node>,
    lookups: u64,
    handles: u64,
}

#[derive(Default)]
struct Inner {
    ids: Counted<NodeId, Held>,
    keys: Counted<Key, Weak<Node>>,
}

/// The table.
pub(crate) struct Table {
    inner: Mutex<Inner>,
    next: Count,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), next: Count::from(NodeId::ROOT.0 + 1) }
    }

    /// An id that no node had.
    pub(crate) fn number(&self) -> NodeId {
        NodeId(self.next.next())
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
    pub(crate) fn find(&self, key: Key) -> Option<Arc<Node>> {
        self.inner.lock().keys.get(&key).and_then(Weak::upgrade)
    }

    /// The node of `key`, if there is one, its lookup count raised by one.
    pub(crate) fn find_raised(&self, key: Key) -> Option<Arc<Node>> {
        let mut inner = self.inner.lock();
        let node = inner.keys.get(&key).and_then(Weak::upgrade)?;
        Self::raise(&mut inner, &node);
        Some(node)
    }

    /// The node of `key`: the one that there is, or `new`. Raises its lookup count by one.
    pub(crate) fn enter(&self, key: Key, new: Node) -> Arc<Node> {
        let new = Arc::new(new);
        let mut inner = self.inner.lock();
        let found = inner.keys.get(&key).and_then(Weak::upgrade);
        let node = match found {
            Some(node) => node,
            None => {
                new.keys().lock().push(key);
                inner.keys.insert(key, Arc::downgrade(&new));
                Arc::clone(&new)
            }
        };
        Self::raise(&mut inner, &node);
        drop(inner);
        // If it is not the one, it goes here, where no lock is held.
        drop(new);
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

    /// The node is found by `key` too.
    pub(crate) fn add_key(&self, node: &Arc<Node>, key: Key) {
        let mut inner = self.inner.lock();
        let mut keys = node.keys().lock();
        if !keys.contains(&key) {
            keys.push(key);
        }
        inner.keys.insert(key, Arc::downgrade(node));
    }

    /// The node is found by its keys of `side` no more, or by none.
    pub(crate) fn drop_keys(&self, node: &Node, side: Option<Side>) {
        let mut inner = self.inner.lock();
        let mut keys = node.keys().lock();
        keys.retain(|key| {
            let goes = side.is_none_or(|side| key.0 == side);
            if goes {
                Self::unkey(&mut inner, key, node);
            }
            !goes
        });
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
    open: Mutex<Counted<HandleId, Arc<T>>>,
    next: Count,
}

impl<T> Handles<T> {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), next: Count::from(1) }
    }

    pub(crate) fn enter(&self, handle: Arc<T>) -> HandleId {
        let id = HandleId(self.next.next());
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
