//! What no guest should send: each comes back, answered or not, and the next request is served.

use std::time::Duration;

use stratafs::transport::vhost_user::client::fuse::{self, Args, op};
use stratafs::transport::vhost_user::client::queue::{Descriptor, INDIRECT, NEXT, WRITE};
use stratafs::transport::vhost_user::client::{Call, Queue};

use super::{Guest, Served};

const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const ENOSYS: i32 = 38;
const ENODATA: i32 = 61;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The root is as it should be, so the server lives.
fn is_alive(queue: &mut Queue) {
    assert_eq!(fuse::getattr(queue, fuse::ROOT).unwrap().mode, 0o040_755);
}

/// Sends a request with a length of its own; the errno, or `None` where it came back unanswered.
fn errno(queue: &mut Queue, call: &Call<'_>) -> Option<i32> {
    let errno = fuse::errno_of(queue, call).unwrap();
    is_alive(queue);
    errno
}

fn request<'a>(opcode: u32, args: &'a [u8]) -> Call<'a> {
    Call { opcode, node: fuse::ROOT, args, data: &[], room: Some(256) }
}

#[test]
fn name_without_its_nul_is_einval() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    for opcode in [op::LOOKUP, op::UNLINK] {
        assert_eq!(errno(queue, &request(opcode, b"name")), Some(EINVAL));
    }
    let args = Args::new().u32(0o755).u32(0);
    let args = [args.bytes(), b"dir"].concat();
    assert_eq!(errno(queue, &request(op::MKDIR, &args)), Some(EINVAL));
}

#[test]
fn truncated_symlink_rename_and_setxattr_are_einval() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    for (opcode, args) in [
        (op::SYMLINK, &b"name\0"[..]),
        (op::SYMLINK, b"name\0target"),
        (op::SYMLINK, b""),
        (op::RENAME, b"\x01\0\0"),
        (op::RENAME, b"\x01\0\0\0\0\0\0\0from\0"),
        (op::RENAME, b"\x01\0\0\0\0\0\0\0from\0to"),
        (op::SETXATTR, b"\x10\0\0\0"),
        (op::SETXATTR, b"\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0user.a\0short"),
    ] {
        let errno = errno(queue, &request(opcode, args));
        assert_eq!(errno, Some(EINVAL), "{opcode} {}", args.escape_ascii());
    }
}

#[test]
fn getxattr_of_four_gib_is_an_error_and_allocates_nothing_by_its_say() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    let args = Args::new().u32(u32::MAX).u32(0).name("user.a");
    let errno = errno(queue, &request(op::GETXATTR, args.bytes()));
    assert!(matches!(errno, Some(EINVAL | ERANGE | ENODATA)), "{errno:?}");
}

#[test]
fn unknown_opcode_is_enosys() {
    let served = Served::mem();
    let mut guest = served.begin();
    assert_eq!(errno(guest.queue(), &request(4711, b"")), Some(ENOSYS));
}

#[test]
fn length_that_is_not_what_came_is_einval() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    for len in [0, 39, 40, 44, u32::MAX] {
        queue.submit_as(0, &request(op::LOOKUP, b"a\0"), len, 7).unwrap();
        queue.kick().unwrap();
        let (_, written) = queue.wait(PATIENCE).unwrap().unwrap();
        assert_eq!(queue.reply(0, written).unwrap().unwrap().errno, EINVAL, "length {len}");
        is_alive(queue);
    }
}

/// Offers the chain at `head` and waits for it; how many bytes were written.
fn written(queue: &mut Queue, head: u16) -> u32 {
    queue.offer(head).unwrap();
    queue.kick_always().unwrap();
    let (back, written) = queue.wait(PATIENCE).unwrap().expect("the chain did not come back");
    assert_eq!(back, u32::from(head));
    written
}

