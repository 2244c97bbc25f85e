//! What the unit tests share: a filesystem on a clock that they move, and short words for calls.

use std::sync::Arc;

use stratafs_core::{
    Added, Attr, Context, Credentials, DirEntry, DirSink, DynFileSystem, Entry, HandleId, Name,
    NodeId, OpenFlags, Opened, Release, RenameFlags, Result, SliceSink, SliceSource, Timestamp,
    WriteFlags,
};

use crate::{Builder, ManualClock, MemFs, SizeExt, Usage};

/// A filesystem under test.
pub(crate) struct Fixture {
    pub(crate) fs: MemFs,
    pub(crate) clock: Arc<ManualClock>,
}

/// The moment at which every fixture starts, in seconds.
pub(crate) const START: i64 = 1000;

pub(crate) const ROOT: NodeId = NodeId::ROOT;

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// Root, without a umask.
pub(crate) fn root() -> Context<'static> {
    Context::new(1, Some(Credentials::new(0, 0)))
}

/// Another user, without a umask.
pub(crate) fn user(uid: u32) -> Context<'static> {
    Context::new(1, Some(Credentials::new(uid, uid)))
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder.capacity(16.mib()))
    }

    pub(crate) fn with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::new(START, 0)));
        let fs = options(MemFs::builder().clock(clock.clone())).build().unwrap();
        Self { fs, clock }
    }

    /// One second later.
    pub(crate) fn tick(&self) -> Timestamp {
        self.clock.advance(1);
        crate::Clock::now(&*self.clock)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.fs.usage()
    }

    pub(crate) fn attr(&self, node: NodeId) -> Attr {
        self.fs.getattr(&root(), node, None).unwrap().attr
    }

    pub(crate) fn find(&self, parent: NodeId, text: &str) -> Result<Entry> {
        self.fs.lookup(&root(), parent, name(text))?.found()
    }

    pub(crate) fn mkdir(&self, parent: NodeId, text: &str) -> NodeId {
        self.fs.mkdir(&root(), parent, name(text), 0o755).unwrap().node
    }

    /// An empty file.
    pub(crate) fn file(&self, parent: NodeId, text: &str) -> NodeId {
        self.fs.mknod(&root(), parent, name(text), 0o100_644, 0).unwrap().node
    }

    pub(crate) fn open(&self, node: NodeId, flags: OpenFlags) -> HandleId {
        self.fs.open(&root(), node, flags, false).unwrap().handle
    }

    pub(crate) fn create(
        &self,
        text: &str,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        self.fs.create(&root(), ROOT, name(text), mode, flags, false)
    }

    pub(crate) fn close(&self, node: NodeId, handle: HandleId) -> Result<()> {
        self.fs.release(&root(), node, handle, Release::default())
    }

    pub(crate) fn unlink(&self, parent: NodeId, text: &str) -> Result<()> {
        self.fs.unlink(&root(), parent, name(text))
    }

    pub(crate) fn rmdir(&self, parent: NodeId, text: &str) -> Result<()> {
        self.fs.rmdir(&root(), parent, name(text))
    }

    pub(crate) fn rename(
        &self,
        (parent, text): (NodeId, &str),
        (new_parent, new_text): (NodeId, &str),
        flags: RenameFlags,
    ) -> Result<()> {
        self.fs.rename(&root(), parent, name(text), new_parent, name(new_text), flags)
    }

    pub(crate) fn write(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_by(node, HandleId::NONE, offset, data, WriteFlags::empty())
    }

    pub(crate) fn write_by(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> Result<usize> {
        let mut source = SliceSource::new(data);
        self.fs.write(&root(), node, handle, offset, data.len(), flags, &mut source)
    }

    pub(crate) fn read(&self, node: NodeId, offset: u64, size: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0xee; size];
        let mut sink = SliceSink::new(&mut buf);
        let n = self.fs.read(&root(), node, HandleId::NONE, offset, size, &mut sink)?;
        assert_eq!(n, sink.filled());
        buf.truncate(n);
        Ok(buf)
    }

    /// The names in a directory after `cookie`, at most `max`, and the cookie of the last.
    pub(crate) fn list(&self, node: NodeId, cookie: u64, max: usize) -> (Vec<String>, u64) {
        let mut sink = Names { cookie, max, ..Names::default() };
        self.fs.readdir(&root(), node, HandleId::NONE, cookie, &mut sink).unwrap();
        (sink.names, sink.cookie)
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.fs.forget(node, u64::MAX);
    }
}

/// A sink that keeps names, and takes so many.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) names: Vec<String>,
    pub(crate) entries: Vec<Option<Entry>>,
    pub(crate) cookie: u64,
    pub(crate) max: usize,
}

impl DirSink for Names {
    fn fits(&self, _: usize) -> bool {
        self.names.len() < self.max
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if self.names.len() >= self.max {
            return Added::Full;
        }
        assert!(entry.cookie > self.cookie, "cookies ascend");
        self.cookie = entry.cookie;
        self.names.push(String::from_utf8_lossy(entry.name).into_owned());
        self.entries.push(plus.cloned());
        Added::Taken
    }
}
