//! Inode numbers that are unique across layers and stay when an object is copied up.
//!
//! The number of an object is that of the lowest place it came from: a file that was copied up
//! keeps the number of what it was copied from. Numbers of the first filesystem are shown as they
//! are; those of another carry its index in their topmost bits (`xino`), as long as they leave
//! these free. Those that do not are numbered by a table, for as long as the filesystem lives.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Makes inode numbers of layers' filesystems those of the merged tree.
pub(crate) struct Inos {
    /// Bits above which the index of the filesystem stands; 64 where there is but one.
    shift: u32,
    /// Whether numbers carry an index at all.
    xino: bool,
    /// The index of the numbers that the table gives out.
    spare: u64,
    table: Mutex<HashMap<(u32, u64), u64>>,
    next: AtomicU64,
}

impl Inos {
    /// For so many filesystems.
    pub(crate) fn new(filesystems: u32, xino: bool) -> Self {
        let indices = u64::from(filesystems) + 1;
        let bits = u64::BITS - (indices - 1).leading_zeros();
        let shift = if filesystems <= 1 { 64 } else { 64 - bits };
        Self {
            shift,
            xino,
            spare: u64::from(filesystems),
            table: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// The number of the object `ino` of the filesystem of this index.
    pub(crate) fn map(&self, filesystem: u32, ino: u64) -> u64 {
        if self.shift == 64 {
            return ino;
        }
        let fits = ino >> self.shift == 0;
        if fits && (self.xino || filesystem == 0) {
            return ino | (u64::from(filesystem) << self.shift);
        }
        let mut table = self.table.lock();
        *table.entry((filesystem, ino)).or_insert_with(|| {
            self.next.fetch_add(1, Ordering::Relaxed) | (self.spare << self.shift)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_several_filesystems_gives_no_number_twice() {
        for xino in [true, false] {
            let inos = Inos::new(3, xino);
            let mut seen = std::collections::HashSet::new();
            for filesystem in 0..3 {
                for ino in [1, 2, u64::MAX, u64::MAX >> 2, (u64::MAX >> 2) + 1] {
                    let number = inos.map(filesystem, ino);
                    assert!(seen.insert(number), "{filesystem} {ino} {xino}");
                    assert_eq!(inos.map(filesystem, ino), number, "stays");
                }
            }
            assert_eq!(inos.map(0, 7), 7, "the first is shown as it is");
        }
    }

    #[test]
    fn map_of_one_filesystem_changes_nothing() {
        assert_eq!(Inos::new(1, true).map(0, u64::MAX), u64::MAX);
    }
}
