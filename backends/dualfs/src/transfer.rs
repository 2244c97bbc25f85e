//! Transfer: giving an object of the other side one on the side that is written.
//!
//! The copy is made in the staging directory and moved to its place by one rename, so that a failure
//! leaves both sides as they were. Parents come first. One thread copies, and who comes meanwhile
//! waits for it; no other object is held up. Each copy has its own files and buffers.

use std::sync::Arc;

use stratafs_core::{Attr, Context, Errno, FileType, RenameFlags, Result, SetAttr, SetTime};
use stratafs_transfer::{Data, Options, Source, Target};

use crate::DualFs;
use crate::node::Node;
use crate::record::Record;
use crate::remove::refused_hidden;
use crate::side::Real;
use crate::stage::Staged;
use crate::table::Key;

impl DualFs {
    /// The object of `node` on the written side, transferred if there is none yet. `data` says with
    /// which data, of a regular file.
    ///
    /// No lock of names may be held: those of the parents are taken.
    pub(crate) fn transfer(&self, node: &Arc<Node>, data: Data) -> Result<Real> {
        self.transfer_set(node, data, None).map(|(real, _)| real)
    }

    /// As [`transfer`](Self::transfer), with attributes changed as `set` says before the copy shows.
    /// What they are then is given too, unless another thread was first.
    pub(crate) fn transfer_set(
        &self,
        node: &Arc<Node>,
        data: Data,
        set: Option<(&Context<'_>, &SetAttr)>,
    ) -> Result<(Real, Option<Attr>)> {
        // The topmost first, one at a time: a tree may be deeper than a stack.
        let mut ancestors = Vec::new();
        let mut at = node.parent();
        while let Some((parent, _)) = at
            && parent.written().is_none()
        {
            at = parent.parent();
            ancestors.push(parent);
        }
        while let Some(parent) = ancestors.pop() {
            self.transfer_alone(&parent, Data::All, None)?;
        }
        self.transfer_alone(node, data, set)
    }

    /// Transfers an object whose parent is on the written side. What is there only by another's doing
    /// stays there, and what is on the other side alone does not move, so the parent stays where it is.
    fn transfer_alone(
        &self,
        node: &Arc<Node>,
        data: Data,
        set: Option<(&Context<'_>, &SetAttr)>,
    ) -> Result<(Real, Option<Attr>)> {
        let _transferring = node.transferring.lock();
        let place = node.place();
        if let Some(real) = place.written {
            return Ok((real, None));
        }
        let source = place.other.ok_or(Errno::EIO)?;
        let parent = place.parent.as_ref().and_then(|(parent, _)| parent.written());
        let attr = source.attr()?;
        let (mut staged, copy) = self.stage_copy(&source, &attr, data)?;
        if attr.kind() == FileType::Regular {
            copy.set_record(self.names.name(Record::Written), b"y")?;
        }
        let origin = attr.ino.to_string();
        let recorded = self.try_record(&copy, Record::Origin, origin.as_bytes())?;
        let now = match set {
            Some((cx, set)) => Some(copy.fs().setattr(cx, copy.id(), set)?.attr),
            None => None,
        };
        if self.is_linked(&attr) && self.index_copy(node, &mut staged, &copy, &attr)? {
            return Ok((copy, now));
        }
        let ino = if recorded { node.ino() } else { self.inos.map(copy.side, copy.attr()?.ino) };
        self.publish_copy(node, parent.as_ref(), &mut staged, &copy)?;
        if ino != node.ino() {
            self.renumber(node, ino);
        }
        Ok((copy, now))
    }

    fn stage_copy(&self, from: &Real, attr: &Attr, data: Data) -> Result<(Staged<'_>, Real)> {
        let work = &self.staging()?.work;
        let staged = self.stage(attr.is_dir())?;
        let source = Source { fs: from.fs(), node: from.id(), attr };
        let target = Target { fs: work.fs(), dir: work.id(), name: staged.name() };
        let options = Options {
            data,
            keep: &|name| self.names.is_copied(name.as_bytes()),
            durable: attr.kind() == FileType::Regular,
        };
        let node = stratafs_transfer::copy(source, target, &options)?;
        Ok((staged.made(), Real::new(work.side, node)))
    }

    /// Moves the copy to where the object is, if it still has a name.
    fn publish_copy(
        &self,
        node: &Arc<Node>,
        parent: Option<&Real>,
        staged: &mut Staged<'_>,
        copy: &Real,
    ) -> Result<()> {
        let (Some((dir, _)), Some(parent)) = (node.parent(), parent) else {
            return Err(Errno::EIO);
        };
        let _names = dir.names.write();
        let place = node.place();
        if let (false, Some((_, name))) = (place.removed, &place.parent) {
            let before = parent.attr()?;
            self.mark_impure(&dir)?;
            let name = name.as_name();
            // The name is free, or leads to an object that did not show.
            match parent.child(name)? {
                None => staged.publish(parent, name, RenameFlags::NOREPLACE)?,
                Some(hidden) if hidden.is_dir() => return Err(refused_hidden(name)),
                Some(_) if node.is_dir() => staged.exchange(parent, name, false)?,
                Some(_) => staged.publish(parent, name, RenameFlags::empty())?,
            }
            self.keep_times(parent, &before);
        }
        // Otherwise the staged name is given up, and the object goes on without one.
        self.table.add_key(node, Key(copy.side, copy.id()));
        if !node.is_dir() {
            self.table.drop_keys(node, Some(self.writes().other()));
        }
        let old = node.change(|place| {
            place.written = Some(copy.clone());
            if node.is_dir() { None } else { place.other.take() }
        });
        drop(old);
        Ok(())
    }

    /// Whether objects of this type can hold records wherever they are: `user.` attributes are for
    /// files and directories alone (xattr(7)), and those in `trusted.` may be such on the host.
    pub(crate) fn takes_records(&self, kind: FileType) -> bool {
        matches!(kind, FileType::Regular | FileType::Directory)
    }

    /// Sets a record, if the object can hold one.
    pub(crate) fn try_record(&self, real: &Real, record: Record, value: &[u8]) -> Result<bool> {
        match real.set_record(self.names.name(record), value) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Records that an object with records is in the directory `dir`, which is on the written side,
    /// so that whoever lists it looks for them.
    pub(crate) fn mark_impure(&self, dir: &Node) -> Result<()> {
        if dir.is_impure() {
            return Ok(());
        }
        let real = dir.written().ok_or(Errno::EIO)?;
        real.set_record(self.names.name(Record::Impure), b"y")?;
        dir.set_impure();
        Ok(())
    }

    /// A transfer is no change of its directory: gives its times back.
    fn keep_times(&self, dir: &Real, before: &Attr) {
        let mut times = SetAttr::new();
        times.atime = Some(SetTime::At(before.atime));
        times.mtime = Some(SetTime::At(before.mtime));
        if let Err(errno) = dir.fs().setattr(&Context::internal(), dir.id(), &times) {
            log::warn!("dual: a directory shows the time of a transfer: {errno}");
        }
    }

    /// Transfers a directory and everything in it. From then on nothing of the other side shows in
    /// it, so that it may move.
    pub(crate) fn transfer_tree(&self, node: &Arc<Node>) -> Result<()> {
        let mut steps = vec![Step::Enter(Arc::clone(node))];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(dir) => {
                    self.transfer(&dir, Data::All)?;
                    let below = self.transfer_names(&dir)?;
                    // What is below parts from the other side first: it is found through this one.
                    steps.push(Step::Leave(dir));
                    steps.extend(below.into_iter().map(Step::Enter));
                }
                Step::Leave(dir) => {
                    if !self.part(&dir)? {
                        steps.push(Step::Enter(dir));
                    }
                }
            }
        }
        Ok(())
    }

    /// Transfers what shows in the directory but for directories, and gives those that the other side
    /// has a part in.
    fn transfer_names(&self, dir: &Arc<Node>) -> Result<Vec<Arc<Node>>> {
        let mut all = Vec::new();
        {
            let _names = dir.names.read();
            self.visible(&dir.view(), |entry| {
                all.push(entry.name);
                Ok(true)
            })?;
        }
        let mut below = Vec::new();
        for name in all {
            let Some(child) = self.find_held(dir, name.as_name())? else { continue };
            if !child.node.is_dir() {
                self.transfer(&child.node, Data::All)?;
            } else if child.node.with_place(|place| place.other.is_some()) {
                below.push(Arc::clone(&child.node));
            }
        }
        Ok(below)
    }

    /// Parts the directory from the other side, if everything that shows in it is on the written one.
    /// Says whether it is.
    fn part(&self, dir: &Arc<Node>) -> Result<bool> {
        let names = dir.names.write();
        let view = dir.view();
        let (Some(written), Some(other)) = (&view.written, &view.other) else {
            return Ok(view.written.is_some());
        };
        let mut whole = true;
        let mut aliases = Vec::new();
        self.visible(&view, |entry| {
            let resolved = self.resolve(&view, entry.name.as_name())?;
            let Some(object) = resolved.object else { return Ok(true) };
            let is_dir = object.top()?.is_dir();
            if object.written.is_none() || (is_dir && object.other.is_some()) {
                whole = false;
            } else if object.other.is_some() {
                aliases.push(entry.name);
            }
            Ok(whole)
        })?;
        if !whole {
            return Ok(false);
        }
        for name in aliases {
            self.name_alias(&view, name.as_name())?;
        }
        if !written.has_record(self.names.name(Record::Origin))? {
            let origin = other.attr()?.ino.to_string();
            written.set_record(self.names.name(Record::Origin), origin.as_bytes())?;
        }
        self.mark_impure(dir)?;
        written.set_record(self.names.name(Record::Opaque), b"y")?;
        self.table.drop_keys(dir, Some(self.writes().other()));
        let old = dir.change(|place| place.other.take());
        drop(names);
        drop(old);
        Ok(true)
    }
}

/// A step of the transfer of a tree.
enum Step {
    /// Bring over what is in the directory.
    Enter(Arc<Node>),
    /// Part it from the other side.
    Leave(Arc<Node>),
}
