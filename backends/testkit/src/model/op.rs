//! What the model and the filesystem both do, and how operation lists are made up.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::strategy::{BoxedStrategy, Union};
use stratafs_core::{FallocateMode, RenameFlags, XattrMode};

use crate::Capabilities;

/// How many files are open at a time, at the most.
pub const SLOTS: usize = 4;

/// A path below the root: few and short names, so that operations meet.
pub type Path = Vec<u8>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the flags of open(2) of those names")]
pub struct How {
    pub read: bool,
    pub write: bool,
    pub append: bool,
    pub truncate: bool,
}

/// One step. A slot that is not open makes a step on it void.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the operands of the system call of that name")]
pub enum Op {
    Create { path: Path, slot: usize, how: How, exclusive: bool, mode: u32 },
    Open { path: Path, slot: usize, how: How },
    Tmpfile { slot: usize },
    Close { slot: usize },
    Read { slot: usize, offset: u64, len: usize },
    Write { slot: usize, offset: u64, len: usize, fill: u8 },
    Ftruncate { slot: usize, size: u64 },
    Fallocate { slot: usize, mode: FallocateMode, offset: u64, len: u64 },
    CopyRange { from: usize, from_offset: u64, to: usize, to_offset: u64, len: u64 },
    LinkFd { slot: usize, path: Path },
    Truncate { path: Path, size: u64 },
    Mkdir { path: Path, mode: u32 },
    Rmdir { path: Path },
    Unlink { path: Path },
    Rename { from: Path, to: Path, flags: RenameFlags },
    Link { from: Path, to: Path },
    Symlink { path: Path, target: Vec<u8> },
    Chmod { path: Path, mode: u32 },
    Chown { path: Path, uid: Option<u32>, gid: Option<u32> },
    Utimens { path: Path, sec: i64, nsec: u32 },
    Setxattr { path: Path, name: u8, value: Vec<u8>, mode: XattrMode },
    Removexattr { path: Path, name: u8 },
}

/// The longest file, about: a few pages, and parts of them.
const LONGEST: u64 = 20_000;

fn path() -> impl Strategy<Value = Path> {
    vec(0..3_usize, 1..4).prop_map(|names| {
        let names: Vec<&[u8]> = names.into_iter().map(|i| [&b"a"[..], b"b", b"c"][i]).collect();
        names.join(&b'/')
    })
}

fn how() -> impl Strategy<Value = How> {
    let access = Union::new([Just((true, false)), Just((false, true)), Just((true, true))]);
    (access, any::<bool>(), proptest::bool::weighted(0.2)).prop_map(
        |((read, write), append, truncate)| How {
            read,
            write,
            append: append && write,
            truncate: truncate && write,
        },
    )
}

