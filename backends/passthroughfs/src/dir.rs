//! Listing directories.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Added, DirEntry, DirSink, Errno, FileType, HandleId, Name, NodeId, Opened, OpenedFlags, Result,
};
use stratafs_sys::dirent::{self, Dirent};
use stratafs_sys::{file, openat, stat, xattr};

use crate::PassthroughFs;
use crate::handles::{Handle, Kind};
use crate::node::Node;
use crate::record::{MAX_LEN, RECORD, Record};

/// How much of a directory is read at a time: what glibc's readdir(3) takes too.
const BUFFER: usize = 32 * 1024;

/// The cookie that stands behind `.` and `..`. Positions of the host follow it, moved up by as much.
const AFTER_DOTS: u64 = 2;

/// The highest positions, which mean the end where they mean anything, are cookies as they are.
const HIGH: u64 = i64::MAX as u64 - AFTER_DOTS;

/// The cookie of the host's position `position`.
fn cookie(position: u64) -> u64 {
    if position > HIGH { position } else { position + AFTER_DOTS }
}

/// The host's position that the cookie `cookie` stands for.
fn position(cookie: u64) -> u64 {
    if cookie > HIGH { cookie } else { cookie.saturating_sub(AFTER_DOTS) }
}

/// A listing on its way: an open directory with a position, and what was read from it.
pub(crate) struct Stream {
    fd: Arc<OwnedFd>,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// The host's position of what is at `at`.
    position: u64,
    /// Nothing was read from it yet.
    fresh: bool,
}

impl Stream {
    /// The stream of `fd`, at its start if it is `fresh`.
    fn new(fd: Arc<OwnedFd>, fresh: bool) -> Self {
        Self { fd, buffer: vec![0; BUFFER].into(), at: 0, end: 0, position: 0, fresh }
    }

    /// Goes to `position`; to the start always afresh.
    fn go_to(&mut self, position: u64) -> Result<()> {
        let rewind = position == 0 && !self.fresh;
        if rewind || position != self.position {
            file::seek(self.fd.as_fd(), position)?;
            (self.at, self.end, self.position) = (0, 0, position);
        }
        Ok(())
    }

    /// The next entry; it stays the next one until [`pass`](Self::pass).
    fn peek(&mut self) -> Result<Option<(Dirent<'_>, usize)>> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.fresh = false;
            self.end = match dirent::read(self.fd.as_fd(), &mut self.buffer) {
                Ok(len) => len,
                // A directory that was removed has no entries.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => 0,
                Err(error) => return Err(error.into()),
            };
            if self.end == 0 {
                return Ok(None);
            }
        }
        let bytes = self.buffer.get(self.at..self.end).unwrap_or_default();
        dirent::first(bytes).map(Some).ok_or(Errno::EIO)
    }

    fn pass(&mut self, len: usize, next: u64) {
        self.at += len;
        self.position = next;
    }
}

/// The stream of a directory handle, while no call uses it.
pub(crate) enum Resting {
    /// Nothing was read yet.
    Fresh,
    /// A listing came to its end.
    Ended,
    At(Box<Stream>),
}

/// What a listing is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    Names,
    /// Each object is looked up.
    Plus,
}

impl PassthroughFs {
    pub(crate) fn open_dir(&self, node: NodeId) -> Result<Opened> {
        let node = self.dir_node(node)?;
        let flags = self.options.cache.dir_flags();
        let room = self.handles.room()?;
        let fd = if self.is_single(&node) {
            self.pin(&node)?
        } else {
            Arc::new(self.reopen_dir(&node)?)
        };
        let kind = Kind::Dir { stream: Mutex::new(Some(Resting::Fresh)) };
        let id = self.handles.add(room, Handle { node, fd, kind });
        Ok(Opened::new(id, flags & (OpenedFlags::KEEP_CACHE | OpenedFlags::CACHE_DIR)))
    }

    fn reopen_dir(&self, node: &Arc<Node>) -> Result<OwnedFd> {
        let pin = self.pin(node)?;
        self.reopen(node, &pin, libc::O_RDONLY | libc::O_DIRECTORY)
    }

