//! The account: what the filesystem holds, against what it may.
//!
//! Whatever is to be kept is reserved here *before* it is allocated, and given back *after* it was
//! let go of, so the sum never exceeds the capacity, whatever runs beside it. Each cost covers the
//! real memory of its object, the allocator's header and the growth of the table it sits in
//! included; the tests in `tests/bounds.rs` compare the account with the process.

use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{Errno, Result};

/// An inode, in bytes: the node behind its `Arc` and its place in the table of nodes, whose
/// buckets (17 bytes) are at worst 7/16 full after they doubled.
pub(crate) const NODE_COST: u64 = malloc(size_of::<crate::node::Node>() + 16) + 40;

/// What a directory costs beyond an inode, in bytes: its boxed index and its first allocations.
pub(crate) const DIR_COST: u64 = malloc(size_of::<crate::entries::Entries>()) + 64;

/// A directory entry without its name, in bytes: a slot in a vector of which a third may be empty
/// and a quarter of the rest tombstones, and 5 bytes of a hash index with the same tombstones that
/// is at worst 7/16 full.
const ENTRY_COST: u64 = 2 * crate::entries::SLOT_SIZE + 16;

/// An extended attribute without name and value, in bytes: a slot of 32 in a vector that may be half
/// empty, or the only slot and its boxed vector.
const XATTR_COST: u64 = 80;

/// What glibc's allocator takes for `size` bytes: a header of 8, rounded up to 16, at least 32.
pub(crate) const fn malloc(size: usize) -> u64 {
    let size = (size as u64 + 8 + 15) & !15;
    if size < 32 { 32 } else { size }
}

/// The cost of a directory entry named by `name_len` bytes.
pub(crate) const fn entry_cost(name_len: usize) -> u64 {
    ENTRY_COST + malloc(name_len)
}

/// The cost of a symlink's target of `len` bytes.
pub(crate) const fn target_cost(len: usize) -> u64 {
    malloc(len)
}

/// The cost of an extended attribute.
pub(crate) const fn xattr_cost(name_len: usize, value_len: usize) -> u64 {
    XATTR_COST + malloc(name_len) + malloc(value_len)
}

/// Bytes and inodes in use, and their limits.
#[derive(Debug)]
pub(crate) struct Account {
    capacity: u64,
    max_inodes: u64,
    used: AtomicU64,
    inodes: AtomicU64,
}

/// Adds `amount` to `counter` unless that exceeds `limit`.
fn take(counter: &AtomicU64, amount: u64, limit: u64) -> Result<()> {
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
            used.checked_add(amount).filter(|sum| *sum <= limit)
        })
        .map(drop)
        .map_err(|_| Errno::ENOSPC)
}

/// Subtracts `amount` from `counter`. More than was taken is a defect here, and must not wrap into
/// a filesystem that looks full for ever.
fn give(counter: &AtomicU64, amount: u64) {
    let before = counter.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
        debug_assert!(used >= amount, "gave back {amount} of {used}");
        Some(used.saturating_sub(amount))
    });
    debug_assert!(before.is_ok());
}

impl Account {
    pub(crate) fn new(capacity: u64, max_inodes: u64) -> Self {
        Self { capacity, max_inodes, used: AtomicU64::new(0), inodes: AtomicU64::new(0) }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn max_inodes(&self) -> u64 {
        self.max_inodes
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Inodes in use.
    pub(crate) fn inodes(&self) -> u64 {
        self.inodes.load(Ordering::Acquire)
    }

    /// Takes `bytes`, or nothing and answers `ENOSPC`.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        take(&self.used, bytes, self.capacity)
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        if bytes != 0 {
            give(&self.used, bytes);
        }
    }

    /// Takes `bytes` and `inodes`, to be given back unless kept.
    pub(crate) fn hold(&self, bytes: u64, inodes: u64) -> Result<Hold<'_>> {
        take(&self.inodes, inodes, self.max_inodes)?;
        if let Err(errno) = self.reserve(bytes) {
            give(&self.inodes, inodes);
            return Err(errno);
        }
        Ok(Hold { account: self, bytes, inodes })
    }

    pub(crate) fn give_back_inode(&self, bytes: u64) {
        self.give_back(bytes);
        give(&self.inodes, 1);
    }
}

/// A reservation that is given back on drop: what an early return would otherwise leak.
#[must_use]
pub(crate) struct Hold<'a> {
    account: &'a Account,
    bytes: u64,
    inodes: u64,
}

impl Hold<'_> {
    /// The reserved object exists: its end gives the reservation back.
    pub(crate) fn keep(mut self) {
        self.bytes = 0;
        self.inodes = 0;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
        if self.inodes != 0 {
            give(&self.account.inodes, self.inodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_beyond_the_capacity_is_enospc_and_takes_nothing() {
        let account = Account::new(100, 1);
        assert_eq!(account.reserve(60), Ok(()));
        assert_eq!(account.reserve(41), Err(Errno::ENOSPC));
        assert_eq!(account.reserve(u64::MAX), Err(Errno::ENOSPC));
        assert_eq!(account.used(), 60);
        assert_eq!(account.reserve(40), Ok(()));
    }

    #[test]
    fn hold_dropped_gives_back_and_kept_does_not() {
        let account = Account::new(100, 1);
        drop(account.hold(10, 1).unwrap());
        assert_eq!((account.used(), account.inodes()), (0, 0));
        account.hold(10, 1).unwrap().keep();
        assert_eq!((account.used(), account.inodes()), (10, 1));
        assert!(account.hold(10, 1).is_err());
        assert!(account.hold(91, 0).is_err());
        assert_eq!((account.used(), account.inodes()), (10, 1));
    }

    #[test]
    fn reserve_from_many_threads_never_exceeds_the_capacity() {
        let account = Account::new(1000, 0);
        let kept: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope
                        .spawn(|| (0..10_000).filter(|_| account.reserve(7).is_ok()).count() as u64)
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(kept, 1000 / 7);
        assert_eq!(account.used(), kept * 7);
    }
}
