//! Files that the client's kernel reads and writes by itself: what it is told of them, and when they
//! are taken back.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs::protocol::io::{BackingId, BackingRegistry};
use stratafs::protocol::{InitFlags, Opcode, Session, SessionConfig, TransportKind};
use stratafs_core::{
    Behaviours, CachePolicy, DynFileSystem, Errno, Features, Intercepted, Result, Traced,
};
use stratafs_passthroughfs::{Builder, Ownership, PassthroughFs};
use tempfile::TempDir;

use super::recorder::Hollow;
use super::wire::{Body, Client, ENTRY, Fields, O_RDWR, create_body, init_body, node_of};

/// `fuse_open_out.open_flags`.
const DIRECT_IO: u32 = 1 << 0;
const KEEP_CACHE: u32 = 1 << 1;
const PASSTHROUGH: u32 = 1 << 7;

/// A kernel that takes every file, or none.
#[derive(Default)]
struct Kernel {
    out: Mutex<BTreeSet<i32>>,
    last: Mutex<i32>,
    refuses: Option<Errno>,
}

impl BackingRegistry for Kernel {
    fn register(&self, _: BorrowedFd<'_>) -> Result<BackingId> {
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        let mut last = self.last.lock();
        *last += 1;
        self.out.lock().insert(*last);
        Ok(BackingId(*last))
    }

    fn unregister(&self, id: BackingId) {
        assert!(self.out.lock().remove(&id.0), "{id:?} was not out");
    }
}

/// A client of a host directory with `file` in it, and what its kernel was named.
struct Lent {
    client: Client,
    kernel: Arc<Kernel>,
    dir: TempDir,
}

impl Lent {
    fn new(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::refusing(None, configure)
    }

    fn refusing(refuses: Option<Errno>, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), [7; 100_000]).unwrap();
        let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Host);
        let fs = Arc::new(configure(builder).build().unwrap());
        Self::over(dir, fs, refuses)
    }

    fn over(dir: TempDir, fs: Arc<dyn DynFileSystem>, refuses: Option<Errno>) -> Self {
        let kernel = Arc::new(Kernel { refuses, ..Kernel::default() });
        let session = Session::new(fs, SessionConfig::new(TransportKind::Dev), None);
        session.set_backing_registry(Arc::clone(&kernel) as _);
        let mut client = Client::of(Arc::new(session));
        client.init(45, InitFlags::all().difference(InitFlags::NO_OPEN_SUPPORT));
        Self { client, kernel, dir }
    }

    fn file(&mut self) -> u64 {
        self.client.lookup(1, b"file").unwrap()
    }

    /// Opens: handle, flags and id.
    fn open(&mut self, node: u64, flags: u32) -> (u64, u32, i32) {
        let body = Body::new().u32(flags).u32(0);
        open_out(&self.client.ask(Opcode::Open, node, &body).unwrap())
    }

    fn release(&mut self, node: u64, fh: u64) {
        self.client.release(Opcode::Release, node, fh).unwrap();
    }

    fn out(&self) -> Vec<i32> {
        self.kernel.out.lock().iter().copied().collect()
    }
}

fn open_out(reply: &[u8]) -> (u64, u32, i32) {
    let mut fields = Fields::of(reply);
    (fields.u64(), fields.u32(), fields.u32().cast_signed())
}

