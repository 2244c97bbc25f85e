//! Making objects.
//!
//! A new object is visible before it has its owner, for a moment in which it belongs to the server:
//! between openat and fchown or fsetxattr. Nobody gains by it, for the server's own user is who
//! could use it anyway, and bits that lend the owner's power come last. The one client's kernel
//! keeps its own lookups out of a directory that something is made in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use stratafs_core::attr::{S_ISGID, S_ISUID, S_ISVTX};
use stratafs_core::filesystem::inherit;
use stratafs_core::{
    Attr, Context, Entry, Errno, FileType, Name, NodeId, OpenFlags, Opened, Result,
};
use stratafs_sys::stat::{self, Stat};
use stratafs_sys::{at, openat, xattr};

use crate::PassthroughFs;
use crate::acls::Inherited;
use crate::builder::{OpenMode, Ownership};
use crate::file::host_flags;
use crate::handles::{Handle, Kind, Room};
use crate::node::{DataFile, Node};
use crate::owner::decode_device;
use crate::record::{RECORD, Record};

/// How often a name that comes and goes is tried when it may be opened or made.
const ATTEMPTS: usize = 8;

/// The bits of a mode that lend power; set when the owner is known.
const SPECIAL: u32 = S_ISUID | S_ISGID | S_ISVTX;

/// What a new object is to be.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) device: (u32, u32),
    /// Whether the host gives it the group of its directory by itself.
    pub(crate) inherits: bool,
    /// Whether its directory has a default ACL, which the host heeds by itself under host ownership.
    under_acl: bool,
    /// What it gets from that one here.
    acl: Option<Arc<Inherited>>,
}

impl Wanted {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }

    pub(crate) fn record(&self) -> Record {
        let kind = Some(self.kind());
        let (uid, gid) = (self.uid, self.gid);
        Record { uid, gid, mode: self.mode & 0o7777, kind, device: self.device }
    }
}

impl PassthroughFs {
    /// What an object of `mode`, type included, made by `cx` in `parent` is to be.
    pub(crate) fn wanted(&self, cx: &Context<'_>, parent: &Arc<Node>, mode: u32) -> Result<Wanted> {
        let known = self.inheritance(parent)?;
        let mut above = Attr::new(0, known.mode);
        above.gid = known.gid;
        let is_link = FileType::from_mode(mode) == Some(FileType::Symlink);
        let under_acl = known.default_acl && !is_link;
        // The ACL says what the umask would.
        let cx = if under_acl { &cx.with_umask(0) } else { cx };
        let (mode, gid) = inherit(cx, &above, mode);
        let (mode, acl) = if under_acl {
            self.inherit_acl(self.pin(parent)?.as_fd(), mode)?
        } else {
            (mode, None)
        };
        let inherits = above.mode & S_ISGID != 0;
        let uid = cx.owner().uid;
        if self.options.ownership == Ownership::Host {
            // Ids that may not be given are found out before anything is made.
            self.options.uid_map.to_host(uid)?;
            self.options.gid_map.to_host(gid)?;
        }
        Ok(Wanted { uid, gid, mode, device: (0, 0), inherits, under_acl, acl })
    }

    /// The permissions that the host is asked for.
    pub(crate) fn host_mode(&self, wanted: &Wanted) -> u32 {
        match (self.options.ownership, wanted.kind()) {
            // Plain, and such that the server can always work.
            (Ownership::Virtual, FileType::Directory) => 0o700,
            (Ownership::Virtual, _) => 0o600,
            _ => wanted.mode & 0o777,
        }
    }

