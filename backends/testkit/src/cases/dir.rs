//! Listings: readdir(3), and the cookies of getdents64(2).

use std::collections::BTreeSet;

use stratafs_core::{Errno, FileType, Name, OpenFlags};

use crate::case::case;
use crate::world::names_of;
use crate::{Case, Family, Listed, Verdict, World, equal, holds, refused};

const FAMILY: Family = Family::Dir;

pub(super) const CASES: &[Case] = &[
    case!(readdir_of_an_empty_directory_shows_dot_and_dotdot),
    case!(readdir_shows_dot_and_dotdot_first)
        .in_process("the kernel's own filesystems do not all promise it"),
    case!(readdir_shows_the_inode_numbers_of_stat),
    case!(readdir_dot_and_dotdot_show_the_inode_numbers_of_stat),
    case!(readdir_shows_the_types, SYMLINKS | SPECIAL_FILES),
    case!(readdir_one_entry_at_a_time_shows_each_once),
    case!(readdir_of_a_thousand_entries_shows_each_once),
    case!(readdir_cookies_are_distinct),
    case!(readdir_from_a_kept_cookie_goes_on_there),
    case!(readdir_after_deleting_what_was_seen_shows_the_rest),
    case!(readdir_while_deleting_everything_sees_everything),
    case!(readdir_after_deleting_what_was_not_seen_leaves_it_out),
    case!(readdir_while_others_are_made_shows_the_old_ones_once),
    case!(readdir_while_others_are_renamed_shows_the_still_ones_once),
    case!(readdir_from_the_start_shows_what_was_made_meanwhile),
    case!(readdir_at_the_end_gives_nothing),
    case!(readdir_by_two_handles_is_independent),
    case!(readdir_shows_names_of_any_bytes, BYTE_NAMES),
    case!(readdir_shows_long_names_whole),
    case!(readdir_after_rename_shows_the_new_name),
    case!(opendir_of_a_file_returns_enotdir),
    case!(opendir_of_an_absent_name_returns_enoent),
    case!(readdir_of_a_file_returns_enotdir).in_process("the kernel refuses it at opendir"),
    case!(readdirplus_shows_what_readdir_shows).in_process("a kernel chooses between the two"),
    case!(readdirplus_gives_the_nodes_of_lookup).in_process("a kernel keeps nodes to itself"),
    case!(readdirplus_into_a_full_sink_keeps_no_reference, ACCOUNTING)
        .in_process("a kernel's buffer is what it is"),
];

fn make_files(w: &World<'_>, count: usize) -> Result<(), Errno> {
    (0..count).try_for_each(|i| w.file(format!("f{i:04}"), b""))
}

/// The names that `make_files` made, by number.
fn made(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|i| format!("f{i:04}")).collect()
}

fn readdir_of_an_empty_directory_shows_dot_and_dotdot(w: &World<'_>) -> Verdict {
    let mut names: Vec<_> = w.list("")?.into_iter().map(|entry| entry.name).collect();
    names.sort();
    equal(names, [b".".to_vec(), b"..".to_vec()], "the names")
}

fn readdir_shows_dot_and_dotdot_first(w: &World<'_>) -> Verdict {
    make_files(w, 3)?;
    let names: Vec<_> = w.list("")?.into_iter().map(|entry| entry.name).take(2).collect();
    equal(names, [b".".to_vec(), b"..".to_vec()], "the first names")
}

fn readdir_shows_the_inode_numbers_of_stat(w: &World<'_>) -> Verdict {
    make_files(w, 20)?;
    w.mkdir("d", 0o755)?;
    for entry in w.list("")?.iter().filter(|e| e.name != b"." && e.name != b"..") {
        equal(entry.ino, w.stat(&entry.name)?.ino, "the inode number")?;
    }
    Ok(())
}

fn readdir_dot_and_dotdot_show_the_inode_numbers_of_stat(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.mkdir("d/e", 0o755)?;
    let listing = w.list("d/e")?;
    let ino = |name: &[u8]| listing.iter().find(|entry| entry.name == name).map(|e| e.ino);
    equal(ino(b"."), Some(w.stat("d/e")?.ino), "the inode number of .")?;
    equal(ino(b".."), Some(w.stat("d")?.ino), "the inode number of ..")
}

