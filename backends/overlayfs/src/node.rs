//! Nodes: what the client sees, and the objects of layers that it is made of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use stratafs_core::{Errno, FileType, Generation, Name, NameBuf, NodeId, Result};

use crate::format::Redirect;
use crate::layer::Real;
use crate::links::Linked;
use crate::merge::Index;
use crate::table::{Key, Table};

/// An object of the merged tree.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) kind: FileType,
    pub(crate) generation: Generation,
    ino: AtomicU64,
    place: RwLock<Place>,
    /// Held while the object is copied up, across calls into layers: one copy-up for all who want
    /// one.
    pub(crate) copying: Mutex<()>,
    /// Of a directory: held shared while a name in it is resolved into a node, and exclusively while
    /// one is changed, across calls into layers: a change may take several.
    pub(crate) names: RwLock<()>,
    /// Of a directory that was listed: its merged listing.
    pub(crate) index: Mutex<Option<Index>>,
    /// The client's kernel was given a file of a read-only layer to read this by itself.
    lent: AtomicBool,
    key: Mutex<Option<Key>>,
    table: Weak<Table>,
}

/// What of an object stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    pub(crate) kind: FileType,
    pub(crate) ino: u64,
    pub(crate) generation: Generation,
}

/// What a node is made of, and where it is.
#[derive(Clone)]
pub(crate) struct Place {
    /// The object in the writable layer.
    pub(crate) upper: Option<Real>,
    /// Of a directory: those merged below, the topmost first. Of anything else: the one object,
    /// where none is in the writable layer; but of a file whose data is in a layer below that of
    /// its attributes, all down to the one with the data.
    pub(crate) lowers: Arc<[Real]>,
    /// A directory it is in; `None` for the root, and for a file without a name.
    pub(crate) parent: Option<(Arc<Node>, NameBuf)>,
    /// Where the lower parts are, where the writable layer records it.
    pub(crate) redirect: Option<Redirect>,
    /// What is known of further names.
    pub(crate) linked: Linked,
    /// Handles of it are open whose data the client's kernel reads by itself from where it was before
    /// the copy-up. Another node stands for the object from then on: the kernel knows one file per
    /// node.
    pub(crate) superseded: bool,
    /// Its last name is gone. Of what has an object in the writable layer and is no directory, that
    /// object alone knows.
    pub(crate) removed: bool,
}

impl Place {
    /// What is in the writable layer alone.
    pub(crate) fn of_upper(upper: Real) -> Self {
        Self {
            upper: Some(upper),
            lowers: Vec::new().into(),
            parent: None,
            redirect: None,
            linked: Linked::No,
            superseded: false,
            removed: false,
        }
    }

    /// The object that gives the attributes.
    pub(crate) fn top(&self) -> Result<&Real> {
        self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::EIO)
    }

    /// All objects, the topmost first.
    pub(crate) fn stack(&self) -> impl Iterator<Item = &Real> {
        self.upper.iter().chain(self.lowers.iter())
    }

    /// Of a regular file: the object that gives the data.
    pub(crate) fn data(&self) -> Result<&Real> {
        self.lowers.last().or(self.upper.as_ref()).ok_or(Errno::EIO)
    }

    /// Of anything but a directory: whether it has an object in the writable layer, without data.
    pub(crate) fn lacks_data(&self) -> bool {
        self.upper.is_some() && !self.lowers.is_empty()
    }

    /// It is no directory, and `upper` was made of it, without data if `meta`. What it is made of no
    /// more comes back, to be dropped when no lock is held.
    pub(crate) fn copied(&mut self, upper: Real, meta: bool) -> Option<Arc<[Real]>> {
        self.upper = Some(upper);
        if meta { None } else { Some(std::mem::take(&mut self.lowers)) }
    }

    /// Whether it is made of several directories.
    pub(crate) fn is_merged(&self) -> bool {
        usize::from(self.upper.is_some()) + self.lowers.len() > 1
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, of: Of, place: Place, table: &Arc<Table>) -> Self {
        Self {
            id,
            kind: of.kind,
            generation: of.generation,
            ino: AtomicU64::new(of.ino),
            place: RwLock::new(place),
            copying: Mutex::new(()),
            names: RwLock::new(()),
            index: Mutex::new(None),
            lent: AtomicBool::new(false),
            key: Mutex::new(None),
            table: Arc::downgrade(table),
        }
    }

    pub(crate) fn ino(&self) -> u64 {
        self.ino.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// # Errors
    /// `ENOTDIR`: it is none.
    pub(crate) fn require_dir(&self) -> Result<()> {
        if self.is_dir() { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// A copy of what it is made of at this moment.
    pub(crate) fn place(&self) -> Place {
        self.place.read().clone()
    }

    /// What `look` sees of what it is made of.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&Place) -> T) -> T {
        look(&self.place.read())
    }

    pub(crate) fn top(&self) -> Result<Real> {
        self.place.read().top().cloned()
    }

    pub(crate) fn upper(&self) -> Option<Real> {
        self.place.read().upper.clone()
    }

    pub(crate) fn parent(&self) -> Option<(Arc<Self>, NameBuf)> {
        self.place.read().parent.clone()
    }

    /// Of a directory that was listed: whether the listing has no such name. What the layers would
    /// say to a lookup need not be asked then.
    pub(crate) fn lists_no(&self, name: Name<'_>) -> bool {
        self.index.lock().as_ref().is_some_and(|index| !index.contains(name))
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.place.read().removed
    }

    /// Whether `other`, which was found by the same key, is of the same object: a layer that changes
    /// underneath may have another by then.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let top = |place: &Place| match (&place.upper, place.lowers.first()) {
            (None, Some(lower)) => Some((lower.layer, lower.id())),
            _ => None,
        };
        let (mine, theirs) = (self.see(top), other.see(top));
        mine.is_none() || theirs.is_none() || mine == theirs
    }

    /// The kernel may be given a file of a read-only layer. Whoever says so looks only then where the
    /// data is: a copy-up that it does not see yet sees this.
    pub(crate) fn lend(&self) {
        self.lent.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.place.read().superseded
    }

    /// The object `upper` is what it is made of now, by a copy-up of `meta`data alone or of all; see
    /// [`Place::copied`]. `change` changes more in the same step. Says whether another node stands
    /// for it from now on.
    pub(crate) fn become_upper(
        &self,
        upper: &Real,
        meta: bool,
        change: impl FnOnce(&mut Place),
    ) -> bool {
        let (old, superseded) = self.change(|place| {
            let old = place.copied(upper.clone(), meta || self.is_dir());
            place.superseded = old.is_some() && self.lent.load(Ordering::SeqCst);
            change(place);
            (old, place.superseded)
        });
        drop(old);
        superseded
    }

    /// Changes what it is made of. What `change` takes out comes back, to be dropped when no lock is
    /// held: giving a reference back is a call into a layer.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Place) -> T) -> T {
        change(&mut self.place.write())
    }

    pub(crate) fn key(&self) -> &Mutex<Option<Key>> {
        &self.key
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let (Some(key), Some(table)) = (self.key.get_mut().take(), self.table.upgrade()) {
            table.dropped(&key, self);
        }
        // A node holds its parent. Where a client lets go of a deep tree from the top, the last node
        // lets go of all others: one after the other, since one in another would use up the stack.
        let mut next = self.place.get_mut().parent.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.place.get_mut().parent.take());
        }
    }
}
