//! Times: what sets which, by inode(7); utimensat(2).

use std::time::{Duration, Instant};

use stratafs_core::{Attr, Errno, OpenFlags, SetTime, Timestamp, XattrMode};

use crate::case::case;
use crate::{Case, Family, Verdict, World, equal, holds};

const FAMILY: Family = Family::Times;

pub(super) const CASES: &[Case] = &[
    case!(create_sets_all_times_to_now),
    case!(create_sets_the_times_of_the_directory),
    case!(create_sets_the_creation_time, BTIME),
    case!(write_sets_mtime_and_ctime),
    case!(write_keeps_the_creation_time, BTIME),
    case!(read_keeps_mtime_and_ctime),
    case!(truncate_sets_mtime_and_ctime),
    case!(chmod_sets_ctime_alone),
    case!(chown_sets_ctime_alone, PRIVILEGE),
    case!(link_sets_ctime_of_the_file_and_times_of_the_directory, HARD_LINKS),
    case!(unlink_sets_ctime_of_the_other_name_and_times_of_the_directory, HARD_LINKS),
    case!(mkdir_and_rmdir_set_the_times_of_the_directory),
    case!(rename_sets_the_times_of_both_directories),
    case!(rename_keeps_mtime_of_the_file),
    case!(setxattr_sets_ctime_alone, XATTR_USER),
    case!(removexattr_sets_ctime_alone, XATTR_USER),
    case!(punch_hole_sets_mtime_and_ctime, PUNCH_HOLE),
    case!(copy_range_sets_mtime_of_the_target, COPY_RANGE),
    case!(failed_calls_keep_the_times),
    case!(utimens_sets_both_times_to_the_nanosecond, FINE_TIMES),
    case!(utimens_of_one_time_keeps_the_other),
    case!(utimens_to_now_is_now),
    case!(utimens_sets_ctime_to_now),
    case!(utimens_before_the_epoch_keeps_the_sign, FINE_TIMES),
    case!(utimens_beyond_2038_keeps_all_bits),
    case!(utimens_of_a_directory_works),
    case!(utimens_of_a_symlink_changes_the_link_itself, SYMLINKS),
    case!(times_are_finer_than_a_second, FINE_TIMES),
];

/// Waits until the filesystem's clock shows a later time than `then`.
fn wait_past(w: &World<'_>, then: Timestamp) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(30);
    w.file("clock", b"")?;
    while Instant::now() < deadline {
        w.chmod("clock", 0o600)?;
        if w.stat("clock")?.ctime > then {
            w.unlink("clock")?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    holds(false, "the filesystem's clock goes on")
}

/// Which of mtime and ctime `action` sets of the object at `path`, after time has passed.
fn changed(
    w: &World<'_>,
    path: &str,
    action: impl FnOnce() -> Result<(), Errno>,
) -> Result<(bool, bool), crate::Failure> {
    let before = w.stat(path)?;
    wait_past(w, before.ctime.max(before.mtime))?;
    action()?;
    let after = w.stat(path)?;
    holds(after.mtime >= before.mtime && after.ctime >= before.ctime, "no time goes back")?;
    Ok((after.mtime > before.mtime, after.ctime > before.ctime))
}

const BOTH: (bool, bool) = (true, true);
const CTIME: (bool, bool) = (false, true);
const NEITHER: (bool, bool) = (false, false);

fn create_sets_all_times_to_now(w: &World<'_>) -> Verdict {
    w.file("before", b"")?;
    let earlier = w.stat("before")?.ctime;
    wait_past(w, earlier)?;
    w.file("f", b"")?;
    let attr = w.stat("f")?;
    let times = [attr.atime, attr.mtime, attr.ctime];
    holds(times.iter().all(|time| *time > earlier), "all times are later than before")?;
    wait_past(w, times.into_iter().max().unwrap_or(earlier))
}

fn create_sets_the_times_of_the_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    equal(changed(w, "d", || w.file("d/f", b""))?, BOTH, "(mtime, ctime) changed")
}

fn create_sets_the_creation_time(w: &World<'_>) -> Verdict {
    w.file("before", b"")?;
    let earlier = w.stat("before")?.ctime;
    wait_past(w, earlier)?;
    w.file("f", b"")?;
    let attr = w.stat("f")?;
    let born = attr.btime.ok_or(Errno::ENODATA)?;
    holds(born > earlier && born <= attr.ctime, "it is born between before and now")
}

fn write_sets_mtime_and_ctime(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    equal(changed(w, "f", || w.write_at("f", 0, b"D"))?, BOTH, "(mtime, ctime) changed")
}

fn write_keeps_the_creation_time(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let born = w.stat("f")?.btime;
    wait_past(w, w.stat("f")?.ctime)?;
    w.write_at("f", 0, b"D")?;
    w.chmod("f", 0o600)?;
    w.rename("f", "g")?;
    equal(w.stat("g")?.btime, born, "the creation time")
}

fn read_keeps_mtime_and_ctime(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let read = changed(w, "f", || w.read("f").map(drop))?;
    equal(read, NEITHER, "(mtime, ctime) changed")
}

fn truncate_sets_mtime_and_ctime(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    equal(changed(w, "f", || w.truncate("f", 1))?, BOTH, "(mtime, ctime) changed by cutting")?;
    equal(changed(w, "f", || w.truncate("f", 9))?, BOTH, "(mtime, ctime) changed by extending")
}

fn chmod_sets_ctime_alone(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    equal(changed(w, "f", || w.chmod("f", 0o600))?, CTIME, "(mtime, ctime) changed")
}

fn chown_sets_ctime_alone(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    equal(changed(w, "f", || w.chown("f", Some(5), None))?, CTIME, "(mtime, ctime) changed")
}

fn link_sets_ctime_of_the_file_and_times_of_the_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("f", b"")?;
    equal(changed(w, "f", || w.link("f", "d/g"))?, CTIME, "(mtime, ctime) of the file")?;
    equal(changed(w, "d", || w.link("f", "d/h"))?, BOTH, "(mtime, ctime) of the directory")
}

