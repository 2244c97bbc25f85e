//! Random operation lists, and what an operation answers.

use stratafs_core::attr::{S_IFMT, S_ISGID, S_ISUID};
use stratafs_core::{
    Errno, FallocateMode, FileType, OpenFlags, RenameFlags, Result, SeekTo, SetTime, Timestamp,
    XattrMode,
};
use stratafs_testkit::{Caller, Client, Fd};

/// How many files are open at a time, at the most.
pub(super) const SLOTS: usize = 3;

/// Where a sparse file goes on: farther than any memory or disk.
const FAR: u64 = 1 << 40;

pub(super) type Path = Vec<u8>;

/// One step. The fields are the operands of the system call of that name.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Caller { gid: u32, umask: u32 },
    Create { path: Path, slot: usize, flags: OpenFlags, mode: u32 },
    Open { path: Path, slot: usize, flags: OpenFlags },
    Tmpfile { path: Path, slot: usize, mode: u32 },
    Close { slot: usize },
    Read { slot: usize, offset: u64, len: usize },
    Write { slot: usize, offset: u64, len: usize, fill: u8 },
    Ftruncate { slot: usize, size: u64 },
    Allocate { slot: usize, mode: FallocateMode, offset: u64, len: u64 },
    Seek { slot: usize, offset: u64, to: SeekTo },
    CopyRange { from: usize, to: usize, offset: u64, len: u64 },
    LinkFd { slot: usize, path: Path },
    Truncate { path: Path, size: u64 },
    Mkdir { path: Path, mode: u32 },
    Rmdir { path: Path },
    Unlink { path: Path },
    Rename { from: Path, to: Path, flags: RenameFlags },
    Link { from: Path, to: Path },
    Symlink { path: Path, target: Vec<u8> },
    Mknod { path: Path, mode: u32, rdev: u32 },
    Chmod { path: Path, mode: u32 },
    Chown { path: Path, uid: Option<u32>, gid: Option<u32> },
    Utimens { path: Path, atime: Option<i64>, mtime: Option<i64> },
    Setxattr { path: Path, name: &'static str, len: usize, mode: XattrMode },
    Getxattr { path: Path, name: &'static str, size: usize },
    Removexattr { path: Path, name: &'static str },
    List { path: Path, step: usize },
    Readlink { path: Path },
}

/// A small generator of random numbers, splitmix64: the same seed gives the same lists anywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn name(&mut self) -> &'static [u8] {
        const LONG: [u8; 255] = [b'n'; 255];
        match self.below(30) {
            0 => &LONG,
            1 => b"\xff \n",
            _ => self.one_of(&[&b"a"[..], b"b", b"c"]),
        }
    }

    /// Few and short names, so that operations meet.
    fn path(&mut self) -> Path {
        let depth = self.one_of(&[1, 1, 1, 2, 2, 3]);
        let names: Vec<_> = (0..depth).map(|_| self.name()).collect();
        names.join(&b'/')
    }

    fn mode(&mut self) -> u32 {
        let special = self.one_of(&[0, 0, 0, 0o1000, 0o2000, 0o4000, 0o6000]);
        special | self.below(0o1000) as u32
    }

    fn offset(&mut self) -> u64 {
        let near = self.below(20_000);
        // Around the bounds of pages as often as anywhere, and now and then very far out.
        let page = self.below(4) * 4096 + self.below(3);
        self.one_of(&[near, near, page, page, FAR + near])
    }

    fn len(&mut self) -> u64 {
        let any = self.below(9000) + 1;
        self.one_of(&[any, 1, 4096])
    }

    fn slot(&mut self) -> usize {
        self.below(SLOTS as u64) as usize
    }

    fn flags(&mut self) -> OpenFlags {
        let both = OpenFlags::READ_WRITE;
        let mut flags = self.one_of(&[OpenFlags::READ_ONLY, OpenFlags::WRITE_ONLY, both, both]);
        if flags.writable() && self.chance(25) {
            flags = flags.with_append();
        }
        if flags.writable() && self.chance(15) {
            flags = flags.with_truncate();
        }
        flags
    }

    fn xattr(&mut self) -> &'static str {
        self.one_of(&["user.a", "user.a", "user.b", "trusted.a", "security.a", "system.a", "x.a"])
    }

    /// A list of `len` steps.
    pub(super) fn list(&mut self, len: usize) -> Vec<Op> {
        (0..len).map(|_| self.op()).collect()
    }

    fn op(&mut self) -> Op {
        let (path, slot) = (self.path(), self.slot());
        match self.below(100) {
            0..=2 => Op::Caller {
                gid: self.one_of(&[0, 1000, 70_000]),
                umask: self.one_of(&[0, 0o022, 0o077, 0o777]),
            },
            3..=15 => {
                let flags = self.flags();
                let flags = if self.chance(40) { flags.with_exclusive() } else { flags };
                Op::Create { path, slot, flags, mode: self.mode() }
            }
            16..=20 => Op::Open { path, slot, flags: self.flags() },
            21 => Op::Tmpfile { path, slot, mode: self.mode() },
            22..=24 => Op::Close { slot },
            25..=27 => Op::Read { slot, offset: self.offset(), len: self.len() as usize },
            28..=36 => Op::Write {
                slot,
                offset: self.offset(),
                len: self.len() as usize,
                fill: self.below(255) as u8 + 1,
            },
            37..=38 => Op::Ftruncate { slot, size: self.offset() },
            39..=41 => Op::Allocate {
                slot,
                mode: self.one_of(&[
                    FallocateMode::empty(),
                    FallocateMode::KEEP_SIZE,
                    FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE,
                ]),
                offset: self.offset(),
                len: self.len(),
            },
            42 => Op::Seek {
                slot,
                offset: self.offset(),
                to: self.one_of(&[SeekTo::Data, SeekTo::Hole]),
            },
            43 => Op::CopyRange {
                from: slot,
                to: self.slot(),
                offset: self.offset(),
                len: self.len(),
            },
            44 => Op::LinkFd { slot, path },
            45..=46 => Op::Truncate { path, size: self.offset() },
            47..=55 => Op::Mkdir { path, mode: self.mode() },
            56..=58 => Op::Rmdir { path },
            59..=63 => Op::Unlink { path },
            64..=72 => Op::Rename {
                from: path,
                to: self.path(),
                flags: self.one_of(&[
                    RenameFlags::empty(),
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                    RenameFlags::EXCHANGE | RenameFlags::NOREPLACE,
                ]),
            },
            73..=75 => Op::Link { from: path, to: self.path() },
            76..=78 => {
                let len = self.one_of(&[1, 20, 59, 60, 200, 4000]);
                // It leads nowhere: no path here has such a name.
                Op::Symlink { path, target: [&b"nowhere/"[..], &vec![b't'; len]].concat() }
            }
            79..=80 => {
                let kind = self.one_of(&[
                    FileType::Regular,
                    FileType::Fifo,
                    FileType::Socket,
                    FileType::CharDevice,
                    FileType::BlockDevice,
                ]);
                let device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
                let rdev = if device { self.one_of(&[0x103, 0x1234]) } else { 0 };
                Op::Mknod { path, mode: kind.mode_bits() | self.mode(), rdev }
            }
            81..=84 => Op::Chmod { path, mode: self.mode() },
            85..=87 => {
                let ids = [(None, Some(1000)), (Some(1000), None), (Some(0), Some(0))];
                let (uid, gid) = self.one_of(&[ids[0], ids[1], ids[2], (Some(70_000), Some(7))]);
                Op::Chown { path, uid, gid }
            }
            88..=89 => Op::Utimens {
                path,
                atime: self.one_of(&[None, Some(5)]),
                // Neither of the two is nothing to do, and no filesystem is asked.
                mtime: Some(self.one_of(&[1, 999_999_999])),
            },
            90..=93 => Op::Setxattr {
                path,
                name: self.xattr(),
                len: self.one_of(&[0, 1, 40, 300]),
                mode: self.one_of(&[XattrMode::Set, XattrMode::Create, XattrMode::Replace]),
            },
            94..=95 => {
                Op::Getxattr { path, name: self.xattr(), size: self.one_of(&[0, 1, 39, 1000]) }
            }
            96 => Op::Removexattr { path, name: self.xattr() },
            97..=98 => {
                let path = if self.chance(50) { Vec::new() } else { path };
                Op::List { path, step: self.one_of(&[1, 2, 1000]) }
            }
            _ => Op::Readlink { path },
        }
    }
}

