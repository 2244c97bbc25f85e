//! File data between a buffer in memory and a descriptor: [`ReadSink`] and [`WriteSource`] with
//! both forms.

use crate::check;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use stratafs_core::{Errno, ReadSink, Result, WriteSource};

/// A [`ReadSink`] that fills a buffer.
pub struct BufferSink<'a> {
    buffer: &'a mut [u8],
    /// Bytes before the data, kept for a header.
    head: usize,
    /// Where the data ends.
    end: usize,
}

impl<'a> BufferSink<'a> {
    /// An empty sink that fills `buffer` from its start.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self::behind(buffer, 0)
    }

    /// An empty sink that fills `buffer` from byte `head` on.
    #[must_use]
    pub fn behind(buffer: &'a mut [u8], head: usize) -> Self {
        Self { buffer, head, end: head }
    }

    /// What was written so far.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.buffer.get(self.head..self.end).unwrap_or_default()
    }

    /// `header` and what was written behind it, in one piece.
    ///
    /// Empty unless the header is as long as the room that was kept for it.
    #[must_use]
    pub fn with_header(&mut self, header: &[u8]) -> &[u8] {
        let Some(whole) = self.buffer.get_mut(..self.end) else { return &[] };
        match whole.get_mut(..self.head) {
            Some(room) if room.len() == header.len() => room.copy_from_slice(header),
            _ => return &[],
        }
        whole
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.end = self.head;
    }

    /// The room that is left, at most `len` of it.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let rest = self.buffer.get_mut(self.end..).unwrap_or_default();
        let len = len.min(rest.len());
        rest.get_mut(..len).unwrap_or_default()
    }
}

impl ReadSink for BufferSink<'_> {
    fn remaining(&self) -> usize {
        self.buffer.len().saturating_sub(self.end)
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        let room = self.room(data.len());
        let len = room.len();
        room.copy_from_slice(data.get(..len).unwrap_or_default());
        self.end += len;
        Ok(len)
    }

    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize> {
        let offset = file_offset(offset)?;
        let mut done = 0;
        // A read may be short before the end of the file; only 0 means the end.
        while done < len {
            let position = offset.checked_add_unsigned(done as u64).ok_or(Errno::EOVERFLOW)?;
            let room = self.room(len - done);
            if room.is_empty() {
                break;
            }
            // SAFETY: the pointer and length describe `room`, which lives through the call.
            let n = check(unsafe {
                libc::pread64(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), position)
            });
            match n {
                Ok(0) => break,
                Ok(n) => {
                    self.end += n.cast_unsigned();
                    done += n.cast_unsigned();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(done)
    }

    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let room = self.room(len);
        room.fill(0);
        let len = room.len();
        self.end += len;
        Ok(len)
    }
}

impl fmt::Debug for BufferSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferSink({} of {})", self.end, self.buffer.len())
    }
}

/// A [`WriteSource`] that drains a buffer.
pub struct BufferSource<'a>(&'a [u8]);

impl<'a> BufferSource<'a> {
    /// A source that gives `data` from its start.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now
    }
}

impl WriteSource for BufferSource<'_> {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let data = self.take(buffer.len());
        if let Some(place) = buffer.get_mut(..data.len()) {
            place.copy_from_slice(data);
        }
        Ok(data.len())
    }

    fn read_to_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        append: bool,
    ) -> Result<usize> {
        let offset = file_offset(offset)?;
        let len = len.min(self.0.len());
        let mut done = 0;
        while done < len {
            let position = offset.checked_add_unsigned(done as u64).ok_or(Errno::EFBIG)?;
            let data = self.0.get(..len - done).unwrap_or_default();
            match write_at(fd, data, position, append) {
                Ok(n) => {
                    self.take(n);
                    done += n;
                    if n == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was written counts; the next call meets the error again.
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(done)
    }
}

impl fmt::Debug for BufferSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferSource({} left)", self.0.len())
    }
}

/// One pwritev2(2), with RWF_APPEND on request.
fn write_at(
    fd: BorrowedFd<'_>,
    data: &[u8],
    position: libc::off64_t,
    append: bool,
) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let flags = if append { libc::RWF_APPEND } else { 0 };
    // SAFETY: `piece` describes `data`, which lives through the call and is only read.
    let n = check(unsafe { libc::pwritev2(fd.as_raw_fd(), &piece, 1, position, flags) })?;
    Ok(n.cast_unsigned())
}

