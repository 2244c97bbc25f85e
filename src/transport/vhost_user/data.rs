//! File data in the guest's memory: [`ReadSink`] and [`WriteSource`] over descriptor chains.
//!
//! The descriptor form is one preadv2 or pwritev2 on the guest's pages; the slice form copies once,
//! between them and whoever holds the data.

use std::io;
use std::os::fd::BorrowedFd;

use stratafs_core::{Errno, ReadSink, Result, WriteSource};
use stratafs_sys::buffer::BufferSource;
use stratafs_sys::guest::Pieces;
use vm_memory::{Address as _, GuestMemory as _, VolatileSlice};

use super::chain::Segment;
use super::memory::Mapped;

/// A place in a list of segments.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    segment: usize,
    /// Bytes of that segment that are behind.
    offset: u32,
}

/// The part of a chain that goes one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area<'a> {
    memory: &'a Mapped,
    segments: &'a [Segment],
    cursor: Cursor,
    left: usize,
}

impl<'a> Area<'a> {
    /// All of `segments`, which are `len` bytes long together.
    pub(super) fn new(memory: &'a Mapped, (segments, len): (&'a [Segment], usize)) -> Self {
        Self { memory, segments, cursor: Cursor::default(), left: len }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next piece, at most `max` bytes of it.
    fn piece(&self, cursor: Cursor, max: usize) -> Result<Option<VolatileSlice<'a>>> {
        let Some(segment) = self.segments.get(cursor.segment) else { return Ok(None) };
        let len = (segment.len.saturating_sub(cursor.offset) as usize).min(max);
        if len == 0 {
            return Ok(None);
        }
        let address = segment.address.checked_add(u64::from(cursor.offset)).ok_or(Errno::EFAULT)?;
        // It was there when the chain was walked; the VMM may have taken it away since.
        self.memory.get_slice(address, len).map(Some).map_err(|_| Errno::EFAULT)
    }

    /// Where `cursor` is `len` bytes later.
    fn after(&self, mut cursor: Cursor, len: usize) -> Cursor {
        let mut len = u32::try_from(len).unwrap_or(u32::MAX);
        while let Some(segment) = self.segments.get(cursor.segment) {
            let rest = segment.len.saturating_sub(cursor.offset);
            if len < rest {
                cursor.offset = cursor.offset.saturating_add(len);
                break;
            }
            len -= rest;
            cursor = Cursor { segment: cursor.segment.saturating_add(1), offset: 0 };
        }
        cursor
    }

    pub(super) fn advance(&mut self, len: usize) {
        let len = len.min(self.left);
        self.cursor = self.after(self.cursor, len);
        self.left -= len;
    }

    /// Passes over up to `len` bytes in pieces, each given to `each` with how many bytes were passed
    /// over before it.
    fn each(
        &mut self,
        len: usize,
        mut each: impl FnMut(VolatileSlice<'_>, usize),
    ) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let Some(piece) = self.piece(self.cursor, len - done)? else { break };
            each(piece, done);
            done += piece.len();
            self.advance(piece.len());
        }
        Ok(done)
    }

    /// Copies `data` into the guest's memory, or as much of it as there is room for.
    pub(super) fn put(&mut self, data: &[u8]) -> Result<usize> {
        self.each(data.len(), |piece, at| {
            let data = data.get(at..).unwrap_or_default();
            piece.copy_from(data.get(..piece.len()).unwrap_or(data));
        })
    }

    /// Copies bytes out of the guest's memory.
    pub(super) fn get(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.each(buffer.len(), |piece, at| {
            piece.copy_to(buffer.get_mut(at..).unwrap_or_default());
        })
    }

    /// As many pieces of the next `len` bytes as one call takes.
    fn pieces(&self, len: usize) -> Result<Pieces<'a>> {
        let (mut pieces, mut cursor, mut left) = (Pieces::new(), self.cursor, len.min(self.left));
        while left > 0 {
            let Some(piece) = self.piece(cursor, left)? else { break };
            if !pieces.push(piece) {
                break;
            }
            left -= piece.len();
            cursor = self.after(cursor, piece.len());
        }
        Ok(pieces)
    }

    /// Moves up to `len` bytes by `call`, which is given the pieces and how many bytes went before;
    /// until it moves none.
    fn transfer(
        &mut self,
        len: usize,
        mut call: impl FnMut(&mut Pieces<'_>, usize) -> io::Result<usize>,
    ) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let mut pieces = self.pieces(len - done)?;
            if pieces.is_empty() {
                break;
            }
            match call(&mut pieces, done) {
                Ok(0) => break,
                Ok(n) => {
                    self.advance(n);
                    done += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was moved counts; the next call meets the error again.
                Err(_) if done > 0 => break,
                Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(5))),
            }
        }
        Ok(done)
    }
}

