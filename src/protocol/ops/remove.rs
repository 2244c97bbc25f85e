//! UNLINK, RMDIR.

use crate::protocol::dispatch::{Call, Served};

pub(crate) fn unlink(call: &mut Call<'_>) -> Served {
    let parent = call.node()?;
    let name = call.args.name()?;
    call.fs().unlink(&call.context(), parent, name)?;
    Ok(())
}

pub(crate) fn rmdir(call: &mut Call<'_>) -> Served {
    let parent = call.node()?;
    let name = call.args.name()?;
    call.fs().rmdir(&call.context(), parent, name)?;
    Ok(())
}
