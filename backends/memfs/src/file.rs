//! Opening, reading and writing files.

use std::cell::Cell;

use stratafs_core::{
    Attr, Context, Errno, FileType, HandleId, LockOwner, NodeId, OpenFlags, Opened, ReadSink,
    Release, Result, Timestamp, WriteFlags, WriteSource,
};

use crate::MemFs;
use crate::attr::MAX_FILE;
use crate::extent::{Piece, Pieces};
use crate::handle::{Place, Want};
use crate::lock::Owner;
use crate::node::{Node, NodeArc};
use crate::rank;

/// How much of a write is taken from its source at a time, in bytes: it stays in a core's cache
/// until it is copied to its place.
const WRITE_STEP: usize = 128 << 10;

/// The same of an append, which is placed in one step as long as it is no longer than this, so that
/// two appends of the largest FUSE request do not mix.
const APPEND_STEP: usize = 1 << 20;

thread_local! {
    /// Where a write waits between its source and its file, for neither may run under the other's
    /// lock. Taken out while in use, so that a source which itself writes finds another.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `with` with a buffer of `len` bytes.
pub(crate) fn with_scratch<R>(len: usize, with: impl FnOnce(&mut [u8]) -> R) -> Result<R> {
    let mut buf = SCRATCH.take();
    if buf.len() < len {
        let more = len - buf.len();
        buf.try_reserve_exact(more).map_err(|_| Errno::ENOMEM)?;
        buf.resize(len, 0);
    }
    let result = with(&mut buf[..len]);
    SCRATCH.set(buf);
    Ok(result)
}

/// Fills `buf` from `source`, as far as it goes.
fn fill(source: &mut dyn WriteSource, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match source.read_slice(&mut buf[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

impl MemFs {
    pub(crate) fn open_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let node = self.node(id)?;
        match node.kind {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENXIO),
        }
        let place = self.handles.place()?;
        let (opened, _) = self.open_node(&node, place, flags, kill_priv, self.now())?;
        if flags.truncate() {
            self.tell_data(cx, id, 0, 0);
        }
        Ok(opened)
    }

    /// Opens a regular file in `place`, cut to nothing if `flags` say so, and gives its attributes
    /// with it.
    pub(crate) fn open_node(
        &self,
        node: &NodeArc,
        place: Place<'_>,
        flags: OpenFlags,
        kill_priv: bool,
        now: Timestamp,
    ) -> Result<(Opened, Attr)> {
        let freed;
        let (handle, attr) = if flags.truncate() {
            let mut inode = node.write();
            let handle = place.open(node, &inode, flags)?;
            freed = self.resize(&mut inode, 0, now);
            if kill_priv {
                self.kill_priv(&mut inode);
            }
            (handle, node.attr(&inode))
        } else {
            freed = Ok(Default::default());
            let inode = node.read();
            (place.open(node, &inode, flags)?, node.attr(&inode))
        };
        drop(freed);
        Ok((Opened::new(handle, self.cache.file_flags()), attr))
    }

    pub(crate) fn read_file(
        &self,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let node = self.opened(id, handle, Want::Read)?;
        let now = self.now();
        let end = offset.saturating_add(size.min(sink.remaining()) as u64);
        let mut at = offset;
        loop {
            let mut pieces = Pieces::default();
            let upto = {
                let inode = node.read();
                let file = inode.file()?;
                if at == offset && at < end {
                    node.touch(&inode, now);
                }
                file.extents.gather(at, end.min(file.size).max(at), &mut pieces)
            };
            if upto == at {
                break;
            }
            at = upto;
            rank::assert_none();
            for piece in pieces.into_pieces() {
                let (put, all) = match piece {
                    Piece::Data(chunk, from, to) => {
                        (sink.write_slice(&chunk[from..to])?, to - from)
                    }
                    // No longer than the sink is, by `end`.
                    Piece::Zeros(len) => (sink.write_zeros(len as usize)?, len as usize),
                };
                if put < all {
                    return Err(Errno::EIO);
                }
            }
        }
        Ok((at - offset) as usize)
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
        // From the client's page cache the handle is a guess, and need not be open for writing.
        let want = if flags.contains(WriteFlags::CACHE) { Want::Any } else { Want::Write };
        let node = self.opened(id, handle, want)?;
        if node.kind != FileType::Regular {
            // Before the source is asked for anything.
            node.read().file()?;
        }
        let size = size.min(source.remaining());
        let append = flags.contains(WriteFlags::APPEND) && !flags.contains(WriteFlags::CACHE);
        let step = if append { APPEND_STEP } else { WRITE_STEP };
        let now = self.now();
        let written = with_scratch(size.min(step), |buf| {
            let mut done = 0;
            while done < size {
                let want = (size - done).min(step);
                rank::assert_none();
                let written = fill(source, &mut buf[..want]).and_then(|filled| {
                    let at = if append { None } else { Some(offset.saturating_add(done as u64)) };
                    self.put(&node, at, &buf[..filled], flags, now)
                });
                match written {
                    Ok(n) => done += n,
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => break,
                }
                if written != Ok(want) {
                    break;
                }
            }
            Ok(done)
        })??;
        match written {
            0 => {}
            // Where the end was is known to nobody by now.
            _ if append => self.tell_data(cx, id, 0, 0),
            n => self.tell_data(cx, id, offset, n as u64),
        }
        Ok(written)
    }

    /// Writes `data` at `at`, or at the end, in one step. Says how much was written.
    pub(crate) fn put(
        &self,
        node: &Node,
        at: Option<u64>,
        data: &[u8],
        flags: WriteFlags,
        now: Timestamp,
    ) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let mut inode = node.write();
        let file = inode.file_mut()?;
        let at = at.unwrap_or(file.size);
        if at >= MAX_FILE {
            return Err(Errno::EFBIG);
        }
        let len = data.len().min(usize::try_from(MAX_FILE - at).unwrap_or(usize::MAX));
        let written = file.extents.write(&self.account, at, &data[..len])?;
        file.size = file.size.max(at + written as u64);
        inode.modified(now);
        if flags.contains(WriteFlags::KILL_PRIV) && !flags.contains(WriteFlags::CACHE) {
            self.kill_priv(&mut inode);
        }
        Ok(written)
    }

    pub(crate) fn flush_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        owner: LockOwner,
    ) -> Result<()> {
        self.opened(id, handle, Want::Any)?;
        self.locks.release_posix(id.0, Owner::of(cx, owner));
        Ok(())
    }

    pub(crate) fn release_file(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        release: Release,
    ) -> Result<()> {
        if let Some(owner) = release.flush {
            self.locks.release_posix(id.0, Owner::of(cx, owner));
        }
        if let Some(owner) = release.flock {
            self.locks.release_flock(id.0, Owner::of(cx, owner));
        }
        self.close(id, handle)
    }
}

#[cfg(test)]
mod tests;
