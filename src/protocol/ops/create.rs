//! SYMLINK, MKNOD, MKDIR, LINK, CREATE, TMPFILE.

use stratafs_core::{
    Context, Entry, Errno, HandleId, Name, Needs, OpenFlags, Opened, OpenedFlags, Result,
};

use crate::protocol::backing::IoMode;
use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Served, Undo};
use crate::protocol::encode::{self, ENTRY_OUT_SIZE};
use crate::protocol::init::Agreed;
use crate::protocol::io::BackingId;
use crate::protocol::ledger::HandleKind;
use crate::protocol::wire::{
    CreateIn, FOPEN_PASSTHROUGH, LinkIn, MkdirIn, MknodIn, OPEN_KILL_SUIDGID, OpenOut,
};

use super::file::{O_CREAT, O_NOCTTY, masked};

/// The longest target of a symlink: PATH_MAX without its NUL.
const TARGET_MAX: usize = 4095;

pub(crate) fn symlink(call: &mut Call<'_>) -> Served {
    let parent = call.node()?;
    let name = call.args.name()?;
    let target = call.args.string()?;
    let context = call.creator(0)?;
    match target.len() {
        0 => return Err(Errno::ENOENT.into()),
        1..=TARGET_MAX => {}
        _ => return Err(Errno::ENAMETOOLONG.into()),
    }
    call.room(ENTRY_OUT_SIZE)?;
    let entry = call.fs().symlink(&context, parent, name, target)?;
    call.put_entry(&entry)?;
    Ok(())
}

pub(crate) fn mknod(call: &mut Call<'_>) -> Served {
    let MknodIn { mode, rdev, umask, .. } = take!(call.args, MknodIn)?;
    let parent = call.node()?;
    let name = call.args.name()?;
    let context = call.creator(umask)?;
    call.room(ENTRY_OUT_SIZE)?;
    let entry = call.fs().mknod(&context, parent, name, mode & 0o177_777, rdev)?;
    call.put_entry(&entry)?;
    Ok(())
}

pub(crate) fn mkdir(call: &mut Call<'_>) -> Served {
    let MkdirIn { mode, umask } = take!(call.args, MkdirIn)?;
    let parent = call.node()?;
    let name = call.args.name()?;
    let context = call.creator(umask)?;
    call.room(ENTRY_OUT_SIZE)?;
    let entry = call.fs().mkdir(&context, parent, name, mode & 0o7777)?;
    call.put_entry(&entry)?;
    Ok(())
}

pub(crate) fn link(call: &mut Call<'_>) -> Served {
    let LinkIn { oldnodeid } = take!(call.args, LinkIn)?;
    let new_parent = call.node()?;
    let node = call.known(oldnodeid)?;
    let new_name = call.args.name()?;
    call.room(ENTRY_OUT_SIZE)?;
    let entry = call.fs().link(&call.context(), node, new_parent, new_name)?;
    call.put_entry(&entry)?;
    Ok(())
}

pub(crate) fn create(call: &mut Call<'_>) -> Served {
    let head = take!(call.args, CreateIn)?;
    let parent = call.node()?;
    let name: Name<'_> = call.args.name()?;
    let context = call.creator(head.umask)?;
    call.room(ENTRY_OUT_SIZE.saturating_add(OpenOut::SIZE))?;
    let (mode, flags) = (head.mode & 0o7777, flags(call, head.flags));
    let kill_priv = head.open_flags & OPEN_KILL_SUIDGID != 0;
    let (entry, opened) = call.fs().create(&context, parent, name, mode, flags, kill_priv)?;
    answer(call, &context, &entry, &opened)?;
    Ok(())
}

/// The name that comes with it is `/`, which names nothing.
pub(crate) fn tmpfile(call: &mut Call<'_>) -> Served {
    call.served(Needs::TMPFILE)?;
    let head = take!(call.args, CreateIn)?;
    let parent = call.node()?;
    call.args.string()?;
    let context = call.creator(head.umask)?;
    call.room(ENTRY_OUT_SIZE.saturating_add(OpenOut::SIZE))?;
    let flags = flags(call, head.flags);
    let (entry, opened) = call.fs().tmpfile(&context, parent, head.mode & 0o7777, flags)?;
    answer(call, &context, &entry, &opened)?;
    Ok(())
}

fn flags(call: &Call<'_>, raw: u32) -> OpenFlags {
    masked(call, raw & !(O_CREAT | O_NOCTTY))
}

/// Answers with the new object and its handle.
///
/// A client that works without OPEN sends no RELEASE either, not even of a handle that a creation
/// gave it: so it is given none.
fn answer(
    call: &mut Call<'_>,
    context: &Context<'_>,
    entry: &Entry,
    opened: &Opened,
) -> Result<()> {
    let mut handle = opened.handle;
    if call.agreed.contains(Agreed::NO_OPEN) && handle != HandleId::NONE {
        call.session.release(context, entry.node, handle, HandleKind::File);
        handle = HandleId::NONE;
    }
    if let Err(errno) = call.grant(entry) {
        if handle != HandleId::NONE {
            call.session.release(context, entry.node, handle, HandleKind::File);
        }
        return Err(errno);
    }
    let mode = call.hold_file(entry.node, handle, opened)?;
    call.undo = Undo::Created(entry.node, handle);
    call.put(&encode::entry(entry, call.agreed.contains(Agreed::SUBMOUNTS)))?;
    call.put(&open_out(handle, opened.flags, mode))
}

/// `fuse_open_out` of a file.
pub(super) fn open_out(handle: HandleId, flags: OpenedFlags, mode: IoMode) -> [u8; OpenOut::SIZE] {
    // The kernel takes no others beside FOPEN_PASSTHROUGH (FOPEN_PASSTHROUGH_MASK).
    let kept = flags & OpenedFlags::NOFLUSH;
    let (open_flags, id) = match mode {
        // A file has no listing to cache.
        IoMode::Cached => (flags.difference(OpenedFlags::CACHE_DIR).bits(), 0),
        IoMode::Passthrough(BackingId(id)) => (kept.bits() | FOPEN_PASSTHROUGH, id),
        IoMode::Direct(BackingId(id)) => {
            ((kept | OpenedFlags::DIRECT_IO).bits() | FOPEN_PASSTHROUGH, id)
        }
    };
    OpenOut { fh: handle.0, open_flags, backing_id: id }.to_bytes()
}
