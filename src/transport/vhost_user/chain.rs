//! Descriptor chains: where in the guest's memory a request lies, and where its answer goes.
//!
//! All that the guest wrote into a descriptor is checked here, once: what comes out lies in its
//! memory, piece by piece.

use vm_memory::{Address as _, Bytes as _, GuestAddress};

use super::memory::{self, Mapped};

/// The most descriptors of a chain: a request of 1 MiB in pages of 4 KiB, with its headers, has 260.
/// Bounds what a chain may make a worker keep.
const MAX_DESCRIPTORS: usize = 1024;
/// Bytes of a descriptor: `struct virtq_desc`, VIRTIO 1.2, 2.7.5.
const DESCRIPTOR: u32 = 16;

/// VIRTQ_DESC_F_NEXT: another descriptor follows.
const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes.
const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: it describes a table of descriptors.
const INDIRECT: u16 = 4;

/// A piece of the guest's memory within one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: GuestAddress,
    pub(super) len: u32,
}

/// Why a chain makes no sense. It is returned unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is longer than its table, so it comes round.
    Loop,
    /// A descriptor has a number that its table has not.
    Index,
    /// A descriptor, a table or data lie where there is no memory.
    Address,
    /// A buffer without a byte.
    Empty,
    /// What the device reads follows what it writes.
    Order,
    /// A table of descriptors within another, or one that is no table.
    Indirect,
    /// More descriptors than a request can need.
    TooMany,
    /// More bytes than a chain may have (2³²).
    TooLong,
}

/// The table that a ring's chains begin in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) address: GuestAddress,
    pub(super) size: u16,
}

/// One descriptor, as the guest wrote it.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(memory: &Mapped, table: GuestAddress, index: u32) -> Result<Self, Malformed> {
        let place = u64::from(index) * u64::from(DESCRIPTOR);
        let place = table.checked_add(place).ok_or(Malformed::Address)?;
        let mut bytes = [0; DESCRIPTOR as usize];
        memory.read_slice(&mut bytes, place).map_err(|_| Malformed::Address)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Ok(Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }
}

/// What one chain describes. Kept by a worker and filled again for each request.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    segments: Vec<Segment>,
    /// How many of them are the device's to read; the others are its to write.
    split: usize,
    readable: u32,
    writable: u32,
}

impl Chain {
    /// Walks the chain that begins at `head` and replaces what `self` holds by it.
    ///
    /// # Errors
    /// [`Malformed`]; then `self` is empty.
    pub(super) fn walk(
        &mut self,
        memory: &Mapped,
        table: Table,
        head: u16,
    ) -> Result<(), Malformed> {
        self.clear();
        let walked = self.fill(memory, table, head);
        if walked.is_err() {
            self.clear();
        }
        walked
    }

    fn clear(&mut self) {
        self.segments.clear();
        (self.split, self.readable, self.writable) = (0, 0, 0);
    }

