//! Which nodes the client's kernel reads and writes by itself (FUSE_PASSTHROUGH).
//!
//! The kernel knows one I/O mode per node: cached, or passed through to one registered file. While
//! any handle of a node is open, an open in another mode, or with another file, fails with EIO (seen
//! on 6.18). So the mode belongs to the node, from its first open to its last release, and is
//! decided by the first open alone; what later ones offer is not looked at, but for whether they
//! offer anything:
//!
//! | first open | later open | answered |
//! |---|---|---|
//! | without a file, or with one that is small | any | cached |
//! | with a file | with one | passed through, by the first one's id |
//! | with a file | without | the first one's id and DIRECT_IO: its I/O comes here, its maps do not |
//!
//! What was opened last may be released at the kernel before the RELEASE is read here. Then a node
//! keeps its mode for one open more than it had to, which is right as well: the id is still good.
//!
//! # Races
//!
//! An open is counted before its handle can be named, and a release after it cannot be any more, so
//! the count never falls below what the kernel holds. No lock is held while a file is registered: of
//! two first opens at a time both may register theirs, and the one that comes second takes its own
//! back.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use stratafs_core::{BackingFile, Errno, NodeId, Opened, OpenedFlags};

use super::io::{BackingId, BackingRegistry};
use super::ledger::Mix;

/// Number of shards: above the number of workers, so that two of them seldom meet.
const SHARDS: usize = 16;

/// The size in bytes from which a file that the client keeps in its page cache from open to open
/// (KEEP_CACHE) is passed through for reading.
///
/// Passing through costs two system calls and the opening of a file at each first open. Where the
/// cache is dropped by each open it pays at every size, for it saves the READ, and a write saves its
/// WRITE. But a small file that is kept is read from the cache by no request at all. Measured (6.18;
/// open, read, close; CPU time of client and server in microseconds): kept 23, 30 and 92 at 4, 64
/// and 256 KiB, passed through 24, 33 and 74; not kept 35 at 4 KiB and 90 at 64. So 64 KiB is where the
/// two are level, less gives away what the cache has, and more what a first read gains.
const KEPT_MIN: u64 = 64 << 10;

/// The file that `opened` offers; none where its I/O is to come here.
fn offered(opened: &Opened) -> Option<&BackingFile> {
    opened.backing.as_ref().filter(|_| !opened.flags.contains(OpenedFlags::DIRECT_IO))
}

/// Whether what is opened is better read from the client's page cache.
fn is_small(opened: &Opened, backing: &BackingFile) -> bool {
    opened.flags.contains(OpenedFlags::KEEP_CACHE)
        && backing.size().is_some_and(|size| size < KEPT_MIN)
}

/// How the kernel is to treat one handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoMode {
    /// Through its page cache and the filesystem.
    Cached,
    /// By the file of this id.
    Passthrough(BackingId),
    /// Past its page cache, on a node that others have passed through.
    Direct(BackingId),
}

/// A node that is open.
#[derive(Debug)]
struct Open {
    handles: u64,
    id: Option<BackingId>,
}

#[derive(Debug)]
struct Shard {
    /// Whether anything may be added: a session that is over takes nothing more.
    open: bool,
    nodes: HashMap<u64, Open, Mix>,
}

impl Shard {
    /// Counts one more open of a node that is open already.
    fn join(&mut self, node: NodeId, offers: bool) -> Option<IoMode> {
        let open = self.nodes.get_mut(&node.0)?;
        open.handles = open.handles.saturating_add(1);
        Some(match open.id {
            None => IoMode::Cached,
            Some(id) if offers => IoMode::Passthrough(id),
            Some(id) => IoMode::Direct(id),
        })
    }

    /// Counts a node's first open.
    fn begin(&mut self, node: NodeId, id: Option<BackingId>) -> IoMode {
        self.nodes.insert(node.0, Open { handles: 1, id });
        id.map_or(IoMode::Cached, IoMode::Passthrough)
    }
}