    pub(crate) fn close_dir(&self, node: NodeId, handle: HandleId) -> Result<()> {
        if handle == HandleId::NONE {
            return Ok(());
        }
        let handle = self.handles.remove(handle, node, true)?;
        let node = Arc::clone(&handle.node);
        drop(handle);
        node.uses.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        self.table.reap(&node, &self.pins);
        Ok(())
    }

    pub(crate) fn sync_dir(&self, node: NodeId, handle: HandleId, datasync: bool) -> Result<()> {
        let sync = if datasync { file::sync_data } else { file::sync };
        let known = self.dir_node(node)?;
        if self.is_single(&known) {
            return Ok(());
        }
        if handle == HandleId::NONE {
            let fd = self.reopen_dir(&known)?;
            return Ok(sync(fd.as_fd())?);
        }
        let handle = self.handles.get(handle, node)?;
        if !handle.is_dir() {
            return Err(Errno::EBADF);
        }
        Ok(sync(handle.fd.as_fd())?)
    }

    pub(crate) fn list(
        &self,
        id: NodeId,
        handle: HandleId,
        cookie: u64,
        listing: Listing,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        if self.only.is_some() && id == NodeId::ROOT {
            return self.list_single(cookie, listing, sink);
        }
        if handle == HandleId::NONE {
            let node = self.dir_node(id)?;
            let mut stream = Stream::new(Arc::new(self.reopen_dir(&node)?), true);
            return self.offer(&node, &mut stream, cookie, listing, sink).map(drop);
        }
        let handle = self.handles.get(handle, id)?;
        let Kind::Dir { stream: slot } = &handle.kind else { return Err(Errno::ENOTDIR) };
        // Taken out, for no lock is held while the sink runs. Who comes at the same time lists
        // through a descriptor of his own, since a position can't be shared.
        let taken = slot.lock().take();
        let Some(resting) = taken else {
            let own = self.with_room(|| openat::reopen_dir(handle.fd.as_fd()))?;
            let mut stream = Stream::new(Arc::new(own), true);
            return self.offer(&handle.node, &mut stream, cookie, listing, sink).map(drop);
        };
        let mut stream = match resting {
            Resting::Fresh => Box::new(Stream::new(Arc::clone(&handle.fd), true)),
            Resting::Ended => Box::new(Stream::new(Arc::clone(&handle.fd), false)),
            Resting::At(stream) => stream,
        };
        let outcome = self.offer(&handle.node, &mut stream, cookie, listing, sink);
        // At its end a listing needs no buffer any more.
        let ended = !matches!(outcome, Ok(false));
        *slot.lock() = Some(if ended { Resting::Ended } else { Resting::At(stream) });
        outcome.map(drop)
    }

    /// Offers what follows `cookie`, and says whether the end was reached.
    fn offer(
        &self,
        node: &Arc<Node>,
        stream: &mut Stream,
        cookie: u64,
        listing: Listing,
        sink: &mut dyn DirSink,
    ) -> Result<bool> {
        if self.add_dots(node, cookie, sink) == Added::Full {
            return Ok(false);
        }
        let mut taken = cookie < AFTER_DOTS;
        let dir = Arc::clone(&stream.fd);
        let mut start = Some(position(cookie));
        loop {
            let next = match start.take() {
                Some(position) => stream.go_to(position).and_then(|()| stream.peek()),
                None => stream.peek(),
            };
            let (entry, len) = match next {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(true),
                // The next call meets it again; what was taken counts.
                Err(_) if taken => return Ok(false),
                Err(errno) => return Err(errno),
            };
            let next = entry.next;
            let added = match entry.name {
                b"." | b".." => Added::Taken,
                _ => self.add_entry(node, &dir, &entry, listing, sink),
            };
            match added {
                Added::Full => return Ok(false),
                Added::Taken => stream.pass(len, next),
            }
            taken = true;
        }
    }

    /// Offers `.` and `..`, as far as they follow `cookie`. Where the host lists them, among the
    /// others, they are passed over.
    fn add_dots(&self, node: &Arc<Node>, cookie: u64, sink: &mut dyn DirSink) -> Added {
        if cookie >= AFTER_DOTS {
            return Added::Taken;
        }
        let own = self.devices.ino(node.dev, node.identity().ino);
        if cookie == 0 && sink.add(&DirEntry::dot(own, 1), None) == Added::Full {
            return Added::Full;
        }
        // What is above the share is nobody's business.
        let above = node
            .last_place()
            .map(|(parent, _)| self.devices.ino(parent.dev, parent.identity().ino));
        sink.add(&DirEntry::dotdot(above.unwrap_or(own), AFTER_DOTS), None)
    }

