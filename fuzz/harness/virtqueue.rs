//! Any bytes as descriptor tables and requests in a guest's memory, on the queue of a server of a MemFs.
//!
//! # Invariants
//! 1. Nothing that lies in a table or a buffer makes the server panic, end, or stop its queue.
//! 2. A chain that was offered comes back once, whatever it is; a head that the table has not is
//!    passed over.
//! 3. The next request is served.
//! 4. When the session ends the filesystem holds no lookup and no handle for it.
//!
//! # The input
//! Records, each beginning with a [`Kind`] byte; one that runs out of bytes is filled with zeros. The
//! addresses of descriptors are picked from a few that mean something, or are any; but none lies in
//! the rings, where what the server wrote would be taken for what it said.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

use stratafs::transport::vhost_user::client::queue::{Descriptor, INDIRECT, NEXT, WRITE};
use stratafs::transport::vhost_user::client::{Call, Queue, Setup, Vmm, fuse};
use stratafs::transport::vhost_user::{Listener, Server, Share};
use stratafs_memfs::{MemFs, SizeExt};

/// How long a chain may take: far longer than any does.
const PATIENCE: Duration = Duration::from_secs(60);
const QUEUE_SIZE: u16 = 16;
const SLOTS: u16 = 4;
/// Requests lie at the beginning of a slot's buffer, tables and answers in places of their own.
const TABLES: u64 = 16 << 10;
const ANSWERS: u64 = 32 << 10;
/// Descriptors of an indirect table.
const TABLE_SIZE: u8 = 32;
const MOST_RECORDS: usize = 128;

/// What a record does.
enum Kind {
    /// Puts a descriptor into the queue's table.
    Descriptor,
    /// Puts one into an indirect table.
    Inner,
    /// Writes the bytes of a request.
    Request,
    /// Offers a chain.
    Offer,
    /// Wakes the server and waits.
    Kick,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte % 8 {
            0 | 1 => Self::Descriptor,
            2 => Self::Inner,
            3 | 4 => Self::Request,
            5 | 6 => Self::Offer,
            _ => Self::Kick,
        }
    }
}

/// A server, and the VMM that plays its guest; one for all inputs.
struct Served {
    server: Server,
    _vmm: Vmm,
    queues: Vec<Queue>,
    _socket: Socket,
}

/// A socket in a directory of its own, which goes with it.
pub(crate) struct Socket {
    directory: PathBuf,
    pub(crate) path: PathBuf,
}

