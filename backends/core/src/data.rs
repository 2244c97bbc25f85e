//! File data on its way between a client and a filesystem, without a bounce.
//!
//! A `read` fills a [`ReadSink`], a `write` drains a [`WriteSource`]. Where the data lies in a file
//! on the host the descriptor form moves it straight (over virtio-fs: preadv2 and pwritev2 on guest
//! memory); where it lies in memory the slice form does. No lock is held while a sink or a source
//! runs, so that a copy between two filesystems may nest one's `read` into the other's `write`.

use std::fmt;
use std::os::fd::BorrowedFd;

use bitflags::bitflags;

use crate::{Errno, Result};

bitflags! {
    /// How a write is meant.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WriteFlags: u32 {
        /// The file is open with O_APPEND: the data goes to the end, wherever `offset` points.
        /// Under a writeback cache the client drops O_APPEND and places the data itself.
        const APPEND = 1 << 0;
        /// The data must be durable before the answer (O_SYNC, O_DSYNC).
        const SYNC = 1 << 1;
        /// The data comes from the client's page cache: the handle is a guess, and neither
        /// append nor kill-priv apply.
        const CACHE = 1 << 2;
        /// Clear setuid, setgid and file capabilities.
        const KILL_PRIV = 1 << 3;
    }
}

/// Where the data of a `read` goes, in order.
///
/// Each call appends what it is given. Short counts happen only at the sink's end.
pub trait ReadSink {
    /// How many bytes still fit.
    fn remaining(&self) -> usize;

    /// Appends `data`, or as much of it as fits, and says how much that was.
    ///
    /// # Errors
    /// `EFAULT` where the destination turned out to be unusable.
    fn write_slice(&mut self, data: &[u8]) -> Result<usize>;

    /// Appends up to `len` bytes of `fd` from `offset`, and says how many; fewer at the end of
    /// the file.
    ///
    /// # Errors
    /// What preadv2(2) answers.
    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize>;

    /// Appends `len` zeros, or as many as fit, and says how many.
    ///
    /// # Errors
    /// As [`ReadSink::write_slice`].
    fn write_zeros(&mut self, len: usize) -> Result<usize>;
}

/// Where the data of a `write` comes from, in order.
///
/// Each call takes what follows the last. Short counts happen only at the source's end.
pub trait WriteSource {
    /// How many bytes are left.
    fn remaining(&self) -> usize;

    /// Moves bytes into `buf`, and says how many.
    ///
    /// # Errors
    /// `EFAULT` where the origin turned out to be unreadable.
    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// Moves up to `len` bytes into `fd` at `offset`, and says how many. With `append` the file's
    /// end is where they go (RWF_APPEND).
    ///
    /// # Errors
    /// What pwritev2(2) answers.
    fn read_to_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        append: bool,
    ) -> Result<usize>;
}

/// A sink over a slice, for callers in memory.
///
/// The descriptor form answers `EOPNOTSUPP`, for this crate makes no system call;
/// `stratafs-sys` has buffers with both forms.
pub struct SliceSink<'a> {
    buf: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceSink<'a> {
    /// An empty sink that fills `buf` from its start.
    #[must_use]
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, filled: 0 }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    fn next(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.remaining());
        let start = self.filled;
        self.filled += len;
        &mut self.buf[start..start + len]
    }
}

impl ReadSink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.filled
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        let place = self.next(data.len());
        place.copy_from_slice(&data[..place.len()]);
        Ok(place.len())
    }

    fn write_from_fd(&mut self, _: BorrowedFd<'_>, _: u64, _: usize) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }

    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let place = self.next(len);
        place.fill(0);
        Ok(place.len())
    }
}

impl fmt::Debug for SliceSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SliceSink({} of {})", self.filled, self.buf.len())
    }
}

/// A source over a slice, for callers in memory; see [`SliceSink`] for its descriptor form.
pub struct SliceSource<'a> {
    rest: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// A source that gives `data` from its start.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl WriteSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.rest.len());
        let (now, later) = self.rest.split_at(len);
        buf[..len].copy_from_slice(now);
        self.rest = later;
        Ok(len)
    }

    fn read_to_fd(&mut self, _: BorrowedFd<'_>, _: u64, _: usize, _: bool) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }
}

impl fmt::Debug for SliceSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SliceSource({} left)", self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_sink_takes_what_fits_and_no_more() {
        let mut buf = [9; 6];
        let mut sink = SliceSink::new(&mut buf);
        assert_eq!(sink.write_slice(b"ab"), Ok(2));
        assert_eq!(sink.write_zeros(2), Ok(2));
        assert_eq!(sink.write_slice(b"cdef"), Ok(2));
        assert_eq!(sink.write_zeros(1), Ok(0));
        assert_eq!((sink.filled(), sink.remaining()), (6, 0));
        assert_eq!(&buf, b"ab\0\0cd");
    }

    #[test]
    fn slice_source_gives_its_bytes_once() {
        let mut source = SliceSource::new(b"abc");
        let mut buf = [0; 2];
        assert_eq!(source.read_slice(&mut buf), Ok(2));
        assert_eq!(&buf, b"ab");
        assert_eq!(source.read_slice(&mut buf), Ok(1));
        assert_eq!((buf[0], source.remaining()), (b'c', 0));
    }
}
