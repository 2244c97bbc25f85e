//! Any bytes as the requests of a client of a MemFs.
//!
//! # Invariants
//! 1. Serving a request returns: no panic, no overflow, no wait, whatever the bytes.
//! 2. A request is answered once, or not at all where the protocol has no reply for it; what waits is
//!    answered when the session ends at the latest.
//! 3. An error comes without a payload, and no payload is longer than the client's room for it.
//! 4. The filesystem is asked by its contract, and keeps it: nothing that was not given is forgotten or
//!    released, no node stands for two objects, nothing answers ENOSYS.
//! 5. What is in use never exceeds the capacity.
//! 6. When the session ends, however little its client gave back, the filesystem holds no lookup, no
//!    handle and no lock for it.
//!
//! # The input
//! A byte of settings, then one record after the other, each beginning with a [`Kind`] byte. A record
//! that runs out of bytes is filled with zeros. So nearly every mutation of an input is an input that
//! gets as far, and ids that were really given are within reach of one byte.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stratafs::protocol::io::{DetachedReply, ReplySlot, Undeliverable};
use stratafs::protocol::{Scratch, Session, SessionConfig, TransportKind};
use stratafs_core::{DynFileSystem, Errno, ReadSink, Result, SliceSource};
use stratafs_memfs::{Locks, MemFs, SizeExt};
use stratafs_testkit::Ledger;

const HEADER_BYTES: usize = 40;
const MOST_REQUESTS: usize = 256;
/// The room of a client that offers a lot, in bytes.
const ROOM: usize = 64 * 1024;

const INIT: u32 = 26;
/// FORGET, INTERRUPT, NOTIFY_REPLY, BATCH_FORGET.
const WITHOUT_REPLY: [u32; 4] = [2, 36, 41, 42];
/// Those with a method in the trait, INIT and DESTROY.
const OPCODES: [u32; 48] = [
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 50, 51, 52,
];

/// The first byte of a record, bit by bit.
struct Kind(u8);

impl Kind {
    /// The bytes are a request as they stand, whatever they say of themselves.
    fn is_raw(&self) -> bool {
        self.0 & 0x01 != 0
    }
    /// The body begins with a handle that was given.
    fn has_handle(&self) -> bool {
        self.0 & 0x02 != 0
    }
    /// The client does not take the reply.
    fn is_refused(&self) -> bool {
        self.0 & 0x04 != 0
    }
    /// The client's room is what the next two bytes say.
    fn has_little_room(&self) -> bool {
        self.0 & 0x08 != 0
    }
    /// The header's length is what the next two bytes say.
    fn lies(&self) -> bool {
        self.0 & 0x10 != 0
    }
    /// The opcode is what the next four bytes say.
    fn has_any_opcode(&self) -> bool {
        self.0 & 0x20 != 0
    }
    /// The node is what the next eight bytes say.
    fn has_any_node(&self) -> bool {
        self.0 & 0x40 != 0
    }
    /// The body is twice as long as its length byte can say.
    fn is_long(&self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// Serves the requests in `input` and checks the invariants.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let settings = input.byte();
    let locks = if settings & 1 == 0 { Locks::Local } else { Locks::Remote };
    let memfs = MemFs::builder()
        .capacity(512.kib())
        .max_inodes(64)
        .max_handles(64)
        .locks(locks)
        .writeback(settings & 2 != 0)
        .build()
        .expect("these settings are good");
    let memfs = Arc::new(memfs);
    let (counted, ledger) = Ledger::keep(Arc::clone(&memfs) as Arc<dyn DynFileSystem>);
    let transport = if settings & 4 == 0 { TransportKind::Dev } else { TransportKind::Virtio };
    let mut config = SessionConfig::new(transport);
    config.readonly = settings & 8 != 0;
    let mut client = Client {
        session: Session::new(counted, config, None),
        scratch: Scratch::new(&config),
        nodes: vec![1],
        handles: vec![0],
        answers: Arc::default(),
        unique: 0,
    };
    if settings & 16 == 0 {
        client.request(&init(settings), INIT, ROOM, false);
    }
    for _ in 0..MOST_REQUESTS {
        if input.0.is_empty() {
            break;
        }
        client.record(&mut input);
        let used = memfs.usage().bytes;
        assert!(used <= 512 << 10, "{used} bytes are in use");
    }
    client.end();
    let usage = memfs.usage();
    assert_eq!((usage.lookups, usage.handles, usage.locks), (0, 0, 0), "held after the end");
    if let Err(failure) = ledger.check() {
        panic!("{failure}");
    }
}

/// A kernel's INIT, of a minor version and with flags that the settings choose.
fn init(settings: u8) -> Vec<u8> {
    let minor = if settings & 32 == 0 { 45 } else { 31 };
    let flags: u32 = if settings & 64 == 0 { u32::MAX } else { 1 << 5 };
    let mut body = Vec::new();
    for word in [7, minor, 1 << 17, flags, u32::MAX] {
        body.extend(u32::to_ne_bytes(word));
    }
    body.resize(64, 0);
    with_header(INIT, 1, 0, None, &body)
}

fn with_header(opcode: u32, unique: u64, node: u64, length: Option<u16>, body: &[u8]) -> Vec<u8> {
    let length = length.map_or(HEADER_BYTES + body.len(), usize::from) as u32;
    let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
    request.extend(length.to_ne_bytes());
    request.extend(opcode.to_ne_bytes());
    request.extend(unique.to_ne_bytes());
    request.extend(node.to_ne_bytes());
    // uid, gid and pid; no extensions.
    request.extend([0; 16]);
    request.extend(body);
    request
}

/// The rest of the input; past its end there are zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        now
    }
}

