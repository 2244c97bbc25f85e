//! Where POSIX ACLs are kept, with the option `posix_acl`.
//!
//! Under host ownership the host keeps them, with the ids of the maps, and all that follows is the
//! host's kernel's work: what a chmod does to the mask, and what new objects inherit. Under virtual
//! ownership they are private attributes, for an ACL of the host would change what the server itself
//! may do. There the entries of owner, mask and others are those of the ownership record's mode,
//! whatever the attribute says: so a chmod is one change of the record, and the two cannot disagree.
//! An ACL that says no more than a mode is kept as one alone.
//!
//! The client's kernel checks permissions by them. It leaves to a filesystem what new objects
//! inherit, and the umask, which a directory with a default ACL has no use for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratafs_core::attr::S_ISGID;
use stratafs_core::{Errno, FileType, NodeId, Result};
use stratafs_sys::stat;

use crate::PassthroughFs;
use crate::acl::{Acl, AclKind};
use crate::builder::Ownership;
use crate::node::Node;
use crate::owner::xattr;
use crate::xattrs::HostName;

/// The longest value of an extended attribute: XATTR_SIZE_MAX of linux/limits.h.
const VALUE_MAX: usize = 65_536;

/// What a new object gets from its directory's default ACL.
#[derive(Clone)]
pub(crate) struct Inherited {
    /// Its access ACL, where its mode does not say as much.
    access: Option<Vec<u8>>,
    /// Its own default ACL, if it is a directory.
    default: Option<Vec<u8>>,
}

impl PassthroughFs {
    /// Which ACL `name` is the attribute of, where they are kept.
    pub(crate) fn acl_kind(&self, name: &[u8]) -> Option<AclKind> {
        let kept = self.options.posix_acl && !self.unchecked.load(Ordering::Relaxed);
        AclKind::of(name).filter(|_| kept)
    }

    /// Notes that somebody goes by the mode alone, whose group's bits are an ACL's mask and may be
    /// more than the group has: no ACL is shown or set from then on.
    pub(crate) fn acls_go_unchecked(&self) {
        if self.options.posix_acl && !self.unchecked.swap(true, Ordering::Relaxed) {
            log::warn!("passthrough: posix_acl: a client or a layer above checks no ACLs: refused");
        }
    }

    /// The attribute of the host that an ACL is kept in.
    fn acl_place(&self, kind: AclKind) -> Result<HostName> {
        HostName::of_acl(self.is_virtual(), kind).ok_or(Errno::EINVAL)
    }

    /// The ACL that the host has, its ids as they are there.
    fn read_acl(&self, fd: BorrowedFd<'_>, kind: AclKind) -> Result<Option<Acl>> {
        let place = self.acl_place(kind)?;
        // Most have none, and most that have one have a few entries.
        let mut few = [0; 256];
        let mut many = Vec::new();
        let value = match xattr(&self.proc, fd, &place, &mut few) {
            Ok(None) => return Ok(None),
            Ok(Some(len)) => &few[..len],
            Err(Errno::ERANGE) => {
                many.resize(VALUE_MAX, 0);
                match xattr(&self.proc, fd, &place, &mut many)? {
                    None => return Ok(None),
                    Some(len) => &many[..len],
                }
            }
            Err(errno) => return Err(errno),
        };
        Acl::parse(value).map_err(|_| {
            log::error!("passthrough: read {}: it is no ACL: EIO", place.to_string_lossy());
            Errno::EIO
        })
    }

    /// What the client sees of an ACL, as the value of an attribute.
    pub(crate) fn get_acl(&self, id: NodeId, kind: AclKind, value: &mut [u8]) -> Result<usize> {
        let node = self.node(id)?;
        if node.kind == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.is_single(&node) || !self.may_have_acl(&node) {
            return Err(Errno::ENODATA);
        }
        let fd = self.pin(&node)?;
        let acl = self.read_acl(fd.as_fd(), kind)?.ok_or(Errno::ENODATA)?;
        let acl = match (self.options.ownership, kind) {
            (Ownership::Virtual, AclKind::Access) => {
                let stat = stat::of(fd.as_fd())?;
                acl.with_mode(self.attr(&node, &stat)?.mode)
            }
            (Ownership::Virtual, AclKind::Default) => acl,
            _ => {
                let (users, groups) = (&self.options.uid_map, &self.options.gid_map);
                acl.map(|id| Ok(users.to_guest(id)), |id| Ok(groups.to_guest(id)))?
            }
        };
        let acl = acl.to_bytes();
        if !value.is_empty() {
            value.get_mut(..acl.len()).ok_or(Errno::ERANGE)?.copy_from_slice(&acl);
        }
        Ok(acl.len())
    }

    /// Under virtual ownership an ACL is where a record is.
    fn may_have_acl(&self, node: &Node) -> bool {
        !self.is_virtual() || matches!(node.host(), FileType::Regular | FileType::Directory)
    }