fn unlink_sets_ctime_of_the_other_name_and_times_of_the_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("f", b"")?;
    w.link("f", "d/g")?;
    w.link("f", "d/h")?;
    equal(changed(w, "f", || w.unlink("d/g"))?, CTIME, "(mtime, ctime) of the file")?;
    equal(changed(w, "d", || w.unlink("d/h"))?, BOTH, "(mtime, ctime) of the directory")
}

fn mkdir_and_rmdir_set_the_times_of_the_directory(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    equal(changed(w, "d", || w.mkdir("d/e", 0o755))?, BOTH, "(mtime, ctime) by mkdir")?;
    equal(changed(w, "d", || w.rmdir("d/e"))?, BOTH, "(mtime, ctime) by rmdir")
}

fn rename_sets_the_times_of_both_directories(w: &World<'_>) -> Verdict {
    w.mkdir("a", 0o755)?;
    w.mkdir("b", 0o755)?;
    w.file("a/f", b"")?;
    equal(changed(w, "a", || w.rename("a/f", "b/f"))?, BOTH, "(mtime, ctime) of the old one")?;
    equal(changed(w, "a", || w.rename("b/f", "a/f"))?, BOTH, "(mtime, ctime) of the new one")
}

fn rename_keeps_mtime_of_the_file(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    let before = w.stat("f")?.mtime;
    wait_past(w, before)?;
    w.rename("f", "g")?;
    equal(w.stat("g")?.mtime, before, "mtime")
}

fn setxattr_sets_ctime_alone(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let set = changed(w, "f", || w.setxattr("f", b"user.k", b"v", XattrMode::Set))?;
    equal(set, CTIME, "(mtime, ctime) changed")
}

fn removexattr_sets_ctime_alone(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.setxattr("f", b"user.k", b"v", XattrMode::Set)?;
    let removed = changed(w, "f", || w.removexattr("f", b"user.k"))?;
    equal(removed, CTIME, "(mtime, ctime) changed")
}

fn punch_hole_sets_mtime_and_ctime(w: &World<'_>) -> Verdict {
    use stratafs_core::FallocateMode;
    w.file("f", &[b'x'; 20_000])?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    let punched = changed(w, "f", || w.fallocate(fd, mode, 0, 4096))?;
    w.close(fd)?;
    equal(punched, BOTH, "(mtime, ctime) changed")
}

fn copy_range_sets_mtime_of_the_target(w: &World<'_>) -> Verdict {
    w.file("a", b"data")?;
    w.file("b", b"")?;
    let from = w.open("a", OpenFlags::READ_ONLY)?;
    let to = w.open("b", OpenFlags::WRITE_ONLY)?;
    let source = w.stat("a")?.mtime;
    let copied = changed(w, "b", || w.copy_range((from, 0), (to, 0), 4).map(drop))?;
    w.close(from)?;
    w.close(to)?;
    equal(copied, BOTH, "(mtime, ctime) of the target")?;
    equal(w.stat("a")?.mtime, source, "mtime of the source")
}

