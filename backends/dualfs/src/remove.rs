//! Removing names.
//!
//! What the other side would show in place of the removed object is hidden by a whiteout, which is
//! made in the staging directory and takes the name in one step: at no time is the name free.

use std::sync::Arc;

use stratafs_core::{Context, Errno, Name, NodeId, OpKind, RenameFlags, Result};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::lookup::Resolved;
use crate::node::Node;
use crate::policy::Request;
use crate::side::{Part, Real};

/// How often a removal is tried anew when its name leads elsewhere meanwhile.
const TRIES: usize = 16;

impl DualFs {
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
        for _ in 0..TRIES {
            if self.try_remove(cx, &parent, name, dir)? {
                return Ok(());
            }
        }
        log::error!("dual: a removal was overtaken {TRIES} times (EIO)");
        Err(Errno::EIO)
    }

    fn try_remove(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        name: Name<'_>,
        dir: bool,
    ) -> Result<bool> {
        let found = self.find_held(parent, name)?.ok_or(Errno::ENOENT)?;
        let node = &found.node;
        match (node.is_dir(), dir) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        // Before a directory is transferred in vain.
        if dir && !self.is_empty(&node.view())? {
            return Err(Errno::ENOTEMPTY);
        }
        let op = if dir { OpKind::Rmdir } else { OpKind::Unlink };
        let request = Request::new(op, true).named(name);
        self.may_hide(request, node)?;
        let real_dir = self.to_write(request, parent, Data::All)?;
        self.count_names(request, node)?;

        let names = parent.names.write();
        let view = parent.view();
        let resolved = self.resolve(&view, name)?;
        if !self.is_still(resolved.object.as_ref(), Some(node)) {
            return Ok(false);
        }
        // Nothing is made in it meanwhile.
        let child_names = dir.then(|| node.names.write());
        if dir && !self.is_empty(&node.view())? {
            return Err(Errno::ENOTEMPTY);
        }
        let below = self.shows_below(&view, name)?;
        self.losing_name(node, &resolved, || {
            self.take_away(parent, &real_dir, name, &resolved, below)
        })?;
        self.index_remove(parent, name);
        drop(child_names);
        drop(names);
        self.tell_gone(cx, parent, Some(node), name);
        Ok(true)
    }

    /// A file with several names on the other side is transferred before it loses one, or nobody
    /// would know how many it has left.
    pub(crate) fn count_names(&self, request: Request<'_>, node: &Arc<Node>) -> Result<()> {
        if node.is_dir() || node.written().is_some() {
            return Ok(());
        }
        if self.is_linked(&node.top()?.attr()?) {
            self.to_write(request, node, Data::All)?;
        }
        Ok(())
    }

    /// Takes what the written side has under `name` away, and hides what is `below`.
    fn take_away(
        &self,
        parent: &Node,
        dir: &Real,
        name: Name<'_>,
        resolved: &Resolved,
        below: bool,
    ) -> Result<()> {
        let cx = Context::internal();
        if below {
            self.mark_impure(parent)?;
            return self.hide(dir, name, resolved);
        }
        let is_dir = resolved.object.as_ref().map_or(Ok(false), |o| o.top().map(Part::is_dir))?;
        if !is_dir {
            return dir.fs().unlink(&cx, dir.id(), name);
        }
        match dir.fs().rmdir(&cx, dir.id(), name) {
            // Whiteouts are left in it: it goes as it is, in one step.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => self.set_aside(dir, name),
            done => done,
        }
    }

    /// Puts a whiteout under `name`, over what the written side has there.
    ///
    /// # Errors
    /// `EEXIST`: a directory is there that does not show.
    pub(crate) fn hide(&self, dir: &Real, name: Name<'_>, resolved: &Resolved) -> Result<()> {
        let there = dir.child(name)?;
        let mut whiteout = self.stage_whiteout()?;
        match there {
            None => whiteout.publish(dir, name, RenameFlags::NOREPLACE),
            Some(part) if !part.is_dir() => whiteout.publish(dir, name, RenameFlags::empty()),
            Some(_) if resolved.hides_written() => Err(refused_hidden(name)),
            Some(_) => whiteout.exchange(dir, name, true),
        }
    }

    /// Moves the directory `name` of `dir` into the staging directory and removes it there.
    pub(crate) fn set_aside(&self, dir: &Real, name: Name<'_>) -> Result<()> {
        let work = &self.staging()?.work;
        let staged = self.stage(true)?;
        let (cx, flags) = (Context::internal(), RenameFlags::empty());
        work.fs().rename(&cx, dir.id(), name, work.id(), staged.name(), flags)?;
        drop(staged.made());
        Ok(())
    }

    /// Does what takes a name from `node`, that was found so, and counts it: before it is done, for
    /// afterwards nothing may fail.
    pub(crate) fn losing_name(
        &self,
        node: &Arc<Node>,
        resolved: &Resolved,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let counted = resolved.is_alias();
        if counted {
            self.more_links(node, -1)?;
        }
        if let Err(errno) = act() {
            if counted && let Err(errno) = self.more_links(node, 1) {
                log::warn!("dual: the link count of a file is one too small: {errno}");
            }
            return Err(errno);
        }
        if node.is_dir() || node.written().is_none() {
            node.change(|place| place.removed = true);
            self.table.drop_keys(node, None);
            *node.index.lock() = None;
        } else if let Err(errno) = self.let_go_of_links(node) {
            log::warn!("dual: a file without names stays in the index: {errno}");
        }
        Ok(())
    }
}

/// The answer where a directory of the written side, which something on the other side hides, is in
/// the way: it would be lost.
pub(crate) fn refused_hidden(name: Name<'_>) -> Errno {
    log::error!(
        "dual: {name} is a directory on the written side, which something else on the other side \
         hides, so that cannot be changed (EEXIST); move one of them"
    );
    Errno::EEXIST
}
