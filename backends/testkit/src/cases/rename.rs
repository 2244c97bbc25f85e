//! Moving names: rename(2) and renameat2(2).

use stratafs_core::{Errno, FileType, OpenFlags, RenameFlags};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds, refused, refused_any};

const FAMILY: Family = Family::Rename;

pub(super) const CASES: &[Case] = &[
    case!(rename_in_one_directory_moves_the_name),
    case!(rename_to_another_directory_moves_the_name),
    case!(rename_keeps_the_inode_number_and_the_data),
    case!(rename_of_an_absent_name_returns_enoent),
    case!(rename_into_an_absent_directory_returns_enoent),
    case!(rename_into_a_file_returns_enotdir),
    case!(rename_over_a_file_replaces_it),
    case!(rename_over_an_open_file_leaves_it_readable),
    case!(rename_over_a_linked_file_lowers_its_nlink, HARD_LINKS),
    case!(rename_between_names_of_one_file_does_nothing, HARD_LINKS),
    case!(rename_onto_itself_does_nothing),
    case!(rename_of_a_file_over_a_directory_returns_eisdir),
    case!(rename_of_a_directory_over_a_file_returns_enotdir),
    case!(rename_over_an_empty_directory_replaces_it),
    case!(rename_over_nonempty_dir_returns_enotempty),
    case!(rename_of_a_directory_into_itself_returns_einval),
    case!(rename_of_a_directory_into_a_descendant_returns_einval),
    case!(rename_over_an_ancestor_returns_enotempty),
    case!(rename_of_a_full_directory_takes_its_children_along),
    case!(rename_of_a_directory_to_another_parent_moves_the_nlink),
    case!(rename_of_a_directory_over_another_lowers_the_nlink_of_the_parent),
    case!(rename_of_a_symlink_moves_the_link_itself, SYMLINKS),
    case!(rename_over_a_symlink_replaces_the_link_itself, SYMLINKS),
    case!(rename_of_an_open_file_keeps_its_handle),
    case!(rename_noreplace_to_a_free_name_moves_it, NOREPLACE),
    case!(rename_noreplace_over_a_file_returns_eexist, NOREPLACE),
    case!(rename_noreplace_over_an_empty_directory_returns_eexist, NOREPLACE),
    case!(rename_noreplace_onto_itself_returns_eexist, NOREPLACE),
    case!(rename_noreplace_of_an_absent_name_returns_enoent, NOREPLACE),
    case!(rename_exchange_of_two_files_swaps_them, EXCHANGE),
    case!(rename_exchange_of_a_file_and_a_full_directory_swaps_them, EXCHANGE),
    case!(rename_exchange_between_directories_moves_the_nlink, EXCHANGE),
    case!(rename_exchange_with_an_absent_name_returns_enoent, EXCHANGE),
    case!(rename_exchange_of_an_absent_name_returns_enoent, EXCHANGE),
    case!(rename_exchange_with_an_ancestor_returns_einval, EXCHANGE),
    case!(rename_exchange_of_two_names_of_one_file_keeps_both, EXCHANGE | HARD_LINKS),
    case!(rename_exchange_with_itself_does_nothing, EXCHANGE),
    case!(rename_exchange_with_noreplace_returns_einval, EXCHANGE | NOREPLACE),
    case!(rename_exchange_with_whiteout_returns_einval, EXCHANGE | WHITEOUT),
    case!(rename_with_an_unknown_flag_returns_einval, NOREPLACE),
    case!(rename_whiteout_leaves_a_device_0_0, WHITEOUT | DEVICES),
    case!(rename_whiteout_over_a_file_replaces_it, WHITEOUT | DEVICES),
    case!(rename_there_and_back_leaves_the_listing_as_it_was),
];

fn rename_in_one_directory_moves_the_name(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.rename("a", "b")?;
    equal(w.names("")?, ["b"], "the listing")?;
    refused(w.stat("a"), Errno::ENOENT)?;
    equal(w.read("b")?, b"data", "the data")
}

fn rename_to_another_directory_moves_the_name(w: &World<'_>) -> Verdict {
    w.mkdir("from", 0o755)?;
    w.mkdir("to", 0o755)?;
    w.file("from/a", b"data")?;
    w.rename("from/a", "to/b")?;
    equal(w.names("from")?, [""; 0], "the old directory")?;
    equal(w.names("to")?, ["b"], "the new directory")?;
    equal(w.read("to/b")?, b"data", "the data")
}

fn rename_keeps_the_inode_number_and_the_data(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    let before = w.stat("a")?;
    w.rename("a", "b")?;
    let after = w.stat("b")?;
    equal(after.ino, before.ino, "the inode number")?;
    equal((after.mode, after.size, after.nlink), (before.mode, 4, 1), "mode, size, nlink")
}

