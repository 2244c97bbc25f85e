//! References to another filesystem's objects that give themselves back.
//!
//! A layering filesystem holds its layers' nodes and handles by these, so that no early return can
//! leak one. They are dropped outside of locks: giving back is a call into the layer.

use std::fmt;
use std::sync::Arc;

use crate::{Context, DynFileSystem, Entry, HandleId, NodeId, Release};

/// One lookup of a node, given back by `forget` on drop.
pub struct NodeRef {
    fs: Arc<dyn DynFileSystem>,
    node: NodeId,
}

impl NodeRef {
    /// Takes over the one lookup that `entry` carries.
    #[must_use]
    pub fn adopt(fs: Arc<dyn DynFileSystem>, entry: &Entry) -> Self {
        Self { fs, node: entry.node }
    }

    /// The root of `fs`, which needs no count.
    #[must_use]
    pub fn root(fs: Arc<dyn DynFileSystem>) -> Self {
        Self { fs, node: NodeId::ROOT }
    }

    /// The filesystem.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn DynFileSystem> {
        &self.fs
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for NodeRef {
    fn drop(&mut self) {
        if self.node != NodeId::ROOT {
            self.fs.forget(self.node, 1);
        }
    }
}

impl fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRef({:?})", self.node)
    }
}

/// One open handle, given back by `release` or `releasedir` on drop.
pub struct HandleRef {
    fs: Arc<dyn DynFileSystem>,
    node: NodeId,
    handle: HandleId,
    release: Release,
    dir: bool,
}

impl HandleRef {
    /// Takes over the file handle `handle` of `node`, to be released as `release` says.
    #[must_use]
    pub fn file(
        fs: Arc<dyn DynFileSystem>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Self {
        Self { fs, node, handle, release, dir: false }
    }

    /// Takes over the directory handle `handle` of `node`.
    #[must_use]
    pub fn dir(fs: Arc<dyn DynFileSystem>, node: NodeId, handle: HandleId) -> Self {
        Self { fs, node, handle, release: Release::default(), dir: true }
    }

    /// The handle.
    #[must_use]
    pub fn handle(&self) -> HandleId {
        self.handle
    }

    /// The node it is open on.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for HandleRef {
    fn drop(&mut self) {
        let cx = Context::internal();
        // Nobody is left to hear of a failure; the filesystem logs what surprises it.
        let _ = if self.dir {
            self.fs.releasedir(&cx, self.node, self.handle)
        } else {
            self.fs.release(&cx, self.node, self.handle, self.release)
        };
    }
}

impl fmt::Debug for HandleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleRef({:?} of {:?})", self.handle, self.node)
    }
}