/// What works on one subject, with the files that it has open.
pub(super) struct Worker<'c> {
    pub(super) client: &'c dyn Client,
    pub(super) slots: [Option<(Fd, OpenFlags)>; SLOTS],
}

impl Worker<'_> {
    /// Does `op`, and tells what it answered in words.
    pub(super) fn perform(&mut self, op: &Op) -> String {
        if let Some(why) = self.is_the_clients(op) {
            return format!("void: {why}");
        }
        match self.answer(op) {
            Ok(answer) => answer,
            Err(errno) => errno.to_string(),
        }
    }

    /// Why an operation is a matter of who asks, the kernel or a client without one, and not of the
    /// filesystem.
    fn is_the_clients(&self, op: &Op) -> Option<&'static str> {
        let kind = |path: &Path| self.client.stat(path).ok().map(|attr| attr.kind());
        let special = |kind: FileType| !matches!(kind, FileType::Regular | FileType::Directory);
        if op.paths().iter().any(|path| self.goes_through_a_link(path)) {
            return Some("the kernel alone follows links on the way");
        }
        match op {
            Op::CopyRange { to, .. }
                if self.slots[*to].is_some_and(|(_, flags)| flags.append()) =>
            {
                Some("the kernel refuses a copy to the end by itself")
            }
            Op::Allocate { slot, .. } | Op::CopyRange { to: slot, .. } => self.slots[*slot]
                .and_then(|(fd, _)| self.client.fstat(fd).ok())
                .filter(|attr| attr.mode & (S_ISUID | S_ISGID) != 0)
                .map(|_| "the request does not say who asks, so privileges go whoever it is"),
            // A FIFO that is opened is the kernel's, and a directory is opened by opendir.
            Op::Create { path, .. } | Op::Open { path, .. } => kind(path)
                .filter(|kind| *kind != FileType::Regular)
                .map(|_| "the kernel refuses or opens it itself"),
            Op::Truncate { path, .. } => {
                kind(path).filter(|kind| special(*kind)).map(|_| "the kernel refuses it itself")
            }
            Op::Chmod { path, .. } => kind(path)
                .filter(|kind| *kind == FileType::Symlink)
                .map(|_| "the kernel would follow the link"),
            Op::Rename { from, to, flags }
                if flags.contains(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE) =>
            {
                let dir = |path: &Path| kind(&above(path).to_vec()) == Some(FileType::Directory);
                (!dir(from) || !dir(to))
                    .then_some("the kernel looks at flags before it looks at paths")
            }
            _ => None,
        }
    }

    fn goes_through_a_link(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes
            .map(|(at, _)| &path[..at])
            .any(|above| self.client.stat(above).is_ok_and(|attr| attr.kind() == FileType::Symlink))
    }

    fn answer(&mut self, op: &Op) -> Result<String> {
        let client = self.client;
        let fd = |slot: usize| self.slots[slot].map(|(fd, _)| fd).ok_or(Errno::EBADF);
        let done = |()| "done".to_owned();
        match op {
            Op::Caller { gid, umask } => {
                client.set_caller(&Caller::user(0, *gid).with_umask(*umask)).map(done)
            }
            Op::Create { path, slot, flags, mode } => {
                client.create(path, *flags, *mode).and_then(|fd| self.keep(*slot, fd, *flags))
            }
            Op::Open { path, slot, flags } => {
                client.open(path, *flags).and_then(|fd| self.keep(*slot, fd, *flags))
            }
            Op::Tmpfile { path, slot, mode } => client
                .tmpfile(path, OpenFlags::READ_WRITE, *mode)
                .and_then(|fd| self.keep(*slot, fd, OpenFlags::READ_WRITE)),
            Op::Close { slot } => {
                let (fd, _) = self.slots[*slot].take().ok_or(Errno::EBADF)?;
                client.close(fd).map(done)
            }
            Op::Read { slot, offset, len } => {
                client.pread(fd(*slot)?, *offset, *len).map(|data| digest(&data))
            }
            Op::Write { slot, offset, len, fill } => client
                .pwrite(fd(*slot)?, *offset, &vec![*fill; *len])
                .map(|written| format!("{written} bytes")),
            Op::Ftruncate { slot, size } => client.ftruncate(fd(*slot)?, *size).map(done),
            Op::Allocate { slot, mode, offset, len } => {
                client.fallocate(fd(*slot)?, *mode, *offset, *len).map(done)
            }
            Op::Seek { slot, offset, to } => {
                // Where exactly holes are is each filesystem's own business.
                let found = client.seek(fd(*slot)?, *offset, *to)?;
                Ok(if found >= *offset { "found" } else { "found before the start" }.to_owned())
            }
            Op::CopyRange { from, to, offset, len } => {
                let copied = client.copy_range((fd(*from)?, *offset), (fd(*to)?, 100), *len)?;
                Ok(format!("{copied} bytes"))
            }
            Op::LinkFd { slot, path } => client.link_fd(fd(*slot)?, path).map(done),
            Op::Truncate { path, size } => client.truncate(path, *size).map(done),
            Op::Mkdir { path, mode } => client.mkdir(path, *mode & 0o1777).map(done),
            Op::Rmdir { path } => client.rmdir(path).map(done),
            Op::Unlink { path } => client.unlink(path).map(done),
            Op::Rename { from, to, flags } => client.rename(from, to, *flags).map(done),
            Op::Link { from, to } => client.link(from, to).map(done),
            Op::Symlink { path, target } => client.symlink(target, path).map(done),
            Op::Mknod { path, mode, rdev } => client.mknod(path, *mode, *rdev).map(done),
            Op::Chmod { path, mode } => client.chmod(path, *mode).map(done),
            Op::Chown { path, uid, gid } => client.chown(path, *uid, *gid).map(done),
            Op::Utimens { path, atime, mtime } => {
                let at = |sec: Option<i64>| sec.map(|sec| SetTime::At(Timestamp::new(sec, 7)));
                client.utimens(path, at(*atime), at(*mtime)).map(done)
            }
            Op::Setxattr { path, name, len, mode } => {
                client.setxattr(path, name.as_bytes(), &vec![b'v'; *len], *mode).map(done)
            }
            Op::Getxattr { path, name, size } => client
                .getxattr_sized(path, name.as_bytes(), *size)
                .map(|len| format!("{len} bytes")),
            Op::Removexattr { path, name } => client.removexattr(path, name.as_bytes()).map(done),
            Op::List { path, step } => list(client, path, *step).map(|names| format!("{names:?}")),
            Op::Readlink { path } => client.readlink(path).map(|target| digest(&target)),
        }
    }

    fn keep(&mut self, slot: usize, fd: Fd, flags: OpenFlags) -> Result<String> {
        if let Some((old, _)) = self.slots[slot].replace((fd, flags)) {
            self.client.close(old)?;
        }
        Ok("open".to_owned())
    }
}