/// The modes of all open nodes; see the module.
pub(crate) struct Backings {
    shards: [Mutex<Shard>; SHARDS],
    mix: Mix,
    registry: OnceLock<Arc<dyn BackingRegistry>>,
    /// Whether passthrough was agreed on; else nothing is kept.
    active: AtomicBool,
    /// The kernel refuses every file.
    refused: AtomicBool,
    said: AtomicBool,
}

impl Backings {
    pub(crate) fn new() -> Self {
        let mix = Mix::seeded();
        let shards = std::array::from_fn(|_| {
            Mutex::new(Shard { open: false, nodes: HashMap::with_hasher(mix) })
        });
        Self {
            shards,
            mix,
            registry: OnceLock::new(),
            active: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            said: AtomicBool::new(false),
        }
    }

    /// Sets where files are registered. The first counts.
    pub(crate) fn set_registry(&self, registry: Arc<dyn BackingRegistry>) {
        let _ = self.registry.set(registry);
    }

    /// Whether there is anywhere to register files.
    pub(crate) fn is_possible(&self) -> bool {
        self.registry.get().is_some()
    }

    /// Begins to keep modes: the client agreed.
    pub(crate) fn start(&self) {
        for shard in &self.shards {
            shard.lock().open = true;
        }
        self.active.store(true, Ordering::Release);
    }

    /// Forgets everything, and takes every file back. Nothing is kept until the next start.
    pub(crate) fn end(&self) {
        if !self.active.swap(false, Ordering::AcqRel) {
            return;
        }
        for shard in &self.shards {
            let nodes = {
                let mut shard = shard.lock();
                shard.open = false;
                std::mem::replace(&mut shard.nodes, HashMap::with_hasher(self.mix))
            };
            for id in nodes.into_values().filter_map(|open| open.id) {
                self.take_back(id);
            }
        }
    }

    /// How many nodes are passed through.
    pub(crate) fn len(&self) -> usize {
        let passed = |shard: &Mutex<Shard>| {
            shard.lock().nodes.values().filter(|open| open.id.is_some()).count()
        };
        self.shards.iter().map(passed).sum()
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is below it")]
    fn shard(&self, node: NodeId) -> &Mutex<Shard> {
        let at = usize::try_from((self.mix.hash_one(node.0) >> 40) & 0xffff).unwrap_or(0) % SHARDS;
        &self.shards[at]
    }

    /// Counts one more open of `node`, which the filesystem answered with `opened`, and decides its
    /// mode. Each is to be followed by one [`Self::leave`].
    pub(crate) fn enter(&self, node: NodeId, opened: &Opened) -> IoMode {
        if !self.active.load(Ordering::Acquire) {
            return IoMode::Cached;
        }
        let offered = offered(opened);
        let worth = offered.filter(|backing| !is_small(opened, backing));
        {
            let mut shard = self.shard(node).lock();
            if let Some(mode) = shard.join(node, offered.is_some()) {
                return mode;
            }
            if worth.is_none() && shard.open {
                return shard.begin(node, None);
            }
        }
        let id = worth.and_then(|file| self.register(file));
        let (mode, unused) = {
            let mut shard = self.shard(node).lock();
            match shard.join(node, offered.is_some()) {
                Some(mode) => (mode, id),
                None if shard.open => (shard.begin(node, id), None),
                // The session ended meanwhile.
                None => (IoMode::Cached, id),
            }
        };
        if let Some(id) = unused {
            self.take_back(id);
        }
        mode
    }

    /// Counts one open of `node` less.
    pub(crate) fn leave(&self, node: NodeId) {
        if !self.active.load(Ordering::Acquire) {
            return;
        }
        let id = {
            let mut shard = self.shard(node).lock();
            let Some(open) = shard.nodes.get_mut(&node.0) else { return };
            open.handles = open.handles.saturating_sub(1);
            if open.handles > 0 {
                return;
            }
            shard.nodes.remove(&node.0).and_then(|open| open.id)
        };
        if let Some(id) = id {
            self.take_back(id);
        }
    }

    fn register(&self, file: &BackingFile) -> Option<BackingId> {
        let registry = self.registry.get()?;
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        match registry.register(file.as_fd()) {
            Ok(id) => Some(id),
            Err(errno) => {
                self.say(errno);
                None
            }
        }
    }

    /// Says once why data goes through this process after all.
    fn say(&self, errno: Errno) {
        let why = match errno {
            Errno::EPERM => {
                // Of the process, not of the file: it would be asked for nothing each time.
                self.refused.store(true, Ordering::Relaxed);
                "this process may not register files (CAP_SYS_ADMIN in the first user namespace)"
            }
            Errno::ELOOP => "the files' filesystem is on another one: max_stack_depth=2 allows it",
            _ => "the kernel does not take the file",
        };
        if !self.said.swap(true, Ordering::Relaxed) {
            log::info!("data goes through the server, not past it: {why}: {errno}");
        }
    }

    fn take_back(&self, id: BackingId) {
        if let Some(registry) = self.registry.get() {
            registry.unregister(id);
        }
    }
}

impl fmt::Debug for Backings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backings").field("nodes", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::AtomicI32;
    use std::thread;

