//! What a successor needs so that the ids of live sessions stay good.
//!
//! Nodes are captured by the names that lead to them, from the root on, and open files and
//! directories by their nodes. The successor goes the same way by itself and takes up only what is
//! the same object, by inode number and time of creation. Nothing of the host is trusted to it: no
//! descriptor and no file handle. What has no name any more can't be captured and is reported; what
//! is another object by then is lost, and ESTALE or EBADF to whoever asks.
//!
//! The form, version 1, all numbers little-endian: whether there is a second root (1 byte); the next
//! node id and handle id; the number of nodes, and for each, parents first, id, type (1 byte of a
//! mode's top bits), lookup count, inode number and time of creation on the host, the inode number
//! shown, and the number of its names (4 bytes) with the parent's id, a length (1 byte) and the bytes
//! of each; the number of handles, and for each id, node id and open flags (4 bytes). Numbers without
//! a size here have 8 bytes.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use stratafs_core::{Errno, FileType, HandleId, Name, NameBuf, NodeId, OpenFlags, Result, State};
use stratafs_sys::openat;

use crate::PassthroughFs;
use crate::dir::Resting;
use crate::file::host_flags;
use crate::handles::{Handle, Kind};
use crate::node::{Node, Place};

const KIND: &str = "passthrough";
const VERSION: u32 = 1;

/// Ids are below it, so that there are always more of them: `Features::node_id_bits`.
const MAX_ID: u64 = 1 << 48;

/// The fewest bytes of a node without its names, of a name, and of a handle.
const NODE_LEN: usize = 8 + 1 + 4 * 8 + 4;
const NAME_LEN: usize = 8 + 1 + 1;
const HANDLE_LEN: usize = 8 + 8 + 4;

#[derive(Clone, Debug, PartialEq, Eq)]
struct SavedNode {
    id: u64,
    kind: FileType,
    lookups: u64,
    ino: u64,
    birth: u64,
    shown: u64,
    places: Vec<(u64, NameBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SavedHandle {
    id: u64,
    node: u64,
    flags: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Saved {
    second_root: bool,
    next_node: u64,
    next_handle: u64,
    nodes: Vec<SavedNode>,
    handles: Vec<SavedHandle>,
}

impl Saved {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.second_root)];
        let mut put = |number: u64| bytes.extend(number.to_le_bytes());
        put(self.next_node);
        put(self.next_handle);
        put(self.nodes.len() as u64);
        for node in &self.nodes {
            bytes.extend(node.id.to_le_bytes());
            bytes.push((node.kind.mode_bits() >> 12) as u8);
            for number in [node.lookups, node.ino, node.birth, node.shown] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend((node.places.len() as u32).to_le_bytes());
            for (parent, name) in &node.places {
                bytes.extend(parent.to_le_bytes());
                bytes.push(name.as_bytes().len() as u8);
                bytes.extend(name.as_bytes());
            }
        }
        bytes.extend((self.handles.len() as u64).to_le_bytes());
        for handle in &self.handles {
            bytes.extend(handle.id.to_le_bytes());
            bytes.extend(handle.node.to_le_bytes());
            bytes.extend(handle.flags.to_le_bytes());
        }
        bytes
    }

