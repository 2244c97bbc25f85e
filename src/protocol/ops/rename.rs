//! RENAME, RENAME2.

use stratafs_core::{Errno, Needs, RenameFlags};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served};
use crate::protocol::wire::{Rename2In, RenameIn};

pub(crate) fn rename(call: &mut Call<'_>) -> Served {
    let RenameIn { newdir } = take!(call.args, RenameIn)?;
    between(call, newdir, RenameFlags::empty())
}

pub(crate) fn rename2(call: &mut Call<'_>) -> Served {
    let Rename2In { newdir, flags, .. } = take!(call.args, Rename2In)?;
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if !flags.is_empty() {
        call.served(Needs::RENAME2)?;
    }
    between(call, newdir, flags)
}

fn between(call: &mut Call<'_>, newdir: u64, flags: RenameFlags) -> Served {
    let parent = call.node()?;
    let new_parent = call.known(newdir)?;
    let name = call.args.name()?;
    let new_name = call.args.name()?;
    call.fs().rename(&call.context(), parent, name, new_parent, new_name, flags)?;
    Ok(())
}
