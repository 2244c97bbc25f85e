//! A filesystem that notes what it is asked, and a client that asks everything.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::*;

/// Notes each call with its operands, and answers something that can be told apart.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) calls: Mutex<Vec<(&'static str, String)>>,
    /// What the waiting lock's answer goes through, where it is held back.
    pub(crate) parked: Mutex<Option<Reply<()>>>,
    pub(crate) park: bool,
    pub(crate) backing: Option<BackingFile>,
}

impl Fake {
    /// One with a host file behind every node.
    pub(crate) fn lending() -> Self {
        let fd = std::fs::File::open("/dev/null").expect("it is everywhere").into();
        Self { backing: Some(BackingFile::new(Arc::new(fd))), ..Self::default() }
    }

    /// The calls so far, with their operands.
    pub(crate) fn calls(&self) -> Vec<(&'static str, String)> {
        self.calls.lock().clone()
    }

    /// The methods called so far.
    pub(crate) fn methods(&self) -> Vec<&'static str> {
        self.calls.lock().iter().map(|(method, _)| *method).collect()
    }

    fn note(&self, method: &'static str, operands: impl Debug) {
        self.calls.lock().push((method, format!("{operands:?}")));
    }

    fn opened(&self, handle: u64) -> Opened {
        Opened::new(HandleId(handle), OpenedFlags::KEEP_CACHE).with_backing(self.backing.clone())
    }
}

fn entry(node: u64) -> Entry {
    Entry::new(NodeId(node), Attr::new(node, 0o100_644)).with_generation(Generation(9))
}

fn timed(ino: u64) -> TimedAttr {
    TimedAttr::new(Attr::new(ino, 0o100_600), Duration::from_secs(ino))
}

fn list(sink: &mut dyn DirSink, plus: bool) {
    for (cookie, name) in [(11, b"first"), (12, b"other")] {
        let found = entry(80 + cookie);
        let name = Name::new(name).unwrap();
        let listed = DirEntry::new(80 + cookie, FileType::Regular, name, cookie);
        if sink.add(&listed, plus.then_some(&found)) == Added::Full {
            return;
        }
    }
}

impl DynFileSystem for Fake {
    fn features(&self) -> Features {
        self.note("features", ());
        Features::new("fake")
            .needing(Needs::FLUSH | Needs::SETXATTR)
            .promising(Behaviours::PASSTHROUGH | Behaviours::EXCHANGE | Behaviours::TMPFILE)
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        self.note("init", negotiated);
        Err(Errno::EPROTO)
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.note("destroy", cx);
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.note("attach", notifier.reaches_kernel());
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.note("lookup", (cx, parent, name));
        Ok(Lookup::Found(entry(60)))
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.note("forget", (node, count));
    }

    fn batch_forget(&self, nodes: &[(NodeId, u64)]) {
        self.note("batch_forget", nodes);
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        self.note("getattr", (cx, node, handle));
        Ok(timed(61))
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        self.note("setattr", (cx, node, set));
        Ok(timed(62))
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        self.note("readlink", (cx, node, target.remaining()));
        target.write_slice(b"target")
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        self.note("symlink", (cx, parent, name, target));
        Ok(entry(63))
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.note("mknod", (cx, parent, name, mode, rdev));
        Ok(entry(64))
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.note("mkdir", (cx, parent, name, mode));
        Ok(entry(65))
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.note("unlink", (cx, parent, name));
        Ok(())
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.note("rmdir", (cx, parent, name));
        Err(Errno::ENOTEMPTY)
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
        self.note("rename", (cx, parent, name, new_parent, new_name, flags));
        Ok(())
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        self.note("link", (cx, node, new_parent, new_name));
        Ok(entry(66))
    }

    fn open(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        self.note("open", (cx, node, flags, kill_priv));
        Ok(self.opened(71))
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
        self.note("create", (cx, parent, name, mode, flags, kill_priv));
        Ok((entry(67), self.opened(72)))
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        self.note("tmpfile", (cx, parent, mode, flags));
        Ok((entry(68), self.opened(73)))
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
        self.note("read", (cx, node, handle, offset, size, sink.remaining()));
        sink.write_slice(&b"data"[..size.min(4)])
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
        self.note("write", (cx, node, handle, offset, size, flags, source.remaining()));
        source.read_slice(&mut [0; 16][..size.min(16)])
    }

    fn flush(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        self.note("flush", (cx, node, handle, owner));
        Err(Errno::EDQUOT)
    }

    fn fsync(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        self.note("fsync", (cx, node, handle, datasync));
        Err(Errno::EIO)
    }

    fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        self.note("release", (cx, node, handle, release));
        Ok(())
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
        self.note("fallocate", (cx, node, handle, mode, offset, len));
        Ok(())
    }

    fn lseek(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        self.note("lseek", (cx, node, handle, offset, to));
        Ok(4096)
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        self.note("copy_file_range", (cx, from, to, len));
        Ok(usize::try_from(len).unwrap())
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, flags: OpenFlags) -> Result<Opened> {
        self.note("opendir", (cx, node, flags));
        Ok(self.opened(74))
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.note("readdir", (cx, node, handle, cookie, sink.fits(3)));
        list(sink, false);
        Ok(())
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.note("readdirplus", (cx, node, handle, cookie, sink.fits(200)));
        list(sink, true);
        Ok(())
    }

    fn fsyncdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        self.note("fsyncdir", (cx, node, handle, datasync));
        Ok(())
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        self.note("releasedir", (cx, node, handle));
        Ok(())
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        self.note("getxattr", (cx, node, name, value.len()));
        value.fill(7);
        Ok(value.len())
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
        self.note("setxattr", (cx, node, name, value, mode, clear_setgid));
        Ok(())
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        self.note("listxattr", (cx, node, names.len()));
        names.fill(8);
        Ok(names.len())
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.note("removexattr", (cx, node, name));
        Err(Errno::ENODATA)
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, mask: u32) -> Result<()> {
        self.note("access", (cx, node, mask));
        Err(Errno::EACCES)
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<StatFs> {
        self.note("statfs", (cx, node));
        Ok(StatFs { files: 69, ..StatFs::default() })
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        self.note("syncfs", (cx, node));
        Ok(())
    }

    fn getlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        self.note("getlk", (cx, node, handle, owner, lock));
        Ok(FileLock { pid: 70, ..lock })
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
        self.note("setlk", (cx, node, handle, owner, lock, flavour));
        Err(Errno::EAGAIN)
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
        self.note("setlkw", (cx, node, handle, owner, lock, flavour));
        if self.park {
            *self.parked.lock() = Some(reply);
        } else {
            reply.send(Err(Errno::EDEADLK));
        }
        None
    }

    fn inode_flags(&self, cx: &Context<'_>, node: NodeId) -> Result<u32> {
        self.note("inode_flags", (cx, node));
        Ok(0x10)
    }

    fn set_inode_flags(&self, cx: &Context<'_>, node: NodeId, flags: u32) -> Result<()> {
        self.note("set_inode_flags", (cx, node, flags));
        Ok(())
    }

    fn mapping_source(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        self.note("mapping_source", (node, access));
        self.backing.clone()
    }

    fn persistent_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        self.note("persistent_id", node);
        Ok(Some(PersistentId::new([3; 16], vec![4])))
    }

    fn capture_state(&self) -> Result<State> {
        self.note("capture_state", ());
        Ok(State::new("fake", 2, vec![5]))
    }

    fn restore_state(&self, state: &State) -> Result<()> {
        self.note("restore_state", state);
        Err(Errno::EINVAL)
    }
}

/// A notifier that goes nowhere.
struct Deaf;

