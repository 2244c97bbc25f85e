//! What one session was given: its node ids with their counts, and its handles.
//!
//! An id is a capability. One that is not in the ledger is refused before any filesystem sees it, so
//! two sessions on one filesystem cannot reach each other's objects, nor leave what they were shown.
//!
//! # Races
//!
//! A count is raised before the reply that carries it is sent, and lowered before the filesystem is
//! told to forget: at no moment does the ledger hold more than the filesystem does. A client that
//! forgets what it was not yet told of only robs itself: [`Ledger::lower`] never gives out more than
//! there is, so what is undone and what is forgotten add up to what was raised.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use parking_lot::Mutex;
use stratafs_core::{HandleId, NodeId};

/// Number of shards, a power of two: well above the number of workers, so that two of them seldom
/// meet.
const SHARDS: usize = 32;

/// What a handle was opened by. A filesystem may number the two kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    /// OPEN, CREATE or TMPFILE.
    File,
    /// OPENDIR.
    Dir,
}

/// Entries below which a table keeps its memory.
const SMALL: usize = 4096;

/// Lets a table that was large once shrink as it empties: what a client forgot must not cost memory.
/// Each shrinking is paid for by the removals since the last.
fn give_memory_back(nodes: &mut HashMap<u64, u64, Mix>) {
    let capacity = nodes.capacity();
    if capacity > SMALL && nodes.len() < capacity >> 3 {
        nodes.shrink_to(capacity >> 2);
    }
}

/// Why a handle was not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// The session is over: the handle is the caller's to release.
    Over,
    /// The filesystem gave out an id that is open on another object, whose it is.
    Taken,
}

/// A handle that the session was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    node: NodeId,
    /// How often it was given: a filesystem may answer two opens of a node with one handle.
    count: u64,
}

#[derive(Debug)]
struct Shard {
    /// Whether anything may be added: a session that is over takes nothing more.
    open: bool,
    nodes: HashMap<u64, u64, Mix>,
    files: HashMap<u64, Held, Mix>,
    dirs: HashMap<u64, Held, Mix>,
}

impl Shard {
    fn handles(&mut self, kind: HandleKind) -> &mut HashMap<u64, Held, Mix> {
        match kind {
            HandleKind::File => &mut self.files,
            HandleKind::Dir => &mut self.dirs,
        }
    }
}

/// The ledger; see the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    shards: [Mutex<Shard>; SHARDS],
    mix: Mix,
}

/// What a ledger held when it was emptied.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Nodes and the counts to forget.
    pub(crate) nodes: Vec<(NodeId, u64)>,
    /// Handles to release, once for each time they were given.
    pub(crate) handles: Vec<(HandleId, NodeId, HandleKind, u64)>,
}

impl Ledger {
    /// An empty ledger that takes nothing until [`Ledger::open`].
    pub(crate) fn new() -> Self {
        let mix = Mix::seeded();
        let shards = std::array::from_fn(|_| {
            Mutex::new(Shard {
                open: false,
                nodes: HashMap::with_hasher(mix),
                files: HashMap::with_hasher(mix),
                dirs: HashMap::with_hasher(mix),
            })
        });
        Self { shards, mix }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is below it")]
    fn shard(&self, id: u64) -> &Mutex<Shard> {
        // The low bits place an id within its shard's table, so the shard comes of the middle ones.
        let at = usize::try_from((self.mix.hash_one(id) >> 40) & 0xffff).unwrap_or(0) % SHARDS;
        &self.shards[at]
    }

    /// Begins to take what is given.
    pub(crate) fn open(&self) {
        for shard in &self.shards {
            shard.lock().open = true;
        }
    }

    /// Empties the ledger, which takes nothing more until it is opened again.
    pub(crate) fn close(&self) -> Remains {
        let mut remains = Remains::default();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.open = false;
            remains.nodes.extend(shard.nodes.drain().map(|(node, count)| (NodeId(node), count)));
            for kind in [HandleKind::File, HandleKind::Dir] {
                let held = shard.handles(kind).drain();
                remains.handles.extend(
                    held.map(|(handle, held)| (HandleId(handle), held.node, kind, held.count)),
                );
            }
            shard.nodes.shrink_to_fit();
        }
        remains
    }

