//! The filesystem itself, and its one implementation of the trait.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, Cache, CachePolicy, Context, CopyRange, DirSink, DynFileSystem, Entry,
    FallocateMode, Features, FileLock, HandleId, LockFlavour, LockOwner, Lookup, Name, Needs,
    NodeId, Notifier, OpenFlags, Opened, Pending, ReadSink, Release, RenameFlags, Reply, Result,
    SeekTo, SetAttr, StatFs, TimedAttr, Timestamp, WriteFlags, WriteSource, XattrMode, XattrName,
};

use crate::builder::{Builder, Locks};
use crate::charge::{Account, DIR_COST, NODE_COST};
use crate::chunk::{Chunk, zero_page};
use crate::clock::Clock;
use crate::entries::Entries;
use crate::handle::{Handles, Want};
use crate::lock::LockTable;
use crate::node::{Body, Inode, Node, NodeArc};
use crate::notify::Clients;
use crate::rank;
use crate::table::Numbered;

/// A filesystem in memory. See the crate's documentation.
pub struct MemFs {
    pub(crate) nodes: Numbered<NodeArc>,
    pub(crate) handles: Handles,
    pub(crate) account: Account,
    pub(crate) cache: Cache,
    /// Held while a directory may move to another.
    pub(crate) renames: Mutex<()>,
    pub(crate) locks: LockTable,
    pub(crate) clients: Clients,
    /// What stands for a page that is allocated but not written.
    pub(crate) zeros: Chunk,
    clock: Arc<dyn Clock>,
    /// Keyed at random, so that no client can choose names that collide.
    hasher: RandomState,
    features: Features,
}

/// What a [`MemFs`] holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes charged to the capacity.
    pub bytes: u64,
    /// Inodes, the root and open-unlinked ones included.
    pub inodes: u64,
    /// Open handles.
    pub handles: u64,
    /// Lookups of clients, the root's own apart.
    pub lookups: u64,
    /// Locks kept and waited for.
    pub locks: u64,
}

fn features(builder: &Builder) -> Features {
    let mut needs = Needs::XATTR
        | Needs::SETXATTR
        | Needs::LSEEK
        | Needs::FALLOCATE
        | Needs::COPY_FILE_RANGE
        | Needs::READDIRPLUS
        | Needs::RENAME2
        | Needs::TMPFILE
        | Needs::STATX;
    let mut behaviours = Behaviours::KILLPRIV_V2
        | Behaviours::PROMPT
        | Behaviours::DONT_MASK
        | Behaviours::PARALLEL_DIROPS
        | Behaviours::CACHE_SYMLINKS
        | Behaviours::ALLOW_IDMAP
        | Behaviours::EXCLUSIVE
        | Behaviours::EXCHANGE
        | Behaviours::WHITEOUT
        | Behaviours::TMPFILE
        | Behaviours::STAGING_RENAME
        | Behaviours::REFLINK
        | Behaviours::XATTR_USER
        | Behaviours::XATTR_TRUSTED
        | Behaviours::XATTR_SECURITY;
    let always = builder.cache.policy == CachePolicy::Always;
    // A client that does not open files treats them as if opened with KEEP_CACHE, and gives no
    // flock up, for RELEASE is what does.
    if always && builder.locks == Locks::Local {
        behaviours |= Behaviours::NO_OPEN;
    } else {
        needs |= Needs::OPEN;
        behaviours |= Behaviours::ATOMIC_O_TRUNC;
    }
    if always {
        behaviours |= Behaviours::NO_OPENDIR;
    } else {
        needs |= Needs::OPENDIR;
    }
    if builder.locks == Locks::Remote {
        needs |= Needs::POSIX_LOCKS | Needs::FLOCK | Needs::FLUSH;
    }
    if builder.writeback {
        behaviours |= Behaviours::WRITEBACK;
    }
    // Numbers are counted up by one: 2 to the power of 48 of them outlast any server.
    Features::new("mem").needing(needs).promising(behaviours).with_node_id_bits(48)
}

