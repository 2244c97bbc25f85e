//! Listing directories.

use std::sync::Arc;

use stratafs_core::{
    Added, DirEntry, DirSink, Errno, FileType, Name, NodeId, Opened, ReadSink, Result,
};

use crate::MemFs;
use crate::entries::{DOT, DOTDOT};
use crate::node::NodeArc;

/// Entries that are collected under one hold of the lock.
const BATCH: usize = 32;

/// Bytes for their names: more than 32 usual ones, and at least one of the longest.
const NAMES: usize = 1024;

/// A collected entry, whose name is in the batch's buffer.
struct Item {
    node: Option<NodeArc>,
    ino: u64,
    kind: FileType,
    cookie: u64,
    name: (usize, usize),
}

/// Some entries, without an allocation.
struct Batch {
    items: [Option<Item>; BATCH],
    len: usize,
    names: [u8; NAMES],
    names_len: usize,
}

impl Batch {
    fn new() -> Self {
        Self { items: [const { None }; BATCH], len: 0, names: [0; NAMES], names_len: 0 }
    }

    /// Adds an entry unless it does not fit.
    fn push(&mut self, cookie: u64, name: &[u8], node: &NodeArc, plus: bool) -> bool {
        let end = self.names_len + name.len();
        let (Some(place), Some(bytes)) =
            (self.items.get_mut(self.len), self.names.get_mut(self.names_len..end))
        else {
            return false;
        };
        bytes.copy_from_slice(name);
        if plus {
            // Under the directory's lock, while the name still keeps the node.
            node.raise();
        }
        *place = Some(Item {
            node: plus.then(|| Arc::clone(node)),
            ino: node.ino,
            kind: node.kind,
            cookie,
            name: (self.names_len, end),
        });
        self.names_len = end;
        self.len += 1;
        true
    }
}

impl MemFs {
    pub(crate) fn open_dir(&self, id: NodeId) -> Result<Opened> {
        if !self.node(id)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Opened::stateless(self.cache.dir_flags()))
    }

    pub(crate) fn list(&self, id: NodeId, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.emit(id, cookie, sink, false)
    }

    pub(crate) fn list_plus(&self, id: NodeId, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.emit(id, cookie, sink, true)
    }

    /// Offers the entries after `cookie`, looked up if `plus`.
    fn emit(&self, id: NodeId, mut cookie: u64, sink: &mut dyn DirSink, plus: bool) -> Result<()> {
        let dir = self.node(id)?;
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let now = self.now();
        dir.touch(&dir.inode.read(), now);
        if cookie < DOT && sink.add(&DirEntry::dot(dir.ino, DOT), None) == Added::Full {
            return Ok(());
        }
        let parent = dir.parent();
        if cookie < DOTDOT && sink.add(&DirEntry::dotdot(parent, DOTDOT), None) == Added::Full {
            return Ok(());
        }
        loop {
            let mut batch = Batch::new();
            {
                let inode = dir.inode.read();
                for (slot, node) in inode.dir()?.after(cookie.max(DOTDOT)) {
                    if !batch.push(slot.cookie, &slot.name, node, plus) {
                        break;
                    }
                }
            }
            if batch.len == 0 {
                return Ok(());
            }
            let mut full = false;
            for item in batch.items.into_iter().flatten() {
                cookie = item.cookie;
                let name = &batch.names[item.name.0..item.name.1];
                let taken = !full && self.offer(sink, &item, name);
                full |= !taken;
                if !taken && item.node.is_some() {
                    self.let_go(NodeId(item.ino), 1);
                }
            }
            if full {
                return Ok(());
            }
        }
    }

    /// Offers one entry, and says whether it was taken.
    fn offer(&self, sink: &mut dyn DirSink, item: &Item, name: &[u8]) -> bool {
        if !sink.fits(name.len()) {
            return false;
        }
        let Ok(name) = Name::new(name) else { return false };
        let listed = DirEntry::new(item.ino, item.kind, name, item.cookie);
        let entry = item.node.as_ref().map(|node| self.entry(node, &node.inode.read()));
        sink.add(&listed, entry.as_ref()) == Added::Taken
    }

    pub(crate) fn target(&self, id: NodeId, sink: &mut dyn ReadSink) -> Result<usize> {
        let node = self.node(id)?;
        let mut buf = [0; 4096];
        let now = self.now();
        let target = {
            let inode = node.inode.read();
            let target = inode.target()?;
            node.touch(&inode, now);
            // At most 4095 bytes, by `make_symlink`.
            let copy = buf.get_mut(..target.len()).ok_or(Errno::EIO)?;
            copy.copy_from_slice(target);
            copy
        };
        sink.write_slice(target)
    }
}
