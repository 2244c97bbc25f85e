//! Extended attributes: getxattr(2), setxattr(2), listxattr(2), removexattr(2), xattr(7).

use stratafs_core::{Errno, XattrMode};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds, refused, refused_any};

const FAMILY: Family = Family::Xattr;

pub(super) const CASES: &[Case] = &[
    case!(setxattr_then_getxattr_gives_the_value_back, XATTR_USER),
    case!(setxattr_over_a_value_replaces_it, XATTR_USER),
    case!(setxattr_of_an_empty_value_keeps_the_name, XATTR_USER),
    case!(setxattr_of_any_bytes_keeps_them, XATTR_USER),
    case!(setxattr_create_of_a_new_name_sets_it, XATTR_USER),
    case!(setxattr_create_over_an_existing_name_returns_eexist, XATTR_USER),
    case!(setxattr_replace_of_an_existing_name_sets_it, XATTR_USER),
    case!(setxattr_replace_of_an_absent_name_returns_enodata, XATTR_USER),
    case!(setxattr_of_a_long_value_keeps_it_or_says_why_not, XATTR_USER),
    case!(setxattr_of_65537_bytes_returns_e2big, XATTR_USER),
    case!(setxattr_in_an_unknown_namespace_returns_eopnotsupp, XATTR_USER),
    case!(setxattr_on_a_directory_works, XATTR_USER),
    case!(setxattr_in_trusted_works, XATTR_TRUSTED),
    case!(setxattr_in_security_works, XATTR_SECURITY),
    case!(setxattr_in_trusted_on_a_symlink_stays_on_the_link, XATTR_ON_SYMLINK | SYMLINKS),
    case!(setxattr_in_user_on_a_symlink_returns_eperm, XATTR_USER | SYMLINKS)
        .mounted("the kernel refuses it before any filesystem sees it"),
    case!(getxattr_of_an_absent_name_returns_enodata, XATTR_USER),
    case!(getxattr_on_an_absent_file_returns_enoent, XATTR_USER),
    case!(getxattr_without_room_tells_the_size, XATTR_USER),
    case!(getxattr_with_too_little_room_returns_erange, XATTR_USER),
    case!(getxattr_with_just_enough_room_works, XATTR_USER),
    case!(listxattr_of_a_new_file_is_empty_of_user_names, XATTR_USER),
    case!(listxattr_shows_every_name_once, XATTR_USER),
    case!(listxattr_sizes_and_list_agree, XATTR_USER),
    case!(listxattr_with_too_little_room_returns_erange, XATTR_USER),
    case!(removexattr_removes_the_name, XATTR_USER),
    case!(removexattr_of_an_absent_name_returns_enodata, XATTR_USER),
    case!(xattr_survives_a_rename, XATTR_USER),
    case!(xattr_is_shared_by_hard_links, XATTR_USER | HARD_LINKS),
    case!(xattr_of_a_removed_file_does_not_come_back, XATTR_USER),
    case!(xattr_name_of_255_bytes_works, XATTR_USER),
    case!(xattr_name_of_256_bytes_returns_erange, XATTR_USER),
    case!(xattr_names_are_case_sensitive, XATTR_USER),
    case!(xattr_gives_its_space_back, XATTR_USER | ACCOUNTING),
];

/// Of a list, what a case may know: other names (a security module's) may be there too.
fn user_names(w: &World<'_>, path: &str) -> Result<Vec<String>, Errno> {
    let mut names: Vec<_> = w
        .listxattr(path)?
        .into_iter()
        .filter(|name| name.starts_with(b"user."))
        .map(|name| name.escape_ascii().to_string())
        .collect();
    names.sort();
    Ok(names)
}

fn setxattr_then_getxattr_gives_the_value_back(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"value", XattrMode::Set)?;
    equal(w.getxattr("f", b"user.k")?, b"value", "the value")
}

fn setxattr_over_a_value_replaces_it(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    for value in [&b"a longer value"[..], b"short", b"and a longer one again"] {
        w.setxattr("f", b"user.k", value, XattrMode::Set)?;
        equal(w.getxattr("f", b"user.k")?, value, "the value")?;
    }
    equal(user_names(w, "f")?, ["user.k"], "the names")
}

fn setxattr_of_an_empty_value_keeps_the_name(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"", XattrMode::Set)?;
    equal(w.getxattr("f", b"user.k")?, b"", "the value")?;
    equal(user_names(w, "f")?, ["user.k"], "the names")
}

