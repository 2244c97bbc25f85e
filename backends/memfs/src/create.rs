//! Making objects and names.

use std::sync::Arc;

use stratafs_core::attr::S_IFMT;
use stratafs_core::filesystem::inherit;
use stratafs_core::{
    Attr, Context, Entry, Errno, FileType, Name, NodeId, OpenFlags, Opened, Result, Timestamp,
};

use crate::MemFs;
use crate::charge::{Hold, entry_cost};
use crate::entries::Entries;
use crate::node::{Body, File, Inode, Node, NodeArc, copy_of};

/// The most names of an inode, and directories in a directory.
pub(crate) const LINK_MAX: u32 = i32::MAX as u32;

/// The longest target of a symlink, in bytes: PATH_MAX of limits.h without its NUL.
const TARGET_MAX: usize = 4095;

/// What is to be made.
pub(crate) struct New {
    /// Type and permissions, before umask and setgid rules.
    pub(crate) mode: u32,
    pub(crate) rdev: u32,
    pub(crate) body: Body,
    pub(crate) now: Timestamp,
}

impl New {
    fn file(mode: u32, now: Timestamp) -> Self {
        let mode = FileType::Regular.mode_bits() | (mode & 0o7777);
        Self { mode, rdev: 0, body: Body::File(File::default()), now }
    }
}

