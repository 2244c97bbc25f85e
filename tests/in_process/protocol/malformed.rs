//! Whatever the bytes are: one answer or none, no panic, no memory by their say.

use std::sync::Arc;

use allocation_counter::measure;
use parking_lot::Mutex;
use stratafs::protocol::null::NullFs;
use stratafs::protocol::{InitFlags, Opcode};
use stratafs_core::{
    Attr, Behaviours, Context, DirSink, DynFileSystem, Entry, Errno, Features, HandleId, Intercept,
    Intercepted, Lookup, Name, Needs, NodeId, Op, OpenFlags, Opened, OpenedFlags, ReadSink, Result,
    TimedAttr, WriteFlags, WriteSource, XattrName,
};
use stratafs_memfs::{Locks, MemFs, SizeExt};
use stratafs_passthroughfs::{Ownership, PassthroughFs};

use super::hostile::{EDGES, Entropy, Hostile, Seeded};
use super::recorder::Stage;
use super::requests::{Ids, Valid, valid_requests};
use super::wire::{Body, Client, HEADER, Told, request, request_with_extensions};

/// What one request may allocate at most, beside twice its own length, in bytes.
const ALLOWANCE: u64 = 1 << 20;

fn answered_once(told: &[Told], opcode: Opcode, unique: u64) -> bool {
    match told {
        [Told::Replied(to, _)] => opcode.has_reply() && *to == unique,
        [Told::Finished] => !opcode.has_reply(),
        // It may wait: the lock is another owner's.
        [] => opcode == Opcode::Setlkw,
        _ => false,
    }
}

/// All good requests, with those that the session itself serves.
fn every_request(ids: &Ids) -> Vec<Valid> {
    let mut all = valid_requests(ids);
    for (opcode, body) in [
        (Opcode::Interrupt, Body::new().u64(9)),
        (Opcode::NotifyReply, Body::new().u64(0).u64(0).u32(0).u32(0).u64(0).u64(0)),
        (Opcode::Destroy, Body::new()),
        (Opcode::Init, super::wire::init_body(7, 45, InitFlags::all())),
    ] {
        all.push(Valid { opcode, node: 0, body, uses_handle: false });
    }
    all
}

#[test]
fn request_cut_anywhere_is_answered_once() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let ids = Ids::make(&mut client);
    for Valid { opcode, node, body, .. } in every_request(&ids) {
        for len in 0..body.0.len() {
            let unique = client.next_unique();
            let told = client.send(opcode.raw(), node, &Body(body.0[..len].to_vec()));
            assert!(answered_once(&told, opcode, unique), "{opcode:?} cut to {len}: {told:?}");
        }
    }
}

#[test]
fn request_whose_length_lies_is_einval_and_unseen() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let ids = Ids::make(&mut client);
    stage.recorder.take();
    for Valid { opcode, node, body, .. } in every_request(&ids) {
        let whole = request(opcode.raw(), 70, node, &body.0);
        let actual = u32::try_from(whole.len()).unwrap();
        for lie in [0, 1, 39, actual - 1, actual + 1, 1 << 31, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&lie.to_ne_bytes());
            let expected = if opcode.has_reply() {
                Told::Replied(70, Err(Errno::EINVAL))
            } else {
                Told::Finished
            };
            assert_eq!(client.send_raw(&bytes), [expected], "{opcode:?} of {lie}");
        }
    }
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

#[test]
fn header_cut_anywhere_is_finished() {
    let mut client = Client::started(Arc::new(NullFs::new()));
    let whole = request(Opcode::Statfs.raw(), 9, 1, b"");
    for len in 0..HEADER {
        assert_eq!(client.send_raw(&whole[..len]), [Told::Finished], "{len} bytes");
    }
    assert!(client.ask(Opcode::Getattr, 1, &Body::new().u64(0).u64(0)).is_ok());
}

#[test]
fn request_of_nobody_is_finished() {
    let mut client = Client::started(Arc::new(NullFs::new()));
    assert_eq!(client.send_raw(&request(Opcode::Statfs.raw(), 0, 1, b"")), [Told::Finished]);
}

