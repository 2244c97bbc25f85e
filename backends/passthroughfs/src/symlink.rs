//! Symlinks, which take no record: the host keeps user attributes from them.
//!
//! One that belongs to the owner that a file without a record shows is a symlink of the host.
//! Another is a file with the record of a symlink, and its target as content.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{Context, Entry, Errno, FileType, Name, NodeId, ReadSink, Result, SetAttr};
use stratafs_sys::at::{self, Place as HostPlace, Rename};
use stratafs_sys::io::{read_at, write_at};
use stratafs_sys::stat;
use stratafs_sys::{openat, xattr};

use crate::PassthroughFs;
use crate::builder::Ownership;
use crate::node::{Node, Place};
use crate::record::{RECORD, Record};

/// The longest target: PATH_MAX of limits.h without its NUL.
const MAX_TARGET: usize = 4095;

/// Makes names of this process's own, for what is moved into place.
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

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
            let fd = Arc::new(self.symlink_file(&dir, target, &wanted.record())?);
            self.proc.link(fd.as_fd(), dir.as_fd(), name)?;
            let (node, attr) = self.find_pinned(&parent, name, &fd)?;
            return Ok(self.entry(&node, attr));
        }
        at::make_symlink(target, dir.as_fd(), name)?;
        if self.options.ownership == Ownership::Host {
            let pin = self.with_room(|| openat::pin_child(dir.as_fd(), name))?;
            let stat = stat::of(pin.as_fd())?;
            if stat.mode & libc::S_IFMT == libc::S_IFLNK && stat.uid == self.server.0 {
                let uid = self.options.uid_map.to_host(wanted.uid)?;
                let gid = self.options.gid_map.to_host(wanted.gid)?;
                if (uid, gid) != (stat.uid, stat.gid)
                    && let Err(error) = at::set_owner(pin.as_fd(), Some(uid), Some(gid))
                {
                    let _ = at::remove_file(dir.as_fd(), name);
                    return Err(error.into());
                }
            }
        }
        let (node, attr) = self.find(&parent, &dir, name)?;
        Ok(self.entry(&node, attr))
    }

    /// The owner that a new file of the server shows without a record.
    fn default_owner(&self) -> (u32, u32) {
        self.options.default_owner.unwrap_or_else(|| {
            let (uid, gid) = self.server;
            (self.options.uid_map.to_guest(uid), self.options.gid_map.to_guest(gid))
        })
    }

    /// A file without a name that is a symlink by its record.
    fn symlink_file(&self, dir: &OwnedFd, target: &[u8], record: &Record) -> Result<OwnedFd> {
        let make = || openat::unnamed_file(dir.as_fd(), libc::O_RDWR, 0o600);
        let fd = self.with_room(make).map_err(|errno| match errno {
            // Without unnamed files it could be seen half made, or be left so by a crash.
            Errno::EISDIR | Errno::EOPNOTSUPP => Errno::EPERM,
            errno => errno,
        })?;
        if self.process_umask & 0o600 != 0 {
            self.proc.set_mode(fd.as_fd(), 0o600)?;
        }
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
        Ok(fd)
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
        let (atime, mtime) = (stat.atime, stat.mtime);
        let keep = |time| Some(stratafs_core::SetTime::At(time));
        self.proc.set_times(made.as_fd(), keep(atime), keep(mtime))?;
        self.replace(node, &place, &dir, Arc::new(made))
    }

    /// Puts `made` where `node` is, and makes it the node's object.
    fn replace(
        &self,
        node: &Arc<Node>,
        place: &Place,
        dir: &OwnedFd,
        made: Arc<OwnedFd>,
    ) -> Result<Arc<OwnedFd>> {
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        let aside = format!(".stratafs-{}-{number}", std::process::id());
        let aside = Name::new(aside.as_bytes())?;
        self.proc.link(made.as_fd(), dir.as_fd(), aside)?;
        let from = HostPlace { dir: dir.as_fd(), name: aside };
        let to = HostPlace { dir: dir.as_fd(), name: place.name.as_name() };
        let swapped = at::rename(from, to, Rename::EXCHANGE);
        let old = swapped.and_then(|()| stat::of_child(dir.as_fd(), aside));
        let is_old = |stat: &stat::Stat| {
            let identity = node.identity();
            (stat.dev, stat.ino) == (identity.dev, identity.ino)
        };
        match old {
            Ok(old) if is_old(&old) => {}
            Ok(_) => {
                // Another had taken the name: it is put back.
                at::rename(from, to, Rename::EXCHANGE)?;
                at::remove_file(dir.as_fd(), aside)?;
                return Err(Errno::ESTALE);
            }
            Err(error) => {
                at::remove_file(dir.as_fd(), aside)?;
                return Err(error.into());
            }
        }
        at::remove_file(dir.as_fd(), aside)?;
        self.become_file(node, &made)?;
        Ok(made)
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
