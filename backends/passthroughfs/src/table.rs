//! All nodes, by id and by identity.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use stratafs_core::{FileType, NodeId};

use crate::node::{Identity, Node, Place};
use crate::pins::Pins;

/// Enough that two threads rarely meet; a power of two.
const SHARDS: usize = 64;

/// Hashes the numbers that are keys here: they are given by this server or by the host's kernel,
/// and are spread before they come to a map.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// The nodes. The order of its locks: a shard by identity, then a shard by id, then a node's state.
pub(crate) struct Table {
    by_id: Vec<RwLock<Map<u64, Arc<Node>>>>,
    by_identity: Vec<RwLock<Map<Identity, Arc<Node>>>>,
    next: AtomicU64,
}

impl Table {
    /// An empty table whose next id is `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            by_id: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_identity: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(first),
        }
    }

    fn ids(&self, id: NodeId) -> &RwLock<Map<u64, Arc<Node>>> {
        &self.by_id[id.0 as usize % SHARDS]
    }

    fn identities(&self, identity: Identity) -> &RwLock<Map<Identity, Arc<Node>>> {
        // The map takes its buckets from the low bits and its tags from the top ones.
        &self.by_identity[(identity.digest() >> 40) as usize % SHARDS]
    }

    /// The node `id`.
    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.ids(id).read().get(&id.0).cloned()
    }

    /// The node of `identity`, its lookup count raised by `lookups`.
    pub(crate) fn find(&self, identity: Identity, lookups: u64) -> Option<Arc<Node>> {
        // Counted under the lock, so that it cannot be taken out between.
        let shard = self.identities(identity).read();
        let node = shard.get(&identity)?;
        node.count(lookups);
        Some(Arc::clone(node))
    }

    /// The node of `identity`, made where there is none, its lookup count raised by one.
    pub(crate) fn enter(&self, identity: Identity, kind: FileType, host: FileType) -> Arc<Node> {
        let mut shard = self.identities(identity).write();
        if let Some(node) = shard.get(&identity) {
            node.count(1);
            return Arc::clone(node);
        }
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let node = Arc::new(Node::new(id, kind, host, identity));
        node.count(1);
        shard.insert(identity, Arc::clone(&node));
        self.ids(id).write().insert(id.0, Arc::clone(&node));
        node
    }

    /// Puts in a node with an id and a count of its own, and says whether there was room for it:
    /// none by that id or of that identity.
    pub(crate) fn put_back(&self, node: &Arc<Node>) -> bool {
        let identity = node.identity();
        let mut shard = self.identities(identity).write();
        let mut ids = self.ids(node.id).write();
        if shard.contains_key(&identity) || ids.contains_key(&node.id.0) {
            return false;
        }
        shard.insert(identity, Arc::clone(node));
        ids.insert(node.id.0, Arc::clone(node));
        true
    }

    /// The id of the next new node.
    pub(crate) fn next_id(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives new nodes ids from `next` on.
    pub(crate) fn go_on_from(&self, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    /// All nodes.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.by_id
            .iter()
            .flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Puts in a node that is never taken out.
    pub(crate) fn enter_root(&self, node: &Arc<Node>) {
        node.uses.fetch_add(1, Ordering::AcqRel);
        self.identities(node.identity()).write().insert(node.identity(), Arc::clone(node));
        self.ids(node.id).write().insert(node.id.0, Arc::clone(node));
    }

    /// Makes `node` the node of another object, which has taken its place under its name.
    pub(crate) fn rekey(&self, node: &Arc<Node>, to: Identity) {
        let from = std::mem::replace(&mut node.state.lock().identity, to);
        self.identities(to).write().insert(to, Arc::clone(node));
        let mut shard = self.identities(from).write();
        if shard.get(&from).is_some_and(|found| Arc::ptr_eq(found, node)) {
            shard.remove(&from);
        }
    }

    /// Takes `node` out if nothing needs it any more, and then whatever it was the last to need.
    pub(crate) fn reap(&self, node: &Arc<Node>, pins: &Pins) {
        let mut waiting = vec![Arc::clone(node)];
        while let Some(node) = waiting.pop() {
            if !node.is_idle() || !self.take_out(&node) {
                continue;
            }
            for place in pins.bury(&node) {
                place.parent.uses.fetch_sub(1, Ordering::AcqRel);
                waiting.push(place.parent);
            }
        }
    }

    fn take_out(&self, node: &Arc<Node>) -> bool {
        let identity = node.identity();
        let mut shard = self.identities(identity).write();
        let here = shard.get(&identity).is_some_and(|found| Arc::ptr_eq(found, node));
        if !here || !node.is_idle() {
            return false;
        }
        shard.remove(&identity);
        give_back(&mut shard);
        let mut ids = self.ids(node.id).write();
        ids.remove(&node.id.0);
        give_back(&mut ids);
        true
    }

    /// Gives up places that a node no longer has.
    pub(crate) fn release(&self, places: Vec<Place>, pins: &Pins) {
        for place in places {
            place.parent.uses.fetch_sub(1, Ordering::AcqRel);
            self.reap(&place.parent, pins);
        }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.iter().map(|shard| shard.read().len()).sum()
    }
}

/// The fewest entries that a shard keeps room for.
const ROOM: usize = 8;

/// Gives back the memory of a table that was much larger once.
fn give_back<K: Eq + std::hash::Hash, V>(map: &mut Map<K, V>) {
    // Halving at a quarter costs less than the entries that went did.
    if map.capacity() > ROOM && map.len() < map.capacity() / 4 {
        map.shrink_to((2 * map.len()).max(ROOM));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // A deep chain of parents, each held by its child alone, would be dropped recursively.
        for shard in &self.by_id {
            for node in shard.read().values() {
                let places = std::mem::take(&mut node.state.lock().places);
                drop(places);
            }
        }
    }
}
