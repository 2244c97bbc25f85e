//! Removing names: unlink(2), rmdir(2), and what stays usable afterwards.

use stratafs_core::{Errno, Name, OpenFlags};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, refused, refused_any};

const FAMILY: Family = Family::Remove;

pub(super) const CASES: &[Case] = &[
    case!(unlink_of_a_file_removes_its_name),
    case!(unlink_of_an_absent_name_returns_enoent),
    case!(unlink_of_a_directory_returns_eisdir),
    case!(unlink_of_a_symlink_keeps_its_target, SYMLINKS),
    case!(unlink_of_one_of_two_names_keeps_the_object, HARD_LINKS),
    case!(unlink_of_an_open_file_keeps_its_data),
    case!(unlink_of_an_open_file_keeps_it_writable),
    case!(unlink_of_an_open_file_shows_nlink_0),
    case!(unlink_of_an_open_file_gives_its_space_back_at_close, ACCOUNTING),
    case!(unlink_of_an_open_file_leaves_it_truncatable),
    case!(unlink_twice_returns_enoent),
    case!(rmdir_of_an_empty_directory_removes_it),
    case!(rmdir_of_an_absent_name_returns_enoent),
    case!(rmdir_of_a_file_returns_enotdir),
    case!(rmdir_of_a_symlink_to_a_directory_returns_enotdir, SYMLINKS),
    case!(rmdir_of_a_full_directory_returns_enotempty),
    case!(rmdir_of_a_directory_with_a_subdirectory_returns_enotempty),
    case!(rmdir_of_a_directory_emptied_before_removes_it),
    case!(rmdir_of_an_open_directory_keeps_it_listable),
    case!(rmdir_of_a_removed_name_frees_it_for_a_file),
    case!(remove_of_all_entries_leaves_an_empty_listing),
    case!(unlinked_node_with_a_lookup_stays_readable)
        .in_process("a node without a name is seen through no path"),
    case!(removed_directory_with_a_lookup_answers_getattr)
        .in_process("a node without a name is seen through no path"),
];

fn unlink_of_a_file_removes_its_name(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("b", b"")?;
    w.unlink("a")?;
    refused(w.stat("a"), Errno::ENOENT)?;
    refused(w.open("a", OpenFlags::READ_ONLY), Errno::ENOENT)?;
    equal(w.names("")?, ["b"], "the listing")
}

fn unlink_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.unlink("absent"), Errno::ENOENT)
}

fn unlink_of_a_directory_returns_eisdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    refused(w.unlink("d"), Errno::EISDIR)?;
    equal(w.names("")?, ["d"], "the listing")
}

fn unlink_of_a_symlink_keeps_its_target(w: &World<'_>) -> Verdict {
    w.file("target", b"data")?;
    w.symlink("target", "l")?;
    w.unlink("l")?;
    equal(w.names("")?, ["target"], "the listing")?;
    equal(w.read("target")?, b"data", "the target")
}

fn unlink_of_one_of_two_names_keeps_the_object(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.link("a", "b")?;
    let ino = w.stat("a")?.ino;
    w.unlink("a")?;
    let attr = w.stat("b")?;
    equal((attr.ino, attr.nlink), (ino, 1), "inode number and nlink")?;
    equal(w.read("b")?, b"data", "the data")
}

fn unlink_of_an_open_file_keeps_its_data(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    w.unlink("f")?;
    equal(w.read_fd(fd)?, b"data", "the data")?;
    w.close(fd)?;
    refused(w.stat("f"), Errno::ENOENT)
}

fn unlink_of_an_open_file_keeps_it_writable(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o600)?;
    w.unlink("f")?;
    w.write_all(fd, 0, b"after")?;
    equal(w.read_fd(fd)?, b"after", "the data")?;
    equal(w.fstat(fd)?.size, 5, "size")?;
    w.close(fd)?;
    Ok(())
}

fn unlink_of_an_open_file_shows_nlink_0(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    w.unlink("f")?;
    equal(w.fstat(fd)?.nlink, 0, "nlink")?;
    w.close(fd)?;
    Ok(())
}

fn unlink_of_an_open_file_gives_its_space_back_at_close(w: &World<'_>) -> Verdict {
    let before = w.statfs()?;
    w.file("f", &[b'x'; 1 << 18])?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    w.unlink("f")?;
    let open = w.statfs()?;
    let used = (before.bfree - open.bfree) * u64::from(before.frsize);
    crate::holds(used >= 1 << 18, "an open file without a name still takes its space")?;
    w.close(fd)?;
    w.settles(|| Ok(w.statfs()?.bfree), &before.bfree, "what is free after the close")
}