fn readdir_shows_the_types(w: &World<'_>) -> Verdict {
    w.file("file", b"")?;
    w.mkdir("dir", 0o755)?;
    w.symlink("x", "link")?;
    w.mknod("fifo", 0o010_644, 0)?;
    w.mknod("sock", 0o140_644, 0)?;
    let mut types: Vec<_> = w
        .list("")?
        .into_iter()
        .filter(|entry| !entry.name.starts_with(b"."))
        // A type that is not told is looked for, as a client does.
        .map(|entry| {
            let kind = match entry.kind {
                Some(kind) => kind,
                None => w.stat(&entry.name)?.kind(),
            };
            Ok((entry.name, kind))
        })
        .collect::<Result<_, crate::Failure>>()?;
    types.sort_by(|a, b| a.0.cmp(&b.0));
    let want = [
        (b"dir".to_vec(), FileType::Directory),
        (b"fifo".to_vec(), FileType::Fifo),
        (b"file".to_vec(), FileType::Regular),
        (b"link".to_vec(), FileType::Symlink),
        (b"sock".to_vec(), FileType::Socket),
    ];
    equal(types, want, "the types")
}

/// Lists the directory itself from the start, `step` entries at a time.
fn list_by(w: &World<'_>, step: usize) -> Result<Vec<Listed>, Errno> {
    let fd = w.opendir("")?;
    let all = w.list_from(fd, 0, step)?;
    w.close(fd)?;
    Ok(all)
}

fn readdir_one_entry_at_a_time_shows_each_once(w: &World<'_>) -> Verdict {
    make_files(w, 30)?;
    let one_by_one = list_by(w, 1)?;
    equal(one_by_one.len(), 32, "how many entries")?;
    equal(names_of(&one_by_one), made(0..30), "the names")
}

fn readdir_of_a_thousand_entries_shows_each_once(w: &World<'_>) -> Verdict {
    make_files(w, 1000)?;
    equal(names_of(&list_by(w, 100)?), made(0..1000), "the names")?;
    equal(names_of(&list_by(w, 7)?), made(0..1000), "the names, seven at a time")
}

fn readdir_cookies_are_distinct(w: &World<'_>) -> Verdict {
    make_files(w, 100)?;
    let cookies: BTreeSet<_> = w.list("")?.iter().map(|entry| entry.cookie).collect();
    equal(cookies.len(), 102, "how many cookies")?;
    holds(!cookies.contains(&0), "none is 0, which is the start")
}

fn readdir_from_a_kept_cookie_goes_on_there(w: &World<'_>) -> Verdict {
    make_files(w, 40)?;
    let fd = w.opendir("")?;
    let all = w.list_from(fd, 0, 64)?;
    for at in [0, 1, 2, 17, 40] {
        let rest = w.list_from(fd, all[at].cookie, 5)?;
        equal(&rest[..], &all[at + 1..], "the rest")?;
    }
    w.close(fd)?;
    Ok(())
}

fn readdir_after_deleting_what_was_seen_shows_the_rest(w: &World<'_>) -> Verdict {
    make_files(w, 100)?;
    let fd = w.opendir("")?;
    let first = w.readdir(fd, 0, 40)?;
    let cookie = first.last().ok_or(Errno::EIO)?.cookie;
    for name in names_of(&first) {
        w.unlink(name)?;
    }
    let rest = w.list_from(fd, cookie, 10)?;
    w.close(fd)?;
    let mut all = names_of(&first);
    all.extend(names_of(&rest));
    all.sort();
    equal(all, made(0..100), "the names, before and after")
}

