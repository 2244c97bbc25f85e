//! Layers, and what is asked of them in the overlay's own name.

use std::sync::Arc;

use stratafs_core::{
    Added, Attr, Context, DirEntry, DirSink, DynFileSystem, Entry, Errno, FileType, Generation,
    HandleId, HandleRef, Lookup, Name, NameBuf, NodeId, NodeRef, OpenFlags, Result, XattrMode,
    XattrName,
};

/// A layer: a filesystem, and the directory in it that is the layer's root.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(crate) root: Arc<NodeRef>,
}

impl Layer {
    /// The whole of `fs`.
    #[must_use]
    pub fn new(fs: Arc<dyn DynFileSystem>) -> Self {
        Self { root: Arc::new(NodeRef::root(fs)) }
    }

    /// What is below the directory `node` of `fs`. Takes over one lookup of it, if it has any.
    #[must_use]
    pub fn at(fs: Arc<dyn DynFileSystem>, node: NodeId) -> Self {
        let entry = Entry::new(node, Attr::new(0, FileType::Directory.mode_bits()));
        Self { root: Arc::new(NodeRef::adopt(fs, &entry)) }
    }

    /// The filesystem.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn DynFileSystem> {
        self.root.fs()
    }

    /// The root's node in it.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.root.node()
    }
}

impl From<Arc<dyn DynFileSystem>> for Layer {
    fn from(fs: Arc<dyn DynFileSystem>) -> Self {
        Self::new(fs)
    }
}

impl<F: DynFileSystem + 'static> From<Arc<F>> for Layer {
    fn from(fs: Arc<F>) -> Self {
        Self::new(fs)
    }
}

/// The number of the writable layer. Read-only ones are counted from 1, the topmost first, whether
/// there is a writable one or not.
pub(crate) const UPPER: usize = 0;

/// An object of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Real {
    /// The layer's number.
    pub(crate) layer: usize,
    pub(crate) node: Arc<NodeRef>,
    pub(crate) generation: Generation,
    /// A directory that may hold whiteouts that are files.
    pub(crate) file_whiteouts: bool,
}

impl Real {
    pub(crate) fn new(layer: usize, node: NodeRef) -> Self {
        Self::shared(layer, Arc::new(node))
    }

    /// The object `node`, which others hold too.
    pub(crate) fn shared(layer: usize, node: Arc<NodeRef>) -> Self {
        Self { layer, node, generation: Generation(0), file_whiteouts: false }
    }

    /// The object of `fs` that a request answered, with its lookup.
    pub(crate) fn adopt(layer: usize, fs: &Arc<dyn DynFileSystem>, entry: &Entry) -> Self {
        let node = NodeRef::adopt(Arc::clone(fs), entry);
        Self { generation: entry.generation, ..Self::new(layer, node) }
    }

    pub(crate) fn fs(&self) -> &Arc<dyn DynFileSystem> {
        self.node.fs()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.node()
    }

    pub(crate) fn is_upper(&self) -> bool {
        self.layer == UPPER
    }

    /// The child `name`, with its lookup.
    pub(crate) fn child(&self, name: Name<'_>) -> Result<Option<(Self, Attr)>> {
        let cx = Context::internal();
        Ok(match self.fs().lookup(&cx, self.id(), name)? {
            Lookup::Found(entry) => Some((Self::adopt(self.layer, self.fs(), &entry), entry.attr)),
            Lookup::Absent(_) => None,
        })
    }

    pub(crate) fn attr(&self) -> Result<Attr> {
        Ok(self.fs().getattr(&Context::internal(), self.id(), None)?.attr)
    }

    /// The value of the attribute `name`.
    pub(crate) fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let cx = Context::internal();
        stratafs_transfer::value(&cx, &**self.fs(), self.id(), XattrName::new(name)?)
    }

    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        let (cx, name) = (Context::internal(), XattrName::new(name)?);
        self.fs().setxattr(&cx, self.id(), name, value, XattrMode::Set, false)
    }

    /// Sets the attribute `name` and removes it.
    pub(crate) fn try_xattr(&self, name: &[u8]) -> Result<()> {
        self.set_xattr(name, b"0")?;
        self.fs().removexattr(&Context::internal(), self.id(), XattrName::new(name)?)
    }

    /// Everything that the directory holds but `.` and `..`.
    pub(crate) fn list(&self) -> Result<Vec<Item>> {
        let cx = Context::internal();
        let opened = self.fs().opendir(&cx, self.id(), OpenFlags::READ_ONLY)?;
        let handle = HandleRef::dir(Arc::clone(self.fs()), self.id(), opened.handle);
        let mut all = Collector { items: Vec::new(), cookie: 0, offered: 0 };
        loop {
            let before = all.offered;
            let at = all.cookie;
            self.fs().readdir(&cx, self.id(), handle.handle(), at, &mut all)?;
            if all.offered == before {
                return Ok(all.items);
            }
        }
    }

    /// The name that leads to a directory's child, removed whatever it is; whatever is in it too.
    pub(crate) fn remove_tree(&self, name: Name<'_>, is_dir: bool) -> Result<()> {
        self.remove_levels(name, is_dir, DEEPEST)
    }

    fn remove_levels(&self, name: Name<'_>, is_dir: bool, levels: usize) -> Result<()> {
        let cx = Context::internal();
        if !is_dir {
            return self.fs().unlink(&cx, self.id(), name);
        }
        let levels = levels.checked_sub(1).ok_or(Errno::ELOOP)?;
        if let Some((dir, _)) = self.child(name)? {
            for item in dir.list()? {
                let is_dir = match item.kind {
                    Some(kind) => kind == FileType::Directory,
                    None => match dir.child(item.name.as_name())? {
                        Some((_, attr)) => attr.is_dir(),
                        None => continue,
                    },
                };
                dir.remove_levels(item.name.as_name(), is_dir, levels)?;
            }
        }
        self.fs().rmdir(&cx, self.id(), name)
    }

    /// Opens and closes a directory around `then`.
    pub(crate) fn with_dir_handle<T>(
        &self,
        cx: &Context<'_>,
        then: impl FnOnce(HandleId) -> Result<T>,
    ) -> Result<T> {
        let opened = self.fs().opendir(cx, self.id(), OpenFlags::READ_ONLY)?;
        let handle = HandleRef::dir(Arc::clone(self.fs()), self.id(), opened.handle);
        then(handle.handle())
    }
}

/// How deep a tree in the staging directory may be. What the overlay leaves there is two levels; a
/// crafted one must not use up the stack.
const DEEPEST: usize = 200;

/// An entry of a layer's directory.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) name: NameBuf,
    pub(crate) ino: u64,
    pub(crate) kind: Option<FileType>,
}

struct Collector {
    items: Vec<Item>,
    cookie: u64,
    offered: usize,
}

impl DirSink for Collector {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
        self.offered += 1;
        self.cookie = entry.cookie;
        if let Some(name) = entry.entry_name() {
            self.items.push(Item { name: name.to_owned(), ino: entry.ino, kind: entry.kind });
        }
        Added::Taken
    }
}
