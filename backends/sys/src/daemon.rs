//! Leaving the terminal: setsid(2) and a process without standard streams.
//!
//! Forking is not among it: a program that goes to the background starts itself again with
//! [`std::process::Command`] before it has threads, and calls these in the new process.

use crate::check;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Makes this process the leader of a new session without a terminal, so that neither the
/// terminal's Ctrl-C nor its end reaches it.
///
/// # Errors
/// `EPERM`: the process leads a process group already, as a shell's job does. A process that was
/// just started by another one does not.
///
/// # Source
/// setsid(2).
pub fn new_session() -> io::Result<()> {
    // SAFETY: setsid takes nothing and changes only which session this process is in.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Replaces the standard streams by `/dev/null`, so that whoever waits for them to close is done.
/// Each is replaced in one step: the numbers 0 to 2 are never free for another file in between.
///
/// # Errors
/// * `EMFILE`, `ENFILE`: no descriptor is left.
/// * `ENOENT`, `EACCES`: there is no `/dev/null`.
pub fn close_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        replace(stream, null.as_fd())?;
    }
    Ok(())
}

/// Replaces the standard output alone by `/dev/null`.
///
/// # Errors
/// As [`close_stdio`].
pub fn close_stdout() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    replace(io::stdout().as_fd(), null.as_fd())
}

fn replace(stream: BorrowedFd<'_>, with: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open. `stream` is a standard stream, whose number outlives every owner: the
    // standard library never closes it and makes no assumption about what it is.
    check(unsafe { libc::dup2(with.as_raw_fd(), stream.as_raw_fd()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};

    /// Set in the process that [`daemon_in_a_new_process_leads_a_session_without_streams`] starts.
    const IN_CHILD: &str = "STRATAFS_SYS_TEST_DAEMON";

    /// The session that this process is in: field 6 of `/proc/self/stat`, the fourth after the
    /// name in parentheses.
    fn session() -> u32 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    #[test]
    fn daemon_in_a_new_process_leads_a_session_without_streams() {
        if std::env::var_os(IN_CHILD).is_some() {
            child();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["daemon_in_a_new_process_leads_a_session_without_streams", "--nocapture"])
            .env(IN_CHILD, "1")
            .stdin(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(42), "{output:?}");
    }

    /// Ends with 42 if all is as promised.
    fn child() -> ! {
        assert_ne!(session(), std::process::id());
        new_session().unwrap();
        assert_eq!(session(), std::process::id());
        close_stdout().unwrap();
        assert_eq!(fs::read_link("/proc/self/fd/1").unwrap().as_os_str(), "/dev/null");
        assert_ne!(fs::read_link("/proc/self/fd/2").unwrap().as_os_str(), "/dev/null");
        close_stdio().unwrap();
        for stream in 0..3 {
            let target = fs::read_link(format!("/proc/self/fd/{stream}")).unwrap();
            assert_eq!(target.as_os_str(), "/dev/null", "{stream}");
        }
        std::process::exit(42)
    }

    #[test]
    fn new_session_of_a_group_leader_returns_eperm() {
        // A process that leads its session leads its group; the second call finds it so.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["new_session_twice", "--nocapture", "--ignored"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    #[ignore = "changes the session of the whole process; run by the test above in its own"]
    fn new_session_twice() {
        new_session().unwrap();
        assert_eq!(new_session().unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
