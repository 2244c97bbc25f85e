//! Any bytes as the messages of a VMM, with descriptors of every kind, to a server of a MemFs.
//!
//! # Invariants
//! 1. No message makes the server panic or end, in any order, with whatever descriptors and however
//!    it lies about its length.
//! 2. A connection that is closed is over, however far it came.
//! 3. The next VMM is served.
//! 4. No descriptor stays open. (Where no other test opens any.)
//!
//! # The input
//! Records of a [`Kind`] byte, a code, a length, as many bytes of payload, and a byte for each
//! descriptor. A payload's words that mark an address become one of the regions.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use stratafs::transport::vhost_user::Server;
use stratafs::transport::vhost_user::client::{Setup, Vmm, fuse};
use stratafs_sys::io::memory_file;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use super::virtqueue::{Input, Socket, count_panics, no_panic, serve};

const PATIENCE: Duration = Duration::from_secs(60);
const MOST_MESSAGES: usize = 64;

/// The first byte of a record, bit by bit.
struct Kind(u8);

impl Kind {
    fn descriptors(&self) -> u8 {
        self.0 & 0x03
    }
    fn needs_reply(&self) -> bool {
        self.0 & 0x04 != 0
    }
    /// The header's length is what the next four bytes say.
    fn lies(&self) -> bool {
        self.0 & 0x08 != 0
    }
    /// The flags are what the next four bytes say.
    fn has_any_flags(&self) -> bool {
        self.0 & 0x10 != 0
    }
    /// The code is what the next four bytes say.
    fn has_any_code(&self) -> bool {
        self.0 & 0x20 != 0
    }
    /// Nothing more is sent than the header.
    fn is_cut(&self) -> bool {
        self.0 & 0x40 != 0
    }
}

struct Served {
    server: Server,
    socket: Socket,
}

/// Says to the server what the input says, and checks the invariants; that of descriptors where this
/// process does nothing else.
pub(crate) fn run(input: &[u8], is_alone: bool) {
    static SERVED: OnceLock<Mutex<Served>> = OnceLock::new();
    count_panics();
    let served = SERVED.get_or_init(|| {
        let socket = Socket::new("vhost-msg");
        Mutex::new(Served { server: serve(&socket), socket })
    });
    let served = served.lock().unwrap_or_else(PoisonError::into_inner);
    gone(&served.server);
    let before = descriptors();
    say(&served.socket, input);
    {
        let stream = UnixStream::connect(&served.socket.path).expect("it listens");
        let (_vmm, mut queues) =
            Vmm::connect(stream, &Setup::default().with_queue_size(8)).expect("it serves");
        fuse::init(&mut queues[1]).expect("INIT is served");
        fuse::getattr(&mut queues[1], fuse::ROOT).expect("the next request is served");
    }
    gone(&served.server);
    if is_alone {
        until("descriptors are left open", || descriptors() == before);
    }
    no_panic();
}

fn gone(server: &Server) {
    until("the connection does not end", || !server.is_connected());
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_micros(100));
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn say(socket: &Socket, input: &[u8]) {
    let mut input = Input(input);
    let mut stream = UnixStream::connect(&socket.path).expect("it listens");
    stream.set_nonblocking(true).expect("it is a socket");
    for _ in 0..MOST_MESSAGES {
        if input.is_empty() {
            break;
        }
        let kind = Kind(input.byte());
        let code = if kind.has_any_code() {
            u32::from_ne_bytes(input.bytes())
        } else {
            u32::from(input.byte()) % 48
        };
        let len = usize::from(input.byte());
        let payload = addressed(input.slice(len));
        let said = if kind.lies() {
            u32::from_ne_bytes(input.bytes())
        } else {
            u32::try_from(payload.len()).unwrap_or(0)
        };
        let flags = match (kind.has_any_flags(), kind.needs_reply()) {
            (true, _) => u32::from_ne_bytes(input.bytes()),
            (false, true) => 9,
            (false, false) => 1,
        };
        let mut message = [code, flags, said].map(u32::to_ne_bytes).concat();
        if !kind.is_cut() {
            message.extend(payload);
        }
        let files: Vec<Box<dyn AsRawFd>> =
            (0..kind.descriptors()).map(|_| descriptor(input.byte())).collect();
        let numbers: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        // The server may have hung up, or be slower than this.
        if stream.send_with_fds(&[&message[..]], &numbers).is_err() {
            break;
        }
        let _ = stream.read(&mut [0; 512]);
    }
}

/// Where the regions of the seeds are: the guest's address, and the VMM's.
const GUEST: u64 = 0x10_0000;
const VMM: u64 = 0x7000_0000;
const SIZE: u64 = 0x1_0000;

/// Words whose first byte is one of these, and the others 0xa5, are addresses.
fn addressed(payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    for word in payload.chunks_exact_mut(8) {
        if word[1..] == [0xa5; 7] {
            let value = match word[0] % 8 {
                0 => GUEST,
                1 => VMM,
                2 => SIZE,
                3 => VMM + 0x1000,
                4 => VMM + 0x2000,
                5 => VMM + SIZE - 1,
                6 => u64::MAX - SIZE,
                _ => 1 << 62,
            };
            word.copy_from_slice(&value.to_ne_bytes());
        }
    }
    payload
}

/// A descriptor of some kind.
fn descriptor(kind: u8) -> Box<dyn AsRawFd> {
    let memory = |len| {
        let file = memory_file(c"region").expect("there are descriptors");
        file.set_len(len).expect("there is room");
        file
    };
    let open = |path| File::open(path).expect("every host has it");
    match kind % 8 {
        0 => Box::new(memory(SIZE)),
        1 => Box::new(EventFd::new(O_NONBLOCK).expect("there are descriptors")),
        2 => Box::new(open("/dev/null")),
        3 => Box::new(open("/")),
        4 => Box::new(memory(0)),
        5 => Box::new(UnixStream::pair().expect("there are descriptors").0),
        6 => Box::new(std::io::pipe().expect("there are descriptors").0),
        _ => Box::new(open("/proc/self/stat")),
    }
}

const O_NONBLOCK: i32 = 0o4000;
