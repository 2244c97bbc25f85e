//! Reading and writing: open(2), pread(2), pwrite(2), fsync(2).

use stratafs_core::{Errno, OpenFlags};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds, refused, refused_any};

const FAMILY: Family = Family::File;

pub(super) const CASES: &[Case] = &[
    case!(open_of_an_absent_name_returns_enoent),
    case!(open_of_a_directory_for_writing_returns_eisdir),
    case!(open_with_trunc_cuts_the_file),
    case!(open_twice_shows_one_data),
    case!(read_of_an_empty_file_gives_nothing),
    case!(read_at_the_end_gives_nothing),
    case!(read_beyond_the_end_gives_nothing),
    case!(read_across_the_end_is_short),
    case!(read_from_the_middle_gives_what_is_there),
    case!(read_of_a_megabyte_in_one_call_is_whole),
    case!(read_of_zero_bytes_gives_nothing),
    case!(read_through_a_write_only_handle_returns_ebadf),
    case!(write_then_read_gives_the_data_back),
    case!(write_in_the_middle_keeps_what_is_around),
    case!(write_behind_the_end_leaves_zeros_between),
    case!(write_of_zero_bytes_changes_nothing),
    case!(write_of_zero_bytes_behind_the_end_does_not_extend),
    case!(write_through_a_read_only_handle_returns_ebadf),
    case!(write_around_page_boundaries_keeps_every_byte),
    case!(write_of_a_megabyte_reads_back_whole),
    case!(write_at_many_offsets_matches_a_buffer),
    case!(write_by_one_handle_shows_in_another),
    case!(write_survives_close_and_open),
    case!(write_of_the_last_byte_of_a_page_extends_by_one),
    case!(write_with_sync_flag_works),
    case!(append_goes_to_the_end),
    case!(append_ignores_the_offset),
    case!(append_by_two_handles_loses_nothing),
    case!(append_after_truncate_goes_to_the_new_end),
    case!(truncate_under_an_open_handle_shows_at_once),
    case!(fsync_of_a_file_works),
    case!(fsync_of_a_directory_works),
    case!(fsync_of_an_unlinked_file_works),
    case!(close_of_one_handle_leaves_the_other_open),
    case!(chmod_to_nothing_keeps_an_open_handle_working),
    case!(file_of_mode_0_is_writable_to_root, PRIVILEGE),
];

fn open_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.open("absent", OpenFlags::READ_ONLY), Errno::ENOENT)?;
    refused(w.open("absent", OpenFlags::READ_WRITE), Errno::ENOENT)
}

fn open_of_a_directory_for_writing_returns_eisdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    refused(w.open("d", OpenFlags::WRITE_ONLY), Errno::EISDIR)?;
    refused(w.open("d", OpenFlags::READ_WRITE), Errno::EISDIR)
}

fn open_with_trunc_cuts_the_file(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_WRITE.with_truncate())?;
    equal(w.fstat(fd)?.size, 0, "size")?;
    equal(w.read_fd(fd)?, b"", "the data")?;
    w.close(fd)?;
    equal(w.stat("f")?.size, 0, "size")
}

fn open_twice_shows_one_data(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let one = w.open("f", OpenFlags::READ_ONLY)?;
    let two = w.open("f", OpenFlags::READ_ONLY)?;
    equal(w.read_fd(one)?, w.read_fd(two)?, "the data")?;
    equal(w.fstat(one)?.ino, w.fstat(two)?.ino, "the inode number")?;
    w.close(one)?;
    w.close(two)?;
    Ok(())
}

fn read_of_an_empty_file_gives_nothing(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    equal(w.read("f")?, b"", "the data")
}

/// Reads `len` bytes at `offset` of a file that holds `0123456789`.
fn read_digits(w: &World<'_>, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    let data = w.pread(fd, offset, len)?;
    w.close(fd)?;
    Ok(data)
}

fn read_at_the_end_gives_nothing(w: &World<'_>) -> Verdict {
    equal(read_digits(w, 10, 5)?, b"", "the data")
}

fn read_beyond_the_end_gives_nothing(w: &World<'_>) -> Verdict {
    equal(read_digits(w, 1 << 40, 5)?, b"", "the data")
}

fn read_across_the_end_is_short(w: &World<'_>) -> Verdict {
    equal(read_digits(w, 7, 100)?, b"789", "the data")
}

fn read_from_the_middle_gives_what_is_there(w: &World<'_>) -> Verdict {
    equal(read_digits(w, 3, 4)?, b"3456", "the data")
}

