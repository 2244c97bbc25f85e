//! The storage of files: allocating, freeing, moving and sharing it, and finding its holes.

use stratafs_core::{
    CopyRange, Errno, FallocateMode, FileType, HandleId, NodeId, Result, SeekTo, Timestamp,
    WriteFlags,
};

use crate::MemFs;
use crate::attr::MAX_FILE;
use crate::chunk::{Chunk, PAGE, PAGE_BYTES};
use crate::extent::{Freed, Piece, Pieces};
use crate::file::with_scratch;
use crate::handle::Want;
use crate::node::{File, Node};

/// The most that one `copy_file_range` copies, in bytes: a client asks again for the rest, and no
/// request keeps its worker for long.
const COPY_MAX: u64 = 1 << 30;

/// Pages that are shared under one hold of the locks.
const COPY_PAGES: usize = 64;

/// What a fallocate does, once its mode was found to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Allocate,
    Zero,
    Punch,
    Collapse,
    Insert,
    Unshare,
}

impl Change {
    fn of(mode: FallocateMode) -> Result<Self> {
        use FallocateMode as M;
        if !M::all().contains(mode) {
            return Err(Errno::EOPNOTSUPP);
        }
        let keep = mode.contains(M::KEEP_SIZE);
        Ok(match mode - M::KEEP_SIZE {
            m if m.is_empty() => Self::Allocate,
            M::ZERO_RANGE => Self::Zero,
            M::PUNCH_HOLE if keep => Self::Punch,
            M::COLLAPSE_RANGE if !keep => Self::Collapse,
            M::INSERT_RANGE if !keep => Self::Insert,
            M::UNSHARE_RANGE => Self::Unshare,
            // `vfs_fallocate` calls a hole that changes the size unsupported, the rest invalid.
            M::PUNCH_HOLE => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        })
    }
}