fn position(offset: u64, done: usize) -> io::Result<u64> {
    offset.checked_add(done as u64).ok_or_else(|| Errno::EINVAL.into())
}

/// The payload of an answer: the room behind its header.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    whole: Area<'a>,
    area: Area<'a>,
}

impl<'a> Payload<'a> {
    /// What `area` has from byte `header` on; nothing where it is shorter.
    pub(super) fn new(mut area: Area<'a>, header: usize) -> Self {
        area.advance(header);
        Self { whole: area, area }
    }

    /// How many bytes were put into it.
    pub(super) fn filled(&self) -> usize {
        self.whole.left - self.area.left
    }

    pub(super) fn clear(&mut self) {
        self.area = self.whole;
    }
}

/// Zeros to copy from.
static ZEROS: [u8; 4096] = [0; 4096];

impl ReadSink for Payload<'_> {
    fn remaining(&self) -> usize {
        self.area.left
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        self.area.put(data)
    }

    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize> {
        self.area.transfer(len, |pieces, done| pieces.read_at(fd, position(offset, done)?))
    }

    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let zeros = ZEROS.get(..len - done).unwrap_or(&ZEROS);
            match self.area.put(zeros)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }
}

/// How many bytes are copied out of the guest's memory before anything is decided by them: the
/// header of a request (40) and the arguments that say how long it may take (READ's and WRITE's have
/// 40). Not a byte more, so that the data of a WRITE stays where it is.
pub(super) const PREFIX: usize = 80;

/// A request: its first bytes, copied once, and the rest where the guest has it.
#[derive(Debug)]
pub(super) struct Request<'a> {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix, and of those how many were given out.
    len: usize,
    given: usize,
    area: Area<'a>,
}

impl<'a> Request<'a> {
    /// Copies the first bytes.
    ///
    /// # Errors
    /// `EFAULT`: the memory is not there any more.
    pub(super) fn read(mut area: Area<'a>) -> Result<Self> {
        let mut prefix = [0; PREFIX];
        let len = area.get(&mut prefix)?;
        Ok(Self { prefix, len, given: 0, area })
    }

    /// What was copied.
    pub(super) fn prefix(&self) -> &[u8] {
        self.prefix.get(..self.len).unwrap_or_default()
    }

    fn copied(&self) -> &[u8] {
        self.prefix.get(self.given..self.len).unwrap_or_default()
    }
}

