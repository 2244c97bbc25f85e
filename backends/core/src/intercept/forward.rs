//! The forwarding of every method of the trait, in its order.

use std::sync::Arc;

use super::{Answer, Intercept, Intercepted, Op, Outcome, Summary};
use crate::{
    Access, Added, BackingFile, Behaviours, Context, CopyRange, DirEntry, DirSink, DynFileSystem,
    Entry, FallocateMode, Features, FileLock, HandleId, LockFlavour, LockOwner, Lookup, Name,
    Negotiated, NodeId, Notifier, OpenFlags, Opened, Pending, PersistentId, ReadSink, Release,
    RenameFlags, Reply, Result, SeekTo, SetAttr, StatFs, State, TimedAttr, WriteFlags, WriteSource,
    XattrMode, XattrName,
};

impl<I: Intercept> Intercepted<I> {
    /// Makes the request `op` by `call`, with the intercept around it.
    fn around<T: Summary>(
        &self,
        cx: &Context<'_>,
        op: &Op<'_>,
        call: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mark = self.intercept.before(cx, op)?;
        let answer = call();
        self.intercept.after(cx, op, mark, &outcome(&answer));
        answer
    }

    /// Ends a handle by `call`, which is made even if the intercept refuses.
    fn ending(
        &self,
        cx: &Context<'_>,
        op: &Op<'_>,
        call: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (mark, refused) = match self.intercept.before(cx, op) {
            Ok(mark) => (mark, Ok(())),
            Err(errno) => (I::Mark::default(), Err(errno)),
        };
        let answer = refused.and(call());
        self.intercept.after(cx, op, mark, &outcome(&answer));
        answer
    }

    /// Lists by `call`, with the intercept around it and told of each entry that the sink takes.
    fn listing(
        &self,
        cx: &Context<'_>,
        op: &Op<'_>,
        sink: &mut dyn DirSink,
        call: impl FnOnce(&mut dyn DirSink) -> Result<()>,
    ) -> Result<()> {
        let mark = self.intercept.before(cx, op)?;
        let mut watched = WatchedSink { sink, intercept: &*self.intercept, cx, op, taken: 0 };
        let answer = call(&mut watched);
        let taken = watched.taken;
        let outcome = match answer {
            Ok(()) => Ok(Answer::Listed(taken)),
            Err(errno) => Err(errno),
        };
        self.intercept.after(cx, op, mark, &outcome);
        answer
    }

    /// Tells the intercept of a forget, which no context comes with.
    fn forgotten(&self, op: &Op<'_>) {
        let cx = Context::new(0, None);
        self.intercept.after(&cx, op, I::Mark::default(), &Ok(Answer::Done));
    }

    /// `size`, or what the intercept limits it to.
    fn limited(&self, cx: &Context<'_>, op: &Op<'_>, size: usize) -> usize {
        let limit = self.intercept.limit(cx, op, size as u64);
        usize::try_from(limit).map_or(size, |limit| limit.min(size))
    }

    /// `opened` as it may be shown: without a backing file where the data must be seen.
    fn shown(&self, mut opened: Opened) -> Opened {
        if self.intercept.sees_data() {
            opened.backing = None;
        }
        opened
    }
}

fn outcome<T: Summary>(answer: &Result<T>) -> Outcome<'_> {
    match answer {
        Ok(value) => Ok(value.summary()),
        Err(errno) => Err(*errno),
    }
}

/// A sink that tells an intercept what it takes.
struct WatchedSink<'a, I> {
    sink: &'a mut dyn DirSink,
    intercept: &'a I,
    cx: &'a Context<'a>,
    op: &'a Op<'a>,
    taken: usize,
}

impl<I: Intercept> DirSink for WatchedSink<'_, I> {
    fn fits(&self, name_len: usize) -> bool {
        self.sink.fits(name_len)
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        let added = self.sink.add(entry, plus);
        if added == Added::Taken {
            self.taken += 1;
            self.intercept.listed(self.cx, self.op, entry, plus);
        }
        added
    }
}

