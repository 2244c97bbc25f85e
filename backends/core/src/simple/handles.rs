//! What is open, and how much may be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::listing::Listing;
use crate::{Errno, HandleId, NodeId, OpenFlags, Result};

const DEFAULT_LIMIT: usize = 65_536;

/// How many names the listings of all open directories keep together. A name costs about 60 bytes,
/// so this bounds what a client can hold by opening large directories over and over to some 64 MiB;
/// beyond it a listing is made anew for each request, which is slower and otherwise the same.
const KEPT_NAMES: usize = 1 << 20;

/// What a handle is open on.
#[derive(Clone)]
enum Open {
    File { node: NodeId, flags: OpenFlags },
    Directory(Arc<Directory>),
}

/// An open directory.
pub(super) struct Directory {
    node: NodeId,
    /// The listing that began at cookie 0 last, unless it was too long to be kept.
    listing: Mutex<Option<Kept>>,
}

/// A listing that is kept, and counted until it no longer is.
struct Kept {
    listing: Arc<Listing>,
    names: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.names.fetch_sub(self.listing.len(), Ordering::Relaxed);
    }
}

/// The open handles.
pub(super) struct Handles {
    open: RwLock<HashMap<HandleId, Open>>,
    next: AtomicU64,
    limit: usize,
    /// Handles that are open or promised; never above `limit`.
    taken: AtomicUsize,
    kept_names: Arc<AtomicUsize>,
    max_kept_names: usize,
}

/// The right to one more handle; given back on drop unless it was used.
pub(super) struct Slot<'a>(Option<&'a Handles>);

impl Handles {
    pub(super) fn new() -> Self {
        Self {
            open: RwLock::default(),
            next: AtomicU64::new(1),
            limit: DEFAULT_LIMIT,
            taken: AtomicUsize::new(0),
            kept_names: Arc::default(),
            max_kept_names: KEPT_NAMES,
        }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn len(&self) -> usize {
        self.open.read().len()
    }

    /// The right to one more handle, to be had before anything is changed; `ENFILE` at the limit.
    pub(super) fn slot(&self) -> Result<Slot<'_>> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Slot(Some(self))),
            Err(_) => Err(Errno::ENFILE),
        }
    }

    /// How the file `handle` of `node` was opened.
    pub(super) fn file(&self, node: NodeId, handle: HandleId) -> Result<OpenFlags> {
        match self.open.read().get(&handle) {
            Some(Open::File { node: of, flags }) if *of == node => Ok(*flags),
            _ => Err(Errno::EBADF),
        }
    }

    /// The directory that `handle` of `node` is open on.
    pub(super) fn directory(&self, node: NodeId, handle: HandleId) -> Result<Arc<Directory>> {
        match self.open.read().get(&handle) {
            Some(Open::Directory(open)) if open.node == node => Ok(Arc::clone(open)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Ends the file `handle` of `node`.
    pub(super) fn close_file(&self, node: NodeId, handle: HandleId) -> Result<()> {
        self.file(node, handle)?;
        self.close(handle)
    }

    /// Ends the directory `handle` of `node`.
    pub(super) fn close_directory(&self, node: NodeId, handle: HandleId) -> Result<()> {
        self.directory(node, handle)?;
        self.close(handle)
    }

    /// Of two that end one handle at a time one succeeds.
    fn close(&self, handle: HandleId) -> Result<()> {
        let gone = self.open.write().remove(&handle).ok_or(Errno::EBADF)?;
        self.taken.fetch_sub(1, Ordering::Relaxed);
        drop(gone);
        Ok(())
    }

    /// The listing to go on with from `cookie`: a fresh one at 0, else the one that was begun.
    pub(super) fn listing(
        &self,
        directory: &Directory,
        cookie: u64,
        list: impl FnOnce() -> Result<Listing>,
    ) -> Result<Arc<Listing>> {
        if cookie != 0
            && let Some(begun) = &*directory.listing.lock()
        {
            return Ok(Arc::clone(&begun.listing));
        }
        let listing = Arc::new(list()?);
        let room =
            |kept: usize| kept.checked_add(listing.len()).filter(|sum| *sum <= self.max_kept_names);
        let keep = self.kept_names.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        let kept = keep
            .then(|| Kept { listing: Arc::clone(&listing), names: Arc::clone(&self.kept_names) });
        // The old one goes when the lock is no longer held.
        let old = std::mem::replace(&mut *directory.listing.lock(), kept);
        drop(old);
        Ok(listing)
    }
}

impl Slot<'_> {
    /// Opens a file in it.
    pub(super) fn open_file(self, node: NodeId, flags: OpenFlags) -> HandleId {
        self.fill(Open::File { node, flags })
    }

    /// Opens a directory in it.
    pub(super) fn open_directory(self, node: NodeId) -> HandleId {
        self.fill(Open::Directory(Arc::new(Directory { node, listing: Mutex::new(None) })))
    }

    fn fill(mut self, open: Open) -> HandleId {
        let Some(handles) = self.0.take() else { return HandleId::NONE };
        let handle = HandleId(handles.next.fetch_add(1, Ordering::Relaxed));
        handles.open.write().insert(handle, open);
        handle
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(handles) = self.0 {
            handles.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
impl Handles {
    /// How many names are kept in all.
    pub(super) fn kept_names(&self) -> usize {
        self.kept_names.load(Ordering::Relaxed)
    }

    pub(super) fn set_max_kept_names(&mut self, limit: usize) {
        self.max_kept_names = limit;
    }
}
