//! The tests of the parent module.

use stratafs_core::{
    CachePolicy, DynFileSystem, OpenedFlags, SetAttr, SliceSink, SliceSource, XattrMode, XattrName,
};

use super::*;
use crate::SizeExt;
use crate::test_util::{Fixture, ROOT, name, root};

const RW: OpenFlags = OpenFlags::READ_WRITE;

#[test]
fn open_of_what_is_no_file_is_refused() {
    let fx = Fixture::new();
    let fifo = fx.fs.mknod(&root(), ROOT, name("p"), 0o010_644, 0).unwrap().node;
    let open = |node| fx.fs.open(&root(), node, RW, false).map(drop).unwrap_err();
    assert_eq!(open(ROOT), Errno::EISDIR);
    assert_eq!(open(fifo), Errno::ENXIO);
    assert_eq!(open(NodeId(99)), Errno::ESTALE);
    assert_eq!(fx.read(ROOT, 0, 1), Err(Errno::EISDIR));
    assert_eq!(fx.read(fifo, 0, 1), Err(Errno::EINVAL));
    assert_eq!(fx.write(ROOT, 0, b"x"), Err(Errno::EISDIR));
    assert_eq!(fx.write(fifo, 0, b"x"), Err(Errno::EINVAL));
}

#[test]
fn handle_of_the_wrong_direction_or_node_is_ebadf() {
    let fx = Fixture::new();
    let (file, other) = (fx.file(ROOT, "f"), fx.file(ROOT, "g"));
    let read_only = fx.open(file, OpenFlags::READ_ONLY);
    let write_only = fx.open(file, OpenFlags::WRITE_ONLY);
    let plain = WriteFlags::empty();
    assert_eq!(fx.write_by(file, read_only, 0, b"x", plain), Err(Errno::EBADF));
    assert_eq!(fx.write_by(other, write_only, 0, b"x", plain), Err(Errno::EBADF));
    assert_eq!(fx.write_by(file, HandleId(99), 0, b"x", plain), Err(Errno::EBADF));
    assert_eq!(fx.write_by(file, write_only, 0, b"x", plain), Ok(1));
    let cached = fx.write_by(file, read_only, 0, b"x", WriteFlags::CACHE);
    assert_eq!(cached, Ok(1), "from the page cache the handle is a guess");
    let mut buf = [0; 1];
    let mut sink = SliceSink::new(&mut buf);
    let read = fx.fs.read(&root(), file, write_only, 0, 1, &mut sink);
    assert_eq!(read, Err(Errno::EBADF));
    assert_eq!(fx.close(other, read_only), Err(Errno::EBADF));
    assert_eq!(fx.close(file, read_only), Ok(()));
    assert_eq!(fx.close(file, read_only), Err(Errno::EBADF));
}

#[test]
fn open_flags_follow_the_cache_policy() {
    for (policy, flags) in [
        (CachePolicy::Always, OpenedFlags::KEEP_CACHE),
        (CachePolicy::Auto, OpenedFlags::empty()),
        (CachePolicy::Never, OpenedFlags::DIRECT_IO | OpenedFlags::PARALLEL_DIRECT_WRITES),
    ] {
        let fx = Fixture::with(|b| b.cache_policy(policy));
        let file = fx.file(ROOT, "f");
        assert_eq!(fx.fs.open(&root(), file, RW, false).unwrap().flags, flags);
    }
}

#[test]
fn open_with_truncate_cuts_and_kills_privileges_when_told() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 0, b"data").unwrap();
    let mut set = SetAttr::new();
    set.mode = Some(0o4755);
    fx.fs.setattr(&root(), file, &set).unwrap();
    let now = fx.tick();
    fx.fs.open(&root(), file, RW.with_truncate(), false).unwrap();
    let attr = fx.attr(file);
    assert_eq!((attr.size, attr.mode, attr.mtime), (0, 0o104_755, now));
    fx.fs.open(&root(), file, RW.with_truncate(), true).unwrap();
    assert_eq!(fx.attr(file).mode, 0o100_755);
}

#[test]
fn write_sets_times_size_and_blocks() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let now = fx.tick();
    assert_eq!(fx.write(file, 0, b"x"), Ok(1));
    let attr = fx.attr(file);
    assert_eq!((attr.size, attr.blocks, attr.mtime, attr.ctime), (1, 1, now, now));
    fx.write(file, 0, &[1; 8192]).unwrap();
    assert_eq!((fx.attr(file).size, fx.attr(file).blocks), (8192, 16));
}

