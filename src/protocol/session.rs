//! A session: one client's connection, from its INIT to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, Context, DynFileSystem, Errno, Features, HandleId, Intercepted, Negotiated, NodeId,
    Notifier, ReadOnly, Release, Reply, Result, SessionId, WriteSource,
};

use super::backing::Backings;
use super::config::SessionConfig;
use super::decode::Args;
use super::dispatch::{self, Answer, Undo};
use super::init::{self, Agreed, InitFlags, Offer};
use super::io::{BackingRegistry, ReplySlot};
use super::ledger::{HandleKind, Ledger};
use super::ops::lock::Waiting;
use super::pending::Waits;
use super::scratch::Scratch;
use super::wire;

/// Why an INIT was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// The client speaks a version that is not spoken here.
    Version {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// The request was too short.
    Malformed,
    /// The session was configured with a `max_write` below 4096 or a `max_pages` of 0.
    Limits,
    /// The filesystem's `init` failed.
    FileSystem(Errno),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { major, minor } => write!(
                f,
                "the client speaks FUSE {major}.{minor}, here 7.{} to 7.{} are spoken \
                 (Linux 5.4 and later)",
                wire::MINOR_MIN,
                wire::MINOR
            ),
            Self::Malformed => f.write_str("the client's INIT is malformed"),
            Self::Limits => {
                f.write_str("max_write is below 4096 bytes, or max_pages is 0: set them higher")
            }
            Self::FileSystem(errno) => write!(f, "the filesystem could not begin: {errno}"),
        }
    }
}

impl std::error::Error for Rejected {}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// No INIT came yet.
    #[default]
    Waiting,
    /// It is served.
    Serving(Negotiated),
    /// Its INIT was refused; another may come.
    Rejected(Rejected),
    /// DESTROY came.
    Ended,
}

/// One client's connection: what it agreed on and what it was given.
///
/// Shared by all the workers that read its requests. Dropped, it gives back to the filesystem what
/// the client still held.
pub struct Session {
    id: SessionId,
    pub(crate) fs: Arc<dyn DynFileSystem>,
    pub(crate) features: Features,
    pub(crate) config: SessionConfig,
    pub(crate) ledger: Ledger,
    pub(crate) backings: Backings,
    pub(crate) waits: Arc<Waits>,
    pub(crate) surprises: Surprises,
    /// Whether an open, or an opendir, was ever answered without a handle: then requests without a
    /// handle are to be expected.
    pub(crate) stateless_files: AtomicBool,
    pub(crate) stateless_dirs: AtomicBool,
    /// What serving a request depends on, in one load: [`LIVE`], the minor version, [`Agreed`]. 0
    /// where there is nothing to serve.
    agreed: AtomicU64,
    pub(crate) max_write: AtomicU32,
    state: Mutex<SessionState>,
    notifier: Mutex<Option<Arc<dyn Notifier>>>,
    /// Held by INIT and DESTROY, so that the filesystem sees one begin and one end of each life.
    life: Mutex<()>,
}

/// The id of the next session of this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The bit of [`Session::agreed`] that tells an agreement on nothing from none.
const LIVE: u64 = 1 << 63;

/// What was noticed already, so that a log says it once.
#[derive(Debug, Default)]
pub(crate) struct Surprises {
    enosys: AtomicBool,
    answer: AtomicBool,
    malformed: AtomicU64,
}

impl Session {
    /// A session with a client that is yet to send its INIT. `notifier` is attached to the
    /// filesystem when it did; see [`Session::set_notifier`] for one that must know the session.
    #[must_use]
    pub fn new(
        fs: Arc<dyn DynFileSystem>,
        config: SessionConfig,
        notifier: Option<Arc<dyn Notifier>>,
    ) -> Self {
        let fs: Arc<dyn DynFileSystem> =
            if config.readonly { Arc::new(Intercepted::new(fs, ReadOnly::new())) } else { fs };
        Self {
            id: SessionId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            features: fs.features(),
            fs,
            config,
            ledger: Ledger::new(),
            backings: Backings::new(),
            waits: Arc::new(Waits::new()),
            surprises: Surprises::default(),
            stateless_files: AtomicBool::new(false),
            stateless_dirs: AtomicBool::new(false),
            agreed: AtomicU64::new(0),
            max_write: AtomicU32::new(config.max_write),
            state: Mutex::default(),
            notifier: Mutex::new(notifier),
            life: Mutex::new(()),
        }
    }

    /// The session, as the filesystem is told of it with every request.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Sets what is attached to the filesystem at the next INIT. Without effect on one that is
    /// attached already.
    pub fn set_notifier(&self, notifier: Arc<dyn Notifier>) {
        *self.notifier.lock() = Some(notifier);
    }

