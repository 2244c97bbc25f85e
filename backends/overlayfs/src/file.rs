//! Open files.
//!
//! A handle is open on the object that its node had when it was opened. If that is copied up
//! meanwhile, the handle moves to the copy with its next use: the client's page cache belongs to the
//! node, so two handles of one node must not read two files. A file that was lent to the client's
//! kernel, to be read by itself, is the exception: the node that it was lent for goes on with it, and
//! another stands for the copy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use stratafs_core::{
    BackingFile, Context, CopyRange, Errno, FallocateMode, FileType, HandleId, HandleRef,
    LockOwner, NodeId, OpenFlags, Opened, ReadSink, Release, Result, SeekTo, SetAttr, WriteFlags,
    WriteSource,
};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::builder::layer_name;
use crate::format::Record;
use crate::layer::Real;
use crate::node::{Node, Place};

/// An open file.
pub(crate) struct File {
    pub(crate) node: Arc<Node>,
    flags: OpenFlags,
    /// The client's kernel was given the file of a read-only layer: it reads that by itself, as it
    /// does in the kernel's overlayfs, so this handle goes on with it too.
    lent: bool,
    real: RwLock<Arc<RealFile>>,
}

/// The flags that stay with a handle.
fn kept(flags: OpenFlags) -> OpenFlags {
    flags.without_truncate().without_exclusive()
}

/// The layer's handle behind one. It is given back before the object.
pub(crate) struct RealFile {
    pub(crate) handle: HandleRef,
    pub(crate) at: Real,
    /// Of data that is in a layer below its attributes: the size that those say.
    pub(crate) limit: Option<u64>,
}

impl File {
    pub(crate) fn new(node: Arc<Node>, flags: OpenFlags, real: RealFile) -> Self {
        Self { node, flags, lent: false, real: RwLock::new(Arc::new(real)) }
    }
}