    /// Reads and checks all of it.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bytes);
        let second_root = match from.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Errno::EINVAL),
        };
        let (next_node, next_handle) = (from.number()?, from.number()?);
        let mut nodes = Vec::with_capacity(from.count(NODE_LEN)?);
        for _ in 0..nodes.capacity() {
            nodes.push(from.node()?);
        }
        let mut handles = Vec::with_capacity(from.count(HANDLE_LEN)?);
        for _ in 0..handles.capacity() {
            handles.push(SavedHandle {
                id: from.number()?,
                node: from.number()?,
                flags: from.word()?,
            });
        }
        let saved = Self { second_root, next_node, next_handle, nodes, handles };
        if from.0.is_empty() && saved.makes_sense() { Ok(saved) } else { Err(Errno::EINVAL) }
    }

    fn makes_sense(&self) -> bool {
        if self.next_node >= MAX_ID || self.next_handle >= MAX_ID {
            return false;
        }
        let roots = if self.second_root { 2 } else { 1 };
        let mut kinds: HashMap<u64, FileType> =
            (1..=roots).map(|root| (root, FileType::Directory)).collect();
        for node in &self.nodes {
            let is_dir = node.kind == FileType::Directory;
            let led_to = |(parent, _): &(u64, NameBuf)| {
                kinds.get(parent).is_some_and(|kind| *kind == FileType::Directory)
            };
            let fine = node.id > roots
                && node.id < self.next_node
                && !node.places.is_empty()
                && (!is_dir || node.places.len() == 1)
                && node.places.iter().all(led_to);
            if !fine || kinds.insert(node.id, node.kind).is_some() {
                return false;
            }
        }
        let mut seen = HashSet::new();
        self.handles.iter().all(|handle| {
            let kind = kinds.get(&handle.node);
            matches!(kind, Some(FileType::Directory | FileType::Regular))
                && (1..self.next_handle).contains(&handle.id)
                && seen.insert(handle.id)
        })
    }
}

/// Reads from the front; short of bytes is EINVAL.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    fn word(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// How many of `least` bytes each follow: no more than there can be, before anything is
    /// allocated for them.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = usize::try_from(self.number()?).map_err(|_| Errno::EINVAL)?;
        if count <= self.0.len() / least { Ok(count) } else { Err(Errno::EINVAL) }
    }

    fn node(&mut self) -> Result<SavedNode> {
        let id = self.number()?;
        let kind = FileType::from_mode(u32::from(self.byte()?) << 12).ok_or(Errno::EINVAL)?;
        let (lookups, ino) = (self.number()?, self.number()?);
        let (birth, shown) = (self.number()?, self.number()?);
        let names = usize::try_from(self.word()?).map_err(|_| Errno::EINVAL)?;
        if names > self.0.len() / NAME_LEN {
            return Err(Errno::EINVAL);
        }
        let mut places = Vec::with_capacity(names);
        for _ in 0..names {
            let (parent, len) = (self.number()?, usize::from(self.byte()?));
            let (name, rest) = self.0.split_at_checked(len).ok_or(Errno::EINVAL)?;
            self.0 = rest;
            places.push((parent, Name::new(name).map_err(|_| Errno::EINVAL)?.to_owned()));
        }
        Ok(SavedNode { id, kind, lookups, ino, birth, shown, places })
    }
}

impl PassthroughFs {
    pub(crate) fn capture(&self) -> State {
        let mut uncaptured = Vec::new();
        let all = self.table.all();
        let is_root = |id: NodeId| id == NodeId::ROOT || self.extra_root() == Some(id);
        // Directories by how far they are from a root, and then what is in them.
        let mut order: Vec<_> = all
            .iter()
            .filter(|node| !is_root(node.id))
            .map(|node| (if node.is_dir() { self.depth(node) } else { Some(u32::MAX) }, node))
            .collect();
        order.sort_by_key(|(depth, node)| (*depth, node.id));
        let mut known: HashSet<u64> =
            all.iter().map(|n| n.id).filter(|id| is_root(*id)).map(|id| id.0).collect();
        let mut nodes = Vec::with_capacity(order.len());
        for (depth, node) in order {
            let mut places: Vec<_> = node
                .places()
                .into_iter()
                .filter(|place| known.contains(&place.parent.id.0))
                .map(|place| (place.parent.id.0, place.name))
                .collect();
            places.sort();
            if depth.is_none() || places.is_empty() {
                let lookups = node.lookups.load(Ordering::Acquire);
                uncaptured.push(format!(
                    "node {} has no name any more; it is known {lookups} times",
                    node.id.0
                ));
                continue;
            }
            known.insert(node.id.0);
            let identity = node.identity();
            nodes.push(SavedNode {
                id: node.id.0,
                kind: node.kind,
                lookups: node.lookups.load(Ordering::Acquire),
                ino: identity.ino,
                birth: identity.birth,
                shown: node.ino,
                places,
            });
        }
        let mut handles = Vec::new();
        for (id, handle) in self.handles.all() {
            if !known.contains(&handle.node.id.0) {
                let node = handle.node.id.0;
                uncaptured.push(format!("handle {id} is open on node {node}, which has no name"));
                continue;
            }
            let flags = match &handle.kind {
                Kind::File { flags } => flags.raw(),
                Kind::Dir { .. } => 0,
            };
            handles.push(SavedHandle { id, node: handle.node.id.0, flags });
        }
        handles.sort_by_key(|handle| handle.id);
        let saved = Saved {
            second_root: self.extra.is_some(),
            next_node: self.table.next_id(),
            next_handle: self.handles.next_id(),
            nodes,
            handles,
        };
        let mut state = State::new(KIND, VERSION, saved.to_bytes());
        state.uncaptured = uncaptured;
        state
    }