fn setxattr_of_any_bytes_keeps_them(w: &World<'_>) -> Verdict {
    let value: Vec<u8> = (0..=255).collect();
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", &value, XattrMode::Set)?;
    equal(w.getxattr("f", b"user.k")?, value, "the value")
}

fn setxattr_create_of_a_new_name_sets_it(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"v", XattrMode::Create)?;
    equal(w.getxattr("f", b"user.k")?, b"v", "the value")
}

fn setxattr_create_over_an_existing_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"old", XattrMode::Set)?;
    refused(w.setxattr("f", b"user.k", b"new", XattrMode::Create), Errno::EEXIST)?;
    equal(w.getxattr("f", b"user.k")?, b"old", "the value")
}

fn setxattr_replace_of_an_existing_name_sets_it(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"old", XattrMode::Set)?;
    w.setxattr("f", b"user.k", b"new", XattrMode::Replace)?;
    equal(w.getxattr("f", b"user.k")?, b"new", "the value")
}

fn setxattr_replace_of_an_absent_name_returns_enodata(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.setxattr("f", b"user.k", b"v", XattrMode::Replace), Errno::ENODATA)?;
    equal(user_names(w, "f")?, [""; 0], "the names")
}

fn setxattr_of_a_long_value_keeps_it_or_says_why_not(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    for len in [1000, 3000, 65_536] {
        let value = vec![b'v'; len];
        match w.setxattr("f", b"user.k", &value, XattrMode::Set) {
            Ok(()) => holds(w.getxattr("f", b"user.k")? == value, "the value is what was set")?,
            Err(errno) => {
                refused_any(Err::<(), _>(errno), &[Errno::ENOSPC, Errno::E2BIG, Errno::EDQUOT])?;
            }
        }
    }
    Ok(())
}

fn setxattr_of_65537_bytes_returns_e2big(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let value = vec![b'v'; 65_537];
    refused(w.setxattr("f", b"user.k", &value, XattrMode::Set), Errno::E2BIG)?;
    equal(user_names(w, "f")?, [""; 0], "the names")
}

fn setxattr_in_an_unknown_namespace_returns_eopnotsupp(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    for name in [&b"nobody.k"[..], b"nodot"] {
        refused(w.setxattr("f", name, b"v", XattrMode::Set), Errno::EOPNOTSUPP)?;
        refused_any(w.getxattr("f", name), &[Errno::EOPNOTSUPP, Errno::ENODATA])?;
    }
    Ok(())
}

fn setxattr_on_a_directory_works(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.setxattr("d", b"user.k", b"v", XattrMode::Set)?;
    w.file("d/f", b"")?;
    equal(w.getxattr("d", b"user.k")?, b"v", "the value")?;
    refused(w.getxattr("d/f", b"user.k"), Errno::ENODATA)
}

fn setxattr_in_trusted_works(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"trusted.testkit", b"v", XattrMode::Set)?;
    equal(w.getxattr("f", b"trusted.testkit")?, b"v", "the value")?;
    holds(w.listxattr("f")?.contains(&b"trusted.testkit".to_vec()), "it is listed to root")?;
    w.removexattr("f", b"trusted.testkit")?;
    refused(w.getxattr("f", b"trusted.testkit"), Errno::ENODATA)
}

fn setxattr_in_security_works(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"security.testkit", b"v", XattrMode::Set)?;
    equal(w.getxattr("f", b"security.testkit")?, b"v", "the value")
}

fn setxattr_in_trusted_on_a_symlink_stays_on_the_link(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.symlink("f", "l")?;
    w.setxattr("l", b"trusted.testkit", b"v", XattrMode::Set)?;
    equal(w.getxattr("l", b"trusted.testkit")?, b"v", "the link's value")?;
    refused(w.getxattr("f", b"trusted.testkit"), Errno::ENODATA)
}

fn setxattr_in_user_on_a_symlink_returns_eperm(w: &World<'_>) -> Verdict {
    w.symlink("x", "l")?;
    refused(w.setxattr("l", b"user.k", b"v", XattrMode::Set), Errno::EPERM)
}

fn getxattr_of_an_absent_name_returns_enodata(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.getxattr("f", b"user.absent"), Errno::ENODATA)
}

fn getxattr_on_an_absent_file_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.getxattr("absent", b"user.k"), Errno::ENOENT)
}

fn getxattr_without_room_tells_the_size(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"value", XattrMode::Set)?;
    equal(w.getxattr_sized("f", b"user.k", 0)?, 5, "the size")
}

