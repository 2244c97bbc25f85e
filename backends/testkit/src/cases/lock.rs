//! Locks: flock(2), and the POSIX locks of fcntl(2) where a filesystem keeps them itself.

use std::sync::mpsc;
use std::time::Duration;

use stratafs_core::{
    Context, Errno, FileLock, HandleId, LockFlavour, LockKind, LockOwner, NodeId, OpenFlags, Reply,
    Result,
};

use crate::case::case;
use crate::{Case, Family, Fd, InProcess, Verdict, World, equal, holds, refused};

const FAMILY: Family = Family::Lock;

const OWNERS: &str = "a kernel names the owners of locks by itself";

pub(super) const CASES: &[Case] = &[
    case!(flock_exclusive_keeps_others_out, FLOCK),
    case!(flock_shared_lets_readers_in_and_writers_out, FLOCK),
    case!(flock_is_given_up_by_unlock, FLOCK),
    case!(flock_is_given_up_by_close, FLOCK),
    case!(flock_can_be_turned_from_shared_to_exclusive, FLOCK),
    case!(flock_of_two_files_is_independent, FLOCK),
    case!(setlk_of_overlapping_ranges_conflicts, POSIX_LOCKS).in_process(OWNERS),
    case!(setlk_of_ranges_side_by_side_does_not_conflict, POSIX_LOCKS).in_process(OWNERS),
    case!(setlk_by_one_owner_replaces_its_own, POSIX_LOCKS).in_process(OWNERS),
    case!(setlk_unlock_in_the_middle_splits_the_range, POSIX_LOCKS).in_process(OWNERS),
    case!(getlk_tells_who_is_in_the_way, POSIX_LOCKS).in_process(OWNERS),
    case!(flush_gives_up_the_locks_of_its_owner, POSIX_LOCKS).in_process(OWNERS),
    case!(setlkw_gets_the_lock_when_it_is_given_up, POSIX_LOCKS).in_process(OWNERS),
    case!(setlkw_called_off_answers_eintr, POSIX_LOCKS).in_process(OWNERS),
];

/// The file `f`, open twice.
fn two_handles(w: &World<'_>) -> Result<(Fd, Fd)> {
    w.file("f", b"data")?;
    Ok((w.open("f", OpenFlags::READ_WRITE)?, w.open("f", OpenFlags::READ_WRITE)?))
}

fn close_both(w: &World<'_>, (one, two): (Fd, Fd)) -> Result<()> {
    w.close(one)?;
    w.close(two)
}

fn flock_exclusive_keeps_others_out(w: &World<'_>) -> Verdict {
    let (one, two) = two_handles(w)?;
    w.flock(one, LockKind::Write)?;
    refused(w.flock(two, LockKind::Write), Errno::EAGAIN)?;
    refused(w.flock(two, LockKind::Read), Errno::EAGAIN)?;
    close_both(w, (one, two))?;
    Ok(())
}

fn flock_shared_lets_readers_in_and_writers_out(w: &World<'_>) -> Verdict {
    let (one, two) = two_handles(w)?;
    w.flock(one, LockKind::Read)?;
    w.flock(two, LockKind::Read)?;
    refused(w.flock(two, LockKind::Write), Errno::EAGAIN)?;
    close_both(w, (one, two))?;
    Ok(())
}

fn flock_is_given_up_by_unlock(w: &World<'_>) -> Verdict {
    let (one, two) = two_handles(w)?;
    w.flock(one, LockKind::Write)?;
    w.flock(one, LockKind::Unlock)?;
    w.flock(two, LockKind::Write)?;
    refused(w.flock(one, LockKind::Read), Errno::EAGAIN)?;
    close_both(w, (one, two))?;
    Ok(())
}

fn flock_is_given_up_by_close(w: &World<'_>) -> Verdict {
    let (one, two) = two_handles(w)?;
    w.flock(one, LockKind::Write)?;
    w.close(one)?;
    // Over FUSE the release that gives it up comes a little after close(2).
    let mut answer = w.flock(two, LockKind::Write);
    for _ in 0..3000 {
        if answer != Err(Errno::EAGAIN) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        answer = w.flock(two, LockKind::Write);
    }
    w.close(two)?;
    equal(answer, Ok(()), "the lock after the other was closed")
}

fn flock_can_be_turned_from_shared_to_exclusive(w: &World<'_>) -> Verdict {
    let (one, two) = two_handles(w)?;
    w.flock(one, LockKind::Read)?;
    w.flock(one, LockKind::Write)?;
    refused(w.flock(two, LockKind::Read), Errno::EAGAIN)?;
    close_both(w, (one, two))?;
    Ok(())
}

fn flock_of_two_files_is_independent(w: &World<'_>) -> Verdict {
    w.file("a", b"")?;
    w.file("b", b"")?;
    let (one, two) = (w.open("a", OpenFlags::READ_WRITE)?, w.open("b", OpenFlags::READ_WRITE)?);
    w.flock(one, LockKind::Write)?;
    w.flock(two, LockKind::Write)?;
    close_both(w, (one, two))?;
    Ok(())
}

/// An open file, on which several owners lock ranges.
struct Ranges<'w> {
    client: &'w InProcess,
    fd: Fd,
    node: NodeId,
    handle: HandleId,
    cx: Context<'static>,
}

fn ranges<'w>(w: &World<'w>) -> Result<Ranges<'w>, crate::Failure> {
    let client = w.raw()?;
    w.file("f", b"data")?;
    let fd = w.open("f", OpenFlags::READ_WRITE)?;
    let (node, handle) = client.ids(fd)?;
    Ok(Ranges { client, fd, node, handle, cx: client.context() })
}

