//! The filesystem itself, and its one implementation of the trait.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, Cache, CachePolicy, Context, CopyRange, DirSink, DynFileSystem, Entry, Errno,
    FallocateMode, Features, FileType, Generation, HandleId, LockOwner, Lookup, Name, Needs,
    Negotiated, NodeId, Notifier, Notifiers, OpenFlags, Opened, ReadSink, Release, RenameFlags,
    Result, SeekTo, SetAttr, StatFs, TimedAttr, WriteFlags, WriteSource, XattrMode, XattrName,
};

use crate::builder::{BuildError, Builder, Options, layer_name, same_filesystem};
use crate::create::New;
use crate::dir::Dir;
use crate::file::File;
use crate::format::Namespace;
use crate::ino::{Inos, Space};
use crate::layer::Real;
use crate::links::{Linked, Links};
use crate::node::{Node, Of, Place};
use crate::origin;
use crate::table::{Handles, Table};

/// Read-only layers and a writable one as one tree. See the crate's documentation.
pub struct OverlayFs {
    pub(crate) upper: Option<Upper>,
    /// The roots of the read-only layers, the topmost first.
    pub(crate) lowers: Vec<Real>,
    /// Every filesystem once.
    distinct: Vec<Arc<dyn DynFileSystem>>,
    pub(crate) inos: Inos,
    pub(crate) table: Arc<Table>,
    pub(crate) files: Handles<File>,
    pub(crate) dirs: Handles<Dir>,
    pub(crate) names: Namespace,
    pub(crate) options: Options,
    pub(crate) cache: Cache,
    /// Held while a directory may move to another.
    pub(crate) renames: Mutex<()>,
    pub(crate) notifiers: Notifiers,
    features: Features,
    /// Whether a session has agreed on FUSE_PASSTHROUGH.
    pub(crate) lends: AtomicBool,
    /// Nothing is to be changed.
    pub(crate) inspected: bool,
    /// Whether recorded origins are objects of these layers.
    pub(crate) origins_hold: bool,
    /// What ends with it.
    pub(crate) kept: Option<Arc<dyn Any + Send + Sync>>,
}

/// The writable layer.
pub(crate) struct Upper {
    pub(crate) root: Real,
    /// As it was given.
    pub(crate) staging: Real,
    /// The directory in it where everything is staged.
    pub(crate) work: Real,
    /// How many names were staged.
    pub(crate) staged: AtomicU64,
    /// The index, if there is one.
    pub(crate) links: Option<Links>,
}

impl Upper {
    pub(crate) fn new(root: Real, staging: Real, work: Real) -> Self {
        Self { root, staging, work, staged: AtomicU64::new(0), links: None }
    }
}

impl OverlayFs {
    /// A builder without layers.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_builder(
        upper: Option<Upper>,
        mut lowers: Vec<Real>,
        options: Options,
        origins_hold: bool,
        cache: Cache,
    ) -> std::result::Result<Self, BuildError> {
        let mut distinct: Vec<Arc<dyn DynFileSystem>> = Vec::new();
        let mut spaces = Vec::new();
        let failed = |operation, root: &Real| {
            let layer = layer_name(root.layer);
            move |errno| BuildError::Layer { operation, layer, errno }
        };
        // The number of the writable layer is taken where there is none, too.
        let first = upper.as_ref().map(|upper| &upper.root).or(lowers.first());
        for root in first.into_iter().chain(&lowers) {
            let known = distinct.iter().position(|fs| same_filesystem(fs, root.fs()));
            let index = known.unwrap_or_else(|| {
                distinct.push(Arc::clone(root.fs()));
                distinct.len() - 1
            });
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let fsid = fsid(root).map_err(failed("looking at the root", root))?;
            spaces.push(Space::new(index, fsid));
        }
        let features = features(upper.as_ref(), &distinct, &options, &cache);
        let names = options.names;
        let inos = Inos::new(spaces, options.xino);
        let mut top_ino = None;
        for root in upper.iter().map(|upper| &upper.root).chain(&lowers) {
            let attr = root.attr().map_err(failed("looking at the root", root))?;
            if attr.kind() != FileType::Directory {
                return Err(BuildError::NotADirectory { layer: layer_name(root.layer) });
            }
            // As in the kernel's; other merged directories have that of their topmost read-only part.
            top_ino.get_or_insert(inos.map(root.layer, attr.ino));
        }
        let fs = Self {
            upper,
            lowers: Vec::new(),
            distinct,
            inos,
            table: Arc::new(Table::new()),
            files: Handles::new(),
            dirs: Handles::new(),
            names,
            options,
            cache,
            renames: Mutex::new(()),
            notifiers: Notifiers::new(),
            features,
            lends: AtomicBool::new(false),
            inspected: false,
            origins_hold,
            kept: None,
        };
        for root in &mut lowers {
            // Of a root only whether it may hold whiteouts that are files: it hides nothing below.
            let failed = failed("reading attributes of the root", root);
            fs.is_opaque(root).map_err(failed)?;
        }
        let place = Place {
            upper: fs.upper.as_ref().map(|upper| upper.root.clone()),
            lowers: lowers.clone().into(),
            parent: None,
            redirect: None,
            linked: Linked::No,
            superseded: false,
            removed: false,
        };
        let ino = top_ino.unwrap_or(NodeId::ROOT.0);
        let of = Of { kind: FileType::Directory, ino, generation: Generation(0) };
        let root = Node::new(NodeId::ROOT, of, place, &fs.table);
        fs.table.set_root(Arc::new(root));
        Ok(Self { lowers, ..fs })
    }

    /// The same, to be looked at only.
    pub(crate) fn inspected(mut self) -> Self {
        self.inspected = true;
        self.features.behaviours |= Behaviours::READ_ONLY;
        self
    }

    /// How many nodes clients hold, the root counted.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.table.len()
    }
}

