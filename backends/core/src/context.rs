//! Who asks.

use crate::{SessionId, XattrName};

/// The user and group for whom an object is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Filesystem user id of the caller.
    pub uid: u32,
    /// Filesystem group id of the caller.
    pub gid: u32,
}

impl Credentials {
    /// User `uid` and group `gid`.
    #[must_use]
    pub const fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }
}

/// A label that the client's security module wants on a new object (FUSE_SECURITY_CTX).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SecurityContext<'a> {
    /// The attribute, such as `security.selinux`.
    pub name: XattrName<'a>,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> SecurityContext<'a> {
    /// The label `value`, to be kept in the attribute `name`.
    #[must_use]
    pub const fn new(name: XattrName<'a>, value: &'a [u8]) -> Self {
        Self { name, value }
    }
}

/// Who asks, and how.
///
/// Permissions are the kernel's: a filesystem checks none. The ids are used for the ownership of
/// new objects only, and are absent where the client does not send them (ALLOW_IDMAP sends −1 with
/// every request but creations).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The calling process in the client's view; 0 where unknown.
    pub pid: u32,
    /// The caller's umask: applied by the filesystem to the mode of a new object.
    pub umask: u32,
    /// The caller, for the ownership of new objects.
    pub caller: Option<Credentials>,
    /// A supplementary group of the caller that equals the parent's group (CREATE_SUPP_GROUP).
    pub supplementary_group: Option<u32>,
    /// The session that the request came through; `None` where there is one client at most. It
    /// tells apart what two clients name alike ([`LockOwner`](crate::LockOwner)), and whoever made a
    /// change need not be [told of it](crate::Notifiers::each_but).
    pub session: Option<SessionId>,
    /// A label for the new object.
    pub security: Option<SecurityContext<'a>>,
    internal: bool,
}

impl<'a> Context<'a> {
    /// A request of a client's process.
    #[must_use]
    pub fn new(pid: u32, caller: Option<Credentials>) -> Self {
        Self {
            pid,
            umask: 0,
            caller,
            supplementary_group: None,
            session: None,
            security: None,
            internal: false,
        }
    }

    /// A call that a composing layer makes for itself: it may see and make what is hidden from
    /// clients (records, whiteouts), and new objects belong to `0:0` until the layer says otherwise.
    #[must_use]
    pub fn internal() -> Self {
        let root = Credentials::new(0, 0);
        Self { internal: true, ..Self::new(0, Some(root)) }
    }

    /// Whether a layer calls for itself; see [`Context::internal`].
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.internal
    }

    /// The same context with this umask.
    #[must_use]
    pub fn with_umask(mut self, umask: u32) -> Self {
        self.umask = umask;
        self
    }

    /// The same context with this supplementary group.
    #[must_use]
    pub fn with_supplementary_group(mut self, group: Option<u32>) -> Self {
        self.supplementary_group = group;
        self
    }

    /// The same context, of this session.
    #[must_use]
    pub fn with_session(mut self, session: Option<SessionId>) -> Self {
        self.session = session;
        self
    }

    /// The same context with this label for the new object.
    #[must_use]
    pub fn with_security(mut self, security: Option<SecurityContext<'a>>) -> Self {
        self.security = security;
        self
    }

    /// The same context without its label, to be kept for longer than the request's bytes.
    #[must_use]
    pub fn without_security(&self) -> Context<'static> {
        Context {
            pid: self.pid,
            umask: self.umask,
            caller: self.caller,
            supplementary_group: self.supplementary_group,
            session: self.session,
            security: None,
            internal: self.internal,
        }
    }

    /// The owner of a new object: the caller, or `0:0` where the client sent none.
    #[must_use]
    pub fn owner(&self) -> Credentials {
        self.caller.unwrap_or(Credentials::new(0, 0))
    }

    /// Whether the caller belongs to `group`, as far as the client told: the rule by which a
    /// setgid bit survives.
    #[must_use]
    pub fn is_in_group(&self, group: u32) -> bool {
        let owner = self.owner();
        owner.uid == 0 || owner.gid == group || self.supplementary_group == Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_security_keeps_everything_but_the_label() {
        let name = XattrName::new(b"security.selinux").unwrap();
        let plain = Context { internal: true, ..Context::new(1, Some(Credentials::new(2, 3))) }
            .with_umask(4)
            .with_supplementary_group(Some(5))
            .with_session(Some(SessionId(6)));
        let labelled = plain.with_security(Some(SecurityContext::new(name, b"label")));
        assert_eq!(format!("{:?}", labelled.without_security()), format!("{plain:?}"));
    }
}