    /// The root of the share of a single file, where the host's directory is not looked at.
    fn list_single(&self, cookie: u64, listing: Listing, sink: &mut dyn DirSink) -> Result<()> {
        let root = &self.root;
        let dir = self.pin(root)?;
        let own = self.devices.ino(root.dev, root.identity().ino);
        let Some(only) = &self.only else { return Ok(()) };
        for at in cookie..3 {
            let added = match at {
                0 => sink.add(&DirEntry::dot(own, 1), None),
                1 => sink.add(&DirEntry::dotdot(own, 2), None),
                _ => match stat::of_child(dir.as_fd(), only.as_name()) {
                    Ok(stat) => {
                        let kind = (stat.mode >> 12) as u8;
                        let name = only.as_bytes();
                        let entry = Dirent { ino: stat.ino, next: 1, kind, name };
                        self.add_entry(root, &dir, &entry, listing, sink)
                    }
                    Err(_) => Added::Taken,
                },
            };
            if added == Added::Full {
                break;
            }
        }
        Ok(())
    }

    fn add_entry(
        &self,
        node: &Arc<Node>,
        dir: &OwnedFd,
        entry: &Dirent<'_>,
        listing: Listing,
        sink: &mut dyn DirSink,
    ) -> Added {
        // Not a name: no Linux filesystem lists such an entry.
        let Ok(name) = Name::new(entry.name) else { return Added::Taken };
        if self.is_hidden(node, name) {
            return Added::Taken;
        }
        let ino = self.devices.ino(node.dev, entry.ino);
        if listing == Listing::Plus {
            if !sink.fits(name.len()) {
                return Added::Full;
            }
            if let Ok((child, attr)) = self.find(node, dir, name) {
                let found = DirEntry::new(attr.ino, attr.kind(), name, cookie(entry.next));
                let plus = self.entry(&child, attr);
                let added = sink.add(&found, Some(&plus));
                if added == Added::Full {
                    self.forget_node(&child, 1);
                }
                return added;
            }
        }
        let kind = self.listed_kind(dir, name, entry.kind);
        let ino = match kind {
            FileType::Symlink if entry.kind == libc::DT_REG => {
                self.known_ino(dir, name).unwrap_or(ino)
            }
            _ => ino,
        };
        sink.add(&DirEntry::new(ino, kind, name, cookie(entry.next)), None)
    }

    /// The inode number that a client sees of `name` in `dir`, if it knows it.
    fn known_ino(&self, dir: &OwnedFd, name: Name<'_>) -> Option<u64> {
        let node = self.known_child(dir, name).ok().flatten()?;
        Some(self.devices.ino(node.dev, node.ino))
    }

    /// The type of a listed entry. What is a file to the host may be something else by its record,
    /// which programs that trust a listing must be told: one system call, and no node.
    fn listed_kind(&self, dir: &OwnedFd, name: Name<'_>, kind: u8) -> FileType {
        let listed = match FileType::from_mode(u32::from(kind) << 12) {
            Some(listed) => listed,
            None => stat::of_child(dir.as_fd(), name)
                .ok()
                .and_then(|stat| FileType::from_mode(stat.mode))
                .unwrap_or(FileType::Regular),
        };
        if listed != FileType::Regular || !self.is_virtual() {
            return listed;
        }
        let mut text = [0; MAX_LEN];
        let len = match xattr::get_of_child(dir.as_fd(), name, RECORD, &mut text) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                match openat::pin_child(dir.as_fd(), name) {
                    Ok(fd) => self.proc.xattr(fd.as_fd(), RECORD, &mut text),
                    Err(error) => Err(error),
                }
            }
            answer => answer,
        };
        let record = len.ok().and_then(|len| Record::parse(&text[..len]).ok());
        record.and_then(|record| record.kind).unwrap_or(listed)
    }
}
