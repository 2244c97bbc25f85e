//! Copy-up: giving an object that only read-only layers have one in the writable layer.
//!
//! The copy is made in the staging directory and moved to its place by one rename, so that a crash
//! leaves either nothing to be seen or all of it. Parents come first. One thread copies, and who
//! comes meanwhile waits for it; no other object is held up.

use std::sync::Arc;

use stratafs_core::{Attr, Context, FileType, RenameFlags, Result, SetAttr, SetTime};
use stratafs_transfer::{Data, Options, Source, Target};

use crate::OverlayFs;
use crate::format::{Record, ino_value, origin_value};
use crate::layer::{Real, UPPER};
use crate::node::Node;
use crate::stage::Staged;
use crate::table::Key;

impl OverlayFs {
    /// The object of `node` in the writable layer, copied up if there is none yet. `data` says which
    /// data a regular file is copied with.
    ///
    /// No lock of names may be held: those of the parents are taken.
    ///
    /// # Errors
    /// * `EROFS`: no layer is writable. What a layer answers.
    pub(crate) fn copy_up(&self, node: &Arc<Node>, data: Data) -> Result<Real> {
        if let Some(upper) = node.upper() {
            return Ok(upper);
        }
        self.writable()?;
        let _copying = node.copying.lock();
        let place = node.place();
        if let Some(upper) = place.upper {
            return Ok(upper);
        }
        let lower = place.lowers.first().ok_or(stratafs_core::Errno::EIO)?;
        let parent = match &place.parent {
            Some((parent, _)) => Some(self.copy_up(parent, Data::All)?),
            None => None,
        };
        let attr = lower.attr()?;
        if attr.kind() == FileType::Regular {
            self.require_data(lower)?;
        }
        let (mut staged, upper) = self.stage_copy(lower, &attr, data)?;
        let linked = self.is_linked(&attr);
        if !linked {
            self.record_origin(lower, &upper, &attr)?;
        }
        self.publish_copy(node, parent.as_ref(), &mut staged, &upper)?;
        drop(staged);
        if linked {
            // It is no more the object that its other names are, which keep the number.
            let ino = self.map_ino(&upper, upper.attr()?.ino);
            node.set_ino(ino);
            self.renumber(node, ino);
        }
        Ok(upper)
    }

    /// Whether an object of a read-only layer has other names, with which it parts on copy-up.
    fn is_linked(&self, attr: &Attr) -> bool {
        !attr.is_dir() && attr.nlink > 1
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

    /// Records in `upper` what it is a copy of.
    fn record_origin(&self, lower: &Real, upper: &Real, attr: &Attr) -> Result<()> {
        if !self.takes_records(attr.kind()) {
            return Ok(());
        }
        let id = lower.fs().persistent_id(lower.id())?;
        upper.set_xattr(self.names.name(Record::Origin), &origin_value(id.as_ref()))?;
        if !attr.is_dir() {
            let layer = self.lowers.len() - lower.layer;
            upper.set_xattr(self.names.name(Record::Ino), &ino_value(layer, attr.ino))?;
        }
        // Setting attributes changed no time that shows but ctime, which a copy can't keep.
        Ok(())
    }

    /// Moves the copy to where the object is, if it still has a name.
    fn publish_copy(
        &self,
        node: &Arc<Node>,
        parent: Option<&Real>,
        staged: &mut Staged<'_>,
        upper: &Real,
    ) -> Result<()> {
        let key = Key::Upper(upper.id());
        let (Some((dir, _)), Some(parent)) = (node.parent(), parent) else {
            return Err(stratafs_core::Errno::EIO);
        };
        let _names = dir.names.write();
        let place = node.place();
        let mut old = None;
        if let (false, Some((_, name))) = (place.removed, &place.parent) {
            let before = parent.attr()?;
            self.mark_impure(parent)?;
            staged.publish(parent, name.as_name(), RenameFlags::NOREPLACE)?;
            self.keep_times(parent, &before);
            self.table.rekey(node, Some(key));
        }
        // Otherwise the staged name is given up, and the object goes on without one.
        node.change(|place| {
            place.upper = Some(upper.clone());
            if !node.is_dir() {
                old = Some(std::mem::take(&mut place.lowers));
            }
        });
        drop(old);
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
    fn keep_times(&self, dir: &Real, before: &Attr) {
        let mut times = SetAttr::new();
        times.atime = Some(SetTime::At(before.atime));
        times.mtime = Some(SetTime::At(before.mtime));
        if let Err(errno) = dir.fs().setattr(&Context::internal(), dir.id(), &times) {
            log::warn!("overlay: a directory shows the time of a copy-up: {errno}");
        }
    }
}
