//! Hard links and symlinks: link(2), symlink(2), readlink(2).

use stratafs_core::{Errno, FileType, OpenFlags};

use crate::case::case;
use crate::{Caller, Case, Family, Verdict, World, equal, refused, refused_any};

const FAMILY: Family = Family::Link;

pub(super) const CASES: &[Case] = &[
    case!(link_of_a_file_gives_it_a_second_name, HARD_LINKS),
    case!(link_shares_data_and_mode, HARD_LINKS),
    case!(link_into_another_directory_keeps_the_inode_number, HARD_LINKS),
    case!(link_over_an_existing_name_returns_eexist, HARD_LINKS),
    case!(link_of_a_directory_returns_eperm, HARD_LINKS),
    case!(link_of_an_absent_name_returns_enoent, HARD_LINKS),
    case!(link_into_an_absent_directory_returns_enoent, HARD_LINKS),
    case!(link_into_a_file_returns_enotdir, HARD_LINKS),
    case!(link_of_a_symlink_links_the_symlink, HARD_LINKS | SYMLINKS),
    case!(link_of_a_fifo_gives_it_a_second_name, HARD_LINKS | SPECIAL_FILES),
    case!(link_of_an_unlinked_open_file_returns_enoent, HARD_LINKS),
    case!(link_of_an_open_file_gives_it_a_second_name, HARD_LINKS),
    case!(link_and_unlink_a_hundred_times_keep_nlink_right, HARD_LINKS),
    case!(link_keeps_the_owner, HARD_LINKS | PRIVILEGE),
    case!(symlink_keeps_its_target_as_it_is, SYMLINKS),
    case!(symlink_of_any_bytes_keeps_them, SYMLINKS | BYTE_NAMES),
    case!(symlink_of_4095_bytes_keeps_them, SYMLINKS),
    case!(symlink_of_4096_bytes_returns_enametoolong, SYMLINKS),
    case!(symlink_to_nothing_returns_enoent, SYMLINKS),
    case!(symlink_over_an_existing_name_returns_eexist, SYMLINKS),
    case!(symlink_in_an_absent_directory_returns_enoent, SYMLINKS),
    case!(symlink_in_a_file_returns_enotdir, SYMLINKS),
    case!(symlink_belongs_to_the_caller, SYMLINKS | PRIVILEGE),
    case!(symlink_ignores_the_umask, SYMLINKS),
    case!(symlink_in_a_loop_can_be_read_and_removed, SYMLINKS),
    case!(readlink_of_a_file_returns_einval),
    case!(readlink_of_an_absent_name_returns_enoent),
    case!(path_through_a_symlink_reaches_its_target, SYMLINKS)
        .mounted("following a symlink is the kernel's work"),
];

fn link_of_a_file_gives_it_a_second_name(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.link("a", "b")?;
    equal(w.names("")?, ["a", "b"], "the listing")?;
    let (a, b) = (w.stat("a")?, w.stat("b")?);
    equal((a.nlink, b.nlink), (2, 2), "nlink")?;
    equal(a.ino, b.ino, "the inode number")
}

fn link_shares_data_and_mode(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.link("a", "b")?;
    w.write_at("b", 4, b" more")?;
    equal(w.read("a")?, b"data more", "the data")?;
    w.chmod("a", 0o600)?;
    equal(w.stat("b")?.mode, 0o100_600, "mode")?;
    w.truncate("b", 2)?;
    equal(w.stat("a")?.size, 2, "size")
}

fn link_into_another_directory_keeps_the_inode_number(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("a", b"data")?;
    w.link("a", "d/b")?;
    equal(w.stat("d/b")?.ino, w.stat("a")?.ino, "the inode number")?;
    w.unlink("a")?;
    equal(w.read("d/b")?, b"data", "the data")
}

fn link_over_an_existing_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("a", b"one")?;
    w.file("b", b"two")?;
    w.mkdir("d", 0o755)?;
    refused(w.link("a", "b"), Errno::EEXIST)?;
    refused(w.link("a", "d"), Errno::EEXIST)?;
    refused(w.link("a", "a"), Errno::EEXIST)?;
    equal(w.read("b")?, b"two", "what was there")?;
    equal(w.stat("a")?.nlink, 1, "nlink")
}

fn link_of_a_directory_returns_eperm(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    refused(w.link("d", "e"), Errno::EPERM)?;
    equal(w.names("")?, ["d"], "the listing")
}

fn link_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.link("absent", "b"), Errno::ENOENT)
}

fn link_into_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    refused(w.link("a", "absent/b"), Errno::ENOENT)?;
    equal(w.stat("a")?.nlink, 1, "nlink")
}

fn link_into_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("f", b"")?;
    refused(w.link("a", "f/b"), Errno::ENOTDIR)?;
    equal(w.stat("a")?.nlink, 1, "nlink")
}

fn link_of_a_symlink_links_the_symlink(w: &World<'_>) -> Verdict {
    w.file("target", b"")?;
    w.symlink("target", "l")?;
    w.link("l", "m")?;
    equal(w.stat("m")?.kind(), FileType::Symlink, "the type")?;
    equal(w.stat("l")?.nlink, 2, "nlink of the link")?;
    equal(w.stat("target")?.nlink, 1, "nlink of the target")
}