#[test]
fn write_of_nothing_changes_nothing() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let before = (fx.attr(file), fx.usage());
    fx.tick();
    let flags = WriteFlags::KILL_PRIV;
    assert_eq!(fx.write_by(file, HandleId::NONE, 1 << 40, b"", flags), Ok(0));
    assert_eq!((fx.attr(file), fx.usage()), before);
}

#[test]
fn write_at_any_offset_and_length_reads_back_with_holes_between() {
    let fx = Fixture::with(|b| b.capacity(64.mib()));
    let file = fx.file(ROOT, "f");
    let data: Vec<u8> = (0..2_000_000_u32).map(|i| (i * 7 / 5) as u8 | 1).collect();
    let mut end = 0;
    for (offset, len) in
        [(3, 1), (4095, 2), (8192, 4096), (70_001, 1_500_000), (3_000_000, 129_000)]
    {
        assert_eq!(fx.write(file, offset, &data[..len]), Ok(len));
        assert!(fx.read(file, offset, len + 9).unwrap() == data[..len]);
        let gap = fx.read(file, end, (offset - end) as usize).unwrap();
        assert!(gap.iter().all(|b| *b == 0));
        end = offset + len as u64;
    }
    assert_eq!(fx.attr(file).size, end);
    assert_eq!(fx.read(file, end, 10).unwrap(), []);
    assert_eq!(fx.read(file, u64::MAX, usize::MAX >> 40).unwrap(), []);
}

#[test]
fn write_with_append_goes_to_the_end_wherever_it_points() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 0, b"abc").unwrap();
    fx.write_by(file, HandleId::NONE, 0, b"def", WriteFlags::APPEND).unwrap();
    assert_eq!(fx.read(file, 0, 9).unwrap(), b"abcdef");
}

#[test]
fn appends_of_many_threads_do_not_mix() {
    let fx = Fixture::with(|b| b.capacity(64.mib()));
    let file = fx.file(ROOT, "f");
    const LEN: usize = 300_000;
    std::thread::scope(|scope| {
        for byte in 1..=4_u8 {
            let fx = &fx;
            scope.spawn(move || {
                for _ in 0..8 {
                    let data = vec![byte; LEN];
                    let by = HandleId::NONE;
                    assert_eq!(fx.write_by(file, by, 0, &data, WriteFlags::APPEND), Ok(LEN));
                }
            });
        }
    });
    let all = fx.read(file, 0, 33 * LEN).unwrap();
    assert_eq!(all.len(), 32 * LEN);
    for part in all.chunks(LEN) {
        assert!(part.iter().all(|byte| *byte == part[0]));
    }
}

#[test]
fn write_at_the_end_of_the_number_line_is_efbig_or_cut() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let empty = fx.usage().bytes;
    assert_eq!(fx.write(file, 1 << 62, b"x"), Ok(1));
    assert!(fx.usage().bytes - empty < 8192);
    assert_eq!(fx.read(file, (1 << 62) - 1, 9).unwrap(), b"\0x");
    assert_eq!(fx.write(file, MAX_FILE - 2, b"abcd"), Ok(2));
    assert_eq!(fx.attr(file).size, MAX_FILE);
    for offset in [MAX_FILE, MAX_FILE + 1, u64::MAX] {
        assert_eq!(fx.write(file, offset, b"x"), Err(Errno::EFBIG));
    }
    assert_eq!(fx.write_by(file, HandleId::NONE, 0, b"x", WriteFlags::APPEND), Err(Errno::EFBIG));
}

#[test]
fn write_in_a_full_filesystem_writes_what_fits_and_then_nothing() {
    let fx = Fixture::with(|b| b.capacity(1.mib()));
    let file = fx.file(ROOT, "f");
    let data = vec![1; 2 << 20];
    let written = fx.write(file, 0, &data).unwrap();
    assert!((900_000..1 << 20).contains(&written), "{written}");
    assert_eq!(fx.attr(file).size, written as u64);
    assert_eq!(fx.write(file, written as u64, &data[..4096]), Err(Errno::ENOSPC));
    assert_eq!(fx.write(file, 0, &data[..written]), Ok(written), "overwriting takes nothing");
    let mut set = SetAttr::new();
    set.size = Some(0);
    fx.fs.setattr(&root(), file, &set).unwrap();
    assert_eq!(fx.write(file, 0, &data).unwrap(), written);
}

