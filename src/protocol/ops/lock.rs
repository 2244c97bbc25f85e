//! GETLK, SETLK, SETLKW, INTERRUPT.

use stratafs_core::{
    Context, DynFileSystem, Errno, FileLock, HandleId, LockFlavour, LockKind, LockOwner, Needs,
    NodeId, Pending, Reply, Result,
};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Refusal, Served};
use crate::protocol::encode;
use crate::protocol::init::may_wait;
use crate::protocol::wire::{InterruptIn, LK_FLOCK, LkIn, LkOut};

/// A lock as it is asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    node: NodeId,
    handle: HandleId,
    owner: LockOwner,
    lock: FileLock,
    flavour: LockFlavour,
}

/// A lock that is waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    wanted: Wanted,
    context: Context<'static>,
}

impl Waiting {
    /// Begins to wait; `reply` is the answer's way.
    pub(crate) fn start(&self, fs: &dyn DynFileSystem, reply: Reply<()>) -> Option<Pending> {
        let Wanted { node, handle, owner, lock, flavour } = self.wanted;
        fs.setlkw(&self.context, node, handle, owner, lock, flavour, reply)
    }
}

/// F_RDLCK, F_WRLCK and F_UNLCK of fcntl(2).
const KINDS: [(u32, LockKind); 3] =
    [(0, LockKind::Read), (1, LockKind::Write), (2, LockKind::Unlock)];

/// The last byte of any file, as the client counts: OFFSET_MAX of the kernel.
const OFFSET_MAX: u64 = i64::MAX.cast_unsigned();

fn wanted(call: &mut Call<'_>) -> Result<Wanted, Refusal> {
    let head = take!(call.args, LkIn)?;
    let (flavour, needs) = if head.lk_flags & LK_FLOCK == 0 {
        (LockFlavour::Posix, Needs::POSIX_LOCKS)
    } else {
        (LockFlavour::Flock, Needs::FLOCK)
    };
    call.served(needs)?;
    // flock(2) works on directories too.
    let (node, handle) = call.handle(call.header.nodeid, head.fh, None)?;
    let kind = KINDS.iter().find(|(raw, _)| *raw == head.kind).ok_or(Errno::EINVAL)?.1;
    if head.start > head.end || head.start > OFFSET_MAX {
        return Err(Errno::EINVAL.into());
    }
    let end = if head.end >= OFFSET_MAX { u64::MAX } else { head.end };
    let lock = FileLock::new(kind, head.start, end, head.pid);
    Ok(Wanted { node, handle, owner: LockOwner(head.owner), lock, flavour })
}

pub(crate) fn getlk(call: &mut Call<'_>) -> Served {
    let Wanted { node, handle, owner, lock, .. } = wanted(call)?;
    call.room(LkOut::SIZE)?;
    let found = call.fs().getlk(&call.context(), node, handle, owner, lock)?;
    let kind = KINDS.iter().find(|(_, kind)| *kind == found.kind).map_or(2, |(raw, _)| *raw);
    let (start, end) = (found.start.min(OFFSET_MAX), found.end.min(OFFSET_MAX));
    call.put(&encode::lock(start, end, kind, found.pid))?;
    Ok(())
}

pub(crate) fn setlk(call: &mut Call<'_>) -> Served {
    let Wanted { node, handle, owner, lock, flavour } = wanted(call)?;
    call.fs().setlk(&call.context(), node, handle, owner, lock, flavour)?;
    Ok(())
}

/// Takes a lock, waiting for it where the client can end the wait; `None` where that is done.
///
/// A client that cannot (virtio-fs has no INTERRUPT) is told EAGAIN at once: it is the truth, and a
/// process that waits for ever could not be killed.
pub(crate) fn setlkw(call: &mut Call<'_>) -> Result<Option<Waiting>, Refusal> {
    let wanted = wanted(call)?;
    let Wanted { node, handle, owner, lock, flavour } = wanted;
    if lock.kind == LockKind::Unlock || !may_wait(call.session.config.transport) {
        call.fs().setlk(&call.context(), node, handle, owner, lock, flavour)?;
        return Ok(None);
    }
    call.session.waits.begin(call.header.unique)?;
    Ok(Some(Waiting { wanted, context: call.context().without_security() }))
}

pub(crate) fn interrupt(call: &mut Call<'_>) -> Result<()> {
    let InterruptIn { unique } = take!(call.args, InterruptIn)?;
    call.session.waits.interrupt(unique);
    Ok(())
}
