//! VMMs come and go; what a guest was given stays its own.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use stratafs::transport::vhost_user::client::fuse::{self, Args, op};
use stratafs::transport::vhost_user::client::{Call, Queue, Setup};
use stratafs::transport::vhost_user::{Listener, ServeError, Share, Tag};
use stratafs_core::{Context, DynFileSystem, Intercept, Intercepted, Op, OpKind, Result};
use stratafs_memfs::MemFs;

use super::Served;
use super::round_trip::passthrough;

const EBADF: i32 = 9;
const ESTALE: i32 = 116;
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn raw_errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

#[test]
fn session_outlives_its_connection_and_ends_with_the_next_init() {
    // A filesystem whose files are opened.
    let (_directory, filesystem) = passthrough();
    let served = Served::new(filesystem);
    let mut guest = served.begin();
    let (node, handle) = fuse::create(guest.queue(), fuse::ROOT, "file").unwrap();
    fuse::write(guest.queue(), node, handle, 0, b"kept").unwrap();
    drop(guest);
    until("the VMM has not gone", || !served.server.is_connected());
    assert_eq!(served.server.session().held(), (1, 1));

    let mut guest = served.connect();
    assert_eq!(fuse::read(guest.queue(), node, handle, 0, 10).unwrap(), b"kept");
    fuse::init(guest.queue()).unwrap();
    assert_eq!(served.server.session().held(), (0, 0));
    let error = fuse::getattr(guest.queue(), node).unwrap_err();
    assert_eq!(raw_errno(&error), ESTALE);
    assert!(fuse::lookup(guest.queue(), fuse::ROOT, "file").is_ok());
}

#[test]
fn destroy_gives_everything_back() {
    let served = Served::mem();
    let mut guest = served.begin();
    fuse::create(guest.queue(), fuse::ROOT, "file").unwrap();
    fuse::destroy(guest.queue()).unwrap();
    assert_eq!(served.server.session().held(), (0, 0));
}

#[test]
fn vmms_that_come_and_go_a_hundred_times_are_all_served() {
    let served = Served::mem();
    for round in 1..=100 {
        let mut guest = served.begin();
        let node = fuse::mkdir(guest.queue(), fuse::ROOT, format!("{round}")).unwrap();
        assert_eq!(fuse::lookup(guest.queue(), fuse::ROOT, format!("{round}")).unwrap(), node);
        assert_eq!(served.server.session().held(), (1, 0));
    }
    until("the last VMM has not gone", || !served.server.is_connected());
    assert_eq!(served.server.connections(), 100);
}

#[test]
fn two_guests_of_one_filesystem_see_its_files_and_not_each_others_ids() {
    let (_directory, filesystem) = passthrough();
    let (one, two) = (Served::new(Arc::clone(&filesystem)), Served::new(filesystem));
    let (mut one, mut two) = (one.begin_for(), two.begin_for());
    let (node, handle) = fuse::create(one.1.queue(), fuse::ROOT, "file").unwrap();
    fuse::write(one.1.queue(), node, handle, 0, b"shared").unwrap();

    let other = two.1.queue();
    assert_eq!(raw_errno(&fuse::getattr(other, node).unwrap_err()), ESTALE);
    assert_eq!(raw_errno(&fuse::read(other, node, handle, 0, 9).unwrap_err()), ESTALE);
    assert_eq!(fuse::lookup(other, fuse::ROOT, "file").unwrap(), node);
    assert_eq!(raw_errno(&fuse::read(other, node, handle, 0, 9).unwrap_err()), EBADF);
    let own = fuse::open(other, node).unwrap();
    assert_eq!(fuse::read(other, node, own, 0, 9).unwrap(), b"shared");

    drop(two);
    assert_eq!(fuse::read(one.1.queue(), node, handle, 0, 9).unwrap(), b"shared");
}

/// Holds every request of one kind until it is opened.
#[derive(Clone)]
struct Gate(OpKind, Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn before(kind: OpKind) -> Self {
        Self(kind, Arc::default())
    }

    fn open(&self) {
        *self.1.0.lock() = true;
        self.1.1.notify_all();
    }
}

impl Intercept for Gate {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if op.kind() == self.0 {
            let mut is_open = self.1.0.lock();
            while !*is_open {
                self.1.1.wait(&mut is_open);
            }
        }
        Ok(())
    }
}

/// A host directory of which some requests wait for the gate.
fn gated(gate: &Gate) -> (tempfile::TempDir, Served) {
    let (directory, filesystem) = passthrough();
    let filesystem = Arc::new(Intercepted::new(filesystem, gate.clone()));
    (directory, Served::new(filesystem))
}

fn submit_fsync(queue: &mut Queue, slot: u16, node: u64, handle: u64) {
    let args = Args::new().u64(handle).u32(0).u32(0);
    let call = Call { opcode: op::FSYNC, node, args: args.bytes(), data: &[], room: Some(0) };
    queue.submit(slot, &call).unwrap();
}

