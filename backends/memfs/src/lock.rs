//! File locks: POSIX locks on ranges, flock(2) locks on whole files, and who waits for them.
//!
//! Kept for clients that share a filesystem and do not leave locks to their kernel. What waits is a
//! [`Reply`] in a queue and holds no thread. Whenever a lock goes, the queue of its node is walked
//! first come, first served. Replies are sent with no lock held.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::{
    Cancel, Context, Errno, FileLock, HandleId, LockFlavour, LockKind, LockOwner, NodeId, Pending,
    Reply, Result, SessionId,
};

use crate::MemFs;
use crate::handle::Want;
use crate::rank::{self, Rank};

/// The most locks and waits at a time; beyond it ENOLCK. One takes about 100 bytes.
const MAX_LOCKS: u64 = 65_536;

/// The most waits at a time; beyond it ENOLCK. Each is looked at in search of a ring, for which all
/// else about locks stands still.
const MAX_WAITS: usize = 4096;

/// Who holds a lock: two clients may name two holders alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    session: Option<SessionId>,
    owner: LockOwner,
}

impl Owner {
    /// The owner that the client of `cx` calls `owner`.
    pub(crate) fn of(cx: &Context<'_>, owner: LockOwner) -> Self {
        Self { session: cx.session, owner }
    }
}

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    owner: Owner,
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

    fn is_of(&self, owner: Owner, flavour: LockFlavour) -> bool {
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
                rest.push(Held { lock: old.with_range(old.start, new.start - 1), ..*held });
            }
            if old.end > new.end {
                rest.push(Held { lock: old.with_range(new.end + 1, old.end), ..*held });
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
        let mut waits = HashMap::<_, Vec<_>>::new();
        for (node, locks) in &self.nodes {
            let posix = locks.waiting.iter().map(|waiter| waiter.wanted);
            for wait in posix.filter(|wait| wait.flavour == LockFlavour::Posix) {
                waits.entry(wait.owner).or_default().push((*node, wait));
            }
        }
        let mut open = vec![(node, *wanted)];
        while let Some((node, wait)) = open.pop() {
            let held = self.nodes.get(&node).map_or(&[][..], |locks| &locks.held);
            for blocker in held.iter().filter(|held| held.blocks(&wait)) {
                if blocker.owner == wanted.owner {
                    return true;
                }
                // Taken out, so that each owner's waits are followed once.
                open.extend(waits.remove(&blocker.owner).unwrap_or_default());
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
            let mut state = rank::lock(&self.state, Rank::Leaf);
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
        rank::assert_none();
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
        let state = rank::lock(&self.0.state, Rank::Leaf);
        let held = state.nodes.get(&node).map_or(&[][..], |locks| &locks.held);
        let blocking = held.iter().filter(|held| held.blocks(&wanted));
        let first = blocking.min_by_key(|held| held.lock.start);
        first.map_or(wanted.lock.with_kind(LockKind::Unlock), |held| held.lock)
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
            let mut state = rank::lock(&self.0.state, Rank::Leaf);
            let blocked = state.nodes.get(&node).is_some_and(|locks| locks.blocked(&wanted));
            let waits: usize = state.nodes.values().map(|locks| locks.waiting.len()).sum();
            if blocked && waits >= MAX_WAITS {
                (Outcome::Now(Err(Errno::ENOLCK)), Vec::new())
            } else if blocked
                && wanted.flavour == LockFlavour::Posix
                && state.is_ring(node, &wanted)
            {
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
        rank::assert_none();
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

    fn release(&self, node: u64, owner: Owner, flavour: LockFlavour) {
        let lock = FileLock::new(LockKind::Unlock, 0, u64::MAX, 0);
        // Giving up never fails.
        let _ = self.set(node, Held { owner, flavour, lock });
    }

    /// Gives up the POSIX locks of `owner`.
    pub(crate) fn release_posix(&self, node: u64, owner: Owner) {
        self.release(node, owner, LockFlavour::Posix);
    }

    /// Gives up the flock of `owner`.
    pub(crate) fn release_flock(&self, node: u64, owner: Owner) {
        self.release(node, owner, LockFlavour::Flock);
    }

    /// The client of `session` is gone: so are its locks, on whatever node, and its waits.
    pub(crate) fn forget_session(&self, session: Option<SessionId>) {
        if self.0.is_empty() {
            return;
        }
        let nodes: Vec<u64> = rank::lock(&self.0.state, Rank::Leaf).nodes.keys().copied().collect();
        for node in nodes {
            let gone = self.0.change(node, |locks| locks.drop_session(session));
            for waiter in gone {
                waiter.reply.send(Err(Errno::EINTR));
            }
        }
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
    /// Takes out all that is of `session`, and answers who waited.
    fn drop_session(&mut self, session: Option<SessionId>) -> Vec<Waiter> {
        self.held.retain(|held| held.owner.session != session);
        let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiter| waiter.wanted.owner.session == session);
        self.waiting = left.into();
        gone
    }

    /// A flock is not converted but given up and taken anew, as flock(2) says.
    fn drop_flock(&mut self, owner: Owner) {
        self.held.retain(|held| !held.is_of(owner, LockFlavour::Flock));
    }
}

/// The lock as it is kept: a flock covers everything.
fn wanted(owner: Owner, lock: FileLock, flavour: LockFlavour) -> Result<Held> {
    let lock = match flavour {
        LockFlavour::Posix if lock.start > lock.end => return Err(Errno::EINVAL),
        LockFlavour::Posix => lock,
        LockFlavour::Flock => lock.with_range(0, u64::MAX),
    };
    Ok(Held { owner, flavour, lock })
}

impl MemFs {
    pub(crate) fn lock_test(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
    ) -> Result<FileLock> {
        self.opened(node, handle, Want::Any)?;
        Ok(self.locks.test(node.0, wanted(Owner::of(cx, owner), lock, LockFlavour::Posix)?))
    }

    pub(crate) fn lock_set(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
    ) -> Result<()> {
        self.opened(node, handle, Want::Any)?;
        self.locks.set(node.0, wanted(Owner::of(cx, owner), lock, flavour)?)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of F_SETLKW, and who asks")]
    pub(crate) fn lock_wait(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: HandleId,
        owner: LockOwner,
        lock: FileLock,
        flavour: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        let wanted = self
            .opened(node, handle, Want::Any)
            .and_then(|_| wanted(Owner::of(cx, owner), lock, flavour));
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
mod tests;
