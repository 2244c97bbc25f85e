//! A request of every kind, in an order in which each succeeds.

use stratafs::transport::vhost_user::client::fuse::{self, Args, op};
use stratafs::transport::vhost_user::client::{Call, Queue};

/// Opcodes of `linux/fuse.h` that the client has no function for.
mod more {
    pub(super) const SETATTR: u32 = 4;
    pub(super) const READLINK: u32 = 5;
    pub(super) const MKNOD: u32 = 8;
    pub(super) const RMDIR: u32 = 11;
    pub(super) const LINK: u32 = 13;
    pub(super) const LISTXATTR: u32 = 23;
    pub(super) const REMOVEXATTR: u32 = 24;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const FSYNCDIR: u32 = 30;
    pub(super) const ACCESS: u32 = 34;
    pub(super) const IOCTL: u32 = 39;
    pub(super) const FALLOCATE: u32 = 43;
    pub(super) const READDIRPLUS: u32 = 44;
    pub(super) const RENAME2: u32 = 45;
    pub(super) const LSEEK: u32 = 46;
    pub(super) const COPY_FILE_RANGE: u32 = 47;
    pub(super) const TMPFILE: u32 = 51;
    pub(super) const STATX: u32 = 52;
}

/// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS.
const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;

/// The id at the beginning of an entry, or the handle at the beginning of an OPEN's answer.
fn id(payload: &[u8]) -> u64 {
    u64::from_ne_bytes(*payload.first_chunk().unwrap())
}

/// An answer, and the errno if it is one; the panic where there is none is what tests look for.
fn ask(queue: &mut Queue, opcode: u32, node: u64, args: &Args, room: u32) -> Result<Vec<u8>, i32> {
    let call = Call { opcode, node, args: args.bytes(), data: &[], room: Some(room) };
    let reply = queue.call(&call).unwrap().expect("it came back unanswered");
    if reply.errno == 0 { Ok(reply.payload) } else { Err(reply.errno) }
}

/// ENOSYS says that a filesystem needs no such request.
fn may_be_needless(answer: Result<Vec<u8>, i32>) {
    assert!(answer.is_ok() || answer == Err(38), "{answer:?}");
}

fn entry(queue: &mut Queue, opcode: u32, parent: u64, args: &Args) -> u64 {
    id(&ask(queue, opcode, parent, args, fuse::ENTRY_OUT).unwrap())
}

/// Sends them all. What a filesystem need not have may be refused.
pub(super) fn send(queue: &mut Queue) {
    fuse::init(queue).unwrap();
    let directory = fuse::mkdir(queue, fuse::ROOT, "directory").unwrap();
    let (file, handle) = fuse::create(queue, directory, "file").unwrap();
    names(queue, directory, file);
    data(queue, directory, file, handle);
    attributes(queue, file, handle);
    listing(queue, directory);
    fuse::release(queue, file, handle).unwrap();
    ends(queue, directory, file);
}

fn names(queue: &mut Queue, directory: u64, file: u64) {
    let symlink = entry(queue, op::SYMLINK, directory, &Args::new().name("link").name("target"));
    assert_eq!(ask(queue, more::READLINK, symlink, &Args::new(), 100).unwrap(), b"target");
    for (name, mode) in [("fifo", 0o010_644), ("plain", 0o100_644), ("socket", 0o140_644)] {
        let args = Args::new().u32(mode).u32(0).u32(0).u32(0).name(name);
        entry(queue, more::MKNOD, directory, &args);
    }
    // It takes privilege where owners are the host's.
    let device = Args::new().u32(0o020_644).u32(0x103).u32(0).u32(0).name("device");
    let _ = ask(queue, more::MKNOD, directory, &device, fuse::ENTRY_OUT);
    entry(queue, more::LINK, directory, &Args::new().u64(file).name("other name"));
    let rename = |from, to| Args::new().u64(directory).name(from).name(to);
    ask(queue, op::RENAME, directory, &rename("plain", "renamed"), 0).unwrap();
    let exchange = Args::new().u64(directory).u32(2).u32(0).name("renamed").name("fifo");
    ask(queue, more::RENAME2, directory, &exchange, 0).unwrap();
    let whiteout = Args::new().u64(directory).u32(4).u32(0).name("socket").name("white");
    let _ = ask(queue, more::RENAME2, directory, &whiteout, 0);
    assert_eq!(fuse::lookup(queue, directory, "other name").unwrap(), file);
    assert!(fuse::lookup(queue, directory, "missing").is_err());
    let unnamed = Args::new().u32(0o2).u32(0o100_600).u32(0).u32(0).name("/");
    let answer = ask(queue, more::TMPFILE, directory, &unnamed, fuse::ENTRY_OUT + 16);
    if let Ok(payload) = answer {
        let (node, handle) = (id(&payload), id(&payload[128..]));
        fuse::write(queue, node, handle, 0, b"unnamed").unwrap();
        entry(queue, more::LINK, directory, &Args::new().u64(node).name("named"));
        fuse::release(queue, node, handle).unwrap();
    }
}

