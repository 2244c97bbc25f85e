//! One object of the host, as the client knows it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use stratafs_core::name::NAME_MAX;
use stratafs_core::{FileType, Name, NameBuf, NodeId, Result, Timestamp};
use stratafs_sys::stat::Stat;

use crate::record::Record;

/// What tells an object of the host from every other, now and later: a number that is used again
/// comes with another time of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// Nanoseconds of the creation time, or a digest of the file handle where there is no such
    /// time.
    pub(crate) birth: u64,
}

impl Identity {
    /// The identity in `stat`, if a creation time is in it.
    pub(crate) fn of(stat: &Stat) -> Option<Self> {
        stat.btime.map(|btime| Self::new(stat, nanoseconds(btime)))
    }

    /// The identity of an object without a creation time.
    pub(crate) fn new(stat: &Stat, birth: u64) -> Self {
        Self { dev: stat.dev, ino: stat.ino, birth }
    }

    /// A number to choose a shard by.
    pub(crate) fn digest(self) -> u64 {
        (self.ino ^ self.dev.rotate_left(32) ^ self.birth).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    time.sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.nsec))
}

/// A name that leads, or led when last seen, to an object.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: NameBuf,
}

/// A copy of a name on the stack.
pub(crate) struct ShortName {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl ShortName {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; NAME_MAX];
        let len = name.len().min(NAME_MAX);
        bytes[..len].copy_from_slice(&name[..len]);
        Self { bytes, len }
    }

    pub(crate) fn as_name(&self) -> Result<Name<'_>> {
        Ok(Name::new(&self.bytes[..self.len])?)
    }
}

/// How many names of one object are kept. Beyond it the oldest is let go of: an object with more
/// hard links that all were looked up is still found by the others.
const MAX_PLACES: usize = 16;

/// An ownership record, and the change time of the object that it was read at.
#[derive(Clone, Copy)]
pub(crate) struct CachedRecord {
    pub(crate) ctime: Timestamp,
    pub(crate) record: Option<Record>,
    /// Whether no change could have hidden behind an equal `ctime`.
    pub(crate) settled: bool,
}

/// What may be assumed of a directory for a moment when something is made in it.
#[derive(Clone, Copy)]
pub(crate) struct Inheritance {
    pub(crate) seen: Instant,
    pub(crate) mode: u32,
    pub(crate) gid: u32,
    /// Whether it has a default ACL.
    pub(crate) default_acl: bool,
}

/// A file opened on behalf of a node rather than of a handle.
#[derive(Clone)]
pub(crate) struct DataFile {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) writable: bool,
}

/// What changes of a node. Its lock is a leaf: nothing is called while it is held.
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) pin: Option<Arc<OwnedFd>>,
    pub(crate) data: Option<DataFile>,
    /// Files open by handles, any of which can stand in for a pin.
    pub(crate) open: Vec<Weak<OwnedFd>>,
    pub(crate) places: Vec<Place>,
    /// How many operations are about to move or remove it, so that it must stay pinned.
    pub(crate) busy: u32,
    /// Out of the table: nothing is to be kept in it any more.
    pub(crate) dead: bool,
    pub(crate) record: Option<CachedRecord>,
    inheritance: Option<Inheritance>,
    /// When it was last seen without setuid, setgid and capabilities.
    unprivileged: Option<Instant>,
    /// How often owner, mode or capabilities were changed here: what was seen before is old then.
    changes: u32,
}

impl State {
    /// Notes a change of owner, mode or capabilities.
    pub(crate) fn changed(&mut self) {
        self.inheritance = None;
        self.unprivileged = None;
        self.changes = self.changes.wrapping_add(1);
    }
}

/// No size: no file has it.
const UNKNOWN: u64 = u64::MAX;

/// One object.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// The type that the client sees; an object never changes it.
    pub(crate) kind: FileType,
    /// The type bits of what the host has; they change when a symlink gets an owner.
    host: AtomicU32,
    /// The device it is on.
    pub(crate) dev: u64,
    /// The inode number that the client sees for as long as it knows the node. Once a symlink got an
    /// owner, and a file took its place, the host has another.
    pub(crate) ino: u64,
    /// Its size when it was last looked at, or [`UNKNOWN`].
    size: AtomicU64,
    /// How often it was looked up and not forgotten.
    pub(crate) lookups: AtomicU64,
    /// What else needs it: handles, and children that are found by it.
    pub(crate) uses: AtomicU64,
    /// How many removals and renames of names in it are under way, and how many there ever were:
    /// what tells a lookup that its name may have gone before the node was there to be seen.
    pub(crate) removing: AtomicU32,
    pub(crate) removals: AtomicU32,
    /// Used since the clock's hand last passed.
    pub(crate) touched: AtomicBool,
    pub(crate) state: Mutex<State>,
    /// Held while an ownership record is read, changed and written back.
    pub(crate) update: Mutex<()>,
}

impl Node {
    pub(crate) fn new(id: NodeId, kind: FileType, host: FileType, identity: Identity) -> Self {
        Self {
            id,
            kind,
            host: AtomicU32::new(host.mode_bits()),
            dev: identity.dev,
            ino: identity.ino,
            size: AtomicU64::new(UNKNOWN),
            lookups: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            removing: AtomicU32::new(0),
            removals: AtomicU32::new(0),
            touched: AtomicBool::new(false),
            state: Mutex::new(State {
                identity,
                pin: None,
                data: None,
                open: Vec::new(),
                places: Vec::new(),
                busy: 0,
                dead: false,
                record: None,
                inheritance: None,
                unprivileged: None,
                changes: 0,
            }),
            update: Mutex::new(()),
        }
    }

