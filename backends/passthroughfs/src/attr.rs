//! Reading and changing attributes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stratafs_core::attr::{S_ISGID, S_ISUID};
use stratafs_core::{Attr, Errno, FileType, HandleId, NodeId, Result, SetAttr, StatFs};
use stratafs_sys::stat::{self, Stat};
use stratafs_sys::{at, file};

use crate::PassthroughFs;
use crate::builder::Ownership;
use crate::handles::{Handle, Kind};
use crate::node::{Inheritance, Node};
use crate::owner::without_privileges;

/// How long mode and group of a directory are taken to be as they were seen when something is made
/// in it. A change through this filesystem counts at once.
const INHERITANCE: Duration = Duration::from_secs(1);

impl PassthroughFs {
    pub(crate) fn get(&self, node: NodeId, handle: Option<HandleId>) -> Result<Attr> {
        if let Some(id) = handle.filter(|id| *id != HandleId::NONE) {
            let handle = self.handles.get(id, node)?;
            let stat = stat::of(handle.fd.as_fd())?;
            return self.attr(&handle.node, &stat);
        }
        let node = self.node(node)?;
        let stat = self.stat(&node)?;
        self.attr(&node, &stat)
    }

    pub(crate) fn set(&self, id: NodeId, set: &SetAttr) -> Result<Attr> {
        self.writable()?;
        let node = self.node(id)?;
        if self.only.is_some() && id == NodeId::ROOT {
            return Err(Errno::EPERM);
        }
        if set.mode.is_some() && node.kind == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        match (set.size, node.kind) {
            (None, _) | (Some(_), FileType::Regular) => {}
            (Some(_), FileType::Directory) => return Err(Errno::EISDIR),
            (Some(_), _) => return Err(Errno::EINVAL),
        }
        let handle = match set.handle.filter(|id| *id != HandleId::NONE) {
            Some(id) => Some(self.handles.get(id, node.id)?),
            None => None,
        };
        let fd = match &handle {
            Some(handle) => Arc::clone(&handle.fd),
            None => self.pin(&node)?,
        };
        if let Some(size) = set.size {
            self.set_size(&node, handle.as_deref(), &fd, size)?;
        }
        if set.kill_priv {
            self.kill_priv(&node, fd.as_fd())?;
        } else if set.size.is_some() {
            self.drop_capabilities(fd.as_fd())?;
        }
        let (fd, mut now) = if set.uid.is_some() || set.gid.is_some() || set.mode.is_some() {
            self.set_owner_and_mode(&node, fd, set)?
        } else {
            (fd, None)
        };
        if set.atime.is_some() || set.mtime.is_some() {
            self.proc.set_times(fd.as_fd(), set.atime, set.mtime)?;
            now = None;
        }
        let stat = now.map_or_else(|| stat::of(fd.as_fd()), Ok)?;
        self.attr(&node, &stat)
    }

    fn set_size(
        &self,
        node: &Arc<Node>,
        handle: Option<&Handle>,
        fd: &OwnedFd,
        size: u64,
    ) -> Result<()> {
        if let Some(handle) = handle
            && let Kind::File { flags } = &handle.kind
            && flags.writable()
        {
            return Ok(file::set_size(handle.fd.as_fd(), size)?);
        }
        let file = self.reopen(node, fd, libc::O_WRONLY)?;
        Ok(file::set_size(file.as_fd(), size)?)
    }

    /// Sets owner, group and mode; gives the descriptor of the object, which is another's for a
    /// symlink that became a file, and what it is now where that is known.
    fn set_owner_and_mode(
        &self,
        node: &Arc<Node>,
        fd: Arc<OwnedFd>,
        set: &SetAttr,
    ) -> Result<(Arc<OwnedFd>, Option<Stat>)> {
        let outcome = match self.options.ownership {
            Ownership::Virtual => match node.host() {
                FileType::Regular | FileType::Directory => {
                    self.set_record(node, fd.as_fd(), set).map(|now| (fd, now))
                }
                FileType::Symlink => self.own_symlink(node, fd, set).map(|fd| (fd, None)),
                // A device, FIFO or socket that the host made: it has no place for a record.
                _ => Err(Errno::EPERM),
            },
            Ownership::Host => self.set_for_real(fd.as_fd(), set).map(|()| (fd, None)),
            Ownership::Squash => self.set_squashed(node, fd.as_fd(), set).map(|()| (fd, None)),
        };
        node.state.lock().changed();
        outcome
    }

