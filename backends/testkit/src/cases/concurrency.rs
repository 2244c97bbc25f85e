//! Several threads at once: what is atomic against what.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use stratafs_core::{Errno, OpenFlags, RenameFlags};

use crate::case::case;
use crate::world::names_of;
use crate::{Case, Failure, Family, Verdict, World, equal, holds};

const FAMILY: Family = Family::Concurrency;

pub(super) const CASES: &[Case] = &[
    case!(create_by_four_threads_keeps_every_file),
    case!(create_exclusive_by_four_threads_has_one_winner),
    case!(mkdir_by_four_threads_has_one_winner),
    case!(unlink_by_four_threads_has_one_winner),
    case!(append_by_four_threads_loses_nothing),
    case!(write_of_ranges_side_by_side_keeps_each),
    case!(write_to_two_copies_by_two_threads_mixes_nothing, COPY_RANGE),
    case!(rename_back_and_forth_always_shows_one_name),
    case!(rename_over_a_file_never_shows_it_absent),
    case!(rename_exchange_never_shows_a_name_absent, EXCHANGE),
    case!(rename_of_directories_into_each_other_makes_no_loop),
    case!(rename_and_create_in_opposite_order_end),
    case!(rmdir_against_create_leaves_no_orphan),
    case!(link_and_unlink_by_four_threads_keep_nlink_right, HARD_LINKS | RACING_LINKS),
    case!(readdir_beside_changes_shows_the_still_names_once),
    case!(write_and_truncate_by_two_threads_end),
];

const THREADS: usize = 4;

/// Runs `work` on four threads, with the number of each, and gives the first failure.
fn on_four_threads(work: impl Fn(usize) -> Verdict + Sync) -> Verdict {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let work = &work;
                scope.spawn(move || work(number))
            })
            .collect();
        let verdicts: Vec<Verdict> = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(Failure::nowhere("a thread panicked"))))
            .collect();
        verdicts.into_iter().collect()
    })
}

/// Runs `watch` again and again until `work` is done on another thread.
fn beside(work: impl FnOnce() -> Verdict + Send, watch: impl Fn() -> Verdict) -> Verdict {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let verdict = work();
            done.store(true, Ordering::Release);
            verdict
        });
        let mut watched = Ok(());
        while watched.is_ok() && !done.load(Ordering::Acquire) && !worker.is_finished() {
            watched = watch();
        }
        let worked = worker.join();
        watched.and(worked.unwrap_or_else(|_| Err(Failure::nowhere("a thread panicked"))))
    })
}

fn create_by_four_threads_keeps_every_file(w: &World<'_>) -> Verdict {
    on_four_threads(|t| Ok((0..50).try_for_each(|i| w.file(format!("t{t}-{i:02}"), &[t as u8]))?))?;
    equal(w.names("")?.len(), 200, "how many files")?;
    for t in 0..THREADS {
        equal(w.read(format!("t{t}-49"))?, [t as u8], "the data")?;
    }
    Ok(())
}

