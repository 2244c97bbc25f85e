//! Holes, allocation and copies of ranges: fallocate(2), lseek(2), copy_file_range(2).

use stratafs_core::{Errno, FallocateMode, OpenFlags, SeekTo};

use crate::case::case;
use crate::{Case, Family, Fd, Verdict, World, equal, holds, refused, refused_any};

const FAMILY: Family = Family::Sparse;

pub(super) const CASES: &[Case] = &[
    case!(allocate_extends_the_size_with_zeros, ALLOCATE),
    case!(allocate_within_the_size_keeps_the_data, ALLOCATE),
    case!(allocate_with_keep_size_keeps_the_size, ALLOCATE),
    case!(allocate_takes_blocks, ALLOCATE | SPARSE),
    case!(fallocate_of_an_empty_range_returns_einval, ALLOCATE),
    case!(fallocate_through_a_read_only_handle_returns_ebadf, ALLOCATE),
    case!(fallocate_beyond_the_largest_file_returns_efbig, ALLOCATE),
    case!(punch_hole_reads_as_zeros, PUNCH_HOLE),
    case!(punch_hole_in_parts_of_pages_zeros_just_those, PUNCH_HOLE),
    case!(punch_hole_across_the_end_keeps_the_size, PUNCH_HOLE),
    case!(punch_hole_behind_the_end_changes_nothing, PUNCH_HOLE),
    case!(punch_hole_gives_blocks_back, PUNCH_HOLE | SPARSE),
    case!(punch_hole_without_keep_size_is_refused, PUNCH_HOLE),
    case!(zero_range_reads_as_zeros, ZERO_RANGE),
    case!(zero_range_across_the_end_extends, ZERO_RANGE),
    case!(zero_range_with_keep_size_keeps_the_size, ZERO_RANGE),
    case!(collapse_range_moves_the_rest_down, COLLAPSE_RANGE),
    case!(collapse_range_off_the_blocks_returns_einval, COLLAPSE_RANGE),
    case!(collapse_range_that_reaches_the_end_returns_einval, COLLAPSE_RANGE),
    case!(insert_range_moves_the_rest_up, INSERT_RANGE),
    case!(insert_range_off_the_blocks_returns_einval, INSERT_RANGE),
    case!(insert_range_at_the_end_returns_einval, INSERT_RANGE),
    case!(seek_data_in_data_stays, SPARSE),
    case!(seek_hole_of_a_file_without_holes_is_its_end, SPARSE),
    case!(seek_finds_the_hole_between_two_data, SPARSE),
    case!(seek_at_the_end_returns_enxio, SPARSE),
    case!(seek_data_in_the_last_hole_returns_enxio, SPARSE),
    case!(seek_hole_in_a_hole_stays, SPARSE),
    case!(seek_finds_a_punched_hole, SPARSE | PUNCH_HOLE),
    case!(truncate_to_longer_takes_no_blocks, SPARSE),
    case!(write_far_behind_the_end_takes_few_blocks, SPARSE),
    case!(copy_range_copies_a_whole_file, COPY_RANGE),
    case!(copy_range_at_offsets_keeps_what_is_around, COPY_RANGE),
    case!(copy_range_behind_the_end_copies_nothing, COPY_RANGE),
    case!(copy_range_across_the_end_is_short, COPY_RANGE),
    case!(copy_range_extends_the_target, COPY_RANGE),
    case!(copy_range_within_one_file_copies, COPY_RANGE),
    case!(copy_range_onto_an_overlap_returns_einval, COPY_RANGE),
    case!(copy_range_into_a_read_only_handle_returns_ebadf, COPY_RANGE),
    case!(copy_range_keeps_source_and_target_apart, COPY_RANGE),
    case!(copy_range_of_holes_reads_as_zeros, COPY_RANGE),
];

/// A block of any filesystem here, and a multiple of each page.
const BLOCK: usize = 64 * 1024;
/// The same, as an offset.
const STEP: u64 = BLOCK as u64;