impl<I: Intercept> DynFileSystem for Intercepted<I> {
    fn features(&self) -> Features {
        let mut features = self.intercept.features(self.inner.features());
        if self.intercept.sees_data() {
            features.behaviours.remove(Behaviours::PASSTHROUGH);
        }
        features
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        self.inner.init(negotiated)
    }

    fn destroy(&self, cx: &Context<'_>) {
        self.inner.destroy(cx)
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.inner.attach(notifier)
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let op = Op::Lookup { parent, name };
        self.around(cx, &op, || self.inner.lookup(cx, parent, name))
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.inner.forget(node, count);
        self.forgotten(&Op::Forget { node, count });
    }

    fn batch_forget(&self, nodes: &[(NodeId, u64)]) {
        self.inner.batch_forget(nodes);
        self.forgotten(&Op::BatchForget { nodes });
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        let op = Op::Getattr { node, handle };
        self.around(cx, &op, || self.inner.getattr(cx, node, handle))
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        let op = Op::Setattr { node, set };
        self.around(cx, &op, || self.inner.setattr(cx, node, set))
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        self.around(cx, &Op::Readlink { node }, || self.inner.readlink(cx, node, target))
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        let op = Op::Symlink { parent, name, target };
        self.around(cx, &op, || self.inner.symlink(cx, parent, name, target))
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let op = Op::Mknod { parent, name, mode, rdev };
        self.around(cx, &op, || self.inner.mknod(cx, parent, name, mode, rdev))
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        let op = Op::Mkdir { parent, name, mode };
        self.around(cx, &op, || self.inner.mkdir(cx, parent, name, mode))
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let op = Op::Unlink { parent, name };
        self.around(cx, &op, || self.inner.unlink(cx, parent, name))
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        let op = Op::Rmdir { parent, name };
        self.around(cx, &op, || self.inner.rmdir(cx, parent, name))
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
        let op = Op::Rename { parent, name, new_parent, new_name, flags };
        self.around(cx, &op, || self.inner.rename(cx, parent, name, new_parent, new_name, flags))
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        let op = Op::Link { node, new_parent, new_name };
        self.around(cx, &op, || self.inner.link(cx, node, new_parent, new_name))
    }

    fn open(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let op = Op::Open { node, flags, kill_priv };
        self.around(cx, &op, || Ok(self.shown(self.inner.open(cx, node, flags, kill_priv)?)))
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
        let op = Op::Create { parent, name, mode, flags, kill_priv };
        self.around(cx, &op, || {
            let (entry, opened) = self.inner.create(cx, parent, name, mode, flags, kill_priv)?;
            Ok((entry, self.shown(opened)))
        })
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened)> {
        let op = Op::Tmpfile { parent, mode, flags };
        self.around(cx, &op, || {
            let (entry, opened) = self.inner.tmpfile(cx, parent, mode, flags)?;
            Ok((entry, self.shown(opened)))
        })
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
        let op = Op::Read { node, handle, offset, size };
        self.around(cx, &op, || {
            let size = self.limited(cx, &op, size);
            self.inner.read(cx, node, handle, offset, size, sink)
        })
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
        let op = Op::Write { node, handle, offset, size, flags };
        self.around(cx, &op, || {
            let size = self.limited(cx, &op, size);
            self.inner.write(cx, node, handle, offset, size, flags, source)
        })
    }

    fn flush(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        let op = Op::Flush { node, handle, owner };
        self.around(cx, &op, || self.inner.flush(cx, node, handle, owner))
    }

    fn fsync(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        let op = Op::Fsync { node, handle, datasync };
        self.around(cx, &op, || self.inner.fsync(cx, node, handle, datasync))
    }

    fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        let op = Op::Release { node, handle, release };
        self.ending(cx, &op, || self.inner.release(cx, node, handle, release))
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
        let op = Op::Fallocate { node, handle, mode, offset, len };
        self.around(cx, &op, || self.inner.fallocate(cx, node, handle, mode, offset, len))
    }

    fn lseek(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let op = Op::Lseek { node, handle, offset, to };
        self.around(cx, &op, || self.inner.lseek(cx, node, handle, offset, to))
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        let op = Op::CopyFileRange { from, to, len };
        self.around(cx, &op, || {
            let len = self.intercept.limit(cx, &op, len).min(len);
            self.inner.copy_file_range(cx, from, to, len)
        })
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, flags: OpenFlags) -> Result<Opened> {
        let op = Op::Opendir { node, flags };
        self.around(cx, &op, || Ok(self.shown(self.inner.opendir(cx, node, flags)?)))
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let op = Op::Readdir { node, handle, cookie };
        self.listing(cx, &op, sink, |sink| self.inner.readdir(cx, node, handle, cookie, sink))
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let op = Op::Readdirplus { node, handle, cookie };
        self.listing(cx, &op, sink, |sink| self.inner.readdirplus(cx, node, handle, cookie, sink))
    }

    fn fsyncdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        let op = Op::Fsyncdir { node, handle, datasync };
        self.around(cx, &op, || self.inner.fsyncdir(cx, node, handle, datasync))
    }

    fn releasedir(&self, cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        let op = Op::Releasedir { node, handle };
        self.ending(cx, &op, || self.inner.releasedir(cx, node, handle))
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        let op = Op::Getxattr { node, name, size: value.len() };
        self.around(cx, &op, || self.inner.getxattr(cx, node, name, value))
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
        let op = Op::Setxattr { node, name, value, mode, clear_setgid };
        self.around(cx, &op, || self.inner.setxattr(cx, node, name, value, mode, clear_setgid))
    }

    fn listxattr(&self, cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize> {
        let op = Op::Listxattr { node, size: names.len() };
        self.around(cx, &op, || self.inner.listxattr(cx, node, names))
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        let op = Op::Removexattr { node, name };
        self.around(cx, &op, || self.inner.removexattr(cx, node, name))
    }

    fn access(&self, cx: &Context<'_>, node: NodeId, mask: u32) -> Result<()> {
        let op = Op::Access { node, mask };
        self.around(cx, &op, || self.inner.access(cx, node, mask))
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<StatFs> {
        let op = Op::Statfs { node };
        self.around(cx, &op, || self.inner.statfs(cx, node))
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Result<()> {
        let op = Op::Syncfs { node };
        self.around(cx, &op, || self.inner.syncfs(cx, node))
    }

    fn getlk(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        let op = Op::Getlk { node, handle, owner, lock };
        self.around(cx, &op, || self.inner.getlk(cx, node, handle, owner, lock))
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
        let op = Op::Setlk { node, handle, owner, lock, flavour };
        self.around(cx, &op, || self.inner.setlk(cx, node, handle, owner, lock, flavour))
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
        let op = Op::Setlkw { node, handle, owner, lock, flavour };
        let mark = match self.intercept.before(cx, &op) {
            Ok(mark) => mark,
            Err(errno) => {
                reply.send(Err(errno));
                return None;
            }
        };
        let (intercept, later) = (Arc::clone(&self.intercept), cx.without_security());
        let reply = Reply::new(move |answer: Result<()>| {
            let op = Op::Setlkw { node, handle, owner, lock, flavour };
            intercept.after(&later, &op, mark, &outcome(&answer));
            reply.send(answer);
        });
        self.inner.setlkw(cx, node, handle, owner, lock, flavour, reply)
    }

    fn inode_flags(&self, cx: &Context<'_>, node: NodeId) -> Result<u32> {
        let op = Op::InodeFlags { node };
        self.around(cx, &op, || self.inner.inode_flags(cx, node))
    }

    fn set_inode_flags(&self, cx: &Context<'_>, node: NodeId, flags: u32) -> Result<()> {
        let op = Op::SetInodeFlags { node, flags };
        self.around(cx, &op, || self.inner.set_inode_flags(cx, node, flags))
    }

    fn mapping_source(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        if !self.intercept.lends(access) {
            return None;
        }
        self.inner.mapping_source(node, access)
    }

    fn persistent_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        self.inner.persistent_id(node)
    }

    fn capture_state(&self) -> Result<State> {
        self.inner.capture_state()
    }

    fn restore_state(&self, state: &State) -> Result<()> {
        self.inner.restore_state(state)
    }
}