impl MemFs {
    pub(crate) fn allocate(
        &self,
        id: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let node = self.opened(id, handle, Want::Write)?;
        if node.kind != FileType::Regular {
            return Err(if node.is_dir() { Errno::EISDIR } else { Errno::ENODEV });
        }
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let change = Change::of(mode)?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE).ok_or(Errno::EFBIG)?;
        let now = self.now();
        let freed = {
            let mut inode = node.inode.write();
            let file = inode.file_mut()?;
            let keep_size = mode.contains(FallocateMode::KEEP_SIZE);
            let freed = self.change(file, change, offset, end, keep_size)?;
            inode.modified(now);
            self.kill_priv(&mut inode);
            freed
        };
        drop(freed);
        Ok(())
    }

    fn change(
        &self,
        file: &mut File,
        change: Change,
        offset: u64,
        end: u64,
        keep_size: bool,
    ) -> Result<Freed> {
        let account = &self.account;
        let extents = &mut file.extents;
        let on_pages = offset.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        let (from, to) = (offset / PAGE_BYTES, end / PAGE_BYTES);
        let mut freed = Freed::default();
        match change {
            Change::Allocate => extents.allocate(account, offset, end, &self.zeros, false)?,
            Change::Zero => extents.allocate(account, offset, end, &self.zeros, true)?,
            Change::Unshare => {
                extents.allocate(account, offset, end, &self.zeros, false)?;
                extents.unshare(offset, end);
            }
            Change::Punch => freed = extents.punch(account, offset, end),
            Change::Collapse => {
                if !on_pages || end >= file.size {
                    return Err(Errno::EINVAL);
                }
                freed = extents.collapse(account, from, to);
                file.size -= end - offset;
            }
            Change::Insert => {
                if !on_pages || offset >= file.size {
                    return Err(Errno::EINVAL);
                }
                let size = file.size.checked_add(end - offset).filter(|size| *size <= MAX_FILE);
                let size = size.ok_or(Errno::EFBIG)?;
                // What was allocated beyond the end could be moved out of any file's reach.
                freed = extents.truncate(account, file.size);
                extents.insert(from, to - from);
                file.size = size;
            }
        }
        if !keep_size && matches!(change, Change::Allocate | Change::Zero | Change::Unshare) {
            file.size = file.size.max(end);
        }
        Ok(freed)
    }

    pub(crate) fn seek(
        &self,
        id: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let node = self.opened(id, handle, Want::Any)?;
        let inode = node.inode.read();
        let file = inode.file()?;
        if offset >= file.size {
            return Err(Errno::ENXIO);
        }
        match to {
            SeekTo::Data => {
                file.extents.next_data(offset).filter(|at| *at < file.size).ok_or(Errno::ENXIO)
            }
            SeekTo::Hole => Ok(file.extents.next_hole(offset).min(file.size)),
        }
    }

    /// Copies a range. Whole pages at the same place in their page are shared, the rest copied. As
    /// on any filesystem the copy is not atomic, but neither end is ever locked beside the other.
    pub(crate) fn copy_range(&self, from: CopyRange, to: CopyRange, len: u64) -> Result<usize> {
        let source = self.opened(from.node, from.handle, Want::Read)?;
        let target = self.opened(to.node, to.handle, Want::Write)?;
        let size = source.inode.read().file()?.size;
        target.inode.read().file()?;
        if to.offset >= MAX_FILE && len != 0 {
            return Err(Errno::EFBIG);
        }
        let len = len
            .min(size.saturating_sub(from.offset))
            .min(MAX_FILE.saturating_sub(to.offset))
            .min(COPY_MAX);
        if len == 0 {
            return Ok(0);
        }
        let overlap = from.offset < to.offset + len && to.offset < from.offset + len;
        if from.node == to.node && overlap {
            return Err(Errno::EINVAL);
        }
        let now = self.now();
        let sharable = from.offset % PAGE_BYTES == to.offset % PAGE_BYTES;
        let mut done = 0;
        while done < len {
            let (at, to_at, left) = (from.offset + done, to.offset + done, len - done);
            let in_page = PAGE_BYTES - at % PAGE_BYTES;
            let step = if sharable && in_page == PAGE_BYTES && left >= PAGE_BYTES {
                let pages = (left / PAGE_BYTES).min(COPY_PAGES as u64);
                self.share_pages(&source, at / PAGE_BYTES, &target, to_at / PAGE_BYTES, pages, now)
            } else {
                let most = if sharable { in_page } else { (COPY_PAGES * PAGE) as u64 };
                self.copy_bytes(&source, at, &target, to_at, left.min(most) as usize, now)
            };
            match step {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done as usize)
    }

    /// Makes `pages` pages of `target` those of `source`, and says how many bytes that were.
    fn share_pages(
        &self,
        source: &Node,
        from: u64,
        target: &Node,
        to: u64,
        pages: u64,
        now: Timestamp,
    ) -> Result<u64> {
        let mut chunks = [const { None::<Chunk> }; COPY_PAGES];
        let mut pages = pages;
        {
            let inode = source.inode.read();
            let file = inode.file()?;
            // It may have been cut since.
            pages = pages.min((file.size / PAGE_BYTES).saturating_sub(from));
            for (place, page) in chunks.iter_mut().zip(from..from + pages) {
                *place = file.extents.share(page);
            }
        }
        let mut inode = target.inode.write();
        let file = inode.file_mut()?;
        let mut done = 0;
        for (chunk, page) in chunks.into_iter().zip(to..to + pages) {
            match file.extents.install(&self.account, page, chunk) {
                Ok(()) => done += PAGE_BYTES,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        if done != 0 {
            file.size = file.size.max(to * PAGE_BYTES + done);
            inode.modified(now);
            self.kill_priv(&mut inode);
        }
        Ok(done)
    }

    /// Copies `len` bytes, and says how many that were.
    fn copy_bytes(
        &self,
        source: &Node,
        from: u64,
        target: &Node,
        to: u64,
        len: usize,
        now: Timestamp,
    ) -> Result<u64> {
        with_scratch(len, |buf| {
            let mut filled = 0;
            while filled < len {
                let mut pieces = Pieces::default();
                let at = from + filled as u64;
                let upto = {
                    let inode = source.inode.read();
                    let file = inode.file()?;
                    let end = (from + len as u64).min(file.size).max(at);
                    file.extents.gather(at, end, &mut pieces)
                };
                if upto == at {
                    break;
                }
                for piece in pieces.into_pieces() {
                    let rest = &mut buf[filled..];
                    filled += match piece {
                        Piece::Data(chunk, from, to) => {
                            rest[..to - from].copy_from_slice(&chunk[from..to]);
                            to - from
                        }
                        Piece::Zeros(len) => {
                            rest[..len as usize].fill(0);
                            len as usize
                        }
                    };
                }
            }
            let flags = WriteFlags::KILL_PRIV;
            self.put(target, Some(to), &buf[..filled], flags, now).map(|n| n as u64)
        })?
    }
}