/// A read is short at the end of the file only.
fn read_of_a_megabyte_in_one_call_is_whole(w: &World<'_>) -> Verdict {
    let data = pattern(1 << 20);
    w.file("f", &data)?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    equal(w.pread(fd, 0, data.len())?.len(), data.len(), "bytes read")?;
    equal(w.pread(fd, 1000, 5000)?, &data[1000..6000], "the data in the middle")?;
    w.close(fd)?;
    Ok(())
}

fn read_of_zero_bytes_gives_nothing(w: &World<'_>) -> Verdict {
    equal(read_digits(w, 3, 0)?, b"", "the data")
}

fn read_through_a_write_only_handle_returns_ebadf(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY)?;
    refused(w.pread(fd, 0, 4), Errno::EBADF)?;
    w.close(fd)?;
    Ok(())
}

fn write_then_read_gives_the_data_back(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    equal(w.pwrite(fd, 0, b"some data")?, 9, "bytes written")?;
    equal(w.pread(fd, 0, 100)?, b"some data", "the data")?;
    equal(w.fstat(fd)?.size, 9, "size")?;
    w.close(fd)?;
    Ok(())
}

fn write_in_the_middle_keeps_what_is_around(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    w.write_at("f", 3, b"abc")?;
    equal(w.read("f")?, b"012abc6789", "the data")
}

fn write_behind_the_end_leaves_zeros_between(w: &World<'_>) -> Verdict {
    w.file("f", b"a")?;
    w.write_at("f", 9_000, b"b")?;
    let data = w.read("f")?;
    equal(data.len(), 9_001, "size")?;
    equal((data[0], data[9_000]), (b'a', b'b'), "what was written")?;
    holds(data[1..9_000].iter().all(|b| *b == 0), "the rest is zeros")
}

fn write_of_zero_bytes_changes_nothing(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let before = w.stat("f")?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY)?;
    equal(w.pwrite(fd, 2, b"")?, 0, "bytes written")?;
    w.close(fd)?;
    equal(w.read("f")?, b"data", "the data")?;
    equal(w.stat("f")?.mtime, before.mtime, "mtime")
}

fn write_of_zero_bytes_behind_the_end_does_not_extend(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY)?;
    equal(w.pwrite(fd, 10_000, b"")?, 0, "bytes written")?;
    equal(w.fstat(fd)?.size, 4, "size")?;
    w.close(fd)?;
    Ok(())
}

fn write_through_a_read_only_handle_returns_ebadf(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    refused(w.pwrite(fd, 0, b"no"), Errno::EBADF)?;
    refused_any(w.ftruncate(fd, 0), &[Errno::EINVAL, Errno::EBADF])?;
    w.close(fd)?;
    equal(w.read("f")?, b"data", "the data")
}

fn write_around_page_boundaries_keeps_every_byte(w: &World<'_>) -> Verdict {
    for (i, (offset, len)) in
        [(4095, 1), (4095, 2), (4096, 4096), (1, 8192), (8191, 4098), (65_535, 2)]
            .into_iter()
            .enumerate()
    {
        let name = format!("f{i}");
        let data: Vec<u8> = (0..len).map(|n: usize| (n % 251) as u8 + 1).collect();
        w.file(&name, b"")?;
        w.write_at(&name, offset, &data)?;
        let read = w.read(&name)?;
        let start = usize::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        equal(read.len(), start + len, "size")?;
        holds(read[..start].iter().all(|b| *b == 0), "what is before is zeros")?;
        holds(read[start..] == data[..], "what was written is there")?;
    }
    Ok(())
}

/// Bytes without a period that any page size divides.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 253) as u8 ^ (n >> 13) as u8).collect()
}

fn write_of_a_megabyte_reads_back_whole(w: &World<'_>) -> Verdict {
    let data = pattern(1 << 20);
    w.file("f", &data)?;
    holds(w.read("f")? == data, "what was written is there")
}

fn write_at_many_offsets_matches_a_buffer(w: &World<'_>) -> Verdict {
    let mut want: Vec<u8> = Vec::new();
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    let mut seed: u64 = 1;
    for step in 0..200_usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (seed >> 33) as usize % 60_000;
        let len = (seed >> 13) as usize % 9_000 + 1;
        let data: Vec<u8> = pattern(len).iter().map(|b| b.wrapping_add(step as u8)).collect();
        w.write_all(fd, offset as u64, &data)?;
        if want.len() < offset + len {
            want.resize(offset + len, 0);
        }
        want[offset..offset + len].copy_from_slice(&data);
    }
    holds(w.read_fd(fd)? == want, "the file is what a buffer became by the same writes")?;
    w.close(fd)?;
    Ok(())
}

