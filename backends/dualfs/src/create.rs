//! Making objects.
//!
//! Where the written side has nothing under the name, the object is made there in one call. Over a
//! whiteout it is made in the staging directory and swapped in, with its records: nothing of what was
//! deleted shows in it, or in its place.

use std::sync::Arc;

use stratafs_core::attr::{S_ISGID, S_ISUID, S_ISVTX};
use stratafs_core::filesystem::inherit;
use stratafs_core::{
    Attr, Context, Credentials, Entry, Errno, FileType, HandleId, HandleRef, Name, NodeId, OpKind,
    OpenFlags, Opened, Release, RenameFlags, Result, SetAttr, XattrMode, XattrName,
};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::file::{File, RealFile};
use crate::lookup::Slot;
use crate::merge::Listed;
use crate::node::Node;
use crate::policy::Request;
use crate::record::Record;
use crate::side::{Part, Real};

/// What is made.
#[derive(Clone, Copy)]
pub(crate) enum New<'a> {
    File {
        mode: u32,
        flags: OpenFlags,
    },
    Special {
        mode: u32,
        rdev: u32,
    },
    Dir {
        mode: u32,
    },
    Symlink {
        target: &'a [u8],
    },
    /// A further name of an object that is on the written side.
    Link {
        node: &'a Arc<Node>,
        real: &'a Real,
    },
}

impl New<'_> {
    fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    fn op(&self) -> OpKind {
        match self {
            Self::File { .. } => OpKind::Create,
            Self::Special { .. } => OpKind::Mknod,
            Self::Dir { .. } => OpKind::Mkdir,
            Self::Symlink { .. } => OpKind::Symlink,
            Self::Link { .. } => OpKind::Link,
        }
    }

    /// The mode, type included; of a link it is not asked for.
    fn mode(&self) -> u32 {
        match self {
            Self::File { mode, .. } => (mode & 0o7777) | FileType::Regular.mode_bits(),
            Self::Special { mode, .. } => *mode,
            Self::Dir { mode } => (mode & 0o7777) | FileType::Directory.mode_bits(),
            Self::Symlink { .. } | Self::Link { .. } => FileType::Symlink.mode_bits() | 0o777,
        }
    }
}

/// What was made. The handle is given back before the object.
struct Made {
    handle: Option<HandleRef>,
    part: Part,
}

/// How often an open with O_CREAT is tried anew when the name comes and goes meanwhile.
const TRIES: usize = 16;

