//! Nodes: what the client sees, and the objects that it is made of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use stratafs_core::{Errno, FileType, Generation, NameBuf, NodeId, Result};

use crate::merge::Index;
use crate::record::Links;
use crate::side::Real;
use crate::table::{Key, Table};

/// An object of the tree.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) kind: FileType,
    pub(crate) generation: Generation,
    ino: AtomicU64,
    place: RwLock<Place>,
    /// Held while the object is transferred, across calls into the sides: one transfer for all who
    /// want one.
    pub(crate) transferring: Mutex<()>,
    /// Of a directory: held shared while a name in it is resolved into a node, and exclusively while
    /// one is changed, across calls into the sides: a change may take several.
    pub(crate) names: RwLock<()>,
    /// Of a directory that was listed: its merged listing.
    pub(crate) index: Mutex<Option<Index>>,
    /// Of a directory: something in it has records.
    impure: AtomicBool,
    /// Of a file that has other names on the side that is not written, transferred: its record.
    links: Mutex<Option<Links>>,
    keys: Mutex<Vec<Key>>,
    table: Weak<Table>,
}

/// What of an object stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    pub(crate) kind: FileType,
    pub(crate) ino: u64,
    pub(crate) generation: Generation,
    pub(crate) impure: bool,
    pub(crate) links: Option<Links>,
}

/// What a node is made of, and where it is.
#[derive(Clone)]
pub(crate) struct Place {
    /// The object on the side that is written.
    pub(crate) written: Option<Real>,
    /// Of a directory: the one on the other side that is merged with it. Of anything else: the
    /// object there, where none is on the written side or it has other names.
    pub(crate) other: Option<Real>,
    /// A directory it is in; `None` for the root, and for a file without a name.
    pub(crate) parent: Option<(Arc<Node>, NameBuf)>,
    /// Its last name is gone. Of what is on the written side and is no directory, that alone knows.
    pub(crate) removed: bool,
}

impl Place {
    /// The object that gives the attributes.
    pub(crate) fn top(&self) -> Result<&Real> {
        self.written.as_ref().or(self.other.as_ref()).ok_or(Errno::EIO)
    }

    /// Whether it is made of two directories.
    pub(crate) fn is_merged(&self) -> bool {
        self.written.is_some() && self.other.is_some()
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
            transferring: Mutex::new(()),
            names: RwLock::new(()),
            index: Mutex::new(None),
            impure: AtomicBool::new(of.impure),
            links: Mutex::new(of.links),
            keys: Mutex::default(),
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

    /// What `with` makes of what it is made of.
    pub(crate) fn with_place<T>(&self, with: impl FnOnce(&Place) -> T) -> T {
        with(&self.place.read())
    }

    pub(crate) fn top(&self) -> Result<Real> {
        self.place.read().top().cloned()
    }

    pub(crate) fn written(&self) -> Option<Real> {
        self.place.read().written.clone()
    }

    pub(crate) fn parent(&self) -> Option<(Arc<Self>, NameBuf)> {
        self.place.read().parent.clone()
    }

    /// Changes what it is made of. What `change` takes out comes back, to be dropped when no lock is
    /// held: giving a reference back is a call into a side.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Place) -> T) -> T {
        change(&mut self.place.write())
    }

    /// Whether what is in the directory may have records.
    pub(crate) fn is_impure(&self) -> bool {
        self.impure.load(Ordering::Acquire)
    }

    pub(crate) fn set_impure(&self) {
        self.impure.store(true, Ordering::Release);
    }

    pub(crate) fn links(&self) -> &Mutex<Option<Links>> {
        &self.links
    }

    pub(crate) fn keys(&self) -> &Mutex<Vec<Key>> {
        &self.keys
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            let keys = std::mem::take(self.keys.get_mut());
            keys.iter().for_each(|key| table.dropped(key, self));
        }
        // A node holds its parent. Where a client lets go of a deep tree from the top, the last node
        // lets go of all others: one after the other, since one in another would use up the stack.
        let mut next = self.place.get_mut().parent.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.place.get_mut().parent.take());
        }
    }
}

/// Ids counted up.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
