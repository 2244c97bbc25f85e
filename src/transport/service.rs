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
    tell(READY)
}

/// Says in the same way that the server is about to end.
///
/// # Errors
/// As [`tell_ready`].
pub fn tell_stopping() -> io::Result<bool> {
    tell(STOPPING)
}

fn tell(state: &[u8]) -> io::Result<bool> {
    Manager::find()?.tell(state)
}

/// Takes the umask off the whole process: the modes of what is made are those that clients ask for, and
/// a filesystem that finds an umask has to mend each of them by one more system call. To be called
/// before such a filesystem is built, and after everything was made that the umask is to protect.
pub fn clear_umask() {
    file::set_umask(0);
}

/// Whoever `NOTIFY_SOCKET` names: for a server that soon may make no socket any more.
#[derive(Debug, Default)]
pub struct Manager(Option<UnixDatagram>);

impl Manager {
    /// Finds out whether anybody is to be told, and who.
    ///
    /// # Errors
    /// What connect(2) answers; `InvalidInput` for an address that is none.
    pub fn find() -> io::Result<Self> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let Some(address) = address else { return Ok(Self(None)) };
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(&address)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Self(Some(socket)))
    }

    /// As [`tell_ready`].
    ///
    /// # Errors
    /// What send(2) answers.
    pub fn tell_ready(&self) -> io::Result<bool> {
        self.tell(READY)
    }

    /// As [`tell_stopping`].
    ///
    /// # Errors
    /// What send(2) answers.
    pub fn tell_stopping(&self) -> io::Result<bool> {
        self.tell(STOPPING)
    }

    fn tell(&self, state: &[u8]) -> io::Result<bool> {
        let Some(socket) = &self.0 else { return Ok(false) };
        socket.send(state)?;
        Ok(true)
    }
}

const READY: &[u8] = b"READY=1\n";
const STOPPING: &[u8] = b"STOPPING=1\n";

/// Raises the limit of open descriptors to `count`, or as far as this process may; what it is then.
///
/// # Errors
/// None is known.
pub fn raise_descriptor_limit(count: u64) -> io::Result<u64> {
    file::raise_descriptor_limit(count)
}
