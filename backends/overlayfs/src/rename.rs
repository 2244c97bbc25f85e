//! Moving names.
//!
//! The object is copied up first, whole or, of a directory, by itself: a record in it then says where
//! its lower parts are. The move is one rename in the writable layer, which leaves a whiteout behind
//! in the same step where a lower layer would show through.

use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use stratafs_core::{Attr, Context, Errno, Name, NameBuf, NodeId, RenameFlags, Result};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::format::{REDIRECT_MAX, Record, Redirect};
use crate::layer::Real;
use crate::links::Linked;
use crate::lookup::{Looked, Resolved, Slot};
use crate::merge::Listed;
use crate::node::{Node, Place};
use crate::table::Key;

/// How often a rename is tried anew when its names lead elsewhere meanwhile.
const TRIES: usize = 16;

/// One end of a rename.
struct Side<'a> {
    dir: &'a Arc<Node>,
    name: Name<'a>,
}

impl Side<'_> {
    fn is(&self, other: &Option<(Arc<Node>, NameBuf)>) -> bool {
        let same = |(dir, name): &(Arc<Node>, NameBuf)| {
            Arc::ptr_eq(dir, self.dir) && name.as_name() == self.name
        };
        other.as_ref().is_some_and(same)
    }

    fn place(&self) -> Option<(Arc<Node>, NameBuf)> {
        Some((Arc::clone(self.dir), self.name.to_owned()))
    }
}

/// What a locked rename came to.
enum Outcome {
    Done,
    /// A name leads elsewhere than when it was looked up.
    Changed,
}

impl OverlayFs {
    pub(crate) fn rename_name(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        // A whiteout is nothing that a client may make here.
        if !matches!(flags, RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) && !flags.is_empty() {
            return Err(Errno::EINVAL);
        }
        let (from_dir, to_dir) = (self.table.get(parent)?, self.table.get(new_parent)?);
        from_dir.require_dir()?;
        to_dir.require_dir()?;
        self.writable()?;
        let from = Side { dir: &from_dir, name };
        let to = Side { dir: &to_dir, name: new_name };
        for _ in 0..TRIES {
            if let Outcome::Done = self.try_rename(cx, &from, &to, flags)? {
                return Ok(());
            }
        }
        log::error!("overlay: a rename was overtaken {TRIES} times (EIO)");
        Err(Errno::EIO)
    }

    fn try_rename(
        &self,
        cx: &Context<'_>,
        from: &Side<'_>,
        to: &Side<'_>,
        flags: RenameFlags,
    ) -> Result<Outcome> {
        let exchange = flags == RenameFlags::EXCHANGE;
        let source = self.find_held(from.dir, from.name)?.ok_or(Errno::ENOENT)?;
        let target = self.find_held(to.dir, to.name)?;
        let (node, other) = (&source.node, target.as_ref().map(|target| &target.node));
        self.check_rename(from, to, node, other, flags)?;
        if other.is_some_and(|other| Arc::ptr_eq(node, other)) {
            return Ok(Outcome::Done);
        }
        self.make_movable(node)?;
        self.before_name_goes(node, from.dir, from.name)?;
        if let (true, Some(other)) = (exchange, other) {
            self.make_movable(other)?;
        }
        self.copy_up(to.dir, Data::All)?;
        if let Some(other) = other {
            self.before_name_goes(other, to.dir, to.name)?;
        }

        let same_dir = Arc::ptr_eq(from.dir, to.dir);
        // No directory moves to another meanwhile, so the order of the locks can follow the tree.
        let moves = (!same_dir).then(|| self.renames.lock());
        if !same_dir {
            self.check_ancestors(from, to, node, other, exchange)?;
        }
        let names = self.lock_names(from.dir, to.dir);
        let outcome = self.rename_locked(from, to, &source, target.as_ref(), exchange)?;
        drop(names);
        drop(moves);
        if let Outcome::Done = outcome {
            self.tell_entry(cx, from.dir, from.name);
            self.tell_entry(cx, to.dir, to.name);
        }
        Ok(outcome)
    }

