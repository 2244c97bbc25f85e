//! OPEN, READ, WRITE, FLUSH, FSYNC, RELEASE, FALLOCATE, LSEEK, COPY_FILE_RANGE.

use std::sync::atomic::Ordering;

use stratafs_core::{
    CopyRange, Errno, FallocateMode, HandleId, LockOwner, Needs, OpenFlags, Release, Result,
    SeekTo, WriteFlags,
};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Refusal, Served, Undo};
use crate::protocol::init::Agreed;
use crate::protocol::io::Limited;
use crate::protocol::ledger::HandleKind;
use crate::protocol::wire::{
    CopyFileRangeIn, CopyFileRangeOut, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, LseekIn,
    LseekOut, OPEN_KILL_SUIDGID, OpenIn, OpenOut, RELEASE_FLOCK_UNLOCK, RELEASE_FLUSH, ReadIn,
    ReleaseIn, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};

use super::create::open_out;
use super::file_offset;

/// O_CREAT of open(2).
pub(super) const O_CREAT: u32 = 0o100;
/// O_EXCL of open(2).
const O_EXCL: u32 = 0o200;
/// O_NOCTTY of open(2).
pub(super) const O_NOCTTY: u32 = 0o400;
/// O_TRUNC of open(2).
const O_TRUNC: u32 = 0o1000;

/// The flags as the filesystem is to have them: widened for a client with a writeback cache.
pub(super) fn masked(call: &Call<'_>, raw: u32) -> OpenFlags {
    let flags = OpenFlags::from_raw(raw);
    if call.agreed.contains(Agreed::WRITEBACK) { flags.for_writeback() } else { flags }
}

pub(crate) fn open(call: &mut Call<'_>) -> Served {
    let OpenIn { flags, open_flags } = take!(call.args, OpenIn)?;
    let node = call.node()?;
    if call.agreed.contains(Agreed::NO_OPEN) {
        return Err(Refusal::Unserved);
    }
    call.room(OpenOut::SIZE)?;
    let mut raw = flags & !(O_CREAT | O_EXCL | O_NOCTTY);
    if !call.agreed.contains(Agreed::ATOMIC_O_TRUNC) {
        raw &= !O_TRUNC;
    }
    let flags = masked(call, raw);
    let kill_priv = open_flags & OPEN_KILL_SUIDGID != 0;
    let context = call.context();
    let opened = call.fs().open(&context, node, flags, kill_priv)?;
    let mode = call.hold_file(node, opened.handle, &opened)?;
    call.undo = Undo::Handle(node, opened.handle, HandleKind::File);
    call.put(&open_out(opened.handle, opened.flags, mode))?;
    Ok(())
}

pub(crate) fn read(call: &mut Call<'_>) -> Served {
    let ReadIn { fh, offset, size, .. } = take!(call.args, ReadIn)?;
    let (node, handle) = call.file(fh)?;
    let offset = file_offset(offset)?;
    let asked = usize::try_from(size).unwrap_or(usize::MAX);
    let size = asked.min(call.out.remaining());
    let context = call.context();
    let fs = call.fs();
    fs.read(&context, node, handle, offset, size, &mut Limited::new(call.out, size))?;
    Ok(())
}

pub(crate) fn write(call: &mut Call<'_>) -> Served {
    let head = take!(call.args, WriteIn)?;
    let (node, handle) = call.file(head.fh)?;
    let offset = file_offset(head.offset)?;
    let size = usize::try_from(head.size).map_err(|_| Errno::EINVAL)?;
    if size != call.source.remaining() || head.size > call.session.max_write.load(Ordering::Relaxed)
    {
        return Err(Errno::EINVAL.into());
    }
    call.room(WriteOut::SIZE)?;
    let flags = write_flags(call, &head);
    let context = call.context();
    let fs = call.fs();
    let written = fs.write(&context, node, handle, offset, size, flags, call.source)?;
    let written = u32::try_from(written).unwrap_or(u32::MAX);
    if written > head.size {
        let what = format_args!("the filesystem wrote more than it was given");
        return Err(call.session.surprise(what).into());
    }
    call.put(&WriteOut { size: written, padding: 0 }.to_bytes())?;
    Ok(())
}

fn write_flags(call: &Call<'_>, head: &WriteIn) -> WriteFlags {
    let open = OpenFlags::from_raw(head.flags);
    let cached = head.write_flags & WRITE_CACHE != 0;
    let mut flags = WriteFlags::empty();
    flags.set(WriteFlags::SYNC, open.sync());
    flags.set(WriteFlags::CACHE, cached);
    // The client places what comes from its cache, and under writeback all that it writes.
    let placed = cached || call.agreed.contains(Agreed::WRITEBACK);
    flags.set(WriteFlags::APPEND, open.append() && !placed);
    flags.set(WriteFlags::KILL_PRIV, head.write_flags & WRITE_KILL_SUIDGID != 0 && !cached);
    flags
}

/// Needed for POSIX locks too, which a close gives up.
pub(crate) fn flush(call: &mut Call<'_>) -> Served {
    call.served(Needs::FLUSH | Needs::POSIX_LOCKS)?;
    let FlushIn { fh, lock_owner, .. } = take!(call.args, FlushIn)?;
    let (node, handle) = call.file(fh)?;
    call.fs().flush(&call.context(), node, handle, LockOwner(lock_owner))?;
    Ok(())
}

