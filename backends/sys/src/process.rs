//! Processes: a copy of this one, its end, and what ties it to its parent.

use crate::check;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Which of the two this process is after [`fork`].
#[derive(Debug)]
pub enum Forked {
    /// The process that called it, and its child.
    Parent(Process),
    /// The child.
    Child,
}

/// A child of this process that was not waited for.
#[derive(Debug)]
pub struct Process(libc::pid_t);

impl Process {
    /// The process `id`, which this process has or will have for a child: another's orphan that it
    /// takes over, see [`adopt_orphans`].
    ///
    /// # Errors
    /// `EINVAL`: no process can have that number.
    pub fn adopted(id: u32) -> io::Result<Self> {
        match libc::pid_t::try_from(id) {
            Ok(id) if id > 1 => Ok(Self(id)),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.cast_unsigned()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// * `EPERM`: it has another user.
    /// * `EINVAL`: there is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: no pointers. The process is our child and was not waited for, so the number is its.
        check(unsafe { libc::kill(self.0, signal) }).map(drop)
    }

    /// Waits until it has ended, and says how.
    ///
    /// # Errors
    /// `ECHILD`: it is no child of this process.
    pub fn wait(self) -> io::Result<ExitStatus> {
        let mut status = 0;
        loop {
            // SAFETY: `status` lives through the call.
            match check(unsafe { libc::waitpid(self.0, &raw mut status, 0) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(ExitStatus::from_raw(status)),
            }
        }
    }
}

/// Copies this process, which must have one thread: in the copy of another the locks that other
/// threads held would stay locked.
///
/// # Errors
/// * `EBUSY`: there is more than one thread.
/// * `ENOENT`, `EACCES`: there is no `/proc` to count them.
/// * `EAGAIN`, `ENOMEM`: no process can be made.
///
/// # Source
/// fork(2).
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: this is the only thread, so nothing is half done in the copy.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        id => Ok(Forked::Parent(Process(id))),
    }
}

/// Ends this process at once: nothing is flushed, nothing is dropped. For a copy that is not to
/// repeat what the original does at its end.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: it does not return, and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// Has the kernel kill this process when the thread that is its parent ends.
///
/// The parent may be gone already: see to that by other means afterwards. A change of user clears it.
///
/// # Errors
/// None is known.
///
/// # Source
/// PR_SET_PDEATHSIG(2const).
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }).map(drop)
}

/// Makes this process the parent of the children that its children leave behind.
///
/// # Errors
/// None is known.
///
/// # Source
/// PR_SET_CHILD_SUBREAPER(2const).
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Sees to it that this thread, and those that it starts, get no privileges from a program that
/// they execute.
///
/// # Errors
/// None is known.
///
/// # Source
/// PR_SET_NO_NEW_PRIVS(2const).
pub fn gain_no_privileges() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn fork_in_a_process_with_threads_returns_ebusy() {
        // The test harness has a thread of its own.
        let error = fork().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn wait_says_how_a_child_ended() {
        #[expect(clippy::zombie_processes, reason = "what waits for it is under test")]
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let status = Process::adopted(child.id()).unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn adopted_of_a_number_that_means_several_processes_is_refused() {
        for id in [0, 1, u32::MAX, 1 << 31] {
            assert!(Process::adopted(id).is_err(), "{id}");
        }
    }

    #[test]
    fn gain_no_privileges_shows_in_the_status() {
        let thread = std::thread::spawn(|| {
            gain_no_privileges().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        assert!(thread.join().unwrap().contains("NoNewPrivs:\t1"));
    }
}
