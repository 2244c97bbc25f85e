//! The answer to one request: into the guest's memory, and the request back to its ring.

use std::sync::Arc;

use stratafs_core::{Errno, ReadSink};
use vm_memory::GuestAddress;

use super::chain::Segment;
use super::data::{Area, Payload};
use super::memory::Mapped;
use super::ring::Ring;
use crate::protocol::Opcode;
use crate::protocol::io::{DetachedReply, OUT_HEADER_LEN, ReplySlot, Undeliverable};

/// Where `opcode` is in `fuse_in_header`: after `len`, four bytes each.
const OPCODE: std::ops::Range<usize> = 4..8;
/// The same of `unique`, behind them.
const UNIQUE: std::ops::Range<usize> = 8..16;

/// A request that was taken off a ring and must be given back, once.
#[derive(Debug)]
pub(super) struct Ticket {
    ring: Arc<Ring>,
    life: u64,
    head: u16,
    is_back: bool,
}

impl Ticket {
    pub(super) fn new(ring: &Arc<Ring>, life: u64, head: u16) -> Self {
        Self { ring: Arc::clone(ring), life, head, is_back: false }
    }

    /// Gives the request back; whether the guest will hear of it.
    pub(super) fn give_back(mut self, written: u32) -> bool {
        self.is_back = true;
        self.ring.give_back(self.life, self.head, written)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_back {
            self.ring.give_back(self.life, self.head, 0);
        }
    }
}

/// The answer to one request, on its way through the protocol.
///
/// Dropped without an answer, which only a panic does, it answers EIO: a guest must not wait for
/// ever because of a defect in a filesystem.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    room: Area<'a>,
    payload: Payload<'a>,
    memory: &'a Arc<Mapped>,
    segments: &'a [Segment],
    ticket: Option<Ticket>,
    /// The request to answer if nothing else does; `None` once its answer is settled.
    owed: Option<u64>,
}

impl<'a> Slot<'a> {
    /// The slot for the request that begins with `prefix`, with the room that its chain offers.
    pub(super) fn new(
        ticket: Ticket,
        prefix: &[u8],
        memory: &'a Arc<Mapped>,
        (segments, len): (&'a [Segment], usize),
    ) -> Self {
        let room = Area::new(memory, (segments, len));
        let payload = Payload::new(room, OUT_HEADER_LEN);
        Self { room, payload, memory, segments, ticket: Some(ticket), owed: owed(prefix) }
    }

    fn answer(&mut self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        self.owed = None;
        let Some(ticket) = self.ticket.take() else { return Err(Undeliverable) };
        let payload = if answer.is_ok() { self.payload.filled() } else { 0 };
        put_header(self.room, ticket, unique, payload, answer)
    }
}

/// Writes the header, in front of the payload, and gives the request back.
fn put_header(
    mut room: Area<'_>,
    ticket: Ticket,
    unique: u64,
    payload: usize,
    answer: Result<(), Errno>,
) -> Result<(), Undeliverable> {
    let error = answer.map_or_else(|errno| -errno.raw(), |()| 0);
    let len = u32::try_from(OUT_HEADER_LEN + payload).unwrap_or(u32::MAX);
    let mut header = [0; OUT_HEADER_LEN];
    header[..4].copy_from_slice(&len.to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    let has_room = room.left() >= OUT_HEADER_LEN;
    let is_put = has_room && room.put(&header) == Ok(OUT_HEADER_LEN);
    let is_back = ticket.give_back(if is_put { len } else { 0 });
    if is_put && is_back { Ok(()) } else { Err(Undeliverable) }
}

/// The number of a request that has a reply.
fn owed(request: &[u8]) -> Option<u64> {
    let opcode = u32::from_ne_bytes(request.get(OPCODE)?.try_into().ok()?);
    let unique = u64::from_ne_bytes(request.get(UNIQUE)?.try_into().ok()?);
    Opcode::from_raw(opcode).is_none_or(Opcode::has_reply).then_some(unique)
}

impl ReplySlot for Slot<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }

    fn clear(&mut self) {
        self.payload.clear();
    }

    fn send(mut self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        self.answer(unique, answer)
    }

    fn finish(mut self) {
        self.owed = None;
        if let Some(ticket) = self.ticket.take() {
            ticket.give_back(0);
        }
    }

    fn detach(mut self) -> Box<dyn DetachedReply> {
        self.owed = None;
        let mut header = Vec::new();
        let mut len = 0;
        for segment in self.segments {
            if len >= OUT_HEADER_LEN {
                break;
            }
            len += segment.len as usize;
            header.push((segment.address, segment.len));
        }
        let memory = Arc::clone(self.memory);
        Box::new(Detached { memory, header, ticket: self.ticket.take() })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(unique) = self.owed {
            let _ = self.answer(unique, Err(Errno::EIO));
        }
    }
}

/// An answer that comes later, and its duty to tell the guest.
struct Detached {
    memory: Arc<Mapped>,
    header: Vec<(GuestAddress, u32)>,
    ticket: Option<Ticket>,
}

impl DetachedReply for Detached {
    fn send(mut self: Box<Self>, unique: u64, answer: Result<(), Errno>) {
        let Some(ticket) = self.ticket.take() else { return };
        let segments: Vec<Segment> =
            self.header.iter().map(|&(address, len)| Segment { address, len }).collect();
        let len = segments.iter().map(|segment| segment.len as usize).sum();
        let ring = Arc::clone(&ticket.ring);
        let room = Area::new(&self.memory, (&segments, len));
        let _ = put_header(room, ticket, unique, 0, answer);
        ring.signal();
    }
}