#[test]
fn init_agrees_on_passthrough_where_there_is_a_kernel_to_tell_and_nothing_against_it() {
    let able = Features::new("x").promising(Behaviours::PASSTHROUGH);
    let session = |features, depth, kernel: bool| {
        let mut config = SessionConfig::new(TransportKind::Dev);
        config.max_stack_depth = depth;
        let session = Session::new(Hollow::new(features), config, None);
        if kernel {
            session.set_backing_registry(Arc::new(Kernel::default()));
        }
        Client::of(Arc::new(session))
    };
    // Flags and max_stack_depth of `fuse_init_out`.
    let told = |mut client: Client, minor| {
        let body = init_body(7, minor, InitFlags::all());
        let reply = client.ask(Opcode::Init, 0, &body).unwrap();
        let high = u64::from(Fields::of(&reply).skip(32).u32()) << 32;
        let flags = InitFlags::from_bits_retain(high);
        (flags.contains(InitFlags::PASSTHROUGH), Fields::of(&reply).skip(36).u32())
    };
    assert_eq!(told(session(able, 1, true), 45), (true, 1));
    assert_eq!(told(session(able, 2, true), 40), (true, 2));
    assert_eq!(told(session(able, 9, true), 45), (true, 2), "no more than the kernel takes");
    for (features, minor, kernel) in [
        (able, 45, false),
        (able, 39, true),
        (Features::new("x"), 45, true),
        (able.promising(Behaviours::WRITEBACK), 45, true),
        (able.promising(Behaviours::NO_OPEN), 45, true),
    ] {
        let found = told(session(features, 1, kernel), minor);
        assert_eq!(found, (false, 0), "{features:?}, 7.{minor}");
    }
}

#[test]
fn open_names_one_file_for_a_node_until_its_last_release() {
    let mut lent = Lent::new(|builder| builder);
    let node = lent.file();
    let (first, flags, id) = lent.open(node, 0);
    assert_eq!((flags, id), (PASSTHROUGH, 1));
    let (second, flags, id) = lent.open(node, O_RDWR);
    assert_eq!((flags, id), (PASSTHROUGH, 1));
    assert_eq!((lent.out(), lent.client.session.passed_through()), (vec![1], 1));
    lent.release(node, first);
    assert_eq!(lent.out(), [1]);
    lent.release(node, second);
    assert_eq!((lent.out(), lent.client.session.passed_through()), (vec![], 0));
    assert_eq!(lent.open(node, 0).2, 2);
}

#[test]
fn release_that_is_refused_takes_no_file_back() {
    let mut lent = Lent::new(|builder| builder);
    let node = lent.file();
    let (fh, ..) = lent.open(node, 0);
    for forged in [0, fh + 1000] {
        let refused = lent.client.release(Opcode::Release, node, forged);
        assert_eq!(refused, Err(Errno::EBADF));
    }
    assert_eq!(lent.out(), [1]);
    lent.release(node, fh);
    assert_eq!(lent.client.release(Opcode::Release, node, fh), Err(Errno::EBADF));
    assert_eq!(lent.out(), []);
}

#[test]
fn create_and_tmpfile_name_their_files_too() {
    let mut lent = Lent::new(|builder| builder);
    for (opcode, name, id) in [(Opcode::Create, "new", 1), (Opcode::Tmpfile, "/", 2)] {
        let name = name.as_bytes();
        let reply = lent.client.ask(opcode, 1, &create_body(O_RDWR, 0o644, name)).unwrap();
        let (fh, flags, named) = open_out(&reply[ENTRY..]);
        assert_eq!((flags, named), (PASSTHROUGH, id), "{opcode:?}");
        lent.release(node_of(&reply), fh);
    }
    assert_eq!(lent.out(), []);
}

