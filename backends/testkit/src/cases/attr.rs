//! Attributes: stat(2), chmod(2), chown(2), truncate(2), statfs(2).

use stratafs_core::{Errno, FileType, OpenFlags};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds, refused};

const FAMILY: Family = Family::Attr;

pub(super) const CASES: &[Case] = &[
    case!(stat_of_a_new_file_shows_its_attributes),
    case!(stat_of_a_new_directory_shows_its_attributes),
    case!(stat_of_a_symlink_shows_the_length_of_its_target, SYMLINKS),
    case!(stat_of_an_absent_name_returns_enoent),
    case!(stat_through_a_file_returns_enotdir),
    case!(stat_twice_shows_one_inode_number),
    case!(stat_of_two_files_shows_two_inode_numbers),
    case!(fstat_and_stat_agree),
    case!(chmod_sets_all_twelve_bits),
    case!(chmod_keeps_the_type),
    case!(chmod_of_a_directory_sets_its_mode),
    case!(chmod_of_an_open_file_shows_in_fstat),
    case!(chown_sets_user_and_group, PRIVILEGE),
    case!(chown_of_the_user_alone_keeps_the_group, PRIVILEGE),
    case!(chown_of_the_group_alone_keeps_the_user, PRIVILEGE),
    case!(chown_of_a_symlink_changes_the_link_itself, PRIVILEGE | SYMLINKS),
    case!(chown_to_large_ids_keeps_all_their_bits, PRIVILEGE),
    case!(truncate_to_shorter_cuts_the_data),
    case!(truncate_to_longer_extends_with_zeros),
    case!(truncate_shorter_then_longer_shows_zeros_and_no_old_data),
    case!(truncate_within_a_page_shows_zeros_after_extending),
    case!(truncate_to_the_same_size_keeps_the_data),
    case!(truncate_of_a_directory_returns_eisdir),
    case!(truncate_of_an_absent_name_returns_enoent),
    case!(ftruncate_cuts_an_open_file),
    case!(setattr_of_one_attribute_keeps_the_others),
    case!(statfs_tells_sane_counts),
    case!(statfs_goes_down_with_data_and_comes_back, ACCOUNTING),
    case!(statfs_counts_inodes_and_gives_them_back, ACCOUNTING),
    case!(stat_blocks_are_given_back_by_truncate, SPARSE),
    case!(nlink_of_a_directory_counts_its_subdirectories),
    case!(directory_nlink_is_not_changed_by_files),
];

fn stat_of_a_new_file_shows_its_attributes(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::WRITE_ONLY, 0o640)?;
    w.close(fd)?;
    let attr = w.stat("f")?;
    equal(attr.mode, 0o100_640, "mode")?;
    equal((attr.size, attr.nlink, attr.rdev), (0, 1, 0), "size, nlink, rdev")?;
    holds(attr.ino != 0, "the inode number is not 0")?;
    holds(attr.blksize.is_power_of_two(), "the block size is a power of two")
}

fn stat_of_a_new_directory_shows_its_attributes(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o750)?;
    let attr = w.stat("d")?;
    equal(attr.mode, 0o040_750, "mode")?;
    holds(attr.nlink == 2 || attr.nlink == 1, "nlink is 2, or 1 where none are counted")?;
    equal(attr.kind(), FileType::Directory, "the type")
}

fn stat_of_a_symlink_shows_the_length_of_its_target(w: &World<'_>) -> Verdict {
    w.symlink("some/where/else", "l")?;
    let attr = w.stat("l")?;
    equal(attr.mode, 0o120_777, "mode")?;
    equal((attr.size, attr.nlink), (15, 1), "size, nlink")
}

fn stat_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.stat("absent"), Errno::ENOENT)?;
    refused(w.stat("absent/below"), Errno::ENOENT)
}

fn stat_through_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.stat("f/below"), Errno::ENOTDIR)
}

fn stat_twice_shows_one_inode_number(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.mkdir("d", 0o755)?;
    let first = (w.stat("f")?.ino, w.stat("d")?.ino);
    equal((w.stat("f")?.ino, w.stat("d")?.ino), first, "the inode numbers")
}