fn file_offset(offset: u64) -> Result<libc::off64_t> {
    libc::off64_t::try_from(offset).map_err(|_| Errno::EINVAL)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    fn file_with(content: &[u8]) -> File {
        let mut file = crate::io::memory_file(c"test").unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn content(mut file: File) -> Vec<u8> {
        let mut all = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn with_header_answers_header_and_data_in_one_piece() {
        let mut buffer = [b'.'; 8];
        let mut sink = BufferSink::behind(&mut buffer, 3);
        assert_eq!((sink.filled(), sink.remaining()), (&b""[..], 5));
        sink.write_slice(b"gone").unwrap();
        sink.clear();
        sink.write_slice(b"data and more").unwrap();
        assert_eq!(sink.filled(), b"data ");
        assert_eq!(sink.with_header(b"abc"), b"abcdata ");
        assert_eq!(sink.with_header(b"of another length"), b"");
        assert_eq!(BufferSink::behind(&mut [0; 2], 3).with_header(b"abc"), b"");
    }

    #[test]
    fn sink_of_slice_zeros_and_file_holds_them_in_order_and_no_more() {
        let file = file_with(b"0123456789");
        let mut buffer = [9; 10];
        let mut sink = BufferSink::new(&mut buffer);
        assert_eq!(sink.write_slice(b"ab"), Ok(2));
        assert_eq!(sink.write_zeros(2), Ok(2));
        assert_eq!(sink.write_from_fd(file.as_fd(), 7, 100), Ok(3));
        assert_eq!(sink.filled(), b"ab\0\x00789");
        assert_eq!(sink.write_from_fd(file.as_fd(), 10, 100), Ok(0));
        assert_eq!(sink.write_from_fd(file.as_fd(), 0, 100), Ok(3));
        assert_eq!((sink.write_slice(b"x"), sink.write_zeros(1)), (Ok(0), Ok(0)));
        assert_eq!((sink.filled(), sink.remaining()), (&b"ab\0\x00789012"[..], 0));
        sink.clear();
        assert_eq!((sink.filled(), sink.remaining()), (&b""[..], 10));
    }

    #[test]
    fn sink_from_an_impossible_offset_or_a_directory_is_an_error() {
        let mut buffer = [0; 8];
        let mut sink = BufferSink::new(&mut buffer);
        let directory = File::open("/").unwrap();
        assert_eq!(sink.write_from_fd(directory.as_fd(), u64::MAX, 1), Err(Errno::EINVAL));
        assert_eq!(sink.write_from_fd(directory.as_fd(), 0, 1), Err(Errno::EISDIR));
    }

    #[test]
    fn source_to_slice_and_file_gives_each_byte_once() {
        let file = file_with(b"");
        let mut source = BufferSource::new(b"abcdef");
        let mut two = [0; 2];
        assert_eq!(source.read_slice(&mut two), Ok(2));
        assert_eq!(source.read_to_fd(file.as_fd(), 1, 3, false), Ok(3));
        assert_eq!(source.read_slice(&mut two), Ok(1));
        assert_eq!((two[0], source.remaining()), (b'f', 0));
        assert_eq!(source.read_to_fd(file.as_fd(), 1, 3, false), Ok(0));
        assert_eq!(content(file), b"\0cde");
    }

    #[test]
    fn source_with_append_writes_at_the_end_wherever_the_offset_points() {
        let file = file_with(b"0123");
        let mut source = BufferSource::new(b"ab");
        assert_eq!(source.read_to_fd(file.as_fd(), 0, 2, true), Ok(2));
        assert_eq!(content(file), b"0123ab");
    }

    #[test]
    fn source_to_a_read_only_file_keeps_its_bytes() {
        let file = File::open("/proc/self/exe").unwrap();
        let mut source = BufferSource::new(b"ab");
        assert_eq!(source.read_to_fd(file.as_fd(), 0, 2, false), Err(Errno::EBADF));
        assert_eq!(source.remaining(), 2);
    }
}
