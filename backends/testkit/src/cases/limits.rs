//! What is too long, too far or too many.

use stratafs_core::{Errno, OpenFlags, RenameFlags};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds, refused, refused_any};

const FAMILY: Family = Family::Limits;

pub(super) const CASES: &[Case] = &[
    case!(name_of_255_bytes_works_everywhere, HARD_LINKS | SYMLINKS),
    case!(name_of_256_bytes_returns_enametoolong, HARD_LINKS | SYMLINKS),
    case!(name_of_255_bytes_that_are_no_text_works, BYTE_NAMES),
    case!(names_that_differ_in_case_are_two, BYTE_NAMES),
    case!(names_that_are_one_text_in_two_encodings_are_two, BYTE_NAMES),
    case!(name_that_looks_like_dots_is_a_name),
    case!(name_of_every_single_byte_works, BYTE_NAMES),
    case!(path_of_a_hundred_levels_works),
    case!(write_at_2_62_works_or_returns_efbig),
    case!(write_at_the_end_of_offsets_returns_efbig),
    case!(write_across_the_end_of_offsets_is_refused_whole)
        .in_process("the kernel refuses it before any filesystem sees it"),
    case!(read_at_the_end_of_offsets_gives_nothing),
    case!(truncate_to_2_62_works_or_returns_efbig),
    case!(truncate_beyond_the_largest_file_returns_efbig)
        .in_process("the kernel refuses it before any filesystem sees it"),
    case!(directory_of_two_thousand_files_keeps_each),
    case!(file_rewritten_a_hundred_times_takes_no_more_space, ACCOUNTING),
];

fn name_of_255_bytes_works_everywhere(w: &World<'_>) -> Verdict {
    let name = |c: &str| c.repeat(255);
    w.file(name("f"), b"data")?;
    w.mkdir(name("d"), 0o755)?;
    w.symlink("x", name("s"))?;
    w.link(name("f"), name("l"))?;
    w.rename(name("f"), format!("{}/{}", name("d"), name("r")))?;
    equal(w.names("")?, [name("d"), name("l"), name("s")], "the listing")?;
    equal(w.read(format!("{}/{}", name("d"), name("r")))?, b"data", "the data")?;
    w.unlink(name("l"))?;
    w.unlink(format!("{}/{}", name("d"), name("r")))?;
    w.rmdir(name("d"))?;
    equal(w.names("")?, [name("s")], "the listing")
}

fn name_of_256_bytes_returns_enametoolong(w: &World<'_>) -> Verdict {
    let long = "n".repeat(256);
    w.file("f", b"")?;
    refused(w.stat(&long), Errno::ENAMETOOLONG)?;
    refused(w.create(&long, OpenFlags::WRITE_ONLY, 0o644), Errno::ENAMETOOLONG)?;
    refused(w.mkdir(&long, 0o755), Errno::ENAMETOOLONG)?;
    refused(w.symlink("x", &long), Errno::ENAMETOOLONG)?;
    refused(w.mknod(&long, 0o100_644, 0), Errno::ENAMETOOLONG)?;
    refused(w.link("f", &long), Errno::ENAMETOOLONG)?;
    refused(w.rename("f", &long), Errno::ENAMETOOLONG)?;
    refused(w.rename2(&long, "f", RenameFlags::empty()), Errno::ENAMETOOLONG)?;
    refused(w.unlink(&long), Errno::ENAMETOOLONG)?;
    refused(w.rmdir(&long), Errno::ENAMETOOLONG)?;
    equal(w.names("")?, ["f"], "the listing")
}

fn name_of_255_bytes_that_are_no_text_works(w: &World<'_>) -> Verdict {
    let name = vec![0xff; 255];
    w.file(&name, b"data")?;
    equal(w.read(&name)?, b"data", "the data")?;
    let listing = w.list("")?;
    holds(listing.iter().any(|entry| entry.name == name), "it is listed as it is")
}

fn names_that_differ_in_case_are_two(w: &World<'_>) -> Verdict {
    w.file("name", b"lower")?;
    refused(w.stat("NAME"), Errno::ENOENT)?;
    w.file("NAME", b"upper")?;
    equal(w.read("name")?, b"lower", "the one")?;
    equal(w.read("NAME")?, b"upper", "the other")
}

/// A composed and a decomposed ü.
fn names_that_are_one_text_in_two_encodings_are_two(w: &World<'_>) -> Verdict {
    w.file("\u{fc}", b"one")?;
    refused(w.stat("u\u{308}"), Errno::ENOENT)?;
    w.file("u\u{308}", b"two")?;
    equal(w.read("\u{fc}")?, b"one", "the one")?;
    equal(w.list("")?.len(), 4, "how many entries")
}