/// Puts the chain of `descriptors` at 0 and has it come back unanswered.
fn comes_back_unanswered(guest: &mut Guest, what: &str, descriptors: &[Descriptor]) {
    let queue = guest.queue();
    for (index, descriptor) in descriptors.iter().enumerate() {
        queue.put_descriptor(u16::try_from(index).unwrap(), *descriptor).unwrap();
    }
    assert_eq!(written(queue, 0), 0, "{what}");
    is_alive(queue);
}

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, len, flags, next }
}

/// A LOOKUP in the guest's memory, and where.
fn lookup_in_memory(queue: &Queue) -> u64 {
    let at = queue.buffer(5);
    let mut header = [0; 42];
    header[..4].copy_from_slice(&42_u32.to_ne_bytes());
    header[4..8].copy_from_slice(&op::LOOKUP.to_ne_bytes());
    header[8..16].copy_from_slice(&9_u64.to_ne_bytes());
    header[16..24].copy_from_slice(&fuse::ROOT.to_ne_bytes());
    header[40] = b'a';
    queue.poke(at, &header).unwrap();
    at
}

#[test]
fn malformed_chain_comes_back_unanswered() {
    let served = Served::mem();
    let mut guest = served.begin();
    let at = lookup_in_memory(guest.queue());
    let end = guest.queue().memory_end();
    let table = guest.queue().buffer(6);
    let to_write = descriptor(at + 4096, 144, WRITE, 0);
    for (what, chain) in [
        ("a loop of one", vec![descriptor(at, 42, NEXT, 0)]),
        ("a loop of two", vec![descriptor(at, 42, NEXT, 1), descriptor(at, 8, NEXT, 0)]),
        ("a next that no table has", vec![descriptor(at, 42, NEXT, 0xffff)]),
        ("an address where there is no memory", vec![descriptor(end, 42, 0, 0)]),
        ("a buffer over the end of memory", vec![descriptor(end - 8, 42, 0, 0)]),
        ("an address that wraps", vec![descriptor(u64::MAX - 8, 42, 0, 0)]),
        ("address 0", vec![descriptor(0, 42, 0, 0)]),
        (
            "an answer where there is no memory",
            vec![descriptor(at, 42, NEXT, 1), descriptor(end, 144, WRITE, 0)],
        ),
        ("an empty buffer", vec![descriptor(at, 0, NEXT, 1), to_write]),
        ("an empty answer", vec![descriptor(at, 42, NEXT, 1), descriptor(at, 0, WRITE, 0)]),
        (
            "the answer before the request",
            vec![descriptor(at + 4096, 144, WRITE | NEXT, 1), descriptor(at, 42, 0, 0)],
        ),
        ("nothing to read", vec![to_write]),
        ("a header of eight bytes", vec![descriptor(at, 8, NEXT, 1), to_write]),
        ("a header of 39 bytes", vec![descriptor(at, 39, NEXT, 1), to_write]),
        (
            "an answer of eight bytes",
            vec![descriptor(at, 42, NEXT, 1), descriptor(at + 4096, 8, WRITE, 0)],
        ),
        ("no room for an answer at all", vec![descriptor(at, 42, 0, 0)]),
        ("a table of no whole descriptors", vec![descriptor(table, 24, INDIRECT, 0)]),
        ("an empty table", vec![descriptor(table, 0, INDIRECT, 0)]),
        ("a table and a next", vec![descriptor(table, 16, INDIRECT | NEXT, 1), to_write]),
        ("a table where there is no memory", vec![descriptor(end, 32, INDIRECT, 0)]),
        ("a table that wraps", vec![descriptor(u64::MAX - 15, 32, INDIRECT, 0)]),
        ("a table as long as can be", vec![descriptor(table, !15, INDIRECT, 0)]),
    ] {
        comes_back_unanswered(&mut guest, what, &chain);
    }
    let itself = descriptor(table, 16, INDIRECT, 0);
    guest.queue().poke(table, &itself.to_bytes()).unwrap();
    comes_back_unanswered(&mut guest, "a table in a table", &[itself]);
    guest.queue().poke(table, &descriptor(at, 42, NEXT, 0).to_bytes()).unwrap();
    comes_back_unanswered(&mut guest, "a loop in a table", &[itself]);
    assert_eq!(served.server.session().held(), (0, 0));
}

