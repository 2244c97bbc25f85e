//! Files without a name: open(2) with O_TMPFILE.

use stratafs_core::{Errno, OpenFlags};

use crate::case::case;
use crate::{Caller, Case, Family, Verdict, World, equal, refused};

const FAMILY: Family = Family::Tmpfile;

pub(super) const CASES: &[Case] = &[
    case!(tmpfile_keeps_data_without_a_name, TMPFILE),
    case!(tmpfile_shows_nlink_0, TMPFILE),
    case!(tmpfile_linked_gets_its_first_name, TMPFILE),
    case!(tmpfile_linked_twice_has_two_names, TMPFILE | HARD_LINKS),
    case!(tmpfile_linked_over_a_name_returns_eexist, TMPFILE),
    case!(tmpfile_exclusive_cannot_be_linked, TMPFILE),
    case!(tmpfile_in_a_file_returns_enotdir, TMPFILE),
    case!(tmpfile_applies_the_umask, TMPFILE),
    case!(tmpfile_belongs_to_the_caller, TMPFILE | PRIVILEGE),
    case!(tmpfile_gives_its_space_back_at_close, TMPFILE | ACCOUNTING),
    case!(tmpfile_does_not_keep_its_directory_full, TMPFILE),
];

fn tmpfile_keeps_data_without_a_name(w: &World<'_>) -> Verdict {
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    w.write_all(fd, 0, b"data")?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    equal(w.names("")?, [""; 0], "the listing")?;
    w.close(fd)?;
    Ok(())
}

fn tmpfile_shows_nlink_0(w: &World<'_>) -> Verdict {
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    let attr = w.fstat(fd)?;
    equal((attr.nlink, attr.mode, attr.size), (0, 0o100_600, 0), "nlink, mode, size")?;
    w.close(fd)?;
    Ok(())
}

fn tmpfile_linked_gets_its_first_name(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    w.write_all(fd, 0, b"data")?;
    w.link_fd(fd, "d/named")?;
    equal(w.fstat(fd)?.nlink, 1, "nlink")?;
    equal(w.stat("d/named")?.ino, w.fstat(fd)?.ino, "the inode number")?;
    w.close(fd)?;
    equal(w.read("d/named")?, b"data", "the data")
}

fn tmpfile_linked_twice_has_two_names(w: &World<'_>) -> Verdict {
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    w.link_fd(fd, "a")?;
    w.link_fd(fd, "b")?;
    w.close(fd)?;
    equal(w.stat("a")?.nlink, 2, "nlink")
}

fn tmpfile_linked_over_a_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("a", b"kept")?;
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    refused(w.link_fd(fd, "a"), Errno::EEXIST)?;
    equal(w.fstat(fd)?.nlink, 0, "nlink")?;
    w.close(fd)?;
    equal(w.read("a")?, b"kept", "what was there")
}

fn tmpfile_exclusive_cannot_be_linked(w: &World<'_>) -> Verdict {
    let fd = w.tmpfile("", OpenFlags::READ_WRITE.with_exclusive(), 0o600)?;
    refused(w.link_fd(fd, "a"), Errno::ENOENT)?;
    w.close(fd)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn tmpfile_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.tmpfile("f", OpenFlags::READ_WRITE, 0o600), Errno::ENOTDIR)
}

fn tmpfile_applies_the_umask(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o027))?;
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o666)?;
    equal(w.fstat(fd)?.mode, 0o100_640, "mode")?;
    w.close(fd)?;
    Ok(())
}

fn tmpfile_belongs_to_the_caller(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::user(1234, 5678))?;
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    let attr = w.fstat(fd)?;
    equal((attr.uid, attr.gid), (1234, 5678), "the owner")?;
    w.close(fd)?;
    Ok(())
}

fn tmpfile_gives_its_space_back_at_close(w: &World<'_>) -> Verdict {
    let before = w.statfs()?;
    let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
    w.write_all(fd, 0, &[b'x'; 1 << 18])?;
    w.close(fd)?;
    let free = || w.statfs().map(|stat| (stat.bfree, stat.ffree));
    w.settles(free, &(before.bfree, before.ffree), "what is free")
}

fn tmpfile_does_not_keep_its_directory_full(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let fd = w.tmpfile("d", OpenFlags::READ_WRITE, 0o600)?;
    w.rmdir("d")?;
    w.write_all(fd, 0, b"data")?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    Ok(())
}
