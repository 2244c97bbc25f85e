//! References to another filesystem's objects that give themselves back.
//!
//! A layering filesystem holds its layers' nodes and handles by these, so that no early return can
//! leak one. They are dropped outside of locks: giving back is a call into the layer.

use std::fmt;
use std::sync::Arc;

use crate::{Context, DynFileSystem, Entry, HandleId, NodeId, Release, SessionId};

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

    /// The node, with the lookup that this held: the caller forgets it, or hands it on.
    #[must_use]
    pub fn into_node(mut self) -> NodeId {
        // The root needs no count, so a reference to it gives nothing back.
        std::mem::replace(&mut self.node, NodeId::ROOT)
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
    end: End,
    session: Option<SessionId>,
}

/// How a handle ends.
enum End {
    File(Release),
    Dir,
    /// Someone else ends it.
    HandedOn,
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
        Self { fs, node, handle, end: End::File(release), session: None }
    }

    /// Takes over the directory handle `handle` of `node`.
    #[must_use]
    pub fn dir(fs: Arc<dyn DynFileSystem>, node: NodeId, handle: HandleId) -> Self {
        Self { fs, node, handle, end: End::Dir, session: None }
    }

    /// The same, released in the name of the client of `session`, whose locks may go with it.
    #[must_use]
    pub fn with_session(mut self, session: Option<SessionId>) -> Self {
        self.session = session;
        self
    }

    /// The filesystem.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn DynFileSystem> {
        &self.fs
    }

    /// The handle, which the caller releases, or hands on.
    #[must_use]
    pub fn into_handle(mut self) -> HandleId {
        self.end = End::HandedOn;
        self.handle
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
        let cx = Context::internal().with_session(self.session);
        // Nobody is left to hear of a failure; the filesystem logs what surprises it.
        let _ = match self.end {
            End::File(release) => self.fs.release(&cx, self.node, self.handle, release),
            End::Dir => self.fs.releasedir(&cx, self.node, self.handle),
            End::HandedOn => Ok(()),
        };
    }
}

impl fmt::Debug for HandleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleRef({:?} of {:?})", self.handle, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::intercept::fake::Fake;

    #[test]
    fn drop_gives_back_what_was_not_handed_on() {
        let fake = Arc::new(Fake::default());
        let fs: Arc<dyn DynFileSystem> = Arc::<Fake>::clone(&fake);
        let (node, handle) = (NodeId(5), HandleId(6));
        let entry = Entry::new(node, Attr::new(5, 0o100_644));
        let file = || HandleRef::file(Arc::clone(&fs), node, handle, Release::default());

        assert_eq!(NodeRef::adopt(Arc::clone(&fs), &entry).into_node(), node);
        assert_eq!(file().into_handle(), handle);
        drop(NodeRef::root(Arc::clone(&fs)));
        assert_eq!(fake.methods(), [""; 0]);

        drop(NodeRef::adopt(Arc::clone(&fs), &entry));
        drop(file());
        drop(HandleRef::dir(Arc::clone(&fs), node, handle));
        assert_eq!(fake.methods(), ["forget", "release", "releasedir"]);
    }

    #[test]
    fn drop_of_a_client_s_handle_names_its_session() {
        let fake = Arc::new(Fake::default());
        let fs: Arc<dyn DynFileSystem> = Arc::<Fake>::clone(&fake);
        let file = HandleRef::file(fs, NodeId(5), HandleId(6), Release::default());
        drop(file.with_session(Some(SessionId(41))));
        assert!(fake.calls()[0].1.contains("SessionId(41)"), "{:?}", fake.calls());
    }
}
