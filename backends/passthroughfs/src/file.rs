//! Opening files, and their data.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratafs_core::attr::{S_ISGID, S_ISUID};
use stratafs_core::{
    Attr, BackingFile, Behaviours, CopyRange, Errno, FallocateMode, FileType, HandleId, NodeId,
    OpenFlags, Opened, OpenedFlags, ReadSink, Result, SeekTo, WriteFlags, WriteSource,
};
use stratafs_sys::io::{At, copy_range, read_at, write_at};
use stratafs_sys::{file, stat};

use crate::PassthroughFs;
use crate::builder::OpenMode;
use crate::handles::{Handle, Kind};
use crate::node::{DataFile, Node};
use crate::owner::{CAPABILITY, xattr};

/// The largest piece that goes through memory where a sink or a source has no descriptor form.
const BOUNCE: usize = 64 * 1024;

/// The open(2) flags that mean something to the host. The client places appended data itself or says
/// so with each write, and alignment is between it and its own cache.
const PASSED: i32 = libc::O_SYNC | libc::O_DSYNC;

/// A file to read from or write to, and its node.
pub(crate) struct Open {
    pub(crate) node: Arc<Node>,
    pub(crate) fd: Arc<OwnedFd>,
    sync: bool,
}

impl PassthroughFs {
    /// Opens what `fd` pins for I/O. Only files and directories are: opening a device or a FIFO does
    /// something or waits for someone.
    pub(crate) fn reopen(&self, node: &Node, fd: &OwnedFd, flags: i32) -> Result<OwnedFd> {
        if !matches!(node.host(), FileType::Regular | FileType::Directory) {
            return Err(Errno::ENXIO);
        }
        let flags = flags | libc::O_NONBLOCK;
        let open = || self.with_room(|| self.proc.reopen(fd.as_fd(), flags));
        match open() {
            Err(Errno::EACCES) if self.make_workable(node, fd) => open(),
            answer => answer,
        }
    }

