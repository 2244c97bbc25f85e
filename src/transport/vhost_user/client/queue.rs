//! The guest driver's side of a virtqueue, well-behaved or not.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vm_memory::{Address as _, Bytes as _, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::super::memory::Mapped;
use super::vmm::Setup;

/// VIRTQ_DESC_F_NEXT.
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
pub const INDIRECT: u16 = 4;

/// Descriptors of a slot: arguments and data to read, header and payload to write.
const PER_SLOT: u16 = 4;
/// Room for the header and arguments of a request: a value of 64 KiB among them.
const ARGS_SIZE: u64 = 72 << 10;
/// Bytes of `fuse_in_header`.
const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
const OUT_HEADER: u32 = 16;
/// How long an answer is waited for: far above what any takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a queue and its buffers lie in the guest's memory.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport::vhost_user) struct Layout {
    pub(in crate::transport::vhost_user) descriptors: GuestAddress,
    pub(in crate::transport::vhost_user) available: GuestAddress,
    pub(in crate::transport::vhost_user) used: GuestAddress,
    buffers: GuestAddress,
    size: u16,
    data_size: u64,
}

impl Layout {
    pub(in crate::transport::vhost_user) fn new(base: GuestAddress, setup: &Setup) -> Self {
        let size = u64::from(setup.queue_size);
        let available = base.unchecked_add(16 * size);
        let used = available.unchecked_add((2 * size + 6).next_multiple_of(4));
        let buffers = used.unchecked_add(8 * size + 6).0.next_multiple_of(4096);
        Self {
            descriptors: base,
            available,
            used,
            buffers: GuestAddress(buffers),
            size: setup.queue_size,
            data_size: u64::from(setup.data_size).next_multiple_of(4096),
        }
    }

    fn slots(&self) -> u16 {
        self.size / PER_SLOT
    }

    fn slot_size(&self) -> u64 {
        ARGS_SIZE + self.data_size + 4096 + self.data_size
    }

    pub(in crate::transport::vhost_user) fn end(&self) -> u64 {
        self.buffers.0 + u64::from(self.slots()) * self.slot_size()
    }

    /// Arguments, data, header of the answer, its payload.
    fn buffers(&self, slot: u16) -> [GuestAddress; 4] {
        let args = self.buffers.unchecked_add(u64::from(slot) * self.slot_size());
        let data = args.unchecked_add(ARGS_SIZE);
        let header = data.unchecked_add(self.data_size);
        [args, data, header, header.unchecked_add(4096)]
    }
}

/// A request of FUSE.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// The opcode, whatever it is.
    pub opcode: u32,
    /// The node that it is about.
    pub node: u64,
    /// What follows the header.
    pub args: &'a [u8],
    /// What follows that, in a buffer of its own: the data of a WRITE.
    pub data: &'a [u8],
    /// Room for the payload of the answer, in bytes; none at all for requests without an answer.
    pub room: Option<u32>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The error number, 0 for success.
    pub errno: i32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The payload, or the error as one of this host.
    ///
    /// # Errors
    /// What the server answered.
    pub fn ok(self) -> io::Result<Vec<u8>> {
        if self.errno == 0 {
            Ok(self.payload)
        } else {
            Err(io::Error::from_raw_os_error(self.errno))
        }
    }
}

/// A queue as the guest has it.
pub struct Queue {
    memory: Arc<Mapped>,
    layout: Layout,
    kick: EventFd,
    call: EventFd,
    epoll: Epoll,
    event_idx: bool,
    next_available: u16,
    last_used: u16,
    unique: u64,
    /// Requests that were offered since the last kick.
    unkicked: u16,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("layout", &self.layout).finish_non_exhaustive()
    }
}