fn getxattr_with_too_little_room_returns_erange(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"value", XattrMode::Set)?;
    refused(w.getxattr_sized("f", b"user.k", 4), Errno::ERANGE)
}

fn getxattr_with_just_enough_room_works(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"value", XattrMode::Set)?;
    equal(w.getxattr_sized("f", b"user.k", 5)?, 5, "the size")
}

fn listxattr_of_a_new_file_is_empty_of_user_names(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    equal(user_names(w, "f")?, [""; 0], "the names")
}

fn listxattr_shows_every_name_once(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let names: Vec<String> = (0..40).map(|i| format!("user.k{i:02}")).collect();
    for name in &names {
        w.setxattr("f", name.as_bytes(), name.as_bytes(), XattrMode::Set)?;
    }
    equal(user_names(w, "f")?, names.clone(), "the names")?;
    for name in &names {
        equal(w.getxattr("f", name.as_bytes())?, name.as_bytes(), "the value")?;
    }
    Ok(())
}

fn listxattr_sizes_and_list_agree(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.one", b"1", XattrMode::Set)?;
    w.setxattr("f", b"user.two", b"2", XattrMode::Set)?;
    let size = w.listxattr_sized("f", 0)?;
    equal(w.listxattr("f")?.iter().map(|name| name.len() + 1).sum::<usize>(), size, "the list")?;
    equal(w.listxattr_sized("f", size)?, size, "the list in just enough room")
}

fn listxattr_with_too_little_room_returns_erange(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.name", b"v", XattrMode::Set)?;
    // One byte less than this name and its NUL.
    refused(w.listxattr_sized("f", 9), Errno::ERANGE)
}

fn removexattr_removes_the_name(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.a", b"1", XattrMode::Set)?;
    w.setxattr("f", b"user.b", b"2", XattrMode::Set)?;
    w.removexattr("f", b"user.a")?;
    refused(w.getxattr("f", b"user.a"), Errno::ENODATA)?;
    equal(user_names(w, "f")?, ["user.b"], "the names")?;
    equal(w.getxattr("f", b"user.b")?, b"2", "the other value")
}

fn removexattr_of_an_absent_name_returns_enodata(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.removexattr("f", b"user.absent"), Errno::ENODATA)
}

fn xattr_survives_a_rename(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"v", XattrMode::Set)?;
    w.rename("f", "g")?;
    equal(w.getxattr("g", b"user.k")?, b"v", "the value")
}

fn xattr_is_shared_by_hard_links(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.link("a", "b")?;
    w.setxattr("a", b"user.k", b"v", XattrMode::Set)?;
    equal(w.getxattr("b", b"user.k")?, b"v", "the value")?;
    w.removexattr("b", b"user.k")?;
    refused(w.getxattr("a", b"user.k"), Errno::ENODATA)
}

fn xattr_of_a_removed_file_does_not_come_back(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"v", XattrMode::Set)?;
    w.unlink("f")?;
    w.file("f", b"")?;
    refused(w.getxattr("f", b"user.k"), Errno::ENODATA)
}

fn xattr_name_of_255_bytes_works(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let name = format!("user.{}", "n".repeat(250));
    w.setxattr("f", name.as_bytes(), b"v", XattrMode::Set)?;
    equal(w.getxattr("f", name.as_bytes())?, b"v", "the value")?;
    equal(user_names(w, "f")?, [name], "the names")
}

fn xattr_name_of_256_bytes_returns_erange(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let name = format!("user.{}", "n".repeat(251));
    refused(w.setxattr("f", name.as_bytes(), b"v", XattrMode::Set), Errno::ERANGE)
}

fn xattr_names_are_case_sensitive(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"lower", XattrMode::Set)?;
    w.setxattr("f", b"user.K", b"upper", XattrMode::Set)?;
    equal(w.getxattr("f", b"user.k")?, b"lower", "the value")?;
    equal(user_names(w, "f")?, ["user.K", "user.k"], "the names")
}

fn xattr_gives_its_space_back(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let before = w.statfs()?.bfree;
    for i in 0..8 {
        w.setxattr("f", format!("user.k{i}").as_bytes(), &[b'v'; 2000], XattrMode::Set)?;
    }
    for i in 0..8 {
        w.removexattr("f", format!("user.k{i}").as_bytes())?;
    }
    w.settles(|| Ok(w.statfs()?.bfree), &before, "what is free")
}