    /// Gives a new object, which `fd` holds, its owner and its mode, and says what it is now.
    fn settle(
        &self,
        cx: &Context<'_>,
        fd: BorrowedFd<'_>,
        is_path: bool,
        wanted: &Wanted,
    ) -> Result<(Stat, Option<Record>)> {
        let host_mode = self.host_mode(wanted);
        let kind = wanted.kind();
        let mut record = None;
        match self.options.ownership {
            Ownership::Virtual => {
                let text = wanted.record().text();
                if is_path {
                    self.proc.set_xattr(fd, RECORD, text.as_bytes(), 0)?;
                } else {
                    xattr::set(fd, RECORD, text.as_bytes(), 0)?;
                }
                record = Some(wanted.record());
                if let Some(inherited) = &wanted.acl {
                    self.settle_acl(fd, inherited)?;
                }
                if self.process_umask & host_mode != 0 {
                    self.proc.set_mode(fd, host_mode)?;
                }
            }
            Ownership::Host => {
                let uid = self.options.uid_map.to_host(wanted.uid)?;
                let gid = self.options.gid_map.to_host(wanted.gid)?;
                let uid = (uid != self.server.0).then_some(uid);
                let gid = (!wanted.inherits && gid != self.server.1).then_some(gid);
                if uid.is_some() || gid.is_some() {
                    at::set_owner(fd, uid, gid)?;
                }
                // A chown clears what lends power. A new directory has its parent's setgid bit.
                let special = wanted.mode & SPECIAL;
                let there =
                    if kind == FileType::Directory && wanted.inherits { S_ISGID } else { 0 };
                // A default ACL makes the host pass the umask over.
                let masked = !wanted.under_acl && self.process_umask & host_mode != 0;
                if kind != FileType::Symlink && (special & !there != 0 || masked) {
                    let shown = if wanted.under_acl { stat::of(fd)?.mode } else { wanted.mode };
                    self.proc.set_mode(fd, (shown & 0o777) | special)?;
                }
            }
            Ownership::Squash => {
                if kind != FileType::Symlink && self.process_umask & host_mode != 0 {
                    self.proc.set_mode(fd, host_mode)?;
                }
            }
        }
        if let Some(label) = cx.security
            && let Some(name) = self.host_xattr(label.name.as_bytes())
        {
            self.proc.set_xattr(fd, &name, label.value, 0)?;
        }
        Ok((stat::of(fd)?, record))
    }

    /// The node of a new object, its lookup count raised by one.
    fn enter_new(
        &self,
        fd: &OwnedFd,
        wanted: &Wanted,
        (stat, record): (Stat, Option<Record>),
    ) -> (Arc<Node>, Attr) {
        let attr = self.shape(&stat, record.as_ref());
        let kind = if self.is_virtual() { wanted.kind() } else { attr.kind() };
        let node = self.enter(fd, &stat, kind);
        self.remember(&node, &stat, record, true);
        (node, attr)
    }