    use stratafs_core::{HandleId, Result};

    use super::*;

    const NODE: NodeId = NodeId(7);

    /// Gives out ids, and knows which are out.
    #[derive(Default)]
    struct Registry {
        out: Mutex<BTreeSet<i32>>,
        last: AtomicI32,
        asked: AtomicI32,
        refuses: Mutex<Option<Errno>>,
    }

    impl BackingRegistry for Registry {
        fn register(&self, _: BorrowedFd<'_>) -> Result<BackingId> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(errno) = *self.refuses.lock() {
                return Err(errno);
            }
            let id = self.last.fetch_add(1, Ordering::SeqCst) + 1;
            // Long enough for others to come between.
            thread::yield_now();
            assert!(self.out.lock().insert(id));
            Ok(BackingId(id))
        }

        fn unregister(&self, id: BackingId) {
            assert!(self.out.lock().remove(&id.0), "{id:?} is not out");
        }
    }

    fn started() -> (Backings, Arc<Registry>) {
        let (backings, registry) = (Backings::new(), Arc::new(Registry::default()));
        backings.set_registry(Arc::clone(&registry) as _);
        backings.start();
        (backings, registry)
    }

    fn without() -> Opened {
        Opened::new(HandleId(1), OpenedFlags::KEEP_CACHE)
    }

    fn with() -> Opened {
        let file = std::fs::File::open("/dev/null").unwrap();
        without().with_backing(Some(BackingFile::new(Arc::new(file.into()))))
    }

    /// An offer of a file of `size`, to a client that treats it as `flags` say.
    fn of_size(size: Option<u64>, flags: OpenedFlags) -> Opened {
        let mut opened = with();
        opened.flags = flags;
        opened.backing = opened.backing.map(|backing| backing.with_size(size));
        opened
    }

    #[test]
    fn small_file_that_is_kept_begins_cached_and_joins_what_is_passed_through() {
        let (kept, dropped) = (OpenedFlags::KEEP_CACHE, OpenedFlags::empty());
        let small = of_size(Some(KEPT_MIN - 1), kept);
        for (opened, passes) in [
            (&small, false),
            (&of_size(Some(KEPT_MIN), kept), true),
            (&of_size(None, kept), true),
            (&of_size(Some(0), dropped), true),
        ] {
            let (backings, _) = started();
            let mode = backings.enter(NODE, opened);
            assert_eq!(mode != IoMode::Cached, passes, "{opened:?}");
        }
        let (backings, _) = started();
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(1)));
        assert_eq!(backings.enter(NODE, &small), IoMode::Passthrough(BackingId(1)));
    }

    #[test]
    fn file_for_direct_io_is_not_passed_through() {
        let direct = of_size(None, OpenedFlags::DIRECT_IO);
        let (backings, _) = started();
        assert_eq!(backings.enter(NODE, &direct), IoMode::Cached);
        backings.leave(NODE);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(1)));
        assert_eq!(backings.enter(NODE, &direct), IoMode::Direct(BackingId(1)));
    }

    #[test]
    fn mode_of_a_node_is_its_first_opens_until_its_last_release() {
        let (backings, registry) = started();
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(1)));
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(1)));
        assert_eq!(backings.enter(NODE, &without()), IoMode::Direct(BackingId(1)));
        assert_eq!(registry.asked.load(Ordering::SeqCst), 1, "one id per node");
        for left in [1, 1, 0] {
            backings.leave(NODE);
            assert_eq!((registry.out.lock().len(), backings.len()), (left, left));
        }
        assert_eq!(backings.enter(NODE, &without()), IoMode::Cached);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Cached);
        backings.leave(NODE);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Cached);
        backings.leave(NODE);
        backings.leave(NODE);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(2)));
        assert_eq!(backings.enter(NodeId(8), &with()), IoMode::Passthrough(BackingId(3)));
        assert_eq!(backings.len(), 2);
    }

    #[test]
    fn leave_of_what_is_not_open_takes_nothing() {
        let (backings, registry) = started();
        backings.leave(NODE);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(1)));
        backings.leave(NodeId(8));
        assert_eq!(registry.out.lock().len(), 1);
    }

    #[test]
    fn end_takes_every_file_back_and_keeps_nothing_more() {
        let (backings, registry) = started();
        for node in 1..200 {
            backings.enter(NodeId(node), &with());
        }
        assert_eq!(registry.out.lock().len(), 199);
        backings.end();
        assert_eq!((registry.out.lock().len(), backings.len()), (0, 0));
        backings.leave(NodeId(5));
        assert_eq!(backings.enter(NODE, &with()), IoMode::Cached);
        assert_eq!(registry.out.lock().len(), 0);
        backings.start();
        assert_eq!(backings.enter(NODE, &with()), IoMode::Passthrough(BackingId(200)));
    }

    #[test]
    fn enter_where_the_process_may_not_asks_once_and_is_cached() {
        let (backings, registry) = started();
        *registry.refuses.lock() = Some(Errno::EPERM);
        for node in 1..5 {
            assert_eq!(backings.enter(NodeId(node), &with()), IoMode::Cached);
        }
        assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn enter_where_one_file_is_refused_leaves_others_their_mode() {
        let (backings, registry) = started();
        *registry.refuses.lock() = Some(Errno::ELOOP);
        assert_eq!(backings.enter(NODE, &with()), IoMode::Cached);
        *registry.refuses.lock() = None;
        assert_eq!(backings.enter(NODE, &with()), IoMode::Cached, "it is open so");
        assert_eq!(backings.enter(NodeId(8), &with()), IoMode::Passthrough(BackingId(1)));
    }

    #[test]
    fn enter_of_one_node_by_many_threads_agrees_and_leaves_nothing_behind() {
        let (backings, registry) = started();
        let offers = [with(), without()];
        // Each round all have it open at a time; what each was told is all one mode.
        for round in 0..200 {
            let modes: Vec<IoMode> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|index| {
                        let opened = &offers[usize::from((index + round) % 3 == 0)];
                        let backings = &backings;
                        scope.spawn(move || backings.enter(NODE, opened))
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let ids: BTreeSet<Option<i32>> = modes
                .iter()
                .map(|mode| match mode {
                    IoMode::Cached => None,
                    IoMode::Passthrough(id) | IoMode::Direct(id) => Some(id.0),
                })
                .collect();
            assert_eq!(ids.len(), 1, "{modes:?}");
            assert_eq!(registry.out.lock().len(), backings.len());
            for _ in 0..4 {
                backings.leave(NODE);
            }
            assert_eq!((registry.out.lock().len(), backings.len()), (0, 0));
        }
    }

    #[test]
    fn enter_and_leave_against_an_end_leave_nothing_behind() {
        for _ in 0..100 {
            let (backings, registry) = started();
            let opened = with();
            thread::scope(|scope| {
                for node in 0..3 {
                    let (backings, opened) = (&backings, &opened);
                    scope.spawn(move || {
                        for _ in 0..50 {
                            backings.enter(NodeId(node), opened);
                        }
                    });
                }
                scope.spawn(|| backings.end());
            });
            assert_eq!((registry.out.lock().len(), backings.len()), (0, 0));
        }
    }
}
