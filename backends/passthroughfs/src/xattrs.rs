//! Extended attributes.
//!
//! The ownership record is nobody's but this filesystem's: a client neither sees nor sets it. Under
//! virtual ownership the kinds of attributes that take privilege on the host, `trusted.` and
//! `security.`, are kept as `user.stratafs.trusted.…`, so that a capability that a client gives to
//! a file is none on the host.

use std::ffi::CStr;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use stratafs_core::name::XATTR_NAME_MAX;
use stratafs_core::{Context, Errno, FileType, NodeId, Result, XattrMode, XattrName};

use crate::PassthroughFs;
use crate::acl::AclKind;
use crate::node::Node;
use crate::owner::CAPABILITY;
use crate::record::RECORD;

/// Where attributes of privileged kinds are kept under virtual ownership.
const PRIVATE: &[u8] = b"user.stratafs.";

/// The longest list of names: XATTR_LIST_MAX of linux/limits.h.
const LIST_MAX: usize = 65_536;

/// The longest value: XATTR_SIZE_MAX of linux/limits.h.
const VALUE_MAX: usize = 65_536;

/// The host's name of an attribute, on the stack.
pub(crate) struct HostName {
    bytes: [u8; PRIVATE.len() + XATTR_NAME_MAX + 1],
    len: usize,
}

impl HostName {
    /// Where an ACL is kept.
    pub(crate) fn of_acl(private: bool, kind: AclKind) -> Option<Self> {
        Self::new(if private { PRIVATE } else { b"" }, kind.name().to_bytes())
    }

    fn new(prefix: &[u8], name: &[u8]) -> Option<Self> {
        let mut bytes = [0; PRIVATE.len() + XATTR_NAME_MAX + 1];
        let len = prefix.len() + name.len();
        // A NUL stays behind it, and none is in a name.
        if len >= bytes.len() {
            return None;
        }
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..len].copy_from_slice(name);
        Some(Self { bytes, len })
    }
}

impl Deref for HostName {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl PassthroughFs {
    /// The name that the host keeps a client's attribute by; `None` where it keeps none such.
    pub(crate) fn host_xattr(&self, name: &[u8]) -> Option<HostName> {
        let private = self.is_virtual() && is_privileged(name);
        if !private && !is_privileged(name) && !is_user(name) {
            return None;
        }
        HostName::new(if private { PRIVATE } else { b"" }, name)
    }

    /// Whether the attribute that the host keeps by `name` is this filesystem's own.
    fn is_own(&self, name: &[u8]) -> bool {
        name == RECORD.to_bytes() || (self.is_virtual() && name.starts_with(PRIVATE))
    }

    /// The host's name of what a client asks for.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: attributes of this kind are not kept. What `hidden` says: it is this
    /// filesystem's own.
    fn asked(&self, cx: &Context<'_>, name: XattrName<'_>, hidden: Errno) -> Result<HostName> {
        if cx.is_internal() && name.as_bytes() == RECORD.to_bytes() {
            return HostName::new(b"", RECORD.to_bytes()).ok_or(Errno::EINVAL);
        }
        if !self.options.xattr {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.is_own(name.as_bytes()) {
            return Err(hidden);
        }
        let host = self.host_xattr(name.as_bytes()).ok_or(Errno::EOPNOTSUPP)?;
        // The kernel's limit, which the prefix may have passed.
        if host.len > XATTR_NAME_MAX { Err(Errno::ERANGE) } else { Ok(host) }
    }

    pub(crate) fn get_xattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        if let Some(kind) = self.acl_kind(name.as_bytes()) {
            return self.get_acl(node, kind, value);
        }
        let host = self.asked(cx, name, Errno::ENODATA)?;
        let node = self.node(node)?;
        let unkept = !takes_user(&node) && is_user(name.as_bytes()) && !cx.is_internal();
        if unkept || self.is_single(&node) {
            return Err(Errno::ENODATA);
        }
        let fd = self.pin(&node)?;
        Ok(self.proc.xattr(fd.as_fd(), &host, value)?)
    }

