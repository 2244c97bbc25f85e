//! How a server leaves the terminal once it is ready.
//!
//! The program starts itself again and waits. The new process does all the work with the user's
//! standard error still open, so that whatever fails is told as in the foreground; once it is
//! ready it gives up the terminal and its streams and says so through a pipe, and the first process
//! returns. Nothing is forked after threads exist.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitStatus, Stdio};

use stratafs_sys::daemon;

/// What the new process writes when it is ready. Its end of the pipe is the standard output that
/// it is started with; anything else printed there by mistake is not taken for it.
const READY: &[u8] = b"ready\n";

/// How a start in the background went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The server is ready, and lives on.
    Ready,
    /// The server ended before it was ready, and has told why unless a signal ended it.
    Ended(ExitStatus),
}

/// Starts this program again with `args` and waits until it is ready or has ended. The new process
/// must call [`Starter::adopt`] first and [`Starter::leave`] when it is ready.
///
/// # Errors
/// * `ENOENT`: the file of this program is gone, or there is no `/proc`.
/// * `EAGAIN`, `ENOMEM`, `EMFILE`: no process or pipe can be made.
pub fn start(args: impl IntoIterator<Item: AsRef<OsStr>>) -> io::Result<Started> {
    let mut server = Command::new(env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(mut pipe) = server.stdout.take() {
        // It ends when the server closes it; an error is like an end without the word.
        let _ = pipe.read_to_end(&mut said);
    }
    if said == READY {
        return Ok(Started::Ready);
    }
    server.wait().map(Started::Ended)
}

/// In the process that [`start`] started: the process that waits for it.
#[derive(Debug)]
pub struct Starter {
    pipe: File,
}

impl Starter {
    /// Takes the pipe over from the standard output, so that programs started from now on do not
    /// have it: as long as anybody did, [`start`] would wait.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no descriptor is left.
    pub fn adopt() -> io::Result<Self> {
        let pipe = io::stdout().as_fd().try_clone_to_owned()?;
        daemon::close_stdout()?;
        Ok(Self { pipe: pipe.into() })
    }

    /// Leaves the terminal, the working directory and the standard streams, and lets [`start`]
    /// return. Until then Ctrl-C ends both processes.
    ///
    /// # Errors
    /// * `EPIPE`: the process that waited is gone, and with it whoever wanted this server.
    /// * `EPERM`: this process was not started by [`start`].
    pub fn leave(mut self) -> io::Result<()> {
        daemon::new_session()?;
        // A working directory would keep its filesystem from being unmounted.
        env::set_current_dir("/")?;
        daemon::close_stdio()?;
        self.pipe.write_all(READY)
    }
}
