//! Ending another thread's wait in the kernel.
//!
//! A thread that sleeps in read(2) on `/dev/fuse` can be woken by a request, by the end of the
//! connection, or by a signal; closing the descriptor does not wake it. Polling a second
//! descriptor would cost every request one more system call, so a signal it is: an otherwise
//! unused real-time one, with a handler that does nothing, so that the call answers `EINTR`.

use crate::check;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::thread::JoinHandle;

/// The signal, once chosen; the error number where none is free.
static SIGNAL: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();

/// The right to interrupt, from a signal that is set up in the whole process.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt(libc::c_int);

impl Interrupt {
    /// Takes the highest real-time signal that nobody handles yet; again, the same.
    ///
    /// # Errors
    /// `EBUSY`: the process handles every real-time signal.
    pub fn install() -> io::Result<Self> {
        let chosen = SIGNAL.get_or_init(|| {
            for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev() {
                match take(signal) {
                    Ok(true) => return Ok(signal),
                    Ok(false) => {}
                    Err(error) => return Err(error.raw_os_error().unwrap_or(libc::EIO)),
                }
            }
            Err(libc::EBUSY)
        });
        chosen.map(Self).map_err(io::Error::from_raw_os_error)
    }

    /// Lets the calling thread be interrupted, whatever mask it inherited.
    ///
    /// # Errors
    /// None is known.
    pub fn accept(self) -> io::Result<()> {
        // SAFETY: sigset_t is plain data; sigemptyset makes it a valid set.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set lives through the calls; the signal's number is valid.
        let error = unsafe {
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, self.0);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut())
        };
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Makes a blocking call of `thread` answer `EINTR`, if it is in one just now.
    ///
    /// A thread about to enter the call is missed: repeat until it has noticed by other means that
    /// it is to end.
    pub fn send<T>(self, thread: &JoinHandle<T>) {
        // SAFETY: the thread is not joined while its handle is borrowed, so its id is valid even
        // if it has ended; the signal has a handler.
        let _ = unsafe { libc::pthread_kill(thread.as_pthread_t(), self.0) };
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Sets the handler for `signal`, unless somebody else uses it.
fn take(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: sigaction is plain data, for which zero is a value (default action, empty mask).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `action` lives through the call.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) })?;
    if action.sa_sigaction != libc::SIG_DFL {
        return Ok(false);
    }
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // Without SA_RESTART: the call must end, not start again.
    action.sa_flags = 0;
    // SAFETY: the handler does nothing, which is async-signal-safe.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn send_to_a_thread_in_read_ends_the_read() {
        let interrupt = Interrupt::install().unwrap();
        let (silent, _open) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            interrupt.accept().unwrap();
            let mut byte = 0u8;
            // SAFETY: the buffer is one byte, as the length says.
            let result =
                check(unsafe { libc::read(silent.as_raw_fd(), (&raw mut byte).cast(), 1) });
            result.unwrap_err().kind()
        });
        while !reader.is_finished() {
            interrupt.send(&reader);
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt.send(&reader);
        assert_eq!(reader.join().unwrap(), io::ErrorKind::Interrupted);
    }
}
