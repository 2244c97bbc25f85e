//! Making objects: open(2) with O_CREAT, mkdir(2).

use stratafs_core::{Errno, FileType, OpenFlags};

use crate::case::case;
use crate::{Caller, Case, Family, Verdict, World, equal, holds, refused};

const FAMILY: Family = Family::Create;

pub(super) const CASES: &[Case] = &[
    case!(create_of_a_new_name_makes_an_empty_file),
    case!(create_of_an_existing_name_opens_it),
    case!(create_of_an_existing_name_keeps_its_mode),
    case!(create_with_trunc_cuts_what_exists),
    case!(create_exclusive_of_a_new_name_makes_it),
    case!(create_exclusive_of_an_existing_file_returns_eexist),
    case!(create_exclusive_of_an_existing_directory_returns_eexist),
    case!(create_exclusive_over_a_dangling_symlink_returns_eexist, SYMLINKS),
    case!(create_over_a_directory_returns_eisdir),
    case!(create_in_an_absent_directory_returns_enoent),
    case!(create_in_a_file_returns_enotdir),
    case!(create_in_a_removed_directory_returns_enoent)
        .in_process("a kernel knows that the directory is dead, and asks nobody"),
    case!(create_with_a_read_only_mode_still_writes_through_its_handle),
    case!(create_applies_the_umask),
    case!(create_belongs_to_the_caller, PRIVILEGE),
    case!(create_after_unlink_makes_a_new_object),
    case!(create_failing_leaves_no_name),
    case!(mkdir_of_a_new_name_makes_an_empty_directory),
    case!(mkdir_of_an_existing_name_returns_eexist),
    case!(mkdir_over_a_symlink_returns_eexist, SYMLINKS),
    case!(mkdir_in_an_absent_directory_returns_enoent),
    case!(mkdir_in_a_file_returns_enotdir),
    case!(mkdir_in_a_removed_directory_returns_enoent)
        .in_process("a kernel knows that the directory is dead, and asks nobody"),
    case!(mkdir_applies_the_umask),
    case!(mkdir_keeps_the_sticky_bit),
    case!(mkdir_belongs_to_the_caller, PRIVILEGE),
    case!(mkdir_after_rmdir_makes_an_empty_directory),
    case!(mkdir_of_many_levels_can_be_walked),
];

fn create_of_a_new_name_makes_an_empty_file(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    equal(w.read_fd(fd)?, b"", "the data")?;
    w.write_all(fd, 0, b"data")?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    equal(w.names("")?, ["f"], "the listing")?;
    equal(w.stat("f")?.kind(), FileType::Regular, "the type")
}

fn create_of_an_existing_name_opens_it(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let ino = w.stat("f")?.ino;
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o600)?;
    equal(w.fstat(fd)?.ino, ino, "the inode number")?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    equal(w.names("")?, ["f"], "the listing")
}

/// The mode of an open with O_CREAT is for a new file alone; nor does the owner change.
fn create_of_an_existing_name_keeps_its_mode(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.chmod("f", 0o604)?;
    let before = w.stat("f")?;
    let fd = w.create("f", OpenFlags::READ_ONLY, 0o777)?;
    w.close(fd)?;
    let after = w.stat("f")?;
    equal(after.mode, 0o100_604, "mode")?;
    equal((after.uid, after.gid), (before.uid, before.gid), "the owner")
}

fn create_with_trunc_cuts_what_exists(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.create("f", OpenFlags::WRITE_ONLY.with_truncate(), 0o644)?;
    equal(w.fstat(fd)?.size, 0, "size")?;
    w.write_all(fd, 0, b"n")?;
    w.close(fd)?;
    equal(w.read("f")?, b"n", "the data")
}

fn create_exclusive_of_a_new_name_makes_it(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::WRITE_ONLY.with_exclusive(), 0o600)?;
    w.close(fd)?;
    equal(w.stat("f")?.mode, 0o100_600, "mode")
}

fn create_exclusive_of_an_existing_file_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let flags = OpenFlags::WRITE_ONLY.with_exclusive().with_truncate();
    refused(w.create("f", flags, 0o600), Errno::EEXIST)?;
    equal(w.read("f")?, b"data", "the data")
}

fn create_exclusive_of_an_existing_directory_returns_eexist(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let flags = OpenFlags::WRITE_ONLY.with_exclusive();
    refused(w.create("d", flags, 0o600), Errno::EEXIST)
}

fn create_exclusive_over_a_dangling_symlink_returns_eexist(w: &World<'_>) -> Verdict {
    w.symlink("absent", "l")?;
    let flags = OpenFlags::WRITE_ONLY.with_exclusive();
    refused(w.create("l", flags, 0o600), Errno::EEXIST)?;
    equal(w.names("")?, ["l"], "the listing")
}

fn create_over_a_directory_returns_eisdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    refused(w.create("d", OpenFlags::WRITE_ONLY, 0o600), Errno::EISDIR)
}

fn create_in_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.create("absent/f", OpenFlags::WRITE_ONLY, 0o600), Errno::ENOENT)
}

