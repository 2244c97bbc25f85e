//! From a request's bytes to the operation that serves it.

use stratafs_core::{
    Context, Credentials, DynFileSystem, Entry, Errno, HandleId, Needs, NodeId, Opened, ReadSink,
    Result, WriteSource,
};

use super::backing::IoMode;
use super::decode::{Args, Extensions};
use super::encode;
use super::init::Agreed;
use super::ledger::{HandleKind, NotHeld};
use super::opcode::Opcode;
use super::ops::{self, lock::Waiting};
use super::scratch::{Scratch, Spare};
use super::session::{Session, SessionState};
use super::wire::{INIT_OUT_SIZE, InHeader, NO_ID, WriteIn};

/// What becomes of a request.
pub(crate) enum Answer {
    /// A reply now; with what to take back if it does not arrive.
    Now(Result<()>, Undo),
    /// A reply when a lock is free.
    Later(Waiting),
    /// No reply at all.
    Never,
}

/// What a reply gives to the client, to be taken back if it does not arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    /// Nothing.
    Nothing,
    /// A lookup.
    Lookup(NodeId),
    /// A handle.
    Handle(NodeId, HandleId, HandleKind),
    /// A lookup and a file handle.
    Created(NodeId, HandleId),
    /// The lookups in [`Spare::granted`].
    Listing,
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// No member of the filesystem needs it: ENOSYS, so that the client stops asking.
    Unserved,
    /// An error, the filesystem's or that of a request that makes no sense.
    Errno(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// The result of an operation, whose payload is in the sink.
pub(crate) type Served = Result<(), Refusal>;

/// One request on its way through an operation.
pub(crate) struct Call<'a> {
    pub(crate) session: &'a Session,
    pub(crate) header: &'a InHeader,
    pub(crate) agreed: Agreed,
    pub(crate) args: Args<'a>,
    /// Where the data of a WRITE and the list of a BATCH_FORGET still are.
    pub(crate) source: &'a mut dyn WriteSource,
    pub(crate) out: &'a mut dyn ReadSink,
    pub(crate) spare: &'a mut Spare,
    pub(crate) undo: Undo,
}

