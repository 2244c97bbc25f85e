//! File locks: POSIX locks on ranges, flock(2) locks on whole files, and who waits for them.
//!
//! Kept for clients that share a filesystem and do not leave locks to their kernel. What waits is a
//! [`Reply`] in a queue and holds no thread. Whenever a lock goes, the queue of its node is walked
//! first come, first served. Replies are sent with no lock held.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::{
    Cancel, Errno, FileLock, HandleId, LockFlavour, LockKind, LockOwner, NodeId, Pending, Reply,
    Result,
};

use crate::MemFs;
use crate::handle::Want;

/// The most locks and waits at a time; beyond it ENOLCK. One takes about 100 bytes.
const MAX_LOCKS: u64 = 65_536;

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    owner: LockOwner,
    flavour: LockFlavour,
    lock: FileLock,
}

impl Held {
    /// Whether it keeps `other` from being taken.
    fn blocks(&self, other: &Self) -> bool {
        self.flavour == other.flavour
            && self.owner != other.owner
            && self.lock.conflicts(&other.lock)
    }

    fn is_of(&self, owner: LockOwner, flavour: LockFlavour) -> bool {
        self.owner == owner && self.flavour == flavour
    }
}

struct Waiter {
    ticket: u64,
    wanted: Held,
    reply: Reply<()>,
}

#[derive(Default)]
struct NodeLocks {
    held: Vec<Held>,
    waiting: VecDeque<Waiter>,
}

impl NodeLocks {
    fn len(&self) -> u64 {
        (self.held.len() + self.waiting.len()) as u64
    }

    fn blocked(&self, wanted: &Held) -> bool {
        self.held.iter().any(|held| held.blocks(wanted))
    }

    /// Takes or gives up a lock that nothing blocks: the owner's own locks make way for it, and
    /// what they cover beyond it stays.
    fn apply(&mut self, wanted: Held) {
        let new = wanted.lock;
        let mut merged = wanted;
        let mut rest = Vec::new();
        self.held.retain(|held| {
            if !held.is_of(wanted.owner, wanted.flavour) {
                return true;
            }
            let old = held.lock;
            let touches =
                old.start <= new.end.saturating_add(1) && new.start <= old.end.saturating_add(1);
            if touches && old.kind == new.kind {
                merged.lock.start = merged.lock.start.min(old.start);
                merged.lock.end = merged.lock.end.max(old.end);
                return false;
            }
            if !old.overlaps(&new) {
                return true;
            }
            if old.start < new.start {
                rest.push(Held { lock: FileLock { end: new.start - 1, ..old }, ..*held });
            }
            if old.end > new.end {
                rest.push(Held { lock: FileLock { start: new.end + 1, ..old }, ..*held });
            }
            false
        });
        self.held.append(&mut rest);
        if new.kind != LockKind::Unlock {
            self.held.push(merged);
        }
    }

    /// Grants what has become free, in the order of the queue.
    fn wake(&mut self) -> Vec<Reply<()>> {
        let mut granted = Vec::new();
        let mut at = 0;
        while let Some(waiter) = self.waiting.get(at) {
            if self.blocked(&waiter.wanted) {
                at += 1;
                continue;
            }
            if let Some(waiter) = self.waiting.remove(at) {
                self.apply(waiter.wanted);
                granted.push(waiter.reply);
            }
        }
        granted
    }
}

#[derive(Default)]
struct State {
    nodes: HashMap<u64, NodeLocks>,
    next_ticket: u64,
}

impl State {
    /// Whether `wanted` on `node` would wait for its own owner, through whatever others wait for.
    fn is_ring(&self, node: u64, wanted: &Held) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![(node, *wanted)];
        while let Some((node, wait)) = open.pop() {
            let held = self.nodes.get(&node).map_or(&[][..], |locks| &locks.held);
            for blocker in held.iter().filter(|held| held.blocks(&wait)) {
                if blocker.owner == wanted.owner {
                    return true;
                }
                if !seen.insert(blocker.owner) {
                    continue;
                }
                for (node, locks) in &self.nodes {
                    let waits = locks.waiting.iter().map(|waiter| waiter.wanted);
                    let waits = waits.filter(|w| w.is_of(blocker.owner, LockFlavour::Posix));
                    open.extend(waits.map(|wait| (*node, wait)));
                }
            }
        }
        false
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Locks and waits in `state`: what tells most removals that there is nothing to look for.
    count: AtomicU64,
}