    /// What the object is then is known, unless capabilities were looked for.
    fn set_record(&self, node: &Node, fd: BorrowedFd<'_>, set: &SetAttr) -> Result<Option<Stat>> {
        let chown = set.uid.is_some() || set.gid.is_some();
        let now = self.update_record(node, fd, |record| {
            record.uid = set.uid.unwrap_or(record.uid);
            record.gid = set.gid.unwrap_or(record.gid);
            if chown && !node.is_dir() {
                record.mode = without_privileges(record.mode);
            }
            record.mode = set.mode.map_or(record.mode, |mode| mode & 0o7777);
        })?;
        if chown && node.host() == FileType::Regular {
            self.drop_capabilities(fd)?;
            return Ok(None);
        }
        Ok(Some(now))
    }

    fn set_for_real(&self, fd: BorrowedFd<'_>, set: &SetAttr) -> Result<()> {
        let uid = set.uid.map(|uid| self.options.uid_map.to_host(uid)).transpose()?;
        let gid = set.gid.map(|gid| self.options.gid_map.to_host(gid)).transpose()?;
        if uid.is_some() || gid.is_some() {
            at::set_owner(fd, uid, gid)?;
        }
        match set.mode {
            Some(mode) => Ok(self.proc.set_mode(fd, mode & 0o7777)?),
            None => Ok(()),
        }
    }

    fn set_squashed(&self, node: &Node, fd: BorrowedFd<'_>, set: &SetAttr) -> Result<()> {
        let (uid, gid) = self.shown_owner(&stat::of(fd)?);
        if set.uid.is_some_and(|new| new != uid) || set.gid.is_some_and(|new| new != gid) {
            return Err(Errno::EPERM);
        }
        let Some(mode) = set.mode else { return Ok(()) };
        // A setuid file of the server's own user is nothing that a client may make.
        let special = if node.is_dir() { S_ISUID } else { S_ISUID | S_ISGID };
        if mode & special != 0 {
            return Err(Errno::EPERM);
        }
        Ok(self.proc.set_mode(fd, mode & 0o7777)?)
    }

    /// Mode and group of a directory, for what is made in it.
    pub(crate) fn inheritance(&self, parent: &Arc<Node>) -> Result<Inheritance> {
        let (known, changes) = parent.inheritance();
        let fresh =
            |known: &Inheritance| self.options.exclusive || known.seen.elapsed() < INHERITANCE;
        if let Some(known) = known.filter(fresh) {
            return Ok(known);
        }
        let seen = Instant::now();
        let stat = self.stat(parent)?;
        let attr = self.attr(parent, &stat)?;
        let default_acl =
            self.options.posix_acl && self.has_default_acl(self.pin(parent)?.as_fd())?;
        let known = Inheritance { seen, mode: attr.mode, gid: attr.gid, default_acl };
        parent.keep_inheritance(known, changes);
        Ok(known)
    }

    pub(crate) fn filesystem_usage(&self, node: NodeId) -> Result<StatFs> {
        let node = self.node(node)?;
        let fd = self.pin(&node)?;
        Ok(stat::filesystem(fd.as_fd())?.usage)
    }

    pub(crate) fn flags(&self, node: NodeId) -> Result<u32> {
        let node = self.node(node)?;
        let file = self.open_for_ioctl(&node)?;
        not_a_terminal(file::inode_flags(file.as_fd()))
    }

    pub(crate) fn set_flags(&self, id: NodeId, flags: u32) -> Result<()> {
        self.writable()?;
        let node = self.node(id)?;
        if self.only.is_some() && id == NodeId::ROOT {
            return Err(Errno::EPERM);
        }
        let file = self.open_for_ioctl(&node)?;
        not_a_terminal(file::set_inode_flags(file.as_fd(), flags))
    }

    fn open_for_ioctl(&self, node: &Arc<Node>) -> Result<OwnedFd> {
        if node.kind != node.host() {
            return Err(Errno::EOPNOTSUPP);
        }
        let fd = self.pin(node)?;
        match node.host() {
            FileType::Regular => self.reopen(node, &fd, libc::O_RDONLY),
            FileType::Directory => self.reopen(node, &fd, libc::O_RDONLY | libc::O_DIRECTORY),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// "Inappropriate ioctl" is how a filesystem says that it has no flags.
fn not_a_terminal<T>(answer: std::io::Result<T>) -> Result<T> {
    answer.map_err(|error| match Errno::from(error) {
        Errno::ENOTTY => Errno::EOPNOTSUPP,
        errno => errno,
    })
}