/// How many of four threads `attempt` works for, with `expected` as the others' error.
fn winners(
    attempt: impl Fn() -> Result<(), Errno> + Sync,
    expected: Errno,
) -> Result<usize, Failure> {
    let won = AtomicUsize::new(0);
    on_four_threads(|_| match attempt() {
        Ok(()) => {
            won.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Err(errno) => equal(errno, expected, "the losers' error"),
    })?;
    Ok(won.into_inner())
}

fn create_exclusive_by_four_threads_has_one_winner(w: &World<'_>) -> Verdict {
    for i in 0..30 {
        let name = format!("f{i}");
        let won = winners(|| w.file(&name, b""), Errno::EEXIST)?;
        equal(won, 1, "how many made it")?;
    }
    Ok(())
}

fn mkdir_by_four_threads_has_one_winner(w: &World<'_>) -> Verdict {
    for i in 0..30 {
        let name = format!("d{i}");
        equal(winners(|| w.mkdir(&name, 0o755), Errno::EEXIST)?, 1, "how many made it")?;
    }
    Ok(())
}

fn unlink_by_four_threads_has_one_winner(w: &World<'_>) -> Verdict {
    for i in 0..30 {
        let name = format!("f{i}");
        w.file(&name, b"")?;
        equal(winners(|| w.unlink(&name), Errno::ENOENT)?, 1, "how many removed it")?;
    }
    Ok(())
}

fn append_by_four_threads_loses_nothing(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    on_four_threads(|t| {
        let fd = w.open("f", OpenFlags::WRITE_ONLY.with_append())?;
        for _ in 0..100 {
            w.write_all(fd, 0, &[b'0' + t as u8; 10])?;
        }
        w.close(fd)?;
        Ok(())
    })?;
    let data = w.read("f")?;
    equal(data.len(), THREADS * 1000, "size")?;
    let whole = data.chunks(10).all(|record| record.iter().all(|byte| *byte == record[0]));
    holds(whole, "no record is torn")?;
    for t in 0..THREADS {
        let count = data.iter().filter(|byte| **byte == b'0' + t as u8).count();
        equal(count, 1000, "bytes of one thread")?;
    }
    Ok(())
}

fn write_of_ranges_side_by_side_keeps_each(w: &World<'_>) -> Verdict {
    const PART: usize = 30_000;
    w.file("f", b"")?;
    on_four_threads(|t| {
        let fd = w.open("f", OpenFlags::WRITE_ONLY)?;
        for step in 0..10 {
            let offset = t * PART + step * PART / 10;
            w.write_all(fd, offset as u64, &[b'a' + t as u8; PART / 10])?;
        }
        w.close(fd)?;
        Ok(())
    })?;
    let data = w.read("f")?;
    equal(data.len(), THREADS * PART, "size")?;
    let kept = data.iter().enumerate().all(|(i, byte)| *byte == b'a' + (i / PART) as u8);
    holds(kept, "each range holds what its thread wrote")
}

fn write_to_two_copies_by_two_threads_mixes_nothing(w: &World<'_>) -> Verdict {
    on_four_threads(|t| {
        let from = w.create(format!("from{t}"), OpenFlags::READ_WRITE, 0o644)?;
        let to = w.create(format!("to{t}"), OpenFlags::READ_WRITE, 0o644)?;
        let data = vec![b'a' + t as u8; 100_000];
        w.write_all(from, 0, &data)?;
        let mut done = 0;
        while done < data.len() {
            let offset = done as u64;
            done += w.copy_range((from, offset), (to, offset), (data.len() - done) as u64)?;
        }
        holds(w.read_fd(to)? == data, "the copy holds its own source's bytes")?;
        w.close(from)?;
        w.close(to)?;
        Ok(())
    })
}

fn rename_back_and_forth_always_shows_one_name(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/a", b"")?;
    let work = || {
        for _ in 0..200 {
            w.rename("d/a", "d/b")?;
            w.rename("d/b", "d/a")?;
        }
        Ok(())
    };
    beside(work, || {
        let names = w.names("d")?;
        // A listing that is read in several steps may show the file under both names or none.
        let known = names.iter().all(|name| name == "a" || name == "b");
        holds(known, "no other name is ever there")
    })?;
    equal(w.names("d")?, ["a"], "the listing")?;
    equal(w.stat("d/a")?.nlink, 1, "nlink")
}

fn rename_over_a_file_never_shows_it_absent(w: &World<'_>) -> Verdict {
    w.file("f", b"0000")?;
    let work = || {
        for i in 0..200_u32 {
            w.file("new", format!("{i:04}").as_bytes())?;
            w.rename("new", "f")?;
        }
        Ok(())
    };
    beside(work, || equal(w.read("f")?.len(), 4, "size of the file, old or new"))?;
    equal(w.read("f")?, b"0199", "the data")
}

fn rename_exchange_never_shows_a_name_absent(w: &World<'_>) -> Verdict {
    w.file("a", b"a")?;
    w.file("b", b"b")?;
    let work = || Ok((0..200).try_for_each(|_| w.rename2("a", "b", RenameFlags::EXCHANGE))?);
    beside(work, || {
        equal(w.stat("a")?.nlink, 1, "nlink of a")?;
        equal(w.stat("b")?.nlink, 1, "nlink of b")
    })?;
    equal((w.read("a")?, w.read("b")?), (b"a".into(), b"b".into()), "the files")
}

fn rename_of_directories_into_each_other_makes_no_loop(w: &World<'_>) -> Verdict {
    for i in 0..20 {
        let (a, b) = (format!("a{i}"), format!("b{i}"));
        w.mkdir(&a, 0o755)?;
        w.mkdir(&b, 0o755)?;
        on_four_threads(|t| {
            let (from, into) = if t % 2 == 0 { (&a, &b) } else { (&b, &a) };
            match w.rename(from, format!("{into}/{from}")) {
                Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOTEMPTY) => Ok(()),
                Err(errno) => Err(errno)?,
            }
        })?;
        let top = [w.exists(&a)?, w.exists(&b)?].iter().filter(|there| **there).count();
        equal(top, 1, "how many of the two are left at the top")?;
    }
    Ok(())
}

