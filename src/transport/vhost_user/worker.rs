//! Threads: one that reads each queue, and a few for requests that may take long.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::chain::Chain;
use super::data::{Area, Request};
use super::memory::Mapped;
use super::ring::{Ring, Taken};
use super::slot::{Slot, Ticket};
use super::watch::{Pulse, Watch};
use crate::protocol::{Opcode, Scratch, Session};

/// How long an answer may wait for others before the guest is told of it, while its reader goes on
/// serving. Two or three small requests; a guest's interrupt costs about as much.
const SIGNAL_DELAY: Duration = Duration::from_micros(50);

/// From this size on, in bytes, a READ or WRITE of a filesystem that may wait is no work for a
/// reader with others behind it: below, handing it over costs more than it may take from the page
/// cache.
const LARGE: u32 = 128 << 10;

/// A request that another thread is to serve.
struct Job {
    ring: Arc<Ring>,
    memory: Arc<Mapped>,
    chain: Chain,
    ticket: Ticket,
}

impl Job {
    /// The request `taken` from `ring`; one whose chain makes no sense is given back at once.
    fn new(ring: &Arc<Ring>, taken: Taken, session: &Session) -> Option<Self> {
        let mut chain = Chain::default();
        let ticket = Ticket::new(ring, taken.life, taken.head);
        match chain.walk(&taken.memory, taken.table, taken.head) {
            Ok(()) => Some(Self { ring: Arc::clone(ring), memory: taken.memory, chain, ticket }),
            Err(malformed) => {
                session.malformed(format_args!("descriptor chain: {malformed:?}"));
                None
            }
        }
    }
}

/// Threads for requests that may take long, shared by all queues of a server.
pub(super) struct Pool {
    jobs: Mutex<VecDeque<Job>>,
    wake: Condvar,
    is_closed: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    size: usize,
    session: Arc<Session>,
    /// What watches the readers, where a request of theirs may wait.
    watch: Option<Watch>,
}

impl Pool {
    /// A pool of `size` threads that serve `session`; with 0, readers serve everything themselves.
    /// Unless the filesystem `is_prompt`, one more thread watches the readers.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`: no thread can be made. The pool is closed then.
    pub(super) fn start(
        session: &Arc<Session>,
        size: usize,
        is_prompt: bool,
    ) -> std::io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            jobs: Mutex::default(),
            wake: Condvar::new(),
            is_closed: AtomicBool::new(false),
            threads: Mutex::default(),
            size,
            session: Arc::clone(session),
            watch: (size > 0 && !is_prompt).then(Watch::default),
        });
        let started = pool.spawn_all();
        if started.is_err() {
            pool.close();
        }
        started.map(|()| pool)
    }

    fn spawn_all(self: &Arc<Self>) -> std::io::Result<()> {
        let spawn = |name: String, body: fn(&Self)| {
            let pool = Arc::clone(self);
            let thread = thread::Builder::new().name(name).spawn(move || body(&pool))?;
            self.threads.lock().push(thread);
            Ok(())
        };
        if self.watch.is_some() {
            spawn("stratafs-watch".to_owned(), Self::watch)?;
        }
        (0..self.size).try_for_each(|index| spawn(format!("stratafs-slow-{index}"), Self::serve))
    }

    /// Has what waits behind a stuck reader served here.
    fn watch(&self) {
        let Some(watch) = &self.watch else { return };
        watch.run(|ring| {
            while let Some(taken) = ring.take() {
                if let Some(job) = Job::new(ring, taken, &self.session) {
                    self.push(job);
                }
            }
            // What its reader has answered and not told of.
            ring.signal();
        });
    }

    /// A pulse for the reader of `ring`, which is watched until the pulse is dropped.
    pub(super) fn pulse(&self, ring: &Arc<Ring>) -> Arc<Pulse> {
        let pulse = Arc::<Pulse>::default();
        if let Some(watch) = &self.watch {
            watch.add(ring, &pulse);
        }
        pulse
    }

    fn begin(&self, pulse: &Pulse) {
        if let Some(watch) = &self.watch {
            watch.begin(pulse);
        }
    }

    fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.wake.notify_one();
    }

    fn serve(&self) {
        let session = &*self.session;
        let mut scratch = Scratch::new(session.config());
        while let Some(job) = self.next() {
            let Job { ring, memory, chain, ticket } = job;
            // Copied anew: what the reader saw decided only who serves it.
            let request = Request::read(Area::new(&memory, chain.readable()));
            if let Ok(request) = request {
                serve(session, &memory, &chain, request, ticket, &mut scratch);
            } else {
                drop(ticket);
            }
            ring.signal();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.pop_front() {
                return Some(job);
            }
            if self.is_closed.load(Ordering::SeqCst) {
                return None;
            }
            self.wake.wait(&mut jobs);
        }
    }

    /// Has the threads end once nothing is left to do.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Under the lock, so that nobody is between looking and sleeping.
        let jobs = self.jobs.lock();
        self.wake.notify_all();
        drop(jobs);
        if let Some(watch) = &self.watch {
            watch.close();
        }
    }

    /// Waits for the threads until `deadline`; whether all have ended.
    pub(super) fn join(&self, deadline: Instant) -> bool {
        join(&mut self.threads.lock(), deadline)
    }
}

