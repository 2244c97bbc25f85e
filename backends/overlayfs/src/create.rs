//! Making objects.
//!
//! Where the writable layer has nothing under the name, the object is made there in one call. Over a
//! whiteout it is made in the staging directory and swapped in: a directory is opaque before it is
//! visible, so that nothing of what was deleted shows in it.

use std::sync::Arc;

use stratafs_core::attr::{S_ISGID, S_ISUID, S_ISVTX};
use stratafs_core::filesystem::inherit;
use stratafs_core::{
    Attr, BackingFile, Context, Credentials, Entry, Errno, FileType, HandleId, HandleRef, Name,
    NameBuf, NodeId, OpenFlags, Opened, Release, RenameFlags, Result, SetAttr,
};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::file::{File, RealFile};
use crate::format::Record;
use crate::layer::{Real, UPPER};
use crate::lookup::Slot;
use crate::merge::Listed;
use crate::node::{Node, Of, Place};
use crate::table::Key;

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
    /// A further name of an object that is in the writable layer.
    Link {
        node: &'a Arc<Node>,
        upper: &'a Real,
    },
}

impl New<'_> {
    fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
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
    handle: Option<Lent>,
    real: Real,
    attr: Attr,
}

/// A layer's handle, and the file that the layer lends with it.
pub(crate) type Lent = (HandleRef, Option<BackingFile>);

/// How often an open with O_CREAT is tried anew when the name comes and goes meanwhile.
const TRIES: usize = 16;

impl OverlayFs {
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
    ) -> Result<(Arc<Node>, Attr, Option<Lent>)> {
        let dir = self.table.get(parent)?;
        dir.require_dir()?;
        self.writable()?;
        // Before a directory is copied up in vain.
        if dir.upper().is_none() && self.peek(&dir, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let upper_dir = self.copy_up(&dir, Data::All)?;
        let names = dir.names.write();
        let place = dir.place();
        if place.removed {
            return Err(Errno::ENOENT);
        }
        let resolved = self.resolve_new(&dir, &place, name)?;
        if resolved.object.is_some() {
            return Err(Errno::EEXIST);
        }
        if let New::Link { node, .. } = new
            && node.ino() != 0
            && !self.is_own_ino(node)?
        {
            self.mark_impure(&upper_dir)?;
        }
        let made = match resolved.slot {
            Slot::Whiteout => self.make_staged(cx, &upper_dir, name, new)?,
            Slot::Absent | Slot::Object => self.make_in(cx, &upper_dir, name, new)?,
        };
        let Made { handle, real, attr } = made;
        let node = match new {
            New::Link { node, .. } => {
                drop(real);
                self.named(node, &dir, name);
                self.table.look_up(node);
                Arc::clone(node)
            }
            _ => self.enter_new(&dir, name, real, &attr),
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

    /// Whether the number of `node` is that of its object in the writable layer.
    pub(crate) fn is_own_ino(&self, node: &Node) -> Result<bool> {
        match node.upper() {
            Some(upper) => Ok(self.map_ino(&upper, upper.attr()?.ino) == node.ino()),
            None => Ok(false),
        }
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

    /// The node of an object that was just made in the writable layer.
    fn enter_new(&self, dir: &Arc<Node>, name: Name<'_>, real: Real, attr: &Attr) -> Arc<Node> {
        self.enter_upper(Some((Arc::clone(dir), name.to_owned())), real, attr)
    }

    fn enter_upper(
        &self,
        parent: Option<(Arc<Node>, NameBuf)>,
        real: Real,
        attr: &Attr,
    ) -> Arc<Node> {
        let key = Key::Upper(real.id());
        let ino = self.map_ino(&real, attr.ino);
        let generation = real.generation;
        let place = Place { parent, ..Place::of_upper(real) };
        let of = Of { kind: attr.kind(), ino, generation };
        let new = Node::new(self.table.number(), of, place, &self.table);
        self.table.enter(key, new)
    }

    /// Makes `name` in the writable layer's directory `dir`.
    fn make_in(&self, cx: &Context<'_>, dir: &Real, name: Name<'_>, new: New<'_>) -> Result<Made> {
        let fs = dir.fs();
        let mut opened = None;
        let entry = match new {
            New::File { mode, flags } => {
                let flags = flags.with_exclusive().without_truncate();
                let (entry, open) = fs.create(cx, dir.id(), name, mode, flags, false)?;
                opened = Some((open.handle, open.backing));
                entry
            }
            New::Special { mode, rdev } => fs.mknod(cx, dir.id(), name, mode, rdev)?,
            New::Dir { mode } => fs.mkdir(cx, dir.id(), name, mode)?,
            New::Symlink { target } => fs.symlink(cx, dir.id(), name, target)?,
            New::Link { upper, .. } => fs.link(cx, upper.id(), dir.id(), name)?,
        };
        let real = Real::adopt(UPPER, fs, &entry);
        let handle = opened.map(|(handle, backing)| (self.layer_handle(&real, handle), backing));
        Ok(Made { handle, real, attr: entry.attr })
    }

    pub(crate) fn layer_handle(&self, real: &Real, handle: HandleId) -> HandleRef {
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
        let work = &self.writable()?.work;
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
            made.attr = work.fs().setattr(&cx, made.real.id(), &set)?.attr;
        }
        if new.is_dir() {
            made.real.set_xattr(self.names.name(Record::Opaque), b"y")?;
            staged.exchange(dir, name, false)?;
        } else {
            staged.publish(dir, name, RenameFlags::empty())?;
        }
        Ok(made)
    }

    pub(crate) fn make_special(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        if FileType::from_mode(mode) == Some(FileType::CharDevice) && rdev == 0 {
            // It would be a whiteout, and the name gone with its making.
            return Err(Errno::EPERM);
        }
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
        self.writable()?;
        if self.peek(&dir, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        if dir.is_removed() {
            return Err(Errno::ENOENT);
        }
        if node.is_removed() && node.upper().is_none() {
            return Err(Errno::ENOENT);
        }
        // All of it: names of one file can't each say where its data is.
        let upper = self.copy_up(&node, Data::All)?;
        self.count_along(&node)?;
        self.make(cx, parent, name, New::Link { node: &node, upper: &upper })
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
        let upper_dir = self.copy_up(&dir, Data::All)?;
        let fs = upper_dir.fs();
        let (entry, opened) = fs.tmpfile(cx, upper_dir.id(), mode, flags)?;
        let real = Real::adopt(UPPER, fs, &entry);
        let handle = (self.layer_handle(&real, opened.handle), opened.backing);
        let node = self.enter_upper(None, real, &entry.attr);
        Ok((self.entry(&node, entry.attr), self.enter_file(node, handle, flags)))
    }

    /// A client's handle on `node`, which `handle` of the writable layer is open on.
    fn enter_file(&self, node: Arc<Node>, handle: Lent, flags: OpenFlags) -> Opened {
        let (handle, backing) = handle;
        let Some(at) = node.upper() else {
            // A node is entered with its object; without one no handle works.
            return Opened::stateless(self.cache.file_flags());
        };
        let flags = flags.without_truncate().without_exclusive();
        let file = File::new(node, flags, RealFile { handle, at, limit: None });
        self.enter_handle(file).with_backing(backing)
    }
}