    /// Sets an ACL, or takes it away for an empty value, and brings the mode in step with it.
    ///
    /// # Errors
    /// `EINVAL`: it is not valid. `EACCES`: a default ACL of what is no directory. `EOPNOTSUPP`: of
    /// a symlink.
    pub(crate) fn set_acl(
        &self,
        id: NodeId,
        kind: AclKind,
        value: &[u8],
        clear_setgid: bool,
    ) -> Result<()> {
        self.writable()?;
        let node = self.node(id)?;
        if node.kind == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if kind == AclKind::Default && !node.is_dir() {
            // Of no entries it is none, which it has not anyway.
            return if value.len() > 4 { Err(Errno::EACCES) } else { Ok(()) };
        }
        let acl = Acl::parse(value)?;
        if self.is_single(&node) || !self.may_have_acl(&node) {
            return Err(Errno::EPERM);
        }
        let fd = self.pin(&node)?;
        let outcome = match (self.options.ownership, kind) {
            (Ownership::Virtual, AclKind::Access) => self.set_access(&node, &fd, acl, clear_setgid),
            (Ownership::Virtual, AclKind::Default) => self.keep_acl(&node, &fd, kind, acl.as_ref()),
            _ => self.set_on_host(&node, &fd, kind, acl, clear_setgid),
        };
        node.state.lock().changed();
        outcome
    }

    fn set_access(
        &self,
        node: &Arc<Node>,
        fd: &OwnedFd,
        acl: Option<Acl>,
        clear_setgid: bool,
    ) -> Result<()> {
        let Some(acl) = acl else {
            // The mode stays as it is, the mask for the group's bits included.
            return self.keep_acl(node, fd, AclKind::Access, None);
        };
        let before = self.read_acl(fd.as_fd(), AclKind::Access)?;
        self.keep_acl(node, fd, AclKind::Access, Some(&acl).filter(|acl| !acl.is_mode()))?;
        let keep = if clear_setgid { 0o7000 & !S_ISGID } else { 0o7000 };
        let changed = self.update_record(node, fd.as_fd(), |record| {
            record.mode = record.mode & keep | acl.mode()
        });
        if changed.is_err()
            && let Err(errno) = self.keep_acl(node, fd, AclKind::Access, before.as_ref())
        {
            log::error!("passthrough: an ACL was set and its mode was not: {errno}");
        }
        changed.map(drop)
    }

    /// Writes an ACL where it is kept, or takes it away.
    fn keep_acl(&self, node: &Node, fd: &OwnedFd, kind: AclKind, acl: Option<&Acl>) -> Result<()> {
        let place = self.acl_place(kind)?;
        match acl {
            Some(acl) => {
                let value = acl.to_bytes();
                self.change(node, fd, |fd| self.proc.set_xattr(fd.as_fd(), &place, &value, 0))
            }
            None => match self.change(node, fd, |fd| self.proc.remove_xattr(fd.as_fd(), &place)) {
                Err(Errno::ENODATA) => Ok(()),
                answer => answer,
            },
        }
    }

    fn set_on_host(
        &self,
        node: &Node,
        fd: &OwnedFd,
        kind: AclKind,
        acl: Option<Acl>,
        clear_setgid: bool,
    ) -> Result<()> {
        let (users, groups) = (&self.options.uid_map, &self.options.gid_map);
        let acl = acl.map(|acl| acl.map(|id| users.to_host(id), |id| groups.to_host(id)));
        let acl = acl.transpose()?;
        self.keep_acl(node, fd, kind, acl.as_ref())?;
        // The host's kernel spares the bit for a server that may set it.
        let mode = stat::of(fd.as_fd())?.mode & 0o7777;
        if clear_setgid && kind == AclKind::Access && acl.is_some() && mode & S_ISGID != 0 {
            self.proc.set_mode(fd.as_fd(), mode & !S_ISGID)?;
        }
        Ok(())
    }

    /// Whether what is made in the directory that `fd` holds starts with an ACL.
    pub(crate) fn has_default_acl(&self, fd: BorrowedFd<'_>) -> Result<bool> {
        if !self.options.posix_acl {
            return Ok(false);
        }
        let place = self.acl_place(AclKind::Default)?;
        Ok(xattr(&self.proc, fd, &place, &mut [])?.is_some())
    }

    /// What an object of `mode` made in the directory that `dir` holds inherits, and its mode: where
    /// that is this filesystem's work, and not the host's.
    pub(crate) fn inherit_acl(
        &self,
        dir: BorrowedFd<'_>,
        mode: u32,
    ) -> Result<(u32, Option<Arc<Inherited>>)> {
        if !self.is_virtual() {
            return Ok((mode, None));
        }
        // It may just have been taken away.
        let Some(default) = self.read_acl(dir, AclKind::Default)? else { return Ok((mode, None)) };
        let is_dir = FileType::from_mode(mode) == Some(FileType::Directory);
        // `posix_acl_create_masq`: what both the caller and the ACL allow.
        let mode = mode & !0o777 | mode & default.mode();
        let value = default.to_bytes();
        let inherited = Inherited {
            access: (!default.is_mode()).then(|| value.clone()),
            default: is_dir.then_some(value),
        };
        Ok((mode, Some(Arc::new(inherited))))
    }

    /// Gives a new object, which `fd` holds, what it inherited.
    pub(crate) fn settle_acl(&self, fd: BorrowedFd<'_>, inherited: &Inherited) -> Result<()> {
        for (kind, value) in
            [(AclKind::Access, &inherited.access), (AclKind::Default, &inherited.default)]
        {
            if let Some(value) = value {
                self.proc.set_xattr(fd, &self.acl_place(kind)?, value, 0)?;
            }
        }
        Ok(())
    }
}