/// A file of `blocks` blocks, each full of its own letter from `a` on, open for reading and writing.
fn lettered(w: &World<'_>, name: &str, blocks: u8) -> Result<Fd, Errno> {
    let fd = w.create(name, OpenFlags::READ_WRITE.with_exclusive(), 0o644)?;
    for i in 0..blocks {
        w.write_all(fd, u64::from(i) * STEP, &[b'a' + i; BLOCK])?;
    }
    Ok(fd)
}

/// The file as runs of one byte each: `(byte, length)`.
fn runs(w: &World<'_>, fd: Fd) -> Result<Vec<(char, usize)>, Errno> {
    let mut runs: Vec<(char, usize)> = Vec::new();
    for byte in w.read_fd(fd)? {
        let byte = if byte == 0 { '-' } else { char::from(byte) };
        match runs.last_mut() {
            Some((last, len)) if *last == byte => *len += 1,
            _ => runs.push((byte, 1)),
        }
    }
    Ok(runs)
}

fn allocate_extends_the_size_with_zeros(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    w.fallocate(fd, FallocateMode::empty(), STEP, 2 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', 2 * BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn allocate_within_the_size_keeps_the_data(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    w.fallocate(fd, FallocateMode::empty(), 10, STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('b', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn allocate_with_keep_size_keeps_the_size(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    w.fallocate(fd, FallocateMode::KEEP_SIZE, 0, 4 * STEP)?;
    equal(w.fstat(fd)?.size, STEP, "size")?;
    w.ftruncate(fd, 2 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', BLOCK)], "the data after extending")?;
    w.close(fd)?;
    Ok(())
}

fn allocate_takes_blocks(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    w.fallocate(fd, FallocateMode::empty(), 0, 4 * STEP)?;
    holds(w.fstat(fd)?.blocks >= 4 * STEP / 512, "what is allocated is in st_blocks")?;
    w.close(fd)?;
    Ok(())
}

fn fallocate_of_an_empty_range_returns_einval(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    refused(w.fallocate(fd, FallocateMode::empty(), 0, 0), Errno::EINVAL)?;
    w.close(fd)?;
    Ok(())
}

fn fallocate_through_a_read_only_handle_returns_ebadf(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    refused(w.fallocate(fd, FallocateMode::empty(), 0, 100), Errno::EBADF)?;
    equal(w.fstat(fd)?.size, 4, "size")?;
    w.close(fd)?;
    Ok(())
}

fn fallocate_beyond_the_largest_file_returns_efbig(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    let most = i64::MAX.cast_unsigned();
    let far = w.fallocate(fd, FallocateMode::empty(), most - 10, 100);
    refused_any(far, &[Errno::EFBIG, Errno::EINVAL])?;
    equal(w.fstat(fd)?.size, STEP, "size")?;
    w.close(fd)?;
    Ok(())
}

const PUNCH: FallocateMode = FallocateMode::PUNCH_HOLE.union(FallocateMode::KEEP_SIZE);

fn punch_hole_reads_as_zeros(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 3)?;
    w.fallocate(fd, PUNCH, STEP, STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', BLOCK), ('c', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn punch_hole_in_parts_of_pages_zeros_just_those(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    w.fallocate(fd, PUNCH, 100, 50)?;
    w.fallocate(fd, PUNCH, STEP - 10, 20)?;
    let want = [('a', 100), ('-', 50), ('a', BLOCK - 160), ('-', 20), ('b', BLOCK - 10)];
    equal(runs(w, fd)?, want, "the data")?;
    w.close(fd)?;
    Ok(())
}

fn punch_hole_across_the_end_keeps_the_size(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    w.fallocate(fd, PUNCH, STEP + 1, 10 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('b', 1), ('-', BLOCK - 1)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn punch_hole_behind_the_end_changes_nothing(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    w.fallocate(fd, PUNCH, 4 * STEP, STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn punch_hole_gives_blocks_back(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 4)?;
    w.fsync(fd, false)?;
    let before = w.fstat(fd)?.blocks;
    w.fallocate(fd, PUNCH, STEP, 2 * STEP)?;
    equal(w.fstat(fd)?.blocks, before - 2 * STEP / 512, "blocks")?;
    w.close(fd)?;
    Ok(())
}

fn punch_hole_without_keep_size_is_refused(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    let punched = w.fallocate(fd, FallocateMode::PUNCH_HOLE, 0, STEP);
    refused_any(punched, &[Errno::EOPNOTSUPP, Errno::EINVAL])?;
    equal(runs(w, fd)?, [('a', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn zero_range_reads_as_zeros(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 3)?;
    w.fallocate(fd, FallocateMode::ZERO_RANGE, STEP, STEP)?;
    w.fallocate(fd, FallocateMode::ZERO_RANGE, 10, 5)?;
    let want = [('a', 10), ('-', 5), ('a', BLOCK - 15), ('-', BLOCK), ('c', BLOCK)];
    equal(runs(w, fd)?, want, "the data")?;
    w.close(fd)?;
    Ok(())
}

fn zero_range_across_the_end_extends(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    w.fallocate(fd, FallocateMode::ZERO_RANGE, STEP, 3 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', 3 * BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn zero_range_with_keep_size_keeps_the_size(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    let mode = FallocateMode::ZERO_RANGE | FallocateMode::KEEP_SIZE;
    w.fallocate(fd, mode, STEP, 3 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn collapse_range_moves_the_rest_down(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 4)?;
    w.fallocate(fd, FallocateMode::COLLAPSE_RANGE, STEP, 2 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('d', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn collapse_range_off_the_blocks_returns_einval(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 4)?;
    refused(w.fallocate(fd, FallocateMode::COLLAPSE_RANGE, 7, STEP), Errno::EINVAL)?;
    refused(w.fallocate(fd, FallocateMode::COLLAPSE_RANGE, STEP, 7), Errno::EINVAL)?;
    equal(w.fstat(fd)?.size, 4 * STEP, "size")?;
    w.close(fd)?;
    Ok(())
}

fn collapse_range_that_reaches_the_end_returns_einval(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    refused(w.fallocate(fd, FallocateMode::COLLAPSE_RANGE, STEP, STEP), Errno::EINVAL)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('b', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn insert_range_moves_the_rest_up(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    w.fallocate(fd, FallocateMode::INSERT_RANGE, STEP, 2 * STEP)?;
    equal(runs(w, fd)?, [('a', BLOCK), ('-', 2 * BLOCK), ('b', BLOCK)], "the data")?;
    w.close(fd)?;
    Ok(())
}

fn insert_range_off_the_blocks_returns_einval(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    refused(w.fallocate(fd, FallocateMode::INSERT_RANGE, 7, STEP), Errno::EINVAL)?;
    refused(w.fallocate(fd, FallocateMode::INSERT_RANGE, STEP, 7), Errno::EINVAL)?;
    equal(w.fstat(fd)?.size, 2 * STEP, "size")?;
    w.close(fd)?;
    Ok(())
}

fn insert_range_at_the_end_returns_einval(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 2)?;
    refused(w.fallocate(fd, FallocateMode::INSERT_RANGE, 2 * STEP, STEP), Errno::EINVAL)?;
    equal(w.fstat(fd)?.size, 2 * STEP, "size")?;
    w.close(fd)?;
    Ok(())
}

/// A file that is data, 16 blocks of hole, data, open; made durable, so that a filesystem which
/// decides late has decided.
fn with_hole(w: &World<'_>) -> Result<Fd, Errno> {
    let fd = lettered(w, "f", 1)?;
    w.write_all(fd, 17 * STEP, &[b'z'; BLOCK])?;
    w.fsync(fd, false)?;
    Ok(fd)
}

fn seek_data_in_data_stays(w: &World<'_>) -> Verdict {
    let fd = with_hole(w)?;
    for offset in [0, 1, STEP - 1, 17 * STEP, 18 * STEP - 1] {
        equal(w.seek(fd, offset, SeekTo::Data)?, offset, "where data is")?;
    }
    w.close(fd)?;
    Ok(())
}

fn seek_hole_of_a_file_without_holes_is_its_end(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 3)?;
    w.write_all(fd, 3 * STEP, b"tail")?;
    w.fsync(fd, false)?;
    equal(w.seek(fd, 0, SeekTo::Hole)?, 3 * STEP + 4, "where a hole is")?;
    equal(w.seek(fd, STEP + 7, SeekTo::Hole)?, 3 * STEP + 4, "where a hole is")?;
    w.close(fd)?;
    Ok(())
}

fn seek_finds_the_hole_between_two_data(w: &World<'_>) -> Verdict {
    let fd = with_hole(w)?;
    let hole = w.seek(fd, 0, SeekTo::Hole)?;
    holds((STEP..17 * STEP).contains(&hole), "the hole is between the data")?;
    let data = w.seek(fd, hole, SeekTo::Data)?;
    holds((hole + 1..=17 * STEP).contains(&data), "the data goes on after it")?;
    equal(w.seek(fd, data.max(17 * STEP), SeekTo::Hole)?, 18 * STEP, "the end is a hole")?;
    w.close(fd)?;
    Ok(())
}

fn seek_at_the_end_returns_enxio(w: &World<'_>) -> Verdict {
    let fd = with_hole(w)?;
    for to in [SeekTo::Data, SeekTo::Hole] {
        refused(w.seek(fd, 18 * STEP, to), Errno::ENXIO)?;
        refused(w.seek(fd, 1 << 40, to), Errno::ENXIO)?;
    }
    w.close(fd)?;
    Ok(())
}

fn seek_data_in_the_last_hole_returns_enxio(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 1)?;
    w.ftruncate(fd, 16 * STEP)?;
    w.fsync(fd, false)?;
    refused(w.seek(fd, 8 * STEP, SeekTo::Data), Errno::ENXIO)?;
    w.close(fd)?;
    Ok(())
}

fn seek_hole_in_a_hole_stays(w: &World<'_>) -> Verdict {
    let fd = with_hole(w)?;
    equal(w.seek(fd, 8 * STEP + 5, SeekTo::Hole)?, 8 * STEP + 5, "where a hole is")?;
    w.close(fd)?;
    Ok(())
}

fn seek_finds_a_punched_hole(w: &World<'_>) -> Verdict {
    let fd = lettered(w, "f", 8)?;
    w.fsync(fd, false)?;
    w.fallocate(fd, PUNCH, 2 * STEP, 4 * STEP)?;
    equal(w.seek(fd, 0, SeekTo::Hole)?, 2 * STEP, "where the hole is")?;
    equal(w.seek(fd, 2 * STEP, SeekTo::Data)?, 6 * STEP, "where the data goes on")?;
    w.close(fd)?;
    Ok(())
}

fn truncate_to_longer_takes_no_blocks(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.truncate("f", 1 << 30)?;
    let attr = w.stat("f")?;
    equal(attr.size, 1 << 30, "size")?;
    holds(attr.blocks < 64, "a hole of 1 GiB takes no blocks")
}

fn write_far_behind_the_end_takes_few_blocks(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.write_at("f", 1 << 30, b"x")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    w.fsync(fd, false)?;
    let attr = w.fstat(fd)?;
    equal(attr.size, (1 << 30) + 1, "size")?;
    holds((1..4096).contains(&attr.blocks), "a byte behind a hole takes a block or some")?;
    equal(w.pread(fd, (1 << 30) - 2, 10)?, b"\0\0x", "the end")?;
    w.close(fd)?;
    Ok(())
}

/// Copies until `len` bytes are copied or no more come, and says how many that were.
fn copy_all(w: &World<'_>, from: (Fd, u64), to: (Fd, u64), len: u64) -> Result<u64, Errno> {
    let mut done = 0;
    while done < len {
        match w.copy_range((from.0, from.1 + done), (to.0, to.1 + done), len - done)? {
            0 => break,
            some => done += some as u64,
        }
    }
    Ok(done)
}

fn copy_range_copies_a_whole_file(w: &World<'_>) -> Verdict {
    let from = lettered(w, "a", 3)?;
    let to = w.create("b", OpenFlags::READ_WRITE, 0o644)?;
    equal(copy_all(w, (from, 0), (to, 0), 3 * STEP)?, 3 * STEP, "bytes copied")?;
    equal(runs(w, to)?, runs(w, from)?, "the data")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_at_offsets_keeps_what_is_around(w: &World<'_>) -> Verdict {
    w.file("a", b"0123456789")?;
    w.file("b", b"abcdefghij")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.open("b", OpenFlags::READ_WRITE)?;
    equal(copy_all(w, (from, 3), (to, 5), 2)?, 2, "bytes copied")?;
    equal(w.read_fd(to)?, b"abcde34hij", "the data")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_behind_the_end_copies_nothing(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.create("b", OpenFlags::READ_WRITE, 0o644)?;
    equal(w.copy_range((from, 4), (to, 0), 10)?, 0, "bytes copied from the end")?;
    equal(w.copy_range((from, 1000), (to, 10), 10)?, 0, "bytes copied from behind it")?;
    equal(w.fstat(to)?.size, 0, "size of the target")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_across_the_end_is_short(w: &World<'_>) -> Verdict {
    w.file("a", b"0123456789")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.create("b", OpenFlags::READ_WRITE, 0o644)?;
    equal(copy_all(w, (from, 6), (to, 0), 100)?, 4, "bytes copied")?;
    equal(w.read_fd(to)?, b"6789", "the data")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_extends_the_target(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.file("b", b"x")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.open("b", OpenFlags::READ_WRITE)?;
    equal(copy_all(w, (from, 0), (to, 5), 4)?, 4, "bytes copied")?;
    equal(w.read_fd(to)?, b"x\0\0\0\0data", "the data")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_within_one_file_copies(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    equal(copy_all(w, (fd, 0), (fd, 6), 4)?, 4, "bytes copied")?;
    equal(w.read_fd(fd)?, b"0123450123", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn copy_range_onto_an_overlap_returns_einval(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let one = w.open("f", OpenFlags::READ_WRITE)?;
    let two = w.open("f", OpenFlags::READ_WRITE)?;
    refused(w.copy_range((one, 0), (one, 2), 4), Errno::EINVAL)?;
    refused(w.copy_range((one, 4), (two, 2), 4), Errno::EINVAL)?;
    equal(w.read_fd(one)?, b"0123456789", "the data")?;
    w.close(one)?;
    w.close(two)?;
    Ok(())
}

fn copy_range_into_a_read_only_handle_returns_ebadf(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.file("b", b"")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.open("b", OpenFlags::READ_ONLY)?;
    refused(w.copy_range((from, 0), (to, 0), 4), Errno::EBADF)?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

/// However the storage is shared, a write to one side stays there.
fn copy_range_keeps_source_and_target_apart(w: &World<'_>) -> Verdict {
    let from = lettered(w, "a", 2)?;
    let to = w.create("b", OpenFlags::READ_WRITE, 0o644)?;
    copy_all(w, (from, 0), (to, 0), 2 * STEP)?;
    w.write_all(from, 10, b"SOURCE")?;
    w.write_all(to, STEP + 10, b"TARGET")?;
    w.ftruncate(from, STEP)?;
    equal(w.pread(to, 10, 6)?, b"aaaaaa", "the target where the source was written")?;
    equal(w.pread(to, STEP + 10, 6)?, b"TARGET", "the target where it was written")?;
    equal(w.pread(from, 10, 6)?, b"SOURCE", "the source")?;
    equal(w.fstat(to)?.size, 2 * STEP, "size of the target")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}

fn copy_range_of_holes_reads_as_zeros(w: &World<'_>) -> Verdict {
    let from = with_hole(w)?;
    let to = lettered(w, "b", 4)?;
    equal(copy_all(w, (from, 0), (to, 0), 18 * STEP)?, 18 * STEP, "bytes copied")?;
    let want = [('a', BLOCK), ('-', 16 * BLOCK), ('z', BLOCK)];
    equal(runs(w, to)?, want, "the data")?;
    w.close(from)?;
    w.close(to)?;
    Ok(())
}