fn unlink_of_an_open_file_leaves_it_truncatable(w: &World<'_>) -> Verdict {
    w.file("f", b"0123456789")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    w.unlink("f")?;
    w.ftruncate(fd, 3)?;
    equal(w.read_fd(fd)?, b"012", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn unlink_twice_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.unlink("f")?;
    refused(w.unlink("f"), Errno::ENOENT)
}

fn rmdir_of_an_empty_directory_removes_it(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.rmdir("d")?;
    refused(w.stat("d"), Errno::ENOENT)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn rmdir_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.rmdir("absent"), Errno::ENOENT)
}

fn rmdir_of_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    refused(w.rmdir("f"), Errno::ENOTDIR)?;
    equal(w.read("f")?, b"data", "the file")
}

fn rmdir_of_a_symlink_to_a_directory_returns_enotdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.symlink("d", "l")?;
    refused(w.rmdir("l"), Errno::ENOTDIR)?;
    equal(w.names("")?, ["d", "l"], "the listing")
}

fn rmdir_of_a_full_directory_returns_enotempty(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"data")?;
    refused_any(w.rmdir("d"), &[Errno::ENOTEMPTY, Errno::EEXIST])?;
    equal(w.read("d/f")?, b"data", "what is in it")
}

fn rmdir_of_a_directory_with_a_subdirectory_returns_enotempty(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.mkdir("d/sub", 0o755)?;
    refused_any(w.rmdir("d"), &[Errno::ENOTEMPTY, Errno::EEXIST])?;
    equal(w.names("d")?, ["sub"], "what is in it")
}

fn rmdir_of_a_directory_emptied_before_removes_it(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"")?;
    w.mkdir("d/sub", 0o755)?;
    w.unlink("d/f")?;
    w.rename("d/sub", "sub")?;
    w.rmdir("d")?;
    equal(w.names("")?, ["sub"], "the listing")
}

fn rmdir_of_an_open_directory_keeps_it_listable(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let fd = w.opendir("d")?;
    w.rmdir("d")?;
    // An empty listing, or `.` and `..`, or the kernel's word that it is dead: no entry, no crash.
    match w.list_from(fd, 0, 10) {
        Ok(entries) => equal(crate::world::names_of(&entries), [""; 0], "its entries")?,
        Err(errno) => equal(errno, Errno::ENOENT, "the error")?,
    }
    w.close(fd)?;
    Ok(())
}

fn rmdir_of_a_removed_name_frees_it_for_a_file(w: &World<'_>) -> Verdict {
    w.mkdir("x", 0o755)?;
    w.rmdir("x")?;
    w.file("x", b"file")?;
    equal(w.read("x")?, b"file", "the file")?;
    w.unlink("x")?;
    w.mkdir("x", 0o755)?;
    equal(w.names("x")?, [""; 0], "the directory")
}

fn remove_of_all_entries_leaves_an_empty_listing(w: &World<'_>) -> Verdict {
    for i in 0..100 {
        w.file(format!("f{i}"), b"")?;
    }
    for i in 0..100 {
        w.unlink(format!("f{i}"))?;
    }
    equal(w.names("")?, [""; 0], "the listing")
}

fn unlinked_node_with_a_lookup_stays_readable(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.file("f", b"data")?;
    let node = client.walk(&w.path("f"))?;
    w.unlink("f")?;
    let cx = client.context();
    let attr = client.fs().getattr(&cx, node.node(), None)?.attr;
    equal((attr.nlink, attr.size), (0, 4), "nlink and size")?;
    let opened = client.fs().open(&cx, node.node(), OpenFlags::READ_ONLY, false)?;
    let mut data = [0; 8];
    let mut sink = stratafs_core::SliceSink::new(&mut data);
    let n = client.fs().read(&cx, node.node(), opened.handle, 0, 8, &mut sink)?;
    client.fs().release(&cx, node.node(), opened.handle, stratafs_core::Release::default())?;
    equal(&data[..n], b"data", "the data")
}

fn removed_directory_with_a_lookup_answers_getattr(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.mkdir("d", 0o755)?;
    let node = client.walk(&w.path("d"))?;
    w.rmdir("d")?;
    let cx = client.context();
    let attr = client.fs().getattr(&cx, node.node(), None)?.attr;
    equal(attr.nlink, 0, "nlink")?;
    let name = Name::new(b"f").map_err(Errno::from)?;
    equal(client.fs().lookup(&cx, node.node(), name)?.found().err(), Some(Errno::ENOENT), "lookup")
}
