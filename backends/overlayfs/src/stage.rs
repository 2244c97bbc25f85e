//! The staging directory: where changes are prepared before one step makes them visible.
//!
//! As the kernel does, everything is staged in the directory `work` inside of the staging directory
//! that was given, under names `#N`. Whatever is found there when the overlay is built was left by a
//! crash and is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use stratafs_core::{
    Context, DynFileSystem, Errno, FileType, Name, NameBuf, NodeRef, RenameFlags, Result,
};

use crate::OverlayFs;
use crate::builder::INCOMPAT;
use crate::fs::Upper;
use crate::layer::{Real, UPPER};

/// A name in the staging directory. What it leads to is removed on drop, unless it was published.
#[must_use]
pub(crate) struct Staged<'a> {
    work: &'a Real,
    name: NameBuf,
    is_dir: bool,
    made: bool,
}

impl Staged<'_> {
    pub(crate) fn name(&self) -> Name<'_> {
        self.name.as_name()
    }

    /// From now on something is there.
    pub(crate) fn made(mut self) -> Self {
        self.made = true;
        self
    }

    /// Moves it to `name` in `dir`, in one step. After an exchange what was there before is staged
    /// instead, and is a directory if `was_dir`.
    fn move_to(&mut self, dir: &Real, name: Name<'_>, flags: RenameFlags) -> Result<()> {
        let cx = Context::internal();
        let work = self.work;
        work.fs().rename(&cx, work.id(), self.name.as_name(), dir.id(), name, flags)
    }

    /// Moves it to `name` in `dir`, in one step.
    pub(crate) fn publish(&mut self, dir: &Real, name: Name<'_>, flags: RenameFlags) -> Result<()> {
        self.move_to(dir, name, flags)?;
        self.made = false;
        Ok(())
    }

    /// Swaps it with `name` in `dir`, in one step; what was there is removed on drop.
    pub(crate) fn exchange(&mut self, dir: &Real, name: Name<'_>, was_dir: bool) -> Result<()> {
        self.move_to(dir, name, RenameFlags::EXCHANGE)?;
        self.is_dir = was_dir;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.made
            && let Err(errno) = self.work.remove_tree(self.name.as_name(), self.is_dir)
        {
            log::warn!(
                "overlay: {} stays in the staging directory until the next mount: {errno}",
                self.name.as_name()
            );
        }
    }
}

impl OverlayFs {
    /// # Errors
    /// `EROFS`: no layer is writable, or the overlay is only looked at.
    pub(crate) fn writable(&self) -> Result<&Upper> {
        self.upper.as_ref().filter(|_| !self.inspected).ok_or(Errno::EROFS)
    }

    /// A free name in the staging directory.
    pub(crate) fn stage(&self, is_dir: bool) -> Result<Staged<'_>> {
        let upper = self.writable()?;
        let number = upper.staged.fetch_add(1, Ordering::Relaxed);
        let name = Name::new(format!("#{number:x}").as_bytes())?.to_owned();
        Ok(Staged { work: &upper.work, name, is_dir, made: false })
    }

    /// A whiteout, staged.
    pub(crate) fn stage_whiteout(&self) -> Result<Staged<'_>> {
        let work = &self.writable()?.work;
        let staged = self.stage(false)?;
        let mode = FileType::CharDevice.mode_bits();
        let cx = Context::internal();
        let entry = work.fs().mknod(&cx, work.id(), staged.name(), mode, 0)?;
        drop(NodeRef::adopt(Arc::clone(work.fs()), &entry));
        Ok(staged.made())
    }
}

/// Whether objects of this type can hold the overlay's records in its namespace.
impl OverlayFs {
    pub(crate) fn takes_records(&self, kind: FileType) -> bool {
        // `user.` attributes are for files and directories alone: xattr(7).
        self.names == crate::format::Namespace::Trusted
            || matches!(kind, FileType::Regular | FileType::Directory)
    }
}

/// The directory `name` in `dir`, made if it is not there.
pub(crate) fn directory(dir: &Real, name: Name<'_>, mode: u32) -> Result<Real> {
    if let Some((real, attr)) = dir.child(name)? {
        return if attr.is_dir() { Ok(real) } else { Err(Errno::ENOTDIR) };
    }
    let fs: &Arc<dyn DynFileSystem> = dir.fs();
    let entry = fs.mkdir(&Context::internal(), dir.id(), name, mode)?;
    Ok(Real::adopt(UPPER, fs, &entry))
}

/// Makes a whiteout in the empty directory `work`, lets it take the place of a directory, and removes
/// both.
pub(crate) fn try_whiteout(work: &Real) -> Result<()> {
    let (cx, mode) = (Context::internal(), FileType::CharDevice.mode_bits());
    let (fs, dir) = (work.fs(), work.id());
    let (whiteout, other) = (Name::new(b"#0")?, Name::new(b"#1")?);
    let tried = || -> Result<()> {
        drop(NodeRef::adopt(Arc::clone(fs), &fs.mknod(&cx, dir, whiteout, mode, 0)?));
        drop(NodeRef::adopt(Arc::clone(fs), &fs.mkdir(&cx, dir, other, 0o700)?));
        fs.rename(&cx, dir, whiteout, dir, other, RenameFlags::EXCHANGE)
    };
    let tried = tried();
    clean(work, &[INCOMPAT])?;
    tried
}

/// Makes the empty file `name` in `dir`, if nothing is there.
pub(crate) fn file(dir: &Real, name: Name<'_>) -> Result<()> {
    let (cx, mode) = (Context::internal(), FileType::Regular.mode_bits() | 0o600);
    match dir.fs().mknod(&cx, dir.id(), name, mode, 0) {
        Ok(entry) => {
            drop(NodeRef::adopt(Arc::clone(dir.fs()), &entry));
            Ok(())
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes what a crash left in the staging directory `work`.
pub(crate) fn clean(work: &Real, keep: &[&[u8]]) -> Result<()> {
    for item in work.list()? {
        if keep.contains(&item.name.as_bytes()) {
            continue;
        }
        let is_dir = match item.kind {
            Some(kind) => kind == FileType::Directory,
            None => work.child(item.name.as_name())?.is_some_and(|(_, attr)| attr.is_dir()),
        };
        work.remove_tree(item.name.as_name(), is_dir)?;
    }
    Ok(())
}
