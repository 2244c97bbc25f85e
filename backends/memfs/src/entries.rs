//! The entries of a directory: by name in constant time, and in a stable order.
//!
//! Entries stand in a vector in the order in which they were made, each under a cookie that counts
//! up and is never used again. A removed one leaves a tombstone, and when a quarter of the slots are
//! tombstones they are swept out. So a listing goes on from any cookie by binary search, and what
//! was there all along is met exactly once, whatever came and went beside it. A hash index over the
//! vector finds names.

use std::sync::Arc;

use hashbrown::HashTable;
use stratafs_core::{Errno, Result};

use crate::node::Node;

/// The cookie of `.`.
pub(crate) const DOT: u64 = 1;
/// The cookie of `..`.
pub(crate) const DOTDOT: u64 = 2;

/// A slot, in bytes; see `charge.rs`.
pub(crate) const SLOT_SIZE: u64 = size_of::<Slot>() as u64;

/// Below this many slots a sweep is not worth its while.
const SWEEP_FROM: usize = 32;

/// An entry or, without a node, a tombstone.
pub(crate) struct Slot {
    pub(crate) cookie: u64,
    hash: u64,
    pub(crate) name: Box<[u8]>,
    node: Option<Arc<Node>>,
}

/// A directory's entries.
pub(crate) struct Entries {
    /// Ascending by cookie.
    slots: Vec<Slot>,
    /// Places in `slots`, by the hash of the name.
    index: HashTable<u32>,
    live: usize,
    next_cookie: u64,
}