fn link_of_a_fifo_gives_it_a_second_name(w: &World<'_>) -> Verdict {
    w.mknod("p", 0o010_644, 0)?;
    w.link("p", "q")?;
    let attr = w.stat("q")?;
    equal((attr.kind(), attr.nlink), (FileType::Fifo, 2), "type and nlink")
}

/// A file that lost its last name gets none again; only a tmpfile may.
fn link_of_an_unlinked_open_file_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    let fd = w.open("a", OpenFlags::READ_ONLY)?;
    w.unlink("a")?;
    refused(w.link_fd(fd, "b"), Errno::ENOENT)?;
    equal(w.fstat(fd)?.nlink, 0, "nlink")?;
    w.close(fd)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn link_of_an_open_file_gives_it_a_second_name(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    let fd = w.open("a", OpenFlags::READ_ONLY)?;
    w.link_fd(fd, "b")?;
    equal(w.fstat(fd)?.nlink, 2, "nlink")?;
    w.close(fd)?;
    equal(w.read("b")?, b"data", "the data")
}

fn link_and_unlink_a_hundred_times_keep_nlink_right(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    for i in 0..100 {
        w.link("a", format!("l{i}"))?;
    }
    equal(w.stat("a")?.nlink, 101, "nlink")?;
    for i in 0..100 {
        w.unlink(format!("l{i}"))?;
    }
    equal(w.stat("a")?.nlink, 1, "nlink")
}

fn link_keeps_the_owner(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.chown("a", Some(10), Some(20))?;
    w.link("a", "b")?;
    let attr = w.stat("b")?;
    equal((attr.uid, attr.gid), (10, 20), "the owner")
}

fn symlink_keeps_its_target_as_it_is(w: &World<'_>) -> Verdict {
    for (i, target) in ["x", "/", "/absolute/path", "../../up", "a//b/", "."].iter().enumerate() {
        let name = format!("l{i}");
        w.symlink(target, &name)?;
        equal(w.readlink(&name)?, target.as_bytes(), "the target")?;
        equal(w.stat(&name)?.size, target.len() as u64, "size")?;
    }
    Ok(())
}

fn symlink_of_any_bytes_keeps_them(w: &World<'_>) -> Verdict {
    let target: Vec<u8> = (1..=255).collect();
    w.symlink(&target, "l")?;
    equal(w.readlink("l")?, target, "the target")
}

fn symlink_of_4095_bytes_keeps_them(w: &World<'_>) -> Verdict {
    let target = vec![b't'; 4095];
    w.symlink(&target, "l")?;
    equal(w.readlink("l")?, target, "the target")
}

fn symlink_of_4096_bytes_returns_enametoolong(w: &World<'_>) -> Verdict {
    refused(w.symlink(vec![b't'; 4096], "l"), Errno::ENAMETOOLONG)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn symlink_to_nothing_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.symlink("", "l"), Errno::ENOENT)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn symlink_over_an_existing_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.symlink("absent", "l")?;
    refused(w.symlink("x", "f"), Errno::EEXIST)?;
    refused(w.symlink("x", "l"), Errno::EEXIST)?;
    equal(w.read("f")?, b"data", "the file")?;
    equal(w.readlink("l")?, b"absent", "the link")
}

fn symlink_in_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.symlink("x", "absent/l"), Errno::ENOENT)
}

fn symlink_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.symlink("x", "f/l"), Errno::ENOTDIR)
}

fn symlink_belongs_to_the_caller(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::user(1234, 5678))?;
    w.symlink("x", "l")?;
    let attr = w.stat("l")?;
    equal((attr.uid, attr.gid), (1234, 5678), "the owner")
}

fn symlink_ignores_the_umask(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o077))?;
    w.symlink("x", "l")?;
    equal(w.stat("l")?.mode, 0o120_777, "mode")
}

fn symlink_in_a_loop_can_be_read_and_removed(w: &World<'_>) -> Verdict {
    w.symlink("b", "a")?;
    w.symlink("a", "b")?;
    equal(w.readlink("a")?, b"b", "the link")?;
    refused_any(w.stat("a/x"), &[Errno::ELOOP, Errno::ENOTDIR])?;
    w.unlink("a")?;
    equal(w.names("")?, ["b"], "the listing")
}

fn readlink_of_a_file_returns_einval(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.mkdir("d", 0o755)?;
    refused(w.readlink("f"), Errno::EINVAL)?;
    refused(w.readlink("d"), Errno::EINVAL)
}

fn readlink_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.readlink("absent"), Errno::ENOENT)
}

fn path_through_a_symlink_reaches_its_target(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.mkdir("d/e", 0o755)?;
    w.file("d/e/f", b"data")?;
    w.symlink("d", "l")?;
    w.symlink("../d/e", "d/m")?;
    equal(w.read("l/m/f")?, b"data", "the data")?;
    w.unlink("l")?;
    refused(w.read("l/m/f"), Errno::ENOENT)
}