    /// Makes `name` a regular file and opens it, or opens what is there.
    pub(crate) fn create_in(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(Entry, Opened)> {
        let parent = self.dir_node(parent)?;
        for _ in 0..ATTEMPTS {
            match self.make_file(cx, &parent, name, mode, flags) {
                Err(Errno::EEXIST) if !flags.exclusive() => {}
                answer => return answer,
            }
            let dir = self.pin(&parent)?;
            let (node, attr) = match self.find(&parent, &dir, name) {
                // It went again.
                Err(Errno::ENOENT) => continue,
                answer => answer?,
            };
            let opened = match self.open_node(&node, flags, kill_priv) {
                Ok(opened) => opened,
                Err(errno) => {
                    self.forget_node(&node, 1);
                    return Err(errno);
                }
            };
            let attr = if flags.truncate() {
                let stat = self.stat(&node)?;
                self.attr(&node, &stat)?
            } else {
                attr
            };
            return Ok((self.entry(&node, attr), opened));
        }
        Err(Errno::ESTALE)
    }

    fn make_file(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        if self.options.readonly || self.is_single(parent) {
            // What is there may still be opened.
            let dir = self.pin(parent)?;
            let there = !self.is_hidden(parent, name) && stat::of_child(dir.as_fd(), name).is_ok();
            let refusal = if self.options.readonly { Errno::EROFS } else { Errno::EPERM };
            return Err(if there { Errno::EEXIST } else { refusal });
        }
        let room = self.handles.room()?;
        let wanted = self.wanted(cx, parent, FileType::Regular.mode_bits() | (mode & 0o7777))?;
        let dir = self.pin(parent)?;
        let access = match self.options.open {
            OpenMode::Handles => host_flags(flags),
            // It is kept for the node, whichever way it is used.
            OpenMode::Stateless => libc::O_RDWR,
        };
        let host = access | libc::O_CREAT | libc::O_EXCL | libc::O_NONBLOCK;
        let host_mode = self.host_mode(&wanted);
        let open = || openat::open_child(dir.as_fd(), name, host, host_mode);
        let fd = Arc::new(self.workable(parent, &dir, || self.with_room(open))?);
        let made = match self.settle(cx, fd.as_fd(), false, &wanted) {
            Ok(made) => made,
            Err(errno) => {
                self.undo(&dir, name, &fd);
                return Err(errno);
            }
        };
        let (node, attr) = self.enter_new(&fd, &wanted, made);
        if attr.mode & (S_ISUID | S_ISGID) == 0 {
            // Nor has it capabilities, so nobody need look.
            node.keep_unprivileged(0);
        }
        self.place(&node, parent, name);
        let opened = self.keep_open(&node, fd, flags, room);
        Ok((self.entry(&node, attr), opened))
    }

    /// Keeps a new file open, by a handle or for the node itself.
    fn keep_open(
        &self,
        node: &Arc<Node>,
        fd: Arc<OwnedFd>,
        flags: OpenFlags,
        room: Room<'_>,
    ) -> Opened {
        let opened = self.options.cache.file_flags();
        if self.options.open == OpenMode::Stateless {
            self.pins.keep_data(&self.table, node, &DataFile { fd, writable: true });
            return Opened::stateless(opened);
        }
        node.set_size(Some(0));
        let backing = self.backing(node, &fd, flags);
        let handle = Handle { node: Arc::clone(node), fd, kind: Kind::File { flags } };
        Opened::new(self.handles.add(room, handle), opened).with_backing(backing)
    }

    /// Removes what was made and could not be finished, unless the name leads elsewhere by now.
    fn undo(&self, dir: &OwnedFd, name: Name<'_>, fd: &OwnedFd) {
        let same = match (stat::of(fd.as_fd()), stat::of_child(dir.as_fd(), name)) {
            (Ok(made), Ok(there)) => (made.dev, made.ino) == (there.dev, there.ino),
            _ => false,
        };
        if !same {
            return;
        }
        let removed =
            if stat::of(fd.as_fd()).is_ok_and(|made| made.mode & libc::S_IFMT == libc::S_IFDIR) {
                at::remove_dir(dir.as_fd(), name)
            } else {
                at::remove_file(dir.as_fd(), name)
            };
        if let Err(error) = removed {
            log::error!("passthrough: {name} was made, could not be finished, and stays: {error}");
        }
    }

    /// Removes what was just made by name and could not be held, for as far as it can be told without
    /// holding it: of its type, the server's own, with one name and nothing in it.
    pub(crate) fn undo_unheld(&self, dir: &OwnedFd, name: Name<'_>, kind: FileType) {
        let Ok(stat) = stat::of_child(dir.as_fd(), name) else { return };
        if stat.mode & libc::S_IFMT != kind.mode_bits() || stat.uid != self.server.0 {
            return;
        }
        let removed = match kind {
            FileType::Directory => at::remove_dir(dir.as_fd(), name),
            FileType::Symlink if stat.nlink == 1 => at::remove_file(dir.as_fd(), name),
            _ if stat.nlink == 1 && stat.size == 0 => at::remove_file(dir.as_fd(), name),
            _ => return,
        };
        if let Err(error) = removed {
            log::error!("passthrough: {name} was made, could not be held, and stays: {error}");
        }
    }

    /// Makes a file without a name, and opens it.
    pub(crate) fn make_unnamed(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let parent = self.writable_dir(parent)?;
        let room = self.handles.room()?;
        let wanted = self.wanted(cx, &parent, FileType::Regular.mode_bits() | (mode & 0o7777))?;
        let dir = self.pin(&parent)?;
        let exclusive = if flags.exclusive() { libc::O_EXCL } else { 0 };
        let host = libc::O_RDWR | (host_flags(flags) & !libc::O_ACCMODE) | exclusive;
        let host_mode = self.host_mode(&wanted);
        let make = || self.with_room(|| openat::unnamed_file(dir.as_fd(), host, host_mode));
        let fd = self.workable(&parent, &dir, make);
        let fd = Arc::new(fd.map_err(|errno| match errno {
            // A filesystem without such files sees an open of a directory for writing.
            Errno::EISDIR => Errno::EOPNOTSUPP,
            errno => errno,
        })?);
        let made = self.settle(cx, fd.as_fd(), false, &wanted)?;
        let (node, attr) = self.enter_new(&fd, &wanted, made);
        if self.options.open == OpenMode::Stateless && !self.pins.keep(&self.table, &node, &fd) {
            self.forget_node(&node, 1);
            return Err(Errno::ENFILE);
        }
        let opened = self.keep_open(&node, fd, flags, room);
        Ok((self.entry(&node, attr), opened))
    }

    /// Makes a directory.
    pub(crate) fn make_dir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
    ) -> Result<Entry> {
        let parent = self.writable_dir(parent)?;
        let mode = FileType::Directory.mode_bits() | (mode & 0o7777);
        let wanted = self.wanted(cx, &parent, mode)?;
        let dir = self.pin(&parent)?;
        let host_mode = self.host_mode(&wanted);
        self.workable(&parent, &dir, || Ok(at::make_dir(dir.as_fd(), name, host_mode)?))?;
        let pin = self.with_room(|| openat::pin_child_dir(dir.as_fd(), name));
        self.finish(cx, &parent, &dir, name, &wanted, pin)
    }