impl Entries {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), index: HashTable::new(), live: 0, next_cookie: DOTDOT + 1 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    fn place(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let slots = &self.slots;
        self.index
            .find(hash, |place| {
                let slot = &slots[*place as usize];
                slot.hash == hash && *slot.name == *name
            })
            .map(|place| *place as usize)
    }

    /// The node that `name` leads to.
    pub(crate) fn get(&self, hash: u64, name: &[u8]) -> Option<&Arc<Node>> {
        self.slots[self.place(hash, name)?].node.as_ref()
    }

    /// Makes sure that the next [`insert`](Self::insert) succeeds.
    pub(crate) fn reserve_one(&mut self) -> Result<()> {
        if self.slots.len() >= u32::MAX as usize {
            return Err(Errno::ENOSPC);
        }
        if self.slots.len() == self.slots.capacity() {
            // By half and not to double: what is reserved is charged.
            let more = (self.slots.len() / 2).max(2);
            self.slots.try_reserve_exact(more).map_err(|_| Errno::ENOMEM)?;
        }
        let slots = &self.slots;
        self.index.try_reserve(1, |place| slots[*place as usize].hash).map_err(|_| Errno::ENOMEM)
    }

    /// Adds an entry; `name` is absent, and [`reserve_one`](Self::reserve_one) was called.
    pub(crate) fn insert(&mut self, hash: u64, name: &[u8], node: Arc<Node>) {
        let place = self.slots.len() as u32;
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.slots.push(Slot { cookie, hash, name: name.into(), node: Some(node) });
        let slots = &self.slots;
        self.index.insert_unique(hash, place, |place| slots[*place as usize].hash);
        self.live += 1;
    }

    /// Makes `name`, which exists, lead to `node`, and gives the node that it led to. The entry
    /// keeps its place in listings.
    pub(crate) fn replace(&mut self, hash: u64, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        let place = self.place(hash, name)?;
        self.slots[place].node.replace(node)
    }

    /// Removes `name`, and gives the node that it led to.
    pub(crate) fn remove(&mut self, hash: u64, name: &[u8]) -> Option<Arc<Node>> {
        let place = self.place(hash, name)?;
        if let Ok(found) = self.index.find_entry(hash, |at| *at as usize == place) {
            found.remove();
        }
        let slot = &mut self.slots[place];
        slot.name = Box::default();
        let node = slot.node.take();
        self.live -= 1;
        while self.slots.last().is_some_and(|slot| slot.node.is_none()) {
            self.slots.pop();
        }
        let roomy = self.live * 2 < self.slots.capacity();
        let holey = self.live * 4 < self.slots.len() * 3;
        if self.slots.capacity() > SWEEP_FROM && (roomy || holey) {
            self.sweep();
        }
        node
    }

    /// Drops the tombstones, and the room that is not needed. Cookies stay, so no listing notices.
    fn sweep(&mut self) {
        let room = self.live + self.live / 2;
        if self.slots.len() != self.live {
            self.slots.retain(|slot| slot.node.is_some());
            self.index.clear();
            let slots = &self.slots;
            for (place, slot) in slots.iter().enumerate() {
                self.index.insert_unique(slot.hash, place as u32, |at| slots[*at as usize].hash);
            }
        }
        self.slots.shrink_to(room);
        let slots = &self.slots;
        self.index.shrink_to(room, |place| slots[*place as usize].hash);
    }

    /// The entries after `cookie`, in order.
    pub(crate) fn after(&self, cookie: u64) -> impl Iterator<Item = (&Slot, &Arc<Node>)> {
        let from = self.slots.partition_point(|slot| slot.cookie <= cookie);
        self.slots[from..].iter().filter_map(|slot| Some((slot, slot.node.as_ref()?)))
    }

    /// Lets go of every entry.
    pub(crate) fn clear(&mut self) {
        *self = Self { next_cookie: self.next_cookie, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Arc<Node> {
        Arc::new(Node::for_tests())
    }

    fn hash(name: &[u8]) -> u64 {
        // Weak on purpose: collisions are part of every test here.
        name.len() as u64
    }

    fn add(entries: &mut Entries, name: &str) {
        entries.reserve_one().unwrap();
        entries.insert(hash(name.as_bytes()), name.as_bytes(), node());
    }

    fn names(entries: &Entries, cookie: u64) -> Vec<String> {
        let name = |slot: &Slot| String::from_utf8(slot.name.to_vec()).unwrap();
        entries.after(cookie).map(|(slot, _)| name(slot)).collect()
    }

    #[test]
    fn remove_many_keeps_cookies_and_order_of_the_rest() {
        let mut entries = Entries::new();
        for i in 0..1000 {
            add(&mut entries, &format!("{i:04}"));
        }
        let (at_500, _) = entries.after(DOTDOT).nth(500).unwrap();
        let cookie = at_500.cookie;
        for i in (0..1000).filter(|i| i % 10 != 0) {
            let name = format!("{i:04}");
            assert!(entries.remove(hash(name.as_bytes()), name.as_bytes()).is_some());
        }
        assert_eq!(entries.len(), 100);
        assert!(entries.slots.len() < 300, "tombstones are swept");
        let rest: Vec<_> = (501..1000).filter(|i| i % 10 == 0).map(|i| format!("{i:04}")).collect();
        assert_eq!(names(&entries, cookie), rest);
        assert!(entries.get(4, b"0990").is_some());
        assert!(entries.get(4, b"0991").is_none());
    }

    #[test]
    fn replace_keeps_the_place_in_the_listing() {
        let mut entries = Entries::new();
        for name in ["a", "b", "c"] {
            add(&mut entries, name);
        }
        let old = Arc::clone(entries.get(1, b"b").unwrap());
        let replaced = entries.replace(1, b"b", node()).unwrap();
        assert!(Arc::ptr_eq(&old, &replaced));
        assert_eq!(names(&entries, 0), ["a", "b", "c"]);
    }

    #[test]
    fn create_and_remove_for_ever_keeps_the_memory_bounded() {
        let mut entries = Entries::new();
        add(&mut entries, "stays");
        for i in 0..100_000 {
            let name = format!("{i}");
            add(&mut entries, &name);
            if i >= 10 {
                let old = format!("{}", i - 10);
                assert!(entries.remove(hash(old.as_bytes()), old.as_bytes()).is_some());
            }
        }
        assert_eq!(entries.len(), 11);
        assert!(entries.slots.capacity() <= 128, "{}", entries.slots.capacity());
    }
}
