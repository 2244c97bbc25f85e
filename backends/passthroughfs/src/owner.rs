//! Who owns an object, and what it is: the host's word, or the record's.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use stratafs_core::attr::{S_IFMT, S_ISGID, S_ISUID, S_IXGRP};
use stratafs_core::{Attr, Errno, FileType, Result, Timestamp};
use stratafs_sys::proc::Proc;
use stratafs_sys::stat::{self, Stat};

use crate::PassthroughFs;
use crate::builder::Ownership;
use crate::node::{CachedRecord, Node};
use crate::record::{MAX_LEN, RECORD, Record};

/// File capabilities, as the kernel names them.
pub(crate) const CAPABILITY: &CStr = c"security.capability";

/// How old a change must be before a second one is sure to show in ctime: the coarsest clock of
/// a kernel ticks a hundred times a second.
const TICK: Duration = Duration::from_millis(20);

/// How long a file that was seen without privileges is taken to be so when it is written to, unless
/// this filesystem itself gives it some.
const UNPRIVILEGED: Duration = Duration::from_secs(1);

/// How many corrupt records are remembered so as not to be logged again.
const MAX_LOGGED: usize = 1024;

/// The objects whose corrupt record was logged. Its lock is a leaf.
#[derive(Default)]
pub(crate) struct Logged(Mutex<HashSet<(u64, u64)>>);

impl Logged {
    fn corrupt(&self, stat: &Stat, text: &[u8]) {
        let fresh = {
            let mut logged = self.0.lock();
            logged.len() < MAX_LOGGED && logged.insert((stat.dev, stat.ino))
        };
        if fresh {
            log::error!(
                "passthrough: read {} of inode {} on device {}:{}: \"{}\" is no ownership record: EIO \
                 until it is repaired or removed with setfattr; find -inum {} finds the file",
                RECORD.to_string_lossy(),
                stat.ino,
                stat.dev >> 32,
                stat.dev & 0xffff_ffff,
                text.escape_ascii(),
                stat.ino
            );
        }
    }
}

/// Reads an extended attribute of an O_PATH or another descriptor.
pub(crate) fn xattr(
    proc: &Proc,
    fd: BorrowedFd<'_>,
    name: &CStr,
    value: &mut [u8],
) -> Result<Option<usize>> {
    match proc.xattr(fd, name, value) {
        Ok(len) => Ok(Some(len)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENODATA) => Ok(None),
            _ => Err(error.into()),
        },
    }
}

/// The privileges that a write, a truncate or a chown clears from `mode`.
pub(crate) fn without_privileges(mode: u32) -> u32 {
    let sgid = if mode & S_IXGRP == 0 { 0 } else { S_ISGID };
    mode & !(S_ISUID | sgid)
}

/// The type that the host has.
pub(crate) fn host_kind(stat: &Stat) -> FileType {
    FileType::from_mode(stat.mode).unwrap_or(FileType::Regular)
}

