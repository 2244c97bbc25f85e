//! STATFS, SYNCFS, IOCTL.

use stratafs_core::{Errno, Needs};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served};
use crate::protocol::encode;
use crate::protocol::wire::{IoctlIn, IoctlOut, StatfsOut, SyncfsIn};

pub(crate) fn statfs(call: &mut Call<'_>) -> Served {
    let node = call.node()?;
    call.room(StatfsOut::SIZE)?;
    let st = call.fs().statfs(&call.context(), node)?;
    call.put(&encode::statfs(&st))?;
    Ok(())
}

pub(crate) fn syncfs(call: &mut Call<'_>) -> Served {
    call.served(Needs::SYNCFS)?;
    take!(call.args, SyncfsIn)?;
    let node = call.node()?;
    call.fs().syncfs(&call.context(), node)?;
    Ok(())
}

/// FS_IOC_GETFLAGS of linux/fs.h, of 64-bit and of 32-bit processes.
const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
/// FS_IOC_SETFLAGS, of 64-bit and of 32-bit processes.
const SETFLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];

/// The inode's flags; any other is ENOTTY, which nobody remembers, as nobody does ENOSYS here.
pub(crate) fn ioctl(call: &mut Call<'_>) -> Served {
    let IoctlIn { fh, cmd, in_size, out_size, .. } = take!(call.args, IoctlIn)?;
    let (node, _) = call.handle(call.header.nodeid, fh, None)?;
    if usize::try_from(in_size).ok() != Some(call.args.len()) {
        return Err(Errno::EINVAL.into());
    }
    if !call.session.features.needs(Needs::INODE_FLAGS) {
        return Err(Errno::ENOTTY.into());
    }
    let out_size = usize::try_from(out_size).map_err(|_| Errno::EINVAL)?;
    if GETFLAGS.contains(&cmd) {
        // The kernel asks for four bytes, a process for as many as its long has.
        let len = out_size.min(8);
        if len < 4 {
            return Err(Errno::EINVAL.into());
        }
        call.room(IoctlOut::SIZE.saturating_add(len))?;
        let flags = call.fs().inode_flags(&call.context(), node)?;
        call.put(&IoctlOut::default().to_bytes())?;
        let bytes = if len == 8 {
            u64::from(flags).to_ne_bytes()
        } else {
            let mut bytes = [0; 8];
            if let Some(head) = bytes.first_chunk_mut() {
                *head = flags.to_ne_bytes();
            }
            bytes
        };
        call.put(bytes.get(..if len == 8 { 8 } else { 4 }).unwrap_or(&[]))?;
        return Ok(());
    }
    if SETFLAGS.contains(&cmd) {
        call.room(IoctlOut::SIZE)?;
        // The flags are in the low half of whatever the caller calls a long.
        let (head, _) = call.args.remainder().split_first_chunk().ok_or(Errno::EINVAL)?;
        let flags = u32::from_ne_bytes(*head);
        call.fs().set_inode_flags(&call.context(), node, flags)?;
        call.put(&IoctlOut::default().to_bytes())?;
        return Ok(());
    }
    Err(Errno::ENOTTY.into())
}
