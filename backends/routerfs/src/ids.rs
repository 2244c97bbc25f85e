//! Node ids, handles and inode numbers of several filesystems as those of one.
//!
//! A number carries the index of its member in its topmost bits, as long as it leaves these free.
//! One that does not is entered in a table and goes by a number of the table's own.

use std::collections::HashMap;

use parking_lot::Mutex;
use stratafs_core::{Errno, HandleId, NodeId, Result};

/// Bits of an index.
const INDEX_BITS: u32 = 8;
/// How many indices there are.
pub(crate) const INDICES: usize = 1 << INDEX_BITS;
/// The index of what is mounted at the root.
pub(crate) const ROOT: usize = 0;
/// The index of directories that no filesystem has.
pub(crate) const MADE_UP: usize = 1;
/// The index of numbers that a table gives out.
const TABLE: usize = 2;
/// The first index of the other mounts.
pub(crate) const FIRST: usize = 3;

/// Bits that are left to the numbers of members at least: what most filesystems here use.
const LEAST: u32 = 48;

/// Where the index of a number stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    shift: u32,
}

impl Packing {
    /// For members with ids of so many bits each, as far as there is room.
    pub(crate) fn new(bits: impl Iterator<Item = u8>) -> Self {
        let most = u64::BITS - INDEX_BITS;
        let shift = bits.map(u32::from).filter(|bits| *bits <= most).max().unwrap_or(0).max(LEAST);
        Self { shift }
    }

    /// How many bits the packed numbers use.
    pub(crate) fn bits(self) -> u8 {
        u8::try_from(self.shift + INDEX_BITS).unwrap_or(64)
    }

    #[inline]
    fn pack(self, index: usize, number: u64) -> Option<u64> {
        (number >> self.shift == 0).then_some(number | ((index as u64) << self.shift))
    }

    #[inline]
    fn unpack(self, packed: u64) -> (usize, u64) {
        let index = usize::try_from(packed >> self.shift).unwrap_or(usize::MAX);
        (index, packed & ((1 << self.shift) - 1))
    }
}

/// A node that goes by a number of the table.
struct Held {
    index: usize,
    node: NodeId,
    lookups: u64,
    opens: u64,
}

#[derive(Default)]
struct Nodes {
    ids: HashMap<u64, Held>,
    numbers: HashMap<(usize, NodeId), u64>,
    next: u64,
}

#[derive(Default)]
struct Handles {
    open: HashMap<u64, HandleId>,
    next: u64,
}

#[derive(Default)]
struct Inos {
    numbers: HashMap<(usize, u64), u64>,
    next: u64,
}

/// The ids of all members, as those of one filesystem.
pub(crate) struct Ids {
    packing: Packing,
    nodes: Mutex<Nodes>,
    handles: Mutex<Handles>,
    inos: Mutex<Inos>,
}

impl Ids {
    pub(crate) fn new(packing: Packing) -> Self {
        Self { packing, nodes: Mutex::default(), handles: Mutex::default(), inos: Mutex::default() }
    }

    /// The id of a node that was looked up once more.
    pub(crate) fn looked_up(&self, index: usize, node: NodeId) -> NodeId {
        if let Some(packed) = self.packing.pack(index, node.0) {
            return NodeId(packed);
        }
        let mut nodes = self.nodes.lock();
        let Nodes { ids, numbers, next } = &mut *nodes;
        let number = *numbers.entry((index, node)).or_insert_with(|| {
            *next += 1;
            *next
        });
        let held = ids.entry(number).or_insert(Held { index, node, lookups: 0, opens: 0 });
        held.lookups = held.lookups.saturating_add(1);
        NodeId(self.in_table(number))
    }

    /// The id of a node, if clients know it by one.
    pub(crate) fn known(&self, index: usize, node: NodeId) -> Option<NodeId> {
        if let Some(packed) = self.packing.pack(index, node.0) {
            return Some(NodeId(packed));
        }
        let number = self.nodes.lock().numbers.get(&(index, node)).copied()?;
        Some(NodeId(self.in_table(number)))
    }

    /// The index and the member's own id of a node.
    ///
    /// # Errors
    /// `ESTALE`: a number that the table did not give, or has no more.
    #[inline]
    pub(crate) fn node(&self, id: NodeId) -> Result<(usize, NodeId)> {
        match self.packing.unpack(id.0) {
            (TABLE, number) => {
                let nodes = self.nodes.lock();
                nodes.ids.get(&number).map(|held| (held.index, held.node)).ok_or(Errno::ESTALE)
            }
            (index, node) => Ok((index, NodeId(node))),
        }
    }

    /// So many lookups of a node were given back.
    pub(crate) fn forgotten(&self, id: NodeId, count: u64) {
        self.change(id, |held| held.lookups = held.lookups.saturating_sub(count));
    }

    /// A handle was opened on a node, which stays known by its id as long as that is open.
    pub(crate) fn node_opened(&self, id: NodeId) {
        self.change(id, |held| held.opens = held.opens.saturating_add(1));
    }

    /// A handle on a node was closed.
    pub(crate) fn node_closed(&self, id: NodeId) {
        self.change(id, |held| held.opens = held.opens.saturating_sub(1));
    }

