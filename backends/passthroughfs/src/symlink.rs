//! Symlinks, which take no record: the host keeps user attributes from them.
//!
//! One that belongs to the owner that a file without a record shows is a symlink of the host.
//! Another is a file with the record of a symlink, and its target as content.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use stratafs_core::{
    Context, Entry, Errno, FileType, Name, NodeId, ReadSink, Result, SetAttr, SetTime,
};
use stratafs_sys::at::{self, Place as HostPlace, Rename};
use stratafs_sys::io::{read_at, write_at};
use stratafs_sys::stat;
use stratafs_sys::{openat, xattr};

use crate::PassthroughFs;
use crate::builder::Ownership;
use crate::create::Wanted;
use crate::node::{Node, Place};
use crate::prepared::Prepared;
use crate::record::{RECORD, Record};

/// The longest target: PATH_MAX of limits.h without its NUL.
const MAX_TARGET: usize = 4095;

impl PassthroughFs {
    pub(crate) fn make_symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        let parent = self.writable_dir(parent)?;
        match target.len() {
            0 => return Err(Errno::ENOENT),
            len if len > MAX_TARGET => return Err(Errno::ENAMETOOLONG),
            _ if target.contains(&0) => return Err(Errno::EINVAL),
            _ => {}
        }
        // The umask is nothing to a symlink.
        let mode = FileType::Symlink.mode_bits() | 0o777;
        let wanted = self.wanted(&cx.with_umask(0), &parent, mode)?;
        let dir = self.pin(&parent)?;
        if self.is_virtual() && (wanted.uid, wanted.gid) != self.default_owner() {
            let mut made = self.symlink_file(&dir, target, &wanted.record())?;
            self.workable(&parent, &dir, || self.put(&mut made, name))?;
            return self.found_or_undone(&parent, &dir, name, &made.fd);
        }
        self.workable(&parent, &dir, || Ok(at::make_symlink(target, dir.as_fd(), name)?))?;
        let pin = match self.with_room(|| openat::pin_child(dir.as_fd(), name)) {
            Ok(pin) => Arc::new(pin),
            Err(errno) => {
                self.undo_unheld(&dir, name, FileType::Symlink);
                return Err(errno);
            }
        };
        if self.options.ownership == Ownership::Host
            && let Err(errno) = self.own_new_symlink(&pin, &wanted)
        {
            let _ = at::remove_file(dir.as_fd(), name);
            return Err(errno);
        }
        self.found_or_undone(&parent, &dir, name, &pin)
    }

    /// Gives the symlink that `pin` holds its owner, if it is the one that was just made.
    fn own_new_symlink(&self, pin: &OwnedFd, wanted: &Wanted) -> Result<()> {
        let uid = self.options.uid_map.to_host(wanted.uid)?;
        let gid = self.options.gid_map.to_host(wanted.gid)?;
        if (uid, gid) == self.server && !wanted.inherits {
            return Ok(());
        }
        let stat = stat::of(pin.as_fd())?;
        let ours = stat.mode & libc::S_IFMT == libc::S_IFLNK && stat.uid == self.server.0;
        if ours && (uid, gid) != (stat.uid, stat.gid) {
            at::set_owner(pin.as_fd(), Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// The owner that a new file of the server shows without a record.
    fn default_owner(&self) -> (u32, u32) {
        self.options.default_owner.unwrap_or_else(|| {
            let (uid, gid) = self.server;
            (self.options.uid_map.to_guest(uid), self.options.gid_map.to_guest(gid))
        })
    }

    /// A file that is a symlink by its record.
    fn symlink_file(&self, dir: &Arc<OwnedFd>, target: &[u8], record: &Record) -> Result<Prepared> {
        let made = self.prepare(dir)?;
        let fd = &made.fd;
        let mut rest = target;
        let mut offset = 0;
        while !rest.is_empty() {
            let n = write_at(fd.as_fd(), &[IoSlice::new(rest)], offset)?;
            if n == 0 {
                return Err(Errno::ENOSPC);
            }
            rest = &rest[n..];
            offset += n as u64;
        }
        xattr::set(fd.as_fd(), RECORD, record.text().as_bytes(), 0)?;
        Ok(made)
    }

    pub(crate) fn read_symlink(&self, node: NodeId, sink: &mut dyn ReadSink) -> Result<usize> {
        let node = self.node(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        let fd = self.pin(&node)?;
        let mut target = [0; MAX_TARGET + 1];
        let len = self.target(&node, &fd, &mut target)?;
        sink.write_slice(&target[..len])
    }

    fn target(
        &self,
        node: &Node,
        fd: &OwnedFd,
        target: &mut [u8; MAX_TARGET + 1],
    ) -> Result<usize> {
        if node.host() == FileType::Symlink {
            return Ok(at::read_link(fd.as_fd(), target)?);
        }
        let file = self.reopen(node, fd, libc::O_RDONLY)?;
        let mut len = 0;
        while len < target.len() {
            let rest = &mut target[len..];
            let n = read_at(file.as_fd(), &mut [IoSliceMut::new(rest)], len as u64)?;
            if n == 0 {
                break;
            }
            len += n;
        }
        if len == 0 || len > MAX_TARGET || target[..len].contains(&0) {
            log::error!(
                "passthrough: {:?} is a symlink by its record, and no target is in it",
                node.id
            );
            return Err(Errno::EIO);
        }
        Ok(len)
    }

    /// Gives a symlink of the host another owner: a file takes its place, in one step.
    pub(crate) fn own_symlink(
        &self,
        node: &Arc<Node>,
        fd: Arc<OwnedFd>,
        set: &SetAttr,
    ) -> Result<Arc<OwnedFd>> {
        let stat = stat::of(fd.as_fd())?;
        let shown = self.shown_owner(&stat);
        let (uid, gid) = (set.uid.unwrap_or(shown.0), set.gid.unwrap_or(shown.1));
        if (uid, gid) == shown {
            return Ok(fd);
        }
        // A second name would go on leading to the old one.
        let place = node.places().pop().filter(|_| stat.nlink == 1).ok_or(Errno::EPERM)?;
        let _updating = node.update.lock();
        let dir = self.pin(&place.parent)?;
        let mut target = [0; MAX_TARGET + 1];
        let len = self.target(node, &fd, &mut target)?;
        let kind = Some(FileType::Symlink);
        let record = Record { uid, gid, mode: 0o777, kind, device: (0, 0) };
        let made = self.symlink_file(&dir, &target[..len], &record)?;
        // Times stay; the change itself shows in ctime.
        let keep = |time| Some(SetTime::At(time));
        self.proc.set_times(made.fd.as_fd(), keep(stat.atime), keep(stat.mtime))?;
        self.replace(node, &place, &dir, made)
    }

    /// Puts `made` where `node` is, and makes it the node's object.
    fn replace(
        &self,
        node: &Arc<Node>,
        place: &Place,
        dir: &OwnedFd,
        mut made: Prepared,
    ) -> Result<Arc<OwnedFd>> {
        let name = place.name.as_name();
        let aside = self.exchange(&mut made, name)?;
        let aside = aside.as_name();
        let identity = node.identity();
        let was = stat::of_child(dir.as_fd(), aside);
        if !was.is_ok_and(|was| (was.dev, was.ino) == (identity.dev, identity.ino)) {
            // Another had taken the name: it is put back.
            let place = |name| HostPlace { dir: dir.as_fd(), name };
            at::rename(place(aside), place(name), Rename::EXCHANGE)?;
            at::remove_file(dir.as_fd(), aside)?;
            return Err(Errno::ESTALE);
        }
        at::remove_file(dir.as_fd(), aside)?;
        self.become_file(node, &made.fd)?;
        Ok(Arc::clone(&made.fd))
    }

    /// Makes `made`, a file that is a symlink by its record, the object of `node`.
    fn become_file(&self, node: &Arc<Node>, made: &Arc<OwnedFd>) -> Result<()> {
        let identity = self.identity(&stat::of(made.as_fd())?, made);
        self.table.rekey(node, identity);
        node.set_host(FileType::Regular);
        let pinned = {
            let mut state = node.state.lock();
            state.record = None;
            state.pin.as_mut().map(|pin| std::mem::replace(pin, Arc::clone(made)))
        };
        if pinned.is_none() {
            self.pins.keep(&self.table, node, made);
        }
        Ok(())
    }
}