    /// How many names lead from a root to the directory `node`.
    fn depth(&self, node: &Arc<Node>) -> Option<u32> {
        let mut at = Arc::clone(node);
        for depth in 0..u32::from(u16::MAX) {
            if at.id == NodeId::ROOT || self.extra_root() == Some(at.id) {
                return Some(depth);
            }
            let Place { parent, .. } = at.places().pop()?;
            at = parent;
        }
        None
    }

    pub(crate) fn restore(&self, state: &State) -> Result<()> {
        if state.kind != KIND || state.version != VERSION || !state.children.is_empty() {
            return Err(Errno::EINVAL);
        }
        let saved = Saved::parse(&state.bytes)?;
        if saved.second_root != self.extra.is_some() {
            return Err(Errno::EINVAL);
        }
        let roots = if saved.second_root { 2 } else { 1 };
        if self.table.len() != roots || self.handles.open() != 0 {
            return Err(Errno::EBUSY);
        }
        self.table.go_on_from(saved.next_node);
        self.handles.go_on_from(saved.next_handle);
        let mut idle = Vec::new();
        let mut lost = 0;
        for node in &saved.nodes {
            match self.restore_node(node) {
                Some(node) => idle.push(node),
                None => lost += 1,
            }
        }
        for handle in &saved.handles {
            if let Err(errno) = self.restore_handle(*handle) {
                log::warn!("passthrough: restore handle {}: {errno}: it is lost", handle.id);
            }
        }
        if lost > 0 {
            log::warn!("passthrough: restore: {lost} objects are gone or others now: ESTALE");
        }
        // Those that led to lost ones alone.
        for node in idle.into_iter().rev() {
            self.table.reap(&node, &self.pins);
        }
        Ok(())
    }

    /// Finds the object of a saved node by its names, and makes it that node again.
    fn restore_node(&self, saved: &SavedNode) -> Option<Arc<Node>> {
        let mut found: Option<Arc<Node>> = None;
        for (parent, name) in &saved.places {
            let Some(parent) = self.table.get(NodeId(*parent)) else { continue };
            let name = name.as_name();
            let Ok(dir) = self.pin(&parent) else { continue };
            let Ok(fd) = self.with_room(|| openat::pin_child(dir.as_fd(), name)) else { continue };
            let fd = Arc::new(fd);
            let Ok((identity, kind, host)) = self.what_is(&fd) else { continue };
            if (identity.ino, identity.birth, kind) != (saved.ino, saved.birth, saved.kind) {
                continue;
            }
            let node = match &found {
                Some(node) if node.identity() == identity => Arc::clone(node),
                Some(_) => continue,
                None => {
                    let node = Node::new(NodeId(saved.id), kind, host, identity);
                    let node = Arc::new(node.showing(saved.shown).known(saved.lookups));
                    if !self.table.put_back(&node) {
                        return None;
                    }
                    Arc::clone(found.insert(node))
                }
            };
            self.place(&node, &parent, name);
            self.pins.keep(&self.table, &node, &fd);
        }
        found
    }