/// What `rm -r` does.
fn readdir_while_deleting_everything_sees_everything(w: &World<'_>) -> Verdict {
    make_files(w, 500)?;
    let fd = w.opendir("")?;
    let mut cookie = 0;
    let mut seen = 0;
    loop {
        let some = w.readdir(fd, cookie, 7)?;
        let Some(last) = some.last() else { break };
        cookie = last.cookie;
        for name in names_of(&some) {
            w.unlink(name)?;
            seen += 1;
        }
    }
    w.close(fd)?;
    equal(seen, 500, "how many entries were seen")?;
    equal(w.names("")?, [""; 0], "what is left")
}

fn readdir_after_deleting_what_was_not_seen_leaves_it_out(w: &World<'_>) -> Verdict {
    make_files(w, 100)?;
    let fd = w.opendir("")?;
    let first = w.readdir(fd, 0, 10)?;
    let cookie = first.last().ok_or(Errno::EIO)?.cookie;
    let seen = names_of(&first);
    let unseen: Vec<_> = made(0..100).into_iter().filter(|name| !seen.contains(name)).collect();
    for name in &unseen[10..] {
        w.unlink(name)?;
    }
    // What the kernel has in its buffer already it may still show; a fresh listing may not.
    let rest = names_of(&w.list_from(fd, cookie, 10)?);
    holds(unseen[..10].iter().all(|name| rest.contains(name)), "what is there is listed")?;
    w.close(fd)?;
    equal(w.names("")?.len(), seen.len() + 10, "how many entries a fresh listing has")
}

fn readdir_while_others_are_made_shows_the_old_ones_once(w: &World<'_>) -> Verdict {
    make_files(w, 60)?;
    let fd = w.opendir("")?;
    let mut all = w.readdir(fd, 0, 20)?;
    for i in 0..60 {
        w.file(format!("new{i}"), b"")?;
    }
    let cookie = all.last().ok_or(Errno::EIO)?.cookie;
    all.extend(w.list_from(fd, cookie, 10)?);
    w.close(fd)?;
    let mut old = names_of(&all);
    old.retain(|name| name.starts_with('f'));
    equal(old, made(0..60), "the old names")
}

fn readdir_while_others_are_renamed_shows_the_still_ones_once(w: &World<'_>) -> Verdict {
    make_files(w, 60)?;
    for i in 0..20 {
        w.file(format!("moving{i}"), b"")?;
    }
    let fd = w.opendir("")?;
    let mut all = w.readdir(fd, 0, 30)?;
    for i in 0..20 {
        w.rename(format!("moving{i}"), format!("moved{i}"))?;
    }
    let cookie = all.last().ok_or(Errno::EIO)?.cookie;
    all.extend(w.list_from(fd, cookie, 10)?);
    w.close(fd)?;
    let mut still = names_of(&all);
    still.retain(|name| name.starts_with('f'));
    equal(still, made(0..60), "the names that did not move")
}

/// rewinddir(3).
fn readdir_from_the_start_shows_what_was_made_meanwhile(w: &World<'_>) -> Verdict {
    make_files(w, 5)?;
    let fd = w.opendir("")?;
    equal(names_of(&w.list_from(fd, 0, 64)?), made(0..5), "the names before")?;
    w.file("f0005", b"")?;
    w.unlink("f0000")?;
    equal(names_of(&w.list_from(fd, 0, 64)?), made(1..6), "the names after")?;
    w.close(fd)?;
    Ok(())
}

fn readdir_at_the_end_gives_nothing(w: &World<'_>) -> Verdict {
    make_files(w, 5)?;
    let fd = w.opendir("")?;
    let all = w.list_from(fd, 0, 64)?;
    let end = all.last().ok_or(Errno::EIO)?.cookie;
    equal(w.readdir(fd, end, 10)?, [], "what follows the last entry")?;
    equal(w.readdir(fd, end, 10)?, [], "the same again")?;
    w.close(fd)?;
    Ok(())
}

fn readdir_by_two_handles_is_independent(w: &World<'_>) -> Verdict {
    make_files(w, 30)?;
    let (one, two) = (w.opendir("")?, w.opendir("")?);
    let first = w.readdir(one, 0, 10)?;
    equal(names_of(&w.list_from(two, 0, 3)?), made(0..30), "the names by the other handle")?;
    w.close(two)?;
    let mut all = first;
    let cookie = all.last().ok_or(Errno::EIO)?.cookie;
    all.extend(w.list_from(one, cookie, 10)?);
    equal(names_of(&all), made(0..30), "the names")?;
    w.close(one)?;
    Ok(())
}