    pub(crate) fn set_xattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
        clear_setgid: bool,
    ) -> Result<()> {
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        if let Some(kind) = self.acl_kind(name.as_bytes()) {
            return self.set_acl(node, kind, value, clear_setgid);
        }
        let (node, fd, host) = self.for_change(cx, node, name)?;
        let flags = match mode {
            XattrMode::Set => 0,
            XattrMode::Create => libc::XATTR_CREATE,
            XattrMode::Replace => libc::XATTR_REPLACE,
        };
        self.change(&node, &fd, |fd| self.proc.set_xattr(fd.as_fd(), &host, value, flags))?;
        self.changed(&node, &host);
        Ok(())
    }

    pub(crate) fn remove_xattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
    ) -> Result<()> {
        if let Some(kind) = self.acl_kind(name.as_bytes()) {
            return self.set_acl(node, kind, b"", false);
        }
        let (node, fd, host) = self.for_change(cx, node, name)?;
        self.change(&node, &fd, |fd| self.proc.remove_xattr(fd.as_fd(), &host))?;
        self.changed(&node, &host);
        Ok(())
    }

    fn for_change(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
    ) -> Result<(Arc<Node>, Arc<OwnedFd>, HostName)> {
        self.writable()?;
        let host = self.asked(cx, name, Errno::EPERM)?;
        let node = self.node(id)?;
        if self.is_single(&node) || (!takes_user(&node) && is_user(name.as_bytes())) {
            return Err(Errno::EPERM);
        }
        let fd = self.pin(&node)?;
        Ok((node, fd, host))
    }

    /// Runs `call`, and once more where the host's mode was in the way and could be mended.
    pub(crate) fn change(
        &self,
        node: &Node,
        fd: &OwnedFd,
        call: impl Fn(&OwnedFd) -> std::io::Result<()>,
    ) -> Result<()> {
        match call(fd).map_err(Errno::from) {
            Err(Errno::EACCES) if self.make_workable(node, fd) => Ok(call(fd)?),
            answer => answer,
        }
    }

    fn changed(&self, node: &Node, host: &CStr) {
        let mut state = node.state.lock();
        if host == RECORD {
            state.record = None;
        }
        if host == RECORD || host.to_bytes().ends_with(CAPABILITY.to_bytes()) {
            state.changed();
        }
    }

    pub(crate) fn list_xattrs(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        names: &mut [u8],
    ) -> Result<usize> {
        let node = self.node(node)?;
        if !self.options.xattr {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.is_single(&node) {
            return Ok(0);
        }
        let fd = self.pin(&node)?;
        // The size alone is asked for the same way, for it must be that of what is shown.
        let mut host = vec![0; 1024];
        let len = loop {
            match self.proc.list_xattrs(fd.as_fd(), &mut host).map_err(Errno::from) {
                Err(Errno::ERANGE) if host.len() < LIST_MAX => host.resize(LIST_MAX, 0),
                answer => break answer?,
            }
        };
        let mut total = 0;
        for name in host[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let Some(shown) = self.shown_xattr(cx, &node, name) else { continue };
            let end = total + shown.len() + 1;
            if !names.is_empty() {
                let place = names.get_mut(total..end).ok_or(Errno::ERANGE)?;
                place[..shown.len()].copy_from_slice(shown);
                place[shown.len()] = 0;
            }
            total = end;
        }
        Ok(total)
    }

    /// What a client sees of a name in the host's list.
    fn shown_xattr<'a>(&self, cx: &Context<'_>, node: &Node, name: &'a [u8]) -> Option<&'a [u8]> {
        if name == RECORD.to_bytes() {
            return cx.is_internal().then_some(name);
        }
        if self.is_virtual() {
            if let Some(private) = name.strip_prefix(PRIVATE) {
                return (is_privileged(private) || self.acl_kind(private).is_some())
                    .then_some(private);
            }
            // The host's own are not the client's.
            return (is_user(name) && takes_user(node)).then_some(name);
        }
        (is_privileged(name) || is_user(name) || self.acl_kind(name).is_some()).then_some(name)
    }
}

/// Attributes that take privilege to set.
fn is_privileged(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}

fn is_user(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}

/// User attributes are for files and directories: xattr(7).
fn takes_user(node: &Node) -> bool {
    matches!(node.kind, FileType::Regular | FileType::Directory)
}
