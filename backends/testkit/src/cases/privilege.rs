//! Setuid and setgid bits, file capabilities, and what a setgid directory passes on.

use stratafs_core::{Errno, OpenFlags, XattrMode};

use crate::case::case;
use crate::{Caller, Case, Family, Verdict, World, equal, refused};

const FAMILY: Family = Family::Privilege;

pub(super) const CASES: &[Case] = &[
    case!(write_by_a_user_clears_setuid_and_setgid, KILL_PRIV | PRIVILEGE),
    case!(write_by_root_keeps_setuid_and_setgid, KILL_PRIV | PRIVILEGE),
    case!(write_by_a_member_keeps_setgid_without_group_execute, KILL_PRIV | PRIVILEGE),
    case!(write_of_zero_bytes_by_a_user_keeps_setuid, KILL_PRIV | PRIVILEGE),
    case!(write_by_a_user_removes_file_capabilities, KILL_PRIV | PRIVILEGE | XATTR_SECURITY),
    case!(truncate_by_a_user_clears_setuid_and_setgid, KILL_PRIV | PRIVILEGE),
    case!(truncate_by_root_keeps_setuid_and_setgid, KILL_PRIV | PRIVILEGE),
    case!(open_with_trunc_by_a_user_clears_setuid, KILL_PRIV | PRIVILEGE),
    case!(copy_range_by_a_user_clears_setuid, KILL_PRIV | PRIVILEGE | COPY_RANGE),
    case!(chown_clears_setuid_and_setgid, KILL_PRIV | PRIVILEGE),
    case!(chown_of_the_group_alone_clears_setuid, KILL_PRIV | PRIVILEGE),
    case!(chown_keeps_setgid_without_group_execute, KILL_PRIV | PRIVILEGE),
    case!(chown_of_a_directory_keeps_setuid_and_setgid, PRIVILEGE),
    case!(chown_removes_file_capabilities, KILL_PRIV | PRIVILEGE | XATTR_SECURITY),
    case!(chmod_by_an_owner_outside_the_group_clears_setgid, PRIVILEGE)
        .mounted("the kernel does it, which alone knows all groups of the caller"),
    case!(chmod_by_an_owner_within_the_group_keeps_setgid, PRIVILEGE),
    case!(rename_and_link_keep_setuid, PRIVILEGE | HARD_LINKS),
    case!(setgid_directory_gives_its_group_to_a_file, PRIVILEGE),
    case!(setgid_directory_gives_group_and_bit_to_a_directory, PRIVILEGE),
    case!(setgid_directory_gives_its_group_to_a_symlink, PRIVILEGE | SYMLINKS),
    case!(setgid_directory_gives_its_group_to_a_fifo, PRIVILEGE | SPECIAL_FILES),
    case!(setgid_directory_gives_its_group_to_a_tmpfile, PRIVILEGE | TMPFILE),
    case!(setgid_directory_strips_setgid_of_an_outsiders_executable, PRIVILEGE),
    case!(setgid_directory_keeps_setgid_of_a_members_executable, PRIVILEGE),
    case!(setgid_directory_keeps_group_of_what_is_renamed_into_it, PRIVILEGE),
    case!(plain_directory_gives_the_callers_group, PRIVILEGE),
    case!(permissions_refuse_what_the_mode_forbids, PRIVILEGE)
        .mounted("permissions are the kernel's"),
    case!(sticky_directory_refuses_to_remove_anothers_file, PRIVILEGE)
        .mounted("permissions are the kernel's"),
];

/// The file `f` of root with `mode` and `data` in it.
fn file_of_mode(w: &World<'_>, mode: u32) -> Result<(), Errno> {
    w.file("f", b"some data")?;
    w.chmod("f", mode)
}

const USER: u32 = 1000;

fn as_user(w: &World<'_>) -> Result<(), Errno> {
    w.set_caller(&Caller::user(USER, USER))
}

fn as_root(w: &World<'_>) -> Result<(), Errno> {
    w.set_caller(&Caller::ROOT)
}

fn write_by_a_user_clears_setuid_and_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6777)?;
    as_user(w)?;
    w.write_at("f", 0, b"new")?;
    equal(w.stat("f")?.mode, 0o100_777, "mode")?;
    equal(w.read("f")?, b"newe data", "the data")
}

