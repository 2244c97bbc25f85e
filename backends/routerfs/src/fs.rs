//! The filesystem itself, and its one implementation of the trait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use stratafs_core::{
    Access, BackingFile, Behaviours, Cache, Context, CopyRange, DirSink, DynFileSystem, Entry,
    Errno, FallocateMode, Features, FileLock, HandleId, LockFlavour, LockOwner, Lookup, Name,
    Negotiated, NodeId, Notifier, OpenFlags, Opened, Pending, PersistentId, ReadSink, Release,
    RenameFlags, Reply, Result, SeekTo, SetAttr, StatFs, TimedAttr, Timestamp, WriteFlags,
    WriteSource, XattrMode, XattrName,
};

use crate::builder::{Builder, Planned};
use crate::create::New;
use crate::ids::{INDICES, Ids, Packing};
use crate::member::Member;
use crate::notify::Clients;
use crate::point::Point;
use crate::remove::Removed;

/// Several filesystems in one tree. See the crate's documentation.
pub struct RouterFs {
    pub(crate) root: Arc<Point>,
    /// The members, by their indices.
    pub(crate) slots: Box<[RwLock<Option<Arc<Member>>>]>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) clients: Clients,
    pub(crate) cache: Cache,
    /// Held while the table changes.
    pub(crate) changes: Mutex<()>,
    /// The number of the next point.
    pub(crate) points: AtomicU64,
    /// What the cookies of mounts in a listing begin with.
    pub(crate) cookies: u64,
    /// The time of directories that are made up.
    pub(crate) made: Timestamp,
    features: Features,
}

impl RouterFs {
    /// A builder without mounts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_builder(planned: Vec<Planned>, expected: &[Features], cache: Cache) -> Self {
        let of = |mount: &Planned| {
            let mut features = mount.fs.features();
            let readonly = mount.flags.contains(crate::MountFlags::READ_ONLY);
            features.behaviours |=
                if readonly { Behaviours::READ_ONLY } else { Behaviours::empty() };
            features
        };
        let all: Vec<Features> = planned.iter().map(of).chain(expected.iter().copied()).collect();
        let packing = Packing::new(all.iter().map(|features| features.node_id_bits));
        let root = Arc::new(Point::root(NodeId::ROOT.0));
        let fs = Self {
            root,
            slots: (0..INDICES).map(|_| RwLock::default()).collect(),
            ids: Arc::new(Ids::new(packing)),
            clients: Clients::default(),
            cache,
            changes: Mutex::new(()),
            points: AtomicU64::new(NodeId::ROOT.0 + 1),
            cookies: crate::dir::cookies(),
            made: Timestamp::from(SystemTime::now()),
            features: features(&all, packing),
        };
        for mount in planned {
            fs.enter_mount(&mount.names, &mount.fs, mount.flags);
        }
        fs
    }

    pub(crate) fn own_features(&self) -> &Features {
        &self.features
    }
}

fn features(all: &[Features], packing: Packing) -> Features {
    let together = all.iter().copied().reduce(Features::combine);
    let mut features = Features::new("router");
    if let Some(together) = together {
        features.needs = together.needs;
        // Two directories may be in two mounts, at the latest when something is mounted.
        features.behaviours = together.behaviours - Behaviours::STAGING_RENAME;
        features.time_granularity_ns = together.time_granularity_ns;
    }
    features.with_node_id_bits(packing.bits())
}

