//! The trait's methods, made of the author's.

use std::sync::Arc;

use super::clip::{ClippedSink, ClippedSource};
use super::listing::{DOT, DOTDOT, Listing};
use super::nodes::{ID_BITS, Node};
use super::{NewObject, Simple, SimpleFs, WriteAt};
use crate::attr::{S_IFMT, S_ISGID, S_ISUID, S_IXGRP};
use crate::filesystem::inherit;
use crate::{
    Added, Attr, Behaviours, CachePolicy, Context, DirEntry, DirSink, DynFileSystem, Entry, Errno,
    Features, FileType, HandleId, LockOwner, Lookup, Name, Needs, NodeId, Notifier, OpenFlags,
    Opened, ReadSink, Release, RenameFlags, Result, SetAttr, SliceSource, TimedAttr, WriteFlags,
    WriteSource,
};

/// How often a `create` without O_EXCL tries again when the name comes and goes under it.
const CREATE_ATTEMPTS: usize = 8;

impl<T: SimpleFs> Simple<T> {
    /// The directory `node`.
    fn directory(&self, node: NodeId) -> Result<Node<T::File>> {
        self.nodes.get(node)?.directory()
    }

    /// Makes an object of the type and permissions in `mode` under `name`.
    fn make(
        &self,
        cx: &Context<'_>,
        parent: &Node<T::File>,
        name: Name<'_>,
        mode: u32,
        more: (u32, &[u8]),
    ) -> Result<Entry> {
        let kind = FileType::from_mode(mode).ok_or(Errno::EINVAL)?;
        let (mode, gid) = inherit(cx, &self.backend.attr(&parent.file)?, mode);
        let (uid, (rdev, target)) = (cx.owner().uid, more);
        let new = NewObject { kind, mode: mode & !S_IFMT, uid, gid, rdev, target };
        let file = self.backend.create(&parent.file, name, &new)?;
        let attr = self.attr_of(&file)?;
        self.enter(file, attr, parent.ino)
    }