fn failed_calls_keep_the_times(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"")?;
    let failed = changed(w, "d", || {
        let refused = [
            w.mkdir("d/f", 0o755),
            w.unlink("d/absent"),
            w.rmdir("d/f"),
            w.rename("d/absent", "d/g"),
            w.truncate("d", 0),
        ];
        if refused.iter().all(Result::is_err) { Ok(()) } else { Err(Errno::EIO) }
    })?;
    equal(failed, NEITHER, "(mtime, ctime) changed")
}

/// Sets both times of `path`.
fn set(w: &World<'_>, path: &str, atime: Timestamp, mtime: Timestamp) -> Result<Attr, Errno> {
    w.utimens(path, Some(SetTime::At(atime)), Some(SetTime::At(mtime)))?;
    w.stat(path)
}

fn utimens_sets_both_times_to_the_nanosecond(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let (a, m) = (Timestamp::new(1_000_000_000, 123_456_789), Timestamp::new(1, 999_999_999));
    let attr = set(w, "f", a, m)?;
    equal((attr.atime, attr.mtime), (a, m), "the times")
}

fn utimens_of_one_time_keeps_the_other(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    set(w, "f", Timestamp::new(100, 0), Timestamp::new(200, 0))?;
    w.utimens("f", Some(SetTime::At(Timestamp::new(300, 0))), None)?;
    w.utimens("f", None, Some(SetTime::At(Timestamp::new(400, 0))))?;
    let attr = w.stat("f")?;
    equal((attr.atime.sec, attr.mtime.sec), (300, 400), "the times")
}

fn utimens_to_now_is_now(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let born = w.stat("f")?.mtime;
    set(w, "f", Timestamp::new(100, 0), Timestamp::new(200, 0))?;
    w.utimens("f", Some(SetTime::Now), Some(SetTime::Now))?;
    let attr = w.stat("f")?;
    // A kernel that caches writes has a clock of its own, coarser than a filesystem's.
    let now = [attr.atime, attr.mtime].iter().all(|time| time.sec + 1 >= born.sec);
    holds(now, "both times are now, to the second")
}

fn utimens_sets_ctime_to_now(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let before = w.stat("f")?.ctime;
    wait_past(w, before)?;
    let attr = set(w, "f", Timestamp::new(100, 0), Timestamp::new(200, 0))?;
    holds(attr.ctime > before, "ctime is now, whatever the other times are")
}

fn utimens_before_the_epoch_keeps_the_sign(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let (a, m) = (Timestamp::new(-1, 500_000_000), Timestamp::new(-1_000_000, 0));
    let attr = set(w, "f", a, m)?;
    equal((attr.atime, attr.mtime), (a, m), "the times")
}

fn utimens_beyond_2038_keeps_all_bits(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    let (a, m) = (Timestamp::new(1 << 32, 0), Timestamp::new((1 << 33) + 5, 0));
    let attr = set(w, "f", a, m)?;
    equal((attr.atime, attr.mtime), (a, m), "the times")
}

fn utimens_of_a_directory_works(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o755)?;
    let (a, m) = (Timestamp::new(100, 0), Timestamp::new(200, 0));
    let attr = set(w, "d", a, m)?;
    equal((attr.atime, attr.mtime), (a, m), "the times")
}

fn utimens_of_a_symlink_changes_the_link_itself(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    w.symlink("f", "l")?;
    let target = w.stat("f")?.mtime;
    let (a, m) = (Timestamp::new(100, 0), Timestamp::new(200, 0));
    let attr = set(w, "l", a, m)?;
    equal(attr.mtime, m, "mtime of the link")?;
    equal(w.stat("f")?.mtime, target, "mtime of the target")
}

fn times_are_finer_than_a_second(w: &World<'_>) -> Verdict {
    let mut fractions = false;
    for i in 0..5 {
        let name = format!("f{i}");
        w.file(&name, b"")?;
        let ctime = w.stat(&name)?.ctime;
        fractions |= ctime.nsec != 0;
        wait_past(w, ctime)?;
    }
    holds(fractions, "some time of five has a fraction of a second")
}
