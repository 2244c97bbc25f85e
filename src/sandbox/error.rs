//! Why there is no sandbox, told so that it can be mended at once.

use std::io;

use stratafs_core::Errno;
use thiserror::Error;

use super::errno;

/// Why a server is not in its sandbox, or did not come out of it well. Each prints as one
/// paragraph: the operation, the error number, the cause, and what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A part of it cannot be had.
    #[error("cannot {operation}: {errno}: {cause}\n  {next}")]
    Layer {
        /// What was tried.
        operation: &'static str,
        /// The error number.
        errno: Errno,
        /// Why.
        cause: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// Nobody says for which processor the list of system calls is.
    #[error(
        "cannot forbid system calls: their numbers on this processor are not known\n  use --seccomp=none"
    )]
    Processor,
    /// The filter of system calls is none.
    #[error("cannot forbid system calls: {0}\n  use --seccomp=none, and report it")]
    Filter(String),
    /// The server's process was killed.
    #[error("the server was killed by signal {signal}\n  {next}")]
    Killed {
        /// By which signal.
        signal: i32,
        /// What to do.
        next: &'static str,
    },
    /// The process outside is gone.
    #[error("the process that began it is gone")]
    Orphaned,
}

/// SIGSYS, on every processor that there is a list for.
const SIGSYS: i32 = 31;

impl SandboxError {
    pub(super) fn failed(operation: &'static str, error: io::Error) -> Self {
        let errno = errno(&error);
        let (cause, next) = match errno {
            Errno::EPERM | Errno::EACCES => (
                "it takes privilege, or namespaces of users, which this host forbids",
                "allow them (user.max_user_namespaces, AppArmor, the container's profile), run it as root, or use --sandbox=none",
            ),
            Errno::ENOSPC | EUSERS => {
                ("as many as are allowed are in use", "raise the limits in /proc/sys/user")
            }
            Errno::ENOSYS | Errno::EINVAL => {
                ("this kernel has it not", "use Linux 5.12 or newer, or --sandbox=none")
            }
            Errno::EBUSY => ("the process has threads already", "report this"),
            _ => ("the kernel refused", "run it again with --log-level debug, or --sandbox=none"),
        };
        Self::Layer { operation, errno, cause, next }
    }

    pub(super) fn killed(signal: i32) -> Self {
        let next = match signal {
            SIGSYS => {
                "it made a system call that serving should not take: run it with --seccomp=log, look into the kernel's log, and report it"
            }
            9 => "whoever sent it, or the kernel out of memory, knows why",
            _ => "run it again with --log-level debug and report what it says",
        };
        Self::Killed { signal, next }
    }
}

/// Too many of some kind for a user.
const EUSERS: Errno = Errno::from_raw(87);
