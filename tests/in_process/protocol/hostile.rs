//! A client that sends anything: random bytes, and good requests with something wrong in them.
//!
//! # Invariants
//! 1. [`Session::handle`] returns, without a panic, whatever the bytes.
//! 2. Each request is answered once and to its own id, at once or (SETLKW alone) later; or, where
//!    the protocol has no reply or there is nobody to answer, finished once.
//! 3. A reply is never longer than the room for it.
//! 4. At the end of the session every wait is answered and everything given is given back.
//!
//! The tests add a fifth: nothing is allocated beyond twice the request and 1 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs::protocol::io::{DetachedReply, ReplySlot, Undeliverable};
use stratafs::protocol::{InitFlags, Opcode, Scratch, Session, SessionConfig, TransportKind};
use stratafs_core::{DynFileSystem, Errno, ReadSink, SliceSink, SliceSource};

use super::requests::{Ids, Valid, valid_requests};
use super::wire::{self, Body, ENTRY, Fields, HEADER};

/// Where decisions come from.
pub(crate) trait Entropy {
    fn next(&mut self) -> u64;

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// Decisions from a seed: SplitMix64.
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Values at which lengths and offsets go wrong.
pub(crate) const EDGES: [u64; 14] = [
    0,
    1,
    7,
    8,
    4095,
    4096,
    65_536,
    65_537,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// The longest random request, in bytes.
const MAX_RANDOM: usize = 600;
/// Room for a reply's payload, in bytes.
const ROOM: usize = 16 << 10;

/// What became of the requests, by id: answered how often.
#[derive(Default)]
struct Answers {
    sent: AtomicU64,
    finished: AtomicU64,
    late: Mutex<Vec<u64>>,
}

struct Slot<'a> {
    answers: &'a Arc<Answers>,
    expected: u64,
    payload: SliceSink<'a>,
    filled: &'a mut usize,
}

impl ReplySlot for Slot<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }
    fn clear(&mut self) {}
    fn send(self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        assert_eq!(unique, self.expected, "answered to another");
        self.answers.sent.fetch_add(1, Ordering::Relaxed);
        *self.filled = if answer.is_ok() { self.payload.filled() } else { 0 };
        // Some replies do not arrive.
        if unique.is_multiple_of(5) { Err(Undeliverable) } else { Ok(()) }
    }
    fn finish(self) {
        self.answers.finished.fetch_add(1, Ordering::Relaxed);
    }
    fn detach(self) -> Box<dyn DetachedReply> {
        Box::new(Late(Arc::clone(self.answers)))
    }
}

struct Late(Arc<Answers>);

impl DetachedReply for Late {
    fn send(self: Box<Self>, unique: u64, _: Result<(), Errno>) {
        self.0.late.lock().push(unique);
    }
}

/// The client.
pub(crate) struct Hostile {
    session: Session,
    scratch: Scratch,
    answers: Arc<Answers>,
    reply: Vec<u8>,
    request: Vec<u8>,
    unique: u64,
    nodes: Vec<u64>,
    handles: Vec<u64>,
    waiting: Vec<u64>,
}

impl Hostile {
    /// A client of `fs` whose INIT was good.
    pub(crate) fn new(fs: Arc<dyn DynFileSystem>, minor: u32, flags: InitFlags) -> Self {
        let config = SessionConfig::new(TransportKind::Dev);
        let mut client = Self {
            scratch: Scratch::new(&config),
            session: Session::new(fs, config, None),
            answers: Arc::default(),
            reply: vec![0; ROOM],
            request: Vec::with_capacity(4096),
            unique: 0,
            nodes: vec![1, 2, 3],
            handles: vec![0, 1],
            waiting: Vec::with_capacity(1024),
        };
        client.init(minor, flags);
        client
    }

    fn init(&mut self, minor: u32, flags: InitFlags) {
        self.unique += 1;
        let body = wire::init_body(7, minor, flags);
        self.request = wire::request(Opcode::Init.raw(), self.unique, 0, &body.0);
        self.send(ROOM);
    }

