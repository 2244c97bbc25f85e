//! The short way to write a filesystem: what an object *is*, and nothing of how it is served.
//!
//! An author implements [`SimpleFs`] on a type of their own; [`Simple`] makes a
//! [`DynFileSystem`](crate::DynFileSystem) of it, and owns node ids, lookup counts, handles, listing
//! cookies and timeouts. `examples/hello.rs` of the workspace is a whole filesystem in fewer than
//! sixty lines.
//!
//! | room | what it holds |
//! |---|---|
//! | `nodes` | the ids and lookup counts of the objects that a client knows |
//! | `handles` | what is open, and within which limit |
//! | `listing` | the order and the cookies of a directory's entries |
//! | `clip` | sinks and sources of a bounded size |
//! | `fs` | the trait's methods |
//!
//! Locks: `nodes` and `handles` hold one each, a directory handle a third for its listing. All are
//! leaves, and none is held while the author's code runs, but for `Eq` and `Hash` of its `File`.

mod clip;
mod fs;
mod handles;
mod listing;
mod nodes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    Attr, Cache, Entry, Errno, FileType, Name, NameBuf, NodeId, Notifiers, ReadSink, RenameFlags,
    Result, SetAttr, WriteSource,
};
use handles::Handles;
use nodes::Nodes;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    /// From this byte on; a gap before it reads as zeros.
    Offset(u64),
    /// At the end, wherever that is by then (O_APPEND).
    End,
}

/// What [`SimpleFs::create`] is to make.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewObject<'a> {
    /// Its type.
    pub kind: FileType,
    /// Its permission bits (07777). The umask was applied, and a setgid directory's rule.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group: in a setgid directory that of the directory.
    pub gid: u32,
    /// The number of a device, in the kernel's 32-bit encoding.
    pub rdev: u32,
    /// The target of a symlink: 1 to 4095 bytes without NUL. Empty for all else.
    pub target: &'a [u8],
}

/// A filesystem as its author sees it: objects, not requests.
///
/// `File` says which object: an inode number, an enum, an `Arc` of the thing itself. Two that are
/// equal are one object, which a client sees under one node id; of a removed file as long as it
/// holds it open, so a `File` must lead to its object after the last name is gone (an `Arc` does by
/// itself) and must not be given to another one before it is dropped. A path is no good `File`
/// where anything is ever renamed or removed.
///
/// `root`, `attr`, `child`, `list` and `read` make a filesystem that can be read. Each further
/// method adds what its name says; until then that is refused with `EROFS`.
///
/// # Errors
/// Any [`Errno`] but `ENOSYS`. Those that the methods list are the ones that clients expect. The
/// type of what they are called for is checked before: `dir` is always a directory, and so on.
///
/// # Concurrency
/// Every method may be called from any number of threads at a time. A change of the namespace must
/// be atomic against the others.
///
/// # Durability
/// What `write` and the other changes answered is as durable as it will get, unless
/// [`sync`](Self::sync) is there to make it so.
pub trait SimpleFs: Send + Sync + 'static {
    /// Which object; cheap to clone. Its `Eq` and `Hash` must not call into the filesystem.
    type File: Clone + Eq + Hash + Send + Sync + 'static;

    /// The root directory. Asked once.
    fn root(&self) -> Self::File;

    /// The attributes of `file`. Its type never changes. An `ino` of 0 is replaced by one computed
    /// from `file`; the root's is always 1.
    ///
    /// # Errors
    /// * `ENOENT`: it is gone for good, and cannot be read any more.
    fn attr(&self, file: &Self::File) -> Result<Attr>;

    /// The object `name` in `dir`.
    ///
    /// # Errors
    /// * `ENOENT`: the name is absent.
    fn child(&self, dir: &Self::File, name: Name<'_>) -> Result<Self::File>;

    /// The names in `dir`, in any order, without `.` and `..`.
    ///
    /// # Errors
    /// Any; of what is listed only names that [`child`](Self::child) finds are shown.
    fn list(&self, dir: &Self::File) -> Result<Vec<NameBuf>>;

    /// Puts what `file` holds from `offset` into `sink`, as much as it takes, and says how much:
    /// less only at the end of the file.
    ///
    /// # Errors
    /// Those of the sink, above all.
    fn read(&self, file: &Self::File, offset: u64, sink: &mut dyn ReadSink) -> Result<usize>;

    /// Puts the target of the symlink `link` into `target`, and says how many bytes that are.
    ///
    /// # Errors
    /// * `EINVAL`: it has none, as the default answers.
    fn readlink(&self, link: &Self::File, target: &mut dyn ReadSink) -> Result<usize> {
        let _ = (link, target);
        Err(Errno::EINVAL)
    }

    /// Writes all that `source` gives into `file`, and says how much that was.
    ///
    /// An open for writing asks first, with a source that is empty: the answer is then `Ok(0)`, or
    /// why the file cannot be written to.
    ///
    /// # Errors
    /// * `ENOSPC`, `EDQUOT`: not one byte fits. `EFBIG`: beyond what a file can hold.
    /// * `EROFS`: files cannot be written to, as the default answers.
    fn write(&self, file: &Self::File, at: WriteAt, source: &mut dyn WriteSource) -> Result<usize> {
        let _ = (file, at, source);
        Err(Errno::EROFS)
    }

    /// Makes the object `new` under `name` in `dir`.
    ///
    /// # Errors
    /// * `EEXIST`: the name exists. `ENOENT`: `dir` was removed. `ENOSPC`: no room.
    /// * `EPERM`: objects of this type cannot be made.
    fn create(&self, dir: &Self::File, name: Name<'_>, new: &NewObject<'_>) -> Result<Self::File> {
        let _ = (dir, name, new);
        Err(Errno::EROFS)
    }

    /// Removes `name` from `dir`. Whether it leads to a directory was checked before, as unlink(2)
    /// and rmdir(2) want it.
    ///
    /// # Errors
    /// * `ENOENT`: the name is absent. `ENOTEMPTY`: it leads to a directory that is not empty.
    fn remove(&self, dir: &Self::File, name: Name<'_>) -> Result<()> {
        let _ = (dir, name);
        Err(Errno::EROFS)
    }

    /// Moves `name` in `dir` to `new_name` in `new_dir`, in one step, replacing what is there. Of
    /// `flags` only NOREPLACE can be set. That both names exist as the flags want it, that they are
    /// not one object, and that a directory replaces only a directory was checked before.
    ///
    /// # Errors
    /// * `ENOTEMPTY`: a directory that is not empty would be replaced.
    /// * `EEXIST`: the new name exists by now, with NOREPLACE.
    /// * `EINVAL`: a directory would become its own descendant.
    fn rename(
        &self,
        dir: &Self::File,
        name: Name<'_>,
        new_dir: &Self::File,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (dir, name, new_dir, new_name, flags);
        Err(Errno::EROFS)
    }

    /// Changes the attributes of `file` that are set in `set`, all or none. A size is set for
    /// regular files only. The bits to be cleared by a chown, a truncate or
    /// `kill_priv` are in `mode` already.
    ///
    /// # Errors
    /// * `EFBIG`: a size beyond what a file can hold. `EPERM`: what is asked cannot be kept.
    fn set_attr(&self, file: &Self::File, set: &SetAttr) -> Result<()> {
        let _ = (file, set);
        Err(Errno::EROFS)
    }

    /// Makes `file` durable; of a directory its entries. The default has nothing to do, which is
    /// right where every change is as durable as it will get once it was answered.
    ///
    /// # Errors
    /// * `EIO`: some of it is lost.
    fn sync(&self, file: &Self::File) -> Result<()> {
        let _ = file;
        Ok(())
    }
}

