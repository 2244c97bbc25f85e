//! Open files.

use std::sync::Arc;

use stratafs_core::{
    Context, CopyRange, Errno, HandleId, Needs, NodeId, OpenFlags, Opened, Release, Result, SeekTo,
};

use crate::RouterFs;
use crate::member::Member;

/// An open object of a member.
pub(crate) struct OpenReal {
    pub(crate) member: Arc<Member>,
    pub(crate) node: NodeId,
    pub(crate) handle: HandleId,
}

impl RouterFs {
    /// What `handle` is open on.
    ///
    /// # Errors
    /// `ESTALE`, `EBADF`; `EISDIR` of a directory that is made up.
    pub(crate) fn open_real(&self, id: NodeId, handle: HandleId) -> Result<OpenReal> {
        let real = self.real(id, Errno::EISDIR)?;
        let handle = self.ids.handle(real.member.index, handle)?;
        Ok(OpenReal { member: real.member, node: real.node, handle })
    }

    pub(crate) fn open_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let real = self.real(id, Errno::EISDIR)?;
        let pin = self.pin(&real.member)?;
        let mut opened = pin.member.fs.open(cx, real.node, flags, kill_priv)?;
        opened.handle = self.ids.opened(real.member.index, opened.handle);
        self.ids.node_opened(id);
        pin.keep();
        Ok(opened)
    }

    pub(crate) fn release_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        let real = self.real(id, Errno::EBADF)?;
        let handle = self.ids.closed(real.member.index, handle)?;
        let done = real.member.fs.release(cx, real.node, handle, release);
        self.ids.node_closed(id);
        self.lower(&real.member, 1);
        done
    }

    pub(crate) fn seek(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let OpenReal { member, node, handle } = self.open_real(id, handle)?;
        if member.needs.contains(Needs::LSEEK) {
            return member.fs.lseek(cx, node, handle, offset, to);
        }
        // The client asks, since another member knows its holes; this one's files have none.
        let size = member.fs.getattr(cx, node, Some(handle))?.attr.size;
        match to {
            _ if offset >= size => Err(Errno::ENXIO),
            SeekTo::Data => Ok(offset),
            SeekTo::Hole => Ok(size),
        }
    }

    pub(crate) fn copy_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        let source = self.open_real(from.node, from.handle)?;
        let target = self.open_real(to.node, to.handle)?;
        if !Arc::ptr_eq(&source.member, &target.member) {
            return Err(Errno::EXDEV);
        }
        let range = |open: &OpenReal, offset| CopyRange::new(open.node, open.handle, offset);
        let (from, to) = (range(&source, from.offset), range(&target, to.offset));
        source.member.fs.copy_file_range(cx, from, to, len)
    }
}
