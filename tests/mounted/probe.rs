//! A filesystem made for tests: it counts, panics, waits and notifies when told to.
//!
//! In its root every name is the same file, but `missing`, which is absent, and `panic`, whose
//! lookup panics. Everything is cached for an hour, so what a client sees of a change is due to a
//! notice.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use stratafs_core::{
    Attr, Behaviours, Cancel, Context, DirSink, DynFileSystem, Entry, Errno, Features, FileLock,
    HandleId, LockFlavour, LockKind, LockOwner, Lookup, Name, Needs, Negotiated, NodeId, Notifier,
    OpenFlags, Opened, OpenedFlags, Pending, ReadSink, Release, Reply, Result, SetAttr, TimedAttr,
    WriteFlags, WriteSource,
};

pub(crate) const FILE: NodeId = NodeId(2);
const DIRECTORY: NodeId = NodeId(3);
const HOUR: Duration = Duration::from_secs(3600);

/// What it counts, and what it is told.
pub(crate) struct Probe {
    pub(crate) lookups: AtomicU64,
    pub(crate) largest_read: AtomicU64,
    pub(crate) largest_write: AtomicU64,
    pub(crate) size: AtomicU64,
    /// What `init` answers.
    begins: Result<()>,
    notifier: Mutex<Option<Arc<dyn Notifier>>>,
    locks: Arc<Mutex<Locks>>,
}

impl Probe {
    pub(crate) fn new() -> Arc<Self> {
        Self::beginning(Ok(()))
    }

    /// One whose sessions cannot begin.
    pub(crate) fn refusing() -> Arc<Self> {
        Self::beginning(Err(Errno::EIO))
    }

    fn beginning(begins: Result<()>) -> Arc<Self> {
        Arc::new(Self {
            begins,
            lookups: AtomicU64::new(0),
            largest_read: AtomicU64::new(0),
            largest_write: AtomicU64::new(0),
            size: AtomicU64::new(0),
            notifier: Mutex::new(None),
            locks: Arc::default(),
        })
    }

    pub(crate) fn notifier(&self) -> Arc<dyn Notifier> {
        self.notifier.lock().clone().expect("a session has begun")
    }

    /// How many wait for the lock.
    pub(crate) fn waiting(&self) -> usize {
        self.locks.lock().waiting.len()
    }

    fn attr(&self, node: NodeId) -> Attr {
        if node != FILE {
            return Attr::new(node.0, 0o040_755);
        }
        let mut attr = Attr::new(node.0, 0o100_644);
        attr.size = self.size.load(Ordering::SeqCst);
        attr
    }

    fn entry(&self, node: NodeId) -> Entry {
        Entry::new(node, self.attr(node)).with_timeouts(HOUR, HOUR)
    }

    fn timed(&self, node: NodeId) -> TimedAttr {
        TimedAttr::new(self.attr(node), HOUR)
    }
}

/// One exclusive lock, whatever the node and the range.
#[derive(Default)]
struct Locks {
    holder: Option<LockOwner>,
    waiting: VecDeque<(u64, LockOwner, Reply<()>)>,
    next: u64,
}

impl Locks {
    /// Gives the lock up, if `owner` has it; answers whose turn it is.
    fn release(&mut self, owner: LockOwner) -> Option<Reply<()>> {
        if self.holder != Some(owner) {
            return None;
        }
        self.holder = None;
        let (_, next, reply) = self.waiting.pop_front()?;
        self.holder = Some(next);
        Some(reply)
    }
}

struct Waiter {
    id: u64,
    locks: Weak<Mutex<Locks>>,
}

impl Cancel for Waiter {
    fn cancel(&self) {
        let Some(locks) = self.locks.upgrade() else { return };
        let cancelled = {
            let mut locks = locks.lock();
            let place = locks.waiting.iter().position(|(id, ..)| *id == self.id);
            place.and_then(|place| locks.waiting.remove(place))
        };
        if let Some((_, _, reply)) = cancelled {
            reply.send(Err(Errno::EINTR));
        }
    }
}

impl DynFileSystem for Probe {
    fn features(&self) -> Features {
        Features::new("probe")
            .needing(Needs::OPEN | Needs::OPENDIR | Needs::FLOCK | Needs::POSIX_LOCKS)
            .promising(Behaviours::PROMPT)
            .with_node_id_bits(2)
    }

    fn init(&self, _: &Negotiated) -> Result<()> {
        self.begins
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        *self.notifier.lock() = Some(notifier);
    }

    fn lookup(&self, _: &Context<'_>, _: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        match name.as_bytes() {
            b"missing" => Ok(Lookup::Absent(HOUR)),
            b"panic" => panic!("this panic is meant"),
            name if name.starts_with(b"new") => Ok(Lookup::Absent(Duration::ZERO)),
            _ => Ok(Lookup::Found(self.entry(FILE))),
        }
    }

    fn forget(&self, _: NodeId, _: u64) {}

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Ok(self.timed(node))
    }

    fn setattr(&self, _: &Context<'_>, node: NodeId, _: &SetAttr) -> Result<TimedAttr> {
        Ok(self.timed(node))
    }

    /// Tells the kernel about the very name that it is just making, whose directory it has locked.
    fn mkdir(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>, _: u32) -> Result<Entry> {
        self.notifier().inval_entry(parent, name);
        Ok(self.entry(DIRECTORY))
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: OpenFlags, _: bool) -> Result<Opened> {
        Ok(Opened::new(HandleId(1), OpenedFlags::empty()))
    }

    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        self.largest_read.fetch_max(size as u64, Ordering::SeqCst);
        let left = self.size.load(Ordering::SeqCst).saturating_sub(offset);
        sink.write_zeros(size.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    fn write(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        offset: u64,
        size: usize,
        _: WriteFlags,
        _: &mut dyn WriteSource,
    ) -> Result<usize> {
        self.largest_write.fetch_max(size as u64, Ordering::SeqCst);
        self.size.fetch_max(offset + size as u64, Ordering::SeqCst);
        Ok(size)
    }

    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }

    fn release(&self, _: &Context<'_>, _: NodeId, _: HandleId, release: Release) -> Result<()> {
        let granted = release.flock.and_then(|owner| self.locks.lock().release(owner));
        if let Some(reply) = granted {
            reply.send(Ok(()));
        }
        Ok(())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: OpenFlags) -> Result<Opened> {
        Ok(Opened::new(HandleId(2), OpenedFlags::empty()))
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        _: &mut dyn DirSink,
    ) -> Result<()> {
        Ok(())
    }

    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }

    fn setlk(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        owner: LockOwner,
        lock: FileLock,
        _: LockFlavour,
    ) -> Result<()> {
        let mut locks = self.locks.lock();
        if lock.kind == LockKind::Unlock {
            let granted = locks.release(owner);
            drop(locks);
            if let Some(reply) = granted {
                reply.send(Ok(()));
            }
            return Ok(());
        }
        match locks.holder {
            Some(holder) if holder != owner => Err(Errno::EAGAIN),
            _ => {
                locks.holder = Some(owner);
                Ok(())
            }
        }
    }

    fn setlkw(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        owner: LockOwner,
        _: FileLock,
        _: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        let mut locks = self.locks.lock();
        if locks.holder.is_some_and(|holder| holder != owner) {
            let id = locks.next;
            locks.next += 1;
            locks.waiting.push_back((id, owner, reply));
            let locks = Arc::downgrade(&self.locks);
            return Some(Pending::new(Arc::new(Waiter { id, locks })));
        }
        locks.holder = Some(owner);
        drop(locks);
        reply.send(Ok(()));
        None
    }
}
