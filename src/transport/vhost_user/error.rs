//! Why a share could not be served, told so that it can be mended at once.

use std::io;
use std::path::PathBuf;

use stratafs_core::Errno;
use thiserror::Error;

/// Why a share could not be served. Each prints as one paragraph: the operation and its object, the
/// error number, the cause, and what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("cannot listen on {}: {errno}: {cause}\n  {next}", .path.display())]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// The descriptor that was handed over cannot be listened on.
    #[error("cannot listen on descriptor {number}: {errno}: {cause}\n  {next}")]
    Descriptor {
        /// Its number.
        number: i32,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// A thread or a descriptor that serving needs could not be made.
    #[error("cannot serve: {operation}: {errno}\n  {next}")]
    Resource {
        /// What was tried.
        operation: &'static str,
        /// The error number.
        errno: Errno,
        /// What to do.
        next: &'static str,
    },
}

impl ServeError {
    pub(super) fn resource(operation: &'static str, error: io::Error) -> Self {
        let errno = Errno::from(error);
        let next = match errno {
            Errno::EMFILE | Errno::ENFILE => {
                "raise the limit of open files (`--rlimit-nofile`, `ulimit -n`)"
            }
            Errno::EAGAIN | Errno::ENOMEM => "ask for fewer threads, or free memory",
            _ => "run it again with --log-level debug and report what it says",
        };
        Self::Resource { operation, errno, next }
    }

    pub(super) fn socket(path: &std::path::Path, error: io::Error) -> Self {
        let errno = match error.kind() {
            // The standard library's own, of a path longer than `sun_path`.
            io::ErrorKind::InvalidInput => Errno::EINVAL,
            _ => Errno::from(error),
        };
        let (cause, next) = match errno {
            Errno::ENOENT => ("the directory is missing", "make it first"),
            Errno::ENOTDIR => ("part of the path is no directory", "correct the path"),
            Errno::EACCES | Errno::EPERM => {
                ("this process may not write there", "use a directory of its own user")
            }
            Errno::EROFS => ("it is on a read-only filesystem", "use another directory"),
            Errno::EINVAL => {
                ("the path is longer than a socket's can be", "use one below 108 bytes")
            }
            _ => ("the kernel refused", "see unix(7) for the error"),
        };
        Self::Socket { path: path.to_owned(), errno, cause: cause.to_owned(), next }
    }

    pub(super) fn descriptor(number: i32, error: io::Error) -> Self {
        let errno = Errno::from(error);
        let (cause, next) = match errno {
            Errno::EBADF => ("it is not open", "hand over a socket by this number"),
            Errno::EINVAL => ("nobody listens on it", "hand over a socket after listen(2)"),
            _ => ("it is no Unix stream socket", "hand over one that listens"),
        };
        Self::Descriptor { number, errno, cause, next }
    }
}
