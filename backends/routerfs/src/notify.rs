//! Sessions, and notices of the members in the router's ids.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use stratafs_core::{
    Context, DynFileSystem, Name, Negotiated, NodeId, Notifier, Result, SessionId,
};

use crate::RouterFs;
use crate::ids::Ids;
use crate::member::Member;

/// Who is served.
#[derive(Default)]
pub(crate) struct Clients {
    notifiers: Mutex<Vec<Arc<dyn Notifier>>>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    /// How many began and did not end.
    live: usize,
    /// What the last one agreed on.
    last: Option<Negotiated>,
}

impl RouterFs {
    /// The members that are mounted, or still in use.
    pub(crate) fn members(&self) -> impl Iterator<Item = Arc<Member>> + '_ {
        self.slots.iter().filter_map(|slot| slot.read().clone())
    }

    /// Every filesystem once, though it may be mounted at several places.
    fn distinct(&self) -> Vec<Arc<Member>> {
        let mut all: Vec<Arc<Member>> = Vec::new();
        for member in self.members() {
            if !all.iter().any(|other| Arc::ptr_eq(&other.given, &member.given)) {
                all.push(member);
            }
        }
        all
    }

    pub(crate) fn begin_session(&self, negotiated: &Negotiated) -> Result<()> {
        self.distinct().iter().try_for_each(|member| member.fs.init(negotiated))?;
        let mut sessions = self.clients.sessions.lock();
        sessions.live += 1;
        sessions.last = Some(*negotiated);
        Ok(())
    }

    pub(crate) fn end_session(&self, cx: &Context<'_>) {
        self.distinct().iter().for_each(|member| member.fs.destroy(cx));
        let mut sessions = self.clients.sessions.lock();
        sessions.live = sessions.live.saturating_sub(1);
    }

    pub(crate) fn attach_client(&self, notifier: &Arc<dyn Notifier>) {
        let mut notifiers = self.clients.notifiers.lock();
        notifiers.retain(|other| !other.is_closed());
        notifiers.push(Arc::clone(notifier));
        drop(notifiers);
        for member in self.members() {
            self.attach_member(&member, notifier);
        }
    }

    fn attach_member(&self, member: &Arc<Member>, notifier: &Arc<dyn Notifier>) {
        member.fs.attach(Arc::new(Translated {
            client: Arc::clone(notifier),
            member: Arc::downgrade(member),
            ids: Arc::clone(&self.ids),
            session: notifier.session(),
        }));
    }

    /// Lets a filesystem that comes later know of the sessions that there are.
    pub(crate) fn introduce(&self, fs: &Arc<dyn DynFileSystem>) -> Result<()> {
        let known = self.members().any(|member| Arc::ptr_eq(&member.given, fs));
        let (live, last) = {
            let sessions = self.clients.sessions.lock();
            (sessions.live, sessions.last)
        };
        match last {
            Some(last) if !known => (0..live).try_for_each(|_| fs.init(&last)),
            _ => Ok(()),
        }
    }

    pub(crate) fn attach_all(&self, member: &Arc<Member>) {
        let notifiers = self.clients.notifiers.lock().clone();
        for notifier in notifiers.iter().filter(|notifier| !notifier.is_closed()) {
            self.attach_member(member, notifier);
        }
    }

    /// Tells every client that `name` in `parent` leads elsewhere.
    pub(crate) fn tell_entry(&self, parent: NodeId, name: Name<'_>) {
        let notifiers = self.clients.notifiers.lock().clone();
        for client in notifiers {
            client.inval_entry(parent, name);
            client.inval_inode(parent, 0, 0);
        }
    }
}

/// The way from a member to a client.
struct Translated {
    client: Arc<dyn Notifier>,
    member: Weak<Member>,
    ids: Arc<Ids>,
    session: Option<SessionId>,
}

impl Translated {
    /// What clients call the member's `node`, if they know it.
    fn id(&self, node: NodeId) -> Option<NodeId> {
        self.ids.known(self.member.upgrade()?.index, node)
    }
}

impl Notifier for Translated {
    fn inval_inode(&self, node: NodeId, offset: i64, len: i64) {
        if let Some(id) = self.id(node) {
            self.client.inval_inode(id, offset, len);
        }
    }

    fn inval_entry(&self, parent: NodeId, name: Name<'_>) {
        if let Some(id) = self.id(parent) {
            self.client.inval_entry(id, name);
        }
    }

    fn delete(&self, parent: NodeId, child: NodeId, name: Name<'_>) {
        match (self.id(parent), self.id(child)) {
            (Some(parent), Some(child)) => self.client.delete(parent, child, name),
            (Some(parent), None) => self.client.inval_entry(parent, name),
            (None, _) => {}
        }
    }

    fn inval_all_entries(&self) {
        self.client.inval_all_entries();
    }

    fn session(&self) -> Option<SessionId> {
        self.session
    }

    fn reaches_kernel(&self) -> bool {
        self.client.reaches_kernel()
    }

    fn is_closed(&self) -> bool {
        self.member.strong_count() == 0 || self.client.is_closed()
    }
}
