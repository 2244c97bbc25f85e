//! Moving names.

use std::os::fd::AsFd;
use std::sync::Arc;

use stratafs_core::{Errno, Name, NodeId, RenameFlags, Result};
use stratafs_sys::at::{self, Place, Rename};

use crate::PassthroughFs;
use crate::node::Node;
use crate::remove::{Busy, Removing};

impl PassthroughFs {
    /// Moves `name` in `parent` to `new_name` in `new_parent`.
    ///
    /// The whiteout of a client's RENAME_WHITEOUT is a real one under virtual ownership too, where
    /// all its other devices are files: only the host can leave it in the same step, it needs no
    /// privilege, and nothing can be opened by it.
    pub(crate) fn rename_in(
        &self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let host = host_flags(flags)?;
        let parent = self.writable_dir(parent)?;
        let new_parent = self.writable_dir(new_parent)?;
        let from_dir = self.pin(&parent)?;
        let to_dir = self.pin(&new_parent)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let _removing = (Removing::new(&parent), Removing::new(&new_parent));
        let moved = self.hold_child(&from_dir, name, false)?;
        let replaced = self.hold_child(&to_dir, new_name, !exchange)?;
        let from = Place { dir: from_dir.as_fd(), name };
        let to = Place { dir: to_dir.as_fd(), name: new_name };
        let rename = || Ok(at::rename(from, to, host)?);
        self.workable(&parent, &from_dir, || self.workable(&new_parent, &to_dir, rename))?;
        if let (Some(Busy(a)), Some(Busy(b))) = (&moved, &replaced)
            && Arc::ptr_eq(a, b)
        {
            // Two names of one object: nothing happened.
            return Ok(());
        }
        if let Some(Busy(node)) = &moved {
            self.moved(node, (&parent, name), Some((&new_parent, new_name)));
        }
        if let Some(Busy(node)) = &replaced {
            let to = exchange.then_some((&parent, name));
            self.moved(node, (&new_parent, new_name), to);
        }
        Ok(())
    }

    /// Notes that a name of `node` is gone, and that it has another instead.
    fn moved(
        &self,
        node: &Arc<Node>,
        from: (&Arc<Node>, Name<'_>),
        to: Option<(&Arc<Node>, Name<'_>)>,
    ) {
        // The new name first: with none at all it would count as removed.
        if let Some((parent, name)) = to {
            self.place(node, parent, name);
        }
        let gone = node.remove_place(from.0, from.1);
        self.table.release(gone, &self.pins);
    }
}

fn host_flags(flags: RenameFlags) -> Result<Rename> {
    let exclusive = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
    if flags.contains(RenameFlags::EXCHANGE) && flags.intersects(exclusive) {
        return Err(Errno::EINVAL);
    }
    Rename::from_bits(flags.bits()).ok_or(Errno::EINVAL)
}