fn gone<E>(_: E) -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl Queue {
    pub(in crate::transport::vhost_user) fn new(
        memory: Arc<Mapped>,
        layout: Layout,
        kick: EventFd,
        call: EventFd,
        event_idx: bool,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, call.as_raw_fd(), edge)?;
        Ok(Self {
            memory,
            layout,
            kick,
            call,
            epoll,
            event_idx,
            next_available: 0,
            last_used: 0,
            unique: 0,
            unkicked: 0,
        })
    }

    /// How many requests can be under way at a time.
    #[must_use]
    pub fn slots(&self) -> u16 {
        self.layout.slots()
    }

    /// Entries of the queue.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// The guest's address of a buffer that slot `slot` has for itself.
    #[must_use]
    pub fn buffer(&self, slot: u16) -> u64 {
        self.layout.buffers(slot)[0].0
    }

    /// The first address behind the guest's memory.
    #[must_use]
    pub fn memory_end(&self) -> u64 {
        use vm_memory::GuestMemory as _;
        self.memory.last_addr().0.saturating_add(1)
    }

    /// Writes into the guest's memory.
    ///
    /// # Errors
    /// `InvalidInput`: there is none at `address`.
    pub fn poke(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_slice(bytes, GuestAddress(address)).map_err(gone)
    }

    /// Reads from the guest's memory.
    ///
    /// # Errors
    /// `InvalidInput`: there is none at `address`.
    pub fn peek(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.memory.read_slice(bytes, GuestAddress(address)).map_err(gone)
    }

    /// Writes a descriptor of the queue's table, whatever it says.
    ///
    /// # Errors
    /// `InvalidInput`: the table has no such entry within the guest's memory.
    pub fn put_descriptor(&self, index: u16, descriptor: Descriptor) -> io::Result<()> {
        let place = self.layout.descriptors.0 + 16 * u64::from(index);
        self.poke(place, &descriptor.to_bytes())
    }

    /// Offers the chain that begins at `head`, whatever it is; seen by the server at the next kick.
    ///
    /// # Errors
    /// None is known.
    pub fn offer(&mut self, head: u16) -> io::Result<()> {
        let at = u64::from(self.next_available % self.layout.size);
        let place = self.layout.available.unchecked_add(4 + 2 * at);
        self.memory.store(head.to_le(), place, Ordering::Relaxed).map_err(gone)?;
        self.next_available = self.next_available.wrapping_add(1);
        self.unkicked = self.unkicked.wrapping_add(1);
        self.set_available(self.next_available)
    }

    /// Sets the index of the available ring, whatever it was.
    ///
    /// # Errors
    /// None is known.
    pub fn set_available(&mut self, index: u16) -> io::Result<()> {
        self.next_available = index;
        let place = self.layout.available.unchecked_add(2);
        self.memory.store(index.to_le(), place, Ordering::Release).map_err(gone)
    }

    /// The index of the available ring.
    #[must_use]
    pub fn available(&self) -> u16 {
        self.next_available
    }

    /// Wakes the server, where it wants to be woken.
    ///
    /// # Errors
    /// None is known.
    pub fn kick(&mut self) -> io::Result<()> {
        let offered = std::mem::take(&mut self.unkicked);
        // The index before the look at what the server wants.
        fence(Ordering::SeqCst);
        let wants = if self.event_idx {
            let place = self.layout.used.unchecked_add(4 + 8 * u64::from(self.layout.size));
            let event: u16 = self.memory.load(place, Ordering::Relaxed).map_err(gone)?;
            let passed = self.next_available.wrapping_sub(u16::from_le(event)).wrapping_sub(1);
            passed < offered
        } else {
            let flags: u16 = self.memory.load(self.layout.used, Ordering::Relaxed).map_err(gone)?;
            u16::from_le(flags) & 1 == 0
        };
        if wants { self.kick_always() } else { Ok(()) }
    }

    /// Wakes the server.
    ///
    /// # Errors
    /// None is known.
    pub fn kick_always(&self) -> io::Result<()> {
        self.kick.write(1)
    }

    /// The next chain that came back, and how many bytes the server says to have written.
    ///
    /// # Errors
    /// None is known.
    pub fn completed(&mut self) -> io::Result<Option<(u32, u32)>> {
        let place = self.layout.used.unchecked_add(2);
        let index: u16 = self.memory.load(place, Ordering::Acquire).map_err(gone)?;
        if u16::from_le(index) == self.last_used {
            return Ok(None);
        }
        let at = u64::from(self.last_used % self.layout.size);
        let place = self.layout.used.unchecked_add(4 + 8 * at);
        let mut element = [0; 8];
        self.memory.read_slice(&mut element, place).map_err(gone)?;
        self.last_used = self.last_used.wrapping_add(1);
        let [a, b, c, d, e, f, g, h] = element;
        Ok(Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))))
    }

    /// Waits for a chain to come back, for at most `limit`; `None` where none did.
    ///
    /// # Errors
    /// What epoll_wait(2) answers.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<(u32, u32)>> {
        let deadline = Instant::now() + limit;
        loop {
            if self.event_idx {
                let place =
                    self.layout.available.unchecked_add(4 + 2 * u64::from(self.layout.size));
                self.memory
                    .store(self.last_used.to_le(), place, Ordering::Relaxed)
                    .map_err(gone)?;
                fence(Ordering::SeqCst);
            }
            if let Some(completed) = self.completed()? {
                return Ok(Some(completed));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            let mut events = [EpollEvent::default()];
            match self.epoll.wait(left, &mut events) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// How often the server has told of answers since the last look.
    #[must_use]
    pub fn signals(&self) -> u64 {
        self.call.read().unwrap_or(0)
    }

    /// Puts a request into `slot` and offers it; its number in the protocol.
    ///
    /// # Errors
    /// `InvalidInput`: it is larger than what was set up.
    pub fn submit(&mut self, slot: u16, call: &Call<'_>) -> io::Result<u64> {
        let len = IN_HEADER + call.args.len() + call.data.len();
        self.unique += 1;
        self.submit_as(slot, call, u32::try_from(len).map_err(gone)?, self.unique)
    }

    /// The same with a length and a number that need not be right.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    pub fn submit_as(
        &mut self,
        slot: u16,
        call: &Call<'_>,
        len: u32,
        unique: u64,
    ) -> io::Result<u64> {
        let [args, data, header, payload] = self.layout.buffers(slot);
        let mut head = [0; IN_HEADER];
        head[..4].copy_from_slice(&len.to_ne_bytes());
        head[4..8].copy_from_slice(&call.opcode.to_ne_bytes());
        head[8..16].copy_from_slice(&unique.to_ne_bytes());
        head[16..24].copy_from_slice(&call.node.to_ne_bytes());
        let args_len = IN_HEADER + call.args.len();
        let is_too_long = args_len as u64 > ARGS_SIZE
            || call.data.len() as u64 > self.layout.data_size
            || u64::from(call.room.unwrap_or(0)) > self.layout.data_size;
        if is_too_long || slot >= self.layout.slots() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.poke(args.0, &head)?;
        self.poke(args.0 + IN_HEADER as u64, call.args)?;
        self.poke(data.0, call.data)?;
        let size = |len: usize| u32::try_from(len).map_err(gone);
        let mut parts = [Descriptor::default(); PER_SLOT as usize];
        let mut count = 0;
        let mut push = |address: GuestAddress, len: u32, flags: u16| {
            parts[count] = Descriptor { address: address.0, len, flags, next: 0 };
            count += 1;
        };
        push(args, size(args_len)?, 0);
        if !call.data.is_empty() {
            push(data, size(call.data.len())?, 0);
        }
        if let Some(room) = call.room {
            push(header, OUT_HEADER, WRITE);
            if room > 0 {
                push(payload, room, WRITE);
            }
        }
        let first = slot * PER_SLOT;
        let last = count - 1;
        for (at, mut part) in parts.into_iter().take(count).enumerate() {
            let index = first + u16::try_from(at).map_err(gone)?;
            if at < last {
                part.flags |= NEXT;
                part.next = index + 1;
            }
            self.put_descriptor(index, part)?;
        }
        self.offer(first)?;
        Ok(unique)
    }

    /// The slot of a chain that came back from [`Queue::submit`].
    #[must_use]
    pub fn slot_of(&self, head: u32) -> u16 {
        u16::try_from(head).unwrap_or(u16::MAX) / PER_SLOT
    }

    /// The answer in `slot`, of which the server says to have written `written` bytes; `None` where
    /// it is none.
    ///
    /// # Errors
    /// None is known.
    pub fn reply(&self, slot: u16, written: u32) -> io::Result<Option<Reply>> {
        if written < OUT_HEADER {
            return Ok(None);
        }
        let [_, _, header, payload] = self.layout.buffers(slot);
        let mut head = [0; OUT_HEADER as usize];
        self.peek(header.0, &mut head)?;
        let [l0, l1, l2, l3, e0, e1, e2, e3, ..] = head;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]);
        let error = i32::from_ne_bytes([e0, e1, e2, e3]);
        if len != written || error > 0 {
            return Err(io::Error::other("the answer is none of FUSE's"));
        }
        let mut bytes = vec![0; (len - OUT_HEADER) as usize];
        self.peek(payload.0, &mut bytes)?;
        Ok(Some(Reply { errno: -error, payload: bytes }))
    }

    /// The errno of the answer in `slot`; `None` where it is none.
    ///
    /// # Errors
    /// None is known.
    pub fn errno(&self, slot: u16, written: u32) -> io::Result<Option<i32>> {
        if written < OUT_HEADER {
            return Ok(None);
        }
        let mut error = [0; 4];
        self.peek(self.layout.buffers(slot)[2].0 + 4, &mut error)?;
        Ok(Some(i32::from_ne_bytes(error).wrapping_neg()))
    }

    /// Sends a request in slot 0 and waits for its answer; `None` where it came back unanswered.
    ///
    /// # Errors
    /// `TimedOut`: it did not come back.
    pub fn call(&mut self, call: &Call<'_>) -> io::Result<Option<Reply>> {
        self.submit(0, call)?;
        self.kick()?;
        let (_, written) = self.wait(PATIENCE)?.ok_or(io::ErrorKind::TimedOut)?;
        self.reply(0, written)
    }
}

/// A descriptor, whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The guest's address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Which follows.
    pub next: u16,
}

impl Descriptor {
    /// As it lies in a table.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}