impl OverlayFs {
    pub(crate) fn open_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let node = self.table.get(id)?;
        self.open_node(cx, &node, flags, kill_priv)
    }

    pub(crate) fn open_node(
        &self,
        cx: &Context<'_>,
        node: &Arc<Node>,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        match node.kind {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENXIO),
        }
        let reads = !flags.writable() && !flags.truncate();
        let lends = reads && self.lends.load(Ordering::SeqCst);
        if lends {
            node.lend();
        }
        if node.is_superseded() {
            return self.open_superseded(cx, node, flags, kill_priv);
        }
        self.require_data(&node.top()?)?;
        let mut limit = None;
        let at = if flags.truncate() {
            self.copy_up(node, Data::First(0))?
        } else if flags.writable() {
            self.copy_up(node, Data::All)?
        } else {
            let (at, data) = node.see(|place| {
                let at = place.data().cloned();
                (at, (place.stack().count() > 1).then(|| place.top().cloned()))
            });
            if let Some(top) = data {
                limit = Some(top?.attr()?.size);
            }
            at?
        };
        if node.is_superseded() {
            return self.open_superseded(cx, node, flags, kill_priv);
        }
        let is_whole = match limit {
            Some(limit) => at.attr()?.size == limit,
            None => true,
        };
        let (real, backing) = self.open_at(cx, &at, flags, kill_priv)?;
        // A file of a read-only layer is lent only where the node knows of it.
        let backing = backing.filter(|_| is_whole && (lends || at.is_upper()));
        let mut file = File::new(Arc::clone(node), kept(flags), RealFile { limit, ..real });
        file.lent = backing.is_some() && !at.is_upper();
        Ok(self.enter_handle(file).with_backing(backing))
    }

    /// Opens a node that another stands for by now. The kernel would read and write by the file that
    /// it was lent for this one, so it is to look the name up again; of what has no name left, it
    /// leaves the data to us.
    fn open_superseded(
        &self,
        cx: &Context<'_>,
        node: &Arc<Node>,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let upper = node.upper().ok_or(Errno::ESTALE)?;
        if upper.attr()?.nlink > 0 {
            return Err(Errno::ESTALE);
        }
        let (real, _) = self.open_at(cx, &upper, flags, kill_priv)?;
        Ok(self.enter_handle(File::new(Arc::clone(node), kept(flags), real)))
    }

    /// Opens the object `at` as a client wants it, and cuts it if that is asked for.
    fn open_at(
        &self,
        cx: &Context<'_>,
        at: &Real,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<(RealFile, Option<BackingFile>)> {
        let (real, backing) = self.open_real(cx, at, kept(flags))?;
        if flags.truncate() {
            let mut cut = SetAttr::new();
            (cut.size, cut.kill_priv) = (Some(0), kill_priv);
            cut.handle = Some(real.handle.handle());
            at.fs().setattr(cx, at.id(), &cut)?;
        }
        Ok((real, backing))
    }

    /// Refuses a file whose data is in a layer below, where that is not looked for: what it holds
    /// itself is one hole.
    ///
    /// # Errors
    /// `EIO`: it is one.
    pub(crate) fn require_data(&self, at: &Real) -> Result<()> {
        // With the option, whoever found the file found its data too.
        if self.options.metacopy || at.xattr(self.names.name(Record::Metacopy))?.is_none() {
            return Ok(());
        }
        log::error!(
            "overlay: a file of {} has its data in a layer below, which is looked for with \
             metacopy=on alone (EIO)",
            layer_name(at.layer)
        );
        Err(Errno::EIO)
    }

    fn open_real(
        &self,
        cx: &Context<'_>,
        at: &Real,
        flags: OpenFlags,
    ) -> Result<(RealFile, Option<BackingFile>)> {
        let opened = at.fs().open(cx, at.id(), flags, false)?;
        let handle = self.layer_handle(at, opened.handle);
        Ok((RealFile { handle, at: at.clone(), limit: None }, opened.backing))
    }

    pub(crate) fn enter_handle(&self, file: File) -> Opened {
        self.table.opened(&file.node);
        let handle = self.files.enter(Arc::new(file));
        Opened::new(handle, self.cache.file_flags())
    }

    pub(crate) fn close_file(&self, id: NodeId, handle: HandleId) -> Result<()> {
        let file = self.files.take(handle, |file| file.node.id == id)?;
        self.table.closed(&file.node);
        Ok(())
    }

    /// The layer's handle behind `file`, on the object that its node has now.
    pub(crate) fn real_file(&self, file: &File) -> Result<Arc<RealFile>> {
        let real = Arc::clone(&file.real.read());
        if real.at.is_upper() || file.lent {
            return Ok(real);
        }
        let moved = |place: &Place| place.upper.clone().filter(|_| !place.lacks_data());
        let Some(upper) = file.node.see(moved) else { return Ok(real) };
        let (moved, _) = self.open_real(&Context::internal(), &upper, file.flags)?;
        let moved = Arc::new(moved);
        let old = {
            let mut real = file.real.write();
            if real.at.is_upper() {
                return Ok(Arc::clone(&real));
            }
            std::mem::replace(&mut *real, Arc::clone(&moved))
        };
        drop(old);
        Ok(moved)
    }

    fn opened(&self, id: NodeId, handle: HandleId) -> Result<Arc<RealFile>> {
        let file = self.files.get(handle)?;
        if file.node.id != id {
            return Err(Errno::EBADF);
        }
        self.real_file(&file)
    }

    pub(crate) fn read_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let real = self.opened(id, handle)?;
        let size = match real.limit.map(|limit| limit.saturating_sub(offset)) {
            Some(left) => size.min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => size,
        };
        real.at.fs().read(cx, real.at.id(), real.handle.handle(), offset, size, sink)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of pwrite(2), and who asks")]
    pub(crate) fn write_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let real = self.opened(id, handle)?;
        if !real.at.is_upper() {
            return Err(Errno::EBADF);
        }
        let flags = if self.options.volatile { flags - WriteFlags::SYNC } else { flags };
        real.at.fs().write(cx, real.at.id(), real.handle.handle(), offset, size, flags, source)
    }

    pub(crate) fn flush_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        let real = self.opened(id, handle)?;
        if real.at.is_upper() {
            real.at.fs().flush(cx, real.at.id(), real.handle.handle(), owner)
        } else {
            Ok(())
        }
    }

    pub(crate) fn sync_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        let real = self.opened(id, handle)?;
        if self.options.volatile || !real.at.is_upper() {
            return Ok(());
        }
        real.at.fs().fsync(cx, real.at.id(), real.handle.handle(), datasync)
    }

    pub(crate) fn release_file(&self, id: NodeId, handle: HandleId, _: Release) -> Result<()> {
        // Locks stay with the client's kernel, so none is given up here.
        self.close_file(id, handle)
    }

    pub(crate) fn allocate(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        range: (u64, u64),
    ) -> Result<()> {
        let real = self.opened(id, handle)?;
        if !real.at.is_upper() {
            return Err(Errno::EBADF);
        }
        let (offset, len) = range;
        real.at.fs().fallocate(cx, real.at.id(), real.handle.handle(), mode, offset, len)
    }

    pub(crate) fn seek(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let real = self.opened(id, handle)?;
        real.at.fs().lseek(cx, real.at.id(), real.handle.handle(), offset, to)
    }

    pub(crate) fn copy_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        let source = self.opened(from.node, from.handle)?;
        let target = self.opened(to.node, to.handle)?;
        if !target.at.is_upper() {
            return Err(Errno::EBADF);
        }
        if !Arc::ptr_eq(source.at.fs(), target.at.fs()) {
            return Err(Errno::EXDEV);
        }
        let range =
            |real: &RealFile, offset| CopyRange::new(real.at.id(), real.handle.handle(), offset);
        let (from, to) = (range(&source, from.offset), range(&target, to.offset));
        target.at.fs().copy_file_range(cx, from, to, len)
    }
}
