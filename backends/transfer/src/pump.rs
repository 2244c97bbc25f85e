//! One filesystem's `read` nested into another's `write`.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use stratafs_core::{Context, Errno, ReadSink, Result, SliceSource, WriteFlags, WriteSource};
use stratafs_sys::io::{At, copy_range, read_at};

use crate::data::Open;

/// Bytes that go through memory at a time where two host files can't be copied by the kernel.
const BOUNCE: usize = 128 * 1024;

/// A sink that writes what it gets into an open file.
pub(crate) struct Pump<'a> {
    cx: &'a Context<'a>,
    to: Open<'a>,
    start: u64,
    offset: u64,
    room: usize,
    /// What the write answered: the reader may call it something else.
    failed: Option<Errno>,
}

impl<'a> Pump<'a> {
    /// A sink that fills `to` from `offset`, with `len` bytes at the most.
    pub(crate) fn new(cx: &'a Context<'a>, to: Open<'a>, offset: u64, len: usize) -> Self {
        Self { cx, to, start: offset, offset, room: len, failed: None }
    }

    /// How many bytes came through a read that answered `read`.
    pub(crate) fn outcome(&self, read: Result<usize>) -> Result<u64> {
        match (self.failed, read) {
            (Some(errno), _) | (None, Err(errno)) => Err(errno),
            (None, Ok(_)) => Ok(self.offset - self.start),
        }
    }

    fn write(&mut self, source: &mut dyn WriteSource, len: usize) -> Result<usize> {
        let Open { fs, node, handle } = self.to;
        let flags = WriteFlags::empty();
        let written = fs.write(self.cx, node, handle, self.offset, len, flags, source);
        match written {
            Ok(0) => self.fail(Errno::EIO),
            Ok(written) => {
                self.advance(written);
                Ok(written)
            }
            Err(errno) => self.fail(errno),
        }
    }

    fn fail(&mut self, errno: Errno) -> Result<usize> {
        self.failed = Some(errno);
        Err(errno)
    }

    fn advance(&mut self, len: usize) {
        self.offset += len as u64;
        self.room = self.room.saturating_sub(len);
    }
}

impl ReadSink for Pump<'_> {
    fn remaining(&self) -> usize {
        self.room
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        let data = data.get(..data.len().min(self.room)).unwrap_or_default();
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            done += self.write(&mut SliceSource::new(rest), rest.len())?;
        }
        Ok(done)
    }

    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize> {
        let len = len.min(self.room);
        let mut source = FileSource { fd, offset, left: len, end: false };
        let mut done = 0;
        while done < len && !source.end {
            let before = source.left;
            match self.write(&mut source, before) {
                Ok(written) => done += written,
                Err(_) if source.end => {
                    // Nothing is left of the source: the write had nothing to take.
                    self.failed = None;
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// The target is new, so what is not written reads as zeros.
    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let len = len.min(self.room);
        self.advance(len);
        Ok(len)
    }
}

/// A part of a host file, to be written somewhere.
struct FileSource<'fd> {
    fd: BorrowedFd<'fd>,
    offset: u64,
    left: usize,
    /// The file ended before the part did.
    end: bool,
}

impl FileSource<'_> {
    fn took(&mut self, n: usize) {
        self.offset += n as u64;
        self.left = self.left.saturating_sub(n);
        self.end |= n == 0;
    }
}

impl WriteSource for FileSource<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.left);
        let Some(buf) = buf.get_mut(..len).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        let n = read_at(self.fd, &mut [IoSliceMut::new(buf)], self.offset)?;
        self.took(n);
        Ok(n)
    }

    fn read_to_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        append: bool,
    ) -> Result<usize> {
        let len = len.min(self.left);
        if !append {
            let from = At { file: self.fd, position: self.offset };
            match copy_range(from, At { file: fd, position: offset }, len) {
                Ok(n) => {
                    self.took(n);
                    return Ok(n);
                }
                Err(error) => match Errno::from(error) {
                    // Two filesystems that can't do it between them.
                    Errno::EXDEV | Errno::EOPNOTSUPP | Errno::EINVAL => {}
                    errno => return Err(errno),
                },
            }
        }
        let mut bounce = vec![0; len.min(BOUNCE)];
        let n = read_at(self.fd, &mut [IoSliceMut::new(&mut bounce)], self.offset)?;
        let mut source = stratafs_sys::buffer::BufferSource::new(bounce.get(..n).unwrap_or(&[]));
        let written = source.read_to_fd(fd, offset, n, append)?;
        self.took(written);
        Ok(written)
    }
}
