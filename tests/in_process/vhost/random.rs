//! Random chains of random requests, and random messages: whatever a guest writes, all comes back,
//! whatever a VMM says, the next is served.

use std::env;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use stratafs::transport::vhost_user::client::Queue;
use stratafs::transport::vhost_user::client::fuse::{self, op};
use stratafs::transport::vhost_user::client::queue::{Descriptor, INDIRECT, NEXT, WRITE};

use super::Served;

/// How many chains are sent, unless `STRATAFS_RANDOM_CHAINS` says otherwise.
const CHAINS: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn number(&mut self) -> u64 {
        let near = self.below(70);
        self.of(&[near, 0, 1, 2, 40, 4096, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63])
    }
}

/// Writes a request into slot `slot`'s buffer: likely a header that makes sense, then anything.
fn put_request(queue: &Queue, slot: u16, random: &mut Random) {
    let len = random.below(200);
    let mut bytes: Vec<u8> = (0..len.max(40)).map(|_| random.next() as u8).collect();
    let said = if random.below(4) == 0 { random.number() as u32 } else { len as u32 };
    let opcode = match random.below(8) {
        0 => random.next() as u32,
        // Never INIT or DESTROY, after which all else is refused at once.
        1..4 => random.of(&[op::LOOKUP, op::FORGET, op::GETATTR, op::READ, op::WRITE]),
        _ => random.below(56) as u32,
    };
    let opcode = if [op::INIT, op::DESTROY].contains(&opcode) { op::LOOKUP } else { opcode };
    let node = if random.below(3) == 0 { random.number() } else { fuse::ROOT };
    bytes[..4].copy_from_slice(&said.to_ne_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
    bytes[8..16].copy_from_slice(&random.number().to_ne_bytes());
    bytes[16..24].copy_from_slice(&node.to_ne_bytes());
    if random.below(2) == 0 {
        for at in (40..bytes.len().saturating_sub(8)).step_by(8) {
            bytes[at..at + 8].copy_from_slice(&random.number().to_ne_bytes());
        }
    }
    if let Some(last) = bytes.last_mut() {
        *last = 0;
    }
    queue.poke(queue.buffer(slot), &bytes).unwrap();
}

fn random_descriptor(queue: &Queue, index: u16, slot: u16, random: &mut Random) -> Descriptor {
    let buffer = queue.buffer(slot);
    let wild = random.number();
    let address = random.of(&[buffer, buffer, buffer + 8192, buffer + 40, wild]);
    let len = random.below(200) as u32;
    let len = random.of(&[len, len, 40, 42, 16, 160, wild as u32]);
    let flags = random.of(&[0, NEXT, NEXT, NEXT, WRITE, WRITE, WRITE | NEXT, INDIRECT]);
    let flags = if random.below(50) == 0 { random.next() as u16 } else { flags };
    let next = if random.below(8) == 0 { random.next() as u16 } else { index + 1 };
    Descriptor { address, len, flags, next }
}

/// One chain of up to 8 descriptors in the slot's place, or in a table.
fn put_chain(queue: &Queue, slot: u16, random: &mut Random) {
    put_request(queue, slot, random);
    let first = slot * 4;
    let sensible = random.below(3) > 0;
    let buffer = queue.buffer(slot);
    for at in 0..4 {
        let index = first + at;
        let descriptor = match (sensible, at) {
            (true, 0) => {
                let len = random.below(160) as u32 + 1;
                Descriptor { address: buffer, len, flags: NEXT, next: index + 1 }
            }
            (true, 1) => Descriptor { address: buffer + 8192, len: 400, flags: WRITE, next: 0 },
            _ => random_descriptor(queue, index, slot, random),
        };
        queue.put_descriptor(index, descriptor).unwrap();
        let inner = random_descriptor(queue, at, slot, random);
        queue.poke(buffer + 16 * u64::from(at), &inner.to_bytes()).unwrap();
    }
    if sensible {
        put_request(queue, slot, random);
    }
}

/// Sends so many, and waits until all have come back.
pub(super) fn send_chains(queue: &mut Queue, count: usize) {
    let mut random = Random(0x5eed);
    let mut sent = 0;
    while sent < count {
        let batch = u16::try_from(random.below(u64::from(queue.slots())) + 1).unwrap();
        for slot in 0..batch {
            put_chain(queue, slot, &mut random);
            queue.offer(slot * 4).unwrap();
        }
        queue.kick_always().unwrap();
        for _ in 0..batch {
            queue.wait(PATIENCE).unwrap().expect("a chain did not come back");
        }
        sent += usize::from(batch);
    }
}

#[test]
fn random_chains_all_come_back_and_leave_nothing_behind() {
    let count = env::var("STRATAFS_RANDOM_CHAINS")
        .map_or(CHAINS, |text| text.parse().expect("STRATAFS_RANDOM_CHAINS is a number"));
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    send_chains(queue, count);
    assert_eq!(fuse::getattr(queue, fuse::ROOT).unwrap().mode & 0o170_000, 0o040_000);
    fuse::destroy(queue).unwrap();
    assert_eq!(served.server.session().held(), (0, 0));
    assert!(served.server.stop(), "a thread is stuck");
}

/// The number of SET_MEM_TABLE and of its neighbours, up to the newest message.
const MESSAGES: u64 = 45;

/// A message of vhost-user: any code, flags and length, most often ones that make sense.
fn message(random: &mut Random) -> Vec<u8> {
    let code = random.below(MESSAGES) as u32;
    let payload: Vec<u8> = (0..random.below(64)).map(|_| random.next() as u8).collect();
    let version = if random.below(16) == 0 { random.next() as u32 } else { 1 };
    let need_reply = if random.below(2) == 0 { 8 } else { 0 };
    let len = if random.below(8) == 0 { random.number() as u32 } else { payload.len() as u32 };
    let mut bytes = code.to_ne_bytes().to_vec();
    bytes.extend((version | need_reply).to_ne_bytes());
    bytes.extend(len.to_ne_bytes());
    let mut payload = payload;
    if random.below(2) == 0 {
        for at in (0..payload.len().saturating_sub(8)).step_by(8) {
            payload[at..at + 8].copy_from_slice(&random.number().to_ne_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

#[test]
fn random_messages_end_their_connection_at_worst() {
    let served = Served::mem();
    let mut random = Random(0x5eed);
    for _ in 0..1_000 {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        // SET_OWNER, which every VMM begins with.
        let owner = [3_u32.to_ne_bytes(), 1_u32.to_ne_bytes(), [0; 4]].concat();
        let _ = stream.write_all(&owner);
        for _ in 0..random.below(8) {
            // The server may have hung up.
            let _ = stream.write_all(&message(&mut random));
        }
    }
    let mut guest = served.begin();
    assert!(fuse::getattr(guest.queue(), fuse::ROOT).is_ok());
    drop(guest);
    assert!(served.server.stop(), "a thread is stuck");
}
