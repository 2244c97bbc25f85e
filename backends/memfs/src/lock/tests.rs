//! The tests of the parent module.

use std::sync::mpsc::{Receiver, channel};

use stratafs_core::{DynFileSystem, OpenFlags, Release};

use super::*;
use crate::test_util::{Fixture, ROOT, root};

use LockFlavour::{Flock, Posix};
use LockKind::{Read, Unlock, Write};

const NONE: HandleId = HandleId::NONE;

fn lock(kind: LockKind, start: u64, end: u64) -> FileLock {
    FileLock::new(kind, start, end, 1)
}

fn set(fx: &Fixture, node: NodeId, owner: u64, lock: FileLock, by: LockFlavour) -> Result<()> {
    fx.fs.setlk(&root(), node, NONE, LockOwner(owner), lock, by)
}

struct Waiting(Receiver<Result<()>>, Option<Pending>);

impl Waiting {
    /// The answer, if there is one.
    fn answer(&self) -> Option<Result<()>> {
        self.0.try_recv().ok()
    }
}

fn wait(fx: &Fixture, node: NodeId, owner: u64, lock: FileLock, by: LockFlavour) -> Waiting {
    let (send, receive) = channel();
    // Nobody listens any more where a test ends before its waits.
    let reply = Reply::new(move |answer| {
        let _ = send.send(answer);
    });
    let pending = fx.fs.setlkw(&root(), node, NONE, LockOwner(owner), lock, by, reply);
    Waiting(receive, pending)
}

fn held(fx: &Fixture, node: NodeId, owner: u64, start: u64, end: u64) -> FileLock {
    let owner = LockOwner(owner);
    fx.fs.getlk(&root(), node, NONE, owner, lock(Write, start, end)).unwrap()
}

#[test]
fn posix_locks_of_others_conflict_and_of_one_owner_merge_and_split() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, 9), Posix).unwrap();
    set(&fx, f, 1, lock(Write, 10, 19), Posix).unwrap();
    assert_eq!(fx.usage().locks, 1, "neighbours merge");
    assert_eq!(set(&fx, f, 2, lock(Read, 19, 30), Posix), Err(Errno::EAGAIN));
    assert_eq!(held(&fx, f, 2, 5, 5), lock(Write, 0, 19));
    assert_eq!(held(&fx, f, 1, 5, 5).kind, Unlock, "one's own is no obstacle");
    set(&fx, f, 1, lock(Unlock, 5, 9), Posix).unwrap();
    set(&fx, f, 2, lock(Read, 5, 9), Posix).unwrap();
    assert_eq!(held(&fx, f, 3, 0, u64::MAX), lock(Write, 0, 4));
    set(&fx, f, 1, lock(Read, 0, 4), Posix).unwrap();
    set(&fx, f, 2, lock(Read, 0, 9), Posix).unwrap();
    assert_eq!(set(&fx, f, 2, lock(Write, 0, 0), Posix), Err(Errno::EAGAIN));
    assert_eq!(set(&fx, f, 2, lock(Write, 9, 5), Posix), Err(Errno::EINVAL));
    fx.fs.flush(&root(), f, NONE, LockOwner(1)).unwrap();
    fx.fs.flush(&root(), f, NONE, LockOwner(2)).unwrap();
    assert_eq!(fx.usage().locks, 0);
}

#[test]
fn flock_and_posix_do_not_see_each_other() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, u64::MAX), Posix).unwrap();
    set(&fx, f, 2, lock(Write, 0, u64::MAX), Flock).unwrap();
    assert_eq!(set(&fx, f, 3, lock(Read, 0, 0), Flock), Err(Errno::EAGAIN));
    let handle = fx.open(f, OpenFlags::READ_ONLY);
    let release = Release::new(None, Some(LockOwner(2)));
    fx.fs.release(&root(), f, handle, release).unwrap();
    set(&fx, f, 3, lock(Read, 0, 0), Flock).unwrap();
    set(&fx, f, 4, lock(Read, 0, 0), Flock).unwrap();
    assert_eq!(set(&fx, f, 3, lock(Write, 0, 0), Flock), Err(Errno::EAGAIN));
    assert_eq!(set(&fx, f, 4, lock(Write, 0, 0), Flock), Ok(()), "the upgrade gave 3's up");
}