#[test]
fn write_with_kill_priv_clears_setuid_and_capabilities() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let mut set = SetAttr::new();
    set.mode = Some(0o6777);
    fx.fs.setattr(&root(), file, &set).unwrap();
    let capability = XattrName::new(b"security.capability").unwrap();
    fx.fs.setxattr(&root(), file, capability, b"c", XattrMode::Set, false).unwrap();
    fx.write(file, 0, b"x").unwrap();
    assert_eq!(fx.attr(file).mode, 0o106_777);
    fx.write_by(file, HandleId::NONE, 0, b"x", WriteFlags::KILL_PRIV).unwrap();
    assert_eq!(fx.attr(file).mode, 0o100_777);
    let left = fx.fs.getxattr(&root(), file, capability, &mut []);
    assert_eq!(left, Err(Errno::ENODATA));
}

/// A source that breaks after its first bytes.
struct Broken(usize);

impl WriteSource for Broken {
    fn remaining(&self) -> usize {
        1 << 20
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.0 == 0 {
            return Err(Errno::EFAULT);
        }
        let len = self.0.min(buf.len());
        self.0 -= len;
        buf[..len].fill(9);
        Ok(len)
    }

    fn read_to_fd(
        &mut self,
        _: std::os::fd::BorrowedFd<'_>,
        _: u64,
        _: usize,
        _: bool,
    ) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }
}

#[test]
fn write_whose_source_breaks_keeps_whole_steps_or_is_efault() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let write = |good| {
        let mut source = Broken(good);
        let flags = WriteFlags::empty();
        fx.fs.write(&root(), file, HandleId::NONE, 0, 1 << 20, flags, &mut source)
    };
    assert_eq!(write(100), Err(Errno::EFAULT));
    assert_eq!(fx.attr(file).size, 0);
    assert_eq!(write(WRITE_STEP + 1), Ok(WRITE_STEP));
    assert_eq!(fx.attr(file).size, WRITE_STEP as u64);
}

/// A source that reads another file, as a copy between filesystems does.
struct Nested<'a>(&'a Fixture, NodeId, usize);

impl WriteSource for Nested<'_> {
    fn remaining(&self) -> usize {
        self.2
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.2);
        let mut sink = SliceSink::new(&mut buf[..len]);
        let at = self.0.fs.read(&root(), self.1, HandleId::NONE, 0, len, &mut sink)?;
        // And writes, which needs a buffer of its own, and each file's lock free.
        self.0.write(self.1, 1 << 20, &[1; 100])?;
        self.2 -= at;
        Ok(at)
    }

    fn read_to_fd(
        &mut self,
        _: std::os::fd::BorrowedFd<'_>,
        _: u64,
        _: usize,
        _: bool,
    ) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }
}

#[test]
fn write_from_a_source_that_uses_the_same_file_works() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 0, b"nested").unwrap();
    let mut source = Nested(&fx, file, 6);
    let flags = WriteFlags::empty();
    let by = HandleId::NONE;
    assert_eq!(fx.fs.write(&root(), file, by, 10, 6, flags, &mut source), Ok(6));
    assert_eq!(fx.read(file, 10, 6).unwrap(), b"nested");
}

#[test]
fn read_updates_atime_as_relatime_does_and_leaves_ctime() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 0, b"x").unwrap();
    let now = fx.tick();
    fx.read(file, 0, 1).unwrap();
    fx.tick();
    fx.read(file, 0, 1).unwrap();
    let attr = fx.attr(file);
    assert_eq!(attr.atime, now, "once after a change");
    assert!(attr.ctime < now);
}

#[test]
fn read_stops_at_the_sinks_end() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 100_000, b"x").unwrap();
    let mut buf = [9; 10];
    let mut sink = SliceSink::new(&mut buf);
    let by = HandleId::NONE;
    assert_eq!(fx.fs.read(&root(), file, by, 0, usize::MAX, &mut sink), Ok(10));
    assert_eq!(buf, [0; 10]);
}

#[test]
fn write_is_bounded_by_size_and_source() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let (by, flags) = (HandleId::NONE, WriteFlags::empty());
    let mut source = SliceSource::new(b"abcdef");
    assert_eq!(fx.fs.write(&root(), file, by, 0, 4, flags, &mut source), Ok(4));
    assert_eq!(fx.fs.write(&root(), file, by, 4, usize::MAX, flags, &mut source), Ok(2));
    assert_eq!(fx.read(file, 0, 9).unwrap(), b"abcdef");
}
