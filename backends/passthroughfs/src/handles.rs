//! Open files and directories, by handle.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use stratafs_core::{Errno, HandleId, NodeId, OpenFlags, Result};

use crate::dir::Resting;
use crate::node::Node;
use crate::table::Map;

const SHARDS: usize = 16;

/// A file or a directory that a client has open.
pub(crate) struct Handle {
    pub(crate) node: Arc<Node>,
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    File {
        flags: OpenFlags,
    },
    /// A directory, with the stream of its listing; `None` while a call uses it.
    Dir {
        stream: Mutex<Option<Resting>>,
    },
}

impl Handle {
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }
}

/// All handles. Its locks are leaves.
pub(crate) struct Handles {
    shards: Vec<RwLock<Map<u64, Arc<Handle>>>>,
    next: AtomicU64,
    open: AtomicUsize,
    limit: usize,
}

/// Room for one handle; given back when it is dropped unused.
pub(crate) struct Room<'a>(&'a Handles);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handles {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            limit,
        }
    }

    fn shard(&self, id: HandleId) -> &RwLock<Map<u64, Arc<Handle>>> {
        &self.shards[id.0 as usize % SHARDS]
    }

    /// Takes room for one more.
    ///
    /// # Errors
    /// `ENFILE`: the limit is reached.
    pub(crate) fn room(&self) -> Result<Room<'_>> {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Ok(Room(self));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        Err(Errno::ENFILE)
    }

    /// Adds `handle`, in the room that was taken for it.
    pub(crate) fn add(&self, room: Room<'_>, handle: Handle) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.put_back(room, id, handle);
        id
    }

    /// Adds `handle` as `id`, in the room that was taken for it.
    pub(crate) fn put_back(&self, room: Room<'_>, id: HandleId, handle: Handle) {
        std::mem::forget(room);
        handle.node.uses.fetch_add(1, Ordering::AcqRel);
        if !handle.is_dir() {
            let mut state = handle.node.state.lock();
            state.open.retain(|file| file.strong_count() > 0);
            state.open.push(Arc::downgrade(&handle.fd));
        }
        self.shard(id).write().insert(id.0, Arc::new(handle));
    }

    /// The id of the next new handle.
    pub(crate) fn next_id(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives new handles ids from `next` on.
    pub(crate) fn go_on_from(&self, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    /// All handles, with their ids.
    pub(crate) fn all(&self) -> Vec<(u64, Arc<Handle>)> {
        let of = |shard: &RwLock<Map<u64, Arc<Handle>>>| {
            shard.read().iter().map(|(id, handle)| (*id, Arc::clone(handle))).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// The handle `id`, which must be open on `node`.
    ///
    /// # Errors
    /// `EBADF`: it is not.
    pub(crate) fn get(&self, id: HandleId, node: NodeId) -> Result<Arc<Handle>> {
        let shard = self.shard(id).read();
        let handle = shard.get(&id.0).filter(|handle| handle.node.id == node);
        handle.cloned().ok_or(Errno::EBADF)
    }

    /// Takes the handle `id` out.
    ///
    /// # Errors
    /// `EBADF`: it is not open on `node`.
    pub(crate) fn remove(&self, id: HandleId, node: NodeId, dir: bool) -> Result<Arc<Handle>> {
        let mut shard = self.shard(id).write();
        let fits = |handle: &Arc<Handle>| handle.node.id == node && handle.is_dir() == dir;
        if !shard.get(&id.0).is_some_and(fits) {
            return Err(Errno::EBADF);
        }
        let handle = shard.remove(&id.0).ok_or(Errno::EBADF)?;
        self.open.fetch_sub(1, Ordering::Relaxed);
        Ok(handle)
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}