struct Client {
    session: Session,
    scratch: Scratch,
    /// Ids that replies seem to have given, first to be used again.
    nodes: Vec<u64>,
    handles: Vec<u64>,
    answers: Arc<Answers>,
    unique: u64,
}

/// How often replies were given, and how many are due.
#[derive(Default)]
struct Answers {
    due: AtomicUsize,
    given: AtomicUsize,
}

impl Answers {
    fn count(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }
}

impl Client {
    fn record(&mut self, input: &mut Input<'_>) {
        let kind = Kind(input.byte());
        let little = kind.has_little_room();
        let room = if little { usize::from(u16::from_ne_bytes(input.array())) } else { ROOM };
        let length = usize::from(input.byte()) << u32::from(kind.is_long());
        if kind.is_raw() {
            let bytes = input.bytes(length).to_vec();
            let opcode = bytes.get(4..8).and_then(|word| word.try_into().ok());
            let opcode = opcode.map_or(0, u32::from_ne_bytes);
            return self.request(&bytes, opcode, room, kind.is_refused());
        }
        let opcode = if kind.has_any_opcode() {
            u32::from_ne_bytes(input.array())
        } else {
            OPCODES[usize::from(input.byte()) % OPCODES.len()]
        };
        let node = if kind.has_any_node() {
            u64::from_ne_bytes(input.array())
        } else {
            self.nodes[usize::from(input.byte()) % self.nodes.len()]
        };
        let lie = kind.lies().then(|| u16::from_ne_bytes(input.array()));
        let mut body = Vec::new();
        if kind.has_handle() {
            let handle = self.handles[usize::from(input.byte()) % self.handles.len()];
            body.extend(handle.to_ne_bytes());
        }
        body.extend(input.bytes(length));
        self.unique += 2;
        let request = with_header(opcode, self.unique, node, lie, &body);
        self.request(&request, opcode, room, kind.is_refused());
    }

    fn request(&mut self, bytes: &[u8], opcode: u32, room: usize, refused: bool) {
        let before = self.answers.given.load(Ordering::Relaxed);
        let mut reply = Vec::new();
        let slot = Slot {
            payload: Payload { bytes: Vec::new(), room },
            refused,
            answers: Arc::clone(&self.answers),
            reply: &mut reply,
        };
        self.session.handle(&mut SliceSource::new(bytes), slot, &mut self.scratch);
        let given = self.answers.given.load(Ordering::Relaxed) - before;
        // One more may come by the way: an INTERRUPT or the end of a session answers who waits.
        // A reply to request 0 would be a notification.
        let silent =
            bytes.len() < HEADER_BYTES || WITHOUT_REPLY.contains(&opcode) || bytes[8..16] == [0; 8];
        if silent {
            assert!(reply.is_empty(), "opcode {opcode} has no reply");
        } else {
            self.answers.due.fetch_add(1, Ordering::Relaxed);
            let waits = self.session.waiting();
            assert!(given > 0 || waits > 0, "opcode {opcode} was not answered and does not wait");
        }
        self.learn(&reply);
    }

    /// Takes the first words of a reply for ids: where they are none, the session refuses them.
    fn learn(&mut self, reply: &[u8]) {
        let word = |at: usize| {
            let bytes = reply.get(at..at + 8)?;
            bytes.try_into().ok().map(u64::from_ne_bytes)
        };
        if let Some(first) = word(0) {
            remember(&mut self.nodes, first);
            remember(&mut self.handles, first);
        }
        // A CREATE answers an entry of 128 bytes, then the handle.
        if let Some(handle) = word(128) {
            remember(&mut self.handles, handle);
        }
    }

    fn end(self) {
        drop(self.session);
        let due = self.answers.due.load(Ordering::Relaxed);
        let given = self.answers.given.load(Ordering::Relaxed);
        assert_eq!(given, due, "replies given, and due");
    }
}

fn remember(ids: &mut Vec<u64>, id: u64) {
    if ids.len() < 64 && !ids.contains(&id) {
        ids.push(id);
    }
}

/// The place for a reply; it counts that it is used once.
struct Slot<'a> {
    payload: Payload,
    refused: bool,
    answers: Arc<Answers>,
    reply: &'a mut Vec<u8>,
}

struct Payload {
    bytes: Vec<u8>,
    room: usize,
}

impl ReplySlot for Slot<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }

    fn clear(&mut self) {
        self.payload.bytes.clear();
    }

    fn send(self, _: u64, answer: Result<()>) -> std::result::Result<(), Undeliverable> {
        self.answers.count();
        if answer.is_err() {
            assert!(self.payload.bytes.is_empty(), "an error with a payload");
        }
        if self.refused {
            return Err(Undeliverable);
        }
        *self.reply = self.payload.bytes;
        Ok(())
    }

    fn finish(self) {}

    fn detach(self) -> Box<dyn DetachedReply> {
        Box::new(Detached(self.answers))
    }
}

struct Detached(Arc<Answers>);

impl DetachedReply for Detached {
    fn send(self: Box<Self>, _: u64, _: Result<()>) {
        self.0.count();
    }
}

impl Payload {
    fn take(&mut self, count: usize) -> usize {
        count.min(self.remaining())
    }
}

impl ReadSink for Payload {
    fn remaining(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        let taken = self.take(data.len());
        self.bytes.extend(&data[..taken]);
        Ok(taken)
    }

    fn write_from_fd(&mut self, _: BorrowedFd<'_>, _: u64, _: usize) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }

    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let taken = self.take(len);
        self.bytes.resize(self.bytes.len() + taken, 0);
        Ok(taken)
    }
}