impl Op {
    /// The paths of its operands.
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Rename { from, to, .. } | Self::Link { from, to } => vec![from, to],
            Self::Create { path, .. }
            | Self::Open { path, .. }
            | Self::Tmpfile { path, .. }
            | Self::LinkFd { path, .. }
            | Self::Truncate { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Rmdir { path }
            | Self::Unlink { path }
            | Self::Symlink { path, .. }
            | Self::Mknod { path, .. }
            | Self::Chmod { path, .. }
            | Self::Chown { path, .. }
            | Self::Utimens { path, .. }
            | Self::Setxattr { path, .. }
            | Self::Getxattr { path, .. }
            | Self::Removexattr { path, .. }
            | Self::List { path, .. }
            | Self::Readlink { path } => vec![path],
            _ => Vec::new(),
        }
    }
}

/// The path of the directory that `path` is in.
fn above(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &path[..slash])
}

/// A listing in order of names, read `step` entries at a time: name, type and inode number.
pub(super) fn list(client: &dyn Client, path: &[u8], step: usize) -> Result<Vec<(String, u32)>> {
    let dir = client.opendir(path)?;
    let mut names = Vec::new();
    let mut cookie = 0;
    let outcome = loop {
        match client.readdir(dir, cookie, step) {
            Ok(entries) if entries.is_empty() => break Ok(()),
            Ok(entries) => {
                cookie = entries.last().map_or(0, |entry| entry.cookie);
                names.extend(entries.into_iter().map(|entry| {
                    let kind = entry.kind.map_or(0, |kind| kind.mode_bits() & S_IFMT);
                    (entry.name.escape_ascii().to_string(), kind)
                }));
            }
            Err(errno) => break Err(errno),
        }
    };
    client.close(dir)?;
    outcome?;
    names.sort();
    Ok(names)
}

/// Data in one word, with its length.
pub(super) fn digest(data: &[u8]) -> String {
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, {hash:016x}", data.len())
}
