//! Waiting for several descriptors: poll(2).

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What a descriptor reported; see poll(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// A read would not block (`POLLIN`).
    pub readable: bool,
    /// The descriptor is in error (`POLLERR`). A `/dev/fuse` descriptor whose connection is gone
    /// reports this.
    pub error: bool,
    /// The other end hung up (`POLLHUP`).
    pub hung_up: bool,
}

impl Ready {
    /// Anything at all was reported.
    #[must_use]
    pub fn any(self) -> bool {
        self.readable || self.error || self.hung_up
    }
}

/// Waits until one of `fds` is readable, in error or hung up.
///
/// `None` waits without limit. A timeout answers nothing ready. `EINTR` is answered as nothing
/// ready too, so a caller that loops on a condition needs no special case.
///
/// # Errors
/// `ENOMEM`: the kernel is out of memory.
pub fn readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut set =
        fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout_ms = match timeout {
        None => -1,
        // Rounded up: a wait of less than a millisecond must not become a busy loop.
        Some(t) => i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
    };
    // SAFETY: `set` holds N initialised entries and lives through the call.
    let n = unsafe { libc::poll(set.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    match check(n) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            return Ok([Ready::default(); N]);
        }
        Err(error) => return Err(error),
    }
    Ok(set.map(|entry| Ready {
        readable: entry.revents & libc::POLLIN != 0,
        error: entry.revents & (libc::POLLERR | libc::POLLNVAL) != 0,
        hung_up: entry.revents & libc::POLLHUP != 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::EventFd;
    use std::os::fd::AsFd;

    #[test]
    fn readable_of_two_events_reports_the_signalled_one() {
        let (quiet, loud) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        loud.signal();
        let ready = readable([quiet.as_fd(), loud.as_fd()], None).unwrap();
        assert!(!ready[0].any());
        assert!(ready[1].readable);
    }

    #[test]
    fn readable_with_nothing_signalled_times_out_empty() {
        let quiet = EventFd::new().unwrap();
        let ready = readable([quiet.as_fd()], Some(Duration::from_micros(1))).unwrap();
        assert_eq!(ready, [Ready::default()]);
    }
}