impl<'a> Call<'a> {
    /// The filesystem.
    pub(crate) fn fs(&self) -> &'a dyn DynFileSystem {
        self.session.fs.as_ref()
    }

    /// Whether the filesystem needs one of `needs`.
    ///
    /// # Errors
    /// [`Refusal::Unserved`] where it needs none.
    pub(crate) fn served(&self, needs: Needs) -> Served {
        if self.session.features.needs.intersects(needs) { Ok(()) } else { Err(Refusal::Unserved) }
    }

    /// Checks that a reply of `len` bytes fits, before anything is done that a client could not be
    /// told of.
    pub(crate) fn room(&self, len: usize) -> Result<()> {
        if self.out.remaining() >= len { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Appends `bytes` to the reply.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        encode::put(self.out, bytes)
    }

    /// The node that the request is about, which the session was given.
    pub(crate) fn node(&self) -> Result<NodeId> {
        self.known(self.header.nodeid)
    }

    /// The node of this id, if the session was given it.
    ///
    /// # Errors
    /// `ESTALE`: it was not.
    pub(crate) fn known(&self, id: u64) -> Result<NodeId> {
        let node = NodeId(id);
        if self.session.ledger.knows(node) { Ok(node) } else { Err(Errno::ESTALE) }
    }

    /// The node that the request is about, and the file handle `fh` on it.
    pub(crate) fn file(&self, fh: u64) -> Result<(NodeId, HandleId)> {
        self.handle(self.header.nodeid, fh, Some(HandleKind::File))
    }

    /// The node that the request is about, and the directory handle `fh` on it.
    pub(crate) fn dir(&self, fh: u64) -> Result<(NodeId, HandleId)> {
        self.handle(self.header.nodeid, fh, Some(HandleKind::Dir))
    }

    /// The node `id` and the handle `fh` on it, of one kind or of any.
    ///
    /// A handle that the session holds says by itself that its node is the session's. No handle is
    /// one too, where the filesystem keeps nothing per open.
    ///
    /// # Errors
    /// `ESTALE`: the session was not given the node. `EBADF`: nor the handle, or it is another
    /// node's, or of another kind.
    pub(crate) fn handle(
        &self,
        id: u64,
        fh: u64,
        kind: Option<HandleKind>,
    ) -> Result<(NodeId, HandleId)> {
        let (node, handle) = (NodeId(id), HandleId(fh));
        if handle == HandleId::NONE {
            let node = self.known(id)?;
            return if self.is_stateless(kind) { Ok((node, handle)) } else { Err(Errno::EBADF) };
        }
        if self.session.ledger.holds(handle, node, kind) {
            Ok((node, handle))
        } else {
            self.known(id).and(Err(Errno::EBADF))
        }
    }

    /// Whether requests without a handle are to be expected.
    pub(crate) fn is_stateless(&self, kind: Option<HandleKind>) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let files = || self.session.stateless_files.load(Relaxed);
        let dirs = || self.session.stateless_dirs.load(Relaxed);
        match kind {
            Some(HandleKind::File) => files(),
            Some(HandleKind::Dir) => dirs(),
            None => files() || dirs(),
        }
    }

    /// Who asks. The ids are absent where the client does not tell them.
    pub(crate) fn context(&self) -> Context<'a> {
        let InHeader { uid, gid, pid, .. } = *self.header;
        let told = uid != NO_ID && gid != NO_ID;
        Context::new(pid, told.then_some(Credentials::new(uid, gid)))
            .with_session(Some(self.session.id()))
    }

    /// Who asks for a new object, whose name was the last of the arguments: what follows are
    /// extensions.
    ///
    /// The client applies the umask by itself unless DONT_MASK was agreed on.
    pub(crate) fn creator(&mut self, umask: u32) -> Result<Context<'a>> {
        let umask = if self.agreed.contains(Agreed::DONT_MASK) { umask & 0o777 } else { 0 };
        let mut extensions = Extensions::default();
        if self.agreed.contains(Agreed::EXTENSIONS) {
            let len = usize::from(self.header.total_extlen).saturating_mul(8);
            if len != self.args.len() {
                return Err(Errno::EINVAL);
            }
            extensions = Extensions::read(self.args.remainder())?;
        }
        Ok(self
            .context()
            .with_umask(umask)
            .with_supplementary_group(extensions.group)
            .with_security(extensions.security))
    }

    /// Notes the lookup in `entry` in the ledger; from here on it is taken back if the reply fails.
    pub(crate) fn grant(&mut self, entry: &Entry) -> Result<()> {
        if entry.node.0 == 0 {
            return Err(self.session.surprise(format_args!("the filesystem gave out node 0")));
        }
        if !self.session.ledger.raise(entry.node) {
            self.fs().forget(entry.node, 1);
            return Err(Errno::EIO);
        }
        self.undo = Undo::Lookup(entry.node);
        Ok(())
    }

    /// Notes the handle of a file that an open of `node` answered, and decides by what `opened` offers
    /// how the client treats it.
    pub(crate) fn hold_file(
        &self,
        node: NodeId,
        handle: HandleId,
        opened: &Opened,
    ) -> Result<IoMode> {
        if !self.agreed.contains(Agreed::PASSTHROUGH) {
            return self.hold(node, handle, HandleKind::File).map(|()| IoMode::Cached);
        }
        let backings = &self.session.backings;
        // Before the client could name the handle, so that a release finds the open counted.
        let mode = backings.enter(node, opened);
        self.hold(node, handle, HandleKind::File)
            .inspect_err(|_| backings.leave(node))
            .map(|()| mode)
    }

    /// Notes the handle that an open of `node` answered. None there is nothing to note of, but that
    /// requests without one are to be expected.
    pub(crate) fn hold(&self, node: NodeId, handle: HandleId, kind: HandleKind) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let session = self.session;
        if handle == HandleId::NONE {
            match kind {
                HandleKind::File => session.stateless_files.store(true, Relaxed),
                HandleKind::Dir => session.stateless_dirs.store(true, Relaxed),
            }
            return Ok(());
        }
        match session.ledger.hold(handle, node, kind) {
            Ok(()) => Ok(()),
            Err(NotHeld::Over) => {
                session.release(&self.context(), node, handle, kind);
                Err(Errno::EIO)
            }
            Err(NotHeld::Taken) => Err(session.surprise(format_args!(
                "the filesystem gave out one handle for two objects ({handle:?}, {node:?})"
            ))),
        }
    }

    /// Answers with an object that was looked up or made.
    pub(crate) fn put_entry(&mut self, entry: &Entry) -> Result<()> {
        self.grant(entry)?;
        self.put(&encode::entry(entry, self.agreed.contains(Agreed::SUBMOUNTS)))
    }
}

