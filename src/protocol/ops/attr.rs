//! GETATTR, STATX, SETATTR, ACCESS.

use stratafs_core::{Errno, HandleId, LockOwner, Needs, Result, SetAttr, SetTime, Timestamp};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served};
use crate::protocol::encode::{self, ATTR_OUT_SIZE};
use crate::protocol::init::Agreed;
use crate::protocol::ledger::HandleKind;
use crate::protocol::wire::{
    AccessIn, GETATTR_FH, GetattrIn, NO_ID, STATX_OUT_SIZE, SetattrIn, StatxIn, fattr,
};

/// The handle `fh` of the request's node, if `flags` say that it counts. None is given to the
/// filesystem where it keeps none.
fn optional(call: &Call<'_>, counts: bool, fh: u64) -> Result<Option<HandleId>> {
    if !counts {
        return Ok(None);
    }
    // fstat(2) of a directory comes with the directory's handle.
    let (_, handle) = call.handle(call.header.nodeid, fh, None)?;
    Ok((handle != HandleId::NONE).then_some(handle))
}

pub(crate) fn getattr(call: &mut Call<'_>) -> Served {
    let GetattrIn { getattr_flags, fh, .. } = take!(call.args, GetattrIn)?;
    let node = call.node()?;
    let handle = optional(call, getattr_flags & GETATTR_FH != 0, fh)?;
    call.room(ATTR_OUT_SIZE)?;
    let attr = call.fs().getattr(&call.context(), node, handle)?;
    call.put(&encode::attr(&attr))?;
    Ok(())
}

pub(crate) fn statx(call: &mut Call<'_>) -> Served {
    call.served(Needs::STATX)?;
    let StatxIn { getattr_flags, fh, .. } = take!(call.args, StatxIn)?;
    let node = call.node()?;
    let handle = optional(call, getattr_flags & GETATTR_FH != 0, fh)?;
    call.room(STATX_OUT_SIZE)?;
    let attr = call.fs().getattr(&call.context(), node, handle)?;
    call.put(&encode::statx(&attr))?;
    Ok(())
}

pub(crate) fn setattr(call: &mut Call<'_>) -> Served {
    let change = take!(call.args, SetattrIn)?;
    let node = call.node()?;
    let mut set = changes(&change)?;
    set.handle = optional(call, change.valid & fattr::FH != 0, change.fh)?;
    if change.valid & fattr::SIZE != 0 && set.handle.is_some() {
        // A truncate goes through a file's handle, never a directory's.
        call.handle(node.0, change.fh, Some(HandleKind::File))?;
    }
    // A bare request is what kill-priv looks like; the kernel sends no other without a field.
    let bare = change.valid & !(fattr::FH | fattr::LOCKOWNER) == 0;
    set.kill_priv |= bare && call.agreed.contains(Agreed::KILLPRIV_V2);
    call.room(ATTR_OUT_SIZE)?;
    let attr = call.fs().setattr(&call.context(), node, &set)?;
    call.put(&encode::attr(&attr))?;
    Ok(())
}

/// What a SETATTR changes, its handle apart.
fn changes(change: &SetattrIn) -> Result<SetAttr> {
    let has = |bit: u32| change.valid & bit != 0;
    let mut set = SetAttr::new();
    set.mode = has(fattr::MODE).then_some(change.mode & 0o7777);
    set.uid = has(fattr::UID).then(|| real_id(change.uid)).transpose()?;
    set.gid = has(fattr::GID).then(|| real_id(change.gid)).transpose()?;
    set.size = has(fattr::SIZE).then(|| super::file_offset(change.size)).transpose()?;
    set.atime =
        time(has(fattr::ATIME), has(fattr::ATIME_NOW), moment(change.atime, change.atimensec))?;
    set.mtime =
        time(has(fattr::MTIME), has(fattr::MTIME_NOW), moment(change.mtime, change.mtimensec))?;
    set.ctime = has(fattr::CTIME).then(|| moment(change.ctime, change.ctimensec)).transpose()?;
    set.lock_owner = has(fattr::LOCKOWNER).then_some(LockOwner(change.lock_owner));
    set.kill_priv = has(fattr::KILL_SUIDGID);
    Ok(set)
}

/// A user or group to be set. −1 means "leave it" to chown(2), and never comes over the wire.
fn real_id(id: u32) -> Result<u32> {
    if id == NO_ID { Err(Errno::EINVAL) } else { Ok(id) }
}

fn time(set: bool, now: bool, at: Result<Timestamp>) -> Result<Option<SetTime>> {
    match (set, now) {
        (_, true) => Ok(Some(SetTime::Now)),
        (true, false) => at.map(|at| Some(SetTime::At(at))),
        (false, false) => Ok(None),
    }
}

fn moment(sec: u64, nsec: u32) -> Result<Timestamp> {
    if nsec < 1_000_000_000 {
        Ok(Timestamp::new(sec.cast_signed(), nsec))
    } else {
        Err(Errno::EINVAL)
    }
}

pub(crate) fn access(call: &mut Call<'_>) -> Served {
    call.served(Needs::ACCESS)?;
    let AccessIn { mask, .. } = take!(call.args, AccessIn)?;
    let node = call.node()?;
    call.fs().access(&call.context(), node, mask)?;
    Ok(())
}
