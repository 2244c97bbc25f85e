//! Sessions of a well-behaved client, as inputs of `raw`: what mutations begin from.
//!
//! It depends on nothing, so that what writes the corpus compiles without the fuzzed code.
#![forbid(unsafe_code)]

/// One input for each family of requests.
pub(crate) fn raw() -> Vec<(&'static str, Vec<u8>)> {
    let node = |index| Record::new(index);
    let file = |name| node(0).d(2).d(0o100_644).d(0).d(0).s(name).op(35);
    // Of the handles that a CREATE gives, index 1 is the node's id and 2 the handle.
    let on_file = || node(1).handle(2);
    let write = |data: &str| {
        let size = u32::try_from(data.len()).unwrap_or(0);
        on_file().q(0).d(size).d(0).q(0).d(2).d(0).b(data.as_bytes()).op(16)
    };
    let lock = |opcode, kind| on_file().q(7).q(0).q(99).d(kind).d(1).d(0).d(0).op(opcode);
    let directory = |name| node(0).d(0o755).d(0).s(name).op(9);
    let read = |opcode, index| node(1).handle(index).q(0).d(4096).d(0).q(0).d(0).d(0).op(opcode);
    let xattr = |opcode| node(1).d(64).d(0).s("user.a").op(opcode);
    let session = |settings: u8, records: &[Vec<u8>]| [vec![settings], records.concat()].concat();
    vec![
        (
            "file",
            session(
                0,
                &[
                    file("a"),
                    write("some data"),
                    read(15, 2),
                    on_file().q(0).d(0).q(0).op(25),
                    on_file().d(0).d(0).op(20),
                    on_file().d(2).d(0).q(0).op(18),
                    node(0).s("a").op(1),
                    node(1).d(0).d(0).q(0).op(3),
                    node(1).d(0).d(0).op(14),
                    node(0).s("a").op(10),
                    node(1).q(2).op(2),
                ],
            ),
        ),
        (
            "directory",
            session(
                0,
                &[
                    directory("d"),
                    node(1).d(0).d(0).s("inner").op(9),
                    node(1).d(0).d(0).op(27),
                    // The handles are then 0, the two directories and the open one.
                    read(28, 3),
                    read(44, 3),
                    node(1).handle(3).d(0).d(0).op(30),
                    node(1).handle(3).d(0).d(0).q(0).op(29),
                    node(1).s("inner").op(11),
                    node(0).s("d").op(11),
                    node(0).d(2).d(0).q(2).q(1).q(3).q(1).op(42),
                ],
            ),
        ),
        (
            "names",
            session(
                0,
                &[
                    node(0).s("l").s("target").op(6),
                    node(1).op(5),
                    file("a"),
                    node(0).q(3).s("b").op(13),
                    node(0).q(1).s("b").s("c").op(12),
                    node(0).q(1).d(2).d(0).s("a").s("c").op(45),
                    node(0).d(0o010_644).d(0).d(0).d(0).s("fifo").op(8),
                    node(0).op(17),
                    node(0).d(4).d(0).op(34),
                ],
            ),
        ),
        (
            "xattrs",
            session(
                32,
                &[
                    file("a"),
                    node(1).d(5).d(0).s("user.a").b(b"value").op(21),
                    xattr(22),
                    node(1).d(64).d(0).op(23),
                    node(1).s("user.a").op(24),
                ],
            ),
        ),
        (
            "ranges",
            session(
                2,
                &[
                    file("a"),
                    write("abcdefgh"),
                    on_file().q(4096).q(4096).d(0).d(0).op(43),
                    on_file().q(0).q(4096).d(3).d(0).op(43),
                    on_file().q(0).d(3).d(0).op(46),
                    on_file().q(0).q(2).q(2).q(8192).q(8).q(0).op(47),
                    node(1).d(1 << 3).d(0).q(0).q(4).q(0).b(&[0; 56]).op(4),
                    node(1).d(0).d(0).q(0).d(0).d(0xfff).op(52),
                ],
            ),
        ),
        (
            "locks",
            session(
                1,
                &[
                    file("a"),
                    lock(32, 1),
                    lock(31, 1),
                    // Another owner waits, and is called off by the number of its request.
                    on_file().q(8).q(0).q(99).d(1).d(2).d(0).d(0).op(33),
                    node(0).q(8).op(36),
                    lock(32, 2),
                ],
            ),
        ),
        (
            "ends",
            session(
                0,
                &[
                    file("a"),
                    node(0).d(2).d(0o100_600).d(0).d(0).op(51),
                    node(0).op(38),
                    node(0).d(7).d(45).d(0).d(0).op(26),
                    file("b"),
                    node(0).op(50),
                ],
            ),
        ),
    ]
}

/// A record of an input, without anything odd about it.
struct Record {
    node: u8,
    handle: Option<u8>,
    body: Vec<u8>,
}

impl Record {
    fn new(node: u8) -> Self {
        Self { node, handle: None, body: Vec::new() }
    }

    /// A handle that was given, at the beginning of the body.
    fn handle(mut self, index: u8) -> Self {
        self.handle = Some(index);
        self
    }

    fn b(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    fn d(self, word: u32) -> Self {
        self.b(&word.to_ne_bytes())
    }

    fn q(self, word: u64) -> Self {
        self.b(&word.to_ne_bytes())
    }

    /// A name, with its NUL.
    fn s(self, name: &str) -> Self {
        self.b(name.as_bytes()).b(&[0])
    }

    fn op(self, opcode: u32) -> Vec<u8> {
        let kind = 0x20 | if self.handle.is_some() { 0x02 } else { 0 };
        let length = u8::try_from(self.body.len()).unwrap_or(u8::MAX);
        let mut record = vec![kind, length];
        record.extend(opcode.to_ne_bytes());
        record.push(self.node);
        record.extend(self.handle);
        record.extend(self.body);
        record
    }
}
