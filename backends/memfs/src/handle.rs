//! Open files.
//!
//! A handle keeps its node alive and remembers which way data may flow. Every file method takes
//! [`HandleId::NONE`] as well, for clients that do not open (NO_OPEN). Directories have no handles:
//! their listings need no state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{Errno, HandleId, NodeId, OpenFlags, Result};

use crate::MemFs;
use crate::node::{Inode, NodeArc};
use crate::table::Numbered;

/// An open file.
struct Handle {
    node: NodeArc,
    flags: OpenFlags,
}

/// What a request wants of the handle that it comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Read,
    Write,
    /// No more than that it is open on the node.
    Any,
}

/// The table of open files.
pub(crate) struct Handles {
    table: Numbered<Handle>,
    open: AtomicU64,
    max: u64,
}

impl Handles {
    pub(crate) fn new(max: u64) -> Self {
        // A node counts its handles in 32 bits.
        Self { table: Numbered::new(1), open: AtomicU64::new(0), max: max.min(u64::from(u32::MAX)) }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place for a handle, before what it is to be opened on is made.
    pub(crate) fn place(&self) -> Result<Place<'_>> {
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |open| {
                Some(open + 1).filter(|open| *open <= self.max)
            })
            .map_err(|_| Errno::ENFILE)?;
        Ok(Place(Some(self)))
    }
}

/// A place in the table, given back on drop unless used.
#[must_use]
pub(crate) struct Place<'a>(Option<&'a Handles>);

impl Place<'_> {
    /// Opens `node`, whose locked inode is `inode`.
    pub(crate) fn open(
        mut self,
        node: &NodeArc,
        inode: &Inode,
        flags: OpenFlags,
    ) -> Result<HandleId> {
        let Some(handles) = self.0 else { return Err(Errno::EIO) };
        if inode.dead {
            return Err(Errno::ESTALE);
        }
        let number = handles.table.number();
        handles.table.insert(number, Handle { node: Arc::clone(node), flags })?;
        node.add_handle();
        self.0 = None;
        Ok(HandleId(number))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(handles) = self.0 {
            handles.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl MemFs {
    /// The node `id`, as far as `handle` is open on it that way.
    ///
    /// # Errors
    /// `ESTALE`: no such node. `EBADF`: no such handle, or it is not open on the node or not so.
    pub(crate) fn opened(&self, id: NodeId, handle: HandleId, want: Want) -> Result<NodeArc> {
        if handle == HandleId::NONE {
            return self.node(id);
        }
        let found = self.handles.table.get(handle.0, |open| {
            let fits = open.node.ino == id.0
                && match want {
                    Want::Read => open.flags.readable(),
                    Want::Write => open.flags.writable(),
                    Want::Any => true,
                };
            fits.then(|| Arc::clone(&open.node))
        });
        found.flatten().ok_or(Errno::EBADF)
    }

    /// Ends `handle`, which is open on `id`.
    pub(crate) fn close(&self, id: NodeId, handle: HandleId) -> Result<()> {
        if handle == HandleId::NONE {
            return Ok(());
        }
        let open = self.handles.table.remove_if(handle.0, |open| open.node.ino == id.0);
        let node = open.ok_or(Errno::EBADF)?.node;
        self.handles.open.fetch_sub(1, Ordering::AcqRel);
        if node.drop_handle() {
            self.reap(&node);
        }
        Ok(())
    }
}
