//! Sinks and sources of a bounded size that count what goes through.

use std::os::fd::BorrowedFd;

use crate::{ReadSink, Result, WriteSource};

/// At most so much of a sink.
pub(super) struct ClippedSink<'a> {
    sink: &'a mut dyn ReadSink,
    left: usize,
    pub(super) taken: usize,
}

impl<'a> ClippedSink<'a> {
    pub(super) fn new(sink: &'a mut dyn ReadSink, size: usize) -> Self {
        Self { sink, left: size, taken: 0 }
    }

    fn count(&mut self, taken: Result<usize>) -> Result<usize> {
        let taken = taken?.min(self.left);
        self.left -= taken;
        self.taken += taken;
        Ok(taken)
    }
}

impl ReadSink for ClippedSink<'_> {
    fn remaining(&self) -> usize {
        self.sink.remaining().min(self.left)
    }

    fn write_slice(&mut self, data: &[u8]) -> Result<usize> {
        let taken = self.sink.write_slice(&data[..data.len().min(self.left)]);
        self.count(taken)
    }

    fn write_from_fd(&mut self, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize> {
        let taken = self.sink.write_from_fd(fd, offset, len.min(self.left));
        self.count(taken)
    }

    fn write_zeros(&mut self, len: usize) -> Result<usize> {
        let taken = self.sink.write_zeros(len.min(self.left));
        self.count(taken)
    }
}

/// At most so much of a source.
pub(super) struct ClippedSource<'a> {
    source: &'a mut dyn WriteSource,
    left: usize,
}

impl<'a> ClippedSource<'a> {
    pub(super) fn new(source: &'a mut dyn WriteSource, size: usize) -> Self {
        Self { source, left: size }
    }

    fn count(&mut self, given: Result<usize>) -> Result<usize> {
        let given = given?.min(self.left);
        self.left -= given;
        Ok(given)
    }
}

impl WriteSource for ClippedSource<'_> {
    fn remaining(&self) -> usize {
        self.source.remaining().min(self.left)
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.left);
        let given = self.source.read_slice(&mut buf[..len]);
        self.count(given)
    }

    fn read_to_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        append: bool,
    ) -> Result<usize> {
        let given = self.source.read_to_fd(fd, offset, len.min(self.left), append);
        self.count(given)
    }
}
