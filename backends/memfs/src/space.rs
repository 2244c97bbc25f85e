//! The storage of files: allocating, freeing, moving and sharing it, and finding its holes.

use stratafs_core::{
    Context, CopyRange, Errno, FallocateMode, FileType, HandleId, NodeId, Result, SeekTo,
    Timestamp, WriteFlags,
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
const COPY_MAX: u64 = 128 << 20;

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
        cx: &Context<'_>,
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
            let mut inode = node.write();
            let file = inode.file_mut()?;
            let keep_size = mode.contains(FallocateMode::KEEP_SIZE);
            let freed = self.change(file, change, offset, end, keep_size)?;
            inode.modified(now);
            self.kill_priv(&mut inode);
            freed
        };
        drop(freed);
        self.tell_data(cx, id, 0, 0);
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
        let inode = node.read();
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
    pub(crate) fn copy_range(
        &self,
        cx: &Context<'_>,
        from: CopyRange,
        to: CopyRange,
        len: u64,
    ) -> Result<usize> {
        let source = self.opened(from.node, from.handle, Want::Read)?;
        let target = self.opened(to.node, to.handle, Want::Write)?;
        let size = source.read().file()?.size;
        target.read().file()?;
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
        if done != 0 {
            self.tell_data(cx, to.node, to.offset, done);
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
            let inode = source.read();
            let file = inode.file()?;
            // It may have been cut since.
            pages = pages.min((file.size / PAGE_BYTES).saturating_sub(from));
            for (place, page) in chunks.iter_mut().zip(from..from + pages) {
                *place = file.extents.share(page);
            }
        }
        let mut inode = target.write();
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
                    let inode = source.read();
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

#[cfg(test)]
mod tests {
    use stratafs_core::{DynFileSystem, SetAttr};

    use super::*;
    use crate::SizeExt;
    use crate::test_util::{Fixture, ROOT, name, root};

    use FallocateMode as M;
    const P: u64 = PAGE_BYTES;
    const NONE: HandleId = HandleId::NONE;

    fn fallocate(fx: &Fixture, node: NodeId, mode: M, offset: u64, len: u64) -> Result<()> {
        fx.fs.fallocate(&root(), node, NONE, mode, offset, len)
    }

    fn seek(fx: &Fixture, node: NodeId, offset: u64, to: SeekTo) -> Result<u64> {
        fx.fs.lseek(&root(), node, NONE, offset, to)
    }

    fn copy(fx: &Fixture, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Result<usize> {
        let range = |(node, offset)| CopyRange::new(node, NONE, offset);
        fx.fs.copy_file_range(&root(), range(from), range(to), len)
    }

    /// A file of `pages` pages, each full of its number plus one.
    fn numbered(fx: &Fixture, text: &str, pages: u8) -> NodeId {
        let node = fx.file(ROOT, text);
        for page in 0..pages {
            fx.write(node, u64::from(page) * P, &[page + 1; PAGE]).unwrap();
        }
        node
    }

    /// The first byte of each page.
    fn pages(fx: &Fixture, node: NodeId) -> Vec<u8> {
        let data = fx.read(node, 0, 100 * PAGE).unwrap();
        data.chunks(PAGE).map(|page| page[0]).collect()
    }

    #[test]
    fn fallocate_refuses_what_makes_no_sense() {
        let fx = Fixture::new();
        let file = numbered(&fx, "f", 4);
        let fifo = fx.fs.mknod(&root(), ROOT, name("p"), 0o010_644, 0).unwrap().node;
        let before = (fx.usage(), fx.attr(file));
        for (node, mode, offset, len, errno) in [
            (file, M::empty(), 0, 0, Errno::EINVAL),
            (file, M::empty(), 1 << 63, 1, Errno::EFBIG),
            (file, M::empty(), u64::MAX, u64::MAX, Errno::EFBIG),
            (file, M::empty(), 0, MAX_FILE, Errno::ENOSPC),
            (file, M::PUNCH_HOLE, 0, P, Errno::EOPNOTSUPP),
            (file, M::from_bits_retain(4), 0, P, Errno::EOPNOTSUPP),
            (file, M::COLLAPSE_RANGE | M::KEEP_SIZE, 0, P, Errno::EINVAL),
            (file, M::COLLAPSE_RANGE | M::ZERO_RANGE, 0, P, Errno::EINVAL),
            (file, M::COLLAPSE_RANGE, 1, P, Errno::EINVAL),
            (file, M::COLLAPSE_RANGE, 0, 4 * P, Errno::EINVAL),
            (file, M::INSERT_RANGE, 0, 5, Errno::EINVAL),
            (file, M::INSERT_RANGE, 4 * P, P, Errno::EINVAL),
            (file, M::INSERT_RANGE, P, (MAX_FILE / P - 3) * P, Errno::EFBIG),
            (ROOT, M::empty(), 0, 1, Errno::EISDIR),
            (fifo, M::empty(), 0, 1, Errno::ENODEV),
        ] {
            assert_eq!(fallocate(&fx, node, mode, offset, len), Err(errno), "{mode:?} {offset}");
        }
        assert_eq!((fx.usage(), fx.attr(file)), before);
    }

    #[test]
    fn fallocate_reserves_so_that_no_write_there_meets_enospc() {
        let fx = Fixture::with(|b| b.capacity(1.mib()));
        let (file, other) = (fx.file(ROOT, "f"), fx.file(ROOT, "g"));
        fx.write(file, P, b"x").unwrap();
        fallocate(&fx, file, M::empty(), 10, 100 * P).unwrap();
        assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (100 * P + 10, 101 * 8));
        while fx.write(other, fx.attr(other).size, &[1; PAGE]).is_ok() {}
        assert_eq!(fx.write(file, 0, &[2; 101 * PAGE]), Ok(101 * PAGE));
    }

    #[test]
    fn fallocate_with_keep_size_leaves_the_size_and_a_truncate_frees_it() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let before = fx.usage();
        fallocate(&fx, file, M::KEEP_SIZE, 0, 3 * P).unwrap();
        assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (0, 24));
        let mut set = SetAttr::new();
        set.size = Some(0);
        fx.fs.setattr(&root(), file, &set).unwrap();
        assert_eq!(fx.usage(), before);
    }

    #[test]
    fn punch_hole_frees_pages_and_zeros_parts() {
        let fx = Fixture::new();
        let file = numbered(&fx, "f", 4);
        let used = fx.usage().bytes;
        let mode = M::PUNCH_HOLE | M::KEEP_SIZE;
        fallocate(&fx, file, mode, P - 10, 2 * P + 20).unwrap();
        assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (4 * P, 16));
        assert!(used - fx.usage().bytes > 2 * P);
        let data = fx.read(file, 0, 4 * PAGE).unwrap();
        assert!(data[PAGE - 10..3 * PAGE + 10].iter().all(|b| *b == 0));
        assert_eq!((data[PAGE - 11], data[3 * PAGE + 10]), (1, 4));
        fallocate(&fx, file, mode, 1 << 40, 1 << 40).unwrap();
        assert_eq!(fx.attr(file).size, 4 * P);
    }

    #[test]
    fn zero_range_keeps_the_storage() {
        let fx = Fixture::new();
        let file = numbered(&fx, "f", 3);
        fallocate(&fx, file, M::ZERO_RANGE, P, 3 * P).unwrap();
        assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (4 * P, 32));
        assert_eq!(pages(&fx, file), [1, 0, 0, 0]);
        fallocate(&fx, file, M::ZERO_RANGE | M::KEEP_SIZE, 8 * P, P).unwrap();
        assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (4 * P, 40));
    }

    #[test]
    fn collapse_and_insert_move_what_follows() {
        let fx = Fixture::new();
        let file = numbered(&fx, "f", 4);
        fx.write(file, 4 * P, b"tail").unwrap();
        fallocate(&fx, file, M::COLLAPSE_RANGE, P, 2 * P).unwrap();
        assert_eq!((pages(&fx, file), fx.attr(file).size), (vec![1, 4, b't'], 2 * P + 4));
        fallocate(&fx, file, M::COLLAPSE_RANGE, 0, P).unwrap();
        assert_eq!(pages(&fx, file), [4, b't']);
        fallocate(&fx, file, M::INSERT_RANGE, 0, 2 * P).unwrap();
        assert_eq!(pages(&fx, file), [0, 0, 4, b't']);
        fallocate(&fx, file, M::INSERT_RANGE, 3 * P, P).unwrap();
        assert_eq!((pages(&fx, file), fx.attr(file).size), (vec![0, 0, 4, 0, b't'], 4 * P + 4));
    }

    #[test]
    fn fallocate_kills_privileges_and_sets_times() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let mut set = SetAttr::new();
        set.mode = Some(0o4755);
        fx.fs.setattr(&root(), file, &set).unwrap();
        let now = fx.tick();
        fallocate(&fx, file, M::empty(), 0, 1).unwrap();
        let attr = fx.attr(file);
        assert_eq!((attr.mode, attr.mtime, attr.ctime), (0o100_755, now, now));
    }

    #[test]
    fn lseek_finds_data_and_holes() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        fx.write(file, 2 * P, &[1; 10]).unwrap();
        fx.write(file, 9 * P, &[1; 10]).unwrap();
        let end = 9 * P + 10;
        for (offset, data, hole) in [
            (0, Ok(2 * P), Ok(0)),
            (P + 5, Ok(2 * P), Ok(P + 5)),
            (2 * P + 3, Ok(2 * P + 3), Ok(3 * P)),
            (3 * P, Ok(9 * P), Ok(3 * P)),
            (9 * P + 1, Ok(9 * P + 1), Ok(end)),
            (end, Err(Errno::ENXIO), Err(Errno::ENXIO)),
            (u64::MAX, Err(Errno::ENXIO), Err(Errno::ENXIO)),
        ] {
            assert_eq!(seek(&fx, file, offset, SeekTo::Data), data, "{offset}");
            assert_eq!(seek(&fx, file, offset, SeekTo::Hole), hole, "{offset}");
        }
        let mut set = SetAttr::new();
        set.size = Some(20 * P);
        fx.fs.setattr(&root(), file, &set).unwrap();
        assert_eq!(seek(&fx, file, 10 * P, SeekTo::Data), Err(Errno::ENXIO));
        assert_eq!(seek(&fx, ROOT, 0, SeekTo::Data), Err(Errno::EISDIR));
    }

    #[test]
    fn copy_of_whole_pages_shares_them_until_one_side_writes() {
        let fx = Fixture::new();
        let (from, to) = (numbered(&fx, "f", 6), fx.file(ROOT, "g"));
        assert_eq!(copy(&fx, (from, P), (to, 2 * P), 4 * P), Ok(4 * PAGE));
        assert_eq!(pages(&fx, to), [0, 0, 2, 3, 4, 5]);
        {
            let (a, b) = (fx.fs.node(from).unwrap(), fx.fs.node(to).unwrap());
            let (a, b) = (a.read(), b.read());
            let chunk = |f: &File, page| f.extents.share(page).unwrap();
            let shared = chunk(a.file().unwrap(), 1);
            assert!(std::sync::Arc::ptr_eq(&shared, &chunk(b.file().unwrap(), 2)));
        }
        fx.write(from, P, &[99; 10]).unwrap();
        assert_eq!(pages(&fx, to), [0, 0, 2, 3, 4, 5]);
        fallocate(&fx, to, M::UNSHARE_RANGE, 0, 6 * P).unwrap();
        assert_eq!(pages(&fx, to), [0, 0, 2, 3, 4, 5]);
    }

    #[test]
    fn copy_of_any_range_equals_a_read_and_a_write() {
        let fx = Fixture::new();
        let from = fx.file(ROOT, "f");
        let data: Vec<u8> = (0..60_000_u32).map(|i| (i / 3) as u8).collect();
        fx.write(from, 8192, &data).unwrap();
        let whole = fx.read(from, 0, 100_000).unwrap();
        for (i, (at, to_at, len)) in [
            (0, 0, 100_000),
            (1, 1, 50_000),
            (5, 7, 50_000),
            (8191, 4095, 20_000),
            (60_000, 3, 1 << 40),
            (100, 0, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let to = fx.file(ROOT, &format!("to{i}"));
            fx.write(to, 0, &[7; 30_000]).unwrap();
            let mut expected = fx.read(to, 0, 30_000).unwrap();
            let part = &whole[at..whole.len().min(at + len)];
            expected.resize(expected.len().max(to_at + part.len()), 0);
            expected[to_at..to_at + part.len()].copy_from_slice(part);
            let copied = copy(&fx, (from, at as u64), (to, to_at as u64), len as u64);
            assert_eq!(copied, Ok(part.len()));
            assert!(fx.read(to, 0, 200_000).unwrap() == expected, "{at} {to_at} {len}");
        }
    }

    #[test]
    fn copy_within_one_file_works_unless_it_overlaps() {
        let fx = Fixture::new();
        let file = numbered(&fx, "f", 4);
        assert_eq!(copy(&fx, (file, 0), (file, P), 2 * P), Err(Errno::EINVAL));
        assert_eq!(copy(&fx, (file, 0), (file, 0), 1), Err(Errno::EINVAL));
        assert_eq!(copy(&fx, (file, 0), (file, 2 * P), 2 * P), Ok(2 * PAGE));
        assert_eq!(pages(&fx, file), [1, 2, 1, 2]);
    }

    #[test]
    fn copy_at_the_ends_is_short_or_refused() {
        let fx = Fixture::new();
        let (from, to) = (numbered(&fx, "f", 1), fx.file(ROOT, "g"));
        assert_eq!(copy(&fx, (from, P), (to, 0), 10), Ok(0));
        assert_eq!(copy(&fx, (from, u64::MAX), (to, 0), u64::MAX), Ok(0));
        assert_eq!(copy(&fx, (from, 0), (to, u64::MAX), 1), Err(Errno::EFBIG));
        assert_eq!(copy(&fx, (from, 0), (to, MAX_FILE - 3), P), Ok(3));
        assert_eq!(copy(&fx, (ROOT, 0), (to, 0), 1), Err(Errno::EISDIR));
        assert_eq!(copy(&fx, (from, 0), (ROOT, 0), 1), Err(Errno::EISDIR));
    }

    #[test]
    fn copy_in_a_full_filesystem_copies_what_fits() {
        let fx = Fixture::with(|b| b.capacity(256.kib()));
        let (from, to) = (numbered(&fx, "f", 40), fx.file(ROOT, "g"));
        let copied = copy(&fx, (from, 0), (to, 0), 40 * P).unwrap();
        assert!(copied > 0 && copied < 40 * PAGE);
        assert_eq!(fx.attr(to).size, copied as u64);
        let rest = copy(&fx, (from, copied as u64), (to, copied as u64), P);
        assert_eq!(rest, Err(Errno::ENOSPC));
    }
}