    fn restore_handle(&self, saved: SavedHandle) -> Result<()> {
        let node = self.table.get(NodeId(saved.node)).ok_or(Errno::ESTALE)?;
        let room = self.handles.room()?;
        let pin = self.pin(&node)?;
        let flags = OpenFlags::from_raw(saved.flags);
        let (host, kind) = if node.is_dir() {
            let stream = Mutex::new(Some(Resting::Fresh));
            (libc::O_RDONLY | libc::O_DIRECTORY, Kind::Dir { stream })
        } else {
            if flags.writable() {
                self.writable()?;
            }
            (host_flags(flags), Kind::File { flags })
        };
        let fd =
            if self.is_single(&node) { pin } else { Arc::new(self.reopen(&node, &pin, host)?) };
        self.handles.put_back(room, HandleId(saved.id), Handle { node, fd, kind });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let name = |text: &str| Name::new(text.as_bytes()).unwrap().to_owned();
        let node = |id, kind, places| SavedNode {
            id,
            kind,
            lookups: 3,
            ino: 70 + id,
            birth: 80,
            shown: 90,
            places,
        };
        Saved {
            second_root: false,
            next_node: 100,
            next_handle: 50,
            nodes: vec![
                node(7, FileType::Directory, vec![(1, name("dir"))]),
                node(5, FileType::Regular, vec![(1, name("f")), (7, name("g"))]),
            ],
            handles: vec![SavedHandle { id: 9, node: 5, flags: 2 }],
        }
    }

    #[test]
    fn parse_gives_back_what_was_written() {
        assert_eq!(Saved::parse(&saved().to_bytes()), Ok(saved()));
    }

    #[test]
    fn parse_of_every_truncation_and_with_more_behind_is_refused() {
        let bytes = saved().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Saved::parse(&bytes[..len]), Err(Errno::EINVAL), "{len}");
        }
        assert_eq!(Saved::parse(&[bytes, vec![0]].concat()), Err(Errno::EINVAL));
    }

    #[test]
    fn parse_of_what_contradicts_itself_is_refused() {
        let changes: [fn(&mut Saved); 16] = [
            |s| s.next_node = u64::MAX,
            |s| s.next_handle = u64::MAX,
            |s| s.next_node = 7,
            |s| s.next_handle = 9,
            |s| s.nodes[0].id = 1,
            |s| s.nodes[0].id = 5,
            |s| s.nodes[0].places.clear(),
            |s| s.nodes.swap(0, 1),
            |s| s.nodes[0].places[0].0 = 7,
            |s| s.nodes[0].places[0].0 = 2,
            |s| {
                let place = s.nodes[0].places[0].clone();
                s.nodes[0].places.push(place);
            },
            |s| s.nodes[0].kind = FileType::Regular,
            |s| s.handles[0].node = 6,
            |s| s.handles[0].id = 0,
            |s| s.handles.push(s.handles[0]),
            |s| s.nodes[1].kind = FileType::Fifo,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut wrong = saved();
            change(&mut wrong);
            assert_eq!(Saved::parse(&wrong.to_bytes()), Err(Errno::EINVAL), "change {at}");
        }
    }

    #[test]
    fn parse_of_a_huge_count_allocates_nothing_by_its_say() {
        let mut bytes = saved().to_bytes();
        bytes[17..25].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Saved::parse(&bytes), Err(Errno::EINVAL));
        bytes[17..25].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        assert_eq!(Saved::parse(&bytes), Err(Errno::EINVAL));
    }
}