#[test]
fn slow_fsync_does_not_delay_what_is_behind_it() {
    let gate = Gate::before(OpKind::Fsync);
    let (_directory, served) = gated(&gate);
    let mut guest = served.begin();
    let queue = guest.queue();
    let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
    submit_fsync(queue, 1, node, handle);
    // Slot 0, behind it: answered while the fsync is held.
    for _ in 0..10 {
        assert_eq!(fuse::getattr(queue, node).unwrap().size, 0);
    }
    gate.open();
    let (head, written) = queue.wait(PATIENCE).unwrap().unwrap();
    assert_eq!((queue.slot_of(head), queue.errno(1, written).unwrap()), (1, Some(0)));
}

#[test]
fn read_that_turns_out_slow_does_not_delay_what_is_behind_it() {
    let gate = Gate::before(OpKind::Read);
    let (_directory, served) = gated(&gate);
    let mut guest = served.begin();
    let queue = guest.queue();
    let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
    let args = fuse::read_args(handle, 0, 4096);
    let read = Call { opcode: op::READ, node, args: args.bytes(), data: &[], room: Some(4096) };
    queue.submit(1, &read).unwrap();
    // Offered together with it, and after it.
    for _ in 0..10 {
        assert_eq!(fuse::getattr(queue, node).unwrap().size, 0);
    }
    gate.open();
    let (head, written) = queue.wait(PATIENCE).unwrap().unwrap();
    assert_eq!((queue.slot_of(head), queue.errno(1, written).unwrap()), (1, Some(0)));
}

#[test]
fn stop_of_a_queue_waits_for_what_is_under_way() {
    let gate = Gate::before(OpKind::Fsync);
    let (_directory, served) = gated(&gate);
    let mut guest = served.begin();
    let (node, handle) = fuse::create(guest.queue(), fuse::ROOT, "file").unwrap();
    submit_fsync(guest.queue(), 1, node, handle);
    // Once a later request is back, the fsync is under way.
    fuse::getattr(guest.queue(), node).unwrap();
    let offered = u32::from(guest.queue().available());
    let opener = thread::spawn(move || gate.open());
    assert_eq!(guest.vmm.stop(1).unwrap(), offered);
    let (head, written) = guest.queue().completed().unwrap().expect("it was answered before");
    assert_eq!((guest.queue().slot_of(head), written), (1, 16));
    opener.join().unwrap();
}

#[test]
fn vmm_that_speaks_another_protocol_is_let_go_and_the_next_is_served() {
    let served = Served::mem();
    for noise in [&b"GET / HTTP/1.1\r\nHost: share\r\n\r\n"[..], &[0xff; 4096], b"x"] {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        // The server may be faster to hang up than this is to write.
        let _ = stream.write_all(noise);
    }
    fuse::getattr(served.begin().queue(), fuse::ROOT).unwrap();
}

#[test]
fn tag_is_told_only_where_there_is_one() {
    let filesystem: Arc<dyn DynFileSystem> = Arc::new(MemFs::builder().build().unwrap());
    let tagged =
        Served::with(Arc::clone(&filesystem), |share| share.tag(Tag::new("root").unwrap()));
    assert_eq!(tagged.connect().vmm.tag(), Some(&b"root"[..]));
    assert_eq!(Served::new(filesystem).connect().vmm.tag(), None);
}

#[test]
fn more_queues_than_there_are_is_refused_before_anything_is_set_up() {
    let served = Served::mem();
    let stream = UnixStream::connect(&served.path).unwrap();
    let setup = Setup::default().with_request_queues(3);
    let refused = stratafs::transport::vhost_user::client::Vmm::connect(stream, &setup);
    assert!(refused.unwrap_err().to_string().contains("3 queues"));
}

#[test]
fn once_ends_with_its_vmm_but_not_for_one_that_says_nothing() {
    let filesystem: Arc<dyn DynFileSystem> = Arc::new(MemFs::builder().build().unwrap());
    let served = Served::with(filesystem, |share| share.once(true));
    drop(UnixStream::connect(&served.path).unwrap());
    fuse::getattr(served.begin().queue(), fuse::ROOT).unwrap();
    assert!(served.server.wait_timeout(PATIENCE));
    assert!(UnixStream::connect(&served.path).is_err());
}

#[test]
fn readonly_share_refuses_changes() {
    let filesystem: Arc<dyn DynFileSystem> = Arc::new(MemFs::builder().build().unwrap());
    let served = Served::with(filesystem, |share| share.readonly(true));
    let error = fuse::mkdir(served.begin().queue(), fuse::ROOT, "a").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn bind_refuses_what_somebody_uses_and_takes_over_what_nobody_does() {
    let served = Served::mem();
    let error = Listener::bind(&served.path, None).unwrap_err().to_string();
    assert!(error.contains("another server listens there"), "{error}");
    // It was asked without being disturbed.
    assert_eq!(served.server.connections(), 0);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(&path, None).unwrap();
    let filesystem: Arc<dyn DynFileSystem> = Arc::new(MemFs::builder().build().unwrap());
    assert!(Share::builder(filesystem).serve(listener).unwrap().stop());
    assert!(!path.exists(), "the socket was left behind");

    std::fs::write(&path, "a file").unwrap();
    let error = Listener::bind(&path, None).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    let missing = Listener::bind(&directory.path().join("no/s"), None).unwrap_err();
    assert!(matches!(missing, ServeError::Socket { .. }));
}