/// Two directories taken in opposite orders: a lock order that is none ends in a deadlock.
fn rename_and_create_in_opposite_order_end(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("b", 0o755)?;
    on_four_threads(|t| {
        let (one, two) = if t % 2 == 0 { ("a", "b") } else { ("b", "a") };
        for i in 0..100 {
            let name = format!("t{t}-{i}");
            w.file(format!("{one}/{name}"), b"")?;
            w.rename(format!("{one}/{name}"), format!("{two}/{name}"))?;
            w.stat(format!("{two}/{name}"))?;
        }
        Ok(())
    })?;
    equal((w.names("a")?.len(), w.names("b")?.len()), (200, 200), "how many files are in each")
}

/// Either the directory is gone and nothing was made in it, or it is there.
fn rmdir_against_create_leaves_no_orphan(w: &World<'_>) -> Verdict {
    for i in 0..50 {
        let dir = format!("d{i}");
        w.mkdir(&dir, 0o755)?;
        let file = format!("{dir}/f");
        let (made, removed) = thread::scope(|scope| {
            let maker = scope.spawn(|| w.file(&file, b""));
            let removed = w.rmdir(&dir);
            (maker.join().unwrap_or(Err(Errno::EIO)), removed)
        });
        match (made, removed) {
            (Ok(()), Err(Errno::ENOTEMPTY)) => equal(w.names(&dir)?, ["f"], "the listing")?,
            (Err(Errno::ENOENT), Ok(())) => holds(!w.exists(&dir)?, "the directory is gone")?,
            other => return Err(Failure::new(format!("create and rmdir answered {other:?}"))),
        }
    }
    Ok(())
}

fn link_and_unlink_by_four_threads_keep_nlink_right(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    on_four_threads(|t| {
        let name = format!("l{t}");
        for _ in 0..100 {
            w.link("f", &name)?;
            w.unlink(&name)?;
        }
        Ok(())
    })?;
    equal(w.stat("f")?.nlink, 1, "nlink")?;
    equal(w.names("")?, ["f"], "the listing")
}

fn readdir_beside_changes_shows_the_still_names_once(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    for i in 0..50 {
        w.file(format!("d/still{i:02}"), b"")?;
    }
    let want: Vec<String> = (0..50).map(|i| format!("still{i:02}")).collect();
    let work = || {
        for round in 0..20 {
            for i in 0..10 {
                w.file(format!("d/x{round}-{i}"), b"")?;
            }
            for i in 0..10 {
                w.unlink(format!("d/x{round}-{i}"))?;
            }
        }
        Ok(())
    };
    beside(work, || {
        let fd = w.opendir("d")?;
        let mut names = names_of(&w.list_from(fd, 0, 7)?);
        w.close(fd)?;
        names.retain(|name| name.starts_with("still"));
        equal(&names, &want, "the names that did not change")
    })
}

fn write_and_truncate_by_two_threads_end(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    on_four_threads(|t| {
        let fd = w.open("f", OpenFlags::READ_WRITE)?;
        for i in 0..100_u64 {
            if t % 2 == 0 {
                w.write_all(fd, i * 100, &[b'x'; 5000])?;
            } else {
                w.ftruncate(fd, i * 50)?;
            }
        }
        w.close(fd)?;
        Ok(())
    })?;
    let size = w.stat("f")?.size;
    let data = w.read("f")?;
    equal(data.len() as u64, size, "what can be read")?;
    holds(data.iter().all(|byte| matches!(byte, 0 | b'x')), "nothing but what was written")
}
