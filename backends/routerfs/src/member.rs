//! A mounted filesystem.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use parking_lot::RwLock;
use stratafs_core::attr::{S_ISGID, S_ISUID};
use stratafs_core::{
    Attr, DynFileSystem, FileType, Intercepted, Needs, NodeId, ReadOnly, XattrName,
};

use crate::point::Point;

bitflags! {
    /// How a filesystem is mounted: what mount(8) calls `ro`, `nosuid`, `nodev` and `noexec`.
    ///
    /// A FUSE client knows flags of the whole share alone. So what a flag takes from the files of one
    /// mount is not shown of them: the client's kernel then cannot act on it, and a stat(2) does not
    /// see it either.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountFlags: u8 {
        /// Every change is EROFS.
        const READ_ONLY = 1 << 0;
        /// setuid and setgid bits of files are not shown, nor their capabilities
        /// (`security.capability`), so that executing them gives no rights.
        const NOSUID = 1 << 1;
        /// Devices are shown with the number 0:1, which is no driver's: opening one is ENXIO. None
        /// can be made: EPERM.
        const NODEV = 1 << 2;
        /// The execute bits of files are not shown, so that executing one is EACCES. Mapping a file as
        /// executable memory is not prevented.
        const NOEXEC = 1 << 3;
    }
}

/// The number of a device that has no driver. Not 0:0, which is a whiteout to a layering filesystem.
const NO_DRIVER: u32 = 1;

/// The attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// A filesystem in the table, or one that was and is still in use.
pub(crate) struct Member {
    /// Its place in the topmost bits of ids.
    pub(crate) index: usize,
    /// As it is asked: with a read-only flag, behind what refuses changes.
    pub(crate) fs: Arc<dyn DynFileSystem>,
    /// As it was given.
    pub(crate) given: Arc<dyn DynFileSystem>,
    pub(crate) flags: MountFlags,
    pub(crate) needs: Needs,
    /// Where it is mounted.
    pub(crate) point: Weak<Point>,
    /// Directories of it that lie on the way to a mount.
    reals: RwLock<HashMap<NodeId, Weak<Point>>>,
    /// How many these are.
    on_the_way: AtomicUsize,
    /// Lookups and handles that clients hold.
    held: AtomicU64,
    detached: AtomicBool,
}

impl Member {
    pub(crate) fn new(
        index: usize,
        given: Arc<dyn DynFileSystem>,
        flags: MountFlags,
        point: &Arc<Point>,
    ) -> Self {
        let fs: Arc<dyn DynFileSystem> = if flags.contains(MountFlags::READ_ONLY) {
            Arc::new(Intercepted::new(Arc::clone(&given), ReadOnly::new()))
        } else {
            Arc::clone(&given)
        };
        Self {
            index,
            needs: fs.features().needs,
            fs,
            given,
            flags,
            point: Arc::downgrade(point),
            reals: RwLock::default(),
            on_the_way: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            detached: AtomicBool::new(false),
        }
    }

    /// The point that the directory `node` is, if it is one.
    pub(crate) fn point_at(&self, node: NodeId) -> Option<Arc<Point>> {
        if node == NodeId::ROOT {
            return self.point.upgrade().filter(|_| !self.is_detached());
        }
        if self.on_the_way.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.reals.read().get(&node).and_then(Weak::upgrade)
    }

    /// The directory `node` is the point `point` from now on.
    pub(crate) fn set_point(&self, node: NodeId, point: &Arc<Point>) {
        let mut reals = self.reals.write();
        reals.insert(node, Arc::downgrade(point));
        self.on_the_way.store(reals.len(), Ordering::Release);
    }

    /// The directory `node` is not the point `point` any more.
    pub(crate) fn unset_point(&self, node: NodeId, point: &Point) {
        let mut reals = self.reals.write();
        if reals.get(&node).is_some_and(|known| std::ptr::eq(known.as_ptr(), point)) {
            reals.remove(&node);
        }
        self.on_the_way.store(reals.len(), Ordering::Release);
    }

    /// A client holds so many more lookups or handles.
    pub(crate) fn raise(&self, count: u64) {
        self.held.fetch_add(count, Ordering::AcqRel);
    }

    /// A client holds so many fewer, none at the least. Says whether the member is to be let go of.
    pub(crate) fn lower(&self, count: u64) -> bool {
        let lower = |held: u64| Some(held.saturating_sub(count));
        // The closure never refuses.
        let before = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        self.is_detached() && before.is_ok_and(|held| held <= count)
    }

    /// Whether clients hold nothing of it.
    pub(crate) fn is_unused(&self) -> bool {
        self.held.load(Ordering::Acquire) == 0
    }

    pub(crate) fn detach(&self) {
        self.detached.store(true, Ordering::Release);
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// `attr` as the flags let it be shown.
    #[inline]
    pub(crate) fn masked(&self, attr: &mut Attr) {
        if self.flags.is_empty() {
            return;
        }
        let kind = attr.kind();
        if self.flags.contains(MountFlags::NOSUID) && kind != FileType::Directory {
            attr.mode &= !(S_ISUID | S_ISGID);
        }
        if self.flags.contains(MountFlags::NOEXEC) && kind == FileType::Regular {
            attr.mode &= !0o111;
        }
        if self.flags.contains(MountFlags::NODEV) && is_device(kind) {
            attr.rdev = NO_DRIVER;
        }
    }

    /// Whether an object of this type may not be made.
    pub(crate) fn refuses(&self, kind: FileType) -> bool {
        self.flags.contains(MountFlags::NODEV) && is_device(kind)
    }

    /// Whether the attribute `name` is not shown.
    pub(crate) fn hides(&self, name: &[u8]) -> bool {
        name == CAPABILITY && self.flags.contains(MountFlags::NOSUID)
    }

    /// Whether the attribute `name` is not shown.
    pub(crate) fn hides_xattr(&self, name: XattrName<'_>) -> bool {
        self.hides(name.as_bytes())
    }
}

fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharDevice | FileType::BlockDevice)
}
