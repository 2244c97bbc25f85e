//! OPENDIR, READDIR, READDIRPLUS, FSYNCDIR, RELEASEDIR.

use stratafs_core::{
    Added, DirEntry, DirSink, Entry, Errno, FileType, HandleId, Needs, NodeId, OpenFlags,
    OpenedFlags, ReadSink,
};

use crate::protocol::decode::take;
use crate::protocol::dispatch::{Call, Refusal, Served, Undo};
use crate::protocol::encode::{self, ENTRY_OUT_SIZE};
use crate::protocol::init::Agreed;
use crate::protocol::ledger::HandleKind;
use crate::protocol::session::Session;
use crate::protocol::wire::{Dirent, FSYNC_FDATASYNC, FsyncIn, OpenIn, OpenOut, ReadIn, ReleaseIn};

pub(crate) fn opendir(call: &mut Call<'_>) -> Served {
    let OpenIn { flags, .. } = take!(call.args, OpenIn)?;
    let node = call.node()?;
    if call.agreed.contains(Agreed::NO_OPENDIR) {
        return Err(Refusal::Unserved);
    }
    call.room(OpenOut::SIZE)?;
    let opened = call.fs().opendir(&call.context(), node, OpenFlags::from_raw(flags))?;
    let handle = opened.handle;
    call.hold(node, handle, HandleKind::Dir)?;
    call.undo = Undo::Handle(node, handle, HandleKind::Dir);
    let flags = opened.flags & (OpenedFlags::KEEP_CACHE | OpenedFlags::CACHE_DIR);
    call.put(&OpenOut { fh: handle.0, open_flags: flags.bits(), backing_id: 0 }.to_bytes())?;
    Ok(())
}

pub(crate) fn readdir(call: &mut Call<'_>) -> Served {
    list(call, false)
}

pub(crate) fn readdirplus(call: &mut Call<'_>) -> Served {
    call.served(Needs::READDIRPLUS)?;
    list(call, true)
}

fn list(call: &mut Call<'_>, plus: bool) -> Served {
    let ReadIn { fh, offset, size, .. } = take!(call.args, ReadIn)?;
    let (node, handle) = call.dir(fh)?;
    let room = usize::try_from(size).unwrap_or(usize::MAX).min(call.out.remaining());
    call.spare.granted.clear();
    let (context, fs) = (call.context(), call.fs());
    let mut listing = Listing {
        session: call.session,
        out: &mut *call.out,
        granted: &mut call.spare.granted,
        room,
        plus,
        submounts: call.agreed.contains(Agreed::SUBMOUNTS),
        any: false,
        failed: None,
    };
    let listed = if plus {
        fs.readdirplus(&context, node, handle, offset, &mut listing)
    } else {
        fs.readdir(&context, node, handle, offset, &mut listing)
    };
    let (any, failed) = (listing.any, listing.failed);
    call.undo = Undo::Listing;
    if let Some(errno) = failed {
        return Err(errno.into());
    }
    // What was listed before an error is good; the next call meets it again.
    match listed {
        Err(errno) if !any => Err(errno.into()),
        _ => Ok(()),
    }
}

/// Bytes of the longest entry: with attributes, and a name of 255 bytes, padded.
const MAX_ENTRY: usize = ENTRY_OUT_SIZE + Dirent::SIZE + 256;

/// The entries of a reply.
struct Listing<'a> {
    session: &'a Session,
    out: &'a mut dyn ReadSink,
    /// The nodes whose lookup the reply carries.
    granted: &'a mut Vec<NodeId>,
    /// Bytes left of what the client asked for.
    room: usize,
    plus: bool,
    submounts: bool,
    any: bool,
    failed: Option<Errno>,
}

impl Listing<'_> {
    /// Bytes of an entry whose name has `name_len` bytes; `None` for a name that is too long.
    fn entry_len(&self, name_len: usize) -> Option<usize> {
        let head = if self.plus { ENTRY_OUT_SIZE } else { 0 };
        let len = head.checked_add(Dirent::SIZE)?.checked_add(name_len)?;
        len.checked_next_multiple_of(8).filter(|len| *len <= MAX_ENTRY)
    }

    /// Puts an entry into the reply; `None` where it is not.
    fn put(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Option<()> {
        let len = self.entry_len(entry.name.len()).filter(|len| *len <= self.room)?;
        let mut buffer = [0; MAX_ENTRY];
        let bytes = buffer.get_mut(..len)?;
        let mut rest = &mut bytes[..];
        if self.plus {
            // An entry without an object has node 0, and the client looks it up by itself.
            let (head, dirent) = rest.split_first_chunk_mut::<ENTRY_OUT_SIZE>()?;
            if let Some(object) = plus {
                *head = encode::entry(object, self.submounts);
            }
            rest = dirent;
        }
        let (head, name) = rest.split_first_chunk_mut::<{ Dirent::SIZE }>()?;
        *head = Dirent {
            ino: entry.ino,
            off: entry.cookie,
            namelen: u32::try_from(entry.name.len()).ok()?,
            kind: entry.kind.map_or(0, FileType::dirent_type),
        }
        .to_bytes();
        name.get_mut(..entry.name.len())?.copy_from_slice(entry.name);
        match encode::put(self.out, bytes) {
            Ok(()) => {
                self.room = self.room.saturating_sub(len);
                Some(())
            }
            Err(errno) => {
                self.failed = Some(errno);
                None
            }
        }
    }
}

impl DirSink for Listing<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.failed.is_none() && self.entry_len(name_len).is_some_and(|len| len <= self.room)
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        // Nothing follows an entry that was not taken, for its cookie would be passed over.
        if self.failed.is_some() || !self.fits(entry.name.len()) {
            self.room = 0;
            return Added::Full;
        }
        let object = plus.filter(|object| self.plus && object.node.0 != 0);
        if let Some(object) = object {
            if !self.session.ledger.raise(object.node) {
                self.failed = Some(Errno::EIO);
                return Added::Full;
            }
            self.granted.push(object.node);
        }
        if self.put(entry, object).is_none() {
            // The reference stays the filesystem's, so it leaves the ledger.
            if object.is_some()
                && let Some(node) = self.granted.pop()
            {
                self.session.ledger.lower(node, 1);
            }
            self.room = 0;
            return Added::Full;
        }
        self.any = true;
        Added::Taken
    }
}

pub(crate) fn fsyncdir(call: &mut Call<'_>) -> Served {
    call.served(Needs::FSYNCDIR)?;
    let FsyncIn { fh, fsync_flags, .. } = take!(call.args, FsyncIn)?;
    let (node, handle) = call.dir(fh)?;
    let datasync = fsync_flags & FSYNC_FDATASYNC != 0;
    call.fs().fsyncdir(&call.context(), node, handle, datasync)?;
    Ok(())
}

pub(crate) fn releasedir(call: &mut Call<'_>) -> Served {
    let ReleaseIn { fh, .. } = take!(call.args, ReleaseIn)?;
    let (node, handle) = call.dir(fh)?;
    if handle == HandleId::NONE {
        return Ok(());
    }
    if !call.session.ledger.drop_handle(handle, node, HandleKind::Dir) {
        return Err(Errno::EBADF.into());
    }
    call.fs().releasedir(&call.context(), node, handle)?;
    Ok(())
}
