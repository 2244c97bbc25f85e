//! The table of nodes: from a number to its node, for as long as the node lives.
//!
//! Sharded by number; a look-up takes a shared lock of one shard. Numbers count up and are never
//! given out twice, so the same operations give the same numbers in every run.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use stratafs_core::{Errno, NodeId, Result};

use crate::rank::{self, Rank};

/// Shards of a table: enough that a handful of workers seldom meet in one.
pub(crate) const SHARDS: usize = 64;

/// A hash of numbers that are counted up by us: no client chooses them, so none can make them
/// collide, and one multiplication spreads them.
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

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

type Shard<T> = RwLock<HashMap<u64, T, BuildHasherDefault<CountHasher>>>;

/// A sharded map from numbers that count up.
pub(crate) struct Numbered<T> {
    shards: Box<[Shard<T>]>,
    next: AtomicU64,
}

impl<T> Numbered<T> {
    /// An empty table whose first number is `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            next: AtomicU64::new(first),
        }
    }

    fn shard(&self, number: u64) -> &Shard<T> {
        &self.shards[number as usize % SHARDS]
    }

    /// The next number, from now on taken.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters `value` under `number`.
    ///
    /// # Errors
    /// `ENOMEM`: the host has no memory for it.
    pub(crate) fn insert(&self, number: u64, value: T) -> Result<()> {
        let mut shard = rank::write(self.shard(number), Rank::Leaf);
        shard.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        shard.insert(number, value);
        Ok(())
    }

    /// What `with` makes of the value under `number`, if there is one.
    pub(crate) fn get<R>(&self, number: u64, with: impl FnOnce(&T) -> R) -> Option<R> {
        rank::read(self.shard(number), Rank::Leaf).get(&number).map(with)
    }

    /// Takes out the value under `number` if `is_it` says so.
    pub(crate) fn remove_if(&self, number: u64, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut shard = rank::write(self.shard(number), Rank::Leaf);
        if !is_it(shard.get(&number)?) {
            return None;
        }
        let value = shard.remove(&number);
        // A burst must not pin the table's memory for good.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            let len = shard.len();
            shard.shrink_to(len * 2);
        }
        value
    }

    /// Calls `visit` with every value. A shard's shared lock is held meanwhile.
    pub(crate) fn each(&self, mut visit: impl FnMut(&T)) {
        for shard in &self.shards {
            rank::read(shard, Rank::Leaf).values().for_each(&mut visit);
        }
    }

    /// As [`each`](Self::each), with no lock, for nobody else is left.
    pub(crate) fn each_mut(&mut self, mut visit: impl FnMut(&mut T)) {
        for shard in &mut self.shards {
            shard.get_mut().values_mut().for_each(&mut visit);
        }
    }

    /// How many values there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

impl<T> Numbered<Arc<T>> {
    /// The object that `id` names.
    ///
    /// # Errors
    /// `ESTALE`: there is none.
    pub(crate) fn node(&self, id: NodeId) -> Result<Arc<T>> {
        self.get(id.0, Arc::clone).ok_or(Errno::ESTALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_never_given_out_twice() {
        let table = Numbered::<()>::new(1);
        let first = table.number();
        table.insert(first, ()).unwrap();
        table.remove_if(first, |()| true).unwrap();
        assert_eq!((first, table.number()), (1, 2));
    }

    #[test]
    fn remove_after_a_burst_gives_the_tables_memory_back() {
        let table = Numbered::<u64>::new(0);
        for number in 0..100_000 {
            table.insert(number, number).unwrap();
        }
        for number in 0..100_000 {
            assert_eq!(table.remove_if(number, |_| true), Some(number));
        }
        assert_eq!(table.len(), 0);
        let kept: usize = table.shards.iter().map(|shard| shard.read().capacity()).sum();
        assert!(kept <= SHARDS * 64, "{kept} buckets kept");
    }
}