impl Socket {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("stratafs-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        let path = directory.join("socket");
        Self { directory, path }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A server of a small MemFs at `socket`.
pub(crate) fn serve(socket: &Socket) -> Server {
    let memfs = MemFs::builder().capacity(1.mib()).max_inodes(64).max_handles(64).build();
    let memfs = Arc::new(memfs.expect("these settings are good"));
    let listener = Listener::bind(&socket.path, None).expect("the socket can be made");
    Share::builder(memfs).request_queues(1).serve(listener).expect("it can be served")
}

/// How many panics there were in the server's own code, which it survives.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics from now on: the server catches them, and nobody would know.
pub(crate) fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map_or("", |location| location.file());
            if ["vhost", "virtio", "vm-memory"].iter().any(|part| file.contains(part))
                && !file.contains("tests/")
            {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

pub(crate) fn no_panic() {
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "the server panicked");
}

/// Puts what the input says into the queue, and checks the invariants.
pub(crate) fn run(input: &[u8]) {
    static SERVED: OnceLock<Mutex<Served>> = OnceLock::new();
    count_panics();
    let served = SERVED.get_or_init(|| {
        let socket = Socket::new("virtqueue");
        let server = serve(&socket);
        let stream = UnixStream::connect(&socket.path).expect("it listens");
        let setup = Setup::default().with_queue_size(QUEUE_SIZE).with_data_size(4096);
        let (vmm, queues) = Vmm::connect(stream, &setup).expect("it serves");
        Mutex::new(Served { server, _vmm: vmm, queues, _socket: socket })
    });
    let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = &mut served.queues[1];
    fuse::init(queue).expect("INIT is served");
    Input(input).play(queue);
    // DESTROY may have been among them.
    fuse::init(queue).expect("INIT is served");
    fuse::getattr(queue, fuse::ROOT).expect("the next request is served");
    fuse::destroy(queue).expect("DESTROY is served");
    assert_eq!(served.server.session().held(), (0, 0), "nodes and handles that are left");
    no_panic();
}

/// The input, as it is read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            if let [first, rest @ ..] = self.0 {
                *byte = *first;
                self.0 = rest;
            }
        }
        bytes
    }

    pub(crate) fn slice(&mut self, len: usize) -> &[u8] {
        let (slice, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        slice
    }

    fn play(mut self, queue: &mut Queue) {
        let mut offered = 0;
        for _ in 0..MOST_RECORDS {
            if self.is_empty() {
                break;
            }
            match Kind::of(self.byte()) {
                Kind::Descriptor => {
                    let index = u16::from(self.byte()) % QUEUE_SIZE;
                    let descriptor = self.descriptor(queue);
                    queue.put_descriptor(index, descriptor).expect("the table is there");
                }
                Kind::Inner => {
                    let slot = u16::from(self.byte()) % SLOTS;
                    let index = u64::from(self.byte() % TABLE_SIZE);
                    let descriptor = self.descriptor(queue);
                    let place = queue.buffer(slot) + TABLES + 16 * index;
                    queue.poke(place, &descriptor.to_bytes()).expect("the buffer is there");
                }
                Kind::Request => {
                    let slot = u16::from(self.byte()) % SLOTS;
                    let len = usize::from(self.byte());
                    let place = queue.buffer(slot);
                    queue.poke(place, self.slice(len)).expect("the buffer is there");
                }
                Kind::Offer => {
                    let head = u16::from(self.byte());
                    // More than it holds at a time would be no ring.
                    if offered == QUEUE_SIZE {
                        wait(queue, &mut offered);
                    }
                    if head >= QUEUE_SIZE {
                        wait(queue, &mut offered);
                        pass_over(queue, head);
                    } else {
                        queue.offer(head).expect("the ring is there");
                        offered += 1;
                    }
                }
                Kind::Kick => wait(queue, &mut offered),
            }
        }
        wait(queue, &mut offered);
    }

    /// Twelve bytes, of which most values make sense.
    fn descriptor(&mut self, queue: &Queue) -> Descriptor {
        let [place, offset, len, more, flags, next] = self.bytes();
        let slot = queue.buffer(u16::from(place >> 4) % SLOTS);
        let is_indirect = flags & 4 != 0;
        let place = if is_indirect && place & 7 < 6 { 1 } else { place & 7 };
        let address = match place {
            0 | 2 => slot + u64::from(offset),
            1 => slot + TABLES + if offset < 128 { 0 } else { 16 },
            3 | 4 => slot + ANSWERS + u64::from(offset),
            5 => queue.memory_end() - u64::from(offset),
            _ => outside(u64::from_le_bytes(self.bytes()), queue),
        };
        let len = u32::from(len) | u32::from(more & 15) << (8 + (more >> 4));
        let flags = u16::from(flags) & (NEXT | WRITE | INDIRECT)
            | if flags & 0x80 == 0 { 0 } else { u16::from(flags) << 8 };
        Descriptor { address, len, flags, next: u16::from(next) }
    }
}

/// Any address but one of the rings, which lie at the beginning of the guest's memory.
fn outside(address: u64, queue: &Queue) -> u64 {
    let buffers = queue.buffer(0);
    if (1 << 20..buffers).contains(&address) { buffers } else { address }
}

/// Offers a head that never comes back, and a request behind it that does: more than the ring holds
/// must not wait at a time.
fn pass_over(queue: &mut Queue, head: u16) {
    queue.offer(head).expect("the ring is there");
    let statfs = Call { opcode: fuse::op::STATFS, room: Some(80), ..Call::default() };
    queue.submit(SLOTS - 1, &statfs).expect("the slot is there");
    wait(queue, &mut 1);
}

/// Waits until all that was offered has come back.
fn wait(queue: &mut Queue, offered: &mut u16) {
    queue.kick_always().expect("the queue can be kicked");
    for _ in 0..std::mem::take(offered) {
        let back = queue.wait(PATIENCE).expect("the used ring is one");
        let (head, _) = back.expect("a chain did not come back");
        assert!(head < u32::from(QUEUE_SIZE), "a chain that was not offered came back");
    }
}