    /// Makes the next request; [`Hostile::send`] sends it.
    pub(crate) fn prepare(&mut self, entropy: &mut impl Entropy) {
        self.unique += 1;
        self.request.clear();
        match entropy.below(8) {
            0 => self.random_bytes(entropy),
            1 | 2 => self.random_arguments(entropy),
            _ => self.mutated(entropy),
        }
    }

    /// The request that [`Hostile::send`] will send.
    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    fn random_bytes(&mut self, entropy: &mut impl Entropy) {
        let len = entropy.below(MAX_RANDOM);
        self.request.extend((0..len).map(|_| entropy.next() as u8));
    }

    /// A good header before random arguments.
    fn random_arguments(&mut self, entropy: &mut impl Entropy) {
        let opcode = match entropy.below(10) {
            0 => entropy.next() as u32,
            _ => pick(entropy, &Opcode::ALL).raw(),
        };
        let len = entropy.below(MAX_RANDOM);
        let mut body = Vec::with_capacity(len);
        body.extend((0..len).map(|_| entropy.next() as u8));
        let node = self.any_node(entropy);
        self.request = wire::request(opcode, self.unique, node, &body);
    }

    fn any_node(&self, entropy: &mut impl Entropy) -> u64 {
        if entropy.one_in(10) { entropy.next() } else { pick(entropy, &self.nodes) }
    }

    /// A good request, mostly with something wrong in it.
    fn mutated(&mut self, entropy: &mut impl Entropy) {
        let mut node = || pick(entropy, &self.nodes);
        let (dir, file, link) = (node(), node(), node());
        let (fh, dir_fh) = (pick(entropy, &self.handles), pick(entropy, &self.handles));
        let mut all = valid_requests(&Ids { dir, file, link, fh, dir_fh });
        let Valid { opcode, node, mut body, .. } = all.swap_remove(entropy.below(all.len()));
        let opcode = match entropy.below(40) {
            0 => Opcode::Interrupt,
            1 => Opcode::NotifyReply,
            2 if entropy.one_in(20) => Opcode::Destroy,
            3 if entropy.one_in(20) => Opcode::Init,
            _ => opcode,
        };
        for _ in 0..entropy.below(4) {
            mutate(&mut body.0, entropy);
        }
        self.request = wire::request(opcode.raw(), self.unique, node, &body.0);
        if entropy.one_in(12) {
            // Something wrong in the header: the length, the id, the ids of the caller, extlen.
            let at = [0, 4, 8, 16, 24, 28, 32, 36][entropy.below(8)];
            let edge = pick(entropy, &EDGES).to_ne_bytes();
            self.request[at..at + 4].copy_from_slice(&edge[..4]);
        }
    }

    /// Sends what was prepared, with so much room for the reply, and checks what came of it.
    pub(crate) fn send(&mut self, room: usize) {
        let header = Header::of(&self.request);
        let before = self.counts();
        let mut filled = 0;
        let room = room.min(self.reply.len());
        let slot = Slot {
            answers: &self.answers,
            expected: header.map_or(0, |header| header.unique),
            payload: SliceSink::new(&mut self.reply[..room]),
            filled: &mut filled,
        };
        self.session.handle(&mut SliceSource::new(&self.request), slot, &mut self.scratch);
        let after = self.counts();
        let delta = (after.0 - before.0, after.1 - before.1);
        let opcode = header.and_then(|header| Opcode::from_raw(header.opcode));
        let answered =
            header.is_some_and(|header| header.unique != 0 && opcode.is_none_or(Opcode::has_reply));
        if answered && delta == (0, 0) && opcode == Some(Opcode::Setlkw) {
            self.waiting.extend(header.map(|header| header.unique));
        } else {
            assert_eq!(delta, if answered { (1, 0) } else { (0, 1) }, "{header:?}");
        }
        assert!(filled <= room);
        self.learn(opcode, filled);
    }

    fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.answers.sent), count(&self.answers.finished))
    }

    /// Remembers the ids in a reply.
    fn learn(&mut self, opcode: Option<Opcode>, filled: usize) {
        let reply = &self.reply[..filled];
        let is_entry = matches!(filled, ENTRY | 144);
        match opcode {
            Some(Opcode::Open | Opcode::Opendir) if filled == 16 => {
                remember(&mut self.handles, Fields::of(&reply[..8]).u64());
            }
            Some(
                Opcode::Lookup
                | Opcode::Create
                | Opcode::Tmpfile
                | Opcode::Mkdir
                | Opcode::Mknod
                | Opcode::Symlink,
            ) if is_entry => {
                remember(&mut self.nodes, Fields::of(&reply[..8]).u64());
                if filled > ENTRY {
                    remember(&mut self.handles, Fields::of(&reply[ENTRY..ENTRY + 8]).u64());
                }
            }
            Some(Opcode::Destroy) => self.init(45, InitFlags::all()),
            _ => {}
        }
    }

    /// Ends the session, and checks that nothing waits any more.
    pub(crate) fn end(mut self) {
        let body = Body::new();
        self.unique += 1;
        self.request = wire::request(Opcode::Destroy.raw(), self.unique, 0, &body.0);
        let Self { session, scratch, answers, request, reply, waiting, .. } = &mut self;
        let mut filled = 0;
        let slot = Slot {
            answers,
            expected: Header::of(request).map_or(0, |header| header.unique),
            payload: SliceSink::new(reply),
            filled: &mut filled,
        };
        session.handle(&mut SliceSource::new(request), slot, scratch);
        assert_eq!(session.held(), (0, 0));
        assert_eq!(session.waiting(), 0);
        let mut late = std::mem::take(&mut *answers.late.lock());
        late.sort_unstable();
        waiting.sort_unstable();
        // One that was answered while it was being sent is in the list of late ones alone.
        for unique in waiting.iter() {
            assert!(late.binary_search(unique).is_ok(), "{unique} still waits");
        }
        late.dedup();
        assert_eq!(late.len(), waiting.len(), "a wait was answered twice");
    }
}

/// The part of a header that says how it is to be answered.
#[derive(Clone, Copy, Debug)]
struct Header {
    opcode: u32,
    unique: u64,
}

impl Header {
    fn of(request: &[u8]) -> Option<Self> {
        if request.len() < HEADER {
            return None;
        }
        let opcode = u32::from_ne_bytes(request[4..8].try_into().ok()?);
        let unique = u64::from_ne_bytes(request[8..16].try_into().ok()?);
        Some(Self { opcode, unique })
    }
}

fn pick<T: Copy>(entropy: &mut impl Entropy, from: &[T]) -> T {
    from[entropy.below(from.len())]
}

/// Keeps the latest few.
fn remember(ids: &mut Vec<u64>, id: u64) {
    if !ids.contains(&id) {
        if ids.len() >= 64 {
            ids.remove(2);
        }
        ids.push(id);
    }
}

/// Changes one thing.
fn mutate(body: &mut Vec<u8>, entropy: &mut impl Entropy) {
    match entropy.below(6) {
        0 => {
            let len = entropy.below(body.len() + 1);
            body.truncate(len);
        }
        1 => {
            let more = entropy.below(64);
            let byte = entropy.next() as u8;
            body.resize(body.len() + more, byte);
        }
        2 | 3 => {
            // A whole field at an edge.
            let edge = pick(entropy, &EDGES).to_ne_bytes();
            let width = if entropy.one_in(2) { 4 } else { 8 };
            let at = entropy.below(body.len()) & !3;
            if let Some(field) = body.get_mut(at..at + width) {
                field.copy_from_slice(&edge[..width]);
            }
        }
        _ => {
            let at = entropy.below(body.len());
            if let Some(byte) = body.get_mut(at) {
                *byte = entropy.next() as u8;
            }
        }
    }
}
