//! What a server tells the manager of services that started it, and what it takes of its limits.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use stratafs_sys::file;

/// How many descriptors a server asks for unless told otherwise: one pins each node of a host
/// directory, and a guest's cache holds many.
pub const DEFAULT_DESCRIPTORS: u64 = 1_000_000;

/// Says by `NOTIFY_SOCKET` that the server is ready, as sd_notify(3) does; `false` where nobody wants
/// to know.
///
/// # Errors
/// What sendto(2) answers; `InvalidInput` for an address that is none.
pub fn tell_ready() -> io::Result<bool> {
    tell(b"READY=1\n")
}

/// Says in the same way that the server is about to end.
///
/// # Errors
/// As [`tell_ready`].
pub fn tell_stopping() -> io::Result<bool> {
    tell(b"STOPPING=1\n")
}

fn tell(state: &[u8]) -> io::Result<bool> {
    let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
        return Ok(false);
    };
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(&address)?,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    UnixDatagram::unbound()?.send_to_addr(state, &address)?;
    Ok(true)
}

/// Takes the umask off the whole process: the modes of what is made are those that clients ask for, and
/// a filesystem that finds an umask has to mend each of them by one more system call. To be called
/// before such a filesystem is built, and after everything was made that the umask is to protect.
pub fn clear_umask() {
    file::set_umask(0);
}

/// Raises the limit of open descriptors to `count`, or as far as this process may; what it is then.
///
/// # Errors
/// None is known.
pub fn raise_descriptor_limit(count: u64) -> io::Result<u64> {
    file::raise_descriptor_limit(count)
}