    /// The same with another inode number for the client.
    pub(crate) fn showing(mut self, ino: u64) -> Self {
        self.ino = ino;
        self
    }

    /// The same, looked up `lookups` times.
    pub(crate) fn known(self, lookups: u64) -> Self {
        self.lookups.store(lookups, Ordering::Release);
        self
    }

    /// The type that the host has.
    pub(crate) fn host(&self) -> FileType {
        FileType::from_mode(self.host.load(Ordering::Relaxed)).unwrap_or(FileType::Regular)
    }

    pub(crate) fn set_host(&self, host: FileType) {
        self.host.store(host.mode_bits(), Ordering::Relaxed);
    }

    /// Its size when it was last looked at; `None` where it was written to since, or never seen.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(self.size.load(Ordering::Relaxed)).filter(|size| *size != UNKNOWN)
    }

    /// Notes its size, or that it may have another now.
    pub(crate) fn set_size(&self, size: Option<u64>) {
        self.size.store(size.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Adds to the lookup count, which never wraps.
    pub(crate) fn count(&self, by: u64) {
        let _ = self
            .lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add(by)));
    }

    /// Takes from the lookup count, and says whether it reached zero.
    pub(crate) fn uncount(&self, by: u64) -> bool {
        self.lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(by)))
            .is_ok_and(|before| before <= by)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lookups.load(Ordering::Acquire) == 0 && self.uses.load(Ordering::Acquire) == 0
    }

    /// A descriptor of the object, if one is open.
    pub(crate) fn pinned(&self) -> Option<Arc<OwnedFd>> {
        self.touched.store(true, Ordering::Relaxed);
        let state = self.state.lock();
        state.pin.clone().or_else(|| state.open.iter().find_map(Weak::upgrade))
    }

    pub(crate) fn identity(&self) -> Identity {
        self.state.lock().identity
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        self.state.lock().places.clone()
    }

    /// The name that was noted last, without an allocation.
    pub(crate) fn last_place(&self) -> Option<(Arc<Self>, ShortName)> {
        let state = self.state.lock();
        let place = state.places.last()?;
        Some((Arc::clone(&place.parent), ShortName::new(place.name.as_bytes())))
    }

    /// Notes that `name` in `parent` leads here, and says whether that is new. Gives what is no
    /// longer kept for it, to be released with [`Table::release`](crate::table::Table::release).
    #[must_use]
    pub(crate) fn add_place(&self, parent: &Arc<Self>, name: Name<'_>) -> (bool, Vec<Place>) {
        let mut state = self.state.lock();
        let known = |place: &Place| {
            Arc::ptr_eq(&place.parent, parent) && place.name.as_bytes() == name.as_bytes()
        };
        if state.dead || state.places.iter().any(known) {
            return (false, Vec::new());
        }
        let gone = if self.is_dir() {
            // A directory has one name.
            std::mem::take(&mut state.places)
        } else if state.places.len() >= MAX_PLACES {
            vec![state.places.remove(0)]
        } else {
            Vec::new()
        };
        parent.uses.fetch_add(1, Ordering::AcqRel);
        state.places.push(Place { parent: Arc::clone(parent), name: name.to_owned() });
        (true, gone)
    }

    /// Notes that `name` in `parent` no longer leads here.
    #[must_use]
    pub(crate) fn remove_place(&self, parent: &Arc<Self>, name: Name<'_>) -> Vec<Place> {
        let mut state = self.state.lock();
        let known = |place: &Place| {
            Arc::ptr_eq(&place.parent, parent) && place.name.as_bytes() == name.as_bytes()
        };
        match state.places.iter().position(known) {
            Some(index) => vec![state.places.remove(index)],
            None => Vec::new(),
        }
    }

    /// What is assumed of a directory when something is made in it, and when that was found out.
    pub(crate) fn inheritance(&self) -> (Option<Inheritance>, u32) {
        let state = self.state.lock();
        (state.inheritance, state.changes)
    }

    /// Keeps what was seen, if nothing changed since `changes` were counted.
    pub(crate) fn keep_inheritance(&self, seen: Inheritance, changes: u32) {
        let mut state = self.state.lock();
        if state.changes == changes {
            state.inheritance = Some(seen);
        }
    }

    /// When it was last seen without privileges, and how many changes there were till now.
    pub(crate) fn unprivileged(&self) -> (Option<Instant>, u32) {
        let state = self.state.lock();
        (state.unprivileged, state.changes)
    }

    /// Notes that it was seen without privileges, if nothing changed since `changes` were counted.
    pub(crate) fn keep_unprivileged(&self, changes: u32) {
        let mut state = self.state.lock();
        if state.changes == changes {
            state.unprivileged = Some(Instant::now());
        }
    }

    /// Keeps `cached`, unless something newer is kept.
    pub(crate) fn cache_record(&self, cached: CachedRecord) {
        let mut state = self.state.lock();
        if state.record.is_none_or(|kept| kept.ctime <= cached.ctime) {
            state.record = Some(cached);
        }
    }
}
