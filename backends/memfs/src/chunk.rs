//! A chunk: up to one page of a file's data, shared until it is written.
//!
//! A chunk may be shorter than its page; what it lacks reads as zeros. So a file of one byte costs
//! 64 bytes of data and not a page. A chunk referred to by several files is charged to each, for a
//! write to any of them needs a copy and must not meet ENOSPC.

use std::sync::Arc;

use crate::charge::malloc;

/// The bytes of a page: the unit of holes, and of the kernel's page cache, whose requests come in
/// whole pages.
pub(crate) const PAGE: usize = 4096;

/// The same as an offset.
pub(crate) const PAGE_BYTES: u64 = PAGE as u64;

/// The shortest chunk, in bytes: with less the allocator's own header would outweigh it.
const SHORTEST: usize = 64;

/// A chunk's place in its file's tree, in bytes: a slot of 24 in a B-tree leaf that is 6/11 full
/// after splits, and the inner nodes' share.
const PLACE_COST: u64 = 56;

/// The data of (the front of) a page.
pub(crate) type Chunk = Arc<[u8]>;

/// The length of a chunk that holds `len` bytes: the next power of two, so that a file that grows
/// byte by byte is copied a bounded number of times.
pub(crate) fn class(len: usize) -> usize {
    len.next_power_of_two().clamp(SHORTEST, PAGE)
}

/// What a chunk of `len` bytes costs: the data behind its two counts, and its place.
pub(crate) const fn chunk_cost(len: usize) -> u64 {
    malloc(len + 16) + PLACE_COST
}

/// A new chunk with `old` at its front, `data` at `at`, and zeros elsewhere, just long enough.
pub(crate) fn build(old: &[u8], at: usize, data: &[u8]) -> Chunk {
    let end = at + data.len();
    let len = class(end.max(old.len()));
    if at == 0 && data.len() == len {
        return Arc::from(data);
    }
    let mut page = [0; PAGE];
    page[..old.len()].copy_from_slice(old);
    page[at..end].copy_from_slice(data);
    Arc::from(&page[..len])
}

/// A whole page of zeros: what stands for storage that is allocated but not written.
pub(crate) fn zero_page() -> Chunk {
    Arc::from(&[0; PAGE][..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_keeps_the_old_bytes_and_fills_gaps_with_zeros() {
        let chunk = build(b"ab", 70, b"z");
        assert_eq!(chunk.len(), 128);
        assert_eq!(&chunk[..2], b"ab");
        assert!(chunk[2..70].iter().all(|b| *b == 0));
        assert_eq!(chunk[70], b'z');
    }

    #[test]
    fn class_of_one_byte_is_far_below_a_page() {
        assert_eq!([class(0), class(1), class(64), class(65)], [64, 64, 64, 128]);
        assert_eq!([class(2049), class(4096)], [4096, 4096]);
    }
}
