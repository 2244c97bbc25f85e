//! The data of a regular file, extent by extent.

use std::sync::Arc;

use stratafs_core::{
    Context, CopyRange, DynFileSystem, Errno, HandleId, HandleRef, NodeId, OpenFlags, Release,
    Result, SeekTo, SetAttr, SetTime, XattrMode, XattrName,
};

use crate::object::Source;
use crate::pump::Pump;
use crate::xattrs;

/// How much is asked for at a time, in bytes: a request of 16 MiB keeps the calls few, and a copy
/// can still be seen to go on.
const STEP: u64 = 16 << 20;

/// Which data of a regular file is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// All of it.
    All,
    /// Up to this many bytes; the copy is no longer than that.
    First(u64),
    /// None: the copy has the size of the source and is one hole.
    Hole,
}

impl Data {
    /// The size of the copy of a file of `size` bytes.
    pub(crate) fn size(self, size: u64) -> u64 {
        match self {
            Self::All | Self::Hole => size,
            Self::First(most) => size.min(most),
        }
    }
}

/// An open file.
#[derive(Clone, Copy)]
pub(crate) struct Open<'a> {
    pub(crate) fs: &'a Arc<dyn DynFileSystem>,
    pub(crate) node: NodeId,
    pub(crate) handle: HandleId,
}

impl Open<'_> {
    fn at(&self, offset: u64) -> CopyRange {
        CopyRange::new(self.node, self.handle, offset)
    }
}

/// Copies what `data` says into the empty file `to`.
pub(crate) fn copy(cx: &Context<'_>, source: Source<'_>, to: Open<'_>, data: Data) -> Result<()> {
    let size = data.size(source.attr.size);
    if data != Data::Hole && size > 0 {
        let opened = source.fs.open(cx, source.node, OpenFlags::READ_ONLY, false)?;
        let (fs, handle) = (Arc::clone(source.fs), opened.handle);
        let open = HandleRef::file(fs, source.node, handle, Release::default());
        let from = Open { fs: source.fs, node: source.node, handle: open.handle() };
        extents(cx, from, to, size)?;
    }
    if size > 0 {
        // The end may be a hole.
        let mut end = SetAttr::new();
        (end.size, end.handle) = (Some(size), Some(to.handle));
        to.fs.setattr(cx, to.node, &end)?;
    }
    Ok(())
}

/// Copies the data of `source` into `node` of `fs`, a regular file that is there already and of which
/// as much as `data` says is to be the same; it is cut to that.
///
/// What a write takes from a file is given back: its mode, capabilities and times.
///
/// # Errors
/// What the two filesystems answer; data of `node` may have been written then.
///
/// # Durability
/// With `durable`, all of it is.
pub fn copy_data(
    source: Source<'_>,
    (fs, node): (&Arc<dyn DynFileSystem>, NodeId),
    data: Data,
    durable: bool,
) -> Result<()> {
    let cx = &Context::internal();
    let before = fs.getattr(cx, node, None)?.attr;
    let capability = XattrName::new(b"security.capability")?;
    let kept = xattrs::value(cx, &**fs, node, capability)?;
    let opened = fs.open(cx, node, OpenFlags::READ_WRITE, false)?;
    let handle = HandleRef::file(Arc::clone(fs), node, opened.handle, Release::default());
    let to = Open { fs, node, handle: handle.handle() };
    let size = data.size(before.size);
    if size < before.size {
        let mut cut = SetAttr::new();
        (cut.size, cut.handle) = (Some(size), Some(to.handle));
        fs.setattr(cx, node, &cut)?;
    }
    copy(cx, source, to, Data::First(size))?;
    let mut rest = SetAttr::new();
    (rest.size, rest.handle) = (Some(size), Some(to.handle));
    fs.setattr(cx, node, &rest)?;
    if let Some(kept) = kept {
        fs.setxattr(cx, node, capability, &kept, XattrMode::Set, false)?;
    }
    let mut rest = SetAttr::new();
    rest.mode = Some(before.mode & 0o7777);
    (rest.atime, rest.mtime) = (Some(SetTime::At(before.atime)), Some(SetTime::At(before.mtime)));
    fs.setattr(cx, node, &rest)?;
    if durable {
        fs.fsync(cx, node, to.handle, false)?;
    }
    Ok(())
}

/// Copies each extent of the first `size` bytes.
fn extents(cx: &Context<'_>, from: Open<'_>, to: Open<'_>, size: u64) -> Result<()> {
    let mut at = 0;
    while at < size {
        let start = match from.fs.lseek(cx, from.node, from.handle, at, SeekTo::Data) {
            Ok(start) => start.max(at),
            Err(Errno::ENXIO) => return Ok(()),
            // It does not know its holes, so all is data.
            Err(_) => at,
        };
        let end = match from.fs.lseek(cx, from.node, from.handle, start, SeekTo::Hole) {
            Ok(end) if end > start => end.min(size),
            _ => size,
        };
        if start >= size {
            return Ok(());
        }
        extent(cx, from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn extent(cx: &Context<'_>, from: Open<'_>, to: Open<'_>, start: u64, end: u64) -> Result<()> {
    let mut at = start;
    if Arc::ptr_eq(from.fs, to.fs) {
        at = within(cx, from, to, start, end)?;
    }
    while at < end {
        let len = usize::try_from((end - at).min(STEP)).unwrap_or(usize::MAX);
        let mut pump = Pump::new(cx, to, at, len);
        let moved = from.fs.read(cx, from.node, from.handle, at, len, &mut pump);
        let moved = pump.outcome(moved)?;
        if moved == 0 {
            // The file became shorter; the check of its size tells.
            return Ok(());
        }
        at += moved;
    }
    Ok(())
}

/// Lets the one filesystem copy by itself, and says how far it came.
fn within(cx: &Context<'_>, from: Open<'_>, to: Open<'_>, start: u64, end: u64) -> Result<u64> {
    let mut at = start;
    while at < end {
        match from.fs.copy_file_range(cx, from.at(at), to.at(at), end - at) {
            Ok(0) => break,
            Ok(some) => at += some as u64,
            Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(at)
}