/// Permissions; those of the owner, without whom root alone could go on, are always there for others.
fn mode(capabilities: Capabilities) -> impl Strategy<Value = u32> {
    let always = if capabilities.contains(Capabilities::PRIVILEGE) { 0 } else { 0o700 };
    (0..0o1000_u32).prop_map(move |mode| mode | always)
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

fn offset() -> impl Strategy<Value = u64> {
    // Around the bounds of pages as often as anywhere.
    Union::new([
        (0..LONGEST).boxed(),
        (0..5_u64, 0..3_u64)
            .prop_map(|(page, near)| (page * 4096 + near).saturating_sub(1))
            .boxed(),
    ])
}

fn len() -> impl Strategy<Value = usize> {
    Union::new([(0..9000_usize).boxed(), (0..8_usize).boxed(), Just(4096).boxed()])
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn fallocate_mode(capabilities: Capabilities) -> impl Strategy<Value = FallocateMode> {
    let keep = FallocateMode::KEEP_SIZE;
    let mut modes = vec![Just(FallocateMode::empty()), Just(keep)];
    if capabilities.contains(Capabilities::PUNCH_HOLE) {
        modes.push(Just(FallocateMode::PUNCH_HOLE | keep));
    }
    if capabilities.contains(Capabilities::ZERO_RANGE) {
        modes.push(Just(FallocateMode::ZERO_RANGE));
        modes.push(Just(FallocateMode::ZERO_RANGE | keep));
    }
    Union::new(modes)
}

fn rename_flags(capabilities: Capabilities) -> impl Strategy<Value = RenameFlags> {
    let mut flags = vec![(3, Just(RenameFlags::empty()))];
    if capabilities.contains(Capabilities::NOREPLACE) {
        flags.push((1, Just(RenameFlags::NOREPLACE)));
    }
    if capabilities.contains(Capabilities::EXCHANGE) {
        flags.push((1, Just(RenameFlags::EXCHANGE)));
    }
    Union::new_weighted(flags)
}

fn xattr_mode() -> impl Strategy<Value = XattrMode> {
    Union::new([Just(XattrMode::Set), Just(XattrMode::Create), Just(XattrMode::Replace)])
}

/// Lists of up to `longest` steps that a filesystem of these `capabilities` can do.
pub(super) fn ops(capabilities: Capabilities, longest: usize) -> impl Strategy<Value = Vec<Op>> {
    let has = |need| capabilities.contains(need);
    let mut kinds = files(capabilities);
    kinds.extend(names(capabilities));
    kinds.extend(attributes(capabilities));
    kinds.retain(|(need, _, _)| has(*need));
    let weighted = kinds.into_iter().map(|(_, weight, op)| (weight, op));
    vec(Union::new_weighted(weighted.collect()), 1..longest.max(2))
}

type Kind = (Capabilities, u32, BoxedStrategy<Op>);

const ALWAYS: Capabilities = Capabilities::empty();

fn files(capabilities: Capabilities) -> Vec<Kind> {
    vec![
        (
            ALWAYS,
            8,
            (path(), slot(), how(), any::<bool>(), mode(capabilities))
                .prop_map(|(path, slot, how, exclusive, mode)| Op::Create {
                    path,
                    slot,
                    how,
                    exclusive,
                    mode,
                })
                .boxed(),
        ),
        (
            ALWAYS,
            5,
            (path(), slot(), how())
                .prop_map(|(path, slot, how)| Op::Open { path, slot, how })
                .boxed(),
        ),
        (Capabilities::TMPFILE, 1, slot().prop_map(|slot| Op::Tmpfile { slot }).boxed()),
        (ALWAYS, 2, slot().prop_map(|slot| Op::Close { slot }).boxed()),
        (
            ALWAYS,
            4,
            (slot(), offset(), len())
                .prop_map(|(slot, offset, len)| Op::Read { slot, offset, len })
                .boxed(),
        ),
        (
            ALWAYS,
            8,
            (slot(), offset(), len(), 1..=255_u8)
                .prop_map(|(slot, offset, len, fill)| Op::Write { slot, offset, len, fill })
                .boxed(),
        ),
        (
            ALWAYS,
            3,
            (slot(), offset()).prop_map(|(slot, size)| Op::Ftruncate { slot, size }).boxed(),
        ),
        (
            Capabilities::ALLOCATE,
            3,
            (slot(), fallocate_mode(capabilities), offset(), 1..9000_u64)
                .prop_map(|(slot, mode, offset, len)| Op::Fallocate { slot, mode, offset, len })
                .boxed(),
        ),
        (
            Capabilities::COPY_RANGE,
            3,
            (slot(), offset(), slot(), offset(), 1..9000_u64)
                .prop_map(|(from, from_offset, to, to_offset, len)| Op::CopyRange {
                    from,
                    from_offset,
                    to,
                    to_offset,
                    len,
                })
                .boxed(),
        ),
        (
            Capabilities::HARD_LINKS,
            1,
            (slot(), path()).prop_map(|(slot, path)| Op::LinkFd { slot, path }).boxed(),
        ),
    ]
}

fn names(capabilities: Capabilities) -> Vec<Kind> {
    let target = vec(1..=255_u8, 1..80).prop_map(|mut target| {
        // It leads nowhere: no path here is absolute, nor has such a name.
        target.splice(0..0, *b"nowhere/");
        target
    });
    vec![
        (
            ALWAYS,
            6,
            (path(), mode(capabilities)).prop_map(|(path, mode)| Op::Mkdir { path, mode }).boxed(),
        ),
        (ALWAYS, 3, path().prop_map(|path| Op::Rmdir { path }).boxed()),
        (ALWAYS, 4, path().prop_map(|path| Op::Unlink { path }).boxed()),
        (
            ALWAYS,
            7,
            (path(), path(), rename_flags(capabilities))
                .prop_map(|(from, to, flags)| Op::Rename { from, to, flags })
                .boxed(),
        ),
        (
            Capabilities::HARD_LINKS,
            3,
            (path(), path()).prop_map(|(from, to)| Op::Link { from, to }).boxed(),
        ),
        (
            Capabilities::SYMLINKS,
            2,
            (path(), target).prop_map(|(path, target)| Op::Symlink { path, target }).boxed(),
        ),
    ]
}

fn attributes(capabilities: Capabilities) -> Vec<Kind> {
    let id = || Union::new([Just(None), Just(Some(0)), Just(Some(1000)), Just(Some(70_000))]);
    vec![
        (
            ALWAYS,
            2,
            (path(), offset()).prop_map(|(path, size)| Op::Truncate { path, size }).boxed(),
        ),
        (
            ALWAYS,
            2,
            (path(), mode(capabilities)).prop_map(|(path, mode)| Op::Chmod { path, mode }).boxed(),
        ),
        (
            Capabilities::PRIVILEGE,
            2,
            (path(), id(), id()).prop_map(|(path, uid, gid)| Op::Chown { path, uid, gid }).boxed(),
        ),
        (
            Capabilities::FINE_TIMES,
            2,
            (path(), 0..4_000_000_000_i64, 0..1_000_000_000_u32)
                .prop_map(|(path, sec, nsec)| Op::Utimens { path, sec, nsec })
                .boxed(),
        ),
        (
            Capabilities::XATTR_USER,
            3,
            (path(), 0..3_u8, value(), xattr_mode())
                .prop_map(|(path, name, value, mode)| Op::Setxattr { path, name, value, mode })
                .boxed(),
        ),
        (
            Capabilities::XATTR_USER,
            1,
            (path(), 0..3_u8).prop_map(|(path, name)| Op::Removexattr { path, name }).boxed(),
        ),
    ]
}
