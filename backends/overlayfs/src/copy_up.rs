//! Copy-up: giving an object that only read-only layers have one in the writable layer.
//!
//! The copy is made in the staging directory and moved to its place by one rename, so that a crash
//! leaves either nothing to be seen or all of it. Parents come first. One thread copies, and who
//! comes meanwhile waits for it; no other object is held up.

use std::sync::Arc;

use stratafs_core::{
    Attr, Context, Errno, FileType, RenameFlags, Result, SetAttr, SetTime, XattrName,
};
use stratafs_transfer::{Data, Options, Source, Target};

use crate::OverlayFs;
use crate::format::{Record, ino_value};
use crate::layer::{Real, UPPER};
use crate::links::Linked;
use crate::node::{Node, Place};
use crate::origin::{self, Origin};
use crate::stage::Staged;
use crate::table::Key;

impl OverlayFs {
    /// The object of `node` in the writable layer, copied up if there is none yet. `data` says which
    /// data of a regular file is there then: [`Data::Hole`] asks for none, and leaves it below where
    /// the option `metacopy` lets it.
    ///
    /// No lock of names may be held: those of the parents are taken.
    ///
    /// # Errors
    /// * `EROFS`: no layer is writable. What a layer answers.
    pub(crate) fn copy_up(&self, node: &Arc<Node>, data: Data) -> Result<Real> {
        let done = |place: &Place| {
            let lacks = data != Data::Hole && !node.is_dir() && place.lacks_data();
            place.upper.clone().filter(|_| !lacks)
        };
        self.writable()?;
        if let Some(upper) = node.see(done) {
            return Ok(upper);
        }
        // The topmost first, one after the other: a tree may be deeper than a stack.
        let mut ancestors = Vec::new();
        let mut at = node.parent();
        while let Some((parent, _)) = at
            && parent.upper().is_none()
        {
            at = parent.parent();
            ancestors.push(parent);
        }
        while let Some(parent) = ancestors.pop() {
            self.copy_up(&parent, Data::All)?;
        }
        let _copying = node.copying.lock();
        let place = node.place();
        if let Some(upper) = done(&place) {
            return Ok(upper);
        }
        if let Some(upper) = place.upper.clone() {
            self.copy_data(node, &place, &upper, data)?;
            return Ok(upper);
        }
        let lower = place.lowers.first().ok_or(Errno::EIO)?;
        let parent = match &place.parent {
            Some((parent, _)) => Some(self.copy_up(parent, Data::All)?),
            None => None,
        };
        let attr = lower.attr()?;
        let (mut staged, upper, meta) = self.stage_object(lower, &place, &attr, data)?;
        if let Linked::Lower { .. } = place.linked {
            let origin = self.record_origin(lower, &upper, &attr)?;
            self.publish_linked(node, &attr, &origin, (&mut staged, &upper), meta)?;
            if let (Some((dir, name)), Some(upper_dir)) = (&place.parent, &parent) {
                self.link_up_locked(node, dir, upper_dir, name.as_name())?;
            }
            return Ok(upper);
        }
        let parts = self.parts(&attr);
        let is_recorded = !parts && self.takes_records(attr.kind());
        if is_recorded {
            self.record_origin(lower, &upper, &attr)?;
        }
        self.publish_copy(node, parent.as_ref(), (&mut staged, &upper), meta)?;
        drop(staged);
        if !is_recorded || !(node.is_dir() || self.origins_hold) {
            // It is no more the object that its other names are, which keep the number; or nothing
            // tells a later lookup what it was, or is believed.
            let ino = self.map_ino(&upper, upper.attr()?.ino);
            node.set_ino(ino);
            self.renumber(node, ino);
        }
        Ok(upper)
    }

    /// Whether an object of a read-only layer has other names, with which it parts on copy-up.
    fn parts(&self, attr: &Attr) -> bool {
        !attr.is_dir() && attr.nlink > 1
    }

    /// A copy of `lower`, which is the topmost part of what is at `place`. Says too whether the copy
    /// lacks its data.
    fn stage_object(
        &self,
        lower: &Real,
        place: &Place,
        attr: &Attr,
        data: Data,
    ) -> Result<(Staged<'_>, Real, bool)> {
        if attr.kind() != FileType::Regular {
            let (staged, upper) = self.stage_copy(lower, attr, Data::All)?;
            return Ok((staged, upper, false));
        }
        self.require_data(lower)?;
        if data == Data::Hole && self.options.metacopy && attr.size > 0 {
            let (staged, upper) = self.stage_copy(lower, attr, Data::Hole)?;
            upper.set_xattr(self.names.name(Record::Metacopy), b"")?;
            return Ok((staged, upper, true));
        }
        let data = if data == Data::Hole { Data::All } else { data };
        let holder = place.data()?;
        if holder.layer == lower.layer {
            let (staged, upper) = self.stage_copy(lower, attr, data)?;
            return Ok((staged, upper, false));
        }
        let (staged, upper) = self.stage_copy(lower, attr, Data::Hole)?;
        self.fill(holder, &upper, data)?;
        Ok((staged, upper, false))
    }

    /// Gives the file `upper` the data that is in `holder`.
    fn fill(&self, holder: &Real, upper: &Real, data: Data) -> Result<()> {
        let attr = holder.attr()?;
        let source = Source { fs: holder.fs(), node: holder.id(), attr: &attr };
        let durable = !self.options.volatile;
        stratafs_transfer::copy_data(source, (upper.fs(), upper.id()), data, durable)
    }

