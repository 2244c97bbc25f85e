//! Moving names.

use std::sync::Arc;

use stratafs_core::{Context, Errno, FileType, Name, NodeId, RenameFlags, Result, Timestamp};

use crate::MemFs;
use crate::charge::{Hold, entry_cost};
use crate::create::{LINK_MAX, New};
use crate::entries::Entries;
use crate::node::{Body, Inode, Node, NodeArc};
use crate::rank::{self, Rank, WriteGuard};

/// One side of a rename.
struct Side<'a> {
    dir: &'a NodeArc,
    hash: u64,
    name: Name<'a>,
}

/// What a rename did.
enum Moved {
    /// Nothing: both names lead to one object.
    Same,
    /// The new name leads to what the old one did, and no longer to `replaced`.
    Done { replaced: Option<NodeArc> },
}

/// The locked inodes of the two directories, which may be one.
struct Dirs<'a> {
    from: &'a mut Inode,
    /// `None`: the same.
    to: Option<&'a mut Inode>,
}

impl Dirs<'_> {
    fn to(&mut self) -> &mut Inode {
        match &mut self.to {
            Some(to) => to,
            None => self.from,
        }
    }

    fn source_entries(&mut self) -> Result<&mut Entries> {
        self.from.live_dir_mut()
    }

    fn target_entries(&mut self) -> Result<&mut Entries> {
        self.to().live_dir_mut()
    }

    fn across(&self) -> bool {
        self.to.is_some()
    }

    /// Notes that a directory went from one to the other.
    fn dir_moved(&mut self) {
        if let Some(to) = &mut self.to {
            self.from.nlink -= 1;
            to.nlink += 1;
        }
    }

    fn modified(&mut self, now: Timestamp) {
        self.from.modified(now);
        self.to().modified(now);
    }
}

/// Locks two nodes that are not directories above each other, the lower number first.
fn lock_two<'a>(a: &'a Node, b: &'a Node) -> (WriteGuard<'a, Inode>, WriteGuard<'a, Inode>) {
    if a.ino < b.ino {
        let first = a.write();
        (first, b.write())
    } else {
        let first = b.write();
        (a.write(), first)
    }
}

