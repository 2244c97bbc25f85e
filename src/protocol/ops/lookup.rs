//! LOOKUP, FORGET, BATCH_FORGET, READLINK.

use stratafs_core::{Errno, Lookup, NodeId, Result};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served};
use crate::protocol::encode::{self, ENTRY_OUT_SIZE};
use crate::protocol::io::Limited;
use crate::protocol::scratch::FORGET_BATCH;
use crate::protocol::wire::{BatchForgetIn, ForgetIn, ForgetOne};

pub(crate) fn lookup(call: &mut Call<'_>) -> Served {
    let parent = call.node()?;
    let name = call.args.name()?;
    call.room(ENTRY_OUT_SIZE)?;
    match call.fs().lookup(&call.context(), parent, name)? {
        Lookup::Found(entry) => call.put_entry(&entry)?,
        // An error is all that need be said of a name that may come into being at once.
        Lookup::Absent(timeout) if timeout.is_zero() => return Err(Errno::ENOENT.into()),
        Lookup::Absent(timeout) => call.put(&encode::absent(timeout))?,
    }
    Ok(())
}

pub(crate) fn forget(call: &mut Call<'_>) -> Result<()> {
    let ForgetIn { nlookup } = take!(call.args, ForgetIn)?;
    call.session.forget(NodeId(call.header.nodeid), nlookup);
    Ok(())
}

/// Forgets many nodes. One that is shorter than it says forgets none of them.
pub(crate) fn batch_forget(call: &mut Call<'_>) -> Result<()> {
    let BatchForgetIn { count, .. } = take!(call.args, BatchForgetIn)?;
    let mut left = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    if left.checked_mul(ForgetOne::SIZE) != Some(call.source.remaining()) {
        return Err(Errno::EINVAL);
    }
    let mut one = [0; ForgetOne::SIZE];
    while left > 0 {
        call.spare.forgets.clear();
        for _ in 0..left.min(FORGET_BATCH) {
            if call.source.read_slice(&mut one)? != ForgetOne::SIZE {
                return Err(Errno::EIO);
            }
            let ForgetOne { nodeid, nlookup } = take!(&mut super::Args::new(&one), ForgetOne)?;
            let node = NodeId(nodeid);
            let count = call.session.ledger.lower(node, nlookup);
            if count > 0 {
                call.spare.forgets.push((node, count));
            }
        }
        call.fs().batch_forget(&call.spare.forgets);
        left = left.saturating_sub(FORGET_BATCH);
    }
    Ok(())
}

/// The longest target of a symlink, in bytes: PATH_MAX without its NUL. A longer reply would be
/// refused by the kernel.
const TARGET_MAX: usize = 4095;

pub(crate) fn readlink(call: &mut Call<'_>) -> Served {
    let node = call.node()?;
    let context = call.context();
    let fs = call.fs();
    fs.readlink(&context, node, &mut Limited::new(call.out, TARGET_MAX))?;
    Ok(())
}
