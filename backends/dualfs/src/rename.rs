//! Moving names.
//!
//! What moves is on the written side as a whole before it does. The move is one rename there; where
//! the other side would show something under the old name, that leaves a whiteout.

use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use stratafs_core::{Context, Errno, Name, NameBuf, NodeId, OpKind, RenameFlags, Result};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::lookup::{Looked, Slot, View};
use crate::merge::Listed;
use crate::node::Node;
use crate::policy::Request;
use crate::record::Record;
use crate::remove::refused_hidden;
use crate::side::{Part, Real};

/// How often a rename is tried anew when its names lead elsewhere meanwhile.
const TRIES: usize = 16;

/// One end of a rename.
struct End<'a> {
    dir: &'a Arc<Node>,
    name: Name<'a>,
}

impl End<'_> {
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

impl DualFs {
    pub(crate) fn rename_name(
        &self,
        cx: &Context<'_>,
        (parent, name): (NodeId, Name<'_>),
        (new_parent, new_name): (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Result<()> {
        let leaves = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
        let leaves_whiteout = leaves.contains(flags) && self.makes_whiteouts();
        if !matches!(flags, RenameFlags::NOREPLACE | RenameFlags::EXCHANGE)
            && !flags.is_empty()
            && !leaves_whiteout
        {
            return Err(Errno::EINVAL);
        }
        let (from_dir, to_dir) = (self.table.get(parent)?, self.table.get(new_parent)?);
        from_dir.require_dir()?;
        to_dir.require_dir()?;
        let from = End { dir: &from_dir, name };
        let to = End { dir: &to_dir, name: new_name };
        for _ in 0..TRIES {
            if let Outcome::Done = self.try_rename(cx, &from, &to, flags)? {
                return Ok(());
            }
        }
        log::error!("dual: a rename was overtaken {TRIES} times (EIO)");
        Err(Errno::EIO)
    }

    fn try_rename(
        &self,
        cx: &Context<'_>,
        from: &End<'_>,
        to: &End<'_>,
        flags: RenameFlags,
    ) -> Result<Outcome> {
        let exchange = flags == RenameFlags::EXCHANGE;
        let source = self.find_held(from.dir, from.name)?.ok_or(Errno::ENOENT)?;
        let target = self.find_held(to.dir, to.name)?;
        let (node, other) = (&source.node, target.as_ref().map(|target| &target.node));
        self.check(from, to, node, other, flags)?;
        if other.is_some_and(|other| Arc::ptr_eq(node, other)) {
            return Ok(Outcome::Done);
        }
        let request = Request::new(OpKind::Rename, true).named(from.name);
        self.to_move(request, node)?;
        if let Some(other) = other {
            let request = request.named(to.name);
            if exchange {
                self.to_move(request, other)?;
            } else {
                self.may_hide(request, other)?;
                self.count_names(request, other)?;
            }
        }
        self.to_write(request, from.dir, Data::All)?;
        self.to_write(request, to.dir, Data::All)?;

        let same_dir = Arc::ptr_eq(from.dir, to.dir);
        // No directory moves to another meanwhile, so the order of the locks can follow the tree.
        let moves = (!same_dir).then(|| self.renames.lock());
        if !same_dir {
            self.check_ancestors(from, to, node, other, exchange)?;
        }
        let names = lock_names(from.dir, to.dir);
        let outcome = self.rename_locked(from, to, &source, target.as_ref(), flags)?;
        drop(names);
        drop(moves);
        if let Outcome::Done = outcome {
            self.tell_entry(cx, from.dir, from.name);
            self.tell_entry(cx, to.dir, to.name);
        }
        Ok(outcome)
    }

    fn check(
        &self,
        from: &End<'_>,
        to: &End<'_>,
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
        if flags.contains(RenameFlags::NOREPLACE) {
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
        from: &End<'_>,
        to: &End<'_>,
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

    /// The rename, with the names of both directories locked.
    fn rename_locked(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        source: &Looked<'_>,
        target: Option<&Looked<'_>>,
        flags: RenameFlags,
    ) -> Result<Outcome> {
        let exchange = flags == RenameFlags::EXCHANGE;
        let (from_view, to_view) = (from.dir.view(), to.dir.view());
        if from_view.removed || to_view.removed {
            return Err(Errno::ENOENT);
        }
        let (Some(from_real), Some(to_real)) = (&from_view.written, &to_view.written) else {
            return Ok(Outcome::Changed);
        };
        let at_from = self.resolve(&from_view, from.name)?;
        let at_to = self.resolve(&to_view, to.name)?;
        let (node, other) = (&source.node, target.map(|target| &target.node));
        if !self.is_still(at_from.object.as_ref(), Some(node))
            || !self.is_still(at_to.object.as_ref(), other)
        {
            return Ok(Outcome::Changed);
        }
        let is_whole = |node: &Node| {
            !node.is_dir() || node.with_place(|p| p.written.is_some() && p.other.is_none())
        };
        if !is_whole(node) || (exchange && other.is_some_and(|other| !is_whole(other))) {
            return Ok(Outcome::Changed);
        }
        if at_from.is_alias() {
            self.name_alias(&from_view, from.name)?;
        }
        if exchange && at_to.is_alias() {
            self.name_alias(&to_view, to.name)?;
        }
        let mut slot = at_to.slot;
        if !exchange && at_to.hides_written() {
            let hidden = to_real.child(to.name)?;
            if hidden.is_some_and(|hidden| hidden.is_dir()) {
                return Err(refused_hidden(to.name));
            }
            if node.is_dir() {
                // It takes the place of a mark, not of a file.
                self.mark_impure(to.dir)?;
                self.hide(to_real, to.name, &at_to)?;
                slot = Slot::Whiteout;
            }
        }
        let other_names =
            other.filter(|other| !exchange && other.is_dir()).map(|other| other.names.write());
        if let (Some(_), Some(other)) = (&other_names, other)
            && !self.is_empty(&other.view())?
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.prepare(node, from.dir, to, &to_view)?;
        let ends = Ends { from: (from_real, from.name), to: (to_real, to.name) };
        if let (true, Some(other)) = (exchange, other) {
            self.prepare(other, to.dir, from, &from_view)?;
            ends.rename(RenameFlags::EXCHANGE)?;
        } else if flags.contains(RenameFlags::WHITEOUT) {
            let act = || self.leave_whiteout(&ends, node, slot);
            match other {
                Some(other) => self.losing_name(other, &at_to, act)?,
                None => act()?,
            }
            // What is left is nothing that was looked up yet.
            *from.dir.index.lock() = None;
        } else {
            let below = self.shows_below(&from_view, from.name)?;
            if below {
                self.mark_impure(from.dir)?;
            }
            let act = || self.move_over(&ends, node, below, slot);
            match other {
                Some(other) => self.losing_name(other, &at_to, act)?,
                None => act()?,
            }
        }
        self.moved(from, to, node, other, exchange);
        drop(other_names);
        Ok(Outcome::Done)
    }

    /// Makes `node`, which is in the directory `from` now, ready to be at `to`: what the other side
    /// has there must not show in it or in its place, and listings must look for its records.
    fn prepare(&self, node: &Node, from: &Node, to: &End<'_>, view: &View) -> Result<()> {
        let real = node.written().ok_or(Errno::EIO)?;
        let mut careful = from.view().careful || node.links().lock().is_some();
        if self.shows_below(view, to.name)? && self.takes_records(node.kind) {
            let record = if node.is_dir() { Record::Opaque } else { Record::Written };
            real.set_record(self.names.name(record), b"y")?;
            careful = true;
        }
        if careful { self.mark_impure(to.dir) } else { Ok(()) }
    }

    /// The one step of a rename that is no exchange. `below`: the other side shows something under
    /// the old name; `slot`: what the written side has under the new one.
    fn move_over(&self, ends: &Ends<'_>, node: &Node, below: bool, slot: Slot) -> Result<()> {
        let ((from_dir, from), (to_dir, to)) = (ends.from, ends.to);
        let cx = Context::internal();
        match (below, slot) {
            (false, Slot::Absent) => ends.rename(RenameFlags::NOREPLACE),
            (false, Slot::Whiteout) if !node.is_dir() => ends.rename(RenameFlags::empty()),
            (false, Slot::Whiteout) => {
                ends.rename(RenameFlags::EXCHANGE)?;
                if let Err(errno) = from_dir.fs().unlink(&cx, from_dir.id(), from) {
                    log::warn!("dual: a whiteout stays that hides nothing: {errno}");
                }
                Ok(())
            }
            (false, Slot::Object) => match ends.rename(RenameFlags::empty()) {
                // It is empty to the client, but for whiteouts.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if node.is_dir() => {
                    ends.rename(RenameFlags::EXCHANGE)?;
                    self.set_aside(from_dir, from)
                }
                done => done,
            },
            // The whiteout that is there is the one that is needed.
            (true, Slot::Whiteout) => ends.rename(RenameFlags::EXCHANGE),
            (true, Slot::Absent) => {
                // Under a name that leads to nothing it changes nothing.
                self.stage_whiteout()?.publish(to_dir, to, RenameFlags::NOREPLACE)?;
                ends.rename(RenameFlags::EXCHANGE).inspect_err(|_| {
                    if let Err(errno) = to_dir.fs().unlink(&cx, to_dir.id(), to) {
                        log::warn!("dual: a whiteout stays that hides nothing: {errno}");
                    }
                })
            }
            (true, Slot::Object) => self.replace_and_hide(ends, node),
        }
    }

    /// RENAME_WHITEOUT, by a layering filesystem that has this as its writable layer: a device 0:0
    /// takes the old name, which is an object like another to us and hides what the other side has.
    fn leave_whiteout(&self, ends: &Ends<'_>, node: &Node, slot: Slot) -> Result<()> {
        let replaces_nothing = slot == Slot::Absent || !node.is_dir();
        match ends.rename(RenameFlags::WHITEOUT) {
            // A mark of ours is there, or in what is there.
            Err(Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EEXIST) if !replaces_nothing => {
                let (to_dir, to) = ends.to;
                let work = &self.staging()?.work;
                let mut staged = self.stage(true)?;
                let cx = Context::internal();
                let entry = work.fs().mkdir(&cx, work.id(), staged.name(), 0o700)?;
                let made = Part::adopt(work.side, work.fs(), entry).kept();
                staged = staged.made();
                made.set_record(self.names.name(Record::Opaque), b"y")?;
                staged.exchange(to_dir, to, slot == Slot::Object)?;
                ends.rename(RenameFlags::WHITEOUT)
            }
            done => done,
        }
    }

    /// Replaces an object by another under whose old name a whiteout is needed. A crash between the
    /// steps leaves a file with both names, as rename(2) allows; and an empty directory under the old
    /// name of a directory.
    fn replace_and_hide(&self, ends: &Ends<'_>, node: &Node) -> Result<()> {
        let ((from_dir, from), (to_dir, to)) = (ends.from, ends.to);
        let mut whiteout = self.stage_whiteout()?;
        if node.is_dir() {
            ends.rename(RenameFlags::EXCHANGE)?;
            return whiteout.exchange(from_dir, from, true);
        }
        let real = node.written().ok_or(Errno::EIO)?;
        let mut name = self.stage(false)?;
        let work = &self.staging()?.work;
        let cx = Context::internal();
        match work.fs().link(&cx, real.id(), work.id(), name.name()) {
            Ok(entry) => {
                drop(Part::adopt(work.side, work.fs(), entry));
                name = name.made();
                name.publish(to_dir, to, RenameFlags::empty())?;
            }
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK) => {
                ends.rename(RenameFlags::EXCHANGE)?;
            }
            Err(errno) => return Err(errno),
        }
        whiteout.publish(from_dir, from, RenameFlags::empty())
    }

    /// Brings nodes and listings in step with a rename that was done.
    fn moved(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        node: &Arc<Node>,
        other: Option<&Arc<Node>>,
        exchange: bool,
    ) {
        let entry = |end: &End<'_>, node: &Node| Listed {
            name: end.name.to_owned(),
            ino: node.ino(),
            kind: node.kind,
        };
        match other {
            Some(other) if exchange => {
                self.index_add(from.dir, entry(from, other));
                relocate(other, to, from);
            }
            _ => self.index_remove(from.dir, from.name),
        }
        self.index_add(to.dir, entry(to, node));
        relocate(node, from, to);
    }
}

fn lock_names<'n>(
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

/// Both ends of a rename on the written side.
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
fn relocate(node: &Arc<Node>, from: &End<'_>, to: &End<'_>) {
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