impl MemFs {
    pub(crate) fn make_symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() > TARGET_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mode = FileType::Symlink.mode_bits() | 0o777;
        let body = Body::Symlink(copy_of(target)?);
        let new = New { mode, rdev: 0, body, now: self.now() };
        // A symlink's permissions mean nothing; the umask does not touch them.
        self.make(&cx.with_umask(0), parent, name, new)
    }

    pub(crate) fn make_node(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let now = self.now();
        let new = if mode & S_IFMT == 0 {
            New::file(mode, now)
        } else {
            let mode = mode & (S_IFMT | 0o7777);
            match FileType::from_mode(mode).ok_or(Errno::EINVAL)? {
                FileType::Regular => New::file(mode, now),
                FileType::Directory | FileType::Symlink => return Err(Errno::EINVAL),
                FileType::CharDevice | FileType::BlockDevice => {
                    New { mode, rdev, body: Body::None, now }
                }
                FileType::Fifo | FileType::Socket => New { mode, rdev: 0, body: Body::None, now },
            }
        };
        self.make(cx, parent, name, new)
    }

    pub(crate) fn make_dir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
    ) -> Result<Entry> {
        let mode = FileType::Directory.mode_bits() | (mode & 0o7777);
        let body = Body::Dir(Box::new(Entries::new()));
        self.make(cx, parent, name, New { mode, rdev: 0, body, now: self.now() })
    }

    fn make(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, new: New) -> Result<Entry> {
        let dir = self.node(parent)?;
        let hash = self.hash(name);
        let node = {
            let mut inode = dir.write_dir();
            if inode.live_dir_mut()?.get(hash, &name).is_some() {
                return Err(Errno::EEXIST);
            }
            self.add(cx, &dir, &mut inode, (hash, name), new)?
        };
        self.tell_name(cx, parent, name);
        let entry = self.entry(&node, &node.read());
        Ok(entry)
    }

    /// Adds `new` to `dir`, whose locked inode is `inode` and which has no such name. The new node
    /// has one lookup.
    fn add(
        &self,
        cx: &Context<'_>,
        dir: &Node,
        inode: &mut Inode,
        (hash, name): (u64, Name<'_>),
        new: New,
    ) -> Result<NodeArc> {
        let now = new.now;
        let is_dir = matches!(new.body, Body::Dir(_));
        if is_dir && inode.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        inode.live_dir_mut()?.reserve_one()?;
        let (node, hold) = self.new_node(cx, dir, inode, new, entry_cost(name.len()))?;
        self.nodes.insert(node.ino, Arc::clone(&node))?;
        inode.live_dir_mut()?.insert(hash, &name, Arc::clone(&node));
        inode.nlink += u32::from(is_dir);
        inode.modified(now);
        hold.keep();
        Ok(node)
    }

    /// A node made for `dir`, whose inode is `inode`, with what it is charged and `more`. It is in
    /// no table and no directory yet.
    pub(crate) fn new_node(
        &self,
        cx: &Context<'_>,
        dir: &Node,
        inode: &Inode,
        new: New,
        more: u64,
    ) -> Result<(NodeArc, Hold<'_>)> {
        let mut parent = Attr::new(dir.ino, inode.mode);
        parent.gid = inode.gid;
        let (mode, gid) = inherit(cx, &parent, new.mode);
        let (xattrs, _) = self.label(cx)?;
        let mut made = Inode::new(mode, cx.owner().uid, gid, new.now, new.body);
        made.xattrs = xattrs;
        let hold = self.account.hold(made.cost().saturating_add(more), 1)?;
        let node = Arc::new(Node::new(self.nodes.number(), dir.ino, new.rdev, made));
        Ok((node, hold))
    }

    pub(crate) fn create_file(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(Entry, Opened)> {
        let place = self.handles.place()?;
        let dir = self.node(parent)?;
        let hash = self.hash(name);
        let now = self.now();
        let (node, is_new) = {
            let mut inode = dir.write_dir();
            match inode.live_dir_mut()?.get(hash, &name) {
                Some(_) if flags.exclusive() => return Err(Errno::EEXIST),
                Some(node) => {
                    match node.kind {
                        FileType::Regular => {}
                        FileType::Directory => return Err(Errno::EISDIR),
                        // A race that the kernel resolves by following it.
                        FileType::Symlink => return Err(Errno::ESTALE),
                        _ => return Err(Errno::ENXIO),
                    }
                    node.raise();
                    (Arc::clone(node), false)
                }
                None => {
                    let new = New::file(mode, now);
                    (self.add(cx, &dir, &mut inode, (hash, name), new)?, true)
                }
            }
        };
        let opened = self.open_node(&node, place, flags, kill_priv && !is_new, now);
        match opened {
            Ok((opened, attr)) => {
                if is_new {
                    self.tell_name(cx, parent, name);
                } else if flags.truncate() {
                    self.tell_data(cx, NodeId(node.ino), 0, 0);
                }
                let entry = Entry::new(NodeId(node.ino), attr)
                    .with_timeouts(self.cache.entry_timeout, self.cache.attr_timeout);
                Ok((entry, opened))
            }
            Err(errno) => {
                if is_new {
                    // Nothing may stay made; that it is gone already is as good.
                    let _ = self.remove_name(cx, parent, name);
                }
                self.let_go(NodeId(node.ino), 1);
                Err(errno)
            }
        }
    }

    pub(crate) fn make_tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let place = self.handles.place()?;
        let dir = self.node(parent)?;
        let now = self.now();
        let (node, hold) = {
            let inode = dir.read_dir();
            inode.dir()?;
            if inode.nlink == 0 {
                return Err(Errno::ENOENT);
            }
            self.new_node(cx, &dir, &inode, New::file(mode, now), 0)?
        };
        {
            let mut inode = node.write();
            inode.nlink = 0;
            inode.linkable = !flags.exclusive();
        }
        self.nodes.insert(node.ino, Arc::clone(&node))?;
        hold.keep();
        let inode = node.read();
        let opened = place.open(&node, &inode, flags);
        let entry = self.entry(&node, &inode);
        drop(inode);
        match opened {
            Ok(handle) => Ok((entry, Opened::new(handle, self.cache.file_flags()))),
            Err(errno) => {
                self.let_go(NodeId(node.ino), 1);
                Err(errno)
            }
        }
    }

    pub(crate) fn add_name(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<Entry> {
        let node = self.node(id)?;
        let dir = self.node(parent)?;
        let hash = self.hash(name);
        let now = self.now();
        let mut dir_inode = dir.write_dir();
        let entries = dir_inode.live_dir_mut()?;
        if entries.get(hash, &name).is_some() {
            return Err(Errno::EEXIST);
        }
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        let mut inode = node.write();
        if inode.nlink == 0 && !inode.linkable {
            return Err(Errno::ENOENT);
        }
        if inode.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let hold = self.account.hold(entry_cost(name.len()), 0)?;
        entries.reserve_one()?;
        entries.insert(hash, &name, Arc::clone(&node));
        hold.keep();
        dir_inode.modified(now);
        inode.nlink += 1;
        inode.linkable = false;
        inode.changed(now);
        node.raise();
        let entry = self.entry(&node, &inode);
        drop((inode, dir_inode));
        self.tell_name(cx, parent, name);
        self.tell_attr(cx, id);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests;