impl Notifier for Deaf {
    fn inval_inode(&self, _: NodeId, _: i64, _: i64) {}
    fn inval_entry(&self, _: NodeId, _: Name<'_>) {}
    fn delete(&self, _: NodeId, _: NodeId, _: Name<'_>) {}
    fn inval_all_entries(&self) {}
    fn reaches_kernel(&self) -> bool {
        false
    }
    fn is_closed(&self) -> bool {
        false
    }
}

/// A sink that takes so many entries.
#[derive(Debug)]
pub(crate) struct Room(pub(crate) usize, pub(crate) Vec<String>);

impl DirSink for Room {
    fn fits(&self, name_len: usize) -> bool {
        name_len < 100
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if self.1.len() == self.0 {
            return Added::Full;
        }
        self.1.push(format!("{entry:?} {plus:?}"));
        Added::Taken
    }
}

/// Calls every method of `fs` but `features`, each operand unlike the others, and gives the answer
/// of each that has one, with all that came through sinks and buffers.
pub(crate) fn every_method(fs: &dyn DynFileSystem) -> Vec<(&'static str, String)> {
    fn show(method: &'static str, answer: impl Debug) -> (&'static str, String) {
        (method, format!("{answer:?}"))
    }

    let label = XattrName::new(b"security.selinux").unwrap();
    let security = SecurityContext::new(label, b"label");
    let cx = &Context::new(1001, Some(Credentials::new(1002, 1003)))
        .with_umask(0o027)
        .with_supplementary_group(Some(1004))
        .with_session(Some(SessionId(1005)))
        .with_security(Some(security));
    let (parent, other) = (NodeId(21), NodeId(22));
    let (node, handle) = (NodeId(23), HandleId(24));
    let (name, new_name) = (Name::new(b"name").unwrap(), Name::new(b"new").unwrap());
    let xattr = XattrName::new(b"user.x").unwrap();
    let owner = LockOwner(25);
    let lock = FileLock::new(LockKind::Write, 26, 27, 28);
    let posix = LockFlavour::Posix;
    let flags = OpenFlags::READ_WRITE.with_append();
    let mut set = SetAttr::new();
    set.size = Some(29);
    let from = CopyRange::new(node, handle, 30);
    let to = CopyRange::new(other, HandleId(31), 32);
    let release = Release::new(Some(owner), Some(LockOwner(33)));
    let state = State::new("fake", 1, vec![34]);

    fs.attach(Arc::new(Deaf));
    fs.forget(node, 35);
    fs.batch_forget(&[(node, 36), (other, 37)]);
    fs.destroy(cx);
    let mut answers = vec![
        show("init", fs.init(&Negotiated::new(45, 1 << 20, Behaviours::PROMPT))),
        show("lookup", fs.lookup(cx, parent, name)),
        show("getattr", fs.getattr(cx, node, Some(handle))),
        show("setattr", fs.setattr(cx, node, &set)),
        show("symlink", fs.symlink(cx, parent, name, b"target")),
        show("mknod", fs.mknod(cx, parent, name, 0o010_644, 38)),
        show("mkdir", fs.mkdir(cx, parent, name, 0o755)),
        show("unlink", fs.unlink(cx, parent, name)),
        show("rmdir", fs.rmdir(cx, parent, name)),
        show("rename", fs.rename(cx, parent, name, other, new_name, RenameFlags::NOREPLACE)),
        show("link", fs.link(cx, node, parent, new_name)),
        show("open", fs.open(cx, node, flags, true)),
        show("create", fs.create(cx, parent, name, 0o640, flags, true)),
        show("tmpfile", fs.tmpfile(cx, parent, 0o600, flags)),
        show("flush", fs.flush(cx, node, handle, owner)),
        show("fsync", fs.fsync(cx, node, handle, true)),
        show("release", fs.release(cx, node, handle, release)),
        show("fallocate", fs.fallocate(cx, node, handle, FallocateMode::KEEP_SIZE, 39, 40)),
        show("lseek", fs.lseek(cx, node, handle, 41, SeekTo::Hole)),
        show("copy_file_range", fs.copy_file_range(cx, from, to, 42)),
        show("opendir", fs.opendir(cx, node, OpenFlags::READ_ONLY)),
        show("fsyncdir", fs.fsyncdir(cx, node, handle, true)),
        show("releasedir", fs.releasedir(cx, node, handle)),
        show("setxattr", fs.setxattr(cx, node, xattr, b"value", XattrMode::Create, true)),
        show("removexattr", fs.removexattr(cx, node, xattr)),
        show("access", fs.access(cx, node, 4)),
        show("statfs", fs.statfs(cx, node)),
        show("syncfs", fs.syncfs(cx, node)),
        show("getlk", fs.getlk(cx, node, handle, owner, lock)),
        show("setlk", fs.setlk(cx, node, handle, owner, lock, LockFlavour::Flock)),
        show("inode_flags", fs.inode_flags(cx, node)),
        show("set_inode_flags", fs.set_inode_flags(cx, node, 43)),
        show("mapping_source", fs.mapping_source(node, Access::Read)),
        show("persistent_id", fs.persistent_id(node)),
        show("capture_state", fs.capture_state()),
        show("restore_state", fs.restore_state(&state)),
    ];

    let mut buf = [0; 8];
    let answer = fs.readlink(cx, node, &mut SliceSink::new(&mut buf));
    answers.push(("readlink", format!("{answer:?} {buf:?}")));
    let mut buf = [0; 8];
    let answer = fs.read(cx, node, handle, 44, 3, &mut SliceSink::new(&mut buf));
    // The answer first: what a test looks for is how it begins.
    answers.push(("read", format!("{answer:?} {buf:?}")));
    let mut source = SliceSource::new(b"0123456789");
    let answer = fs.write(cx, node, handle, 45, 6, WriteFlags::SYNC, &mut source);
    answers.push(("write", format!("{answer:?} {source:?}")));
    let mut room = Room(1, Vec::new());
    let answer = fs.readdir(cx, node, handle, 46, &mut room);
    answers.push(("readdir", format!("{answer:?} {room:?}")));
    let mut room = Room(1, Vec::new());
    let answer = fs.readdirplus(cx, node, handle, 47, &mut room);
    answers.push(("readdirplus", format!("{answer:?} {room:?}")));
    let mut value = [0; 5];
    let answer = fs.getxattr(cx, node, xattr, &mut value);
    answers.push(("getxattr", format!("{answer:?} {value:?}")));
    let mut names = [0; 6];
    let answer = fs.listxattr(cx, node, &mut names);
    answers.push(("listxattr", format!("{answer:?} {names:?}")));
    let (tx, rx) = mpsc::channel();
    let reply = Reply::new(move |answer| tx.send(answer).unwrap());
    let pending = fs.setlkw(cx, node, handle, owner, lock, posix, reply);
    answers.push(("setlkw", format!("{:?} {pending:?}", rx.recv().unwrap())));
    answers
}