impl MemFs {
    pub(crate) fn move_name(
        &self,
        cx: &Context<'_>,
        (parent, name): (NodeId, Name<'_>),
        (new_parent, new_name): (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Result<()> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !RenameFlags::all().contains(flags) || (exchange && flags != RenameFlags::EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        let from_dir = self.node(parent)?;
        let to_dir = self.node(new_parent)?;
        if !from_dir.is_dir() || !to_dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let now = self.now();
        let from = Side { dir: &from_dir, hash: self.hash(name), name };
        let to = Side { dir: &to_dir, hash: self.hash(new_name), name: new_name };
        let outcome = if parent == new_parent {
            let mut inode = from_dir.write_dir();
            let dirs = Dirs { from: &mut inode, to: None };
            self.move_locked(cx, &from, &to, dirs, flags, now)?
        } else {
            // No directory moves meanwhile, so the order of the locks can follow the tree.
            let _renames = rank::lock(&self.renames, Rank::Renames);
            let from_first = self.is_within(&to_dir, parent.0)
                || (!self.is_within(&from_dir, new_parent.0) && parent < new_parent);
            let (mut from_inode, mut to_inode);
            if from_first {
                from_inode = from_dir.write_dir();
                to_inode = to_dir.write_dir();
            } else {
                to_inode = to_dir.write_dir();
                from_inode = from_dir.write_dir();
            }
            let dirs = Dirs { from: &mut from_inode, to: Some(&mut to_inode) };
            self.move_locked(cx, &from, &to, dirs, flags, now)?
        };
        let Moved::Done { replaced } = outcome else { return Ok(()) };
        self.tell_name(cx, parent, name);
        self.tell_name(cx, new_parent, new_name);
        if let Some(node) = replaced {
            self.tell_attr(cx, NodeId(node.ino));
            self.reap(&node);
        }
        Ok(())
    }

    /// Whether `node` is the directory `ancestor` or somewhere in it. The rename mutex is held.
    fn is_within(&self, node: &NodeArc, ancestor: u64) -> bool {
        let mut at = Arc::clone(node);
        loop {
            if at.ino == ancestor {
                return true;
            }
            let parent = at.parent();
            if parent == at.ino {
                return false;
            }
            match self.node(NodeId(parent)) {
                Ok(parent) => at = parent,
                // Removed directories are within nothing.
                Err(_) => return false,
            }
        }
    }

    /// The rename, with the directories locked.
    fn move_locked(
        &self,
        cx: &Context<'_>,
        from: &Side<'_>,
        to: &Side<'_>,
        mut dirs: Dirs<'_>,
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Moved> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let source = dirs.source_entries()?.get(from.hash, &from.name).cloned();
        let target = dirs.target_entries()?.get(to.hash, &to.name).cloned();
        let source = source.ok_or(Errno::ENOENT)?;
        if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if target.is_none() && exchange {
            return Err(Errno::ENOENT);
        }
        if target.as_ref().is_some_and(|target| target.ino == source.ino) {
            return Ok(Moved::Same);
        }
        if dirs.across() {
            if source.is_dir() && self.is_within(to.dir, source.ino) {
                return Err(Errno::EINVAL);
            }
            if let Some(target) = &target
                && target.is_dir()
                && self.is_within(from.dir, target.ino)
            {
                return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
        }
        match target {
            Some(target) if exchange => {
                Self::exchange(from, to, dirs, &source, target, now)?;
                Ok(Moved::Done { replaced: None })
            }
            target => self
                .replace(cx, from, to, dirs, &source, target, flags, now)
                .map(|replaced| Moved::Done { replaced }),
        }
    }

    fn exchange(
        from: &Side<'_>,
        to: &Side<'_>,
        mut dirs: Dirs<'_>,
        source: &NodeArc,
        target: NodeArc,
        now: Timestamp,
    ) -> Result<()> {
        if dirs.across() {
            let full = |dir: &Inode| dir.nlink >= LINK_MAX;
            let one_way = source.is_dir() != target.is_dir();
            if one_way && (source.is_dir() && full(dirs.to()) || target.is_dir() && full(dirs.from))
            {
                return Err(Errno::EMLINK);
            }
        }
        let (mut source_inode, mut target_inode) = lock_two(source, &target);
        source_inode.changed(now);
        target_inode.changed(now);
        drop((source_inode, target_inode));
        dirs.target_entries()?.replace(to.hash, &to.name, Arc::clone(source));
        dirs.source_entries()?.replace(from.hash, &from.name, Arc::clone(&target));
        match (source.is_dir(), target.is_dir()) {
            (true, false) => dirs.dir_moved(),
            (false, true) => {
                if let Some(to) = &mut dirs.to {
                    to.nlink -= 1;
                    dirs.from.nlink += 1;
                }
            }
            _ => {}
        }
        if source.is_dir() {
            source.set_parent(to.dir.ino);
        }
        if target.is_dir() {
            target.set_parent(from.dir.ino);
        }
        dirs.modified(now);
        Ok(())
    }

    /// The rename without EXCHANGE. Gives the node whose name was replaced.
    #[expect(clippy::too_many_arguments, reason = "both sides, what is there, and how")]
    fn replace(
        &self,
        cx: &Context<'_>,
        from: &Side<'_>,
        to: &Side<'_>,
        mut dirs: Dirs<'_>,
        source: &NodeArc,
        target: Option<NodeArc>,
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Option<NodeArc>> {
        match &target {
            Some(target) if source.is_dir() && !target.is_dir() => return Err(Errno::ENOTDIR),
            Some(target) if !source.is_dir() && target.is_dir() => return Err(Errno::EISDIR),
            None if source.is_dir() && dirs.across() && dirs.to().nlink >= LINK_MAX => {
                return Err(Errno::EMLINK);
            }
            _ => {}
        }

        // What may fail comes first, and what is given up pays for what is new: a rename to a name
        // of the same length works in a full filesystem.
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        let new_cost = if target.is_none() { entry_cost(to.name.len()) } else { 0 };
        let old_cost = if whiteout { 0 } else { entry_cost(from.name.len()) };
        let hold = self.account.hold(new_cost.saturating_sub(old_cost), 0)?;
        let whiteout = if whiteout { Some(self.new_whiteout(cx, from, &dirs, now)?) } else { None };
        if target.is_none() {
            dirs.target_entries()?.reserve_one()?;
        }
        let enter = |whiteout: &Option<(NodeArc, Hold<'_>)>| match whiteout {
            Some((node, _)) => self.nodes.insert(node.ino, Arc::clone(node)),
            None => Ok(()),
        };
        match &target {
            Some(target) => {
                let (mut source_inode, mut target_inode) = lock_two(source, target);
                if target.is_dir() && target_inode.dir()?.len() != 0 {
                    return Err(Errno::ENOTEMPTY);
                }
                enter(&whiteout)?;
                if target.is_dir() {
                    target_inode.nlink = 0;
                    dirs.to().nlink -= 1;
                } else {
                    target_inode.nlink -= 1;
                }
                target_inode.changed(now);
                source_inode.changed(now);
            }
            None => {
                enter(&whiteout)?;
                source.write().changed(now);
            }
        }

        // The new name first: it must find the room that was reserved.
        let entries = dirs.target_entries()?;
        match &target {
            Some(_) => drop(entries.replace(to.hash, &to.name, Arc::clone(source))),
            None => entries.insert(to.hash, &to.name, Arc::clone(source)),
        }
        let entries = dirs.source_entries()?;
        match whiteout {
            Some((node, hold)) => {
                entries.replace(from.hash, &from.name, node);
                hold.keep();
            }
            None => drop(entries.remove(from.hash, &from.name)),
        }
        hold.keep();
        self.account.give_back(old_cost.saturating_sub(new_cost));
        if source.is_dir() {
            dirs.dir_moved();
            source.set_parent(to.dir.ino);
        }
        dirs.modified(now);
        Ok(target)
    }

    /// A whiteout for `from`, which no client has looked up.
    fn new_whiteout(
        &self,
        cx: &Context<'_>,
        from: &Side<'_>,
        dirs: &Dirs<'_>,
        now: Timestamp,
    ) -> Result<(NodeArc, Hold<'_>)> {
        let mode = FileType::CharDevice.mode_bits();
        let new = New { mode, rdev: 0, body: Body::None, now };
        let (node, hold) = self.new_node(cx, from.dir, dirs.from, new, 0)?;
        node.lower(1);
        Ok((node, hold))
    }
}

#[cfg(test)]
mod tests;