/// Waits for threads until `deadline`; whether all have ended.
pub(super) fn join(threads: &mut Vec<JoinHandle<()>>, deadline: Instant) -> bool {
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for thread in threads.drain(..) {
        // It catches every panic of a request; of its own it has none.
        let _ = thread.join();
    }
    true
}

/// What a reader needs.
pub(super) struct Reader {
    pub(super) ring: Arc<Ring>,
    pub(super) session: Arc<Session>,
    pub(super) pool: Arc<Pool>,
    /// Whether no request of the filesystem waits for anything.
    pub(super) is_prompt: bool,
    pub(super) stop: Arc<AtomicBool>,
}

impl Reader {
    /// Serves the queue until it is stopped.
    pub(super) fn run(&self) {
        let mut scratch = Scratch::new(self.session.config());
        let mut chain = Chain::default();
        let pulse = self.pool.pulse(&self.ring);
        while !self.stop.load(Ordering::SeqCst) {
            if let Err(error) = self.ring.wait() {
                log::error!("queue {}: waiting for the guest: {error}", self.ring.index);
                return;
            }
            self.drain(&pulse, &mut chain, &mut scratch);
        }
    }

    /// Serves what is there.
    fn drain(&self, pulse: &Pulse, chain: &mut Chain, scratch: &mut Scratch) {
        // When the guest was last told; only looked at where there are several requests.
        let mut told = None;
        while let Some(taken) = self.ring.take() {
            self.pool.begin(pulse);
            let waiting = taken.waiting;
            self.serve(taken, chain, scratch);
            pulse.end();
            let now = (waiting > 0).then(Instant::now);
            let is_due = match (now, told) {
                (Some(now), Some(last)) => now.duration_since(last) >= SIGNAL_DELAY,
                (Some(_), None) => false,
                (None, _) => true,
            };
            if is_due {
                self.ring.signal();
            }
            if is_due || told.is_none() {
                told = now;
            }
        }
        // Where another took the last of them.
        self.ring.signal();
    }

    fn serve(&self, taken: Taken, chain: &mut Chain, scratch: &mut Scratch) {
        let Taken { head, waiting, table, memory, life } = taken;
        let ticket = Ticket::new(&self.ring, life, head);
        if let Err(malformed) = chain.walk(&memory, table, head) {
            self.session.malformed(format_args!("descriptor chain: {malformed:?}"));
            return;
        }
        let Ok(request) = Request::read(Area::new(&memory, chain.readable())) else {
            return;
        };
        if self.is_slow(request.prefix(), waiting) {
            let (ring, chain) = (Arc::clone(&self.ring), std::mem::take(chain));
            self.pool.push(Job { ring, memory, chain, ticket });
            return;
        }
        serve(&self.session, &memory, chain, request, ticket, scratch);
    }

    /// Whether the request is another thread's to serve, with `waiting` others behind it.
    fn is_slow(&self, prefix: &[u8], waiting: u16) -> bool {
        if self.is_prompt || self.pool.size == 0 {
            return false;
        }
        let word = |at: usize| {
            let bytes = prefix.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let Some(opcode) = word(OPCODE_AT).and_then(Opcode::from_raw) else { return false };
        match opcode {
            Opcode::Fsync
            | Opcode::Fsyncdir
            | Opcode::Syncfs
            | Opcode::Fallocate
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64 => true,
            Opcode::Read | Opcode::Write => {
                waiting > 0 && word(SIZE_AT).is_some_and(|size| size >= LARGE)
            }
            _ => false,
        }
    }
}

/// Where the opcode is in a request.
const OPCODE_AT: usize = 4;
/// Where the size is in `fuse_read_in` and `fuse_write_in`: after the header (40), `fh` and `offset`.
const SIZE_AT: usize = 56;

/// Has one request answered, whatever the filesystem does.
///
/// A panic in it is a defect of the filesystem, but one of a single request: the slot answers EIO
/// as it is dropped, and everybody else is served on.
fn serve(
    session: &Session,
    memory: &Arc<Mapped>,
    chain: &Chain,
    mut request: Request<'_>,
    ticket: Ticket,
    scratch: &mut Scratch,
) {
    let slot = Slot::new(ticket, request.prefix(), memory, chain.writable());
    let served = catch_unwind(AssertUnwindSafe(|| session.handle(&mut request, slot, scratch)));
    if served.is_err() {
        log::error!("a request made the filesystem panic; it is answered with EIO");
    }
}

#[cfg(test)]
#[cfg(feature = "ring")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use stratafs_core::DynFileSystem;
    use stratafs_sys::eventfd::EventFd;
    use vm_memory::GuestAddress;

