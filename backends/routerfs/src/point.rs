//! Mount points and the directories on the way to them.
//!
//! The points form a tree of their own: the root, every mount, and every directory above one. A point
//! shows what is mounted at it; else the directory of that name in what the point above shows; else,
//! where there is none, a directory that is made up.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use stratafs_core::{Name, NameBuf, NodeId, NodeRef};

use crate::member::Member;

/// A directory that is a mount or has one below it.
pub(crate) struct Point {
    /// Never given twice.
    pub(crate) number: u64,
    /// The point above, and the name in it; `None` for the root.
    up: Option<(Weak<Point>, NameBuf)>,
    below: RwLock<BTreeMap<NameBuf, Arc<Point>>>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    mount: Option<Arc<Member>>,
    real: Option<Covered>,
}

/// The directory of a member that a point is.
#[derive(Clone)]
pub(crate) struct Covered {
    pub(crate) member: Arc<Member>,
    pub(crate) node: Arc<NodeRef>,
}

/// An object of a member.
#[derive(Clone)]
pub(crate) struct Real {
    pub(crate) member: Arc<Member>,
    pub(crate) node: NodeId,
}

impl Point {
    pub(crate) fn root(number: u64) -> Self {
        Self { number, up: None, below: RwLock::default(), state: RwLock::default() }
    }

    fn under(parent: &Arc<Self>, name: NameBuf, number: u64) -> Self {
        Self { up: Some((Arc::downgrade(parent), name)), ..Self::root(number) }
    }

    /// The point above, and the name in it.
    pub(crate) fn parent(&self) -> Option<(Arc<Self>, &NameBuf)> {
        let (parent, name) = self.up.as_ref()?;
        Some((parent.upgrade()?, name))
    }

    /// The point under `name`.
    pub(crate) fn child(&self, name: Name<'_>) -> Option<Arc<Self>> {
        self.below.read().get(name.as_bytes()).cloned()
    }

    /// The point of this number, if it is this or one below.
    pub(crate) fn numbered(self: &Arc<Self>, number: u64) -> Option<Arc<Self>> {
        if self.number == number {
            return Some(Arc::clone(self));
        }
        self.below.read().values().find_map(|point| point.numbered(number))
    }

    /// Whether a point is under `name`.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.below.read().contains_key(name)
    }

    /// Whether no point is below.
    pub(crate) fn is_leaf(&self) -> bool {
        self.below.read().is_empty()
    }

    /// The points below, in the order of their numbers.
    pub(crate) fn children(&self) -> Vec<(NameBuf, Arc<Self>)> {
        let below = self.below.read();
        let mut all: Vec<_> =
            below.iter().map(|(name, point)| (name.clone(), Arc::clone(point))).collect();
        drop(below);
        all.sort_by_key(|(_, point)| point.number);
        all
    }

    /// How many points are directly below.
    pub(crate) fn len(&self) -> usize {
        self.below.read().len()
    }

    /// The point under `name`, made with the number that `number` gives if there is none.
    pub(crate) fn child_or_new(
        self: &Arc<Self>,
        name: &NameBuf,
        number: impl FnOnce() -> u64,
    ) -> Arc<Self> {
        let mut below = self.below.write();
        let new = || Arc::new(Self::under(self, name.clone(), number()));
        Arc::clone(below.entry(name.clone()).or_insert_with(new))
    }

    /// Takes the point under `name` out. It is to be dropped when no lock is held.
    pub(crate) fn remove(&self, name: &NameBuf) -> Option<Arc<Self>> {
        self.below.write().remove(name)
    }

    /// What is mounted here.
    pub(crate) fn mount(&self) -> Option<Arc<Member>> {
        self.state.read().mount.clone()
    }

    /// Mounts `member` here, or nothing; gives what was.
    pub(crate) fn set_mount(&self, member: Option<Arc<Member>>) -> Option<Arc<Member>> {
        std::mem::replace(&mut self.state.write().mount, member)
    }

    /// The directory of a member that it shows; `None` of one that is made up.
    pub(crate) fn view(&self) -> Option<Real> {
        let state = self.state.read();
        if let Some(member) = &state.mount {
            return Some(Real { member: Arc::clone(member), node: NodeId::ROOT });
        }
        let real = state.real.as_ref()?;
        Some(Real { member: Arc::clone(&real.member), node: real.node.node() })
    }

    /// Whether it is known to be the directory `node` of `member`, where nothing is mounted at it.
    pub(crate) fn is_real(&self, member: &Arc<Member>, node: NodeId) -> bool {
        let state = self.state.read();
        let same = |real: &Covered| Arc::ptr_eq(&real.member, member) && real.node.node() == node;
        state.real.as_ref().is_some_and(same)
    }

    /// It is the directory `real` from now on, or made up. Gives what it was, to be dropped when no
    /// lock is held.
    pub(crate) fn set_real(self: &Arc<Self>, real: Option<Covered>) -> Option<Covered> {
        let old = std::mem::replace(&mut self.state.write().real, real.clone());
        if let Some(old) = &old {
            old.member.unset_point(old.node.node(), self);
        }
        if let Some(real) = real {
            real.member.set_point(real.node.node(), self);
        }
        old
    }
}