#[test]
fn every_field_of_every_opcode_at_every_edge_is_answered_once() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let mut ids = Ids::make(&mut client);
    for place in 0..every_request(&ids).len() {
        let Valid { opcode, body, .. } = every_request(&ids)[place].clone();
        for at in (0..body.0.len()).step_by(4) {
            for (edge, width) in EDGES.iter().flat_map(|edge| [(edge, 4), (edge, 8)]) {
                let Valid { node, mut body, .. } = every_request(&ids)[place].clone();
                let Some(field) = body.0.get_mut(at..at + width) else { continue };
                field.copy_from_slice(&edge.to_ne_bytes()[..width]);
                let unique = client.next_unique();
                let told = client.send(opcode.raw(), node, &body);
                assert!(
                    answered_once(&told, opcode, unique),
                    "{opcode:?} with {edge:#x} at {at}: {told:?}"
                );
                if matches!(
                    opcode,
                    Opcode::Release
                        | Opcode::Releasedir
                        | Opcode::Forget
                        | Opcode::BatchForget
                        | Opcode::Destroy
                        | Opcode::Init
                ) {
                    // It may have worked; then there is nothing left to name.
                    client = Client::started(Arc::new(MemFs::builder().build().unwrap()));
                    ids = Ids::make(&mut client);
                }
            }
        }
    }
}

#[test]
fn creation_whose_extensions_lie_is_einval_and_unseen() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let group = Body::new().u32(16).u32(32).u32(1).u32(555).0;
    let body = Body::new().u32(0o755).u32(0).name(b"d").bytes(&group);
    for (extensions, cut) in [(0, 0), (8, 0), (24, 0), (16, 1), (8, 8), (65_535 * 8, 0)] {
        let whole = &body.0[..body.0.len() - cut];
        let bytes = request_with_extensions(Opcode::Mkdir.raw(), 9, 1, whole, extensions);
        assert_eq!(client.send_raw(&bytes), [Told::Replied(9, Err(Errno::EINVAL))], "{extensions}");
    }
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
    let bytes = request_with_extensions(Opcode::Mkdir.raw(), 9, 1, &body.0, 16);
    assert!(matches!(client.send_raw(&bytes)[..], [Told::Replied(9, Ok(_))]));
}

#[test]
fn answer_that_breaks_the_contract_is_eio_and_gives_nothing() {
    let mut client = Client::started(Arc::new(Broken));
    assert_eq!(client.lookup(1, b"zero"), Err(Errno::EIO));
    let node = client.lookup(1, b"file").unwrap();
    let fh = client.open(Opcode::Open, node, 0).unwrap();
    assert_eq!(client.open(Opcode::Open, 1, 0), Err(Errno::EIO), "one handle on two nodes");
    assert_eq!(
        client.open(Opcode::Open, node, 0),
        Ok(fh),
        "twice on one node is a filesystem's way"
    );
    assert_eq!(client.read(node, fh, 0, 3).unwrap(), [0; 3], "more than was asked for");
    assert_eq!(client.write(node, fh, 0, b"abc"), Err(Errno::EIO));
    let get = Body::new().u32(4).u32(0).name(b"user.a");
    assert_eq!(client.ask(Opcode::Getxattr, node, &get), Err(Errno::EIO));
    assert_eq!(client.session.held(), (1, 1));
    for _ in 0..2 {
        client.release(Opcode::Release, node, fh).unwrap();
    }
    assert_eq!(client.session.held(), (1, 0));
}

/// A filesystem that breaks its contract.
struct Broken;

impl DynFileSystem for Broken {
    fn features(&self) -> Features {
        Features::new("broken").needing(Needs::all())
    }
    fn lookup(&self, _: &Context<'_>, _: NodeId, name: Name<'_>) -> Result<Lookup> {
        let node = if name.as_bytes() == b"zero" { 0 } else { 5 };
        Ok(Lookup::Found(Entry::new(NodeId(node), Attr::new(5, 0o100_644))))
    }
    fn forget(&self, _: NodeId, _: u64) {}
    fn getattr(&self, _: &Context<'_>, _: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Err(Errno::EIO)
    }
    fn open(&self, _: &Context<'_>, _: NodeId, _: OpenFlags, _: bool) -> Result<Opened> {
        Ok(Opened::new(HandleId(7), OpenedFlags::empty()))
    }
    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        sink.write_zeros(size + 1)
    }
    fn write(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        size: usize,
        _: WriteFlags,
        _: &mut dyn WriteSource,
    ) -> Result<usize> {
        Ok(size + 1)
    }
    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        _: &mut dyn DirSink,
    ) -> Result<()> {
        Ok(())
    }
    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
    fn getxattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        Ok(value.len() + 1)
    }
}