/// A [`DynFileSystem`](crate::DynFileSystem) made of a [`SimpleFs`].
///
/// Hard links, unnamed files, extended attributes and locks are not offered.
pub struct Simple<T: SimpleFs> {
    kind: &'static str,
    backend: T,
    cache: Cache,
    nodes: Nodes<T::File>,
    handles: Handles,
    notifiers: Notifiers,
}

impl<T: SimpleFs> Simple<T> {
    /// The filesystem `backend`, of `kind`: a short word, which a mount shows as `stratafs:KIND`.
    /// It is cached as [`CachePolicy::Auto`](crate::CachePolicy::Auto) says.
    #[must_use]
    pub fn new(kind: &'static str, backend: T) -> Self {
        let nodes = Nodes::new(backend.root());
        Self {
            kind,
            backend,
            cache: Cache::default(),
            nodes,
            handles: Handles::new(),
            notifiers: Notifiers::new(),
        }
    }

    /// The same, cached as `cache` says.
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<Cache>) -> Self {
        self.cache = cache.into();
        self
    }

    /// The same, with at most `limit` files and directories open at a time: 65,536 unless set, and
    /// `ENFILE` beyond.
    #[must_use]
    pub fn with_max_handles(mut self, limit: usize) -> Self {
        self.handles.set_limit(limit);
        self
    }

    /// The author's filesystem.
    #[must_use]
    pub fn backend(&self) -> &T {
        &self.backend
    }

    /// How many objects clients know, the root aside: those that are looked up or open.
    #[must_use]
    pub fn known_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many files and directories are open.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.handles.len()
    }

    /// Tells clients that data or attributes of `file` changed otherwise than through them.
    pub fn invalidate(&self, file: &T::File) {
        if let Some(node) = self.nodes.id(file) {
            self.notifiers.each(|notifier| notifier.inval_inode(node, 0, 0));
        }
    }

    /// Tells clients that `name` in `dir` came, went or leads elsewhere, otherwise than through
    /// them.
    pub fn invalidate_entry(&self, dir: &T::File, name: Name<'_>) {
        if let Some(node) = self.nodes.id(dir) {
            self.notifiers.each(|notifier| notifier.inval_entry(node, name));
        }
    }

    /// The attributes of `file`, its inode number filled in.
    fn attr_of(&self, file: &T::File) -> Result<Attr> {
        let mut attr = self.backend.attr(file)?;
        if self.nodes.is_root(file) {
            attr.ino = NodeId::ROOT.0;
        } else if attr.ino == 0 {
            attr.ino = number(file);
        }
        Ok(attr)
    }

    /// An entry for `file`, whose lookup count it raises by one.
    fn enter(&self, file: T::File, attr: Attr, parent_ino: u64) -> Result<Entry> {
        let node = self.nodes.look_up(file, &attr, parent_ino)?;
        Ok(Entry::new(node, attr).with_timeouts(self.cache.entry_timeout, self.cache.attr_timeout))
    }
}

/// An inode number for `file` that is the same whenever it is asked for, known or forgotten. Two
/// files in four billion have the same by even chance; nothing here depends on that they do not.
fn number(file: &impl Hash) -> u64 {
    // Keyed alike in every run, so that a replayed session sees what the recorded one saw.
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    hasher.finish().max(NodeId::ROOT.0 + 1)
}

impl<T: SimpleFs> fmt::Debug for Simple<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simple")
            .field("kind", &self.kind)
            .field("cache", &self.cache)
            .field("known_nodes", &self.known_nodes())
            .field("open_handles", &self.open_handles())
            .finish_non_exhaustive()
    }
}
