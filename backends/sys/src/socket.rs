//! Sockets that another process handed on.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

use crate::check;

/// Descriptors that were taken over already: each is owned once.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes over the descriptor `number`, on which whoever started this process listens at a Unix
/// socket, and sets it close-on-exec.
///
/// # Errors
/// * `EBADF`: no such descriptor is open, or it was taken over before.
/// * `ENOTSOCK`: it is no socket. `EPROTOTYPE`: it is no Unix stream socket.
/// * `EINVAL`: nobody listens on it.
pub fn inherited_listener(number: RawFd) -> io::Result<UnixListener> {
    let error = |code| Err(io::Error::from_raw_os_error(code));
    // Standard streams have owners in the library.
    if number <= libc::STDERR_FILENO {
        return error(libc::EBADF);
    }
    if option(number, libc::SO_DOMAIN)? != libc::AF_UNIX
        || option(number, libc::SO_TYPE)? != libc::SOCK_STREAM
    {
        return error(libc::EPROTOTYPE);
    }
    if option(number, libc::SO_ACCEPTCONN)? == 0 {
        return error(libc::EINVAL);
    }
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return error(libc::EBADF);
    }
    taken.push(number);
    // SAFETY: 1. it is open, as getsockopt has just said. 2. It is a listening Unix socket that came
    // with the process: the standard library makes none by itself, and what this process makes is
    // not known by its number to whoever wrote the command line. 3. It is taken over only once.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(UnixListener::from(owned))
}

fn option(socket: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len: libc::socklen_t = 4;
    // SAFETY: the value is an int of 4 bytes, as `len` says; both live through the call.
    check(unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn inherited_listener_takes_a_listening_socket_once() {
        let path = std::env::temp_dir().join(format!("sys-socket-{}", std::process::id()));
        let number = UnixListener::bind(&path).unwrap().into_raw_fd();
        let listener = inherited_listener(number).unwrap();
        assert_eq!(listener.as_raw_fd(), number);
        let error = inherited_listener(number).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn inherited_listener_of_anything_else_is_refused_by_its_kind() {
        let (connected, _other) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        for (number, errno) in [
            (connected.as_raw_fd(), libc::EINVAL),
            (file.as_raw_fd(), libc::ENOTSOCK),
            (1, libc::EBADF),
            (-1, libc::EBADF),
            (1 << 20, libc::EBADF),
        ] {
            let error = inherited_listener(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "descriptor {number}");
        }
    }
}