/// Reads a request's header; `None` where it is not whole.
pub(crate) fn read_header(source: &mut dyn WriteSource) -> Option<InHeader> {
    let mut bytes = [0; InHeader::SIZE];
    match source.read_slice(&mut bytes) {
        Ok(InHeader::SIZE) => InHeader::from_bytes(&bytes),
        _ => None,
    }
}

/// Serves the request of this header; `source` gives what follows it.
pub(crate) fn serve<'a>(
    session: &'a Session,
    header: &'a InHeader,
    source: &'a mut dyn WriteSource,
    out: &'a mut dyn ReadSink,
    scratch: &'a mut Scratch,
) -> Answer {
    let opcode = Opcode::from_raw(header.opcode);
    // A reply to 0 would be taken for a notification.
    let answered = header.unique != 0 && opcode.is_none_or(Opcode::has_reply);
    let refuse = |errno, what: &str| {
        session.malformed(format_args!("{what} (opcode {})", header.opcode));
        if answered { Answer::Now(Err(errno), Undo::Nothing) } else { Answer::Never }
    };

    let rest = source.remaining();
    if usize::try_from(header.len).ok() != rest.checked_add(InHeader::SIZE) {
        return refuse(Errno::EINVAL, "its length is not what came");
    }
    let Some(opcode) = opcode else {
        return if answered {
            Answer::Now(Err(Errno::ENOSYS), Undo::Nothing)
        } else {
            Answer::Never
        };
    };
    if header.unique == 0 && opcode.has_reply() {
        return refuse(Errno::EINVAL, "there is nobody to answer");
    }
    let inline = match opcode {
        Opcode::Write => rest.min(WriteIn::SIZE),
        Opcode::BatchForget => rest.min(8),
        _ => rest,
    };
    let Scratch { args, spare } = scratch;
    let Some(buffer) = args.get_mut(..inline) else {
        return refuse(Errno::E2BIG, "its arguments are longer than any");
    };
    match source.read_slice(buffer) {
        Ok(read) if read == inline => {}
        Ok(_) => return refuse(Errno::EIO, "less came than was told"),
        Err(errno) => return refuse(errno, "it could not be read"),
    }

    let mut args = Args::new(buffer);
    match opcode {
        Opcode::Init => {
            if out.remaining() < INIT_OUT_SIZE {
                return refuse(Errno::EINVAL, "there is no room for the answer");
            }
            let answer = session.init(&mut args).and_then(|reply| encode::put(out, &reply));
            return Answer::Now(answer, Undo::Nothing);
        }
        Opcode::Destroy => {
            session.end(SessionState::Ended);
            return Answer::Now(Ok(()), Undo::Nothing);
        }
        _ => {}
    }
    let Some(agreed) = session.agreement() else {
        return if answered { Answer::Now(Err(Errno::EIO), Undo::Nothing) } else { Answer::Never };
    };
    let mut call = Call { session, header, agreed, args, source, out, spare, undo: Undo::Nothing };
    if !opcode.has_reply() {
        if let Err(errno) = ops::without_reply(&mut call, opcode) {
            return refuse(errno, "it is cut short");
        }
        return Answer::Never;
    }
    let served = if opcode == Opcode::Setlkw {
        match ops::lock::setlkw(&mut call) {
            Ok(Some(waiting)) => return Answer::Later(waiting),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    } else {
        ops::with_reply(&mut call, opcode)
    };
    let undo = std::mem::replace(&mut call.undo, Undo::Nothing);
    match served {
        Ok(()) => Answer::Now(Ok(()), undo),
        Err(refusal) => {
            session.undo(undo, &call.spare.granted);
            let errno = match refusal {
                Refusal::Unserved => Errno::ENOSYS,
                Refusal::Errno(errno) => session.harmless(errno),
            };
            Answer::Now(Err(errno), Undo::Nothing)
        }
    }
}
