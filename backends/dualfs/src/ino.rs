//! Inode numbers that are unique across both sides, and stay when an object is transferred.
//!
//! Numbers of backend A are shown as they are; those of B have a bit set above those that filesystems
//! use. One that leaves no room for it comes from a table, for as long as the filesystem lives.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::policy::Side;

/// What says that a number is of backend B.
const OF_B: u64 = 1;
/// What says that a number is the table's.
const OF_TABLE: u64 = 2;
/// Bits of these marks.
const MARK_BITS: u32 = 2;
/// Bits that are left to numbers at least.
const LEAST: u32 = 48;

#[derive(Default)]
struct Table {
    numbers: HashMap<(Side, u64), u64>,
    next: u64,
}

/// Makes inode numbers of both sides those of the tree.
pub(crate) struct Inos {
    shift: u32,
    table: Mutex<Table>,
}

impl Inos {
    /// For filesystems with ids of so many bits, which tells how many their numbers have: most keep
    /// both alike.
    pub(crate) fn new(bits: [u8; 2]) -> Self {
        let most = u64::BITS - MARK_BITS;
        let fitting = bits.into_iter().map(u32::from).filter(|bits| *bits <= most);
        Self { shift: fitting.max().unwrap_or(0).max(LEAST), table: Mutex::default() }
    }

    /// The number of the object `ino` of `side`.
    pub(crate) fn map(&self, side: Side, ino: u64) -> u64 {
        let mark = if side == Side::B { OF_B } else { 0 };
        if ino >> self.shift == 0 {
            return ino | (mark << self.shift);
        }
        let mut table = self.table.lock();
        let Table { numbers, next } = &mut *table;
        let number = *numbers.entry((side, ino)).or_insert_with(|| {
            *next += 1;
            *next
        });
        number | (OF_TABLE << self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_gives_no_number_twice_and_the_same_again() {
        let inos = Inos::new([48, 56]);
        let mut seen = std::collections::HashSet::new();
        for side in [Side::A, Side::B] {
            for ino in [1, 2, 1 << 48, (1 << 56) - 1, 1 << 56, u64::MAX] {
                let number = inos.map(side, ino);
                assert!(seen.insert(number), "{side} {ino}");
                assert_eq!(inos.map(side, ino), number);
            }
        }
        assert_eq!(inos.map(Side::A, 7), 7, "as it is");
    }
}