    /// Copies the data of a file that is in the writable layer without. Until the record goes, that
    /// of the layer below counts. The node's `copying` is held.
    fn copy_data(&self, node: &Arc<Node>, place: &Place, upper: &Real, data: Data) -> Result<()> {
        self.fill(place.data()?, upper, data)?;
        let (cx, record) = (Context::internal(), self.names.name(Record::Metacopy));
        upper.fs().removexattr(&cx, upper.id(), XattrName::new(record)?)?;
        if node.become_upper(upper, false, |place| place.redirect = None) {
            self.supersede(node);
        }
        Ok(())
    }

    /// Another node stands for the object of `node` from now on: the next lookup makes it. Clients
    /// are told to look, the one too that this came from.
    pub(crate) fn supersede(&self, node: &Arc<Node>) {
        self.table.rekey(node, None);
        if let Some((dir, name)) = node.parent() {
            self.notifiers.each(|client| client.inval_entry(dir.id, name.as_name()));
        }
    }

    pub(crate) fn stage_copy(
        &self,
        lower: &Real,
        attr: &Attr,
        data: Data,
    ) -> Result<(Staged<'_>, Real)> {
        let work = &self.writable()?.work;
        let staged = self.stage(attr.is_dir())?;
        let source = Source { fs: lower.fs(), node: lower.id(), attr };
        let target = Target { fs: work.fs(), dir: work.id(), name: staged.name() };
        let options = Options {
            data,
            keep: &|name| self.names.is_copied(name.as_bytes()),
            durable: !self.options.volatile && attr.kind() == FileType::Regular,
        };
        let node = stratafs_transfer::copy(source, target, &options)?;
        Ok((staged.made(), Real::new(UPPER, node)))
    }

    /// Records in `upper` what it is a copy of, and gives what says so.
    fn record_origin(&self, lower: &Real, upper: &Real, attr: &Attr) -> Result<Vec<u8>> {
        let value = self.origin_of(lower, attr)?;
        if !self.takes_records(attr.kind()) {
            return Ok(value);
        }
        upper.set_xattr(self.names.name(Record::Origin), &value)?;
        let ino = origin::parse(&value).and_then(|origin| self.ino_of_origin(origin));
        if !attr.is_dir() && ino != Some(self.map_ino(lower, attr.ino)) {
            let layer = self.counted_from_bottom(lower.layer);
            upper.set_xattr(self.names.name(Record::Ino), &ino_value(layer, attr.ino))?;
        }
        // Setting attributes changed no time that shows but ctime, which a copy can't keep.
        Ok(value)
    }

    /// The number in the merged tree of what has this origin; `None` where it is of no layer here.
    pub(crate) fn ino_of_origin(&self, origin: Origin) -> Option<u64> {
        match origin {
            Origin::Own { layer, ino } => {
                let layer = self.lowers.len().checked_sub(layer).filter(|layer| *layer > UPPER)?;
                Some(self.inos.map(layer, ino))
            }
            Origin::Host { fsid, ino } => {
                let mut layers = UPPER + 1..=self.lowers.len();
                let layer = layers.find(|layer| self.inos.fsid(*layer) == Some(fsid))?;
                Some(self.inos.map(layer, ino))
            }
        }
    }

    /// Moves the copy to where the object is, if it still has a name.
    fn publish_copy(
        &self,
        node: &Arc<Node>,
        parent: Option<&Real>,
        (staged, upper): (&mut Staged<'_>, &Real),
        meta: bool,
    ) -> Result<()> {
        let mut key = None;
        let (Some((dir, _)), Some(parent)) = (node.parent(), parent) else {
            return Err(Errno::EIO);
        };
        let _names = dir.names.write();
        let place = node.place();
        if let (false, Some((_, name))) = (place.removed, &place.parent) {
            let before = parent.attr()?;
            self.mark_impure(parent)?;
            staged.publish(parent, name.as_name(), RenameFlags::NOREPLACE)?;
            self.keep_times(parent, &before);
            key = Some(Key::Upper(upper.id()));
        }
        // Otherwise the staged name is given up, and the object goes on without one.
        if node.become_upper(upper, meta, |_| ()) {
            self.supersede(node);
        } else if key.is_some() {
            self.table.rekey(node, key);
        }
        Ok(())
    }

    /// Records that an object with an origin is in the directory `dir` of the writable layer, so that
    /// whoever lists it finds out the numbers.
    pub(crate) fn mark_impure(&self, dir: &Real) -> Result<()> {
        let record = self.names.name(Record::Impure);
        match dir.xattr(record)? {
            Some(_) => Ok(()),
            None => dir.set_xattr(record, b"y"),
        }
    }

    /// A copy-up is no change of its directory: gives its times back.
    pub(crate) fn keep_times(&self, dir: &Real, before: &Attr) {
        let mut times = SetAttr::new();
        times.atime = Some(SetTime::At(before.atime));
        times.mtime = Some(SetTime::At(before.mtime));
        if let Err(errno) = dir.fs().setattr(&Context::internal(), dir.id(), &times) {
            log::warn!("overlay: a directory shows the time of a copy-up: {errno}");
        }
    }
}