fn readdir_shows_names_of_any_bytes(w: &World<'_>) -> Verdict {
    let names: [&[u8]; 6] = [b"\xff\xfe", b"...", b" ", b"\n", b"a\\b", "ü".as_bytes()];
    for name in names {
        w.file(name, b"")?;
    }
    let listed: BTreeSet<_> = w.list("")?.into_iter().map(|entry| entry.name).collect();
    let mut want: BTreeSet<_> = names.iter().map(|name| name.to_vec()).collect();
    want.extend([b".".to_vec(), b"..".to_vec()]);
    equal(listed, want, "the names")
}

fn readdir_shows_long_names_whole(w: &World<'_>) -> Verdict {
    let names: Vec<String> = (0..40).map(|i| format!("{i:02}{}", "n".repeat(253))).collect();
    for name in &names {
        w.file(name, b"")?;
    }
    equal(w.names("")?, names, "the names")
}

fn readdir_after_rename_shows_the_new_name(w: &World<'_>) -> Verdict {
    make_files(w, 10)?;
    w.rename("f0003", "f0010")?;
    equal(w.names("")?, made([0, 1, 2, 4, 5, 6, 7, 8, 9, 10]), "the names")
}

fn opendir_of_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.opendir("f").and_then(|fd| w.readdir(fd, 0, 1)), Errno::ENOTDIR)
}

fn opendir_of_an_absent_name_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.opendir("absent"), Errno::ENOENT)
}

fn readdir_of_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    w.file("f", b"")?;
    let node = client.walk(&w.path("f"))?;
    let cx = client.context();
    let opened = client.fs().opendir(&cx, node.node(), OpenFlags::READ_ONLY);
    let listed = opened.and_then(|opened| {
        let mut sink = client.listing(10);
        let listed = client.fs().readdir(&cx, node.node(), opened.handle, 0, &mut sink);
        client.fs().releasedir(&cx, node.node(), opened.handle).and(listed)
    });
    refused(listed, Errno::ENOTDIR)
}

fn readdirplus_shows_what_readdir_shows(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    make_files(w, 50)?;
    w.mkdir("d", 0o755)?;
    let plain = w.list("")?;
    let fd = w.opendir("")?;
    let plus = client.list_plus(fd, 0, 1000)?;
    w.close(fd)?;
    let listed: Vec<_> = plus.iter().map(|(listed, _)| listed.clone()).collect();
    equal(&listed, &plain, "the entries")?;
    let without: Vec<_> = plus
        .iter()
        .filter(|(_, node)| node.is_none())
        .map(|(listed, _)| listed.name.escape_ascii().to_string())
        .collect();
    equal(without, [".", ".."], "the entries without an object")
}

fn readdirplus_gives_the_nodes_of_lookup(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    make_files(w, 10)?;
    let fd = w.opendir("")?;
    let plus = client.list_plus(fd, 0, 1000)?;
    w.close(fd)?;
    for (listed, node) in plus {
        let (Ok(_), Some(node)) = (Name::new(&listed.name), node) else { continue };
        let looked_up = client.walk(&w.path(&listed.name))?;
        equal(node.node(), looked_up.node(), "the node")?;
    }
    Ok(())
}

/// An object that was looked up for a full sink stays the filesystem's to forget.
fn readdirplus_into_a_full_sink_keeps_no_reference(w: &World<'_>) -> Verdict {
    let client = w.raw()?;
    let before = w.statfs()?.ffree;
    make_files(w, 20)?;
    let fd = w.opendir("")?;
    for max in 0..20 {
        let plus = client.list_plus(fd, 0, max)?;
        holds(plus.len() <= max, "no more than fits is taken")?;
    }
    w.close(fd)?;
    for name in made(0..20) {
        w.unlink(name)?;
    }
    equal(w.statfs()?.ffree, before, "free inodes when all are removed")
}