    fn fill(&mut self, memory: &Mapped, table: Table, head: u16) -> Result<(), Malformed> {
        let (mut table, mut size) = (table.address, u32::from(table.size));
        let (mut index, mut seen, mut is_indirect) = (u32::from(head), 0, false);
        loop {
            if index >= size {
                return Err(Malformed::Index);
            }
            if seen >= size {
                return Err(Malformed::Loop);
            }
            seen += 1;
            let descriptor = Descriptor::read(memory, table, index)?;
            if descriptor.flags & INDIRECT != 0 {
                // VIRTIO 1.2, 2.7.5.3.1: not within a table, and the last of its chain.
                if is_indirect
                    || descriptor.flags & NEXT != 0
                    || descriptor.len == 0
                    || descriptor.len % DESCRIPTOR != 0
                {
                    return Err(Malformed::Indirect);
                }
                table = GuestAddress(descriptor.address);
                size = descriptor.len / DESCRIPTOR;
                (index, seen, is_indirect) = (0, 0, true);
                continue;
            }
            self.push(memory, &descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = u32::from(descriptor.next);
        }
    }

    fn push(&mut self, memory: &Mapped, descriptor: &Descriptor) -> Result<(), Malformed> {
        if descriptor.len == 0 {
            return Err(Malformed::Empty);
        }
        let total = if descriptor.flags & WRITE != 0 {
            &mut self.writable
        } else if self.writable > 0 {
            return Err(Malformed::Order);
        } else {
            &mut self.readable
        };
        *total = total.checked_add(descriptor.len).ok_or(Malformed::TooLong)?;
        let is_readable = descriptor.flags & WRITE == 0;
        let (mut address, mut left) = (GuestAddress(descriptor.address), descriptor.len);
        loop {
            let len = memory::contiguous(memory, address, left).ok_or(Malformed::Address)?;
            self.append(Segment { address, len }, is_readable)?;
            left -= len;
            if left == 0 {
                return Ok(());
            }
            address = address.checked_add(u64::from(len)).ok_or(Malformed::Address)?;
        }
    }

    fn append(&mut self, segment: Segment, is_readable: bool) -> Result<(), Malformed> {
        if self.segments.len() >= MAX_DESCRIPTORS {
            return Err(Malformed::TooMany);
        }
        self.segments.push(segment);
        if is_readable {
            self.split = self.segments.len();
        }
        Ok(())
    }

    /// What the device reads: the request.
    pub(super) fn readable(&self) -> (&[Segment], usize) {
        (self.segments.get(..self.split).unwrap_or_default(), self.readable as usize)
    }

    /// What the device writes: room for the answer.
    pub(super) fn writable(&self) -> (&[Segment], usize) {
        (self.segments.get(self.split..).unwrap_or_default(), self.writable as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table { address: GuestAddress(0), size: 8 };
    const OTHER: u64 = 0x1000;
    const DATA: u64 = 0x2000;

    /// 64 KiB from 0, and 4 KiB that follow them without a gap in another region.
    fn memory() -> Mapped {
        Mapped::from_ranges(&[(GuestAddress(0), 0x1_0000), (GuestAddress(0x1_0000), 0x1000)])
            .unwrap()
    }

    fn put(memory: &Mapped, table: u64, index: u64, descriptor: (u64, u32, u16, u16)) {
        let (address, len, flags, next) = descriptor;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        memory.write_slice(&bytes, GuestAddress(table + index * 16)).unwrap();
    }

    fn walk(descriptors: &[(u64, u32, u16, u16)], head: u16) -> Result<Chain, Malformed> {
        let memory = memory();
        for (index, descriptor) in descriptors.iter().enumerate() {
            put(&memory, 0, index as u64, *descriptor);
        }
        let mut chain = Chain::default();
        chain.walk(&memory, TABLE, head).map(|()| chain)
    }

    #[test]
    fn walk_of_a_request_splits_what_is_read_from_what_is_written() {
        let chain = walk(
            &[(DATA, 40, NEXT, 2), (0, 0, 0, 0), (DATA + 40, 8, NEXT, 1 + 2), (DATA, 16, WRITE, 0)],
            0,
        )
        .unwrap();
        let (readable, len) = chain.readable();
        assert_eq!((readable.len(), len), (2, 48));
        let (writable, len) = chain.writable();
        assert_eq!((writable, len), (&[Segment { address: GuestAddress(DATA), len: 16 }][..], 16));
    }

    #[test]
    fn walk_of_a_malformed_chain_names_what_is_wrong() {
        for (descriptors, head, wrong) in [
            (&[(DATA, 1, NEXT, 0)][..], 0, Malformed::Loop),
            (&[(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)][..], 0, Malformed::Loop),
            (&[(DATA, 1, NEXT, 8)][..], 0, Malformed::Index),
            (&[][..], 8, Malformed::Index),
            (&[(0x1_1000, 1, 0, 0)][..], 0, Malformed::Address),
            (&[(0x1_0fff, 2, 0, 0)][..], 0, Malformed::Address),
            (&[(u64::MAX - 1, 4, 0, 0)][..], 0, Malformed::Address),
            (&[(DATA, 0, 0, 0)][..], 0, Malformed::Empty),
            (&[(DATA, 1, NEXT | WRITE, 1), (DATA, 1, 0, 0)][..], 0, Malformed::Order),
            (&[(OTHER, 24, INDIRECT, 0)][..], 0, Malformed::Indirect),
            (&[(OTHER, 0, INDIRECT, 0)][..], 0, Malformed::Indirect),
            (&[(OTHER, 16, INDIRECT | NEXT, 0)][..], 0, Malformed::Indirect),
            (&[(!15, 32, INDIRECT, 0)][..], 0, Malformed::Address),
        ] {
            assert_eq!(walk(descriptors, head).unwrap_err(), wrong, "{descriptors:?}");
        }
    }

    #[test]
    fn walk_of_more_than_4_gib_is_too_long() {
        let memory =
            Mapped::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0xffff_f000)])
                .unwrap();
        put(&memory, 0, 0, (0x1000, 0xffff_f000, NEXT, 1));
        put(&memory, 0, 1, (0x1000, 0x1000, 0, 0));
        let walked = Chain::default().walk(&memory, TABLE, 0);
        assert_eq!(walked, Err(Malformed::TooLong));
    }

    #[test]
    fn walk_of_an_indirect_table_reads_it_and_no_table_within() {
        let memory = memory();
        put(&memory, 0, 3, (OTHER, 32, INDIRECT, 0));
        put(&memory, OTHER, 0, (DATA, 40, NEXT, 1));
        put(&memory, OTHER, 1, (DATA, 16, WRITE, 0));
        let mut chain = Chain::default();
        chain.walk(&memory, TABLE, 3).unwrap();
        assert_eq!((chain.readable().1, chain.writable().1), (40, 16));

        put(&memory, OTHER, 1, (OTHER, 16, INDIRECT, 0));
        assert_eq!(chain.walk(&memory, TABLE, 3), Err(Malformed::Indirect));
        assert_eq!((chain.readable().1, chain.writable().1), (0, 0));
        put(&memory, OTHER, 1, (DATA, 1, NEXT, 0));
        assert_eq!(chain.walk(&memory, TABLE, 3), Err(Malformed::Loop));
    }

    #[test]
    fn walk_of_a_buffer_over_two_regions_splits_it() {
        let chain = walk(&[(0xfff0, 32, 0, 0)], 0).unwrap();
        let (segments, len) = chain.readable();
        assert_eq!((segments.len(), len), (2, 32));
        assert_eq!(segments[1], Segment { address: GuestAddress(0x1_0000), len: 16 });
    }

    #[test]
    fn walk_of_more_descriptors_than_a_request_needs_is_refused() {
        let memory = memory();
        let size = 1025;
        put(&memory, 0, 0, (0x4000, size * 16, INDIRECT, 0));
        for index in 0..size {
            let flags = if index == size - 1 { 0 } else { NEXT };
            put(&memory, 0x4000, u64::from(index), (DATA, 1, flags, index as u16 + 1));
        }
        let mut chain = Chain::default();
        assert_eq!(chain.walk(&memory, TABLE, 0), Err(Malformed::TooMany));
        put(&memory, 0x4000, 1023, (DATA, 1, 0, 0));
        assert_eq!(chain.walk(&memory, TABLE, 0), Ok(()));
    }
}
