//! A client of the FUSE wire, made of bytes: what a kernel or a hostile guest would send.
//!
//! The structures are spelled out here a second time, from the kernel's header and not from the
//! code under test.
#![allow(dead_code, reason = "shared by tests, benches and a fuzz target, each using a part")]

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs::protocol::io::{DetachedReply, ReplySlot, Undeliverable};
use stratafs::protocol::{InitFlags, Opcode, Scratch, Session, SessionConfig, TransportKind};
use stratafs_core::{DynFileSystem, Errno, ReadSink, SliceSource};

/// Bytes of `fuse_in_header`.
pub(crate) const HEADER: usize = 40;

/// Arguments of a request, written front to back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    /// Bytes and a NUL.
    pub(crate) fn name(mut self, name: &[u8]) -> Self {
        self.0.extend(name);
        self.0.push(0);
        self
    }
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// Reads a reply front to back.
#[derive(Clone, Debug)]
pub(crate) struct Fields(VecDeque<u8>);

impl Fields {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().collect())
    }
    pub(crate) fn skip(&mut self, count: usize) -> &mut Self {
        self.0.drain(..count);
        self
    }
    pub(crate) fn u16(&mut self) -> u16 {
        let bytes: Vec<u8> = self.0.drain(..2).collect();
        u16::from_ne_bytes(bytes.try_into().unwrap())
    }
    pub(crate) fn u32(&mut self) -> u32 {
        let bytes: Vec<u8> = self.0.drain(..4).collect();
        u32::from_ne_bytes(bytes.try_into().unwrap())
    }
    pub(crate) fn u64(&mut self) -> u64 {
        let bytes: Vec<u8> = self.0.drain(..8).collect();
        u64::from_ne_bytes(bytes.try_into().unwrap())
    }
    pub(crate) fn rest(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A whole request.
pub(crate) fn request(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    request_with_extensions(opcode, unique, node, body, 0)
}

/// A whole request whose last `extensions` bytes are extensions.
pub(crate) fn request_with_extensions(
    opcode: u32,
    unique: u64,
    node: u64,
    body: &[u8],
    extensions: usize,
) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap();
    let head = Body::new().u32(len).u32(opcode).u64(unique).u64(node).u32(1000).u32(1001).u32(77);
    let extlen = u16::try_from(extensions / 8).unwrap();
    head.u16(extlen).u16(0).bytes(body).0
}

/// What became of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A reply: to whom, and the payload or the error.
    Replied(u64, Result<Vec<u8>, Errno>),
    /// The end of a request without a reply.
    Finished,
    /// A slot that nobody used.
    Dropped,
}

/// All that became of a client's slots, in order.
pub(crate) type Record = Arc<Mutex<Vec<Told>>>;

/// A reply that is noted.
pub(crate) struct Slot {
    record: Record,
    payload: Payload,
    delivers: bool,
    used: bool,
}

pub(crate) struct Payload {
    bytes: Vec<u8>,
    room: usize,
    /// Nothing can be written, whatever the room.
    faulty: bool,
}

impl ReadSink for Payload {
    fn remaining(&self) -> usize {
        self.room - self.bytes.len()
    }
    fn write_slice(&mut self, data: &[u8]) -> stratafs_core::Result<usize> {
        if self.faulty {
            return Err(Errno::EFAULT);
        }
        let data = &data[..data.len().min(self.remaining())];
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }
    fn write_from_fd(
        &mut self,
        _: BorrowedFd<'_>,
        _: u64,
        _: usize,
    ) -> stratafs_core::Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }
    fn write_zeros(&mut self, len: usize) -> stratafs_core::Result<usize> {
        let len = len.min(self.remaining());
        self.bytes.resize(self.bytes.len() + len, 0);
        Ok(len)
    }
}

impl Slot {
    fn tell(&mut self, told: Told) {
        self.used = true;
        self.record.lock().push(told);
    }
}