fn stat_of_two_files_shows_two_inode_numbers(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("b", b"")?;
    w.mkdir("d", 0o755)?;
    let (a, b, d) = (w.stat("a")?.ino, w.stat("b")?.ino, w.stat("d")?.ino);
    holds(a != b && b != d && a != d, "three objects have three inode numbers")
}

fn fstat_and_stat_agree(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    equal(w.fstat(fd)?, w.stat("f")?, "fstat")?;
    w.close(fd)?;
    Ok(())
}

fn chmod_sets_all_twelve_bits(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    for mode in [0o7777, 0o0000, 0o4711, 0o2755, 0o1644, 0o0644] {
        w.chmod("f", mode)?;
        equal(w.stat("f")?.mode, 0o100_000 | mode, "mode")?;
    }
    Ok(())
}

fn chmod_keeps_the_type(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    // The kernel passes S_IFMT bits of the old mode or none; whatever comes, the type stays.
    w.chmod("d", 0o700)?;
    equal(w.stat("d")?.kind(), FileType::Directory, "the type")?;
    w.mkdir("d/still", 0o755)?;
    equal(w.names("d")?, ["still"], "the directory")
}

fn chmod_of_a_directory_sets_its_mode(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.chmod("d", 0o1777)?;
    equal(w.stat("d")?.mode, 0o041_777, "mode")?;
    w.chmod("d", 0o3707)?;
    equal(w.stat("d")?.mode, 0o043_707, "mode")
}

fn chmod_of_an_open_file_shows_in_fstat(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    w.chmod("f", 0o600)?;
    equal(w.fstat(fd)?.mode, 0o100_600, "mode")?;
    w.close(fd)?;
    Ok(())
}

fn chown_sets_user_and_group(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.mkdir("d", 0o755)?;
    for name in ["f", "d"] {
        w.chown(name, Some(1234), Some(5678))?;
        let attr = w.stat(name)?;
        equal((attr.uid, attr.gid), (1234, 5678), "the owner")?;
    }
    Ok(())
}

fn chown_of_the_user_alone_keeps_the_group(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.chown("f", Some(10), Some(20))?;
    w.chown("f", Some(11), None)?;
    let attr = w.stat("f")?;
    equal((attr.uid, attr.gid), (11, 20), "the owner")
}

fn chown_of_the_group_alone_keeps_the_user(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.chown("f", Some(10), Some(20))?;
    w.chown("f", None, Some(21))?;
    let attr = w.stat("f")?;
    equal((attr.uid, attr.gid), (10, 21), "the owner")
}

fn chown_of_a_symlink_changes_the_link_itself(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.symlink("f", "l")?;
    w.chown("l", Some(10), Some(20))?;
    equal((w.stat("l")?.uid, w.stat("l")?.gid), (10, 20), "the link's owner")?;
    equal((w.stat("f")?.uid, w.stat("f")?.gid), (0, 0), "the target's owner")
}

fn chown_to_large_ids_keeps_all_their_bits(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.chown("f", Some(0xFFFF_FFFE), Some(0x8000_0001))?;
    let attr = w.stat("f")?;
    equal((attr.uid, attr.gid), (0xFFFF_FFFE, 0x8000_0001), "the owner")
}

fn truncate_to_shorter_cuts_the_data(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    w.truncate("f", 4)?;
    equal(w.stat("f")?.size, 4, "size")?;
    equal(w.read("f")?, b"0123", "the data")?;
    w.truncate("f", 0)?;
    equal(w.read("f")?, b"", "the data")
}

fn truncate_to_longer_extends_with_zeros(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.truncate("f", 10_000)?;
    equal(w.stat("f")?.size, 10_000, "size")?;
    let data = w.read("f")?;
    equal(data.len(), 10_000, "what can be read")?;
    equal(&data[..4], b"data", "the data")?;
    holds(data[4..].iter().all(|b| *b == 0), "the rest is zeros")
}

fn truncate_shorter_then_longer_shows_zeros_and_no_old_data(w: &World<'_>) -> Verdict {
    w.file("f", &[b'x'; 20_000])?;
    w.truncate("f", 5_000)?;
    w.truncate("f", 20_000)?;
    let data = w.read("f")?;
    equal(data.len(), 20_000, "what can be read")?;
    holds(data[..5_000].iter().all(|b| *b == b'x'), "what was kept is there")?;
    holds(data[5_000..].iter().all(|b| *b == 0), "what was cut is zeros")
}