    /// Makes a file, device, FIFO or socket.
    pub(crate) fn make_node(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        device: u32,
    ) -> Result<Entry> {
        let parent = self.writable_dir(parent)?;
        let kind = Self::type_of(mode)?;
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            return Err(Errno::EINVAL);
        }
        let mut wanted = self.wanted(cx, &parent, kind.mode_bits() | (mode & 0o7777))?;
        let is_device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
        if is_device {
            wanted.device = decode_device(device);
        }
        let dir = self.pin(&parent)?;
        let whiteout = kind == FileType::CharDevice && wanted.device == (0, 0);
        if whiteout && cx.is_internal() {
            return self.make_whiteout(&parent, &dir, name);
        }
        if kind == FileType::Regular {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY | libc::O_NONBLOCK;
            let mode = self.host_mode(&wanted);
            let open = || self.with_room(|| openat::open_child(dir.as_fd(), name, flags, mode));
            let fd = Arc::new(self.workable(&parent, &dir, open)?);
            return self.settled(cx, &parent, &dir, name, &wanted, &fd, false);
        }
        if self.is_virtual() {
            return self.make_special_file(cx, &parent, &dir, name, &wanted);
        }
        if self.options.ownership == Ownership::Squash && is_device {
            return Err(Errno::EPERM);
        }
        at::make_node(dir.as_fd(), name, wanted.mode & !SPECIAL, wanted.device)?;
        let pin = self.with_room(|| openat::pin_child(dir.as_fd(), name));
        self.finish(cx, &parent, &dir, name, &wanted, pin)
    }

    /// A special file is an ordinary one to the host, with a record. It has it before it has a name:
    /// without it, it would be a file to whoever looks.
    fn make_special_file(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        dir: &Arc<OwnedFd>,
        name: Name<'_>,
        wanted: &Wanted,
    ) -> Result<Entry> {
        let mut made = self.workable(parent, dir, || self.prepare(dir))?;
        self.settle(cx, made.fd.as_fd(), false, wanted)?;
        self.put(&mut made, name)?;
        self.found_or_undone(parent, dir, name, &made.fd)
    }

    /// The entry of what was made and put in place; what cannot be told of goes again.
    pub(crate) fn found_or_undone(
        &self,
        parent: &Arc<Node>,
        dir: &OwnedFd,
        name: Name<'_>,
        fd: &Arc<OwnedFd>,
    ) -> Result<Entry> {
        match self.find_pinned(parent, name, fd) {
            Ok((node, attr)) => Ok(self.entry(&node, attr)),
            Err(errno) => {
                self.undo(dir, name, fd);
                Err(errno)
            }
        }
    }

    /// A whiteout is a real device `0:0` in every mode: that is what another overlay, and the
    /// kernel's, looks for. It has no owner to speak of.
    fn make_whiteout(&self, parent: &Arc<Node>, dir: &OwnedFd, name: Name<'_>) -> Result<Entry> {
        at::make_node(dir.as_fd(), name, libc::S_IFCHR, (0, 0))?;
        let (node, attr) = self.find(parent, dir, name)?;
        Ok(self.entry(&node, attr))
    }

    /// Makes sure that what was just made by name is what `pin` holds, and settles it. A host process
    /// that swaps names meanwhile gets nothing of its own chowned.
    fn finish(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        dir: &OwnedFd,
        name: Name<'_>,
        wanted: &Wanted,
        pin: Result<OwnedFd>,
    ) -> Result<Entry> {
        let pin = match pin {
            Ok(pin) => Arc::new(pin),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(Errno::ESTALE),
            Err(errno) => {
                self.undo_unheld(dir, name, wanted.kind());
                return Err(errno);
            }
        };
        if wanted.kind() != FileType::Directory {
            let stat = stat::of(pin.as_fd())?;
            let ours = stat.mode & libc::S_IFMT == wanted.kind().mode_bits()
                && stat.nlink == 1
                && stat.uid == self.server.0;
            if !ours {
                return Err(Errno::ESTALE);
            }
        }
        self.settled(cx, parent, dir, name, wanted, &pin, true)
    }

    #[expect(clippy::too_many_arguments, reason = "where, what, by whom, and what holds it")]
    pub(crate) fn settled(
        &self,
        cx: &Context<'_>,
        parent: &Arc<Node>,
        dir: &OwnedFd,
        name: Name<'_>,
        wanted: &Wanted,
        fd: &Arc<OwnedFd>,
        is_path: bool,
    ) -> Result<Entry> {
        let made = match self.settle(cx, fd.as_fd(), is_path, wanted) {
            Ok(made) => made,
            Err(errno) => {
                self.undo(dir, name, fd);
                return Err(errno);
            }
        };
        let (node, attr) = self.enter_new(fd, wanted, made);
        self.place(&node, parent, name);
        if is_path {
            self.pins.keep(&self.table, &node, fd);
        }
        Ok(self.entry(&node, attr))
    }

    /// Whether `parent` is the root of the share of a single file.
    pub(crate) fn is_single(&self, parent: &Node) -> bool {
        self.only.is_some() && parent.id == NodeId::ROOT
    }

    /// Gives `node` a further name.
    pub(crate) fn link_in(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        let parent = self.writable_dir(parent)?;
        let node = self.node(node)?;
        let dir = self.pin(&parent)?;
        if node.is_dir() {
            // In the order of linkat(2): a name that is taken comes first.
            let taken = stat::of_child(dir.as_fd(), name).is_ok();
            return Err(if taken { Errno::EEXIST } else { Errno::EPERM });
        }
        let fd = self.pin(&node)?;
        self.workable(&parent, &dir, || Ok(self.proc.link(fd.as_fd(), dir.as_fd(), name)?))?;
        node.count(1);
        self.place(&node, &parent, name);
        // Its ctime is a new one, so that a record kept with the old one says nothing.
        match self.attr_by(&node, fd.as_fd()) {
            Ok(attr) => Ok(self.entry(&node, attr)),
            Err(errno) => {
                let gone = node.remove_place(&parent, name);
                self.table.release(gone, &self.pins);
                self.undo(&dir, name, &fd);
                self.forget_node(&node, 1);
                Err(errno)
            }
        }
    }
}