impl Shared {
    /// Changes the locks of `node` by `with`, wakes whom that frees, and answers them.
    fn change<R>(&self, node: u64, with: impl FnOnce(&mut NodeLocks) -> R) -> R {
        let (result, granted) = {
            let mut state = self.state.lock();
            let locks = state.nodes.entry(node).or_default();
            let before = locks.len();
            let result = with(locks);
            let granted = locks.wake();
            let after = locks.len();
            if after == 0 {
                state.nodes.remove(&node);
            }
            self.recount(before, after);
            (result, granted)
        };
        for reply in granted {
            reply.send(Ok(()));
        }
        result
    }

    fn recount(&self, before: u64, after: u64) {
        if after >= before {
            self.count.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.count.fetch_sub(before - after, Ordering::AcqRel);
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Acquire) >= MAX_LOCKS
    }
}

/// The locks of a filesystem.
#[derive(Default)]
pub(crate) struct LockTable(Arc<Shared>);

/// What calls a wait off.
struct Wait {
    table: Arc<Shared>,
    node: u64,
    ticket: u64,
}

impl Cancel for Wait {
    fn cancel(&self) {
        let reply = self.table.change(self.node, |locks| {
            let at = locks.waiting.iter().position(|waiter| waiter.ticket == self.ticket)?;
            Some(locks.waiting.remove(at)?.reply)
        });
        if let Some(reply) = reply {
            reply.send(Err(Errno::EINTR));
        }
    }
}

