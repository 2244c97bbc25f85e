//! The filesystem itself, and its one implementation of the trait.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, Cache, CachePolicy, Context, CopyRange, DirSink, DynFileSystem, Entry, Errno,
    FallocateMode, Features, FileType, HandleId, LockOwner, Lookup, Name, Needs, Negotiated,
    NodeId, Notifier, Notifiers, OpKind, OpenFlags, Opened, ReadSink, Release, RenameFlags, Result,
    SeekTo, SetAttr, StatFs, TimedAttr, WriteFlags, WriteSource, XattrMode, XattrName,
};

use crate::builder::{Builder, Parts};
use crate::create::New;
use crate::dir::Dir;
use crate::file::File;
use crate::ino::Inos;
use crate::policy::{DispatchPolicy, Request, Side, Transfer};
use crate::record::Namespace;
use crate::stage::Staging;
use crate::table::{Handles, Table};

/// Two filesystems under one tree. See the crate's documentation.
pub struct DualFs {
    sides: [Arc<dyn DynFileSystem>; 2],
    pub(crate) policy: Arc<dyn DispatchPolicy>,
    /// The side that is written.
    pub(crate) written: Side,
    /// Where only that side is looked at there is none.
    pub(crate) staging: Option<Staging>,
    pub(crate) inos: Inos,
    pub(crate) table: Arc<Table>,
    pub(crate) files: Handles<File>,
    pub(crate) dirs: Handles<Dir>,
    pub(crate) names: Namespace,
    pub(crate) cache: Cache,
    /// Held while a directory may move to another.
    pub(crate) renames: Mutex<()>,
    /// Held while a record of links changes, across calls into the written side.
    pub(crate) counting: Mutex<()>,
    pub(crate) notifiers: Notifiers,
    features: Features,
    /// What ends with it.
    _kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl DualFs {
    /// A builder without backends.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Self> {
        let Parts { sides, policy, staging, names, cache, kept } = parts;
        let written = policy.written();
        let features = features(&sides, &*policy, staging.is_some(), &cache);
        let bits =
            [0, 1].map(|side: usize| sides.get(side).map_or(64, |fs| fs.features().node_id_bits));
        let fs = Self {
            sides,
            policy,
            written,
            staging,
            inos: Inos::new(bits),
            table: Arc::new(Table::new()),
            files: Handles::new(),
            dirs: Handles::new(),
            names,
            cache,
            renames: Mutex::new(()),
            counting: Mutex::new(()),
            notifiers: Notifiers::new(),
            features,
            _kept: kept,
        };
        fs.enter_root()?;
        Ok(fs)
    }

    /// The filesystem of a side.
    pub(crate) fn side(&self, side: Side) -> &Arc<dyn DynFileSystem> {
        let [a, b] = &self.sides;
        if side == Side::A { a } else { b }
    }

    /// Whether a layering filesystem may leave its marks here.
    pub(crate) fn makes_whiteouts(&self) -> bool {
        self.features.bears(Behaviours::WHITEOUT)
    }

    /// How many nodes clients hold, the root counted.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.table.len()
    }
}

fn features(
    sides: &[Arc<dyn DynFileSystem>; 2],
    policy: &dyn DispatchPolicy,
    transfers: bool,
    cache: &Cache,
) -> Features {
    let [a, b] = sides.each_ref().map(|fs| fs.features());
    let of_written = if policy.written() == Side::A { a } else { b };
    // Where one side alone is looked at, the other takes nothing from it.
    let all = if transfers { a.combine(b) } else { of_written };
    let needs = Needs::XATTR
        | Needs::SETXATTR
        | Needs::FSYNC
        | Needs::FSYNCDIR
        | Needs::LSEEK
        | Needs::READDIRPLUS
        | Needs::STATX
        | Needs::OPEN
        | Needs::OPENDIR
        | Needs::SYNCFS
        | Needs::FALLOCATE
        | Needs::COPY_FILE_RANGE
        | Needs::RENAME2
        | Needs::TMPFILE
        | (of_written.needs & Needs::FLUSH);
    let of_both = Behaviours::ALLOW_IDMAP
        | Behaviours::EXCLUSIVE
        | Behaviours::PROMPT
        | Behaviours::XATTR_USER
        | Behaviours::XATTR_TRUSTED
        | Behaviours::XATTR_SECURITY;
    let of_one = Behaviours::EXCHANGE
        | Behaviours::KILLPRIV_V2
        | Behaviours::DONT_MASK
        | Behaviours::TMPFILE
        | Behaviours::REFLINK
        | Behaviours::WHITEOUT
        | Behaviours::READ_ONLY;
    let mut behaviours = Behaviours::PARALLEL_DIROPS
        | Behaviours::CACHE_SYMLINKS
        | Behaviours::ATOMIC_O_TRUNC
        | (all.behaviours & of_both)
        | (of_written.behaviours & of_one);
    let moved = policy.plan(&Request::new(OpKind::Rename, true).of(FileType::Directory));
    if !transfers || moved.transfer == Transfer::Tree {
        behaviours |= of_written.behaviours & Behaviours::STAGING_RENAME;
    }
    if cache.policy == CachePolicy::Never {
        behaviours -= Behaviours::CACHE_SYMLINKS;
    }
    let mut features =
        Features::new("dual").needing(needs).promising(behaviours).with_node_id_bits(48);
    features.time_granularity_ns = all.time_granularity_ns;
    features
}

impl DynFileSystem for DualFs {
    fn features(&self) -> Features {
        self.features
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        self.sides.iter().try_for_each(|fs| fs.init(negotiated))
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.sides.iter().for_each(|fs| fs.destroy(cx));
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.notifiers.attach(notifier);
    }

    fn lookup(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.look_up(parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.table.forget(node, count);
    }

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        self.get_attr(node)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        self.set_attr(cx, node, set)
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        let node = self.table.get(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        let real = self.to_read(Request::new(OpKind::Readlink, false), &node)?;
        real.fs().readlink(cx, real.id(), target)
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
        self.make_special(cx, parent, name, mode, rdev)
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.make(cx, parent, name, New::Dir { mode })
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, false)
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(cx, parent, name, true)
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
        self.read_file(cx, node, handle, offset, size, sink)
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
        self.write_file(cx, node, handle, offset, size, flags, source)
    }

    fn flush(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        self.flush_file(cx, node, handle, owner)
    }

    fn fsync(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        self.sync_file(cx, node, handle, datasync)
    }

    fn release(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        self.release_file(node, handle, release)
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
        self.allocate(cx, node, handle, mode, (offset, len))
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

    fn opendir(&self, _: &Context<'_>, node: NodeId, _: OpenFlags) -> Result<Opened> {
        self.open_dir(node)
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(node, handle, cookie, false, sink)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(node, handle, cookie, true, sink)
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

    fn releasedir(&self, _: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        self.close_dir(node, handle)
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
        self.set_xattr(cx, node, name, value, mode, clear_setgid)
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        self.list_xattr(cx, node, names)
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.remove_xattr(cx, node, name)
    }

    fn statfs(&self, cx: &Context<'_>, _: NodeId) -> Result<StatFs> {
        self.stat_fs(cx)
    }

    fn syncfs(&self, cx: &Context<'_>, _: NodeId) -> Result<()> {
        self.sync_fs(cx)
    }
}

impl fmt::Debug for DualFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.sides;
        write!(f, "DualFs({}, a: {a:?}, b: {b:?})", self.policy.name())
    }
}