#[test]
fn open_that_may_not_write_past_the_server_goes_around_the_cache() {
    let mut lent = Lent::new(|builder| builder);
    let node = lent.file();
    let (reader, ..) = lent.open(node, 0);
    let path = lent.dir.path().join("file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let (writer, flags, id) = lent.open(node, O_RDWR);
    assert_eq!((flags, id), (PASSTHROUGH | DIRECT_IO, 1));
    lent.client.write(node, writer, 0, b"here").unwrap();
    lent.release(node, reader);
    lent.release(node, writer);
    let (_, flags, id) = lent.open(node, O_RDWR);
    assert_eq!((flags, id), (0, 0), "alone it is cached");
    let (_, flags, id) = lent.open(node, 0);
    assert_eq!((flags, id), (0, 0), "and so are those that join it");
}

#[test]
fn undelivered_open_and_create_take_their_files_back() {
    let mut lent = Lent::new(|builder| builder);
    let node = lent.file();
    lent.client.delivers = false;
    lent.client.send(Opcode::Open.raw(), node, &Body::new().u32(0).u32(0));
    assert_eq!(lent.out(), []);
    lent.client.send(Opcode::Create.raw(), 1, &create_body(O_RDWR, 0o644, b"new"));
    assert_eq!(lent.out(), []);
    lent.client.delivers = true;
    let (fh, ..) = lent.open(node, 0);
    lent.client.delivers = false;
    lent.client.send(Opcode::Open.raw(), node, &Body::new().u32(0).u32(0));
    assert_eq!(lent.out().len(), 1, "the other open has it still");
    lent.client.delivers = true;
    lent.release(node, fh);
    assert_eq!(lent.out(), []);
}

#[test]
fn end_of_a_session_takes_every_file_back() {
    let all = InitFlags::all().difference(InitFlags::NO_OPEN_SUPPORT);
    for end in [Opcode::Destroy, Opcode::Init] {
        let mut lent = Lent::new(|builder| builder);
        let node = lent.file();
        lent.open(node, 0);
        lent.client.create(1, b"new");
        assert_eq!(lent.out(), [1, 2]);
        let body = if end == Opcode::Init { init_body(7, 45, all) } else { Body::new() };
        lent.client.ask(end, 0, &body).unwrap();
        assert_eq!(lent.out(), [], "{end:?}");
    }
    let mut lent = Lent::new(|builder| builder);
    lent.client.create(1, b"new");
    let Lent { client, kernel, dir: _dir } = lent;
    drop(client);
    assert_eq!(kernel.out.lock().len(), 0, "a dropped session");
}

#[test]
fn open_where_the_kernel_takes_no_file_is_cached() {
    for errno in [Errno::EPERM, Errno::ELOOP, Errno::EOPNOTSUPP] {
        let mut lent = Lent::refusing(Some(errno), |builder| builder);
        let node = lent.file();
        let (fh, flags, id) = lent.open(node, O_RDWR);
        assert_eq!((flags, id), (0, 0), "{errno:?}");
        lent.client.write(node, fh, 0, b"data").unwrap();
        assert_eq!(lent.client.read(node, fh, 0, 4).unwrap(), b"data");
    }
}

#[test]
fn small_file_that_the_client_keeps_is_cached_and_a_large_one_passed_through() {
    let mut lent = Lent::new(|builder| builder.cache_policy(CachePolicy::Always));
    std::fs::write(lent.dir.path().join("small"), [7; 4096]).unwrap();
    let (large, small) = (lent.file(), lent.client.lookup(1, b"small").unwrap());
    let (_, flags, id) = lent.open(large, 0);
    assert_eq!((flags, id), (PASSTHROUGH, 1), "KEEP_CACHE would fail beside it");
    let (fh, flags, id) = lent.open(small, 0);
    assert_eq!((flags, id), (KEEP_CACHE, 0));
    lent.release(small, fh);
    let (_, flags, id) = lent.open(small, O_RDWR);
    assert_eq!((flags, id), (PASSTHROUGH, 2), "a write saves its request at any size");
    let (_, flags, id) = lent.open(small, 0);
    assert_eq!((flags, id), (PASSTHROUGH, 2), "and a small reader joins it");
}

#[test]
fn open_below_what_must_see_the_data_is_not_passed_through() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"data").unwrap();
    let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Host);
    let seen = Intercepted::new(Arc::new(builder.build().unwrap()), Traced::new("t"));
    let mut lent = Lent::over(dir, Arc::new(seen), None);
    let node = lent.file();
    let (_, flags, id) = lent.open(node, 0);
    assert_eq!((flags, id), (0, 0));
}