fn write_by_root_keeps_setuid_and_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6777)?;
    w.write_at("f", 0, b"new")?;
    equal(w.stat("f")?.mode, 0o106_777, "mode")
}

/// Without the group's execute bit setgid is no privilege.
fn write_by_a_member_keeps_setgid_without_group_execute(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o644)?;
    w.chown("f", None, Some(USER))?;
    w.chmod("f", 0o6767)?;
    as_user(w)?;
    w.write_at("f", 0, b"new")?;
    equal(w.stat("f")?.mode, 0o102_767, "mode")
}

fn write_of_zero_bytes_by_a_user_keeps_setuid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o4777)?;
    as_user(w)?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY)?;
    equal(w.pwrite(fd, 0, b"")?, 0, "bytes written")?;
    w.close(fd)?;
    equal(w.stat("f")?.mode, 0o104_777, "mode")
}

/// `struct vfs_cap_data` of revision 2: CAP_CHOWN permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn write_by_a_user_removes_file_capabilities(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o777)?;
    w.setxattr("f", b"security.capability", &CAPABILITY, XattrMode::Set)?;
    equal(w.getxattr("f", b"security.capability")?, CAPABILITY, "the capability")?;
    as_user(w)?;
    w.write_at("f", 0, b"new")?;
    as_root(w)?;
    refused(w.getxattr("f", b"security.capability"), Errno::ENODATA)
}

fn truncate_by_a_user_clears_setuid_and_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6777)?;
    as_user(w)?;
    w.truncate("f", 3)?;
    let attr = w.stat("f")?;
    equal((attr.mode, attr.size), (0o100_777, 3), "mode and size")
}

fn truncate_by_root_keeps_setuid_and_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6777)?;
    w.truncate("f", 3)?;
    equal(w.stat("f")?.mode, 0o106_777, "mode")
}

fn open_with_trunc_by_a_user_clears_setuid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o4777)?;
    as_user(w)?;
    let fd = w.open("f", OpenFlags::WRITE_ONLY.with_truncate())?;
    w.close(fd)?;
    let attr = w.stat("f")?;
    equal((attr.mode, attr.size), (0o100_777, 0), "mode and size")
}

fn copy_range_by_a_user_clears_setuid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6777)?;
    w.file("from", b"source")?;
    as_user(w)?;
    let from = w.open("from", OpenFlags::READ_ONLY)?;
    let to = w.open("f", OpenFlags::READ_WRITE)?;
    equal(w.copy_range((from, 0), (to, 0), 6)?, 6, "bytes copied")?;
    w.close(from)?;
    w.close(to)?;
    equal(w.stat("f")?.mode, 0o100_777, "mode")
}

fn chown_clears_setuid_and_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6755)?;
    w.chown("f", Some(USER), Some(USER))?;
    equal(w.stat("f")?.mode, 0o100_755, "mode")
}

fn chown_of_the_group_alone_clears_setuid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o4755)?;
    w.chown("f", None, Some(USER))?;
    equal(w.stat("f")?.mode, 0o100_755, "mode")
}

fn chown_keeps_setgid_without_group_execute(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6745)?;
    w.chown("f", Some(USER), Some(USER))?;
    equal(w.stat("f")?.mode, 0o102_745, "mode")
}

fn chown_of_a_directory_keeps_setuid_and_setgid(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.chmod("d", 0o6755)?;
    w.chown("d", Some(USER), Some(USER))?;
    equal(w.stat("d")?.mode, 0o046_755, "mode")
}

fn chown_removes_file_capabilities(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o755)?;
    w.setxattr("f", b"security.capability", &CAPABILITY, XattrMode::Set)?;
    w.chown("f", Some(USER), Some(USER))?;
    refused(w.getxattr("f", b"security.capability"), Errno::ENODATA)
}

fn chmod_by_an_owner_outside_the_group_clears_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o755)?;
    w.chown("f", Some(USER), Some(2000))?;
    as_user(w)?;
    w.chmod("f", 0o2755)?;
    equal(w.stat("f")?.mode, 0o100_755, "mode")
}

fn chmod_by_an_owner_within_the_group_keeps_setgid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o755)?;
    w.chown("f", Some(USER), Some(USER))?;
    as_user(w)?;
    w.chmod("f", 0o6755)?;
    equal(w.stat("f")?.mode, 0o106_755, "mode")
}