fn truncate_within_a_page_shows_zeros_after_extending(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    w.truncate("f", 3)?;
    // A write behind the end extends as well as a truncate does.
    w.write_at("f", 8, b"8")?;
    equal(w.read("f")?, b"012\0\0\0\0\x008", "the data")
}

fn truncate_to_the_same_size_keeps_the_data(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.truncate("f", 4)?;
    equal(w.read("f")?, b"data", "the data")
}

fn truncate_of_a_directory_returns_eisdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    refused(w.truncate("d", 0), Errno::EISDIR)
}

fn truncate_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.truncate("absent", 0), Errno::ENOENT)
}

fn ftruncate_cuts_an_open_file(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    w.ftruncate(fd, 2)?;
    equal(w.fstat(fd)?.size, 2, "size")?;
    equal(w.read_fd(fd)?, b"01", "the data")?;
    w.ftruncate(fd, 4)?;
    equal(w.read_fd(fd)?, b"01\0\0", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn setattr_of_one_attribute_keeps_the_others(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let before = w.stat("f")?;
    w.chmod("f", 0o600)?;
    let after = w.stat("f")?;
    equal(
        (after.uid, after.gid, after.size, after.mtime, after.atime),
        (before.uid, before.gid, before.size, before.mtime, before.atime),
        "what chmod leaves alone",
    )?;
    w.truncate("f", 1)?;
    equal(w.stat("f")?.mode, 0o100_600, "what truncate leaves alone")
}

fn statfs_tells_sane_counts(w: &World<'_>) -> Verdict {
    let stat = w.statfs()?;
    holds(stat.frsize.is_power_of_two() && stat.bsize > 0, "the units are sizes")?;
    holds(stat.bfree <= stat.blocks, "no more is free than there is")?;
    holds(stat.bavail <= stat.bfree, "no more is available than is free")?;
    holds(stat.ffree <= stat.files, "no more inodes are free than there are")?;
    equal(stat.namelen, 255, "the longest name")
}

fn statfs_goes_down_with_data_and_comes_back(w: &World<'_>) -> Verdict {
    const SIZE: usize = 1 << 20;
    let before = w.statfs()?;
    w.file("f", &vec![b'x'; SIZE])?;
    let with = w.statfs()?;
    let used = (before.bfree - with.bfree) * u64::from(before.frsize);
    holds(used >= SIZE as u64, "1 MiB of data takes 1 MiB of what was free")?;
    w.unlink("f")?;
    w.settles(|| Ok(w.statfs()?.bfree), &before.bfree, "what is free when it is removed")
}

fn statfs_counts_inodes_and_gives_them_back(w: &World<'_>) -> Verdict {
    let before = w.statfs()?.ffree;
    for i in 0..10 {
        w.file(format!("f{i}"), b"")?;
    }
    equal(w.statfs()?.ffree, before - 10, "free inodes with ten files")?;
    for i in 0..10 {
        w.unlink(format!("f{i}"))?;
    }
    w.settles(|| Ok(w.statfs()?.ffree), &before, "free inodes without them")
}

fn stat_blocks_are_given_back_by_truncate(w: &World<'_>) -> Verdict {
    w.file("f", &[b'x'; 1 << 17])?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    w.fsync(fd, false)?;
    holds(w.fstat(fd)?.blocks >= 256, "128 KiB of data are at least 256 blocks")?;
    w.ftruncate(fd, 0)?;
    equal(w.fstat(fd)?.blocks, 0, "blocks of an empty file")?;
    w.close(fd)?;
    Ok(())
}

fn nlink_of_a_directory_counts_its_subdirectories(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let empty = w.stat("d")?.nlink;
    w.mkdir("d/a", 0o755)?;
    w.mkdir("d/b", 0o755)?;
    // 1 stands for "not counted", as on btrfs.
    equal(w.stat("d")?.nlink, if empty == 1 { 1 } else { 4 }, "nlink with two subdirectories")?;
    w.rmdir("d/a")?;
    equal(w.stat("d")?.nlink, if empty == 1 { 1 } else { 3 }, "nlink with one")
}

fn directory_nlink_is_not_changed_by_files(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let empty = w.stat("d")?.nlink;
    w.file("d/f", b"")?;
    equal(w.stat("d")?.nlink, empty, "nlink with a file")
}