fn write_by_one_handle_shows_in_another(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let reader = w.open("f", OpenFlags::READ_ONLY)?;
    let writer = w.open("f", OpenFlags::WRITE_ONLY)?;
    equal(w.read_fd(reader)?, b"data", "the data before")?;
    w.write_all(writer, 2, b"NEW")?;
    equal(w.read_fd(reader)?, b"daNEW", "the data after")?;
    equal(w.fstat(reader)?.size, 5, "size")?;
    w.close(reader)?;
    w.close(writer)?;
    Ok(())
}

fn write_survives_close_and_open(w: &World<'_>) -> Verdict {
    let data = pattern(50_000);
    w.file("f", &data)?;
    for _ in 0..3 {
        holds(w.read("f")? == data, "what was written is there")?;
    }
    Ok(())
}

fn write_of_the_last_byte_of_a_page_extends_by_one(w: &World<'_>) -> Verdict {
    w.file("f", &[b'x'; 4095])?;
    w.write_at("f", 4095, b"y")?;
    equal(w.stat("f")?.size, 4096, "size")?;
    w.write_at("f", 4096, b"z")?;
    equal(&w.read("f")?[4094..], b"xyz", "the end")
}

fn write_with_sync_flag_works(w: &World<'_>) -> Verdict {
    const O_DSYNC: u32 = 0o10_000;
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::from_raw(OpenFlags::READ_WRITE.raw() | O_DSYNC))?;
    w.write_all(fd, 0, b"DATA")?;
    equal(w.read_fd(fd)?, b"DATA", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn append_goes_to_the_end(w: &World<'_>) -> Verdict {
    w.file("f", b"one")?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY.with_append())?;
    w.write_all(fd, 3, b" two")?;
    w.write_all(fd, 7, b" three")?;
    w.close(fd)?;
    equal(w.read("f")?, b"one two three", "the data")
}

/// pwrite(2), BUGS: on Linux O_APPEND wins over the offset.
fn append_ignores_the_offset(w: &World<'_>) -> Verdict {
    w.file("f", b"one")?;
    let fd = w.open("f", OpenFlags::READ_WRITE.with_append())?;
    w.write_all(fd, 0, b" two")?;
    equal(w.read_fd(fd)?, b"one two", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn append_by_two_handles_loses_nothing(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let one = w.open("f", OpenFlags::WRITE_ONLY.with_append())?;
    let two = w.open("f", OpenFlags::WRITE_ONLY.with_append())?;
    for _ in 0..10 {
        w.write_all(one, 0, b"1")?;
        w.write_all(two, 0, b"2")?;
    }
    w.close(one)?;
    w.close(two)?;
    equal(w.read("f")?, b"12121212121212121212", "the data")
}

fn append_after_truncate_goes_to_the_new_end(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY.with_append())?;
    w.truncate("f", 2)?;
    w.write_all(fd, 10, b"x")?;
    w.close(fd)?;
    equal(w.read("f")?, b"01x", "the data")
}

fn truncate_under_an_open_handle_shows_at_once(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    equal(w.read_fd(fd)?.len(), 10, "what can be read before")?;
    w.truncate("f", 3)?;
    equal(w.read_fd(fd)?, b"012", "the data after")?;
    equal(w.fstat(fd)?.size, 3, "size")?;
    w.close(fd)?;
    Ok(())
}

fn fsync_of_a_file_works(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    w.write_all(fd, 0, b"data")?;
    w.fsync(fd, false)?;
    w.fsync(fd, true)?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn fsync_of_a_directory_works(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"")?;
    let fd = w.opendir("d")?;
    w.fsync(fd, false)?;
    w.fsync(fd, true)?;
    w.close(fd)?;
    Ok(())
}

fn fsync_of_an_unlinked_file_works(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    w.unlink("f")?;
    w.write_all(fd, 0, b"data")?;
    w.fsync(fd, false)?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn close_of_one_handle_leaves_the_other_open(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let one = w.open("f", OpenFlags::READ_ONLY)?;
    let two = w.open("f", OpenFlags::READ_WRITE)?;
    w.close(one)?;
    w.write_all(two, 0, b"D")?;
    equal(w.read_fd(two)?, b"Data", "the data")?;
    w.close(two)?;
    Ok(())
}

fn chmod_to_nothing_keeps_an_open_handle_working(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    w.chmod("f", 0)?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.write_all(fd, 0, b"D")?;
    w.close(fd)?;
    w.chmod("f", 0o600)?;
    equal(w.read("f")?, b"Data", "the data")
}

fn file_of_mode_0_is_writable_to_root(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.chmod("f", 0)?;
    w.write_at("f", 0, b"D")?;
    equal(w.read("f")?, b"Data", "the data")
}