    /// Changes what is held of a node of the table, which goes with the last of it.
    fn change(&self, id: NodeId, change: impl FnOnce(&mut Held)) {
        let (TABLE, number) = self.packing.unpack(id.0) else { return };
        let mut nodes = self.nodes.lock();
        let Some(held) = nodes.ids.get_mut(&number) else { return };
        change(held);
        if held.lookups == 0
            && held.opens == 0
            && let Some(held) = nodes.ids.remove(&number)
        {
            nodes.numbers.remove(&(held.index, held.node));
        }
    }

    /// The handle that a client gets for one of a member.
    pub(crate) fn opened(&self, index: usize, handle: HandleId) -> HandleId {
        if handle == HandleId::NONE {
            return handle;
        }
        if let Some(packed) = self.packing.pack(index, handle.0) {
            return HandleId(packed);
        }
        let mut handles = self.handles.lock();
        handles.next += 1;
        let number = handles.next;
        handles.open.insert(number, handle);
        HandleId(self.in_table(number))
    }

    /// The member's own handle.
    ///
    /// # Errors
    /// `EBADF`: it is none of the member of this index.
    #[inline]
    pub(crate) fn handle(&self, index: usize, handle: HandleId) -> Result<HandleId> {
        self.with_handle(index, handle, |handles, number| handles.open.get(&number).copied())
    }

    /// As [`handle`](Self::handle), of a handle that ends.
    ///
    /// # Errors
    /// `EBADF`: as there.
    pub(crate) fn closed(&self, index: usize, handle: HandleId) -> Result<HandleId> {
        self.with_handle(index, handle, |handles, number| handles.open.remove(&number))
    }

    #[inline]
    fn with_handle(
        &self,
        index: usize,
        handle: HandleId,
        find: impl FnOnce(&mut Handles, u64) -> Option<HandleId>,
    ) -> Result<HandleId> {
        if handle == HandleId::NONE {
            return Ok(handle);
        }
        match self.packing.unpack(handle.0) {
            (TABLE, number) => find(&mut self.handles.lock(), number).ok_or(Errno::EBADF),
            (of, handle) if of == index => Ok(HandleId(handle)),
            _ => Err(Errno::EBADF),
        }
    }

    /// The inode number of an object of a member, as clients see it.
    #[inline]
    pub(crate) fn ino(&self, index: usize, ino: u64) -> u64 {
        if let Some(packed) = self.packing.pack(index, ino) {
            return packed;
        }
        let mut inos = self.inos.lock();
        let Inos { numbers, next } = &mut *inos;
        let number = *numbers.entry((index, ino)).or_insert_with(|| {
            *next += 1;
            *next
        });
        self.in_table(number)
    }

    /// A number of a table. It counts what was entered, which no shift is too small for.
    fn in_table(&self, number: u64) -> u64 {
        number | ((TABLE as u64) << self.packing.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        Ids::new(Packing::new([48].into_iter()))
    }

    #[test]
    fn ids_of_members_with_room_need_no_table() {
        let ids = ids();
        for index in [ROOT, FIRST, INDICES - 1] {
            for node in [1, 2, (1 << 48) - 1] {
                let id = ids.looked_up(index, NodeId(node));
                assert_eq!(ids.node(id), Ok((index, NodeId(node))));
                let handle = ids.opened(index, HandleId(node));
                assert_eq!(ids.handle(index, handle), Ok(HandleId(node)));
                assert_eq!(ids.handle(7, handle), Err(Errno::EBADF));
            }
        }
        assert_eq!(ids.looked_up(ROOT, NodeId::ROOT), NodeId::ROOT, "the root is the root");
        assert!(ids.nodes.lock().ids.is_empty() && ids.handles.lock().open.is_empty());
    }

    #[test]
    fn ids_without_room_go_through_a_table_until_they_are_forgotten() {
        let ids = ids();
        let large = NodeId(u64::MAX);
        let id = ids.looked_up(FIRST, large);
        assert_eq!(ids.looked_up(FIRST, large), id, "one node, one id");
        assert_ne!(ids.looked_up(FIRST + 1, large), id);
        assert_eq!(ids.known(FIRST, large), Some(id));
        ids.forgotten(id, 1);
        assert_eq!(ids.node(id), Ok((FIRST, large)));
        ids.node_opened(id);
        ids.forgotten(id, 1);
        assert_eq!(ids.node(id), Ok((FIRST, large)), "it is open");
        ids.node_closed(id);
        assert_eq!(ids.node(id), Err(Errno::ESTALE));
        assert_eq!(ids.known(FIRST, large), None);
        let handle = ids.opened(FIRST, HandleId(u64::MAX));
        assert_eq!(ids.closed(FIRST, handle), Ok(HandleId(u64::MAX)));
        assert_eq!(ids.handle(FIRST, handle), Err(Errno::EBADF));
    }

    #[test]
    fn ino_of_several_members_gives_no_number_twice_and_stays() {
        let ids = ids();
        let mut seen = std::collections::HashSet::new();
        for index in [ROOT, FIRST, FIRST + 1] {
            for ino in [1, 2, (1 << 48) - 1, 1 << 48, u64::MAX] {
                let number = ids.ino(index, ino);
                assert!(seen.insert(number), "{index} {ino}");
                assert_eq!(ids.ino(index, ino), number, "stays");
            }
        }
    }

    #[test]
    fn packing_leaves_room_for_a_router_in_a_router() {
        let inner = Packing::new([48, 40].into_iter());
        assert_eq!(inner.bits(), 56);
        assert_eq!(Packing::new([inner.bits()].into_iter()).bits(), 64);
        assert_eq!(Packing::new([64].into_iter()).bits(), 56, "it gets a table");
    }
}