fn name_that_looks_like_dots_is_a_name(w: &World<'_>) -> Verdict {
    for name in ["...", "..a", ".a", "a.", "a..", ". ", ".. "] {
        w.file(name, name.as_bytes())?;
        equal(w.read(name)?, name.as_bytes(), "the data")?;
    }
    equal(w.list("")?.len(), 9, "how many entries")
}

fn name_of_every_single_byte_works(w: &World<'_>) -> Verdict {
    let bytes = || (1..=255_u8).filter(|byte| !matches!(byte, b'/' | b'.'));
    for byte in bytes() {
        w.file([byte], &[byte])?;
    }
    for byte in bytes() {
        equal(w.read([byte])?, [byte], "the data")?;
    }
    equal(w.list("")?.len(), 253 + 2, "how many entries")
}

fn path_of_a_hundred_levels_works(w: &World<'_>) -> Verdict {
    let mut path = String::from("d");
    for _ in 0..100 {
        w.mkdir(&path, 0o755)?;
        path.push_str("/d");
    }
    w.file(&path, b"deep")?;
    w.rename("d/d", "e")?;
    equal(w.read(format!("e{}", &path[3..]))?, b"deep", "the data after moving the middle")
}

/// A filesystem holds it as a hole and a byte, or says that it is too far: it does not fall over.
fn write_at_2_62_works_or_returns_efbig(w: &World<'_>) -> Verdict {
    let far = 1 << 62;
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    match w.pwrite(fd, far, b"x") {
        Ok(n) => {
            equal(n, 1, "bytes written")?;
            equal(w.fstat(fd)?.size, far + 1, "size")?;
            equal(w.pread(fd, far - 1, 10)?, b"\0x", "the end")?;
            equal(w.pread(fd, 0, 4)?, b"\0\0\0\0", "the start")?;
        }
        Err(errno) => {
            equal(errno, Errno::EFBIG, "the error")?;
            equal(w.fstat(fd)?.size, 0, "size")?;
        }
    }
    w.close(fd)?;
    Ok(())
}

fn write_at_the_end_of_offsets_returns_efbig(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    let end = i64::MAX.cast_unsigned();
    refused_any(w.pwrite(fd, end, b"x"), &[Errno::EFBIG, Errno::EINVAL])?;
    equal(w.fstat(fd)?.size, 0, "size")?;
    w.close(fd)?;
    Ok(())
}

fn write_across_the_end_of_offsets_is_refused_whole(w: &World<'_>) -> Verdict {
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
        refused_any(w.pwrite(fd, offset, b"xyz"), &[Errno::EFBIG, Errno::EINVAL])?;
    }
    equal(w.fstat(fd)?.size, 0, "size")?;
    w.close(fd)?;
    Ok(())
}

fn read_at_the_end_of_offsets_gives_nothing(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_ONLY)?;
    equal(w.pread(fd, i64::MAX.cast_unsigned() - 10, 4)?, b"", "the data")?;
    w.close(fd)?;
    Ok(())
}

fn truncate_to_2_62_works_or_returns_efbig(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    match w.truncate("f", 1 << 62) {
        Ok(()) => equal(w.stat("f")?.size, 1 << 62, "size")?,
        Err(errno) => {
            equal(errno, Errno::EFBIG, "the error")?;
            equal(w.stat("f")?.size, 4, "size")?;
        }
    }
    w.truncate("f", 2)?;
    equal(w.read("f")?, b"da", "the data")
}

fn truncate_beyond_the_largest_file_returns_efbig(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    for size in [1 << 63, u64::MAX] {
        refused_any(w.truncate("f", size), &[Errno::EFBIG, Errno::EINVAL])?;
    }
    equal(w.read("f")?, b"data", "the data")
}

fn directory_of_two_thousand_files_keeps_each(w: &World<'_>) -> Verdict {
    for i in 0..2000_u32 {
        w.file(format!("f{i}"), &i.to_le_bytes())?;
    }
    for i in (0..2000_u32).rev() {
        equal(w.read(format!("f{i}"))?, i.to_le_bytes(), "the data")?;
    }
    equal(w.list("")?.len(), 2002, "how many entries")
}

fn file_rewritten_a_hundred_times_takes_no_more_space(w: &World<'_>) -> Verdict {
    w.file("f", &[b'0'; 50_000])?;
    let once = w.statfs()?.bfree;
    for i in 0..100 {
        w.write_at("f", 0, &[b'0' + i; 50_000])?;
    }
    w.settles(|| Ok(w.statfs()?.bfree), &once, "what is free")
}