    /// Notes one lookup of `node`. False where the session is over: then it is the caller's.
    #[must_use]
    pub(crate) fn raise(&self, node: NodeId) -> bool {
        let mut shard = self.shard(node.0).lock();
        if shard.open && node != NodeId::ROOT {
            let count = shard.nodes.entry(node.0).or_insert(0);
            *count = count.saturating_add(1);
        }
        shard.open
    }

    /// Takes up to `count` lookups of `node` out, and says how many: so many the filesystem is to
    /// forget.
    pub(crate) fn lower(&self, node: NodeId, count: u64) -> u64 {
        let mut shard = self.shard(node.0).lock();
        let Some(held) = shard.nodes.get_mut(&node.0) else { return 0 };
        let taken = count.min(*held);
        *held = held.saturating_sub(taken);
        if *held == 0 {
            shard.nodes.remove(&node.0);
            give_memory_back(&mut shard.nodes);
        }
        taken
    }

    /// Whether the session was given `node`. The root is always known.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        node == NodeId::ROOT || self.shard(node.0).lock().nodes.contains_key(&node.0)
    }

    /// Notes a handle.
    ///
    /// # Errors
    /// [`NotHeld`], with whose the handle is then.
    pub(crate) fn hold(
        &self,
        handle: HandleId,
        node: NodeId,
        kind: HandleKind,
    ) -> Result<(), NotHeld> {
        let mut shard = self.shard(handle.0).lock();
        if !shard.open {
            return Err(NotHeld::Over);
        }
        let held = shard.handles(kind).entry(handle.0).or_insert(Held { node, count: 0 });
        if held.node != node {
            return Err(NotHeld::Taken);
        }
        held.count = held.count.saturating_add(1);
        Ok(())
    }

    /// Takes one holding of `handle` out, if it is of `node` and `kind`: then it is the caller's to
    /// release.
    pub(crate) fn drop_handle(&self, handle: HandleId, node: NodeId, kind: HandleKind) -> bool {
        let mut shard = self.shard(handle.0).lock();
        let handles = shard.handles(kind);
        let Some(held) = handles.get_mut(&handle.0) else { return false };
        if held.node != node {
            return false;
        }
        held.count = held.count.saturating_sub(1);
        if held.count == 0 {
            handles.remove(&handle.0);
        }
        true
    }

    /// Whether the session holds `handle` open on `node`, as this kind or as either.
    pub(crate) fn holds(&self, handle: HandleId, node: NodeId, kind: Option<HandleKind>) -> bool {
        let shard = self.shard(handle.0).lock();
        let holds = |handles: &HashMap<u64, Held, Mix>| {
            handles.get(&handle.0).is_some_and(|held| held.node == node)
        };
        match kind {
            Some(HandleKind::File) => holds(&shard.files),
            Some(HandleKind::Dir) => holds(&shard.dirs),
            None => holds(&shard.files) || holds(&shard.dirs),
        }
    }

    /// How many nodes and handles are held.
    pub(crate) fn len(&self) -> (usize, usize) {
        self.shards.iter().map(|shard| shard.lock()).fold((0, 0), |(nodes, handles), shard| {
            let open = shard.files.len().saturating_add(shard.dirs.len());
            (nodes.saturating_add(shard.nodes.len()), handles.saturating_add(open))
        })
    }
}

/// A hash of one `u64`: seeded, and mixed by two multiplications.
///
/// Ids come from a filesystem, which a client influences at most through what it creates; the seed
/// keeps even that from choosing collisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    seed: u64,
    hash: u64,
}

impl Mix {
    pub(super) fn seeded() -> Self {
        Self { seed: RandomState::new().hash_one(0_u64), hash: 0 }
    }
}

