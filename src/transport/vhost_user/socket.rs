//! The socket that a VMM connects to.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use stratafs_core::Errno;
use stratafs_sys::socket::inherited_listener;

use super::error::ServeError;

/// A socket that is listened on. Dropped, its file is removed if it is still its own.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    file: Option<SocketFile>,
}

/// The file of a socket, and which it is: another server may have put its own there since.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`. A socket that a dead server left there is taken over.
    ///
    /// With a `group` its members may connect; without, the owner alone.
    ///
    /// # Errors
    /// [`ServeError::Socket`]: someone listens there already, something else is there, or the
    /// directory is missing or not writable.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ServeError> {
        let failed = |error| ServeError::socket(path, error);
        // Two servers that find the same dead socket must not both take it: one would serve a
        // socket without a name. Where the directory cannot be locked that is as it may be.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new(".")));
        let _lock = directory.and_then(|directory| directory.lock().map(|()| directory));
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }
        .map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        let listener =
            Self { listener, file: Some(SocketFile { path: path.to_owned(), identity }) };
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        if group.is_some() {
            std::os::unix::fs::lchown(path, None, group).map_err(failed)?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        Ok(listener)
    }

    /// Listens on a socket that whoever started this process made.
    ///
    /// # Errors
    /// [`ServeError::Descriptor`]: there is none by that number, or it is no Unix socket that is
    /// listened on.
    pub fn inherited(number: i32) -> Result<Self, ServeError> {
        let listener =
            inherited_listener(number).map_err(|error| ServeError::descriptor(number, error))?;
        Ok(Self { listener, file: None })
    }

    /// Leaves the socket's file to another process that has this listener too.
    pub fn leave_file(&mut self) {
        self.file = None;
    }

    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    pub(super) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.listener)
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.listener.set_nonblocking(true)
    }
}

/// The number of a group by its name, or by its number.
///
/// # Errors
/// `NotFound`: there is no such group. Others of the group database.
pub fn group(name: &str) -> io::Result<u32> {
    stratafs_sys::creds::group(name)
}

/// Removes the socket at `path` if nobody listens there any more.
fn remove_dead(path: &Path) -> Result<(), ServeError> {
    let refuse = |errno, cause: &str, next| {
        Err(ServeError::Socket { path: path.to_owned(), errno, cause: cause.to_owned(), next })
    };
    let failed = |error| ServeError::socket(path, error);
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        let next = "remove it, or use another path";
        return refuse(Errno::EEXIST, "something is there that is no socket", next);
    }
    let begin = Instant::now();
    loop {
        // A datagram to a stream socket is refused by its type where somebody listens, and is seen
        // by nobody: a connection would be taken for a VMM's.
        let probe = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
        return match probe {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                log::info!("{}: taking over the socket of a server that is gone", path.display());
                fs::remove_file(path).map_err(failed)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() != Some(EPROTOTYPE.raw()) => Err(failed(error)),
            // One that was killed may be about to die: what listens may be a child of its.
            _ if begin.elapsed() < DYING => {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            _ => {
                let next = "end it first, or use another path";
                refuse(EADDRINUSE, "another server listens there", next)
            }
        };
    }
}

/// How long a server that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(1);
/// The socket at a path is of another type.
const EPROTOTYPE: Errno = Errno::from_raw(91);
/// Somebody listens at an address.
const EADDRINUSE: Errno = Errno::from_raw(98);

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(SocketFile { path, identity }) = &self.file else { return };
        let is_own = fs::symlink_metadata(path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == *identity);
        if is_own {
            let _ = fs::remove_file(path);
        }
    }
}
