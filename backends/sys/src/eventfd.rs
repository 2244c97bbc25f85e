//! A counter in the kernel that wakes a poller: eventfd(2).

use crate::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A non-blocking event counter.
///
/// Any thread may [`signal`](Self::signal) it; whoever polls its descriptor wakes and
/// [`drain`](Self::drain)s it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Makes a counter at zero, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the call above succeeded, so `fd` is open and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one, which makes the descriptor readable.
    ///
    /// Never blocks: a counter at its maximum is already readable, so the addition is dropped.
    pub fn signal(&self) {
        signal_raw(self.0.as_raw_fd());
    }

    /// Resets the counter and says whether it was above zero.
    pub fn drain(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: the buffer is 8 bytes long, as eventfd requires, and lives through the call.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        n == 8
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The write behind [`EventFd::signal`]; async-signal-safe.
pub(crate) fn signal_raw(fd: libc::c_int) {
    let one = 1u64;
    // SAFETY: the buffer is 8 bytes long and lives through the call. A descriptor that is not an
    // eventfd would at worst receive 8 bytes or an error; callers pass their own eventfd.
    let _ = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_after_two_signals_reports_once() {
        let event = EventFd::new().unwrap();
        assert!(!event.drain());
        event.signal();
        event.signal();
        assert!(event.drain());
        assert!(!event.drain());
    }
}
