//! Why a filesystem could not be mounted, told so that it can be mended at once.

use std::io;
use std::path::{Path, PathBuf};

use stratafs_core::Errno;
use thiserror::Error;

/// Why a filesystem could not be mounted, served or unmounted. After one nothing is left mounted.
///
/// Each prints as one paragraph: the operation and its object, the error number, the cause, and
/// what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// A mount option cannot be right, whatever the host is like.
    #[error("cannot use the mount option `{option}`: {problem}\n  {next}")]
    Option {
        /// The option as it was written.
        option: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        next: String,
    },
    /// The directory cannot be mounted on.
    #[error("cannot mount on {}: {errno}: {cause}\n  {next}", .path.display())]
    Mountpoint {
        /// The directory.
        path: PathBuf,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: String,
        /// What to do.
        next: String,
    },
    /// `/dev/fuse` cannot be used.
    #[error("cannot open /dev/fuse: {errno}: {cause}\n  {next}")]
    Device {
        /// The error number.
        errno: Errno,
        /// Why.
        cause: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// `fusermount3`, by which users other than root mount, cannot be used or refused.
    #[error("cannot mount on {} through fusermount3: {cause}\n  {next}", .path.display())]
    Fusermount {
        /// The directory.
        path: PathBuf,
        /// Why, in the program's own words where it spoke.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// The process could not become the user that it was to serve as.
    #[error("cannot serve as user `{user}`: {errno}: {cause}\n  {next}")]
    User {
        /// The user.
        user: String,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// The kernel and this server did not agree.
    #[error("cannot serve {}: {errno}: {cause}\n  {next}", .path.display())]
    Handshake {
        /// The directory.
        path: PathBuf,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// A thread, a process or a descriptor that serving needs could not be made.
    #[error("cannot serve {}: {operation}: {errno}\n  {next}", .path.display())]
    Resource {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The error number.
        errno: Errno,
        /// What to do.
        next: &'static str,
    },
    /// The filesystem is still mounted.
    #[error("cannot unmount {}: {cause}\n  {next}", .path.display())]
    Unmount {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: String,
        /// What to do.
        next: String,
    },
}

impl MountError {
    /// Whether the request itself was wrong, so that it cannot succeed on any host.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::Option { .. })
    }

    pub(super) fn option(option: &[u8], problem: &str, next: &str) -> Self {
        let option = String::from_utf8_lossy(option).escape_debug().to_string();
        Self::Option { option, problem: problem.to_owned(), next: next.to_owned() }
    }

    pub(super) fn resource(path: &Path, operation: &'static str, error: io::Error) -> Self {
        let errno = Errno::from(error);
        let next = match errno {
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (`ulimit -n`)",
            Errno::EAGAIN | Errno::ENOMEM => "ask for fewer --threads, or free memory",
            _ => "run it again with --log-level debug and report what it says",
        };
        Self::Resource { path: path.to_owned(), operation, errno, next }
    }

    pub(super) fn device(error: io::Error) -> Self {
        let errno = Errno::from(error);
        let (cause, next) = match errno {
            Errno::ENOENT => (
                "the device is missing",
                "load the module (`modprobe fuse`), or start the container with --device /dev/fuse",
            ),
            Errno::ENODEV | Errno::ENXIO => {
                ("this kernel has no FUSE", "load the module (`modprobe fuse`)")
            }
            Errno::EACCES | Errno::EPERM => (
                "this process may not open it",
                "run as root, or let the container have the device (--device /dev/fuse)",
            ),
            _ => ("the kernel refused", "see `dmesg`"),
        };
        Self::Device { errno, cause, next }
    }

    /// mount(2) failed on `path`.
    pub(super) fn mount(path: &Path, error: io::Error) -> Self {
        let errno = Errno::from(error);
        let (cause, next) = match errno {
            Errno::EPERM => (
                "mounting needs CAP_SYS_ADMIN, which this root does not have",
                "start the container with --cap-add SYS_ADMIN, or mount outside of it",
            ),
            Errno::EACCES => ("the way to it is not open to this process", "check its parents"),
            Errno::ENODEV => ("this kernel has no FUSE", "load the module (`modprobe fuse`)"),
            Errno::EINVAL => ("the kernel did not take the options", "see `dmesg`"),
            _ => ("the kernel refused", "see mount(2) for the error, and `dmesg`"),
        };
        Self::mountpoint(path, errno, cause, next)
    }

    pub(super) fn mountpoint(
        path: &Path,
        errno: Errno,
        cause: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Mountpoint { path: path.to_owned(), errno, cause: cause.into(), next: next.into() }
    }
}