impl WriteSource for Request<'_> {
    fn remaining(&self) -> usize {
        self.copied().len() + self.area.left
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let copied = self.copied();
        let len = copied.len().min(buffer.len());
        let (head, rest) = buffer.split_at_mut(len);
        head.copy_from_slice(copied.get(..len).unwrap_or_default());
        self.given += len;
        Ok(len + self.area.get(rest)?)
    }

    fn read_to_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        append: bool,
    ) -> Result<usize> {
        let mut copied = BufferSource::new(self.copied());
        let first = copied.read_to_fd(fd, offset, len, append)?;
        self.given += first;
        if first == len || !self.copied().is_empty() {
            return Ok(first);
        }
        let moved = self.area.transfer(len - first, |pieces, done| {
            pieces.write_at(fd, position(offset, first + done)?, append)
        });
        match moved {
            Ok(moved) => Ok(first + moved),
            Err(_) if first > 0 => Ok(first),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use vm_memory::{Bytes as _, GuestAddress};

    use super::*;

    /// 64 KiB from 0.
    fn memory() -> Mapped {
        Mapped::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
    }

    /// Pieces of `lens` bytes, a page apart.
    fn segments(lens: &[u32]) -> (Vec<Segment>, usize) {
        let place = |index: usize| GuestAddress(index as u64 * 4096);
        let segments = lens.iter().enumerate();
        let segments = segments.map(|(index, len)| Segment { address: place(index), len: *len });
        (segments.collect(), lens.iter().map(|len| *len as usize).sum())
    }

    /// What lies in the segments, one after another.
    fn content(memory: &Mapped, segments: &[Segment]) -> Vec<u8> {
        let mut all = Vec::new();
        for segment in segments {
            let mut piece = vec![0; segment.len as usize];
            memory.read_slice(&mut piece, segment.address).unwrap();
            all.extend(piece);
        }
        all
    }

    fn file(content: &[u8]) -> File {
        let mut file = stratafs_sys::io::memory_file(c"test").unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn payload_of_slices_a_file_and_zeros_lies_behind_its_header_over_all_pieces() {
        let memory = memory();
        let (segments, len) = segments(&[10, 3, 20]);
        let area = Area::new(&memory, (&segments, len));
        let mut payload = Payload::new(area, 8);
        assert_eq!(payload.remaining(), 25);
        assert_eq!(payload.write_slice(b"abc"), Ok(3));
        assert_eq!(payload.write_from_fd(file(b"0123456789").as_fd(), 2, 100), Ok(8));
        assert_eq!(payload.write_slice(b"x"), Ok(1));
        assert_eq!(payload.write_zeros(4), Ok(4));
        assert_eq!(payload.filled(), 16);
        assert_eq!(&content(&memory, &segments)[8..24], b"abc23456789x\0\0\0\0");
        assert_eq!(payload.write_zeros(100), Ok(9));
        assert_eq!((payload.write_slice(b"y"), payload.remaining()), (Ok(0), 0));
        payload.clear();
        assert_eq!((payload.filled(), payload.remaining()), (0, 25));
    }

    #[test]
    fn payload_of_less_room_than_a_header_is_empty() {
        let memory = memory();
        let (segments, len) = segments(&[7]);
        let mut payload = Payload::new(Area::new(&memory, (&segments, len)), 16);
        assert_eq!((payload.remaining(), payload.write_slice(b"x")), (0, Ok(0)));
    }

    #[test]
    fn payload_from_what_cannot_be_read_is_the_files_error() {
        let memory = memory();
        let (segments, len) = segments(&[32]);
        let mut payload = Payload::new(Area::new(&memory, (&segments, len)), 0);
        let directory = File::open("/").unwrap();
        assert_eq!(payload.write_from_fd(directory.as_fd(), 0, 8), Err(Errno::EISDIR));
        assert_eq!(payload.write_from_fd(directory.as_fd(), u64::MAX, 8), Err(Errno::EINVAL));
        assert_eq!(payload.filled(), 0);
    }

    #[test]
    fn request_gives_each_byte_once_to_slices_and_files() {
        let memory = memory();
        let (segments, len) = segments(&[50, 50, 100]);
        for (index, segment) in segments.iter().enumerate() {
            let bytes: Vec<u8> = (0..segment.len).map(|i| (index as u32 * 50 + i) as u8).collect();
            memory.write_slice(&bytes, segment.address).unwrap();
        }
        let mut request = Request::read(Area::new(&memory, (&segments, len))).unwrap();
        // What is changed after it was copied is not seen.
        memory.write_slice(&[0xff; 50], GuestAddress(0)).unwrap();
        assert_eq!(request.remaining(), 200);
        assert_eq!(request.prefix().len(), PREFIX);
        let mut head = [0; 60];
        assert_eq!(request.read_slice(&mut head), Ok(60));
        assert!(head.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at));
        // From the copied bytes into those that are not.
        let mut target = file(b"");
        assert_eq!(request.read_to_fd(target.as_fd(), 0, 100, false), Ok(100));
        assert_eq!(request.read_to_fd(target.as_fd(), 0, 100, true), Ok(40));
        assert_eq!((request.remaining(), request.read_slice(&mut head)), (0, Ok(0)));
        let mut content = Vec::new();
        target.rewind().unwrap();
        target.read_to_end(&mut content).unwrap();
        assert!(content.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at + 60));
        assert_eq!(content.len(), 140);
    }

    #[test]
    fn request_to_a_file_that_takes_nothing_keeps_its_bytes() {
        let memory = memory();
        let (segments, len) = segments(&[200]);
        let mut request = Request::read(Area::new(&memory, (&segments, len))).unwrap();
        let closed = File::open("/proc/self/exe").unwrap();
        assert_eq!(request.read_to_fd(closed.as_fd(), 0, 200, false), Err(Errno::EBADF));
        assert_eq!(request.remaining(), 200);
    }

    #[test]
    fn memory_that_was_taken_away_is_efault() {
        let memory = memory();
        let segments = [Segment { address: GuestAddress(0x2_0000), len: 64 }];
        let area = Area::new(&memory, (&segments, 64));
        assert!(matches!(Request::read(area), Err(Errno::EFAULT)));
        assert_eq!(Payload::new(area, 0).write_slice(b"x"), Err(Errno::EFAULT));
        let file = file(b"x");
        assert_eq!(Payload::new(area, 0).write_from_fd(file.as_fd(), 0, 1), Err(Errno::EFAULT));
    }
}