fn rename_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.rename("absent", "b"), Errno::ENOENT)?;
    w.file("b", b"kept")?;
    refused(w.rename("absent", "b"), Errno::ENOENT)?;
    equal(w.read("b")?, b"kept", "what the new name led to")
}

fn rename_into_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    refused(w.rename("a", "absent/b"), Errno::ENOENT)?;
    equal(w.names("")?, ["a"], "the listing")
}

fn rename_into_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("file", b"")?;
    refused(w.rename("a", "file/b"), Errno::ENOTDIR)?;
    equal(w.names("")?, ["a", "file"], "the listing")
}

fn rename_over_a_file_replaces_it(w: &World<'_>) -> Verdict {
    w.file("a", b"new")?;
    w.file("b", b"old data")?;
    let ino = w.stat("a")?.ino;
    w.rename("a", "b")?;
    equal(w.names("")?, ["b"], "the listing")?;
    equal(w.stat("b")?.ino, ino, "the inode number")?;
    equal(w.read("b")?, b"new", "the data")
}

fn rename_over_an_open_file_leaves_it_readable(w: &World<'_>) -> Verdict {
    w.file("a", b"new")?;
    w.file("b", b"old")?;
    let old = w.open("b", OpenFlags::READ_WRITE)?;
    w.rename("a", "b")?;
    equal(w.read_fd(old)?, b"old", "the replaced file")?;
    equal(w.fstat(old)?.nlink, 0, "its nlink")?;
    w.write_all(old, 3, b"er")?;
    equal(w.read_fd(old)?, b"older", "the replaced file, written")?;
    w.close(old)?;
    equal(w.read("b")?, b"new", "the new file")
}

fn rename_over_a_linked_file_lowers_its_nlink(w: &World<'_>) -> Verdict {
    w.file("a", b"new")?;
    w.file("b", b"old")?;
    w.link("b", "other")?;
    w.rename("a", "b")?;
    equal(w.stat("other")?.nlink, 1, "the replaced file's nlink")?;
    equal(w.read("other")?, b"old", "its data under the other name")
}

/// rename(2): "If oldpath and newpath are existing hard links referring to the same file, then
/// rename() does nothing, and returns a success status."
fn rename_between_names_of_one_file_does_nothing(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("a", b"data")?;
    w.link("a", "b")?;
    w.link("a", "d/c")?;
    w.rename("a", "b")?;
    w.rename("a", "d/c")?;
    equal(w.names("")?, ["a", "b", "d"], "the listing")?;
    equal(w.names("d")?, ["c"], "the listing of d")?;
    equal(w.stat("a")?.nlink, 3, "nlink")
}

fn rename_onto_itself_does_nothing(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.mkdir("d", 0o755)?;
    w.file("d/inside", b"")?;
    w.rename("a", "a")?;
    w.rename("d", "d")?;
    equal(w.names("")?, ["a", "d"], "the listing")?;
    equal(w.read("a")?, b"data", "the data")?;
    equal(w.names("d")?, ["inside"], "the directory")
}

fn rename_of_a_file_over_a_directory_returns_eisdir(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.mkdir("d", 0o755)?;
    refused(w.rename("a", "d"), Errno::EISDIR)?;
    equal(w.names("")?, ["a", "d"], "the listing")
}

fn rename_of_a_directory_over_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("a", b"")?;
    refused(w.rename("d", "a"), Errno::ENOTDIR)?;
    equal(w.names("")?, ["a", "d"], "the listing")
}

fn rename_over_an_empty_directory_replaces_it(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o700)?;
    w.file("a/inside", b"")?;
    w.mkdir("b", 0o755)?;
    let ino = w.stat("a")?.ino;
    w.rename("a", "b")?;
    equal(w.names("")?, ["b"], "the listing")?;
    equal(w.stat("b")?.ino, ino, "the inode number")?;
    equal(w.names("b")?, ["inside"], "its entries")
}

fn rename_over_nonempty_dir_returns_enotempty(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("b", 0o755)?;
    w.file("b/inside", b"")?;
    refused_any(w.rename("a", "b"), &[Errno::ENOTEMPTY, Errno::EEXIST])?;
    equal(w.names("")?, ["a", "b"], "the listing")?;
    equal(w.names("b")?, ["inside"], "the full directory")
}

fn rename_of_a_directory_into_itself_returns_einval(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    refused(w.rename("a", "a/b"), Errno::EINVAL)?;
    equal(w.names("a")?, [""; 0], "the directory")
}

fn rename_of_a_directory_into_a_descendant_returns_einval(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("a/b", 0o755)?;
    w.mkdir("a/b/c", 0o755)?;
    refused(w.rename("a", "a/b/c/d"), Errno::EINVAL)?;
    refused_any(w.rename("a", "a/b/c"), &[Errno::EINVAL, Errno::ENOTEMPTY])?;
    equal(w.names("")?, ["a"], "the listing")?;
    equal(w.names("a/b")?, ["c"], "the middle")
}

