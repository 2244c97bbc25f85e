//! Listing directories.

use std::sync::Arc;

use stratafs_core::{Added, Context, DirEntry, DirSink, HandleId, Name, NodeId, Opened, Result};

use crate::DualFs;
use crate::merge::{DOT, DOTDOT, Listed};
use crate::node::Node;

/// Entries that are taken out of an index at a time.
const BATCH: usize = 64;

/// The most entries that a merged listing keeps when nobody has its directory open.
const KEPT_CLOSED: usize = 4096;

/// An open directory.
pub(crate) struct Dir {
    pub(crate) node: Arc<Node>,
}

impl DualFs {
    pub(crate) fn open_dir(&self, id: NodeId) -> Result<Opened> {
        let node = self.table.get(id)?;
        node.require_dir()?;
        self.table.opened(&node);
        let handle = self.dirs.enter(Arc::new(Dir { node }));
        Ok(Opened::new(handle, self.cache.dir_flags()))
    }

    pub(crate) fn close_dir(&self, id: NodeId, handle: HandleId) -> Result<()> {
        let dir = self.dirs.take(handle, |dir| dir.node.id == id)?;
        let mut given_back = None;
        if self.table.closed(&dir.node) {
            let mut index = dir.node.index.lock();
            if index.as_ref().is_some_and(|index| index.len() > KEPT_CLOSED) {
                given_back = index.take();
            }
        }
        drop(given_back);
        Ok(())
    }

    /// The directory `id` is open by `handle`, or needs no handle.
    fn opened_dir(&self, id: NodeId, handle: HandleId) -> Result<Arc<Node>> {
        if handle == HandleId::NONE {
            let node = self.table.get(id)?;
            node.require_dir()?;
            return Ok(node);
        }
        let dir = self.dirs.get(handle)?;
        if dir.node.id == id { Ok(Arc::clone(&dir.node)) } else { Err(stratafs_core::Errno::EBADF) }
    }

    pub(crate) fn list(
        &self,
        id: NodeId,
        handle: HandleId,
        mut cookie: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let node = self.opened_dir(id, handle)?;
        let mut some = false;
        if cookie < DOT {
            if sink.add(&DirEntry::dot(node.ino(), DOT), None) == Added::Full {
                return Ok(());
            }
            (cookie, some) = (DOT, true);
        }
        if cookie < DOTDOT {
            let parent = node.parent().map_or(node.ino(), |(parent, _)| parent.ino());
            if sink.add(&DirEntry::dotdot(parent, DOTDOT), None) == Added::Full {
                return Ok(());
            }
            (cookie, some) = (DOTDOT, true);
        }
        loop {
            let batch = match self.batch(&node, cookie) {
                Ok(batch) => batch,
                // What the sink took counts; the next call meets the error again.
                Err(_) if some => return Ok(()),
                Err(errno) => return Err(errno),
            };
            if batch.is_empty() {
                return Ok(());
            }
            for (at, entry) in batch {
                if self.offer(&node, at, &entry, plus, sink)? == Added::Full {
                    return Ok(());
                }
                (cookie, some) = (at, true);
            }
        }
    }

    /// The entries that come after `cookie`, some of them.
    fn batch(&self, node: &Arc<Node>, cookie: u64) -> Result<Vec<(u64, Listed)>> {
        if let Some(index) = &*node.index.lock() {
            return Ok(index.after(cookie, BATCH));
        }
        // Changes wait meanwhile, and find the index when they go on.
        let _names = node.names.read();
        let merged = self.merge(node)?;
        let mut index = node.index.lock();
        Ok(index.get_or_insert(merged).after(cookie, BATCH))
    }

    fn offer(
        &self,
        dir: &Arc<Node>,
        cookie: u64,
        listed: &Listed,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<Added> {
        let name = listed.name.as_name();
        let entry = |ino| DirEntry::new(ino, listed.kind, name, cookie);
        if !plus {
            return Ok(sink.add(&entry(listed.ino), None));
        }
        if !sink.fits(name.as_bytes().len()) {
            return Ok(Added::Full);
        }
        // One that can't be looked up, or went meanwhile, is listed without its object.
        let Ok(Some((node, attr))) = self.find(dir, name) else {
            return Ok(sink.add(&entry(listed.ino), None));
        };
        let found = self.entry(&node, attr);
        let at = DirEntry::new(found.attr.ino, found.attr.kind(), name, cookie);
        let added = sink.add(&at, Some(&found));
        if added == Added::Full {
            self.table.forget(node.id, 1);
        }
        Ok(added)
    }

    pub(crate) fn sync_dir(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        let node = self.opened_dir(id, handle)?;
        match node.written() {
            Some(real) => real
                .with_dir_handle(cx, |handle| real.fs().fsyncdir(cx, real.id(), handle, datasync)),
            // What is not written needs no sync.
            _ => Ok(()),
        }
    }

    /// The listing of `dir`, if it was listed, has `entry` now.
    pub(crate) fn index_add(&self, dir: &Node, entry: Listed) {
        if let Some(index) = &mut *dir.index.lock() {
            index.add(entry);
        }
    }

    /// The listing of `dir`, if it was listed, has `name` no more.
    pub(crate) fn index_remove(&self, dir: &Node, name: Name<'_>) {
        if let Some(index) = &mut *dir.index.lock() {
            index.remove(name);
        }
    }

    /// The number of `node` is another now.
    pub(crate) fn renumber(&self, node: &Node, ino: u64) {
        node.set_ino(ino);
        if let Some((dir, name)) = node.parent()
            && let Some(index) = &mut *dir.index.lock()
        {
            index.renumber(name.as_name(), ino);
        }
    }
}
