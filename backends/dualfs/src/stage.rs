//! The staging directory: where changes are prepared before one step makes them visible.
//!
//! It lies in the root of the written side, and no client sees it. In it are `work`, where everything
//! is staged under names `#N` and whatever is found at the start was left by a crash and is removed;
//! and `index`, of files that have several names on the other side.

use std::sync::Arc;

use stratafs_core::{
    Context, DynFileSystem, Errno, FileType, Name, NameBuf, OpenFlags, Release, RenameFlags, Result,
};

use crate::DualFs;
use crate::node::Count;
use crate::policy::Side;
use crate::record::Record;
use crate::side::{Part, Real};

/// Its name; in another dual filesystem, which keeps that to itself, the next one that is free.
const NAMES: [&[u8]; 4] =
    [b".stratafs-dual", b".stratafs-dual-2", b".stratafs-dual-3", b".stratafs-dual-4"];

/// The staging directory.
pub(crate) struct Staging {
    pub(crate) work: Real,
    pub(crate) index: Real,
    /// Its name in the root.
    pub(crate) name: &'static [u8],
    count: Count,
}

impl Staging {
    /// That of the filesystem `fs`, made if it is not there and cleaned of what a crash left.
    pub(crate) fn open(side: Side, fs: &Arc<dyn DynFileSystem>) -> Result<Self> {
        let root = Real::root(side, fs);
        let mut made = Err(Errno::EEXIST);
        let mut name = NAMES[0];
        for next in NAMES {
            name = next;
            made = directory(&root, name);
            if !matches!(made, Err(Errno::EEXIST)) {
                break;
            }
        }
        let own = made?;
        let work = directory(&own, b"work")?;
        let index = directory(&own, b"index")?;
        for item in work.list()? {
            let is_dir = match item.kind {
                Some(kind) => kind == FileType::Directory,
                None => work.child(item.name.as_name())?.is_some_and(|part| part.is_dir()),
            };
            work.remove_tree(item.name.as_name(), is_dir)?;
        }
        Ok(Self { work, index, name, count: Count::default() })
    }
}

/// The directory `name` in `dir`, made if it is not there.
fn directory(dir: &Real, name: &[u8]) -> Result<Real> {
    let name = Name::new(name)?;
    if let Some(part) = dir.child(name)? {
        return if part.is_dir() { Ok(part.kept()) } else { Err(Errno::ENOTDIR) };
    }
    let entry = dir.fs().mkdir(&Context::internal(), dir.id(), name, 0o700)?;
    Ok(Part::adopt(dir.side, dir.fs(), entry).kept())
}

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

    /// Swaps it with `name` in `dir`, in one step; what was there, a directory if `was_dir`, is
    /// removed on drop.
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
                "dual: {} stays in the staging directory until the next start: {errno}",
                self.name.as_name()
            );
        }
    }
}

impl DualFs {
    /// # Errors
    /// `EROFS`: nothing is ever transferred or hidden here.
    pub(crate) fn staging(&self) -> Result<&Staging> {
        self.staging.as_ref().ok_or(Errno::EROFS)
    }

    /// A free name in the staging directory.
    pub(crate) fn stage(&self, is_dir: bool) -> Result<Staged<'_>> {
        let staging = self.staging()?;
        let number = staging.count.next();
        let name = Name::new(format!("#{number:x}").as_bytes())?.to_owned();
        Ok(Staged { work: &staging.work, name, is_dir, made: false })
    }

    /// A whiteout, staged.
    pub(crate) fn stage_whiteout(&self) -> Result<Staged<'_>> {
        let work = &self.staging()?.work;
        let staged = self.stage(false)?;
        let (cx, flags) = (Context::internal(), OpenFlags::WRITE_ONLY.with_exclusive());
        let (entry, opened) =
            work.fs().create(&cx, work.id(), staged.name(), 0o600, flags, false)?;
        let part = Part::adopt(work.side, work.fs(), entry);
        let staged = staged.made();
        work.fs().release(&cx, part.id(), opened.handle, Release::default())?;
        part.kept().set_record(self.names.name(Record::Whiteout), b"y")?;
        Ok(staged)
    }
}