#[test]
fn waits_are_granted_in_their_order() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, 9), Posix).unwrap();
    let waits: Vec<_> = [(2, Write), (3, Read), (4, Read), (5, Write)]
        .map(|(owner, kind)| wait(&fx, f, owner, lock(kind, 0, 9), Posix))
        .into();
    let answered = || waits.iter().map(|w| w.answer().is_some()).collect::<Vec<_>>();
    assert!(waits.iter().all(|w| w.1.is_some()));
    assert_eq!(answered(), [false; 4]);
    set(&fx, f, 1, lock(Unlock, 0, 9), Posix).unwrap();
    assert_eq!(answered(), [true, false, false, false]);
    fx.fs.flush(&root(), f, NONE, LockOwner(2)).unwrap();
    assert_eq!(answered(), [false, true, true, false]);
    set(&fx, f, 3, lock(Unlock, 0, 9), Posix).unwrap();
    assert_eq!(answered(), [false; 4]);
    set(&fx, f, 4, lock(Unlock, 0, 9), Posix).unwrap();
    assert_eq!(answered(), [false, false, false, true]);
}

#[test]
fn wait_for_what_is_free_is_answered_at_once() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    let granted = wait(&fx, f, 1, lock(Write, 0, 9), Posix);
    assert!(granted.1.is_none());
    assert_eq!(granted.answer(), Some(Ok(())));
    let unlocked = wait(&fx, f, 1, lock(Unlock, 0, 9), Posix);
    assert_eq!(unlocked.answer(), Some(Ok(())));
    let unknown = wait(&fx, NodeId(99), 1, lock(Write, 0, 9), Posix);
    assert_eq!(unknown.answer(), Some(Err(Errno::ESTALE)));
}

#[test]
fn wait_called_off_is_eintr_and_leaves_no_trace() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, 9), Flock).unwrap();
    let waiting = wait(&fx, f, 2, lock(Write, 0, 9), Flock);
    let pending = waiting.1.clone().unwrap();
    pending.cancel();
    pending.cancel();
    assert_eq!(waiting.answer(), Some(Err(Errno::EINTR)));
    set(&fx, f, 1, lock(Unlock, 0, 9), Flock).unwrap();
    assert_eq!(fx.usage().locks, 0);
    let granted = wait(&fx, f, 3, lock(Write, 0, 9), Flock);
    pending.cancel();
    assert_eq!(granted.answer(), Some(Ok(())));
}

#[test]
fn posix_waits_that_form_a_ring_are_edeadlk() {
    let fx = Fixture::new();
    let files = ["a", "b", "c"].map(|text| fx.file(ROOT, text));
    for (owner, f) in (1..).zip(files) {
        set(&fx, f, owner, lock(Write, 0, 0), Posix).unwrap();
    }
    let first = wait(&fx, files[1], 1, lock(Write, 0, 0), Posix);
    let second = wait(&fx, files[2], 2, lock(Read, 0, 0), Posix);
    let ring = wait(&fx, files[0], 3, lock(Read, 0, 0), Posix);
    assert_eq!(ring.answer(), Some(Err(Errno::EDEADLK)));
    assert_eq!((first.answer(), second.answer()), (None, None));
    fx.fs.flush(&root(), files[2], NONE, LockOwner(3)).unwrap();
    assert_eq!(second.answer(), Some(Ok(())));
    assert!(wait(&fx, files[1], 1, lock(Write, 5, 5), Posix).answer().is_some());
}

#[test]
fn owners_of_two_sessions_are_two_whatever_they_are_called() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    let cx = |session| root().with_session(Some(SessionId(session)));
    let take = |session| fx.fs.setlk(&cx(session), f, NONE, LockOwner(7), lock(Write, 0, 9), Posix);
    take(1).unwrap();
    assert_eq!(take(2), Err(Errno::EAGAIN));
    fx.fs.flush(&cx(2), f, NONE, LockOwner(7)).unwrap();
    assert_eq!(take(2), Err(Errno::EAGAIN));
    fx.fs.flush(&cx(1), f, NONE, LockOwner(7)).unwrap();
    assert_eq!(take(2), Ok(()));
}