    fn check_rename(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        node: &Arc<Node>,
        other: Option<&Arc<Node>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let exchange = flags == RenameFlags::EXCHANGE;
        let Some(other) = other else {
            if exchange {
                return Err(Errno::ENOENT);
            }
            return self.check_ancestors(from, to, node, None, false);
        };
        if flags == RenameFlags::NOREPLACE {
            return Err(Errno::EEXIST);
        }
        if Arc::ptr_eq(node, other) {
            return Ok(());
        }
        self.check_ancestors(from, to, node, Some(other), exchange)?;
        match (node.is_dir(), other.is_dir()) {
            (true, false) if !exchange => Err(Errno::ENOTDIR),
            (false, true) if !exchange => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    /// A directory does not become its own descendant, nor goes one that holds what is moved.
    fn check_ancestors(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        node: &Arc<Node>,
        other: Option<&Arc<Node>>,
        exchange: bool,
    ) -> Result<()> {
        if node.is_dir() && is_within(to.dir, node) {
            return Err(Errno::EINVAL);
        }
        match other {
            Some(other) if other.is_dir() && is_within(from.dir, other) => {
                Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY })
            }
            _ => Ok(()),
        }
    }

    /// Copies up what is to move. With lower parts a directory moves only where a record of them can
    /// be left; a file without, or with several names, gets its data first.
    fn make_movable(&self, node: &Arc<Node>) -> Result<()> {
        let place = node.place();
        if !self.options.makes_redirects() {
            if node.is_dir() && !place.lowers.is_empty() {
                return Err(Errno::EXDEV);
            }
            return self.copy_up(node, Data::All).map(drop);
        }
        let upper = self.copy_up(node, Data::Hole)?;
        let lacks_data = !node.is_dir() && node.see(Place::lacks_data);
        if lacks_data && (place.linked != Linked::No || upper.attr()?.nlink > 1) {
            self.copy_up(node, Data::All)?;
        }
        Ok(())
    }