/// The UUID of what the layer is on, if its file handles give inode numbers away: those of the root
/// must be its number.
fn fsid(root: &Real) -> Result<Option<[u8; 16]>> {
    let Some(id) = root.fs().persistent_id(root.id())? else { return Ok(None) };
    let Some(ino) = origin::inode_of(&id) else { return Ok(None) };
    Ok((root.attr()?.ino == ino).then_some(id.fsid))
}

fn features(
    upper: Option<&Upper>,
    distinct: &[Arc<dyn DynFileSystem>],
    options: &Options,
    cache: &Cache,
) -> Features {
    let layers = distinct.iter().map(|fs| fs.features()).reduce(Features::combine);
    let granularity = layers.map_or(1, |all| all.time_granularity_ns);
    let all = layers.map_or(Behaviours::empty(), |all| all.behaviours);
    let needs = Needs::XATTR
        | Needs::FSYNC
        | Needs::FSYNCDIR
        | Needs::LSEEK
        | Needs::READDIRPLUS
        | Needs::STATX
        | Needs::OPEN
        | Needs::OPENDIR
        | Needs::SYNCFS;
    let mut behaviours = Behaviours::PARALLEL_DIROPS
        | Behaviours::CACHE_SYMLINKS
        | Behaviours::ATOMIC_O_TRUNC
        | (all
            & (Behaviours::ALLOW_IDMAP
                | Behaviours::EXCLUSIVE
                | Behaviours::PROMPT
                | Behaviours::XATTR_USER
                | Behaviours::XATTR_TRUSTED
                | Behaviours::XATTR_SECURITY));
    // Of each file its own layer may lend.
    let lends = |fs: &Arc<dyn DynFileSystem>| fs.features().bears(Behaviours::PASSTHROUGH);
    behaviours.set(Behaviours::PASSTHROUGH, distinct.iter().any(lends));
    let mut writing = Needs::empty();
    match upper {
        Some(upper) => {
            writing = Needs::SETXATTR
                | Needs::FALLOCATE
                | Needs::COPY_FILE_RANGE
                | Needs::RENAME2
                | Needs::TMPFILE
                | (upper.root.fs().features().needs & Needs::FLUSH);
            let theirs = upper.root.fs().features().behaviours;
            behaviours |= Behaviours::EXCHANGE;
            // Otherwise a directory with lower parts stays where it is.
            behaviours.set(Behaviours::STAGING_RENAME, options.makes_redirects());
            behaviours |= theirs
                & (Behaviours::KILLPRIV_V2
                    | Behaviours::DONT_MASK
                    | Behaviours::TMPFILE
                    | Behaviours::REFLINK);
        }
        None => behaviours |= Behaviours::READ_ONLY,
    }
    if cache.policy == CachePolicy::Never {
        behaviours -= Behaviours::CACHE_SYMLINKS;
    }
    let mut features = Features::new("overlay")
        .needing(needs | writing)
        .promising(behaviours)
        .with_node_id_bits(48);
    features.time_granularity_ns = granularity;
    features
}

impl DynFileSystem for OverlayFs {
    fn features(&self) -> Features {
        self.features
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        if negotiated.behaviours.contains(Behaviours::PASSTHROUGH) {
            self.lends.store(true, Ordering::SeqCst);
        }
        self.distinct.iter().try_for_each(|fs| fs.init(negotiated))
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.distinct.iter().for_each(|fs| fs.destroy(cx));
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
        let top = node.top()?;
        top.fs().readlink(cx, top.id(), target)
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
        self.rename_name(cx, parent, name, new_parent, new_name, flags)
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

impl fmt::Debug for OverlayFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upper = if self.upper.is_some() { "writable" } else { "read-only" };
        write!(f, "OverlayFs({upper}, {} layers)", self.lowers.len())
    }
}