pub(crate) fn fsync(call: &mut Call<'_>) -> Served {
    call.served(Needs::FSYNC)?;
    let FsyncIn { fh, fsync_flags, .. } = take!(call.args, FsyncIn)?;
    let (node, handle) = call.file(fh)?;
    let datasync = fsync_flags & FSYNC_FDATASYNC != 0;
    call.fs().fsync(&call.context(), node, handle, datasync)?;
    Ok(())
}

pub(crate) fn release(call: &mut Call<'_>) -> Served {
    let head = take!(call.args, ReleaseIn)?;
    let (node, handle) = call.file(head.fh)?;
    let owner = LockOwner(head.lock_owner);
    let release = Release::new(
        (head.release_flags & RELEASE_FLUSH != 0).then_some(owner),
        (head.release_flags & RELEASE_FLOCK_UNLOCK != 0).then_some(owner),
    );
    if handle == HandleId::NONE {
        call.session.backings.leave(node);
        // Nothing was opened, so there is nothing to release but a lock.
        if release == Release::default() {
            return Ok(());
        }
    } else if !call.session.ledger.drop_handle(handle, node, HandleKind::File) {
        // Another RELEASE was faster.
        return Err(Errno::EBADF.into());
    } else {
        call.session.backings.leave(node);
    }
    call.fs().release(&call.context(), node, handle, release)?;
    Ok(())
}

pub(crate) fn fallocate(call: &mut Call<'_>) -> Served {
    call.served(Needs::FALLOCATE)?;
    let FallocateIn { fh, offset, length, mode, .. } = take!(call.args, FallocateIn)?;
    let (node, handle) = call.file(fh)?;
    let mode = FallocateMode::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    let (offset, length) = (file_offset(offset)?, file_offset(length)?);
    if length == 0 {
        return Err(Errno::EINVAL.into());
    }
    let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
    file_offset(end).map_err(|_| Errno::EFBIG)?;
    call.fs().fallocate(&call.context(), node, handle, mode, offset, length)?;
    Ok(())
}

/// SEEK_DATA of lseek(2).
const SEEK_DATA: u32 = 3;
/// SEEK_HOLE of lseek(2).
const SEEK_HOLE: u32 = 4;

pub(crate) fn lseek(call: &mut Call<'_>) -> Served {
    call.served(Needs::LSEEK)?;
    let LseekIn { fh, offset, whence, .. } = take!(call.args, LseekIn)?;
    let (node, handle) = call.file(fh)?;
    let to = match whence {
        SEEK_DATA => SeekTo::Data,
        SEEK_HOLE => SeekTo::Hole,
        _ => return Err(Errno::EINVAL.into()),
    };
    // A negative offset is before every file's end, and ENXIO to lseek(2).
    let offset = file_offset(offset).map_err(|_| Errno::ENXIO)?;
    call.room(LseekOut::SIZE)?;
    let offset = call.fs().lseek(&call.context(), node, handle, offset, to)?;
    call.put(&LseekOut { offset }.to_bytes())?;
    Ok(())
}

/// The longest copy whose count fits the older reply: MAX_RW_COUNT of the kernel.
const MAX_RW_COUNT: u64 = 0x7fff_f000;

pub(crate) fn copy_file_range(call: &mut Call<'_>) -> Served {
    call.room(WriteOut::SIZE)?;
    let copied = copy(call, MAX_RW_COUNT)?;
    let size = u32::try_from(copied).unwrap_or(u32::MAX);
    call.put(&WriteOut { size, padding: 0 }.to_bytes())?;
    Ok(())
}

pub(crate) fn copy_file_range_64(call: &mut Call<'_>) -> Served {
    call.room(CopyFileRangeOut::SIZE)?;
    let copied = copy(call, i64::MAX.cast_unsigned())?;
    call.put(&CopyFileRangeOut { bytes_copied: copied }.to_bytes())?;
    Ok(())
}

fn copy(call: &mut Call<'_>, most: u64) -> Result<u64, Refusal> {
    call.served(Needs::COPY_FILE_RANGE)?;
    let head = take!(call.args, CopyFileRangeIn)?;
    let (from_node, from_handle) = call.file(head.fh_in)?;
    let (to_node, to_handle) = call.handle(head.nodeid_out, head.fh_out, Some(HandleKind::File))?;
    if head.flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let from = CopyRange::new(from_node, from_handle, range(head.off_in, 0)?);
    let to = CopyRange::new(to_node, to_handle, range(head.off_out, 0)?);
    let len = head.len.min(most);
    range(from.offset, len)?;
    range(to.offset, len)?;
    let copied = call.fs().copy_file_range(&call.context(), from, to, len)?;
    let copied = u64::try_from(copied).unwrap_or(u64::MAX);
    if copied > len {
        let what = format_args!("the filesystem copied more than it was told to");
        return Err(call.session.surprise(what).into());
    }
    Ok(copied)
}

/// The first byte of a range that ends where a file may.
fn range(offset: u64, len: u64) -> Result<u64> {
    file_offset(offset)?;
    file_offset(offset.saturating_add(len)).map_err(|_| Errno::EOVERFLOW)?;
    Ok(offset)
}
