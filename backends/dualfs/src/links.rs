//! Files that have several names on the other side.
//!
//! Such a file is transferred once, for all of its names: the copy goes to the index, under the inode
//! number that the file has on the other side, and whoever finds the file there by any of its names
//! finds the copy. A name of its own on the written side is given to it when it moves. The copy's
//! record says how many of its names are on the other side only.

use std::sync::Arc;

use stratafs_core::{Attr, Context, Errno, Name, NameBuf, RenameFlags, Result};

use crate::DualFs;
use crate::lookup::View;
use crate::node::Node;
use crate::record::{Links, Record};
use crate::side::{Part, Real};
use crate::stage::Staged;
use crate::table::Key;

/// The name in the index of the file with this number.
fn index_name(ino: u64) -> Result<NameBuf> {
    Ok(Name::new(format!("{ino:x}").as_bytes())?.to_owned())
}

impl DualFs {
    /// Whether an object of the other side is transferred for all of its names.
    pub(crate) fn is_linked(&self, attr: &Attr) -> bool {
        !attr.is_dir() && attr.nlink > 1
    }

    /// What the file with this number on the other side was transferred to.
    pub(crate) fn indexed(&self, ino: u64) -> Result<Option<Part>> {
        match &self.staging {
            Some(staging) => staging.index.child(index_name(ino)?.as_name()),
            None => Ok(None),
        }
    }

    /// Moves the copy of a file with several names into the index: from then on all of them lead to
    /// it. Says whether it did: what can hold no record parts with its other names.
    pub(crate) fn index_copy(
        &self,
        node: &Arc<Node>,
        staged: &mut Staged<'_>,
        copy: &Real,
        attr: &Attr,
    ) -> Result<bool> {
        let links = Links { origin: attr.ino, more: i64::from(attr.nlink) - 1 };
        if !self.try_record(copy, Record::Links, &links.value())? {
            return Ok(false);
        }
        let index = &self.staging()?.index;
        staged.publish(index, index_name(attr.ino)?.as_name(), RenameFlags::NOREPLACE)?;
        *node.links().lock() = Some(links);
        self.table.add_key(node, Key(copy.side, copy.id()));
        // Its other names are looked up as what they are on the other side.
        node.change(|place| place.written = Some(copy.clone()));
        Ok(true)
    }

    /// Gives an object of the index the name that it has on the other side, on the written one.
    pub(crate) fn name_alias(&self, dir: &View, name: Name<'_>) -> Result<()> {
        let (Some(written), Some(object)) = (&dir.written, self.resolve(dir, name)?.object) else {
            return Err(Errno::EIO);
        };
        let Some(part) = &object.written else { return Err(Errno::EIO) };
        let cx = Context::internal();
        let fs = written.fs();
        let entry = match fs.link(&cx, part.id(), written.id(), name) {
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK) => return Err(Errno::EXDEV),
            linked => linked?,
        };
        drop(Part::adopt(written.side, fs, entry));
        match self.table.find(object.key()?) {
            Some(node) => self.more_links(&node, -1),
            None => Ok(()),
        }
    }

    /// So many more names of `node` are on the other side only.
    pub(crate) fn more_links(&self, node: &Node, more: i64) -> Result<()> {
        let Some(real) = node.written() else { return Ok(()) };
        let _counting = self.counting.lock();
        let Some(mut links) = *node.links().lock() else { return Ok(()) };
        links.more += more;
        real.set_record(self.names.name(Record::Links), &links.value())?;
        *node.links().lock() = Some(links);
        Ok(())
    }

    /// A name of `node` is gone: if it was the last, the index lets go of the object.
    pub(crate) fn let_go_of_links(&self, node: &Node) -> Result<()> {
        let Some(links) = *node.links().lock() else { return Ok(()) };
        let Some(real) = node.written() else { return Ok(()) };
        if i64::from(real.attr()?.nlink) + links.more > 0 {
            return Ok(());
        }
        *node.links().lock() = None;
        let index = &self.staging()?.index;
        let name = index_name(links.origin)?;
        index.fs().unlink(&Context::internal(), index.id(), name.as_name())
    }
}