impl MemFs {
    /// A builder with the defaults: 1 GiB, everything cached, the host's clock.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_builder(
        builder: Builder,
        capacity: u64,
        max_inodes: u64,
        max_handles: u64,
    ) -> Self {
        let features = features(&builder);
        let now = builder.clock.now();
        let fs = Self {
            nodes: Numbered::new(NodeId::ROOT.0),
            handles: Handles::new(max_handles),
            account: Account::new(capacity, max_inodes),
            cache: builder.cache,
            renames: Mutex::new(()),
            locks: LockTable::default(),
            clients: Clients::default(),
            zeros: zero_page(),
            clock: builder.clock,
            hasher: RandomState::new(),
            features,
        };
        let ino = fs.nodes.number();
        let mode = 0o040_000 | (builder.root_mode & 0o7777);
        let (uid, gid) = builder.root_owner;
        let inode = Inode::new(mode, uid, gid, now, Body::Dir(Box::new(Entries::new())));
        let root = Arc::new(Node::new(ino, ino, 0, inode));
        // The builder saw that both fit: the account is empty.
        if let Ok(hold) = fs.account.hold(NODE_COST + DIR_COST, 1) {
            hold.keep();
        }
        let entered = fs.nodes.insert(ino, root);
        debug_assert!(entered.is_ok());
        fs
    }

    /// What is in use now. The parts are read one after the other, not at one moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut lookups = 0_u64;
        self.nodes.each(|node| {
            if node.ino != NodeId::ROOT.0 {
                lookups = lookups.saturating_add(node.lookups());
            }
        });
        Usage {
            bytes: self.account.used(),
            inodes: self.account.inodes(),
            handles: self.handles.len(),
            lookups,
            locks: self.locks.len(),
        }
    }

    /// The most bytes to hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.account.capacity()
    }

    pub(crate) fn now(&self) -> Timestamp {
        rank::assert_none();
        self.clock.now()
    }

    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE`: there is none.
    pub(crate) fn node(&self, id: NodeId) -> Result<NodeArc> {
        self.nodes.node(id)
    }

    pub(crate) fn hash(&self, name: Name<'_>) -> u64 {
        self.hasher.hash_one(name.as_bytes())
    }

    /// Gives back what `node` holds if nothing keeps it any more. Called, with no lock held, after
    /// each step that may have been the last: the last name, lookup or handle going.
    pub(crate) fn reap(&self, node: &Node) {
        if !node.is_idle() || node.ino == NodeId::ROOT.0 {
            return;
        }
        let body = {
            let mut inode = node.write();
            if inode.dead || inode.nlink != 0 || !node.is_idle() {
                return;
            }
            self.account.give_back_inode(inode.cost());
            inode.dead = true;
            inode.linkable = false;
            let xattrs = std::mem::take(&mut inode.xattrs);
            (std::mem::replace(&mut inode.body, Body::None), xattrs)
        };
        self.nodes.remove_if(node.ino, |_| true);
        self.locks.forget_node(node.ino);
        drop(body);
    }
}

impl Drop for MemFs {
    /// Takes the tree apart flat: dropping it from the root would recurse as deep as it is.
    fn drop(&mut self) {
        self.nodes.each_mut(|node| {
            if let Ok(entries) = node.write().dir_mut() {
                entries.clear();
            }
        });
    }
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFs")
            .field("capacity", &self.account.capacity())
            .field("used", &self.account.used())
            .field("inodes", &self.account.inodes())
            .finish_non_exhaustive()
    }
}

impl DynFileSystem for MemFs {
    fn features(&self) -> Features {
        self.features
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.locks.forget_session(cx.session);
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.attach_notifier(notifier);
    }

    fn lookup(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.find(parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.let_go(node, count);
    }

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        self.attributes(node)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        self.set_attributes(cx, node, set)
    }

    fn readlink(&self, _: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        self.target(node, target)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        self.make_symlink(cx, parent, name, target)
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.make_node(cx, parent, name, mode, rdev)
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.make_dir(cx, parent, name, mode)
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_name(cx, parent, name)
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_dir(cx, parent, name)
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
        self.move_name(cx, (parent, name), (new_parent, new_name), flags)
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        self.add_name(cx, node, new_parent, new_name)
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
        self.create_file(cx, parent, name, mode, flags, kill_priv)
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        self.make_tmpfile(cx, parent, mode, flags)
    }

    fn read(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        self.read_file(node, handle, offset, size, sink)
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

    fn fsync(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: bool) -> Result<()> {
        self.opened(node, handle, Want::Any).map(drop)
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
        self.allocate(cx, node, handle, mode, offset, len)
    }

    fn lseek(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        self.seek(node, handle, offset, to)
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
        _: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(node, cookie, sink)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        node: NodeId,
        _: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list_plus(node, cookie, sink)
    }

    fn fsyncdir(&self, _: &Context<'_>, node: NodeId, _: HandleId, _: bool) -> Result<()> {
        self.node(node).map(drop)
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        self.xattr_get(node, name, value)
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
        self.xattr_set(cx, node, name, value, mode, clear_setgid)
    }

    fn listxattr(&self, _: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        self.xattr_list(node, names)
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.xattr_remove(cx, node, name)
    }

    fn statfs(&self, _: &Context<'_>, node: NodeId) -> Result<StatFs> {
        self.statistics(node)
    }

    fn syncfs(&self, _: &Context<'_>, node: NodeId) -> Result<()> {
        self.node(node).map(drop)
    }

    fn getlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        self.lock_test(cx, node, handle, owner, lock)
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
        self.lock_set(cx, node, handle, owner, lock, flavour)
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
        self.lock_wait(cx, node, handle, owner, lock, flavour, reply)
    }
}
