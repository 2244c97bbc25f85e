//! The trait, one line for each method.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use stratafs_core::{
    Access, BackingFile, Behaviours, Context, CopyRange, DirSink, DynFileSystem, Entry, Errno,
    FallocateMode, Features, FileType, HandleId, Lookup, Name, Negotiated, NodeId, OpenFlags,
    Opened, PersistentId, ReadSink, Release, RenameFlags, Result, SeekTo, SetAttr, StatFs, State,
    TimedAttr, WriteFlags, WriteSource, XattrMode, XattrName,
};
use stratafs_sys::{file, handle};

use crate::PassthroughFs;
use crate::dir::Listing;

impl DynFileSystem for PassthroughFs {
    fn features(&self) -> Features {
        self.features
    }

    fn init(&self, negotiated: &Negotiated) -> Result<()> {
        if negotiated.behaviours.contains(Behaviours::PASSTHROUGH) {
            self.lends.store(true, Ordering::Relaxed);
        }
        if !negotiated.behaviours.contains(Behaviours::POSIX_ACL) {
            self.acls_go_unchecked();
        }
        Ok(())
    }

    fn lookup(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        self.lookup_in(parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.forget_id(node, count);
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        Ok(TimedAttr::new(self.get(node, handle)?, self.options.cache.attr_timeout))
    }

    fn setattr(&self, _: &Context<'_>, node: NodeId, set: &SetAttr) -> Result<TimedAttr> {
        Ok(TimedAttr::new(self.set(node, set)?, self.options.cache.attr_timeout))
    }

    fn readlink(&self, _: &Context<'_>, node: NodeId, target: &mut dyn ReadSink) -> Result<usize> {
        self.read_symlink(node, target)
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

    fn unlink(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_file(parent, name)
    }

    fn rmdir(&self, _: &Context<'_>, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_dir(parent, name)
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
        self.rename_in(parent, name, new_parent, new_name, flags)
    }

    fn link(
        &self,
        _: &Context<'_>,
        node: NodeId,
        new_parent: NodeId,
        new_name: Name<'_>,
    ) -> Result<Entry> {
        self.link_in(node, new_parent, new_name)
    }

    fn open(
        &self,
        _: &Context<'_>,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        self.open_file(node, flags, kill_priv)
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
        self.create_in(cx, parent, name, mode, flags, kill_priv)
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
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        self.write_file(node, handle, (offset, size), flags, source)
    }

    fn fsync(&self, _: &Context<'_>, node: NodeId, handle: HandleId, datasync: bool) -> Result<()> {
        self.sync_file(node, handle, datasync)
    }

    fn release(&self, _: &Context<'_>, node: NodeId, handle: HandleId, _: Release) -> Result<()> {
        self.close_file(node, handle)
    }

    fn fallocate(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        self.allocate(node, handle, mode, offset, len)
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
        _: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        self.copy(from, to, len)
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
        self.list(node, handle, cookie, Listing::Names, sink)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(node, handle, cookie, Listing::Plus, sink)
    }

    fn fsyncdir(
        &self,
        _: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        self.sync_dir(node, handle, datasync)
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
        self.list_xattrs(cx, node, names)
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.remove_xattr(cx, node, name)
    }

    fn statfs(&self, _: &Context<'_>, node: NodeId) -> Result<StatFs> {
        self.filesystem_usage(node)
    }

    fn syncfs(&self, _: &Context<'_>, node: NodeId) -> Result<()> {
        self.sync_filesystem(node)
    }

    fn inode_flags(&self, _: &Context<'_>, node: NodeId) -> Result<u32> {
        self.flags(node)
    }

    fn set_inode_flags(&self, _: &Context<'_>, node: NodeId, flags: u32) -> Result<()> {
        self.set_flags(node, flags)
    }

    fn mapping_source(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        self.host_file(node, access)
    }

    fn persistent_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        self.lasting_id(node)
    }

    fn capture_state(&self) -> Result<State> {
        Ok(self.capture())
    }

    fn restore_state(&self, state: &State) -> Result<()> {
        self.restore(state)
    }
}

impl PassthroughFs {
    fn forget_id(&self, id: NodeId, count: u64) {
        // The roots stay whatever is said of them.
        if id == NodeId::ROOT || self.extra_root() == Some(id) {
            return;
        }
        if let Some(node) = self.table.get(id) {
            self.forget_node(&node, count);
        }
    }

    fn sync_filesystem(&self, node: NodeId) -> Result<()> {
        self.node(node)?;
        match &self.root_dir {
            Some(dir) => Ok(file::sync_filesystem(dir.as_fd())?),
            None => Ok(()),
        }
    }

    fn host_file(&self, node: NodeId, access: Access) -> Option<BackingFile> {
        let node = self.node(node).ok()?;
        let flags = match access {
            Access::Read => libc::O_RDONLY,
            Access::Write => libc::O_WRONLY,
            Access::ReadWrite => libc::O_RDWR,
        };
        if node.kind != FileType::Regular || (self.options.readonly && access != Access::Read) {
            return None;
        }
        let pin = self.pin(&node).ok()?;
        let fd = self.reopen(&node, &pin, flags).ok()?;
        Some(BackingFile::new(fd.into()))
    }

    /// A byte of the handle's type and the handle.
    fn lasting_id(&self, node: NodeId) -> Result<Option<PersistentId>> {
        let Some(fsid) = self.fsid else { return Ok(None) };
        let node = self.node(node)?;
        // The one identity is that of the root's filesystem.
        if !self.devices.is_root(node.dev) {
            return Ok(None);
        }
        let pin = self.pin(&node)?;
        let handle = match handle::of(pin.as_fd()).map_err(Errno::from) {
            Ok(handle) => handle,
            Err(Errno::EOPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let Ok(kind) = u8::try_from(handle.kind()) else { return Ok(None) };
        let bytes = [&[kind], handle.as_bytes()].concat();
        Ok((bytes.len() <= 128).then_some(PersistentId::new(fsid, bytes)))
    }
}