    fn lock_names<'n>(
        &self,
        a: &'n Arc<Node>,
        b: &'n Arc<Node>,
    ) -> (RwLockWriteGuard<'n, ()>, Option<RwLockWriteGuard<'n, ()>>) {
        if Arc::ptr_eq(a, b) {
            return (a.names.write(), None);
        }
        let a_first = is_within(b, a) || (!is_within(a, b) && a.id < b.id);
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let first = first.names.write();
        (first, Some(second.names.write()))
    }

    /// The rename, with the names of both directories locked.
    fn rename_locked(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: &Looked<'_>,
        target: Option<&Looked<'_>>,
        exchange: bool,
    ) -> Result<Outcome> {
        let (from_place, to_place) = (from.dir.place(), to.dir.place());
        if from_place.removed || to_place.removed {
            return Err(Errno::ENOENT);
        }
        let (Some(from_upper), Some(to_upper)) = (&from_place.upper, &to_place.upper) else {
            return Ok(Outcome::Changed);
        };
        let at_from = self.resolve(&from_place, from.name)?;
        let at_to = self.resolve(&to_place, to.name)?;
        let key = |side: &Side<'_>, object: &Option<crate::lookup::Object>| {
            object.as_ref().map(|object| object.key(side.dir.id, side.name))
        };
        let still = |key: Option<Key>, node: Option<&Arc<Node>>| match (key, node) {
            (Some(key), Some(node)) => node.key().lock().as_ref() == Some(&key),
            (None, None) => true,
            _ => false,
        };
        if !still(key(from, &at_from.object), Some(&source.node))
            || !still(key(to, &at_to.object), target.map(|target| &target.node))
        {
            return Ok(Outcome::Changed);
        }
        let node = &source.node;
        let named_above = |at: &Resolved| {
            at.slot == Slot::Object
                || at.object.as_ref().is_none_or(|object| object.linked == Linked::No)
        };
        if !named_above(&at_from) || !named_above(&at_to) {
            return Ok(Outcome::Changed);
        }
        let same_dir = Arc::ptr_eq(from.dir, to.dir);
        let other_names = target
            .filter(|other| !exchange && other.node.is_dir())
            .map(|other| other.node.names.write());
        if other_names.is_some()
            && let Some(other) = target
        {
            let place = other.node.place();
            if !self.is_empty(&place)? {
                return Err(Errno::ENOTEMPTY);
            }
            self.clear(to_upper, to.name, &other.node, &place)?;
        }
        self.prepare(node, from, &to_place, to.name, same_dir)?;
        self.note_origin(node, to_upper)?;
        if let (true, Some(other)) = (exchange, target) {
            self.prepare(&other.node, to, &from_place, from.name, same_dir)?;
            self.note_origin(&other.node, from_upper)?;
        }
        let ends = Ends { from: (from_upper, from.name), to: (to_upper, to.name) };
        if exchange {
            ends.rename(RenameFlags::EXCHANGE)?;
        } else {
            let below = self.shows_below(&from_place, from.name)?;
            self.move_over(&ends, node.is_dir(), below, at_to.slot)?;
        }
        self.moved(from, to, node, target.map(|target| &target.node), exchange);
        drop(other_names);
        Ok(Outcome::Done)
    }

    /// The one step of a rename that is no exchange. `below`: a lower layer shows something under the
    /// old name; `slot`: what the writable layer has under the new one.
    fn move_over(&self, ends: &Ends<'_>, is_dir: bool, below: bool, slot: Slot) -> Result<()> {
        match (below, slot) {
            // The whiteout that is there is the one that is needed.
            (true, Slot::Whiteout) => ends.rename(RenameFlags::EXCHANGE),
            (true, _) => ends.rename(RenameFlags::WHITEOUT),
            // A directory can't replace it.
            (false, Slot::Whiteout) if is_dir => {
                ends.rename(RenameFlags::EXCHANGE)?;
                let (dir, name) = ends.from;
                if let Err(errno) = dir.fs().unlink(&Context::internal(), dir.id(), name) {
                    log::warn!("overlay: a whiteout stays that hides nothing: {errno}");
                }
                Ok(())
            }
            (false, _) => ends.rename(RenameFlags::empty()),
        }
    }

    /// Makes a directory that is empty to the client empty in the writable layer, so that it can be
    /// replaced: an opaque one without whiteouts takes its place.
    fn clear(&self, dir: &Real, name: Name<'_>, node: &Arc<Node>, place: &Place) -> Result<()> {
        let Some(upper) = &place.upper else { return Ok(()) };
        if upper.list()?.is_empty() {
            return Ok(());
        }
        let attr: Attr = upper.attr()?;
        let (mut staged, fresh) = self.stage_copy(upper, &attr, Data::All)?;
        fresh.set_xattr(self.names.name(Record::Opaque), b"y")?;
        staged.exchange(dir, name, true)?;
        self.table.rekey(node, Some(Key::Upper(fresh.id())));
        let old = node.change(|place| {
            let lowers = std::mem::take(&mut place.lowers);
            (place.upper.replace(fresh), lowers)
        });
        drop(old);
        Ok(())
    }

    /// Makes `node`, which is at `at` now, ready to be under `name` in the directory `to`: its lower
    /// parts, or that it has none, must go with it.
    fn prepare(
        &self,
        node: &Arc<Node>,
        at: &Side<'_>,
        to: &Place,
        name: Name<'_>,
        same_dir: bool,
    ) -> Result<()> {
        let place = node.place();
        if !node.is_dir() && !place.lacks_data() {
            return Ok(());
        }
        let Some(upper) = &place.upper else { return Err(Errno::EIO) };
        if !place.lowers.is_empty() {
            return self.set_redirect(node, upper, &place, at, same_dir);
        }
        if self.shows_below(to, name)? {
            upper.set_xattr(self.names.name(Record::Opaque), b"y")?;
        }
        Ok(())
    }

    /// Records where the lower parts of `node` are, which is where it is now.
    fn set_redirect(
        &self,
        node: &Arc<Node>,
        upper: &Real,
        place: &Place,
        at: &Side<'_>,
        same_dir: bool,
    ) -> Result<()> {
        let redirect = match (&place.redirect, same_dir) {
            (Some(Redirect::Absolute(_)), _) | (Some(_), true) => return Ok(()),
            (None, true) => Redirect::Sibling(at.name.to_owned()),
            (_, false) => Redirect::Absolute(lower_path(node)),
        };
        let value = redirect.value();
        if value.len() > REDIRECT_MAX {
            return Err(Errno::EXDEV);
        }
        upper.set_xattr(self.names.name(Record::Redirect), &value)?;
        node.change(|place| place.redirect = Some(redirect));
        Ok(())
    }

    /// If `node` came from below, the directory `dir` that it moves to says so.
    fn note_origin(&self, node: &Node, dir: &Real) -> Result<()> {
        let came = node.see(|place| !place.lowers.is_empty()) || !self.is_own_ino(node)?;
        if came { self.mark_impure(dir) } else { Ok(()) }
    }

    /// Brings nodes and listings in step with a rename that was done.
    fn moved(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        node: &Arc<Node>,
        other: Option<&Arc<Node>>,
        exchange: bool,
    ) {
        let entry = |side: &Side<'_>, node: &Node| Listed {
            name: side.name.to_owned(),
            ino: node.ino(),
            kind: node.kind,
        };
        match other {
            Some(other) if exchange => {
                self.index_add(from.dir, entry(from, other));
                relocate(other, to, from);
            }
            other => {
                self.index_remove(from.dir, from.name);
                if let Some(other) = other {
                    self.mark_removed(other);
                    self.after_name_went(other);
                }
            }
        }
        self.index_add(to.dir, entry(to, node));
        relocate(node, from, to);
    }
}