fn rename_over_an_ancestor_returns_enotempty(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("a/b", 0o755)?;
    w.mkdir("a/b/c", 0o755)?;
    refused_any(w.rename("a/b/c", "a"), &[Errno::ENOTEMPTY, Errno::EEXIST])?;
    equal(w.names("a/b")?, ["c"], "the middle")
}

fn rename_of_a_full_directory_takes_its_children_along(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("a/sub", 0o755)?;
    w.file("a/sub/f", b"deep")?;
    w.mkdir("to", 0o755)?;
    w.rename("a", "to/b")?;
    equal(w.names("")?, ["to"], "the listing")?;
    equal(w.read("to/b/sub/f")?, b"deep", "the data deep in it")
}

fn rename_of_a_directory_to_another_parent_moves_the_nlink(w: &World<'_>) -> Verdict {
    w.mkdir("from", 0o755)?;
    w.mkdir("to", 0o755)?;
    w.mkdir("from/d", 0o755)?;
    let nlinks = |w: &World<'_>| Ok::<_, Errno>((w.stat("from")?.nlink, w.stat("to")?.nlink));
    let (from, to) = nlinks(w)?;
    w.rename("from/d", "to/d")?;
    // A filesystem that does not count subdirectories says 1 of every directory.
    let want = if from == 1 { (1, 1) } else { (from - 1, to + 1) };
    equal(nlinks(w)?, want, "nlink of the old parent and the new")?;
    let listing = w.list("to/d")?;
    let dotdot = listing.iter().find(|entry| entry.name == b"..");
    if let Some(dotdot) = dotdot {
        equal(dotdot.ino, w.stat("to")?.ino, "the inode number of ..")?;
    }
    Ok(())
}

fn rename_of_a_directory_over_another_lowers_the_nlink_of_the_parent(w: &World<'_>) -> Verdict {
    w.mkdir("p", 0o755)?;
    w.mkdir("p/a", 0o755)?;
    w.mkdir("p/b", 0o755)?;
    let before = w.stat("p")?.nlink;
    w.rename("p/a", "p/b")?;
    let want = if before == 1 { 1 } else { before - 1 };
    equal(w.stat("p")?.nlink, want, "nlink of the parent")
}

fn rename_of_a_symlink_moves_the_link_itself(w: &World<'_>) -> Verdict {
    w.file("target", b"data")?;
    w.symlink("target", "a")?;
    w.rename("a", "b")?;
    equal(w.readlink("b")?, b"target", "the link")?;
    equal(w.names("")?, ["b", "target"], "the listing")
}

fn rename_over_a_symlink_replaces_the_link_itself(w: &World<'_>) -> Verdict {
    w.file("target", b"data")?;
    w.symlink("target", "link")?;
    w.file("a", b"new")?;
    w.rename("a", "link")?;
    equal(w.stat("link")?.kind(), FileType::Regular, "what was the link")?;
    equal(w.read("target")?, b"data", "what it pointed to")
}

fn rename_of_an_open_file_keeps_its_handle(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("a", b"one")?;
    let fd = w.open("a", OpenFlags::READ_WRITE)?;
    w.rename("a", "d/b")?;
    w.write_all(fd, 3, b" two")?;
    w.close(fd)?;
    equal(w.read("d/b")?, b"one two", "the data")
}

fn rename_noreplace_to_a_free_name_moves_it(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.rename2("a", "b", RenameFlags::NOREPLACE)?;
    equal(w.names("")?, ["b"], "the listing")
}

fn rename_noreplace_over_a_file_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("a", b"one")?;
    w.file("b", b"two")?;
    refused(w.rename2("a", "b", RenameFlags::NOREPLACE), Errno::EEXIST)?;
    equal((w.read("a")?, w.read("b")?), (b"one".into(), b"two".into()), "the two files")
}

fn rename_noreplace_over_an_empty_directory_returns_eexist(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("b", 0o755)?;
    refused(w.rename2("a", "b", RenameFlags::NOREPLACE), Errno::EEXIST)?;
    equal(w.names("")?, ["a", "b"], "the listing")
}

fn rename_noreplace_onto_itself_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("a", b"one")?;
    refused(w.rename2("a", "a", RenameFlags::NOREPLACE), Errno::EEXIST)?;
    equal(w.read("a")?, b"one", "the file")
}

fn rename_noreplace_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.rename2("absent", "b", RenameFlags::NOREPLACE), Errno::ENOENT)
}