/// A lock of the bytes `start..=end`; its owner's number is its process's.
fn range(kind: LockKind, start: u64, end: u64, owner: u64) -> (LockOwner, FileLock) {
    let pid = u32::try_from(owner).unwrap_or(0);
    (LockOwner(owner), FileLock::new(kind, start, end, pid))
}

impl Ranges<'_> {
    fn set(&self, (owner, lock): (LockOwner, FileLock)) -> Result<()> {
        let flavour = LockFlavour::Posix;
        self.client.fs().setlk(&self.cx, self.node, self.handle, owner, lock, flavour)
    }

    fn get(&self, (owner, lock): (LockOwner, FileLock)) -> Result<FileLock> {
        self.client.fs().getlk(&self.cx, self.node, self.handle, owner, lock)
    }

    fn end(self, w: &World<'_>) -> Verdict {
        for owner in 1..=2 {
            self.set(range(LockKind::Unlock, 0, u64::MAX, owner))?;
        }
        w.close(self.fd)?;
        Ok(())
    }
}

fn setlk_of_overlapping_ranges_conflicts(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 10, 19, 1))?;
    refused(f.set(range(LockKind::Write, 19, 30, 2)), Errno::EAGAIN)?;
    refused(f.set(range(LockKind::Read, 0, 10, 2)), Errno::EAGAIN)?;
    refused(f.set(range(LockKind::Read, 0, u64::MAX, 2)), Errno::EAGAIN)?;
    f.end(w)
}

fn setlk_of_ranges_side_by_side_does_not_conflict(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 10, 19, 1))?;
    f.set(range(LockKind::Write, 0, 9, 2))?;
    f.set(range(LockKind::Write, 20, u64::MAX, 2))?;
    f.end(w)
}

fn setlk_by_one_owner_replaces_its_own(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 0, 99, 1))?;
    f.set(range(LockKind::Read, 0, 99, 1))?;
    f.set(range(LockKind::Read, 0, 99, 2))?;
    refused(f.set(range(LockKind::Write, 0, 99, 1)), Errno::EAGAIN)?;
    f.end(w)
}

fn setlk_unlock_in_the_middle_splits_the_range(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 0, 99, 1))?;
    f.set(range(LockKind::Unlock, 40, 59, 1))?;
    f.set(range(LockKind::Write, 40, 59, 2))?;
    refused(f.set(range(LockKind::Write, 39, 39, 2)), Errno::EAGAIN)?;
    refused(f.set(range(LockKind::Write, 60, 60, 2)), Errno::EAGAIN)?;
    f.end(w)
}

fn getlk_tells_who_is_in_the_way(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 10, 19, 1))?;
    let found = f.get(range(LockKind::Read, 0, 99, 2))?;
    equal((found.kind, found.start, found.end, found.pid), (LockKind::Write, 10, 19, 1), "it")?;
    equal(f.get(range(LockKind::Write, 20, 99, 2))?.kind, LockKind::Unlock, "none elsewhere")?;
    equal(f.get(range(LockKind::Write, 0, 99, 1))?.kind, LockKind::Unlock, "none for itself")?;
    f.end(w)
}

fn flush_gives_up_the_locks_of_its_owner(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 0, 9, 1))?;
    f.client.fs().flush(&f.cx, f.node, f.handle, LockOwner(1))?;
    f.set(range(LockKind::Write, 0, 9, 2))?;
    f.end(w)
}

/// A reply, and where its answer comes out.
fn answer_to_come() -> (Reply<()>, mpsc::Receiver<Result<()>>) {
    let (tell, told) = mpsc::channel();
    let reply = Reply::new(move |answer| {
        // A case that has failed already listens no more.
        let _ = tell.send(answer);
    });
    (reply, told)
}

fn setlkw_gets_the_lock_when_it_is_given_up(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 0, 9, 1))?;
    let (reply, told) = answer_to_come();
    let (owner, lock) = range(LockKind::Write, 0, 9, 2);
    let flavour = LockFlavour::Posix;
    let pending = f.client.fs().setlkw(&f.cx, f.node, f.handle, owner, lock, flavour, reply);
    holds(pending.is_some() && told.try_recv().is_err(), "the answer is still to come")?;
    f.set(range(LockKind::Unlock, 0, 9, 1))?;
    equal(told.recv_timeout(Duration::from_secs(30)), Ok(Ok(())), "the answer")?;
    refused(f.set(range(LockKind::Write, 0, 9, 1)), Errno::EAGAIN)?;
    f.end(w)
}

fn setlkw_called_off_answers_eintr(w: &World<'_>) -> Verdict {
    let f = ranges(w)?;
    f.set(range(LockKind::Write, 0, 9, 1))?;
    let (reply, told) = answer_to_come();
    let (owner, lock) = range(LockKind::Write, 0, 9, 2);
    let flavour = LockFlavour::Posix;
    let pending = f.client.fs().setlkw(&f.cx, f.node, f.handle, owner, lock, flavour, reply);
    pending.ok_or(Errno::EIO)?.cancel();
    let answer = told.recv_timeout(Duration::from_secs(30));
    equal(answer, Ok(Err(Errno::EINTR)), "the answer")?;
    f.set(range(LockKind::Unlock, 0, 9, 1))?;
    f.set(range(LockKind::Write, 0, 9, 1))?;
    f.end(w)
}