impl DualFs {
    pub(crate) fn make(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new: New<'_>,
    ) -> Result<Entry> {
        let (node, attr, _) = self.make_node(cx, parent, name, new)?;
        Ok(self.entry(&node, attr))
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
        let dir = self.table.get(parent)?;
        for _ in 0..TRIES {
            if let Some((node, attr)) = self.find(&dir, name)? {
                let opened = match node.kind {
                    _ if flags.exclusive() => Err(Errno::EEXIST),
                    // A race that the kernel resolves by following it.
                    FileType::Symlink => Err(Errno::ESTALE),
                    _ => self.open_node(cx, &node, flags, kill_priv),
                };
                let attr = match (&opened, flags.truncate()) {
                    (Ok(_), true) => node.top().and_then(|top| top.attr()).unwrap_or(attr),
                    _ => attr,
                };
                return match opened {
                    Ok(opened) => Ok((self.entry(&node, attr), opened)),
                    Err(errno) => {
                        self.table.forget(node.id, 1);
                        Err(errno)
                    }
                };
            }
            match self.make_node(cx, parent, name, New::File { mode, flags }) {
                Ok((node, attr, Some(handle))) => {
                    let entry = self.entry(&node, attr);
                    return Ok((entry, self.enter_file(node, handle, flags)));
                }
                Ok((node, _, None)) => {
                    self.table.forget(node.id, 1);
                    return Err(Errno::EIO);
                }
                Err(Errno::EEXIST) if !flags.exclusive() => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EEXIST)
    }

    /// Makes `name` in `parent`. The node comes with a lookup.
    fn make_node(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new: New<'_>,
    ) -> Result<(Arc<Node>, Attr, Option<HandleRef>)> {
        let dir = self.table.get(parent)?;
        dir.require_dir()?;
        // Before a directory is transferred in vain.
        if self.exists(&dir, name)? {
            return Err(Errno::EEXIST);
        }
        let request = Request::new(new.op(), true).named(name);
        let real_dir = self.to_write(request, &dir, Data::All)?;
        let names = dir.names.write();
        let view = dir.view();
        if view.removed {
            return Err(Errno::ENOENT);
        }
        let resolved = self.resolve(&view, name)?;
        if resolved.object.is_some() {
            return Err(Errno::EEXIST);
        }
        if let New::Link { real, .. } = new
            && self.has_records(real)?
        {
            self.mark_impure(&dir)?;
        }
        let made = match resolved.slot {
            Slot::Whiteout => self.make_staged(cx, &real_dir, name, new)?,
            Slot::Absent | Slot::Object => self.make_in(cx, &real_dir, name, new)?,
        };
        let Made { handle, part } = made;
        let attr = part.attr.clone();
        let node = match new {
            New::Link { node, .. } => {
                drop(part);
                self.named(node, &dir, name);
                self.table.look_up(node);
                Arc::clone(node)
            }
            _ => self.enter_new(Some((&dir, name)), part),
        };
        let listed = Listed { name: name.to_owned(), ino: node.ino(), kind: node.kind };
        self.index_add(&dir, listed);
        drop(names);
        self.tell_entry(cx, &dir, name);
        if let New::Link { .. } = new {
            self.tell_attr(cx, &node);
        }
        Ok((node, attr, handle))
    }

    /// Whether an object of the written side has records that a listing must look for.
    pub(crate) fn has_records(&self, real: &Real) -> Result<bool> {
        real.has_record(self.names.name(Record::Origin))
    }

    /// A node that had no name has one, if this is its first.
    fn named(&self, node: &Arc<Node>, dir: &Arc<Node>, name: Name<'_>) {
        let parent = Some((Arc::clone(dir), name.to_owned()));
        let old = node.change(|place| match &place.parent {
            None => std::mem::replace(&mut place.parent, parent),
            Some(_) => None,
        });
        drop(old);
        node.change(|place| place.removed = false);
    }

    /// Makes `name` in the written side's directory `dir`.
    fn make_in(&self, cx: &Context<'_>, dir: &Real, name: Name<'_>, new: New<'_>) -> Result<Made> {
        let fs = dir.fs();
        let mut opened = None;
        let entry = match new {
            New::File { mode, flags } => {
                let flags = flags.with_exclusive().without_truncate();
                let (entry, open) = fs.create(cx, dir.id(), name, mode, flags, false)?;
                opened = Some(open.handle);
                entry
            }
            New::Special { mode, rdev } => fs.mknod(cx, dir.id(), name, mode, rdev)?,
            New::Dir { mode } => fs.mkdir(cx, dir.id(), name, mode)?,
            New::Symlink { target } => fs.symlink(cx, dir.id(), name, target)?,
            New::Link { real, .. } => fs.link(cx, real.id(), dir.id(), name)?,
        };
        let part = Part::adopt(dir.side, fs, entry);
        let open = |handle| HandleRef::file(Arc::clone(fs), part.id(), handle, Release::default());
        Ok(Made { handle: opened.map(open), part })
    }

    pub(crate) fn handle_on(&self, real: &Real, handle: HandleId) -> HandleRef {
        HandleRef::file(Arc::clone(real.fs()), real.id(), handle, Release::default())
    }

    /// Makes the object in the staging directory, and swaps it with the whiteout under `name`.
    fn make_staged(
        &self,
        cx: &Context<'_>,
        dir: &Real,
        name: Name<'_>,
        new: New<'_>,
    ) -> Result<Made> {
        let work = &self.staging()?.work;
        let staged = self.stage(new.is_dir())?;
        let parent = dir.attr()?;
        let (mode, gid) = inherit(cx, &parent, new.mode());
        let mut owner = Context::internal();
        owner.caller = Some(Credentials::new(cx.owner().uid, gid));
        owner.security = cx.security;
        let perm = mode & 0o7777;
        let as_staged = match new {
            New::File { flags, .. } => New::File { mode: perm, flags },
            New::Special { rdev, .. } => New::Special { mode, rdev },
            New::Dir { .. } => New::Dir { mode: perm },
            other => other,
        };
        let mut made = self.make_in(&owner, work, staged.name(), as_staged)?;
        let mut staged = staged.made();
        if mode & (S_ISUID | S_ISGID | S_ISVTX) != 0
            && !matches!(new, New::Symlink { .. } | New::Link { .. })
        {
            // A filesystem may take some of these from a new object.
            let mut set = SetAttr::new();
            set.mode = Some(perm);
            let cx = Context::internal();
            made.part.attr = work.fs().setattr(&cx, made.part.id(), &set)?.attr;
        }
        self.record_over(&made.part)?;
        if new.is_dir() {
            staged.exchange(dir, name, false)?;
        } else {
            staged.publish(dir, name, RenameFlags::empty())?;
        }
        Ok(made)
    }

    /// Records of an object that nothing of the other side shows in it, or in its place.
    fn record_over(&self, part: &Part) -> Result<()> {
        let kind = part.attr.kind();
        let record = if kind == FileType::Directory { Record::Opaque } else { Record::Written };
        if !self.takes_records(kind) {
            return Ok(());
        }
        let name = XattrName::new(self.names.name(record))?;
        let cx = Context::internal();
        part.node.fs().setxattr(&cx, part.id(), name, b"y", XattrMode::Set, false)
    }

    pub(crate) fn make_special(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let has_type = mode & stratafs_core::attr::S_IFMT != 0;
        let mode = if has_type { mode } else { mode | FileType::Regular.mode_bits() };
        self.make(cx, parent, name, New::Special { mode, rdev })
    }

    pub(crate) fn make_link(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let node = self.table.get(id)?;
        let dir = self.table.get(parent)?;
        dir.require_dir()?;
        if self.exists(&dir, name)? {
            return Err(Errno::EEXIST);
        }
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        let gone = |node: &Node| node.with_place(|place| place.removed);
        if gone(&dir) || (gone(&node) && node.written().is_none()) {
            return Err(Errno::ENOENT);
        }
        let real = self.to_write(Request::new(OpKind::Link, true).named(name), &node, Data::All)?;
        self.make(cx, parent, name, New::Link { node: &node, real: &real })
    }

    pub(crate) fn make_unnamed(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let dir = self.table.get(parent)?;
        dir.require_dir()?;
        let real_dir = self.to_write(Request::new(OpKind::Tmpfile, true), &dir, Data::All)?;
        let fs = real_dir.fs();
        let (entry, opened) = fs.tmpfile(cx, real_dir.id(), mode, flags)?;
        let part = Part::adopt(real_dir.side, fs, entry);
        let (node, handle) = (part.id(), opened.handle);
        let handle = HandleRef::file(Arc::clone(fs), node, handle, Release::default());
        let attr = part.attr.clone();
        let node = self.enter_new(None, part);
        Ok((self.entry(&node, attr), self.enter_file(node, handle, flags)))
    }

    /// A client's handle on `node`, which `handle` of the written side is open on.
    fn enter_file(&self, node: Arc<Node>, handle: HandleRef, flags: OpenFlags) -> Opened {
        let Some(at) = node.written() else {
            // A node is entered with its object; without one no handle works.
            return Opened::stateless(self.cache.file_flags());
        };
        let flags = flags.without_truncate().without_exclusive();
        self.enter_handle(File::new(node, flags, RealFile { handle, at }))
    }
}
