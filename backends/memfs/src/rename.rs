//! Moving names.

use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use stratafs_core::{Context, Errno, FileType, Name, NodeId, RenameFlags, Result, Timestamp};

use crate::MemFs;
use crate::charge::{Hold, entry_cost};
use crate::create::{LINK_MAX, New};
use crate::entries::Entries;
use crate::node::{Body, Inode, Node, NodeArc};

/// One side of a rename.
struct Side<'a> {
    dir: &'a NodeArc,
    hash: u64,
    name: Name<'a>,
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
fn lock_two<'a>(
    a: &'a Node,
    b: &'a Node,
) -> (RwLockWriteGuard<'a, Inode>, RwLockWriteGuard<'a, Inode>) {
    if a.ino < b.ino {
        let first = a.inode.write();
        (first, b.inode.write())
    } else {
        let first = b.inode.write();
        (a.inode.write(), first)
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
        let replaced = if parent == new_parent {
            let mut inode = from_dir.inode.write();
            let dirs = Dirs { from: &mut inode, to: None };
            self.move_locked(cx, &from, &to, dirs, flags, now)?
        } else {
            // No directory moves meanwhile, so the order of the locks can follow the tree.
            let _renames = self.renames.lock();
            let from_first = self.is_within(&to_dir, parent.0)
                || (!self.is_within(&from_dir, new_parent.0) && parent < new_parent);
            let (mut from_inode, mut to_inode);
            if from_first {
                from_inode = from_dir.inode.write();
                to_inode = to_dir.inode.write();
            } else {
                to_inode = to_dir.inode.write();
                from_inode = from_dir.inode.write();
            }
            let dirs = Dirs { from: &mut from_inode, to: Some(&mut to_inode) };
            self.move_locked(cx, &from, &to, dirs, flags, now)?
        };
        if let Some(node) = replaced {
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

    /// The rename, with the directories locked. Gives the node whose name was replaced.
    fn move_locked(
        &self,
        cx: &Context<'_>,
        from: &Side<'_>,
        to: &Side<'_>,
        mut dirs: Dirs<'_>,
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Option<NodeArc>> {
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
            return Ok(None);
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
                Self::exchange(from, to, dirs, &source, target, now).map(|()| None)
            }
            target => self.replace(cx, from, to, dirs, &source, target, flags, now),
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
                source.inode.write().changed(now);
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
mod tests {
    use stratafs_core::DynFileSystem;

    use super::*;
    use crate::test_util::{Fixture, ROOT, name, root};
    use crate::{ByteSize, SizeExt};

    const NONE: RenameFlags = RenameFlags::empty();
    const NOREPLACE: RenameFlags = RenameFlags::NOREPLACE;
    const EXCHANGE: RenameFlags = RenameFlags::EXCHANGE;
    const WHITEOUT: RenameFlags = RenameFlags::WHITEOUT;

    /// `a/` and `b/` in the root, `a/f` and `b/g` files, `a/d/` and `b/e/` empty directories.
    struct Tree {
        fx: Fixture,
        a: NodeId,
        b: NodeId,
        f: NodeId,
        d: NodeId,
        e: NodeId,
    }

    fn tree() -> Tree {
        let fx = Fixture::new();
        let (a, b) = (fx.mkdir(ROOT, "a"), fx.mkdir(ROOT, "b"));
        let (f, _) = (fx.file(a, "f"), fx.file(b, "g"));
        let (d, e) = (fx.mkdir(a, "d"), fx.mkdir(b, "e"));
        Tree { fx, a, b, f, d, e }
    }

    #[test]
    fn rename_refuses_what_the_kernel_refuses_and_changes_nothing() {
        let Tree { fx, a, b, d, .. } = tree();
        fx.file(d, "inner");
        let before = (fx.usage(), fx.attr(a), fx.attr(b), fx.list(a, 0, 9), fx.list(b, 0, 9));
        for (from, to, flags, errno) in [
            ((a, "x"), (b, "y"), NONE, Errno::ENOENT),
            ((a, "x"), (a, "x"), NONE, Errno::ENOENT),
            ((a, "f"), (b, "g"), NOREPLACE, Errno::EEXIST),
            ((a, "f"), (a, "f"), NOREPLACE, Errno::EEXIST),
            ((a, "f"), (b, "x"), EXCHANGE, Errno::ENOENT),
            ((a, "f"), (b, "e"), NONE, Errno::EISDIR),
            ((b, "e"), (a, "f"), NONE, Errno::ENOTDIR),
            ((b, "e"), (a, "d"), NONE, Errno::ENOTEMPTY),
            ((ROOT, "a"), (d, "x"), NONE, Errno::EINVAL),
            ((ROOT, "a"), (a, "x"), NONE, Errno::EINVAL),
            ((ROOT, "a"), (d, "inner"), EXCHANGE, Errno::EINVAL),
            ((d, "inner"), (ROOT, "a"), EXCHANGE, Errno::EINVAL),
            ((d, "inner"), (ROOT, "a"), NONE, Errno::ENOTEMPTY),
            ((a, "d"), (ROOT, "a"), NONE, Errno::ENOTEMPTY),
            ((a, "f"), (b, "g"), EXCHANGE.union(NOREPLACE), Errno::EINVAL),
            ((a, "f"), (b, "g"), EXCHANGE.union(WHITEOUT), Errno::EINVAL),
            ((a, "f"), (b, "g"), RenameFlags::from_bits_retain(8), Errno::EINVAL),
            ((NodeId(999), "f"), (b, "g"), NONE, Errno::ESTALE),
        ] {
            assert_eq!(fx.rename(from, to, flags), Err(errno), "{from:?} {to:?} {flags:?}");
        }
        let after = (fx.usage(), fx.attr(a), fx.attr(b), fx.list(a, 0, 9), fx.list(b, 0, 9));
        assert_eq!(after, before);
    }

    #[test]
    fn rename_moves_a_file_and_sets_times() {
        let Tree { fx, a, b, f, .. } = tree();
        let used = fx.usage().bytes;
        let now = fx.tick();
        fx.rename((a, "f"), (b, "h"), NONE).unwrap();
        assert_eq!(fx.find(b, "h").unwrap().node, f);
        assert_eq!(fx.find(a, "f").unwrap_err(), Errno::ENOENT);
        assert_eq!((fx.attr(a).mtime, fx.attr(b).mtime, fx.attr(f).ctime), (now, now, now));
        assert_eq!(fx.usage().bytes, used);
    }

    #[test]
    fn rename_of_a_directory_moves_its_dotdot_and_counts() {
        let Tree { fx, a, b, d, .. } = tree();
        fx.rename((a, "d"), (b, "d2"), NONE).unwrap();
        assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink), (2, 4));
        assert_eq!(fx.fs.node(d).unwrap().parent(), b.0);
        fx.rename((ROOT, "a"), (d, "a"), NONE).unwrap();
        assert_eq!(fx.rename((b, "d2"), (a, "x"), NONE), Err(Errno::EINVAL));
        assert_eq!(fx.attr(ROOT).nlink, 3);
    }

    #[test]
    fn rename_over_a_file_removes_it_but_its_handle_stays() {
        let Tree { fx, a, b, f, .. } = tree();
        let g = fx.find(b, "g").unwrap().node;
        fx.write(g, 0, b"old").unwrap();
        let used = fx.usage().bytes;
        let now = fx.tick();
        fx.rename((a, "f"), (b, "g"), NONE).unwrap();
        assert_eq!(fx.find(b, "g").unwrap().node, f);
        assert_eq!((fx.attr(g).nlink, fx.attr(g).ctime), (0, now));
        assert_eq!(fx.read(g, 0, 9).unwrap(), b"old");
        fx.forget(g);
        assert!(fx.usage().bytes < used);
    }

    #[test]
    fn rename_over_an_empty_directory_removes_it() {
        let Tree { fx, a, b, d, e, .. } = tree();
        fx.rename((a, "d"), (b, "e"), NONE).unwrap();
        assert_eq!(fx.find(b, "e").unwrap().node, d);
        assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink, fx.attr(e).nlink), (2, 3, 0));
        let made = fx.fs.mkdir(&root(), e, name("x"), 0);
        assert_eq!(made.unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn rename_between_two_names_of_one_file_does_nothing() {
        let Tree { fx, a, b, f, .. } = tree();
        fx.fs.link(&root(), f, b, name("link")).unwrap();
        let before = (fx.usage(), fx.attr(f), fx.attr(a), fx.attr(b));
        fx.tick();
        for flags in [NONE, EXCHANGE, WHITEOUT] {
            fx.rename((a, "f"), (b, "link"), flags).unwrap();
            fx.rename((a, "f"), (a, "f"), flags).unwrap();
        }
        assert_eq!((fx.usage(), fx.attr(f), fx.attr(a), fx.attr(b)), before);
    }

    #[test]
    fn rename_with_exchange_swaps_a_file_and_a_directory() {
        let Tree { fx, a, b, f, e, .. } = tree();
        let used = fx.usage();
        let now = fx.tick();
        fx.rename((a, "f"), (b, "e"), EXCHANGE).unwrap();
        assert_eq!(fx.find(a, "f").unwrap().node, e);
        assert_eq!(fx.find(b, "e").unwrap().node, f);
        assert_eq!((fx.attr(a).nlink, fx.attr(b).nlink), (4, 2));
        assert_eq!(fx.fs.node(e).unwrap().parent(), a.0);
        assert_eq!((fx.attr(e).ctime, fx.attr(f).ctime, fx.attr(a).mtime), (now, now, now));
        assert_eq!(fx.usage().bytes, used.bytes);
        fx.rename((a, "f"), (b, "e"), EXCHANGE).unwrap();
        fx.rename((a, "f"), (a, "d"), EXCHANGE).unwrap();
        assert_eq!(fx.find(a, "d").unwrap().node, f);
    }

    #[test]
    fn rename_with_whiteout_leaves_a_device_under_the_old_name() {
        let Tree { fx, a, b, f, .. } = tree();
        let used = fx.usage();
        fx.rename((a, "f"), (b, "h"), WHITEOUT).unwrap();
        assert_eq!(fx.find(b, "h").unwrap().node, f);
        let whiteout = fx.find(a, "f").unwrap();
        assert_eq!((whiteout.attr.mode, whiteout.attr.rdev), (0o020_000, 0));
        fx.fs.forget(whiteout.node, 1);
        assert_eq!(fx.usage().inodes, used.inodes + 1);
        fx.unlink(a, "f").unwrap();
        fx.rename((b, "h"), (a, "f"), NONE).unwrap();
        fx.fs.forget(f, 1);
        assert_eq!(fx.usage(), used);
        fx.rename((a, "f"), (a, "f2"), WHITEOUT | NOREPLACE).unwrap();
        assert_eq!(fx.find(a, "f").unwrap().attr.mode, 0o020_000);
    }

    #[test]
    fn rename_in_a_full_filesystem_works_for_a_name_no_longer() {
        let fx = Fixture::with(|b| b.capacity(8.kib()));
        fx.mkdir(ROOT, "d");
        fx.file(ROOT, "old name of 24 bytes ok!");
        let file = fx.file(ROOT, "fill");
        let mut at = 0;
        while fx.write(file, at, b"x").is_ok() {
            at += 4096;
        }
        let d = fx.find(ROOT, "d").unwrap().node;
        let long = "n".repeat(255);
        let old = (ROOT, "old name of 24 bytes ok!");
        assert_eq!(fx.rename(old, (d, &long), NONE), Err(Errno::ENOSPC));
        assert_eq!(fx.rename(old, (d, "x"), WHITEOUT), Err(Errno::ENOSPC));
        fx.rename(old, (d, "new name of 24 bytes ok!"), NONE).unwrap();
        assert!(ByteSize(fx.usage().bytes) <= 8.kib());
    }

    #[test]
    fn renames_against_each_other_and_the_tree_do_not_deadlock() {
        let Tree { fx, a, b, d, e, .. } = tree();
        let dirs = [(ROOT, "a"), (ROOT, "b"), (a, "d"), (b, "e"), (d, "x"), (e, "x")];
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let fx = &fx;
                scope.spawn(move || {
                    let mut seed = thread as u64 + 1;
                    for _ in 0..20_000 {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                        let pick = |shift: u32| dirs[(seed >> shift) as usize % dirs.len()];
                        let (from, to) = (pick(33), pick(43));
                        let _ = match (seed >> 53) % 6 {
                            0 => fx.rmdir(from.0, from.1),
                            1 => fx.fs.mkdir(&root(), from.0, name(from.1), 0o755).map(drop),
                            2 => fx.rename(from, to, EXCHANGE),
                            3 => fx.find(from.0, from.1).map(drop),
                            _ => fx.rename(from, to, NONE),
                        };
                    }
                });
            }
        });
        // Whatever happened, counts and parents agree with the entries.
        fx.fs.nodes.each(|dir| {
            let inode = dir.inode.read();
            let Ok(entries) = inode.dir() else { return };
            let below: Vec<_> = entries.after(0).filter(|(_, node)| node.is_dir()).collect();
            if inode.nlink != 0 {
                assert_eq!(inode.nlink as usize, 2 + below.len());
            }
            for (_, node) in below {
                assert_eq!(node.parent(), dir.ino);
            }
        });
    }
}