    /// The errno for opening an object that is no regular file.
    fn openable(node: &Node) -> Result<()> {
        match node.kind {
            FileType::Regular if node.host() == FileType::Regular => Ok(()),
            FileType::Regular => Err(Errno::EIO),
            FileType::Directory => Err(Errno::EISDIR),
            FileType::Symlink => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    pub(crate) fn open_file(
        &self,
        node: NodeId,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        let node = self.node(node)?;
        self.open_node(&node, flags, kill_priv)
    }

    pub(crate) fn open_node(
        &self,
        node: &Arc<Node>,
        flags: OpenFlags,
        kill_priv: bool,
    ) -> Result<Opened> {
        Self::openable(node)?;
        if flags.writable() || flags.truncate() {
            self.writable()?;
        }
        let opened = self.options.cache.file_flags();
        if self.options.open == OpenMode::Stateless && !flags.truncate() {
            return Ok(Opened::stateless(opened));
        }
        let room = self.handles.room()?;
        let pin = self.pin(node)?;
        let truncate = if flags.truncate() { libc::O_TRUNC } else { 0 };
        if kill_priv {
            self.kill_priv(node, pin.as_fd())?;
        } else if flags.truncate() {
            self.drop_capabilities(pin.as_fd())?;
        }
        let fd = Arc::new(self.reopen(node, &pin, host_flags(flags) | truncate)?);
        let backing = self.backing(node, &fd, flags);
        let handle = Handle { node: Arc::clone(node), fd, kind: Kind::File { flags } };
        let id = self.handles.add(room, handle);
        Ok(Opened::new(id, opened).with_backing(backing))
    }

    /// A file for the kernel's own I/O, where a session makes use of it: never for writing to one whose
    /// privileges such a write would not clear.
    pub(crate) fn backing(
        &self,
        node: &Arc<Node>,
        fd: &Arc<OwnedFd>,
        flags: OpenFlags,
    ) -> Option<BackingFile> {
        if !self.lends.load(Ordering::Relaxed) || !self.features.bears(Behaviours::PASSTHROUGH) {
            return None;
        }
        // The kernel opens the file with the client's flags, and fails the open with EIO where the
        // host fails that.
        if flags.direct() && !file::takes_direct(fd.as_fd()) {
            return None;
        }
        let mut size = None;
        if flags.writable() {
            if !self.is_unprivileged(node, fd.as_fd()) {
                return None;
            }
        } else if self.options.cache.file_flags().contains(OpenedFlags::KEEP_CACHE) {
            // After a writer it is looked at once; then it is known again.
            size = node.size().or_else(|| {
                let size = stat::of(fd.as_fd()).ok().map(|stat| stat.size);
                node.set_size(size);
                size
            });
        }
        Some(BackingFile::new(Arc::clone(fd)).with_size(size))
    }

    fn is_unprivileged(&self, node: &Arc<Node>, fd: BorrowedFd<'_>) -> bool {
        let (seen, changes) = node.unprivileged();
        if seen.is_some_and(|seen| self.is_fresh(seen)) {
            return true;
        }
        let Ok(stat) = stat::of(fd) else { return false };
        let Ok(Attr { mode, .. }) = self.attr(node, &stat) else { return false };
        let capable = self
            .host_xattr(CAPABILITY.to_bytes())
            .is_some_and(|name| !matches!(xattr(&self.proc, fd, &name, &mut []), Ok(None)));
        let clean = mode & (S_ISUID | S_ISGID) == 0 && !capable;
        if clean {
            node.keep_unprivileged(changes);
        }
        clean
    }

    /// The file that `handle` has open, or one of the node's own where there is no handle.
    ///
    /// # Errors
    /// `EBADF`: it is not open that way.
    pub(crate) fn file(&self, node: NodeId, handle: HandleId, write: bool) -> Result<Open> {
        if handle == HandleId::NONE {
            return self.stateless(node, write);
        }
        let handle = self.handles.get(handle, node)?;
        let Kind::File { flags } = &handle.kind else { return Err(Errno::EISDIR) };
        if !(if write { flags.writable() } else { flags.readable() }) {
            return Err(Errno::EBADF);
        }
        Ok(Open { node: Arc::clone(&handle.node), fd: Arc::clone(&handle.fd), sync: flags.sync() })
    }

    /// A file of the node's own, opened for both ways where that is possible.
    fn stateless(&self, node: NodeId, write: bool) -> Result<Open> {
        let node = self.node(node)?;
        Self::openable(&node)?;
        if write {
            self.writable()?;
        }
        node.touched.store(true, Ordering::Relaxed);
        let kept = node.state.lock().data.clone();
        if let Some(kept) = kept.filter(|kept| kept.writable || !write) {
            return Ok(Open { node, fd: kept.fd, sync: false });
        }
        let pin = self.pin(&node)?;
        let both = if self.options.readonly {
            Err(Errno::EROFS)
        } else {
            self.reopen(&node, &pin, libc::O_RDWR)
        };
        let (fd, writable) = match both {
            Ok(fd) => (fd, true),
            // A program that runs, a file of somebody else's, a filesystem that is read-only.
            Err(Errno::EACCES | Errno::EROFS | Errno::ETXTBSY | Errno::EPERM) if !write => {
                (self.reopen(&node, &pin, libc::O_RDONLY)?, false)
            }
            Err(errno) => return Err(errno),
        };
        let data = DataFile { fd: Arc::new(fd), writable };
        self.pins.keep_data(&self.table, &node, &data);
        Ok(Open { node, fd: data.fd, sync: false })
    }

    pub(crate) fn read_file(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let open = self.file(node, handle, false)?;
        match sink.write_from_fd(open.fd.as_fd(), offset, size) {
            Err(Errno::EOPNOTSUPP) => bounce_read(open.fd.as_fd(), offset, size, sink),
            answer => answer,
        }
    }

    pub(crate) fn write_file(
        &self,
        node: NodeId,
        handle: HandleId,
        at: (u64, usize),
        flags: WriteFlags,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let (offset, size) = at;
        let open = self.file(node, handle, true)?;
        if size == 0 {
            return Ok(0);
        }
        if flags.contains(WriteFlags::KILL_PRIV) && !flags.contains(WriteFlags::CACHE) {
            self.kill_priv(&open.node, open.fd.as_fd())?;
        }
        let append = flags.contains(WriteFlags::APPEND) && !flags.contains(WriteFlags::CACHE);
        let fd = open.fd.as_fd();
        let written = match source.read_to_fd(fd, offset, size, append) {
            Err(Errno::EOPNOTSUPP) => bounce_write(fd, offset, size, append, source)?,
            answer => answer?,
        };
        if flags.contains(WriteFlags::SYNC) && !open.sync {
            file::sync_data(fd)?;
        }
        Ok(written)
    }

    pub(crate) fn sync_file(&self, node: NodeId, handle: HandleId, datasync: bool) -> Result<()> {
        let fd = if handle == HandleId::NONE {
            self.stateless(node, false)?.fd
        } else {
            Arc::clone(&self.handles.get(handle, node)?.fd)
        };
        let sync = if datasync { file::sync_data } else { file::sync };
        Ok(sync(fd.as_fd())?)
    }

    pub(crate) fn close_file(&self, node: NodeId, handle: HandleId) -> Result<()> {
        if handle == HandleId::NONE {
            return Ok(());
        }
        let handle = self.handles.remove(handle, node, false)?;
        let node = Arc::clone(&handle.node);
        if matches!(handle.kind, Kind::File { flags } if flags.writable()) {
            node.set_size(None);
        }
        let nameless = node.state.lock().places.is_empty();
        // Without a name nothing else leads to it any more.
        if nameless
            && node.lookups.load(Ordering::Acquire) > 0
            && !self.pins.keep(&self.table, &node, &handle.fd)
        {
            log::warn!("passthrough: {:?} has no name, and fd_budget no room: it is lost", node.id);
        }
        let this = Arc::as_ptr(&handle.fd);
        node.state.lock().open.retain(|file| !std::ptr::eq(file.as_ptr(), this));
        drop(handle);
        node.uses.fetch_sub(1, Ordering::AcqRel);
        self.table.reap(&node, &self.pins);
        Ok(())
    }

    pub(crate) fn allocate(
        &self,
        node: NodeId,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let open = self.file(node, handle, true)?;
        self.kill_priv(&open.node, open.fd.as_fd())?;
        Ok(file::allocate(open.fd.as_fd(), mode.bits(), offset, len)?)
    }

    pub(crate) fn seek(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        to: SeekTo,
    ) -> Result<u64> {
        let fd = if handle == HandleId::NONE {
            self.stateless(node, false)?.fd
        } else {
            let handle = self.handles.get(handle, node)?;
            if handle.is_dir() {
                return Err(Errno::EINVAL);
            }
            Arc::clone(&handle.fd)
        };
        if i64::try_from(offset).is_err() {
            return Err(Errno::ENXIO);
        }
        Ok(match to {
            SeekTo::Data => file::seek_data(fd.as_fd(), offset)?,
            SeekTo::Hole => file::seek_hole(fd.as_fd(), offset)?,
        })
    }

    pub(crate) fn copy(&self, from: CopyRange, to: CopyRange, len: u64) -> Result<usize> {
        let source = self.file(from.node, from.handle, false)?;
        let target = self.file(to.node, to.handle, true)?;
        self.kill_priv(&target.node, target.fd.as_fd())?;
        // The kernel takes at most this much in one call anyway.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(0x7fff_f000);
        let at = |fd, position| At { file: fd, position };
        let (source, target) = (source.fd.as_fd(), target.fd.as_fd());
        Ok(copy_range(at(source, from.offset), at(target, to.offset), len)?)
    }
}

/// The open(2) flags for the host.
pub(crate) fn host_flags(flags: OpenFlags) -> i32 {
    let access = match (flags.readable(), flags.writable()) {
        (true, true) => libc::O_RDWR,
        (false, true) => libc::O_WRONLY,
        _ => libc::O_RDONLY,
    };
    access | (flags.raw().cast_signed() & PASSED)
}

fn bounce_read(
    fd: BorrowedFd<'_>,
    offset: u64,
    size: usize,
    sink: &mut dyn ReadSink,
) -> Result<usize> {
    let size = size.min(sink.remaining());
    let mut buffer = vec![0; size.min(BOUNCE)];
    let mut done = 0;
    while done < size {
        let piece = (size - done).min(buffer.len());
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        let n = read_at(fd, &mut [std::io::IoSliceMut::new(&mut buffer[..piece])], at)?;
        if n == 0 {
            break;
        }
        let taken = sink.write_slice(&buffer[..n])?;
        done += taken;
        if taken < n {
            break;
        }
    }
    Ok(done)
}

fn bounce_write(
    fd: BorrowedFd<'_>,
    offset: u64,
    size: usize,
    append: bool,
    source: &mut dyn WriteSource,
) -> Result<usize> {
    let size = size.min(source.remaining());
    let mut buffer = vec![0; size.min(BOUNCE)];
    let mut done = 0;
    while done < size {
        let piece = (size - done).min(buffer.len());
        let n = source.read_slice(&mut buffer[..piece])?;
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let wrote = if append {
                file::append(fd, rest)
            } else {
                let at = offset.checked_add(done as u64).ok_or(Errno::EFBIG)?;
                write_at(fd, &[std::io::IoSlice::new(rest)], at)
            };
            let wrote = match wrote {
                Ok(wrote) => wrote,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(too_big(error)),
            };
            if wrote == 0 {
                return Ok(done);
            }
            done += wrote;
            rest = &rest[wrote..];
        }
        if n < piece {
            break;
        }
    }
    Ok(done)
}

/// An offset that no file has is EINVAL of pwrite(2), and EFBIG of a filesystem.
fn too_big(error: std::io::Error) -> Errno {
    match Errno::from(error) {
        Errno::EINVAL => Errno::EFBIG,
        errno => errno,
    }
}
