//! File data between a guest's memory and a descriptor, without a buffer in between.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

use crate::check;

/// How many pieces one call moves: the pages of a request of 1 MiB, the largest that a kernel sends
/// unless it was told otherwise. Below IOV_MAX (1024).
pub const MAX_PIECES: usize = 256;

/// Pieces of a guest's memory, in the order in which data fills or leaves them.
///
/// The guest may change them at any time; what is read is whatever was there.
pub struct Pieces<'a> {
    iovecs: [MaybeUninit<libc::iovec>; MAX_PIECES],
    len: usize,
    memory: PhantomData<VolatileSlice<'a>>,
}

impl<'a> Pieces<'a> {
    /// No piece yet.
    #[must_use]
    pub fn new() -> Self {
        Self { iovecs: [const { MaybeUninit::uninit() }; MAX_PIECES], len: 0, memory: PhantomData }
    }

    /// Appends a piece; `false` where there are [`MAX_PIECES`] already.
    pub fn push(&mut self, piece: VolatileSlice<'a>) -> bool {
        let Some(place) = self.iovecs.get_mut(self.len) else { return false };
        // The guard does nothing where memory is mapped as a whole, as here; the pointer stays valid
        // as long as the mapping, which 'a borrows.
        let base = piece.ptr_guard_mut().as_ptr();
        place.write(libc::iovec { iov_base: base.cast(), iov_len: piece.len() });
        self.len += 1;
        true
    }

    /// Whether there is no piece.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills the pieces from `position` of `file` on: preadv(2); short at the end of the file.
    ///
    /// # Errors
    /// * `EINVAL`: `position` is beyond what a file can have.
    /// * `EFAULT`: a piece is not there any more. Others of preadv(2).
    pub fn read_at(&mut self, file: BorrowedFd<'_>, position: u64) -> io::Result<usize> {
        let position = offset(position)?;
        let count = self.count();
        // SAFETY: 1. the first `len` entries are initialised, by `push`. 2. Each describes memory
        // that is mapped, and may be written, as long as 'a. 3. Nothing in this process holds a
        // reference into it: it is only reached through volatile slices.
        let n = check(unsafe {
            libc::preadv64(file.as_raw_fd(), self.iovecs.as_ptr().cast(), count, position)
        })?;
        Ok(n.cast_unsigned())
    }

    /// Writes the pieces at `position` of `file`, or with `append` at its end: pwritev2(2); may be
    /// short.
    ///
    /// # Errors
    /// * `EINVAL`: `position` is beyond what a file can have.
    /// * `EFAULT`: a piece is not there any more. Others of pwritev2(2).
    pub fn write_at(&self, file: BorrowedFd<'_>, position: u64, append: bool) -> io::Result<usize> {
        let position = offset(position)?;
        let flags = if append { libc::RWF_APPEND } else { 0 };
        let count = self.count();
        // SAFETY: 1. the first `len` entries are initialised, by `push`. 2. Each describes memory
        // that is mapped as long as 'a. 3. The kernel only reads it.
        let n = check(unsafe {
            libc::pwritev2(file.as_raw_fd(), self.iovecs.as_ptr().cast(), count, position, flags)
        })?;
        Ok(n.cast_unsigned())
    }

    fn count(&self) -> libc::c_int {
        libc::c_int::try_from(self.len).unwrap_or(0)
    }
}

impl Default for Pieces<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({})", self.len)
    }
}

fn offset(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    fn slices(buffer: &mut [u8], at: usize) -> [VolatileSlice<'_>; 2] {
        let (a, b) = buffer.split_at_mut(at);
        [a.into(), b.into()]
    }

    #[test]
    fn read_at_fills_the_pieces_in_order_and_is_short_at_the_end() {
        let mut file = crate::io::memory_file(c"test").unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut buffer = [0; 8];
        let mut pieces = Pieces::new();
        for slice in slices(&mut buffer, 3) {
            assert!(pieces.push(slice));
        }
        assert_eq!(pieces.read_at(file.as_fd(), 4).unwrap(), 6);
        assert_eq!(&buffer, b"456789\0\0");
    }

    #[test]
    fn write_at_with_append_ignores_the_position() {
        let mut file = crate::io::memory_file(c"test").unwrap();
        file.write_all(b"01").unwrap();
        let mut buffer = *b"abcd";
        let mut pieces = Pieces::new();
        for slice in slices(&mut buffer, 1) {
            assert!(pieces.push(slice));
        }
        assert_eq!(pieces.write_at(file.as_fd(), 0, true).unwrap(), 4);
        assert_eq!(pieces.write_at(file.as_fd(), 0, false).unwrap(), 4);
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abcdcd");
    }

    #[test]
    fn push_beyond_the_limit_is_refused() {
        let mut buffer = [0u8; 1];
        let slice = VolatileSlice::from(&mut buffer[..]);
        let mut pieces = Pieces::new();
        assert!(pieces.is_empty());
        for _ in 0..MAX_PIECES {
            assert!(pieces.push(slice));
        }
        assert!(!pieces.push(slice));
    }

    #[test]
    fn offset_beyond_what_a_file_can_have_is_einval() {
        let file = crate::io::memory_file(c"test").unwrap();
        let error = Pieces::new().read_at(file.as_fd(), u64::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
