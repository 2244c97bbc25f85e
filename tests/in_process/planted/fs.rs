//! The filesystem with a mistake: each method as the mistake has it, or forwarded.

use std::sync::Arc;
use std::time::Duration;

use stratafs_core::attr::S_ISGID;
use stratafs_core::{
    Access, BackingFile, Context, CopyRange, DirSink, DynFileSystem, Entry, Errno, FallocateMode,
    Features, FileLock, FileType, HandleId, LockFlavour, LockOwner, Lookup, Name, Negotiated,
    NodeId, Notifier, OpenFlags, Opened, Pending, PersistentId, ReadSink, Release, RenameFlags,
    Reply, Result, SeekTo, SetAttr, SetTime, StatFs, State, TimedAttr, Timestamp, WriteFlags,
    WriteSource, XattrMode, XattrName,
};

use super::{Bug, Planted, PlantedSink};

/// Methods that no mistake is in.
macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self, $($arg: $type),*) $(-> $result)? {
            self.inner.$name($($arg),*)
        })*
    };
}

impl DynFileSystem for Planted {
    forward! {
        features() -> Features;
        init(negotiated: &Negotiated) -> Result<()>;
        destroy(cx: &Context<'_>);
        attach(notifier: Arc<dyn Notifier>);
        readlink(cx: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize>;
        open(cx: &Context<'_>, node: NodeId, flags: OpenFlags, kill_priv: bool) -> Result<Opened>;
        tmpfile(cx: &Context<'_>, parent: NodeId, mode: u32, flags: OpenFlags)
            -> Result<(Entry, Opened)>;
        flush(cx: &Context<'_>, node: NodeId, handle: HandleId, owner: LockOwner) -> Result<()>;
        opendir(cx: &Context<'_>, node: NodeId, flags: OpenFlags) -> Result<Opened>;
        fsyncdir(cx: &Context<'_>, node: NodeId, handle: HandleId, datasync: bool) -> Result<()>;
        releasedir(cx: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()>;
        listxattr(cx: &Context<'_>, node: NodeId, names: &mut [u8]) -> Result<usize>;
        removexattr(cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()>;
        access(cx: &Context<'_>, node: NodeId, mask: u32) -> Result<()>;
        syncfs(cx: &Context<'_>, node: NodeId) -> Result<()>;
        getlk(cx: &Context<'_>, node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock)
            -> Result<FileLock>;
        setlk(cx: &Context<'_>, node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock,
            flavour: LockFlavour) -> Result<()>;
        setlkw(cx: &Context<'_>, node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock,
            flavour: LockFlavour, reply: Reply<()>) -> Option<Pending>;
        inode_flags(cx: &Context<'_>, node: NodeId) -> Result<u32>;
        set_inode_flags(cx: &Context<'_>, node: NodeId, flags: u32) -> Result<()>;
        mapping_source(node: NodeId, access: Access) -> Option<BackingFile>;
        persistent_id(node: NodeId) -> Result<Option<PersistentId>>;
        capture_state() -> Result<State>;
        restore_state(state: &State) -> Result<()>;
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let found = self.inner.lookup(cx, parent, name);
        match found {
            Err(Errno::ENOTDIR) if self.is(Bug::LookupInFileIsAbsent) => {
                Ok(Lookup::Absent(Duration::ZERO))
            }
            Ok(Lookup::Found(_)) if self.is(Bug::LookupCountsTwice) => {
                self.inner.lookup(cx, parent, name)
            }
            Ok(Lookup::Found(entry)) => Ok(Lookup::Found(self.shown(entry))),
            other => other,
        }
    }

    fn forget(&self, node: NodeId, count: u64) {
        match self.bug {
            Bug::ForgetsNothing => {}
            Bug::ForgetsTooMuch => self.inner.forget(node, count + 1),
            _ => self.inner.forget(node, count),
        }
    }

    fn batch_forget(&self, nodes: &[(NodeId, u64)]) {
        nodes.iter().for_each(|(node, count)| self.forget(*node, *count));
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        let answer = self.inner.getattr(cx, node, handle);
        assert!(!self.is(Bug::PanicsOnUnknownNode) || answer.is_ok(), "no such node");
        let mut timed = answer?;
        if self.is(Bug::LinkCountsOne) && timed.attr.kind() == FileType::Regular {
            timed.attr.nlink = 1;
        }
        Ok(timed)
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        let before = self.inner.getattr(cx, node, None)?.attr;
        let mut set = *set;
        let seconds = |time: SetTime| match time {
            SetTime::At(at) => SetTime::At(Timestamp::new(at.sec, 0)),
            now => now,
        };
        match self.bug {
            Bug::UtimensInSeconds => {
                (set.atime, set.mtime) = (set.atime.map(seconds), set.mtime.map(seconds));
            }
            Bug::TruncateOnlyExtends => set.size = set.size.map(|size| size.max(before.size)),
            _ => {}
        }
        let after = self.inner.setattr(cx, node, &set)?;
        if self.is(Bug::ChownKeepsSetuid) && set.uid.is_some() {
            return self.set_mode(cx, node, before.mode & 0o7777);
        }
        Ok(after)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        let cut = self.is(Bug::SymlinkTargetCut) && target.len() > 60;
        self.inner.symlink(cx, parent, name, if cut { &target[..60] } else { target })
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let rdev = if self.is(Bug::DeviceNumberCut) { rdev & 0xffff } else { rdev };
        self.inner.mknod(cx, parent, name, mode, rdev)
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        let before = self.inner.getattr(cx, parent, None)?.attr;
        let mut entry = self.inner.mkdir(cx, parent, name, mode)?;
        if self.is(Bug::SetgidDirectoryIgnored) {
            let mut set = SetAttr::new();
            (set.gid, set.mode) = (Some(cx.owner().gid), Some(entry.attr.mode & !S_ISGID));
            entry.attr = self.inner.setattr(cx, entry.node, &set)?.attr;
        }
        if self.is(Bug::DirectoryTimesKept) {
            let mut set = SetAttr::new();
            set.mtime = Some(SetTime::At(before.mtime));
            self.inner.setattr(cx, parent, &set)?;
        }
        Ok(entry)
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        if self.is(Bug::UnlinkLosesOpenFiles) {
            let node = self.peek(cx, parent, name)?;
            self.removed.lock().insert(node);
        }
        match self.inner.unlink(cx, parent, name) {
            Err(Errno::EISDIR) if self.is(Bug::UnlinkRemovesDirectories) => {
                self.inner.rmdir(cx, parent, name)
            }
            other => other,
        }
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        if self.is(Bug::RmdirRemovesFull) {
            self.remove_children(cx, parent, name)?;
        }
        self.inner.rmdir(cx, parent, name)
    }

    fn rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        mut flags: RenameFlags,
    ) -> Result<()> {
        let replaced = || self.peek(cx, new_parent, new_name).ok();
        match self.bug {
            Bug::RenameIgnoresNoreplace => flags.remove(RenameFlags::NOREPLACE),
            Bug::RenameIgnoresExchange => flags.remove(RenameFlags::EXCHANGE),
            Bug::RenameLosesHardLink if self.peek(cx, parent, name).ok() == replaced() => {
                return self.inner.unlink(cx, parent, name);
            }
            Bug::RenameInTwoSteps if replaced().is_some() => {
                self.inner.unlink(cx, new_parent, new_name)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => {}
        }
        self.inner.rename(cx, parent, name, new_parent, new_name, flags)
    }

    fn link(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        Ok(self.shown(self.inner.link(cx, node, new_parent, new_name)?))
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
        const O_EXCL: u32 = 0o200;
        let lax = self.is(Bug::ExclusiveIgnored);
        let flags = if lax { OpenFlags::from_raw(flags.raw() & !O_EXCL) } else { flags };
        let made = self.inner.create(&self.context(cx), parent, name, mode, flags, kill_priv)?;
        if self.is(Bug::CreateChangesMode) {
            self.set_mode(cx, made.0.node, mode)?;
        }
        Ok(made)
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
        if self.removed.lock().contains(&node) {
            return Err(Errno::ESTALE);
        }
        let size = if self.is(Bug::ReadIsShort) { size.min(4096) } else { size };
        self.inner.read(cx, node, handle, offset, size, sink)
    }

    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        mut flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        match self.bug {
            Bug::AppendIgnored => flags.remove(WriteFlags::APPEND),
            Bug::KillPrivIgnored => flags.remove(WriteFlags::KILL_PRIV),
            Bug::ZeroWriteExtends if size == 0 => {
                let mut set = SetAttr::new();
                set.size = Some(offset);
                self.inner.setattr(cx, node, &set)?;
            }
            _ => {}
        }
        self.inner.write(cx, node, handle, offset, size, flags, source)
    }

    fn fsync(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        if self.is(Bug::FsyncIsEnosys) {
            return Err(Errno::ENOSYS);
        }
        self.inner.fsync(cx, node, handle, datasync)
    }

    fn release(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        if self.is(Bug::ReleasesNothing) {
            return Ok(());
        }
        self.inner.release(cx, node, handle, release)
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
        if self.is(Bug::PunchHoleDoesNothing) && mode.contains(FallocateMode::PUNCH_HOLE) {
            return Ok(());
        }
        self.inner.fallocate(cx, node, handle, mode, offset, len)
    }

    fn lseek(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        match (self.bug, to) {
            (Bug::SeekSeesNoHoles, SeekTo::Data) => Ok(offset),
            (Bug::SeekSeesNoHoles, SeekTo::Hole) => {
                Ok(self.inner.getattr(cx, node, None)?.attr.size)
            }
            _ => self.inner.lseek(cx, node, handle, offset, to),
        }
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        mut from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        if self.is(Bug::CopyIgnoresOffset) {
            from.offset = 0;
        }
        self.inner.copy_file_range(cx, from, to, len)
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        if self.is(Bug::CookiesArePositions) {
            return self.list_by_position(cx, node, handle, cookie, sink);
        }
        let mut sink = PlantedSink { sink, bug: self.bug, repeated: false };
        self.inner.readdir(cx, node, handle, cookie, &mut sink)
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let mut sink = PlantedSink { sink, bug: self.bug, repeated: false };
        self.inner.readdirplus(cx, node, handle, cookie, &mut sink)
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        match self.inner.getxattr(cx, node, name, value) {
            Err(Errno::ERANGE) if self.is(Bug::XattrIsCut) => Ok(value.len()),
            other => other,
        }
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
        let mode = if self.is(Bug::XattrModeIgnored) { XattrMode::Set } else { mode };
        self.inner.setxattr(cx, node, name, value, mode, clear_setgid)
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Result<StatFs> {
        let now = self.inner.statfs(cx, node)?;
        let first = *self.statfs.lock().get_or_insert(now);
        Ok(if self.is(Bug::StatfsNeverChanges) { first } else { now })
    }
}