/// Both ends of a rename in the writable layer.
struct Ends<'a> {
    from: (&'a Real, Name<'a>),
    to: (&'a Real, Name<'a>),
}

impl Ends<'_> {
    fn rename(&self, flags: RenameFlags) -> Result<()> {
        let ((dir, name), (new_dir, new_name)) = (self.from, self.to);
        let cx = Context::internal();
        dir.fs().rename(&cx, dir.id(), name, new_dir.id(), new_name, flags)
    }
}

/// A node that was known to be at `from` is at `to`.
fn relocate(node: &Arc<Node>, from: &Side<'_>, to: &Side<'_>) {
    let old = node.change(|place| {
        if from.is(&place.parent) { std::mem::replace(&mut place.parent, to.place()) } else { None }
    });
    drop(old);
}

/// Whether `node` is the directory `ancestor` or somewhere in it.
fn is_within(node: &Arc<Node>, ancestor: &Arc<Node>) -> bool {
    let mut at = Arc::clone(node);
    loop {
        if Arc::ptr_eq(&at, ancestor) {
            return true;
        }
        match at.parent() {
            Some((parent, _)) => at = parent,
            None => return false,
        }
    }
}

/// The path under which the lower parts of `node` are found, from the root of the layers.
fn lower_path(node: &Arc<Node>) -> Vec<NameBuf> {
    let mut reversed = Vec::new();
    let mut at = Arc::clone(node);
    while let Some((parent, name)) = at.parent() {
        match at.place().redirect {
            Some(Redirect::Absolute(names)) => {
                reversed.extend(names.into_iter().rev());
                break;
            }
            Some(Redirect::Sibling(name)) => reversed.push(name),
            None => reversed.push(name),
        }
        at = parent;
    }
    reversed.reverse();
    reversed
}
