//! SIGINT, SIGTERM and SIGHUP as a descriptor that a loop can poll.
//!
//! A handler that writes to an eventfd, rather than a blocked mask and a signalfd: a mask works
//! only if it is set before the process's first other thread starts, which a library cannot
//! promise; a handler is the whole process's whichever thread the signal lands on.

use crate::check;
use crate::eventfd::{EventFd, signal_raw};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// The eventfd that the handler writes to; −1 until [`Termination::install`].
static EVENT: AtomicI32 = AtomicI32::new(-1);

/// The signal that came first; 0 until one does.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The process's wish to end, once installed for good.
#[derive(Debug, Clone, Copy)]
pub struct Termination(&'static EventFd);

impl Termination {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on, in the whole process.
    ///
    /// A signal that was ignored when the process started stays so (nohup(1)). Calling it again
    /// answers the same.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no descriptor is left.
    pub fn install() -> io::Result<Self> {
        static INSTALLED: OnceLock<EventFd> = OnceLock::new();
        let event = match INSTALLED.get() {
            Some(event) => event,
            None => {
                let event = EventFd::new()?;
                INSTALLED.get_or_init(|| event)
            }
        };
        EVENT.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            catch(signal)?;
        }
        Ok(Self(event))
    }

    /// For a process that [`fork`](crate::process::fork) has just made of one that had it installed:
    /// a descriptor of its own, for the one that it inherited is its parent's too. A signal that
    /// came before is not lost.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn install_in_child() -> io::Result<Self> {
        // For as long as the handler may write to it, which is for ever.
        let event: &'static EventFd = Box::leak(Box::new(EventFd::new()?));
        EVENT.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
        if RECEIVED.load(Ordering::SeqCst) != 0 {
            event.signal();
        }
        Ok(Self(event))
    }

    /// The signal that came first, if one did.
    #[must_use]
    pub fn received(self) -> Option<i32> {
        match RECEIVED.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}

/// Becomes readable with the first signal and stays so.
impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    let _ = RECEIVED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    // SAFETY: errno's location is always valid. The handler must leave errno as it found it.
    let saved = unsafe { *libc::__errno_location() };
    signal_raw(EVENT.load(Ordering::SeqCst));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = saved };
}

fn catch(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: sigaction is plain data, for which zero is a value (default action, empty mask).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `action` lives through the call.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) })?;
    if action.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the set is part of `action`, which lives through the call.
    unsafe { libc::sigemptyset(&mut action.sa_mask) };
    // SAFETY: the handler is async-signal-safe: two atomics, errno and one write(2).
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll;

    #[test]
    fn raise_of_sighup_makes_termination_readable_and_names_it() {
        // Whoever runs the tests by nohup(1) has it ignored, and ignored it stays.
        // SAFETY: the default action is a valid one.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let termination = Termination::install().unwrap();
        assert!(termination.received().is_none());
        // SAFETY: the signal is caught by the handler just installed.
        unsafe { libc::raise(libc::SIGHUP) };
        let ready = poll::readable([termination.as_fd()], None).unwrap();
        assert!(ready[0].readable);
        assert_eq!(Termination::install().unwrap().received(), Some(libc::SIGHUP));
    }
}
