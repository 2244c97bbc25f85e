//! Removing names.
//!
//! What a lower layer would show in place of the removed object is hidden by a whiteout, which is
//! made in the staging directory and takes the name in one step: at no time is the name free.

use std::sync::Arc;

use stratafs_core::{Context, Errno, Name, NodeId, RenameFlags, Result};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::layer::Real;
use crate::links::Linked;
use crate::lookup::{Looked, Object, Resolved, Slot};
use crate::node::Node;

/// How often a removal is tried anew when its name leads elsewhere meanwhile.
const TRIES: usize = 16;

/// What a try came to.
enum Outcome {
    Done,
    /// It is a name of several, of which its file must know before it goes.
    Linked,
}

impl OverlayFs {
    /// Removes `name` from `parent`: an empty directory if `dir`, anything else otherwise.
    pub(crate) fn remove(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        dir: bool,
    ) -> Result<()> {
        let parent = self.table.get(parent)?;
        parent.require_dir()?;
        self.writable()?;
        let mut linked = None;
        for _ in 0..TRIES {
            match self.try_remove(cx, &parent, name, dir, linked.as_ref())? {
                Outcome::Done => return Ok(()),
                Outcome::Linked => {}
            }
            linked = self.find_held(&parent, name)?;
            if let Some(linked) = &linked {
                self.before_name_goes(&linked.node, &parent, name)?;
            }
        }
        log::error!("overlay: a removal was overtaken {TRIES} times (EIO)");
        Err(Errno::EIO)
    }

    /// Removes the name. `linked`: the node that was made ready to lose it, if it has other names.
    fn try_remove(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        name: Name<'_>,
        dir: bool,
        linked: Option<&Looked<'_>>,
    ) -> Result<Outcome> {
        let removable = |object: Option<Object>| match object {
            None => Err(Errno::ENOENT),
            Some(object) if object.is_dir() && !dir => Err(Errno::EISDIR),
            Some(object) if !object.is_dir() && dir => Err(Errno::ENOTDIR),
            Some(object) => Ok(object),
        };
        if parent.upper().is_none() {
            // Before the directory is copied up in vain.
            let object = removable(self.peek(parent, name)?)?;
            if dir && !self.is_empty(&object.as_place())? {
                return Err(Errno::ENOTEMPTY);
            }
        }
        let upper_dir = self.copy_up(parent, Data::All)?;

        let names = parent.names.write();
        let place = parent.place();
        let Resolved { slot, object } = self.resolve(&place, name)?;
        let object = removable(object)?;
        let child = self.table.find(&object.key(parent.id, name));
        if object.linked != Linked::No {
            let is_ready =
                |child: &Arc<Node>| linked.is_some_and(|linked| Arc::ptr_eq(&linked.node, child));
            if slot != Slot::Object || !child.as_ref().is_some_and(is_ready) {
                return Ok(Outcome::Linked);
            }
        }
        // Nothing is made in it meanwhile; without a node nobody could.
        let child_names = child.as_ref().filter(|_| dir).map(|child| child.names.write());
        if dir && !self.is_empty(&object.as_place())? {
            return Err(Errno::ENOTEMPTY);
        }
        // What shows, and is not of the writable layer alone, shows below by itself.
        let merged = object.is_dir() && object.redirect.is_none() && !object.lowers.is_empty();
        let below = slot == Slot::Absent || merged || self.shows_below(&place, name)?;
        self.take_away(&upper_dir, name, &object, below)?;
        if let Some(child) = &child {
            self.mark_removed(child);
            self.after_name_went(child);
        }
        self.index_remove(parent, name);
        drop(child_names);
        drop(names);
        self.tell_gone(cx, parent, child.as_deref(), name);
        Ok(Outcome::Done)
    }

    /// Takes the name of `object` out of the writable layer's directory `dir`, and hides what is
    /// `below`.
    fn take_away(&self, dir: &Real, name: Name<'_>, object: &Object, below: bool) -> Result<()> {
        let cx = Context::internal();
        let is_upper_dir = object.upper.is_some() && object.is_dir();
        if below {
            let mut whiteout = self.stage_whiteout()?;
            return if is_upper_dir {
                whiteout.exchange(dir, name, true)
            } else {
                whiteout.publish(dir, name, RenameFlags::empty())
            };
        }
        let Some(upper) = &object.upper else { return Err(Errno::EIO) };
        if !is_upper_dir {
            return dir.fs().unlink(&cx, dir.id(), name);
        }
        if upper.list()?.is_empty() {
            return dir.fs().rmdir(&cx, dir.id(), name);
        }
        // Whiteouts are left in it: it goes as it is, in one step.
        self.set_aside(dir, name)
    }

    /// Moves the directory `name` of `dir` into the staging directory and removes it there.
    fn set_aside(&self, dir: &Real, name: Name<'_>) -> Result<()> {
        let work = &self.writable()?.work;
        let staged = self.stage(true)?;
        let (cx, flags) = (Context::internal(), RenameFlags::empty());
        work.fs().rename(&cx, dir.id(), name, work.id(), staged.name(), flags)?;
        drop(staged.made());
        Ok(())
    }

    /// The node has no name any more, or one name less.
    pub(crate) fn mark_removed(&self, node: &Arc<Node>) {
        let lower_only = node.upper().is_none();
        if node.is_dir() || lower_only {
            node.change(|place| place.removed = true);
            self.table.rekey(node, None);
            *node.index.lock() = None;
        }
    }
}
