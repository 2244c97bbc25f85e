//! The objects that clients know: ids and lookup counts.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::RwLock;

use crate::{Attr, Errno, FileType, NodeId, Result};

/// Ids are below 2 to the power of this, which a million new objects a second reach in nine years.
pub(super) const ID_BITS: u8 = 48;

/// What is kept of an object.
#[derive(Clone)]
pub(super) struct Node<F> {
    pub(super) file: F,
    pub(super) kind: FileType,
    /// The inode number, and that of the directory through which it was found last.
    pub(super) ino: u64,
    pub(super) parent_ino: u64,
    lookups: u64,
    opens: u64,
}

impl<F> Node<F> {
    /// Fails with `ENOTDIR` unless it is a directory.
    pub(super) fn directory(self) -> Result<Self> {
        if self.kind == FileType::Directory { Ok(self) } else { Err(Errno::ENOTDIR) }
    }
}

struct Table<F> {
    nodes: HashMap<NodeId, Node<F>>,
    ids: HashMap<F, NodeId>,
    next: u64,
}

/// The nodes in use. The root is always among them.
pub(super) struct Nodes<F> {
    table: RwLock<Table<F>>,
    root: F,
}

impl<F: Clone + Eq + Hash> Nodes<F> {
    pub(super) fn new(root: F) -> Self {
        let node = Node {
            file: root.clone(),
            kind: FileType::Directory,
            ino: NodeId::ROOT.0,
            parent_ino: NodeId::ROOT.0,
            lookups: 0,
            opens: 0,
        };
        let table = Table {
            nodes: HashMap::from([(NodeId::ROOT, node)]),
            ids: HashMap::from([(root.clone(), NodeId::ROOT)]),
            next: NodeId::ROOT.0 + 1,
        };
        Self { table: RwLock::new(table), root }
    }

    pub(super) fn is_root(&self, file: &F) -> bool {
        *file == self.root
    }

    /// How many are in use, the root aside.
    pub(super) fn len(&self) -> usize {
        self.table.read().nodes.len() - 1
    }

    /// The id of `file`, if a client knows it.
    pub(super) fn id(&self, file: &F) -> Option<NodeId> {
        self.table.read().ids.get(file).copied()
    }

    /// What is kept of `node`; `ESTALE` if it is not in use.
    pub(super) fn get(&self, node: NodeId) -> Result<Node<F>> {
        self.table.read().nodes.get(&node).cloned().ok_or(Errno::ESTALE)
    }

    /// Raises the lookup count of `file` by one, and gives its id: the one it has, or the next.
    pub(super) fn look_up(&self, file: F, attr: &Attr, parent_ino: u64) -> Result<NodeId> {
        let mut table = self.table.write();
        if let Some(id) = table.ids.get(&file).copied() {
            if let Some(node) = table.nodes.get_mut(&id).filter(|_| id != NodeId::ROOT) {
                node.lookups = node.lookups.saturating_add(1);
                node.parent_ino = parent_ino;
            }
            return Ok(id);
        }
        let id = NodeId(table.next);
        if id.0 >> ID_BITS != 0 {
            return Err(Errno::EOVERFLOW);
        }
        table.next += 1;
        table.ids.insert(file.clone(), id);
        let (kind, ino) = (attr.kind(), attr.ino);
        table.nodes.insert(id, Node { file, kind, ino, parent_ino, lookups: 1, opens: 0 });
        Ok(id)
    }

    /// Lowers the lookup count of `node`.
    pub(super) fn forget(&self, node: NodeId, count: u64) {
        self.give_back(node, |known| known.lookups = known.lookups.saturating_sub(count));
    }

    /// Keeps `node` in use until [`close`](Self::close).
    pub(super) fn open(&self, node: NodeId) -> Result<()> {
        let mut table = self.table.write();
        let known = table.nodes.get_mut(&node).ok_or(Errno::ESTALE)?;
        known.opens += 1;
        Ok(())
    }

    /// Ends an [`open`](Self::open).
    pub(super) fn close(&self, node: NodeId) {
        self.give_back(node, |known| known.opens = known.opens.saturating_sub(1));
    }

    /// Notes that `file` is now found through a directory of inode number `parent_ino`.
    pub(super) fn moved(&self, file: &F, parent_ino: u64) {
        let mut table = self.table.write();
        if let Some(id) = table.ids.get(file).copied()
            && let Some(node) = table.nodes.get_mut(&id)
        {
            node.parent_ino = parent_ino;
        }
    }

    fn give_back(&self, node: NodeId, lower: impl FnOnce(&mut Node<F>)) {
        let mut table = self.table.write();
        let Some(known) = table.nodes.get_mut(&node).filter(|_| node != NodeId::ROOT) else {
            return;
        };
        lower(known);
        if known.lookups > 0 || known.opens > 0 {
            return;
        }
        let gone = table.nodes.remove(&node);
        let key = gone.as_ref().and_then(|gone| table.ids.remove_entry(&gone.file));
        // A file's drop is its author's code: it runs when the lock is no longer held.
        drop(table);
        drop((gone, key));
    }
}
