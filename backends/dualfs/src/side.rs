//! Objects of the two sides, and what is asked of them in this filesystem's own name.

use std::sync::Arc;

use stratafs_core::{
    Added, Attr, Context, DirEntry, DirSink, DynFileSystem, Entry, Errno, FileType, Generation,
    HandleId, HandleRef, Lookup, Name, NameBuf, NodeId, NodeRef, OpenFlags, Result, XattrMode,
    XattrName,
};

use crate::policy::Side;
use crate::record::LONGEST;

/// An object of one side, that others may hold too.
#[derive(Clone, Debug)]
pub(crate) struct Real {
    pub(crate) side: Side,
    node: Arc<NodeRef>,
}

/// An object of one side, as a lookup found it, with that lookup. It owns no memory.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) side: Side,
    pub(crate) node: NodeRef,
    pub(crate) attr: Attr,
    pub(crate) generation: Generation,
}

impl Part {
    /// The object of `fs` that a request answered.
    pub(crate) fn adopt(side: Side, fs: &Arc<dyn DynFileSystem>, entry: Entry) -> Self {
        let node = NodeRef::adopt(Arc::clone(fs), &entry);
        Self { side, node, attr: entry.attr, generation: entry.generation }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.attr.is_dir()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.node()
    }

    /// For longer than a request.
    pub(crate) fn kept(self) -> Real {
        Real { side: self.side, node: Arc::new(self.node) }
    }
}

impl Real {
    pub(crate) fn root(side: Side, fs: &Arc<dyn DynFileSystem>) -> Self {
        Self { side, node: Arc::new(NodeRef::root(Arc::clone(fs))) }
    }

    pub(crate) fn new(side: Side, node: NodeRef) -> Self {
        Self { side, node: Arc::new(node) }
    }

    pub(crate) fn fs(&self) -> &Arc<dyn DynFileSystem> {
        self.node.fs()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.node()
    }

    /// The child `name`, with its lookup.
    pub(crate) fn child(&self, name: Name<'_>) -> Result<Option<Part>> {
        Ok(match self.fs().lookup(&Context::internal(), self.id(), name)? {
            Lookup::Found(entry) => Some(Part::adopt(self.side, self.fs(), entry)),
            Lookup::Absent(_) => None,
        })
    }

    pub(crate) fn attr(&self) -> Result<Attr> {
        Ok(self.fs().getattr(&Context::internal(), self.id(), None)?.attr)
    }

    /// What `with` makes of the record `name`.
    pub(crate) fn record<T>(
        &self,
        name: &[u8],
        with: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        record(self.fs(), self.id(), name, with)
    }

    pub(crate) fn has_record(&self, name: &[u8]) -> Result<bool> {
        Ok(self.record(name, |_| Some(()))?.is_some())
    }

    pub(crate) fn set_record(&self, name: &[u8], value: &[u8]) -> Result<()> {
        let (cx, name) = (Context::internal(), XattrName::new(name)?);
        self.fs().setxattr(&cx, self.id(), name, value, XattrMode::Set, false)
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

    /// Removes what `name` in the directory leads to, and whatever is in it.
    pub(crate) fn remove_tree(&self, name: Name<'_>, is_dir: bool) -> Result<()> {
        self.remove_levels(name, is_dir, DEEPEST)
    }

    fn remove_levels(&self, name: Name<'_>, is_dir: bool, levels: usize) -> Result<()> {
        let cx = Context::internal();
        if !is_dir {
            return self.fs().unlink(&cx, self.id(), name);
        }
        let levels = levels.checked_sub(1).ok_or(Errno::ELOOP)?;
        if let Some(dir) = self.child(name)? {
            let dir = dir.kept();
            for item in dir.list()? {
                let is_dir = match item.kind {
                    Some(kind) => kind == FileType::Directory,
                    None => match dir.child(item.name.as_name())? {
                        Some(part) => part.is_dir(),
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

/// How deep a tree in the staging directory may be: a crafted one must not use up the stack.
const DEEPEST: usize = 200;

/// What `with` makes of the record `name` of an object. A value that is longer than any record is none.
pub(crate) fn record<T>(
    fs: &Arc<dyn DynFileSystem>,
    node: NodeId,
    name: &[u8],
    with: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>> {
    let mut value = [0; LONGEST];
    match fs.getxattr(&Context::internal(), node, XattrName::new(name)?, &mut value) {
        Ok(len) => Ok(value.get(..len).and_then(with)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ERANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// An entry of a side's directory.
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