/// How many requests; the soak asks for 10 million.
fn requests() -> u64 {
    let count = std::env::var("STRATAFS_MALFORMED_REQUESTS").ok();
    count.map_or(200_000, |count| count.parse().unwrap())
}

/// Sends `count` requests of the seed to `fs`, by a client that is exchanged now and then.
fn storm(make: impl Fn() -> Arc<dyn DynFileSystem>, seed: u64, count: u64) {
    let mut entropy = Seeded(seed);
    let mut client = None;
    for index in 0..count {
        let live = client.get_or_insert_with(|| {
            let minor = 31 + u32::try_from(entropy.below(15)).unwrap();
            let flags = match entropy.below(3) {
                0 => InitFlags::from_bits_truncate(entropy.next()),
                _ => InitFlags::all(),
            };
            Hostile::new(make(), minor, flags)
        });
        live.prepare(&mut entropy);
        let room = match entropy.below(6) {
            0 => entropy.below(200),
            _ => usize::MAX,
        };
        let allocated = measure(|| live.send(room)).bytes_max;
        let allowed = 2 * live.request().len() as u64 + ALLOWANCE;
        assert!(allocated <= allowed, "request {index} of seed {seed}: {allocated} bytes");
        if index % 5000 == 4999 {
            client.take().unwrap().end();
        }
    }
    if let Some(client) = client {
        client.end();
    }
}

#[test]
fn malformed_requests_to_a_memfs_hold_the_invariants() {
    let make = || -> Arc<dyn DynFileSystem> {
        let builder = MemFs::builder().capacity(512.kib()).max_inodes(500).locks(Locks::Remote);
        Stage::with_features(builder, |features| {
            features.needing(Needs::all().difference(Needs::OPEN | Needs::OPENDIR | Needs::FLOCK))
        })
        .into_checked()
    };
    storm(make, 1, requests() / 2);
}

#[test]
fn malformed_requests_to_a_stateless_memfs_hold_the_invariants() {
    let make = || -> Arc<dyn DynFileSystem> {
        Stage::new(MemFs::builder().capacity(512.kib()).max_inodes(500)).into_checked()
    };
    storm(make, 2, requests() / 4);
}

/// Refuses what would fill the disk of the machine that tests, wait for it, or lock files in.
struct Gentle;

impl Intercept for Gentle {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        const LIMIT: u64 = 1 << 20;
        match op {
            Op::Fallocate { len, .. } | Op::CopyFileRange { len, .. } if *len > LIMIT => {
                Err(Errno::ENOSPC)
            }
            Op::Fsync { .. } | Op::Fsyncdir { .. } | Op::Syncfs { .. } => Err(Errno::EIO),
            Op::SetInodeFlags { .. } => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }
}

#[test]
fn malformed_requests_to_a_host_directory_hold_the_invariants() {
    let above = tempfile::tempdir().unwrap();
    std::fs::write(above.path().join("outside"), b"precious").unwrap();
    let shares = Mutex::new(Vec::new());
    let make = || -> Arc<dyn DynFileSystem> {
        let dir = tempfile::tempdir_in(above.path()).unwrap();
        let builder = PassthroughFs::builder().root_dir(dir.path()).posix_acl(true);
        let fs = Arc::new(builder.ownership(Ownership::Virtual).fd_budget(16).build().unwrap());
        shares.lock().push((dir, Arc::clone(&fs)));
        Arc::new(Intercepted::new(fs as Arc<dyn DynFileSystem>, Gentle))
    };
    storm(make, 4, requests() / 8);
    for (_, fs) in &*shares.lock() {
        let usage = fs.usage();
        assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "all is given back");
    }
    assert_eq!(std::fs::read(above.path().join("outside")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 1 + shares.lock().len());
}

#[test]
fn malformed_requests_to_nothing_hold_the_invariants() {
    let make = || -> Arc<dyn DynFileSystem> { Arc::new(NullFs::new().with_entries(300)) };
    assert!(!make().features().bears(Behaviours::NO_OPEN));
    storm(make, 3, requests() / 4);
}
