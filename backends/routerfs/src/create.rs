//! Making objects.

use stratafs_core::{Context, Entry, Errno, FileType, Name, NodeId, OpenFlags, Opened, Result};

use crate::RouterFs;
use crate::lookup::Place;
use crate::point::Real;

/// What is made.
#[derive(Clone, Copy)]
pub(crate) enum New<'a> {
    Special { mode: u32, rdev: u32 },
    Dir { mode: u32 },
    Symlink { target: &'a [u8] },
}

impl RouterFs {
    /// The directory in which `name` is to be made. `taken` is the answer where a point is there.
    fn room(&self, parent: NodeId, name: Name<'_>, taken: Errno) -> Result<Real> {
        match self.place(parent)? {
            Place::Real(real) if self.point_in(&real, name).is_some() => Err(taken),
            Place::Real(real) => Ok(real),
            Place::MadeUp(point) if point.has(name.as_bytes()) => Err(taken),
            Place::MadeUp(_) => Err(Errno::EROFS),
        }
    }

    pub(crate) fn make(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new: New<'_>,
    ) -> Result<Entry> {
        let dir = self.room(parent, name, Errno::EEXIST)?;
        let pin = self.pin(&dir.member)?;
        let fs = &pin.member.fs;
        let entry = match new {
            New::Special { mode, rdev } => {
                let kind = FileType::from_mode(mode).unwrap_or(FileType::Regular);
                if pin.member.refuses(kind) {
                    return Err(Errno::EPERM);
                }
                fs.mknod(cx, dir.node, name, mode, rdev)?
            }
            New::Dir { mode } => fs.mkdir(cx, dir.node, name, mode)?,
            New::Symlink { target } => fs.symlink(cx, dir.node, name, target)?,
        };
        let entry = self.wrapped(&pin.member, entry);
        pin.keep();
        Ok(entry)
    }

    pub(crate) fn make_link(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let real = self.real(id, Errno::EPERM)?;
        let dir = self.room(parent, name, Errno::EEXIST)?;
        if !std::sync::Arc::ptr_eq(&real.member, &dir.member) {
            return Err(Errno::EXDEV);
        }
        let pin = self.pin(&dir.member)?;
        let entry = pin.member.fs.link(cx, real.node, dir.node, name)?;
        let entry = self.wrapped(&pin.member, entry);
        pin.keep();
        Ok(entry)
    }

    pub(crate) fn make_file(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(Entry, Opened)> {
        let taken = if flags.exclusive() { Errno::EEXIST } else { Errno::EISDIR };
        let dir = self.room(parent, name, taken)?;
        let (node, handle) = (self.pin(&dir.member)?, self.pin(&dir.member)?);
        let made = node.member.fs.create(cx, dir.node, name, mode, flags, kill_priv)?;
        let made = self.created(&dir, made);
        node.keep();
        handle.keep();
        Ok(made)
    }

    pub(crate) fn make_unnamed(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let dir = self.real(parent, Errno::EROFS)?;
        let (node, handle) = (self.pin(&dir.member)?, self.pin(&dir.member)?);
        let made = node.member.fs.tmpfile(cx, dir.node, mode, flags)?;
        let made = self.created(&dir, made);
        node.keep();
        handle.keep();
        Ok(made)
    }

    fn created(&self, dir: &Real, (entry, mut opened): (Entry, Opened)) -> (Entry, Opened) {
        let entry = self.wrapped(&dir.member, entry);
        opened.handle = self.ids.opened(dir.member.index, opened.handle);
        self.ids.node_opened(entry.node);
        (entry, opened)
    }
}