fn rename_and_link_keep_setuid(w: &World<'_>) -> Verdict {
    file_of_mode(w, 0o6755)?;
    w.rename("f", "g")?;
    w.link("g", "h")?;
    equal(w.stat("h")?.mode, 0o106_755, "mode")
}

const GROUP: u32 = 3000;

/// The setgid directory `d` of group 3000, writable to all.
fn setgid_dir(w: &World<'_>) -> Result<(), Errno> {
    w.mkdir("d", 0o755)?;
    w.chown("d", None, Some(GROUP))?;
    w.chmod("d", 0o2777)
}

fn setgid_directory_gives_its_group_to_a_file(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    w.file("d/f", b"")?;
    let attr = w.stat("d/f")?;
    equal((attr.uid, attr.gid, attr.mode), (USER, GROUP, 0o100_644), "owner and mode")
}

fn setgid_directory_gives_group_and_bit_to_a_directory(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    w.mkdir("d/e", 0o755)?;
    let attr = w.stat("d/e")?;
    equal((attr.uid, attr.gid, attr.mode), (USER, GROUP, 0o042_755), "owner and mode")
}

fn setgid_directory_gives_its_group_to_a_symlink(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    w.symlink("x", "d/l")?;
    equal(w.stat("d/l")?.gid, GROUP, "the group")
}

fn setgid_directory_gives_its_group_to_a_fifo(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    w.mknod("d/p", 0o010_644, 0)?;
    equal(w.stat("d/p")?.gid, GROUP, "the group")
}

fn setgid_directory_gives_its_group_to_a_tmpfile(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    let fd = w.tmpfile("d", OpenFlags::READ_WRITE, 0o644)?;
    equal(w.fstat(fd)?.gid, GROUP, "the group")?;
    w.close(fd)?;
    Ok(())
}

fn setgid_directory_strips_setgid_of_an_outsiders_executable(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    as_user(w)?;
    let fd = w.create("d/f", OpenFlags::WRITE_ONLY, 0o2775)?;
    w.close(fd)?;
    let attr = w.stat("d/f")?;
    equal((attr.gid, attr.mode), (GROUP, 0o100_775), "group and mode")
}

fn setgid_directory_keeps_setgid_of_a_members_executable(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    w.set_caller(&Caller::user(USER, USER).in_group(GROUP))?;
    let fd = w.create("d/f", OpenFlags::WRITE_ONLY, 0o2775)?;
    w.close(fd)?;
    let attr = w.stat("d/f")?;
    equal((attr.gid, attr.mode), (GROUP, 0o102_775), "group and mode")
}

fn setgid_directory_keeps_group_of_what_is_renamed_into_it(w: &World<'_>) -> Verdict {
    setgid_dir(w)?;
    w.file("f", b"")?;
    w.mkdir("e", 0o755)?;
    w.rename("f", "d/f")?;
    w.rename("e", "d/e")?;
    equal((w.stat("d/f")?.gid, w.stat("d/e")?.gid), (0, 0), "the groups")?;
    equal(w.stat("d/e")?.mode, 0o040_755, "the directory's mode")
}

fn plain_directory_gives_the_callers_group(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.chown("d", None, Some(GROUP))?;
    w.chmod("d", 0o777)?;
    as_user(w)?;
    w.mkdir("d/e", 0o755)?;
    let attr = w.stat("d/e")?;
    equal((attr.gid, attr.mode), (USER, 0o040_755), "group and mode")
}

fn permissions_refuse_what_the_mode_forbids(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"data")?;
    w.chmod("d/f", 0o600)?;
    as_user(w)?;
    refused(w.open("d/f", OpenFlags::READ_ONLY), Errno::EACCES)?;
    refused(w.create("d/g", OpenFlags::WRITE_ONLY, 0o644), Errno::EACCES)?;
    refused(w.unlink("d/f"), Errno::EACCES)?;
    refused(w.chmod("d/f", 0o777), Errno::EPERM)?;
    refused(w.chown("d/f", Some(USER), None), Errno::EPERM)
}

fn sticky_directory_refuses_to_remove_anothers_file(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o1777)?;
    w.file("d/f", b"")?;
    as_user(w)?;
    refused(w.unlink("d/f"), Errno::EPERM)?;
    refused(w.rename("d/f", "d/g"), Errno::EPERM)?;
    w.file("d/own", b"")?;
    w.unlink("d/own")?;
    Ok(())
}