    use super::super::client::fuse::{self, Args, op};
    use super::super::client::queue::{Layout, Queue};
    use super::super::client::{Call, Setup};
    use super::*;
    use crate::protocol::null::NullFs;
    use crate::protocol::{SessionConfig, TransportKind};

    const NODE: u64 = 2;
    const BLOCK: u32 = 4096;

    /// A reader that is driven by hand, and the guest's side of its queue.
    fn reader(filesystem: Arc<dyn DynFileSystem>) -> (Reader, Queue) {
        let setup = Setup::default().with_queue_size(32);
        let layout = Layout::new(GuestAddress(4096), &setup);
        let size = usize::try_from(layout.end()).unwrap();
        let memory = Arc::new(Mapped::from_ranges(&[(GuestAddress(0), size)]).unwrap());
        let event = || vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let queue = Queue::new(Arc::clone(&memory), layout, event(), event(), true).unwrap();
        let ring = Arc::new(Ring::new(1).unwrap());
        ring.set_memory(&memory);
        ring.set_size(32).unwrap();
        ring.set_event_idx(true);
        ring.set_enabled(true);
        ring.set_addresses([layout.descriptors, layout.available, layout.used]).unwrap();
        let file = || File::from(EventFd::new().unwrap().as_fd().try_clone_to_owned().unwrap());
        ring.set_call(Some(file()));
        ring.set_kick(Some(file())).unwrap();
        let config = SessionConfig::new(TransportKind::Virtio);
        let session = Arc::new(Session::new(filesystem, config, None));
        let pool = Pool::start(&session, 0, true).unwrap();
        let stop = Arc::default();
        (Reader { ring, session, pool, is_prompt: true, stop }, queue)
    }

    #[test]
    fn warm_requests_allocate_nothing() {
        let (reader, mut queue) = reader(Arc::new(NullFs::new()));
        let pulse = reader.pool.pulse(&reader.ring);
        let mut scratch = Scratch::new(reader.session.config());
        let mut chain = Chain::default();
        let mut drain = || reader.drain(&pulse, &mut chain, &mut scratch);

        let init =
            (0..11).fold(Args::new().u32(7).u32(41).u32(0).u32(0).u32(0), |args, _| args.u32(0));
        let data = [b'x'; BLOCK as usize];
        let requests = [
            (op::INIT, 0, init, &[][..], 64),
            (op::LOOKUP, fuse::ROOT, Args::new().name("a"), &[][..], fuse::ENTRY_OUT),
            (op::OPEN, NODE, Args::new().u32(2).u32(0), &[][..], 16),
            (op::GETATTR, NODE, Args::new().u32(0).u32(0).u64(0), &[][..], fuse::ATTR_OUT),
            (op::READ, NODE, fuse::read_args(NODE * 2, 0, BLOCK), &[][..], BLOCK),
            (op::WRITE, NODE, fuse::write_args(NODE * 2, 0, BLOCK), &data[..], 8),
        ];
        let mut round = |warm: bool| {
            // INIT and OPEN once.
            for (opcode, node, args, data, room) in &requests {
                if warm && [op::INIT, op::OPEN].contains(opcode) {
                    continue;
                }
                let args = args.bytes();
                let call = Call { opcode: *opcode, node: *node, args, data, room: Some(*room) };
                for slot in 0..4 {
                    queue.submit(slot, &call).unwrap();
                }
                let allocated = allocation_counter::measure(&mut drain).count_total;
                for _ in 0..4 {
                    let (head, written) = queue.completed().unwrap().unwrap();
                    let errno = queue.errno(queue.slot_of(head), written).unwrap();
                    assert_eq!(errno, Some(0), "opcode {opcode}");
                }
                assert!(!warm || allocated == 0, "opcode {opcode}: {allocated} allocations");
            }
        };
        round(false);
        for _ in 0..1_000 {
            round(true);
        }
    }
}