impl BuildHasher for Mix {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The last steps of MurmurHash3: each bit of the sum reaches every bit of the result.
        let mut mixed = value.wrapping_add(self.seed) ^ self.hash;
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.hash = mixed ^ (mixed >> 33);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Ledger {
        let ledger = Ledger::new();
        ledger.open();
        ledger
    }

    #[test]
    fn lower_gives_out_no_more_than_was_raised() {
        let ledger = opened();
        assert!(ledger.raise(NodeId(7)) && ledger.raise(NodeId(7)));
        assert!(ledger.knows(NodeId(7)) && !ledger.knows(NodeId(8)));
        assert_eq!(ledger.lower(NodeId(7), 1), 1);
        assert_eq!(ledger.lower(NodeId(7), u64::MAX), 1);
        assert_eq!(ledger.lower(NodeId(7), 1), 0);
        assert!(!ledger.knows(NodeId(7)));
        assert_eq!(ledger.len(), (0, 0));
    }

    #[test]
    fn root_is_known_and_never_counted() {
        let ledger = opened();
        assert!(ledger.raise(NodeId::ROOT));
        assert_eq!(ledger.lower(NodeId::ROOT, 5), 0);
        assert!(ledger.knows(NodeId::ROOT));
    }

    #[test]
    fn handle_is_held_on_its_node_and_as_its_kind_only() {
        let ledger = opened();
        let (handle, node) = (HandleId(3), NodeId(9));
        assert_eq!(ledger.hold(handle, node, HandleKind::File), Ok(()));
        assert!(ledger.holds(handle, node, Some(HandleKind::File)));
        assert!(ledger.holds(handle, node, None));
        assert!(!ledger.holds(handle, node, Some(HandleKind::Dir)));
        assert!(!ledger.holds(handle, NodeId(8), None));
        assert_eq!(ledger.hold(handle, NodeId(8), HandleKind::File), Err(NotHeld::Taken));
        assert!(!ledger.drop_handle(handle, NodeId(8), HandleKind::File));
        assert!(!ledger.drop_handle(handle, node, HandleKind::Dir));
        assert!(ledger.drop_handle(handle, node, HandleKind::File));
        assert!(!ledger.drop_handle(handle, node, HandleKind::File));
    }

    #[test]
    fn close_gives_everything_once_and_then_takes_nothing() {
        let ledger = opened();
        for node in 2..1000 {
            assert!(ledger.raise(NodeId(node)));
        }
        assert_eq!(ledger.hold(HandleId(4), NodeId(5), HandleKind::Dir), Ok(()));
        let remains = ledger.close();
        assert_eq!(remains.nodes.len(), 998);
        assert_eq!(remains.handles, [(HandleId(4), NodeId(5), HandleKind::Dir, 1)]);
        assert!(!ledger.raise(NodeId(5)));
        let held = ledger.hold(HandleId(4), NodeId(5), HandleKind::Dir);
        assert_eq!(held, Err(NotHeld::Over));
        assert_eq!(ledger.close().nodes, []);
        ledger.open();
        assert!(ledger.raise(NodeId(5)));
    }

    #[test]
    fn forgetting_a_large_tree_gives_its_memory_back() {
        let ledger = opened();
        let last = 40_000 * SHARDS as u64;
        for node in 2..last {
            assert!(ledger.raise(NodeId(node)));
        }
        for node in 2..last {
            assert_eq!(ledger.lower(NodeId(node), 1), 1);
        }
        let largest = ledger.shards.iter().map(|shard| shard.lock().nodes.capacity()).max();
        assert!(largest <= Some(2 * SMALL), "{largest:?}");
    }

    #[test]
    fn ids_in_a_row_spread_over_the_shards() {
        let ledger = opened();
        for node in 2..2 + 64 * 32 {
            assert!(ledger.raise(NodeId(node)));
        }
        let fullest = ledger.shards.iter().map(|shard| shard.lock().nodes.len()).max();
        assert!(fullest < Some(64 * 4), "{fullest:?}");
    }
}
