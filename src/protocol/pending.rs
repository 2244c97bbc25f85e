//! Requests that wait, and the INTERRUPTs that end them.
//!
//! INTERRUPT names a request by its unique id. With several workers it may be read before its
//! request's wait is noted here, even before that request is: such an early one is remembered, and
//! meets its request when that comes. Most INTERRUPTs are for requests that do not wait at all and
//! are never met; so only the latest few are remembered.

use std::collections::HashMap;

use parking_lot::Mutex;
use stratafs_core::{Errno, Pending, Result};

/// How many early INTERRUPTs are remembered. One is lost to a wait only if so many others come
/// between a worker's reading of a request and its noting the wait, which is microseconds.
const EARLY: usize = 256;

/// How many requests may wait at a time; more are ENOLCK. A kernel's own limit on processes comes
/// first.
const MAX_WAITS: usize = 65_536;

#[derive(Debug, Default)]
struct Wait {
    pending: Option<Pending>,
    interrupted: bool,
}

#[derive(Debug)]
struct Table {
    waits: HashMap<u64, Wait>,
    /// A ring of unique ids; 0 is none.
    early: [u64; EARLY],
    next: usize,
}

impl Table {
    fn interrupt(&mut self, unique: u64) -> Option<Pending> {
        if let Some(wait) = self.waits.get_mut(&unique) {
            wait.interrupted = true;
            return wait.pending.take();
        }
        if let Some(place) = self.early.get_mut(self.next) {
            *place = unique;
        }
        self.next = self.next.wrapping_add(1) % EARLY;
        None
    }
}

/// The waiting requests of a session, by unique id.
#[derive(Debug)]
pub(crate) struct Waits(Mutex<Table>);

impl Waits {
    /// None.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Table { waits: HashMap::new(), early: [0; EARLY], next: 0 }))
    }

    /// Notes that the request `unique` is about to wait.
    ///
    /// # Errors
    /// * `EINVAL`: one of this id waits already. `ENOLCK`: too many wait.
    pub(crate) fn begin(&self, unique: u64) -> Result<()> {
        let mut table = self.0.lock();
        if table.waits.contains_key(&unique) {
            return Err(Errno::EINVAL);
        }
        if table.waits.len() >= MAX_WAITS {
            return Err(Errno::ENOLCK);
        }
        let early = table.early.iter_mut().find(|early| **early == unique);
        let interrupted = early.map(|early| *early = 0).is_some();
        table.waits.insert(unique, Wait { pending: None, interrupted });
        Ok(())
    }

    /// Gives the means to end the wait of `unique`. Where it was answered meanwhile they are
    /// dropped; where it was interrupted meanwhile they are used.
    pub(crate) fn register(&self, unique: u64, pending: Pending) {
        let mut table = self.0.lock();
        let Some(wait) = table.waits.get_mut(&unique) else { return };
        if !wait.interrupted {
            wait.pending = Some(pending);
            return;
        }
        drop(table);
        pending.cancel();
    }

    /// Notes that the request `unique` is being answered.
    pub(crate) fn end(&self, unique: u64) {
        // What can end it is dropped outside the lock.
        let _ended = self.0.lock().waits.remove(&unique);
    }

    /// Ends the wait of `unique`, which may be yet to come.
    pub(crate) fn interrupt(&self, unique: u64) {
        let pending = self.0.lock().interrupt(unique);
        if let Some(pending) = pending {
            pending.cancel();
        }
    }

    /// Ends all waits and forgets all early INTERRUPTs: the session is over.
    pub(crate) fn end_all(&self) {
        let mut table = self.0.lock();
        table.early = [0; EARLY];
        let waits: Vec<Pending> = table
            .waits
            .values_mut()
            .filter_map(|wait| {
                wait.interrupted = true;
                wait.pending.take()
            })
            .collect();
        drop(table);
        for pending in waits {
            pending.cancel();
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().waits.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stratafs_core::Cancel;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Cancel for Count {
        fn cancel(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Arc<Count>, Pending) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Pending::new(count))
    }

    #[test]
    fn interrupt_ends_its_wait_whenever_it_comes() {
        for early in 0..3 {
            let waits = Waits::new();
            let (count, pending) = counted();
            let interrupt_if = |now| {
                if now == early {
                    waits.interrupt(9);
                }
            };
            interrupt_if(0);
            waits.begin(9).unwrap();
            interrupt_if(1);
            waits.register(9, pending);
            interrupt_if(2);
            assert_eq!(count.0.load(Ordering::SeqCst), 1, "before step {early}");
            waits.end(9);
            assert_eq!(waits.len(), 0);
        }
    }

    #[test]
    fn register_of_an_answered_request_keeps_nothing() {
        let waits = Waits::new();
        let (count, pending) = counted();
        waits.begin(9).unwrap();
        waits.end(9);
        waits.register(9, pending);
        waits.interrupt(9);
        assert_eq!((count.0.load(Ordering::SeqCst), waits.len()), (0, 0));
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn begin_of_an_id_that_waits_is_einval() {
        let waits = Waits::new();
        waits.begin(9).unwrap();
        assert_eq!(waits.begin(9), Err(Errno::EINVAL));
    }

    #[test]
    fn end_all_cancels_what_waits_and_what_is_about_to() {
        let waits = Waits::new();
        let (one, first) = counted();
        let (two, second) = counted();
        waits.begin(1).unwrap();
        waits.register(1, first);
        waits.begin(2).unwrap();
        waits.end_all();
        waits.register(2, second);
        assert_eq!(one.0.load(Ordering::SeqCst), 1);
        assert_eq!(two.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn early_interrupts_beyond_the_ring_are_forgotten() {
        let waits = Waits::new();
        for unique in 1..10_000 {
            waits.interrupt(unique);
        }
        assert_eq!(waits.len(), 0);
        let (count, pending) = counted();
        waits.begin(9_999).unwrap();
        waits.register(9_999, pending);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