impl DynFileSystem for RouterFs {
    fn features(&self) -> Features {
        self.features
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        self.begin_session(negotiated)
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.end_session(cx);
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.attach_client(&notifier);
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.look_up(cx, parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.forget_node(node, count);
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        self.get_attr(cx, node, handle)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        self.set_attr(cx, node, set)
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        let real = self.real(node, Errno::EINVAL)?;
        real.member.fs.readlink(cx, real.node, target)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        self.make(cx, parent, name, New::Symlink { target })
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.make(cx, parent, name, New::Special { mode, rdev })
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.make(cx, parent, name, New::Dir { mode })
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, Removed::File)
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, Removed::Dir)
    }

    fn rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        self.rename_name(cx, (parent, name), (new_parent, new_name), flags)
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        self.make_link(cx, node, new_parent, new_name)
    }

    fn open(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        self.open_file(cx, node, flags, kill_priv)
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(Entry, Opened)> {
        self.make_file(cx, parent, name, mode, flags, kill_priv)
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        self.make_unnamed(cx, parent, mode, flags)
    }

    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let open = self.open_real(node, handle)?;
        open.member.fs.read(cx, open.node, open.handle, offset, size, sink)
    }

    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let open = self.open_real(node, handle)?;
        open.member.fs.write(cx, open.node, open.handle, offset, size, flags, source)
    }

    fn flush(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        let open = self.open_real(node, handle)?;
        open.member.fs.flush(cx, open.node, open.handle, owner)
    }

    fn fsync(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        let open = self.open_real(node, handle)?;
        open.member.fs.fsync(cx, open.node, open.handle, datasync)
    }

    fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        self.release_file(cx, node, handle, release)
    }

    fn fallocate(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let open = self.open_real(node, handle)?;
        open.member.fs.fallocate(cx, open.node, open.handle, mode, offset, len)
    }

    fn lseek(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        self.seek(cx, node, handle, offset, to)
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        self.copy_range(cx, from, to, len)
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, flags: OpenFlags) -> Result<Opened> {
        self.open_dir(cx, node, flags)
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(cx, node, handle, cookie, false, sink)
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(cx, node, handle, cookie, true, sink)
    }

    fn fsyncdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        self.sync_dir(cx, node, handle, datasync)
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        self.release_dir(cx, node, handle)
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        self.get_xattr(cx, node, name, value)
    }

    fn setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
        clear_setgid: bool,
    ) -> Result<()> {
        let real = self.real(node, Errno::EOPNOTSUPP)?;
        real.member.fs.setxattr(cx, real.node, name, value, mode, clear_setgid)
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        self.list_xattr(cx, node, names)
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let real = self.real(node, Errno::EOPNOTSUPP)?;
        real.member.fs.removexattr(cx, real.node, name)
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, mask: u32) -> Result<()> {
        self.check_access(cx, node, mask)
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<StatFs> {
        self.stat_fs(cx, node)
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        self.sync_fs(cx, node)
    }

    fn getlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        let open = self.open_real(node, handle)?;
        open.member.fs.getlk(cx, open.node, open.handle, owner, lock)
    }

    fn setlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
    ) -> Result<()> {
        let open = self.open_real(node, handle)?;
        open.member.fs.setlk(cx, open.node, open.handle, owner, lock, flavour)
    }

    fn setlkw(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        match self.open_real(node, handle) {
            Ok(open) => {
                open.member.fs.setlkw(cx, open.node, open.handle, owner, lock, flavour, reply)
            }
            Err(errno) => {
                reply.send(Err(errno));
                None
            }
        }
    }

    fn inode_flags(&self, cx: &Context<'_>, node: NodeId) -> Result<u32> {
        let real = self.real(node, Errno::EOPNOTSUPP)?;
        real.member.fs.inode_flags(cx, real.node)
    }

    fn set_inode_flags(&self, cx: &Context<'_>, node: NodeId, flags: u32) -> Result<()> {
        let real = self.real(node, Errno::EOPNOTSUPP)?;
        real.member.fs.set_inode_flags(cx, real.node, flags)
    }

    fn mapping_source(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        let real = self.real(node, Errno::EISDIR).ok()?;
        real.member.fs.mapping_source(real.node, access)
    }

    fn persistent_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        match self.real(node, Errno::EISDIR) {
            Ok(real) => real.member.fs.persistent_id(real.node),
            Err(Errno::EISDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl fmt::Debug for RouterFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterFs").field("mounts", &self.mounts()).finish_non_exhaustive()
    }
}
