//! GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR.

use stratafs_core::{Errno, Needs, Result, XattrMode};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served};
use crate::protocol::init::Agreed;
use crate::protocol::scratch::XATTR_SIZE_MAX;
use crate::protocol::wire::{
    GetxattrIn, GetxattrOut, SETXATTR_ACL_KILL_SGID, SetxattrIn, SetxattrInExt,
};

pub(crate) fn getxattr(call: &mut Call<'_>) -> Served {
    call.served(Needs::XATTR)?;
    let GetxattrIn { size, .. } = take!(call.args, GetxattrIn)?;
    let node = call.node()?;
    let name = call.args.xattr_name()?;
    let len = value_len(call, size)?;
    let (context, fs) = (call.context(), call.fs());
    let value = call.spare.value.get_mut(..len).ok_or(Errno::EIO)?;
    let found = fs.getxattr(&context, node, name, value)?;
    answer(call, len, found)
}

pub(crate) fn listxattr(call: &mut Call<'_>) -> Served {
    call.served(Needs::XATTR)?;
    let GetxattrIn { size, .. } = take!(call.args, GetxattrIn)?;
    let node = call.node()?;
    let len = value_len(call, size)?;
    let (context, fs) = (call.context(), call.fs());
    let names = call.spare.value.get_mut(..len).ok_or(Errno::EIO)?;
    let found = fs.listxattr(&context, node, names)?;
    answer(call, len, found)
}

/// How many bytes the filesystem may give: what the client asks for, at most what an attribute can
/// have and the reply can take. 0 asks for the size alone.
fn value_len(call: &Call<'_>, size: u32) -> Result<usize> {
    if size == 0 {
        call.room(GetxattrOut::SIZE)?;
        return Ok(0);
    }
    let asked = usize::try_from(size).unwrap_or(usize::MAX).min(XATTR_SIZE_MAX);
    let len = asked.min(call.out.remaining());
    // No room at all must not turn into a question for the size.
    if len == 0 { Err(Errno::ERANGE) } else { Ok(len) }
}

fn answer(call: &mut Call<'_>, len: usize, found: usize) -> Served {
    if len == 0 {
        let size = u32::try_from(found).map_err(|_| Errno::E2BIG)?;
        call.put(&GetxattrOut { size, padding: 0 }.to_bytes())?;
        return Ok(());
    }
    let Some(value) = call.spare.value.get(..found).filter(|_| found <= len) else {
        let what = format_args!("the filesystem gave more of an attribute than was asked for");
        return Err(call.session.surprise(what).into());
    };
    crate::protocol::encode::put(call.out, value)?;
    Ok(())
}

/// XATTR_CREATE of setxattr(2).
const XATTR_CREATE: u32 = 1;
/// XATTR_REPLACE of setxattr(2).
const XATTR_REPLACE: u32 = 2;

pub(crate) fn setxattr(call: &mut Call<'_>) -> Served {
    call.served(Needs::SETXATTR)?;
    let SetxattrIn { size, flags } = take!(call.args, SetxattrIn)?;
    let extended = if call.agreed.contains(Agreed::SETXATTR_EXT) {
        take!(call.args, SetxattrInExt)?
    } else {
        SetxattrInExt::default()
    };
    let node = call.node()?;
    let name = call.args.xattr_name()?;
    let value = call.args.remainder();
    if usize::try_from(size).ok() != Some(value.len()) {
        return Err(Errno::EINVAL.into());
    }
    if value.len() > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mode = match flags {
        0 => XattrMode::Set,
        XATTR_CREATE => XattrMode::Create,
        XATTR_REPLACE => XattrMode::Replace,
        _ => return Err(Errno::EINVAL.into()),
    };
    let clear_setgid = extended.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
    call.fs().setxattr(&call.context(), node, name, value, mode, clear_setgid)?;
    Ok(())
}

pub(crate) fn removexattr(call: &mut Call<'_>) -> Served {
    call.served(Needs::SETXATTR)?;
    let node = call.node()?;
    let name = call.args.xattr_name()?;
    call.fs().removexattr(&call.context(), node, name)?;
    Ok(())
}