fn create_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.create("f/g", OpenFlags::WRITE_ONLY, 0o600), Errno::ENOTDIR)?;
    equal(w.names("")?, ["f"], "the listing")
}

fn create_in_a_removed_directory_returns_enoent(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.mkdir("d", 0o755)?;
    let dir = client.walk(&w.path("d"))?;
    w.rmdir("d")?;
    let name = stratafs_core::Name::new(b"f").map_err(Errno::from)?;
    let cx = client.context();
    let flags = OpenFlags::WRITE_ONLY;
    let made = client.fs().create(&cx, dir.node(), name, 0o600, flags, false);
    refused(made, Errno::ENOENT)
}

fn create_with_a_read_only_mode_still_writes_through_its_handle(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::WRITE_ONLY, 0o400)?;
    w.write_all(fd, 0, b"data")?;
    w.close(fd)?;
    equal(w.read("f")?, b"data", "the data")?;
    equal(w.stat("f")?.mode, 0o100_400, "mode")
}

fn create_applies_the_umask(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o027))?;
    let fd = w.create("f", OpenFlags::WRITE_ONLY, 0o666)?;
    w.close(fd)?;
    equal(w.stat("f")?.mode, 0o100_640, "mode")
}

fn create_belongs_to_the_caller(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::user(1234, 5678))?;
    let fd = w.create("f", OpenFlags::WRITE_ONLY, 0o600)?;
    w.close(fd)?;
    let attr = w.stat("f")?;
    equal((attr.uid, attr.gid), (1234, 5678), "the owner")
}

fn create_after_unlink_makes_a_new_object(w: &World<'_>) -> Verdict {
    w.file("f", b"old")?;
    let old = w.open("f", OpenFlags::READ_ONLY)?;
    w.unlink("f")?;
    w.file("f", b"new")?;
    holds(w.fstat(old)?.ino != w.stat("f")?.ino, "the new file has an inode number of its own")?;
    equal(w.read_fd(old)?, b"old", "the old file")?;
    equal(w.read("f")?, b"new", "the new file")?;
    w.close(old)?;
    Ok(())
}

fn create_failing_leaves_no_name(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.create("f/g", OpenFlags::WRITE_ONLY, 0o600), Errno::ENOTDIR)?;
    refused(w.mkdir("absent/d", 0o700), Errno::ENOENT)?;
    equal(w.names("")?, ["f"], "the listing")
}

fn mkdir_of_a_new_name_makes_an_empty_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o711)?;
    equal(w.stat("d")?.mode, 0o040_711, "mode")?;
    equal(w.names("d")?, [""; 0], "its entries")
}

fn mkdir_of_an_existing_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.mkdir("d", 0o755)?;
    w.file("d/inside", b"")?;
    refused(w.mkdir("f", 0o700), Errno::EEXIST)?;
    refused(w.mkdir("d", 0o700), Errno::EEXIST)?;
    equal(w.stat("d")?.mode, 0o040_755, "mode")?;
    equal(w.names("d")?, ["inside"], "its entries")
}

fn mkdir_over_a_symlink_returns_eexist(w: &World<'_>) -> Verdict {
    w.symlink("absent", "l")?;
    refused(w.mkdir("l", 0o700), Errno::EEXIST)?;
    equal(w.names("")?, ["l"], "the listing")
}

fn mkdir_in_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.mkdir("absent/d", 0o755), Errno::ENOENT)
}

fn mkdir_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.mkdir("f/d", 0o755), Errno::ENOTDIR)
}

fn mkdir_in_a_removed_directory_returns_enoent(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.mkdir("d", 0o755)?;
    let dir = client.walk(&w.path("d"))?;
    w.rmdir("d")?;
    let name = stratafs_core::Name::new(b"sub").map_err(Errno::from)?;
    refused(client.fs().mkdir(&client.context(), dir.node(), name, 0o755), Errno::ENOENT)
}

fn mkdir_applies_the_umask(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o077))?;
    w.mkdir("d", 0o777)?;
    equal(w.stat("d")?.mode, 0o040_700, "mode")
}

fn mkdir_keeps_the_sticky_bit(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o1777)?;
    equal(w.stat("d")?.mode, 0o041_777, "mode")
}

fn mkdir_belongs_to_the_caller(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::user(1234, 5678))?;
    w.mkdir("d", 0o755)?;
    let attr = w.stat("d")?;
    equal((attr.uid, attr.gid), (1234, 5678), "the owner")
}

fn mkdir_after_rmdir_makes_an_empty_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"")?;
    w.unlink("d/f")?;
    w.rmdir("d")?;
    w.mkdir("d", 0o755)?;
    equal(w.names("d")?, [""; 0], "its entries")?;
    refused(w.stat("d/f"), Errno::ENOENT)
}

fn mkdir_of_many_levels_can_be_walked(w: &World<'_>) -> Verdict {
    let mut path = String::from("0");
    w.mkdir(&path, 0o755)?;
    for level in 1..40 {
        path.push_str(&format!("/{level}"));
        w.mkdir(&path, 0o755)?;
    }
    w.file(format!("{path}/f"), b"deep")?;
    equal(w.read(format!("{path}/f"))?, b"deep", "the data")
}
