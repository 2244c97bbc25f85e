//! Open files.
//!
//! A handle is open on the object that its node had when it was opened. If that is transferred
//! meanwhile, the handle moves to the copy with its next use: the client's page cache belongs to the
//! node, so two handles of one node must not read two files.

use std::sync::Arc;

use parking_lot::RwLock;
use stratafs_core::{
    Context, CopyRange, Errno, FallocateMode, FileType, HandleId, HandleRef, LockOwner, NodeId,
    OpKind, OpenFlags, Opened, ReadSink, Release, Result, SeekTo, SetAttr, WriteFlags, WriteSource,
};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::node::Node;
use crate::policy::Request;
use crate::side::Real;

/// An open file.
pub(crate) struct File {
    pub(crate) node: Arc<Node>,
    flags: OpenFlags,
    real: RwLock<Arc<RealFile>>,
}

/// The side's handle behind one. It is given back before the object.
pub(crate) struct RealFile {
    pub(crate) handle: HandleRef,
    pub(crate) at: Real,
}

impl File {
    pub(crate) fn new(node: Arc<Node>, flags: OpenFlags, real: RealFile) -> Self {
        Self { node, flags, real: RwLock::new(Arc::new(real)) }
    }
}

impl DualFs {
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
        let request = Request::new(OpKind::Open, flags.writable() || flags.truncate());
        let mut cut = SetAttr::new();
        (cut.size, cut.kill_priv) = (Some(0), kill_priv);
        let at = if flags.truncate() {
            self.to_write_set(request, node, Data::First(0), Some((cx, &cut)))?.0
        } else if request.changes {
            self.to_write(request, node, Data::All)?
        } else {
            self.to_read(request, node)?
        };
        let kept = flags.without_truncate().without_exclusive();
        let real = self.open_real(cx, &at, kept)?;
        if flags.truncate() {
            cut.handle = Some(real.handle.handle());
            at.fs().setattr(cx, at.id(), &cut)?;
        }
        Ok(self.enter_handle(File::new(Arc::clone(node), kept, real)))
    }

    fn open_real(&self, cx: &Context<'_>, at: &Real, flags: OpenFlags) -> Result<RealFile> {
        let opened = at.fs().open(cx, at.id(), flags, false)?;
        Ok(RealFile { handle: self.handle_on(at, opened.handle), at: at.clone() })
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

    fn is_written(&self, real: &RealFile) -> bool {
        real.at.side == self.writes()
    }

    /// The side's handle behind `file`, on the object that its node has now.
    pub(crate) fn real_file(&self, file: &File) -> Result<Arc<RealFile>> {
        let real = Arc::clone(&file.real.read());
        if self.is_written(&real) {
            return Ok(real);
        }
        let Some(written) = file.node.written() else { return Ok(real) };
        let moved = Arc::new(self.open_real(&Context::internal(), &written, file.flags)?);
        let old = {
            let mut real = file.real.write();
            if self.is_written(&real) {
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
        if !self.is_written(&real) {
            return Err(Errno::EBADF);
        }
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
        if self.is_written(&real) {
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
        if !self.is_written(&real) {
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
        if !self.is_written(&real) {
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
        if !self.is_written(&target) {
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