fn rename_exchange_of_two_files_swaps_them(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("a", b"one")?;
    w.file("d/b", b"two")?;
    let before = (w.stat("a")?.ino, w.stat("d/b")?.ino);
    w.rename2("a", "d/b", RenameFlags::EXCHANGE)?;
    equal((w.stat("d/b")?.ino, w.stat("a")?.ino), before, "the inode numbers")?;
    equal((w.read("a")?, w.read("d/b")?), (b"two".into(), b"one".into()), "the two files")?;
    equal((w.stat("a")?.nlink, w.stat("d/b")?.nlink), (1, 1), "their nlinks")
}

fn rename_exchange_of_a_file_and_a_full_directory_swaps_them(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    w.mkdir("d", 0o755)?;
    w.file("d/inside", b"")?;
    w.rename2("f", "d", RenameFlags::EXCHANGE)?;
    equal(w.read("d")?, b"data", "the file")?;
    equal(w.names("f")?, ["inside"], "the directory")
}

fn rename_exchange_between_directories_moves_the_nlink(w: &World<'_>) -> Verdict {
    w.mkdir("p", 0o755)?;
    w.mkdir("q", 0o755)?;
    w.mkdir("p/d", 0o755)?;
    w.file("q/f", b"")?;
    let (p, q) = (w.stat("p")?.nlink, w.stat("q")?.nlink);
    w.rename2("p/d", "q/f", RenameFlags::EXCHANGE)?;
    let want = if p == 1 { (1, 1) } else { (p - 1, q + 1) };
    equal((w.stat("p")?.nlink, w.stat("q")?.nlink), want, "nlink of the two parents")
}

fn rename_exchange_with_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("a", b"one")?;
    refused(w.rename2("a", "absent", RenameFlags::EXCHANGE), Errno::ENOENT)?;
    equal(w.names("")?, ["a"], "the listing")
}

fn rename_exchange_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    w.file("b", b"two")?;
    refused(w.rename2("absent", "b", RenameFlags::EXCHANGE), Errno::ENOENT)?;
    equal(w.names("")?, ["b"], "the listing")
}

fn rename_exchange_with_an_ancestor_returns_einval(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("a/b", 0o755)?;
    w.mkdir("a/b/c", 0o755)?;
    refused(w.rename2("a", "a/b/c", RenameFlags::EXCHANGE), Errno::EINVAL)?;
    refused(w.rename2("a/b/c", "a", RenameFlags::EXCHANGE), Errno::EINVAL)?;
    equal(w.names("a/b")?, ["c"], "the middle")
}

fn rename_exchange_of_two_names_of_one_file_keeps_both(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.link("a", "b")?;
    w.rename2("a", "b", RenameFlags::EXCHANGE)?;
    equal(w.names("")?, ["a", "b"], "the listing")?;
    equal(w.stat("b")?.nlink, 2, "nlink")
}

fn rename_exchange_with_itself_does_nothing(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.rename2("a", "a", RenameFlags::EXCHANGE)?;
    equal(w.read("a")?, b"data", "the file")
}

fn rename_exchange_with_noreplace_returns_einval(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("b", b"")?;
    let flags = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    refused(w.rename2("a", "b", flags), Errno::EINVAL)
}

fn rename_exchange_with_whiteout_returns_einval(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("b", b"")?;
    let flags = RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
    refused(w.rename2("a", "b", flags), Errno::EINVAL)
}

fn rename_with_an_unknown_flag_returns_einval(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    refused(w.rename2("a", "b", RenameFlags::from_bits_retain(1 << 7)), Errno::EINVAL)?;
    equal(w.names("")?, ["a"], "the listing")
}

fn rename_whiteout_leaves_a_device_0_0(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.rename2("a", "b", RenameFlags::WHITEOUT)?;
    equal(w.read("b")?, b"data", "the moved file")?;
    let left = w.stat("a")?;
    equal((left.kind(), left.rdev), (FileType::CharDevice, 0), "what is left")
}

fn rename_whiteout_over_a_file_replaces_it(w: &World<'_>) -> Verdict {
    w.file("a", b"new")?;
    w.file("b", b"old")?;
    w.rename2("a", "b", RenameFlags::WHITEOUT)?;
    equal(w.read("b")?, b"new", "the moved file")?;
    equal(w.stat("a")?.kind(), FileType::CharDevice, "what is left")
}

fn rename_there_and_back_leaves_the_listing_as_it_was(w: &World<'_>) -> Verdict {
    for name in ["a", "b", "c"] {
        w.file(name, name.as_bytes())?;
    }
    for _ in 0..20 {
        w.rename("b", "x")?;
        w.rename("x", "b")?;
    }
    equal(w.names("")?, ["a", "b", "c"], "the listing")?;
    holds(w.list("")?.len() == 5, "the listing has . and .. and three entries")
}