#[test]
fn read_with_room_for_half_a_header_comes_back_unanswered() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
    fuse::write(queue, node, handle, 0, b"content").unwrap();
    let args = fuse::read_args(handle, 0, 4096);
    let call = Call { opcode: op::READ, node, args: args.bytes(), data: &[], room: Some(0) };
    queue.submit(1, &call).unwrap();
    // Slot 1 begins at descriptor 4: its header to read, then the answer's.
    queue.put_descriptor(5, descriptor(queue.buffer(6), 8, WRITE, 0)).unwrap();
    queue.kick().unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), Some((4, 0)));
    is_alive(queue);
}

#[test]
fn lookup_whose_answer_does_not_fit_leaves_no_count_behind() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    let node = fuse::mkdir(queue, fuse::ROOT, "a").unwrap();
    fuse::forget(queue, node, 1).unwrap();
    for room in [Some(0), Some(100), None] {
        let call = Call { opcode: op::LOOKUP, node: fuse::ROOT, args: b"a\0", data: &[], room };
        let errno = errno(queue, &call);
        assert!(matches!(errno, Some(EINVAL) | None), "{errno:?}");
        assert_eq!(served.server.session().held(), (0, 0), "room {room:?}");
    }
}

#[test]
fn request_in_pieces_of_a_byte_is_served() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    let node = fuse::mkdir(queue, fuse::ROOT, "a").unwrap();
    let at = lookup_in_memory(queue);
    // 42 bytes to read and 144 to write, each in a descriptor of its own, in a table.
    let table = queue.buffer(6);
    for index in 0..186_u16 {
        let place = at + u64::from(index) + if index < 42 { 0 } else { 4096 };
        let flags = if index < 42 { 0 } else { WRITE } | if index < 185 { NEXT } else { 0 };
        let piece = descriptor(place, 1, flags, index + 1);
        queue.poke(table + 16 * u64::from(index), &piece.to_bytes()).unwrap();
    }
    queue.put_descriptor(0, descriptor(table, 186 * 16, INDIRECT, 0)).unwrap();
    assert_eq!(written(queue, 0), 144);
    let mut answer = [0; 24];
    queue.peek(at + 4096 + 42, &mut answer).unwrap();
    assert_eq!(answer[4..8], [0; 4]);
    assert_eq!(answer[16..], node.to_ne_bytes());
}

#[test]
fn index_of_more_requests_than_the_ring_holds_is_waited_out() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    let index = queue.available();
    queue.set_available(index.wrapping_add(queue.size() + 1)).unwrap();
    queue.kick_always().unwrap();
    queue.set_available(index.wrapping_sub(1)).unwrap();
    queue.kick_always().unwrap();
    queue.set_available(index).unwrap();
    queue.kick_always().unwrap();
    is_alive(queue);
}

#[test]
fn head_that_no_table_has_is_passed_over() {
    let served = Served::mem();
    let mut guest = served.begin();
    let queue = guest.queue();
    for head in [queue.size(), 0x7fff, 0xffff] {
        queue.offer(head).unwrap();
        queue.kick_always().unwrap();
        is_alive(queue);
    }
}

#[test]
fn bytes_that_no_guest_sends_before_init_are_answered() {
    let served = Served::mem();
    let mut guest = served.connect();
    let call = request(op::LOOKUP, b"a\0");
    assert_eq!(fuse::errno_of(guest.queue(), &call).unwrap(), Some(5));
    fuse::init(guest.queue()).unwrap();
    is_alive(guest.queue());
}
