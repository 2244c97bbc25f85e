//! Inputs of `virtqueue` and `vhost_msg` that mutations begin from.
//!
//! It depends on nothing, so that what writes the corpus compiles without the fuzzed code.
#![forbid(unsafe_code)]

/// For `virtqueue`: requests as a guest's kernel sends them, and what is wrong with
/// each in its own way.
pub(crate) fn virtqueue() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("lookup", [request(1, b"name\0"), chain(0, 45, 144), vec![5, 0, 7]].concat()),
        ("getattr", [request(3, &[0; 16]), chain(0, 56, 120), vec![5, 0, 7]].concat()),
        (
            "indirect",
            [
                request(3, &[0; 16]),
                vec![2, 0, 0, 0, 0, 56, 0, 1, 1],
                vec![2, 0, 1, 3, 0, 120, 0, 2, 0],
                vec![0, 2, 1, 0, 32, 0, 4, 0],
                vec![5, 2, 7],
            ]
            .concat(),
        ),
        ("loop", [chain(0, 40, 16), vec![0, 1, 3, 0, 16, 0, 3, 0], vec![5, 0, 7]].concat()),
        ("written_first", vec![0, 0, 3, 0, 16, 0, 3, 1, 0, 1, 0, 0, 40, 0, 0, 0, 5, 0, 7]),
        ("wild", [&[0, 0, 6, 0, 40, 0, 1, 1][..], &[0xff; 8], &[5, 0, 7]].concat()),
        ("end_of_memory", vec![0, 0, 5, 8, 40, 0, 1, 1, 5, 0, 7]),
        ("head_beyond", vec![5, 200, 7]),
        (
            "several",
            [
                request(9, b"\xed\x01\0\0\0\0\0\0d\0"),
                chain(0, 50, 144),
                vec![5, 0, 5, 0, 5, 0, 7],
                request(38, b""),
                chain(0, 40, 16),
                vec![5, 0, 7],
            ]
            .concat(),
        ),
    ]
}

/// A request for the root, of `args`, in the first slot's buffer.
fn request(opcode: u8, args: &[u8]) -> Vec<u8> {
    let len = 40 + u8::try_from(args.len()).unwrap_or(0);
    let header = [len, 0, 0, 0, opcode, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
    [&[3, 0, len][..], &header, &[0; 23], args].concat()
}

/// Two descriptors from entry `head` on: what is read, and room for an answer.
fn chain(head: u8, readable: u8, writable: u8) -> Vec<u8> {
    let next = head + 1;
    vec![0, head, 0, 0, readable, 0, 1, next, 0, next, 3, 0, writable, 0, 2, 0]
}

/// For `vhost_msg`: what a VMM says, and what none does.
pub(crate) fn vhost_msg() -> Vec<(&'static str, Vec<u8>)> {
    let one = |code: u8, payload: &[u8], files: &[u8]| message(0, code, payload, files);
    let word = |value: u32| value.to_ne_bytes();
    let begin = [
        one(3, &[], &[]),
        one(1, &[], &[]),
        one(2, &[0, 0, 0, 0x70, 1, 0, 0, 0], &[]),
        one(16, &[0x0d, 0, 0, 0, 0, 0, 0, 0], &[]),
    ]
    .concat();
    let region = [address(0), address(2), address(1), [0; 8]].concat();
    let table = [&word(1)[..], &word(0), &region].concat();
    let queue = |index: u32| {
        let state = |value: u32| [word(index), word(value)].concat();
        let place = [&word(index)[..], &word(0), &address(1), &address(4), &address(3), &[0; 8]];
        let number = u64::from(index).to_ne_bytes();
        [
            one(8, &state(8), &[]),
            one(10, &state(0), &[]),
            one(9, &place.concat(), &[]),
            one(12, &number, &[1]),
            one(13, &number, &[1]),
            one(18, &state(1), &[]),
        ]
        .concat()
    };
    vec![
        ("begin", begin.clone()),
        ("served", [&begin[..], &one(5, &table, &[0]), &queue(0), &queue(1)].concat()),
        (
            "stopped",
            [
                &begin[..],
                &one(5, &table, &[0]),
                &queue(1),
                &message(4, 11, &[word(1), word(0)].concat(), &[]),
                &one(34, &[], &[]),
                &queue(1),
            ]
            .concat(),
        ),
        (
            "regions",
            [
                &begin[..],
                &one(36, &[], &[]),
                &one(37, &[&[0; 8][..], &region].concat(), &[0]),
                &one(38, &[&[0; 8][..], &region].concat(), &[]),
            ]
            .concat(),
        ),
        ("no_memory", [&begin[..], &one(5, &table, &[4]), &queue(1)].concat()),
        ("no_eventfd", [&begin[..], &one(12, &[1, 0, 0, 0, 0, 0, 0, 0], &[2])].concat()),
        ("two_descriptors", [&begin[..], &one(5, &table, &[0, 1])].concat()),
        ("lies", [&begin[..], &[8, 5, 0, 0xff, 0xff, 0xff, 0xff]].concat()),
        ("cut", [&begin[..], &[0x40, 5, 8], &[0; 8]].concat()),
        ("other_protocol", b"\x30GET \0\0/ HT".to_vec()),
    ]
}

fn address(which: u8) -> [u8; 8] {
    [which, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5]
}

fn message(kind: u8, code: u8, payload: &[u8], files: &[u8]) -> Vec<u8> {
    let count = u8::try_from(files.len()).unwrap_or(0);
    let len = u8::try_from(payload.len()).unwrap_or(0);
    [&[kind | count, code, len][..], payload, files].concat()
}