/// The kernel's 32-bit device number.
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// Major and minor number of the kernel's 32-bit device number.
pub(crate) fn decode_device(device: u32) -> (u32, u32) {
    ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

impl PassthroughFs {
    pub(crate) fn is_virtual(&self) -> bool {
        self.options.ownership == Ownership::Virtual
    }

    /// Whether an object of the host may have a record: user attributes are for files and
    /// directories alone.
    fn may_have_record(&self, host: FileType) -> bool {
        self.is_virtual() && matches!(host, FileType::Regular | FileType::Directory)
    }

    /// Reads the record of what `fd` holds.
    ///
    /// # Errors
    /// `EIO`: it is corrupt, or does not fit the object.
    pub(crate) fn read_record(&self, fd: BorrowedFd<'_>, stat: &Stat) -> Result<Option<Record>> {
        let host = host_kind(stat);
        if !self.may_have_record(host) {
            return Ok(None);
        }
        let mut text = [0; MAX_LEN];
        let len = match xattr(&self.proc, fd, RECORD, &mut text) {
            Ok(Some(len)) => len,
            // No attributes at all: only a read-only share is built on such a filesystem.
            Ok(None) | Err(Errno::EOPNOTSUPP) => return Ok(None),
            Err(Errno::ERANGE) => {
                self.logged.corrupt(stat, b"(too long)");
                return Err(Errno::EIO);
            }
            Err(errno) => return Err(errno),
        };
        self.understand(&text[..len], stat).map(Some)
    }

    /// Reads the text of a record of the object that `stat` describes.
    pub(crate) fn understand(&self, text: &[u8], stat: &Stat) -> Result<Record> {
        let fits = |record: &Record| match host_kind(stat) {
            FileType::Directory => matches!(record.kind, None | Some(FileType::Directory)),
            _ => record.kind != Some(FileType::Directory),
        };
        match Record::parse(text) {
            Ok(record) if fits(&record) => Ok(record),
            _ => {
                self.logged.corrupt(stat, text);
                Err(Errno::EIO)
            }
        }
    }

    /// The attributes that the client sees of an object of the host.
    pub(crate) fn shape(&self, stat: &Stat, record: Option<&Record>) -> Attr {
        let mut attr = Attr::new(self.devices.ino(stat.dev, stat.ino), stat.mode);
        attr.nlink = stat.nlink;
        attr.rdev = encode_device(stat.rdev);
        attr.size = stat.size;
        attr.blocks = stat.blocks;
        attr.blksize = stat.blksize;
        attr.atime = stat.atime;
        attr.mtime = stat.mtime;
        attr.ctime = stat.ctime;
        attr.btime = stat.btime;
        let Some(record) = record else {
            (attr.uid, attr.gid) = self.shown_owner(stat);
            return attr;
        };
        (attr.uid, attr.gid) = (record.uid, record.gid);
        let kind = record.kind.unwrap_or_else(|| host_kind(stat));
        attr.mode = kind.mode_bits() | record.mode;
        match kind {
            FileType::Regular | FileType::Directory | FileType::Symlink => {}
            FileType::CharDevice | FileType::BlockDevice => {
                attr.rdev = encode_device(record.device);
                attr.size = 0;
            }
            FileType::Fifo | FileType::Socket => attr.size = 0,
        }
        attr
    }

    /// [`shape`](Self::shape) of the object of `node`.
    fn shape_of(&self, node: &Node, stat: &Stat, record: Option<&Record>) -> Attr {
        let mut attr = self.shape(stat, record);
        attr.ino = self.devices.ino(node.dev, node.ino);
        node.set_size(Some(attr.size));
        attr
    }

    /// The owner of an object without a record.
    pub(crate) fn shown_owner(&self, stat: &Stat) -> (u32, u32) {
        match self.options.default_owner {
            Some(owner) if self.options.ownership != Ownership::Host => owner,
            _ => (self.options.uid_map.to_guest(stat.uid), self.options.gid_map.to_guest(stat.gid)),
        }
    }

    /// The attributes of the object of `node`, which `stat` describes: with one more system call
    /// where its record must be read.
    pub(crate) fn attr(&self, node: &Arc<Node>, stat: &Stat) -> Result<Attr> {
        if !self.may_have_record(node.host()) {
            return Ok(self.shape_of(node, stat, None));
        }
        let cached = node.state.lock().record;
        if let Some(cached) = cached
            && (self.options.exclusive || (cached.settled && cached.ctime == stat.ctime))
        {
            return Ok(self.shape_of(node, stat, cached.record.as_ref()));
        }
        // What is read must be the record of this very object.
        let fd = self.pin(node)?;
        self.attr_by(node, fd.as_fd())
    }

    /// The attributes of the object of `node`, which `fd` holds, its record read afresh.
    pub(crate) fn attr_by(&self, node: &Node, fd: BorrowedFd<'_>) -> Result<Attr> {
        let stat = stat::of(fd)?;
        let record = self.read_record(fd, &stat)?;
        self.remember(node, &stat, record, false);
        let attr = self.shape_of(node, &stat, record.as_ref());
        if attr.kind() == node.kind { Ok(attr) } else { Err(Errno::ESTALE) }
    }

    /// Keeps the record of an object that `stat` describes. What this filesystem wrote itself is
    /// settled at once.
    pub(crate) fn remember(&self, node: &Node, stat: &Stat, record: Option<Record>, own: bool) {
        if self.may_have_record(node.host()) {
            let settled = own || is_past(stat.ctime);
            node.cache_record(CachedRecord { ctime: stat.ctime, record, settled });
        }
    }

    /// Changes the record of what `fd` holds, made from what is shown of it where there is none.
    /// Two changes of one object never lose one another: the node's `update` lock is held meanwhile.
    /// Gives what the host says of the object then.
    pub(crate) fn update_record(
        &self,
        node: &Node,
        fd: BorrowedFd<'_>,
        change: impl FnOnce(&mut Record),
    ) -> Result<Stat> {
        let _updating = node.update.lock();
        let stat = stat::of(fd)?;
        let cached = node.state.lock().record;
        let before = match cached {
            Some(cached) if cached.settled && cached.ctime == stat.ctime => cached.record,
            _ => self.read_record(fd, &stat)?,
        };
        let mut record = before.unwrap_or_else(|| self.implied_record(&stat));
        let kept = record;
        change(&mut record);
        if before.is_some() && record == kept {
            self.touch(fd)?;
            return Ok(stat::of(fd)?);
        }
        self.proc.set_xattr(fd, RECORD, record.text().as_bytes(), 0)?;
        if node.host() == FileType::Regular && stat.mode & (S_ISUID | S_ISGID) != 0 {
            // What the host made so is plain from now on; the record alone has such bits.
            self.proc.set_mode(fd, stat.mode & 0o777)?;
        }
        let now = stat::of(fd)?;
        self.remember(node, &now, Some(record), true);
        node.state.lock().changed();
        Ok(now)
    }

    /// The record that would show an object without one as it is shown.
    fn implied_record(&self, stat: &Stat) -> Record {
        let (uid, gid) = self.shown_owner(stat);
        Record { uid, gid, mode: stat.mode & 0o7777, kind: None, device: (0, 0) }
    }

    /// Sets ctime, as a chmod to the same mode does.
    fn touch(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let mode = stat::of(fd)?.mode & 0o7777;
        Ok(self.proc.set_mode(fd, mode)?)
    }

    /// Clears setuid, setgid and capabilities of the object of `node`, which `fd` holds.
    pub(crate) fn kill_priv(&self, node: &Node, fd: BorrowedFd<'_>) -> Result<()> {
        if node.host() != FileType::Regular {
            return Ok(());
        }
        let (seen, changes) = node.unprivileged();
        if seen.is_some_and(|seen| self.is_fresh(seen)) {
            return Ok(());
        }
        let stat = stat::of(fd)?;
        let record = self.read_record(fd, &stat)?;
        let mode = record.map_or(stat.mode, |record| record.mode) & 0o7777;
        let privileged = without_privileges(mode) != mode;
        if privileged && self.is_virtual() {
            self.update_record(node, fd, |record| record.mode = without_privileges(record.mode))?;
        } else if privileged {
            self.as_far_as_needed(self.proc.set_mode(fd, without_privileges(mode)))?;
        }
        self.drop_capabilities(fd)?;
        if !privileged {
            node.keep_unprivileged(changes);
        }
        Ok(())
    }

    /// Whether a file that was `seen` without privileges is taken to be so still.
    pub(crate) fn is_fresh(&self, seen: Instant) -> bool {
        self.options.exclusive || seen.elapsed() < UNPRIVILEGED
    }

    pub(crate) fn drop_capabilities(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let Some(name) = self.host_xattr(CAPABILITY.to_bytes()) else { return Ok(()) };
        if !matches!(xattr(&self.proc, fd, &name, &mut []), Ok(Some(_))) {
            return Ok(());
        }
        match self.proc.remove_xattr(fd, &name) {
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
            answer => self.as_far_as_needed(answer),
        }
    }

    /// Where this server has no privilege over a file, the host clears its privileges by itself.
    fn as_far_as_needed(&self, cleared: std::io::Result<()>) -> Result<()> {
        match cleared.map_err(Errno::from) {
            Err(Errno::EPERM) if !self.is_virtual() && self.server.0 != 0 => Ok(()),
            answer => answer,
        }
    }

    /// Makes a file or directory of the server's own usable to it, whatever mode the host gave it;
    /// the mode is kept in a record first. Says whether that could be done.
    pub(crate) fn make_workable(&self, node: &Node, fd: &OwnedFd) -> bool {
        let Ok(stat) = stat::of(fd.as_fd()) else { return false };
        if !self.is_virtual() || self.options.readonly || stat.uid != self.server.0 {
            return false;
        }
        let needed = if node.is_dir() { 0o700 } else { 0o600 };
        if stat.mode & needed == needed || !self.may_have_record(node.host()) {
            return false;
        }
        // Attributes of a file that its owner may not write can't be set either.
        let open_up = || self.proc.set_mode(fd.as_fd(), (stat.mode & 0o777) | needed);
        let _updating = node.update.lock();
        let Ok(before) = self.read_record(fd.as_fd(), &stat) else { return false };
        if open_up().is_err() {
            return false;
        }
        let Some(record) = before.is_none().then(|| self.implied_record(&stat)) else {
            return true;
        };
        if self.proc.set_xattr(fd.as_fd(), RECORD, record.text().as_bytes(), 0).is_err() {
            let _ = self.proc.set_mode(fd.as_fd(), stat.mode & 0o7777);
            return false;
        }
        true
    }

    /// Runs `call` on entries of the directory `node`, which `dir` holds, and once more where the
    /// host's mode was in the way and could be mended.
    pub(crate) fn workable<T>(
        &self,
        node: &Node,
        dir: &OwnedFd,
        mut call: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        match call() {
            Err(Errno::EACCES) if self.make_workable(node, dir) => call(),
            answer => answer,
        }
    }

    /// The type bits of `mode`, or those of a regular file.
    pub(crate) fn type_of(mode: u32) -> Result<FileType> {
        if mode & S_IFMT == 0 {
            return Ok(FileType::Regular);
        }
        FileType::from_mode(mode).ok_or(Errno::EINVAL)
    }
}

/// Whether a change after `time` is sure to have another time.
fn is_past(time: Timestamp) -> bool {
    let now = SystemTime::now();
    now.checked_sub(TICK).is_some_and(|then| time < Timestamp::from(then))
}
