//! Copying an object: the steps, in their order.

use std::fmt;
use std::sync::Arc;

use stratafs_core::{
    Attr, Context, DynFileSystem, Entry, Errno, FileType, HandleRef, Name, NodeId, NodeRef,
    OpenFlags, Release, Result, SetAttr, SetTime, SliceSink, XattrName,
};

use crate::data::{self, Data, Open};
use crate::xattrs;

/// The longest target of a symlink, in bytes: PATH_MAX without its NUL.
const TARGET_MAX: usize = 4095;

/// What is copied.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The filesystem that it is in.
    pub fs: &'a Arc<dyn DynFileSystem>,
    /// The object.
    pub node: NodeId,
    /// Its attributes.
    pub attr: &'a Attr,
}

/// Where the copy is made.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The filesystem.
    pub fs: &'a Arc<dyn DynFileSystem>,
    /// A directory in it that nobody else looks into.
    pub dir: NodeId,
    /// The name in it, which is free.
    pub name: Name<'a>,
}

/// How much is copied.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Which data of a regular file.
    pub data: Data,
    /// Which extended attributes are copied.
    pub keep: &'a dyn Fn(XattrName<'_>) -> bool,
    /// Whether a regular file is durable before the answer.
    pub durable: bool,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({:?}, durable: {})", self.data, self.durable)
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.node)
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({} in {:?})", self.name, self.dir)
    }
}

/// Copies `source` to `target`, and gives the copy with the lookup of its creation.
///
/// A directory is made empty. The name of the copy is taken back if a step fails.
///
/// # Errors
/// * `ENOSPC`, `EDQUOT`, `EIO` and whatever else the two filesystems answer.
/// * `EIO`: the copy has not the size that it should have.
///
/// An extended attribute that the target may not hold (`EPERM`, `EOPNOTSUPP`) is logged and left
/// out. Records that a filesystem keeps for itself are no part of an object, and not copied.
///
/// # Durability
/// With `durable`, the data and attributes of a regular file are.
pub fn copy(source: Source<'_>, target: Target<'_>, options: &Options<'_>) -> Result<NodeRef> {
    let cx = Context::internal();
    let kind = source.attr.kind();
    let made = make(&cx, source, target)?;
    let done = fill(&cx, source, target, &made, options);
    match done {
        Ok(()) => Ok(made.node),
        Err(errno) => {
            drop(made);
            undo(&cx, target, kind);
            Err(errno)
        }
    }
}

/// A copy in the making. The handle is given back before the node.
struct Made {
    handle: Option<HandleRef>,
    node: NodeRef,
}

fn adopt(target: Target<'_>, entry: &Entry) -> Made {
    Made { handle: None, node: NodeRef::adopt(Arc::clone(target.fs), entry) }
}

fn make(cx: &Context<'_>, source: Source<'_>, target: Target<'_>) -> Result<Made> {
    let Target { fs, dir, name } = target;
    match source.attr.kind() {
        FileType::Regular => {
            let flags = OpenFlags::WRITE_ONLY.with_exclusive();
            let (entry, opened) = fs.create(cx, dir, name, 0o600, flags, false)?;
            let mut made = adopt(target, &entry);
            let release = Release::default();
            made.handle = Some(HandleRef::file(Arc::clone(fs), entry.node, opened.handle, release));
            Ok(made)
        }
        FileType::Directory => Ok(adopt(target, &fs.mkdir(cx, dir, name, 0o700)?)),
        FileType::Symlink => {
            let mut place = [0; TARGET_MAX];
            let mut sink = SliceSink::new(&mut place);
            let len = source.fs.readlink(cx, source.node, &mut sink)?;
            let text = place.get(..len).ok_or(Errno::EIO)?;
            Ok(adopt(target, &fs.symlink(cx, dir, name, text)?))
        }
        kind => {
            let mode = kind.mode_bits() | 0o600;
            Ok(adopt(target, &fs.mknod(cx, dir, name, mode, source.attr.rdev)?))
        }
    }
}

fn fill(
    cx: &Context<'_>,
    source: Source<'_>,
    target: Target<'_>,
    made: &Made,
    options: &Options<'_>,
) -> Result<()> {
    let Source { attr, .. } = source;
    let node = made.node.node();
    if let Some(handle) = &made.handle {
        let to = Open { fs: target.fs, node, handle: handle.handle() };
        data::copy(cx, source, to, options.data)?;
    }
    // A change of owner clears capabilities and setuid bits, so it comes before both.
    let mut owner = SetAttr::new();
    (owner.uid, owner.gid) = (Some(attr.uid), Some(attr.gid));
    target.fs.setattr(cx, node, &owner)?;
    xattrs::copy(source, target.fs, node, options.keep)?;
    let mut rest = SetAttr::new();
    if attr.kind() != FileType::Symlink {
        rest.mode = Some(attr.mode & 0o7777);
    }
    (rest.atime, rest.mtime) = (Some(SetTime::At(attr.atime)), Some(SetTime::At(attr.mtime)));
    let now = target.fs.setattr(cx, node, &rest)?.attr;
    let size = options.data.size(attr.size);
    if attr.kind() == FileType::Regular && now.size != size {
        log::error!(
            "transfer: a copy of {} bytes has {} of them, so it is given up (EIO); the source \
             changed meanwhile, or the target lost some",
            size,
            now.size
        );
        return Err(Errno::EIO);
    }
    if options.durable
        && let Some(handle) = &made.handle
    {
        target.fs.fsync(cx, node, handle.handle(), false)?;
    }
    Ok(())
}

fn undo(cx: &Context<'_>, target: Target<'_>, kind: FileType) {
    let Target { fs, dir, name } = target;
    let undone = match kind {
        FileType::Directory => fs.rmdir(cx, dir, name),
        _ => fs.unlink(cx, dir, name),
    };
    if let Err(errno) = undone {
        log::warn!("transfer: the unfinished copy {name} stays in the staging directory: {errno}");
    }
}
