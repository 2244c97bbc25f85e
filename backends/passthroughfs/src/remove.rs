//! Removing names.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratafs_core::{Errno, Name, NodeId, Result};
use stratafs_sys::at;

use crate::PassthroughFs;
use crate::node::Node;

/// A node that is about to lose or change a name, and stays pinned meanwhile.
pub(crate) struct Busy(pub(crate) Arc<Node>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state.lock().busy -= 1;
    }
}

/// A directory that a name is about to be taken from.
pub(crate) struct Removing<'a>(&'a Node);

impl<'a> Removing<'a> {
    pub(crate) fn new(dir: &'a Node) -> Self {
        dir.removing.fetch_add(1, Ordering::SeqCst);
        dir.removals.fetch_add(1, Ordering::SeqCst);
        Self(dir)
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.0.removing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl PassthroughFs {
    pub(crate) fn remove_file(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, at::remove_file)
    }

    pub(crate) fn remove_dir(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, at::remove_dir)
    }

    fn remove(
        &self,
        parent: NodeId,
        name: Name<'_>,
        call: impl Fn(BorrowedFd<'_>, Name<'_>) -> std::io::Result<()>,
    ) -> Result<()> {
        let parent = self.writable_dir(parent)?;
        let dir = self.pin(&parent)?;
        let _removing = Removing::new(&parent);
        let known = self.hold_child(&dir, name, true)?;
        self.workable(&parent, &dir, || Ok(call(dir.as_fd(), name)?))?;
        if let Some(Busy(node)) = &known {
            let gone = node.remove_place(&parent, name);
            self.table.release(gone, &self.pins);
        }
        Ok(())
    }

    /// Pins the node that `name` in `dir` leads to, if a client knows it, so that it can be used
    /// whatever becomes of the name.
    ///
    /// # Errors
    /// `ENFILE`: there is no descriptor left for it, and it is to lose its name.
    pub(crate) fn hold_child(
        &self,
        dir: &OwnedFd,
        name: Name<'_>,
        loses_name: bool,
    ) -> Result<Option<Busy>> {
        let Some(node) = self.known_child(dir, name)? else { return Ok(None) };
        node.state.lock().busy += 1;
        let busy = Busy(node);
        // One that nobody needs at this moment may be looked up before its name is gone.
        match self.pin_fast(&busy.0, dir, name) {
            // It went between: the call itself will tell.
            Ok(()) | Err(Errno::ESTALE) => {}
            Err(Errno::ENFILE) if !loses_name => {}
            Err(errno) => return Err(errno),
        }
        Ok(Some(busy))
    }
}