impl ReplySlot for Slot {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }
    fn clear(&mut self) {
        self.payload.bytes.clear();
    }
    fn send(mut self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        let payload = std::mem::take(&mut self.payload.bytes);
        self.tell(Told::Replied(unique, answer.map(|()| payload)));
        if self.delivers { Ok(()) } else { Err(Undeliverable) }
    }
    fn finish(mut self) {
        self.tell(Told::Finished);
    }
    fn detach(mut self) -> Box<dyn DetachedReply> {
        self.used = true;
        Box::new(Detached(Arc::clone(&self.record)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.used {
            self.record.lock().push(Told::Dropped);
        }
    }
}

struct Detached(Record);

impl DetachedReply for Detached {
    fn send(self: Box<Self>, unique: u64, answer: Result<(), Errno>) {
        self.0.lock().push(Told::Replied(unique, answer.map(|()| Vec::new())));
    }
}

/// A client of one session: it sends requests and notes what comes.
pub(crate) struct Client {
    pub(crate) session: Arc<Session>,
    pub(crate) record: Record,
    /// Whether replies arrive.
    pub(crate) delivers: bool,
    /// Room for the payload of a reply.
    pub(crate) room: usize,
    /// Whether that room turns out to be unusable.
    pub(crate) faulty: bool,
    scratch: Scratch,
    next: u64,
}

impl Client {
    /// A client that has not sent INIT.
    pub(crate) fn new(fs: Arc<dyn DynFileSystem>) -> Self {
        Self::with_config(fs, SessionConfig::new(TransportKind::Dev))
    }

    pub(crate) fn with_config(fs: Arc<dyn DynFileSystem>, config: SessionConfig) -> Self {
        Self::of(Arc::new(Session::new(fs, config, None)))
    }

    /// A further worker of a session.
    pub(crate) fn of(session: Arc<Session>) -> Self {
        let scratch = Scratch::new(session.config());
        Self {
            session,
            record: Record::default(),
            delivers: true,
            room: 1 << 20,
            faulty: false,
            scratch,
            next: 1,
        }
    }

    /// A client of 7.45 that offers everything but working without OPEN and OPENDIR.
    pub(crate) fn started(fs: Arc<dyn DynFileSystem>) -> Self {
        let without = InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT;
        let mut client = Self::new(fs);
        client.init(45, InitFlags::all().difference(without));
        client
    }

    /// A client of 7.45 that offers everything.
    pub(crate) fn stateless(fs: Arc<dyn DynFileSystem>) -> Self {
        let mut client = Self::new(fs);
        client.init(45, InitFlags::all());
        client
    }

    pub(crate) fn init(&mut self, minor: u32, flags: InitFlags) -> InitReply {
        InitReply::read(&self.ask(Opcode::Init, 0, &init_body(7, minor, flags)).unwrap())
    }

    /// The unique id of the next request.
    pub(crate) fn next_unique(&self) -> u64 {
        self.next
    }

    /// Sends bytes as they are, and gives what they came to.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Vec<Told> {
        let before = self.record.lock().len();
        self.send_and_leave(bytes);
        self.record.lock().split_off(before)
    }

    /// Sends bytes as they are; what they come to is in the record, now or later.
    pub(crate) fn send_and_leave(&mut self, bytes: &[u8]) {
        let payload = Payload { bytes: Vec::new(), room: self.room, faulty: self.faulty };
        let record = Arc::clone(&self.record);
        let slot = Slot { record, payload, delivers: self.delivers, used: false };
        self.session.handle(&mut SliceSource::new(bytes), slot, &mut self.scratch);
    }

    /// Does something whose answers stay in the record, with those of others.
    pub(crate) fn keep_record(&mut self, send: impl FnOnce(&mut Self) -> Vec<Told>) {
        let told = send(self);
        self.record.lock().extend(told);
    }

    /// Sends a request, and gives what it came to.
    pub(crate) fn send(&mut self, opcode: u32, node: u64, body: &Body) -> Vec<Told> {
        let unique = self.next;
        self.next += 1;
        self.send_raw(&request(opcode, unique, node, &body.0))
    }

    /// Sends a request whose answer comes at once.
    pub(crate) fn ask(&mut self, opcode: Opcode, node: u64, body: &Body) -> Result<Vec<u8>, Errno> {
        let unique = self.next;
        let told = self.send(opcode.raw(), node, body);
        match <[Told; 1]>::try_from(told) {
            Ok([Told::Replied(to, answer)]) if to == unique => answer,
            other => panic!("{opcode:?} {unique}: {other:?}"),
        }
    }

    /// Sends a request that has no reply.
    pub(crate) fn tell(&mut self, opcode: Opcode, node: u64, body: &Body) {
        assert_eq!(self.send(opcode.raw(), node, body), [Told::Finished], "{opcode:?}");
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<u64, Errno> {
        self.ask(Opcode::Lookup, parent, &Body::new().name(name)).map(|entry| node_of(&entry))
    }

    pub(crate) fn mkdir(&mut self, parent: u64, name: &[u8]) -> u64 {
        let body = Body::new().u32(0o755).u32(0).name(name);
        node_of(&self.ask(Opcode::Mkdir, parent, &body).unwrap())
    }

    /// Makes and opens a file: its node and its handle.
    pub(crate) fn create(&mut self, parent: u64, name: &[u8]) -> (u64, u64) {
        let reply = self.ask(Opcode::Create, parent, &create_body(O_RDWR, 0o644, name)).unwrap();
        (node_of(&reply), Fields::of(&reply[ENTRY..]).u64())
    }

    pub(crate) fn open(&mut self, opcode: Opcode, node: u64, flags: u32) -> Result<u64, Errno> {
        let reply = self.ask(opcode, node, &Body::new().u32(flags).u32(0))?;
        Ok(Fields::of(&reply).u64())
    }

    pub(crate) fn write(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, Errno> {
        let reply = self.ask(Opcode::Write, node, &write_body(fh, offset, data))?;
        Ok(Fields::of(&reply).u32())
    }

    pub(crate) fn read(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, Errno> {
        self.ask(Opcode::Read, node, &read_body(fh, offset, size))
    }

    pub(crate) fn release(&mut self, opcode: Opcode, node: u64, fh: u64) -> Result<(), Errno> {
        self.ask(opcode, node, &Body::new().u64(fh).u32(0).u32(0).u64(0)).map(drop)
    }

    pub(crate) fn forget(&mut self, node: u64, count: u64) {
        self.tell(Opcode::Forget, node, &Body::new().u64(count));
    }
}

/// O_RDWR of open(2).
pub(crate) const O_RDWR: u32 = 2;
/// Bytes of `fuse_entry_out`.
pub(crate) const ENTRY: usize = 128;

/// The node id of a `fuse_entry_out`.
pub(crate) fn node_of(entry: &[u8]) -> u64 {
    Fields::of(entry).u64()
}

pub(crate) fn init_body(major: u32, minor: u32, flags: InitFlags) -> Body {
    let bits = flags.bits();
    let head = Body::new().u32(major).u32(minor).u32(1 << 20).u32(bits as u32);
    if flags.contains(InitFlags::INIT_EXT) {
        head.u32((bits >> 32) as u32).bytes(&[0; 44])
    } else {
        head
    }
}

pub(crate) fn create_body(flags: u32, mode: u32, name: &[u8]) -> Body {
    Body::new().u32(flags).u32(mode).u32(0).u32(0).name(name)
}

pub(crate) fn write_body(fh: u64, offset: u64, data: &[u8]) -> Body {
    let size = u32::try_from(data.len()).unwrap();
    Body::new().u64(fh).u64(offset).u32(size).u32(0).u64(0).u32(O_RDWR).u32(0).bytes(data)
}

/// Also that of READDIR and READDIRPLUS.
pub(crate) fn read_body(fh: u64, offset: u64, size: u32) -> Body {
    Body::new().u64(fh).u64(offset).u32(size).u32(0).u64(0).u32(0).u32(0)
}

/// `fuse_init_out`.
#[derive(Clone, Debug)]
pub(crate) struct InitReply {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: InitFlags,
    pub(crate) max_background: u16,
    pub(crate) congestion_threshold: u16,
    pub(crate) max_write: u32,
    pub(crate) time_gran: u32,
    pub(crate) max_pages: u16,
}

impl InitReply {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 64);
        let mut fields = Fields::of(bytes);
        let [major, minor, max_readahead, low] = std::array::from_fn(|_| fields.u32());
        let [max_background, congestion_threshold] = std::array::from_fn(|_| fields.u16());
        let [max_write, time_gran] = std::array::from_fn(|_| fields.u32());
        let max_pages = fields.u16();
        let high = fields.skip(2).u32();
        Self {
            major,
            minor,
            max_readahead,
            flags: InitFlags::from_bits_retain(u64::from(high) << 32 | u64::from(low)),
            max_background,
            congestion_threshold,
            max_write,
            time_gran,
            max_pages,
        }
    }
}

/// The entries of a READDIR's reply: (ino, cookie, type, name).
pub(crate) fn entries(reply: &[u8]) -> Vec<(u64, u64, u32, Vec<u8>)> {
    let mut fields = Fields::of(reply);
    let mut found = Vec::new();
    while fields.len() > 0 {
        let (ino, cookie, len, kind) = (fields.u64(), fields.u64(), fields.u32(), fields.u32());
        let len = len as usize;
        let name = fields.rest()[..len].to_vec();
        fields.skip(len.next_multiple_of(8));
        found.push((ino, cookie, kind, name));
    }
    found
}

/// The entries of a READDIRPLUS's reply: (node, name).
pub(crate) fn plus_entries(reply: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Fields::of(reply);
    let mut found = Vec::new();
    while fields.len() > 0 {
        let node = fields.u64();
        let len = fields.skip(ENTRY - 8).skip(16).u32() as usize;
        fields.skip(4);
        let name = fields.rest()[..len].to_vec();
        fields.skip(len.next_multiple_of(8));
        found.push((node, name));
    }
    found
}