impl LockTable {
    /// How many locks are held and waited for.
    pub(crate) fn len(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    fn test(&self, node: u64, wanted: Held) -> FileLock {
        let state = self.0.state.lock();
        let held = state.nodes.get(&node).map_or(&[][..], |locks| &locks.held);
        let blocking = held.iter().filter(|held| held.blocks(&wanted));
        let first = blocking.min_by_key(|held| held.lock.start);
        first.map_or(FileLock { kind: LockKind::Unlock, ..wanted.lock }, |held| held.lock)
    }

    fn set(&self, node: u64, wanted: Held) -> Result<()> {
        let unlock = wanted.lock.kind == LockKind::Unlock;
        if unlock && self.0.is_empty() {
            return Ok(());
        }
        if !unlock && self.0.is_full() {
            return Err(Errno::ENOLCK);
        }
        self.0.change(node, |locks| {
            if wanted.flavour == LockFlavour::Flock {
                locks.drop_flock(wanted.owner);
            }
            if locks.blocked(&wanted) {
                return Err(Errno::EAGAIN);
            }
            locks.apply(wanted);
            Ok(())
        })
    }

    fn wait(&self, node: u64, wanted: Held, reply: Reply<()>) -> Option<Pending> {
        let answer = match self.set(node, wanted) {
            Err(Errno::EAGAIN) => None,
            other => Some(other),
        };
        if let Some(answer) = answer {
            reply.send(answer);
            return None;
        }
        // Between the two holds of the table it may have become free.
        enum Outcome {
            Now(Result<()>),
            Later(u64),
        }
        let mut reply = Some(reply);
        let (outcome, granted) = {
            let mut state = self.0.state.lock();
            let blocked = state.nodes.get(&node).is_some_and(|locks| locks.blocked(&wanted));
            if blocked && wanted.flavour == LockFlavour::Posix && state.is_ring(node, &wanted) {
                (Outcome::Now(Err(Errno::EDEADLK)), Vec::new())
            } else {
                state.next_ticket += 1;
                let ticket = state.next_ticket;
                let locks = state.nodes.entry(node).or_default();
                let before = locks.len();
                let outcome = if blocked {
                    if let Some(reply) = reply.take() {
                        locks.waiting.push_back(Waiter { ticket, wanted, reply });
                    }
                    Outcome::Later(ticket)
                } else {
                    locks.apply(wanted);
                    Outcome::Now(Ok(()))
                };
                let granted = locks.wake();
                let after = locks.len();
                self.0.recount(before, after);
                (outcome, granted)
            }
        };
        for reply in granted {
            reply.send(Ok(()));
        }
        match outcome {
            Outcome::Now(answer) => {
                if let Some(reply) = reply {
                    reply.send(answer);
                }
                None
            }
            Outcome::Later(ticket) => {
                Some(Pending::new(Arc::new(Wait { table: Arc::clone(&self.0), node, ticket })))
            }
        }
    }

    fn release(&self, node: u64, owner: LockOwner, flavour: LockFlavour) {
        let lock = FileLock { kind: LockKind::Unlock, start: 0, end: u64::MAX, pid: 0 };
        // Giving up never fails.
        let _ = self.set(node, Held { owner, flavour, lock });
    }

    /// Gives up the POSIX locks of `owner`.
    pub(crate) fn release_posix(&self, node: u64, owner: LockOwner) {
        self.release(node, owner, LockFlavour::Posix);
    }

    /// Gives up the flock of `owner`.
    pub(crate) fn release_flock(&self, node: u64, owner: LockOwner) {
        self.release(node, owner, LockFlavour::Flock);
    }

    /// The node is gone: so are its locks, and whoever waits has nothing to wait for.
    pub(crate) fn forget_node(&self, node: u64) {
        if self.0.is_empty() {
            return;
        }
        let waiting = self.0.change(node, |locks| std::mem::take(locks).waiting);
        for waiter in waiting {
            waiter.reply.send(Err(Errno::EBADF));
        }
    }
}

impl NodeLocks {
    /// A flock is not converted but given up and taken anew, as flock(2) says.
    fn drop_flock(&mut self, owner: LockOwner) {
        self.held.retain(|held| !held.is_of(owner, LockFlavour::Flock));
    }
}

/// The lock as it is kept: a flock covers everything.
fn wanted(owner: LockOwner, lock: FileLock, flavour: LockFlavour) -> Result<Held> {
    let lock = match flavour {
        LockFlavour::Posix if lock.start > lock.end => return Err(Errno::EINVAL),
        LockFlavour::Posix => lock,
        LockFlavour::Flock => FileLock { start: 0, end: u64::MAX, ..lock },
    };
    Ok(Held { owner, flavour, lock })
}

impl MemFs {
    pub(crate) fn lock_test(
        &self,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        self.opened(node, handle, Want::Any)?;
        Ok(self.locks.test(node.0, wanted(owner, lock, LockFlavour::Posix)?))
    }

    pub(crate) fn lock_set(
        &self,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
    ) -> Result<()> {
        self.opened(node, handle, Want::Any)?;
        self.locks.set(node.0, wanted(owner, lock, flavour)?)
    }

    pub(crate) fn lock_wait(
        &self,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        let wanted =
            self.opened(node, handle, Want::Any).and_then(|_| wanted(owner, lock, flavour));
        match wanted {
            Ok(wanted) => self.locks.wait(node.0, wanted, reply),
            Err(errno) => {
                reply.send(Err(errno));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use stratafs_core::{DynFileSystem, OpenFlags, Release};

    use super::*;
    use crate::test_util::{Fixture, ROOT, root};

    use LockFlavour::{Flock, Posix};
    use LockKind::{Read, Unlock, Write};

    const NONE: HandleId = HandleId::NONE;

    fn lock(kind: LockKind, start: u64, end: u64) -> FileLock {
        FileLock { kind, start, end, pid: 1 }
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
        let release = Release { flush: None, flock: Some(LockOwner(2)) };
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
}