    /// Sets where files of the host are registered for the kernel's own I/O; without one there is no
    /// such I/O. It must be set before INIT comes; of several the first counts.
    pub fn set_backing_registry(&self, registry: Arc<dyn BackingRegistry>) {
        self.backings.set_registry(registry);
    }

    /// How many nodes the client's kernel reads and writes by itself now.
    #[must_use]
    pub fn passed_through(&self) -> usize {
        self.backings.len()
    }

    /// Whether the client was given `node`, and so may keep something of it.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.ledger.knows(node)
    }

    /// Where the session stands.
    #[must_use]
    pub fn state(&self) -> SessionState {
        *self.state.lock()
    }

    /// What was agreed on; `None` where the session is not served (yet, or any more).
    #[must_use]
    pub fn negotiated(&self) -> Option<Negotiated> {
        match self.state() {
            SessionState::Serving(negotiated) => Some(negotiated),
            _ => None,
        }
    }

    /// Whether DESTROY came.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state() == SessionState::Ended
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// How many nodes and handles the client holds.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        self.ledger.len()
    }

    /// How many requests wait for a lock.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Serves one request: reads it from `request`, and answers it through `slot`, exactly once or
    /// not at all as the protocol has it, now or later.
    ///
    /// Whatever the bytes are, it returns, and nothing is allocated by their say.
    pub fn handle<S: ReplySlot>(
        &self,
        request: &mut dyn WriteSource,
        mut slot: S,
        scratch: &mut Scratch,
    ) {
        let Some(header) = dispatch::read_header(request) else {
            self.malformed(format_args!("a request that ends within its header"));
            slot.finish();
            return;
        };
        let unique = header.unique;
        match dispatch::serve(self, &header, request, slot.payload(), scratch) {
            Answer::Never => slot.finish(),
            Answer::Now(Err(errno), _) => {
                slot.clear();
                // An error carries nothing that could be lost with it.
                let _ = slot.send(unique, Err(errno));
            }
            Answer::Now(Ok(()), undo) => {
                if slot.send(unique, Ok(())).is_err() {
                    self.undo(undo, &scratch.spare.granted);
                }
            }
            Answer::Later(waiting) => self.wait(unique, &waiting, slot),
        }
    }

    /// Lets a request wait for its lock, without its worker.
    fn wait<S: ReplySlot>(&self, unique: u64, waiting: &Waiting, slot: S) {
        let waits = Arc::clone(&self.waits);
        let detached = slot.detach();
        let reply = Reply::new(move |answer: Result<()>| {
            waits.end(unique);
            let answer = answer
                .map_err(|errno| if errno == Errno::ENOSYS { Errno::EOPNOTSUPP } else { errno });
            detached.send(unique, answer);
        });
        if let Some(pending) = waiting.start(self.fs.as_ref(), reply) {
            self.waits.register(unique, pending);
        }
    }

    /// What was agreed on, and the minor version; `None` where nothing is to be served.
    pub(crate) fn agreement(&self) -> Option<Agreed> {
        let word = self.agreed.load(Ordering::Acquire);
        let bits = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        (word & LIVE != 0).then(|| Agreed::from_bits_retain(bits))
    }

    /// INIT: ends what was before, and begins anew.
    pub(crate) fn init(&self, args: &mut Args<'_>) -> Result<[u8; wire::INIT_OUT_SIZE]> {
        let _life = self.life.lock();
        self.end_locked(SessionState::Waiting);
        let reject = |rejected, errno| {
            log::warn!("{}: INIT refused: {rejected}", self.features.kind);
            *self.state.lock() = SessionState::Rejected(rejected);
            Err(errno)
        };
        let Ok(offer) = Offer::read(args) else {
            return reject(Rejected::Malformed, Errno::EINVAL);
        };
        if !offer.is_spoken() {
            let version = Rejected::Version { major: offer.major, minor: offer.minor };
            let refused = reject(version, Errno::EPROTO);
            return if offer.major > wire::MAJOR { Ok(init::other_major()) } else { refused };
        }
        let mut config = self.config;
        if !self.backings.is_possible() {
            config.without |= Behaviours::PASSTHROUGH;
        }
        let outcome = match init::negotiate(&self.features, &config, &offer) {
            Ok(outcome) => outcome,
            Err(errno) => return reject(Rejected::Limits, errno),
        };
        if let Err(errno) = self.fs.init(&outcome.negotiated) {
            return reject(Rejected::FileSystem(errno), errno);
        }
        let notifier = self.notifier.lock().take();
        if let Some(notifier) = notifier {
            self.fs.attach(notifier);
        }
        log::debug!(
            "{}: FUSE 7.{}, {:?}",
            self.features.kind,
            outcome.negotiated.minor,
            InitFlags::iter_names(&outcome.flags).map(|(name, _)| name).collect::<Vec<_>>()
        );
        self.ledger.open();
        if outcome.agreed.contains(Agreed::PASSTHROUGH) {
            self.backings.start();
        }
        self.max_write.store(outcome.negotiated.max_write, Ordering::Relaxed);
        self.stateless_files.store(outcome.agreed.contains(Agreed::NO_OPEN), Ordering::Relaxed);
        self.stateless_dirs.store(outcome.agreed.contains(Agreed::NO_OPENDIR), Ordering::Relaxed);
        *self.state.lock() = SessionState::Serving(outcome.negotiated);
        self.agreed.store(LIVE | u64::from(outcome.agreed.bits()), Ordering::Release);
        Ok(outcome.to_bytes())
    }

    /// Ends what is served, if it is: waits are called off, lookups forgotten, handles released, and
    /// the filesystem is told.
    pub(crate) fn end(&self, next: SessionState) {
        let _life = self.life.lock();
        self.end_locked(next);
    }

    fn end_locked(&self, next: SessionState) {
        *self.state.lock() = next;
        if self.agreed.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        self.waits.end_all();
        let remains = self.ledger.close();
        let cx = self.own_context();
        for (handle, node, kind, count) in remains.handles {
            for _ in 0..count {
                self.release(&cx, node, handle, kind);
            }
        }
        self.backings.end();
        self.fs.batch_forget(&remains.nodes);
        self.fs.destroy(&cx);
    }

    /// Takes back what a reply carried that did not arrive.
    pub(crate) fn undo(&self, undo: Undo, granted: &[NodeId]) {
        match undo {
            Undo::Nothing => {}
            Undo::Lookup(node) => self.forget(node, 1),
            Undo::Handle(node, handle, kind) => self.give_back(node, handle, kind),
            Undo::Created(node, handle) => {
                self.give_back(node, handle, HandleKind::File);
                self.forget(node, 1);
            }
            Undo::Listing => {
                for node in granted {
                    self.forget(*node, 1);
                }
            }
        }
    }

    /// Forgets as many of `count` lookups as the session was given.
    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        let count = self.ledger.lower(node, count);
        if count > 0 {
            self.fs.forget(node, count);
        }
    }

    /// The context of what the session does by itself, in its client's stead.
    fn own_context(&self) -> Context<'static> {
        Context::new(0, None).with_session(Some(self.id))
    }

    fn give_back(&self, node: NodeId, handle: HandleId, kind: HandleKind) {
        if handle != HandleId::NONE && !self.ledger.drop_handle(handle, node, kind) {
            return;
        }
        if kind == HandleKind::File {
            self.backings.leave(node);
        }
        if handle != HandleId::NONE {
            self.release(&self.own_context(), node, handle, kind);
        }
    }

    /// Releases a handle that is in the ledger no more.
    pub(crate) fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        kind: HandleKind,
    ) {
        // It is gone whatever the answer, and nobody is left to hear it; the filesystem logs what
        // surprises it.
        let _ = match kind {
            HandleKind::File => self.fs.release(cx, node, handle, Release::default()),
            HandleKind::Dir => self.fs.releasedir(cx, node, handle),
        };
    }

    /// What a filesystem answered, with an ENOSYS made harmless.
    pub(crate) fn harmless(&self, errno: Errno) -> Errno {
        if errno != Errno::ENOSYS {
            return errno;
        }
        if !self.surprises.enosys.swap(true, Ordering::Relaxed) {
            log::error!("{}: the filesystem answered ENOSYS; EOPNOTSUPP instead", self.kind());
        }
        Errno::EOPNOTSUPP
    }

    /// Says once that the filesystem broke its contract, and gives the error for the client.
    pub(crate) fn surprise(&self, what: fmt::Arguments<'_>) -> Errno {
        if !self.surprises.answer.swap(true, Ordering::Relaxed) {
            log::error!("{}: {what}", self.kind());
        }
        Errno::EIO
    }

    /// Logs a malformed request: the first, the second, the fourth and so on, so that a client
    /// cannot fill a disk with them.
    pub(crate) fn malformed(&self, what: fmt::Arguments<'_>) {
        let count = self.surprises.malformed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count.is_power_of_two() {
            log::warn!("{}: malformed request number {count}: {what}", self.kind());
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.features.kind
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end(SessionState::Ended);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("fs", &self.features.kind)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
