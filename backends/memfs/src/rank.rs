//! The order of locks, checked while tests run.
//!
//! A debug build notes, per thread, how many locks of each rank are held, and panics where one is
//! taken after a later one: an inversion shows on its first run and not in a deadlock some day. A
//! release build does nothing of it.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The ranks, in the order in which locks are taken; see the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The rename mutex.
    Renames,
    /// A directory in which entries are sought or change; two of them in a rename.
    Dir,
    /// A node by itself, or one that an entry leads to; two of them in a rename.
    Node,
    /// A shard of a table, or the lock table.
    Leaf,
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::Cell;

    use super::Rank;

    /// Locks of one rank that a thread may hold at a time.
    const MOST: [u8; 4] = [1, 2, 2, 1];

    thread_local! {
        static HELD: Cell<[u8; 4]> = const { Cell::new([0; 4]) };
    }

    /// That a lock of some rank is held, or about to be.
    #[derive(Debug)]
    pub(super) struct Held(Rank);

    impl Held {
        pub(super) fn new(rank: Rank) -> Self {
            let mut held = HELD.get();
            let at = rank as usize;
            let later = held[at + 1..].iter().all(|count| *count == 0);
            assert!(later && held[at] < MOST[at], "a lock of rank {rank:?} beside {held:?}");
            held[at] += 1;
            HELD.set(held);
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A thread that ends may have lost its counts before its last guard.
            let _ = HELD.try_with(|held| {
                let mut counts = held.get();
                counts[self.0 as usize] -= 1;
                held.set(counts);
            });
        }
    }

    /// Panics if this thread holds any lock.
    pub(crate) fn assert_none() {
        assert_eq!(HELD.get(), [0; 4], "a lock is held");
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use super::Rank;

    #[derive(Debug)]
    pub(super) struct Held;

    impl Held {
        pub(super) fn new(_: Rank) -> Self {
            Self
        }
    }

    pub(crate) fn assert_none() {}
}

use held::Held;
pub(crate) use held::assert_none;

/// A guard that knows its rank.
#[derive(Debug)]
pub(crate) struct Guard<G> {
    // Dropped first: the lock is free before its rank is.
    guard: G,
    _held: Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// A shared lock.
pub(crate) type ReadGuard<'a, T> = Guard<RwLockReadGuard<'a, T>>;
/// An exclusive lock.
pub(crate) type WriteGuard<'a, T> = Guard<RwLockWriteGuard<'a, T>>;

/// Takes `lock` shared.
pub(crate) fn read<T>(lock: &RwLock<T>, rank: Rank) -> ReadGuard<'_, T> {
    let held = Held::new(rank);
    Guard { guard: lock.read(), _held: held }
}

/// Takes `lock` exclusively.
pub(crate) fn write<T>(lock: &RwLock<T>, rank: Rank) -> WriteGuard<'_, T> {
    let held = Held::new(rank);
    Guard { guard: lock.write(), _held: held }
}

/// Takes `mutex`.
pub(crate) fn lock<T>(mutex: &Mutex<T>, rank: Rank) -> Guard<MutexGuard<'_, T>> {
    let held = Held::new(rank);
    Guard { guard: mutex.lock(), _held: held }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    fn panics(with: impl FnOnce() + Send) -> bool {
        std::thread::scope(|scope| scope.spawn(with).join().is_err())
    }

    #[test]
    fn lock_after_a_later_one_panics_in_a_debug_build() {
        let (a, b) = (RwLock::new(()), RwLock::new(()));
        assert!(panics(|| drop((read(&a, Rank::Node), read(&b, Rank::Dir)))));
        assert!(panics(|| drop((write(&a, Rank::Leaf), read(&b, Rank::Leaf)))));
        assert!(!panics(|| drop((write(&a, Rank::Dir), read(&b, Rank::Dir)))));
        assert!(!panics(|| drop((write(&a, Rank::Dir), write(&b, Rank::Node)))));
    }

    #[test]
    fn lock_given_up_counts_no_more() {
        let (a, mutex) = (RwLock::new(0), Mutex::new(0));
        *write(&a, Rank::Leaf) += 1;
        *lock(&mutex, Rank::Renames) += 1;
        assert_none();
        assert_eq!((*read(&a, Rank::Dir), *lock(&mutex, Rank::Leaf)), (1, 1));
    }
}