    /// Checks that a file of `kind` can be opened as `flags` want, and cuts it with O_TRUNC.
    fn prepare(
        &self,
        cx: &Context<'_>,
        file: &T::File,
        kind: FileType,
        flags: OpenFlags,
    ) -> Result<()> {
        match kind {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENXIO),
        }
        if flags.writable() {
            self.backend.write(file, WriteAt::Offset(0), &mut SliceSource::new(&[]))?;
        }
        if flags.truncate() {
            self.change(cx, file, SetAttr { size: Some(0), ..SetAttr::new() })?;
        }
        Ok(())
    }

    /// Changes what `set` says, and the mode bits that go with it.
    fn change(&self, cx: &Context<'_>, file: &T::File, mut set: SetAttr) -> Result<()> {
        let attr = self.backend.attr(file)?;
        if set.size.is_some() {
            match attr.kind() {
                FileType::Regular => {}
                FileType::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
        }
        match &mut set.mode {
            Some(mode) => {
                *mode &= !S_IFMT;
                if !cx.is_in_group(attr.gid) {
                    *mode &= !S_ISGID;
                }
            }
            None => set.mode = without_privileges(&attr, &set),
        }
        set.kill_priv = false;
        let nothing = SetAttr { handle: set.handle, lock_owner: set.lock_owner, ..SetAttr::new() };
        if set == nothing { Ok(()) } else { self.backend.set_attr(file, &set) }
    }

    /// Opens an object that `create` found or made.
    fn created(
        &self,
        cx: &Context<'_>,
        parent: &Node<T::File>,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<Entry> {
        for _ in 0..CREATE_ATTEMPTS {
            match self.backend.child(&parent.file, name) {
                Ok(_) if flags.exclusive() => return Err(Errno::EEXIST),
                Ok(file) => {
                    self.prepare(cx, &file, self.backend.attr(&file)?.kind(), flags)?;
                    let attr = self.attr_of(&file)?;
                    return self.enter(file, attr, parent.ino);
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            let mode = (mode & !S_IFMT) | FileType::Regular.mode_bits();
            match self.make(cx, parent, name, mode, (0, &[])) {
                Err(Errno::EEXIST) if !flags.exclusive() => {}
                made => return made,
            }
        }
        Err(Errno::ESTALE)
    }

    /// Removes `name`, which must be a directory or must not.
    fn remove(&self, parent: NodeId, name: Name<'_>, directory: bool) -> Result<()> {
        let parent = self.directory(parent)?;
        let file = self.backend.child(&parent.file, name)?;
        match (self.backend.attr(&file)?.is_dir(), directory) {
            (true, false) => Err(Errno::EISDIR),
            (false, true) => Err(Errno::ENOTDIR),
            _ => self.backend.remove(&parent.file, name),
        }
    }

    /// Lists a directory into `sink`, each entry looked up if `plus`.
    fn stream(
        &self,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
        plus: bool,
    ) -> Result<()> {
        let open = self.handles.directory(node, handle)?;
        let dir = self.nodes.get(node)?;
        let listing = self
            .handles
            .listing(&open, cookie, || Ok(Listing::new(self.backend.list(&dir.file)?)))?;
        let mut taken = false;
        for dots in [DirEntry::dot(dir.ino, DOT), DirEntry::dotdot(dir.parent_ino, DOTDOT)] {
            if cookie < dots.cookie {
                if sink.add(&dots, None) == Added::Full {
                    return Ok(());
                }
                taken = true;
            }
        }
        for (place, name) in listing.after(cookie) {
            if !sink.fits(name.as_bytes().len()) {
                return Ok(());
            }
            match self.list_one(&dir, name.as_name(), *place, sink, plus) {
                Ok(Added::Taken) => taken = true,
                Ok(Added::Full) => return Ok(()),
                // It was removed since it was listed.
                Err(Errno::ENOENT) => {}
                // As getdents64(2): what was listed is told now, and the error by the next call.
                Err(_) if taken => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn list_one(
        &self,
        dir: &Node<T::File>,
        name: Name<'_>,
        place: u64,
        sink: &mut dyn DirSink,
        plus: bool,
    ) -> Result<Added> {
        let file = self.backend.child(&dir.file, name)?;
        let attr = self.attr_of(&file)?;
        let listed = DirEntry::new(attr.ino, attr.kind(), name, place);
        if !plus {
            return Ok(sink.add(&listed, None));
        }
        let entry = self.enter(file, attr, dir.ino)?;
        let added = sink.add(&listed, Some(&entry));
        if added == Added::Full {
            self.nodes.forget(entry.node, 1);
        }
        Ok(added)
    }

    fn opened_file(&self, handle: HandleId) -> Opened {
        Opened::new(handle, self.cache.file_flags())
    }
}

/// The permissions that are left of `attr` after `set`, where it takes some without naming them: a
/// change of owner, and `kill_priv`, of anything but a directory.
fn without_privileges(attr: &Attr, set: &SetAttr) -> Option<u32> {
    let kills = set.kill_priv || set.uid.is_some() || set.gid.is_some();
    if !kills || attr.is_dir() {
        return None;
    }
    let mut mode = attr.mode & !S_IFMT & !S_ISUID;
    if mode & S_IXGRP != 0 {
        mode &= !S_ISGID;
    }
    (mode != attr.mode & !S_IFMT).then_some(mode)
}

impl<T: SimpleFs> DynFileSystem for Simple<T> {
    fn features(&self) -> Features {
        let mut behaviours = Behaviours::DONT_MASK
            | Behaviours::KILLPRIV_V2
            | Behaviours::ATOMIC_O_TRUNC
            | Behaviours::PARALLEL_DIROPS
            | Behaviours::ALLOW_IDMAP;
        if self.cache.policy == CachePolicy::Always {
            behaviours |= Behaviours::EXCLUSIVE | Behaviours::CACHE_SYMLINKS;
        }
        let needs = Needs::FSYNC
            | Needs::FSYNCDIR
            | Needs::READDIRPLUS
            | Needs::STATX
            | Needs::OPEN
            | Needs::OPENDIR
            | Needs::RENAME2;
        Features::new(self.kind).needing(needs).promising(behaviours).with_node_id_bits(ID_BITS)
    }

    fn attach(&self, notifier: Arc<dyn Notifier>) {
        self.notifiers.attach(notifier);
    }

    fn lookup(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let parent = self.directory(parent)?;
        let found = self.backend.child(&parent.file, name).and_then(|file| {
            let attr = self.attr_of(&file)?;
            self.enter(file, attr, parent.ino)
        });
        match found {
            Ok(entry) => Ok(Lookup::Found(entry)),
            Err(Errno::ENOENT) => Ok(Lookup::Absent(self.cache.negative_timeout)),
            Err(errno) => Err(errno),
        }
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.nodes.forget(node, count);
    }

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        let node = self.nodes.get(node)?;
        Ok(TimedAttr::new(self.attr_of(&node.file)?, self.cache.attr_timeout))
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        let known = self.nodes.get(node)?;
        if let (Some(handle), Some(_)) = (set.handle, set.size)
            && !self.handles.file(node, handle)?.writable()
        {
            return Err(Errno::EBADF);
        }
        self.change(cx, &known.file, *set)?;
        Ok(TimedAttr::new(self.attr_of(&known.file)?, self.cache.attr_timeout))
    }

    fn readlink(&self, _: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        let node = self.nodes.get(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        self.backend.readlink(&node.file, target)
    }

    fn symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Entry> {
        match target {
            [] => return Err(Errno::ENOENT),
            _ if target.len() > 4095 => return Err(Errno::ENAMETOOLONG),
            _ => {}
        }
        // A symlink's permissions are all there, whatever the umask: nothing ever asks for them.
        let cx = cx.with_umask(0);
        self.make(&cx, &self.directory(parent)?, name, 0o120_777, (0, target))
    }

    fn mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let mode = if mode & S_IFMT == 0 { mode | FileType::Regular.mode_bits() } else { mode };
        if matches!(FileType::from_mode(mode), Some(FileType::Directory | FileType::Symlink)) {
            return Err(Errno::EINVAL);
        }
        self.make(cx, &self.directory(parent)?, name, mode, (rdev, &[]))
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        let mode = (mode & !S_IFMT) | FileType::Directory.mode_bits();
        self.make(cx, &self.directory(parent)?, name, mode, (0, &[]))
    }

    fn unlink(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        _: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        if !RenameFlags::NOREPLACE.contains(flags) {
            return Err(Errno::EINVAL);
        }
        let (old_dir, new_dir) = (self.directory(parent)?, self.directory(new_parent)?);
        let file = self.backend.child(&old_dir.file, name)?;
        match self.backend.child(&new_dir.file, new_name) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Ok(replaced) if replaced == file => return Ok(()),
            Ok(replaced) => {
                match (self.backend.attr(&file)?.is_dir(), self.backend.attr(&replaced)?.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.backend.rename(&old_dir.file, name, &new_dir.file, new_name, flags)?;
        self.nodes.moved(&file, new_dir.ino);
        Ok(())
    }

    fn link(&self, _: &Context<'_>, node: NodeId, parent: NodeId, _: Name<'_>) -> Result<Entry> {
        self.nodes.get(node)?;
        self.directory(parent)?;
        // As link(2) has it for a filesystem without hard links.
        Err(Errno::EPERM)
    }

    fn open(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let known = self.nodes.get(node)?;
        let slot = self.handles.slot()?;
        self.prepare(cx, &known.file, known.kind, flags)?;
        if kill_priv {
            self.change(cx, &known.file, SetAttr { kill_priv, ..SetAttr::new() })?;
        }
        self.nodes.open(node)?;
        Ok(self.opened_file(slot.open_file(node, flags)))
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: OpenFlags,
        _: bool,
    ) -> Result<(Entry, Opened)> {
        let parent = self.directory(parent)?;
        let slot = self.handles.slot()?;
        let entry = self.created(cx, &parent, name, mode, flags)?;
        self.nodes.open(entry.node)?;
        let opened = self.opened_file(slot.open_file(entry.node, flags));
        Ok((entry, opened))
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
        let known = self.nodes.get(node)?;
        if !self.handles.file(node, handle)?.readable() {
            return Err(Errno::EBADF);
        }
        let mut sink = ClippedSink::new(sink, size);
        self.backend.read(&known.file, offset, &mut sink)?;
        // Counted, not taken from the author: a wrong count would be a wrong answer to a client.
        Ok(sink.taken)
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
        let known = self.nodes.get(node)?;
        let cached = flags.contains(WriteFlags::CACHE);
        if !cached && !self.handles.file(node, handle)?.writable() {
            return Err(Errno::EBADF);
        }
        let mut source = ClippedSource::new(source, size);
        if source.remaining() == 0 {
            return Ok(0);
        }
        if flags.contains(WriteFlags::KILL_PRIV) && !cached {
            self.change(cx, &known.file, SetAttr { kill_priv: true, ..SetAttr::new() })?;
        }
        let append = flags.contains(WriteFlags::APPEND) && !cached;
        let at = if append { WriteAt::End } else { WriteAt::Offset(offset) };
        let written = self.backend.write(&known.file, at, &mut source)?.min(size);
        if flags.contains(WriteFlags::SYNC) {
            self.backend.sync(&known.file)?;
        }
        Ok(written)
    }

    fn flush(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: LockOwner) -> Result<()> {
        self.handles.file(node, handle).map(|_| ())
    }

    fn fsync(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: bool) -> Result<()> {
        let known = self.nodes.get(node)?;
        self.handles.file(node, handle)?;
        self.backend.sync(&known.file)
    }

    fn release(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: Release) -> Result<()> {
        self.handles.close_file(node, handle)?;
        self.nodes.close(node);
        Ok(())
    }

    fn opendir(&self, _: &Context<'_>, node: NodeId, _: OpenFlags) -> Result<Opened> {
        self.directory(node)?;
        let slot = self.handles.slot()?;
        self.nodes.open(node)?;
        Ok(Opened::new(slot.open_directory(node), self.cache.dir_flags()))
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.stream(node, handle, cookie, sink, false)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.stream(node, handle, cookie, sink, true)
    }

    fn fsyncdir(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: bool) -> Result<()> {
        let known = self.nodes.get(node)?;
        self.handles.directory(node, handle)?;
        self.backend.sync(&known.file)
    }

    fn releasedir(&self, _: &Context<'_>, node: NodeId, handle: HandleId) -> Result<()> {
        self.handles.close_directory(node, handle)?;
        self.nodes.close(node);
        Ok(())
    }
}