#[test]
fn a_reply_may_lock_again() {
    let fx = Arc::new(Fixture::new());
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, 0), Posix).unwrap();
    let (send, receive) = channel();
    let inner = Arc::clone(&fx);
    let reply = Reply::new(move |answer| {
        let again = set(&inner, f, 2, lock(Write, 7, 7), Posix);
        send.send((answer, again)).unwrap();
    });
    let wanted = lock(Write, 0, 0);
    let pending = fx.fs.setlkw(&root(), f, NONE, LockOwner(2), wanted, Posix, reply);
    assert!(pending.is_some());
    set(&fx, f, 1, lock(Unlock, 0, 0), Posix).unwrap();
    assert_eq!(receive.recv(), Ok((Ok(()), Ok(()))));
}

#[test]
fn locks_beyond_the_limit_are_enolck() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    fx.fs.locks.0.count.store(MAX_LOCKS, Ordering::SeqCst);
    assert_eq!(set(&fx, f, 1, lock(Read, 0, 0), Posix), Err(Errno::ENOLCK));
    let waiting = wait(&fx, f, 1, lock(Read, 0, 0), Posix);
    assert_eq!(waiting.answer(), Some(Err(Errno::ENOLCK)));
    assert_eq!(set(&fx, f, 1, lock(Unlock, 0, 0), Posix), Ok(()));
}

#[test]
fn waits_beyond_the_limit_are_enolck() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 0, lock(Write, 0, 0), Posix).unwrap();
    let waits = 1..=MAX_WAITS as u64;
    let waits: Vec<_> = waits.map(|i| wait(&fx, f, i, lock(Write, 0, 0), Posix)).collect();
    assert!(waits.iter().all(|wait| wait.1.is_some()));
    let beyond = wait(&fx, f, u64::MAX, lock(Write, 0, 0), Posix);
    assert_eq!(beyond.answer(), Some(Err(Errno::ENOLCK)));
    for wait in &waits {
        wait.1.as_ref().unwrap().cancel();
    }
    assert_eq!(fx.usage().locks, 1);
}

#[test]
fn locks_of_a_node_that_is_gone_go_with_it() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    set(&fx, f, 1, lock(Write, 0, 0), Posix).unwrap();
    let waiting = wait(&fx, f, 2, lock(Write, 0, 0), Posix);
    fx.unlink(ROOT, "f").unwrap();
    fx.forget(f);
    assert_eq!(waiting.answer(), Some(Err(Errno::EBADF)));
    assert_eq!(fx.usage().locks, 0);
}

#[test]
fn locks_and_waits_of_a_session_go_with_it_and_wake_the_others() {
    let fx = Fixture::new();
    let f = fx.file(ROOT, "f");
    let of = |session| root().with_session(Some(SessionId(session)));
    // Both clients name their holder 1.
    let owner = LockOwner(1);
    fx.fs.setlk(&of(1), f, NONE, owner, lock(Write, 0, 9), Posix).unwrap();
    fx.fs.setlk(&of(2), f, NONE, owner, lock(Write, 20, 29), Posix).unwrap();
    let wait_of = |session, owner, start, end| {
        let (send, receive) = channel();
        let reply = Reply::new(move |answer| {
            let _ = send.send(answer);
        });
        let wanted = lock(Write, start, end);
        let pending = fx.fs.setlkw(&of(session), f, NONE, LockOwner(owner), wanted, Posix, reply);
        Waiting(receive, pending)
    };
    let gone = wait_of(1, 3, 20, 29);
    let stays = wait_of(2, 4, 0, 9);
    assert_eq!((gone.answer(), stays.answer()), (None, None));

    fx.fs.destroy(&of(1));
    assert_eq!(gone.answer(), Some(Err(Errno::EINTR)));
    assert_eq!(stays.answer(), Some(Ok(())));
    fx.fs.destroy(&of(2));
    assert_eq!(fx.usage().locks, 0);
}