fn data(queue: &mut Queue, directory: u64, file: u64, handle: u64) {
    for block in 0..8 {
        fuse::write(queue, file, handle, block * 32_768, &[block as u8; 32_768]).unwrap();
    }
    assert_eq!(fuse::read(queue, file, handle, 32_768, 4096).unwrap(), [1; 4096]);
    assert_eq!(fuse::read(queue, file, handle, 0, 65_536).unwrap().len(), 65_536);
    for flags in [0, 1] {
        may_be_needless(ask(queue, op::FSYNC, file, &Args::new().u64(handle).u32(flags).u32(0), 0));
    }
    for mode in [1, 3] {
        let args = Args::new().u64(handle).u64(4096).u64(8192).u32(mode).u32(0);
        ask(queue, more::FALLOCATE, file, &args, 0).unwrap();
    }
    for whence in [3, 4] {
        let args = Args::new().u64(handle).u64(0).u32(whence).u32(0);
        ask(queue, more::LSEEK, file, &args, 8).unwrap();
    }
    let (copy, to) = fuse::create(queue, directory, "copy").unwrap();
    let range = Args::new().u64(handle).u64(0).u64(copy).u64(to).u64(0).u64(65_536).u64(0);
    ask(queue, more::COPY_FILE_RANGE, file, &range, 8).unwrap();
    assert_eq!(fuse::read(queue, copy, to, 0, 1).unwrap(), [0]);
    let flush = Args::new().u64(to).u32(0).u32(0).u64(7);
    let _ = ask(queue, more::FLUSH, copy, &flush, 0);
    fuse::release(queue, copy, to).unwrap();
    let reopened = fuse::open(queue, copy).unwrap_or(0);
    assert_eq!(fuse::read(queue, copy, reopened, 65_535, 10).unwrap(), [1]);
    fuse::release(queue, copy, reopened).unwrap();
}

fn attributes(queue: &mut Queue, file: u64, handle: u64) {
    fuse::getattr(queue, file).unwrap();
    let statx = Args::new().u32(0).u32(0).u64(0).u32(0).u32(0xfff);
    let _ = ask(queue, more::STATX, file, &statx, 288);
    // Mode; size; both times, one of them now; an owner, which may be refused.
    for (valid, must) in [(1, true), (8, true), (0x10 | 0x20 | 0x80, true), (6, false)] {
        let args = Args::new().u32(valid).u32(0).u64(handle).u64(100_000).u64(0);
        let args = args.u64(1_000_000).u64(0).u64(0).u32(5).u32(6).u32(7);
        let args = args.u32(0o100_640).u32(0).u32(1000).u32(1000).u32(0);
        let answer = ask(queue, more::SETATTR, file, &args, fuse::ATTR_OUT);
        assert!(answer.is_ok() || !must, "valid {valid:#x}: {answer:?}");
    }
    // With SETXATTR_EXT, which the client negotiates, two more words.
    let set = |name| Args::new().u32(5).u32(0).u32(0).u32(0).name(name);
    for name in ["user.a", "security.a", "trusted.a"] {
        let args = set(name);
        let call = [args.bytes(), b"value"].concat();
        let call = Call { opcode: op::SETXATTR, node: file, args: &call, data: &[], room: Some(0) };
        let errno = queue.call(&call).unwrap().expect("it came back unanswered").errno;
        assert!(errno == 0 || name != "user.a", "{name}: {errno}");
    }
    let get = Args::new().u32(64).u32(0).name("user.a");
    assert_eq!(ask(queue, op::GETXATTR, file, &get, 64).unwrap(), b"value");
    let list = Args::new().u32(200).u32(0);
    ask(queue, more::LISTXATTR, file, &list, 200).unwrap();
    ask(queue, more::REMOVEXATTR, file, &Args::new().name("user.a"), 0).unwrap();
    let _ = ask(queue, more::ACCESS, file, &Args::new().u32(4).u32(0), 0);
    for (command, input, output) in [(GETFLAGS, 0, 8), (SETFLAGS, 8, 0)] {
        let args = Args::new().u64(handle).u32(0).u32(command).u64(0).u32(input).u32(output);
        let args = if input > 0 { args.u64(0) } else { args };
        let _ = ask(queue, more::IOCTL, file, &args, 16 + output);
    }
    ask(queue, op::STATFS, fuse::ROOT, &Args::new(), 80).unwrap();
}

fn listing(queue: &mut Queue, directory: u64) {
    let open = ask(queue, more::OPENDIR, directory, &Args::new().u32(0).u32(0), 16);
    let handle = open.map_or(0, |payload| id(&payload));
    for opcode in [more::READDIR, more::READDIRPLUS] {
        let args = fuse::read_args(handle, 0, 4096);
        assert!(!ask(queue, opcode, directory, &args, 4096).unwrap().is_empty());
    }
    let sync = Args::new().u64(handle).u32(0).u32(0);
    may_be_needless(ask(queue, more::FSYNCDIR, directory, &sync, 0));
    let release = Args::new().u64(handle).u32(0).u32(0).u64(0);
    let _ = ask(queue, more::RELEASEDIR, directory, &release, 0);
}

fn ends(queue: &mut Queue, directory: u64, file: u64) {
    may_be_needless(ask(queue, op::SYNCFS, fuse::ROOT, &Args::new().u64(0), 0));
    fuse::unlink(queue, directory, "file").unwrap();
    fuse::mkdir(queue, directory, "inner").unwrap();
    ask(queue, more::RMDIR, directory, &Args::new().name("inner"), 0).unwrap();
    fuse::forget(queue, file, 3).unwrap();
    assert_eq!(fuse::getattr(queue, fuse::ROOT).unwrap().mode & 0o170_000, 0o040_000);
    fuse::destroy(queue).unwrap();
    fuse::init(queue).unwrap();
    assert!(fuse::lookup(queue, fuse::ROOT, "directory").is_ok());
}
