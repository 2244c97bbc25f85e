//! A process that unmounts when the server is gone.
//!
//! A server that gave up root can no longer unmount what root mounted, and a server that was
//! killed cannot do anything. So, before it drops its privilege, it forks a process that keeps
//! them, holds nothing but one end of a socket, and waits: when the server closes the other end,
//! by choice or by dying, it detaches the mount and exits. If the server died it also aborts the
//! connection, in case a descriptor of it lives on in another process. A server with a thread that
//! the kernel cannot kill (it waits for a client that waits for the server) is not dead yet, and
//! closes nothing: that takes `umount -f`.
//!
//! It never runs another line of the server's code and takes no input: all it can do is that one
//! unmount.

use crate::fusermount;
use crate::mount::{Device, detach_raw, device_at_raw};
use crate::{c_path, check};
use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How a watcher unmounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// umount2(2), which needs root.
    SystemCall,
    /// The program `fusermount3`, which lets a user unmount what that user mounted.
    Fusermount,
}

/// A watcher, in the process that it watches.
#[derive(Debug)]
pub struct Watcher {
    process: libc::pid_t,
    /// Written to and dropped to make the watcher act; `None` once it was told.
    lifeline: Option<UnixStream>,
}

impl Watcher {
    /// Forks a watcher that detaches the mount at `target`, if `device` is still what is mounted
    /// there.
    ///
    /// Call it after mounting, before giving up privileges. No descriptor but its own end of the
    /// lifeline stays open in the watcher.
    ///
    /// # Errors
    /// * `EAGAIN`, `ENOMEM`: no process can be made.
    /// * `EMFILE`, `ENFILE`: no descriptor is left.
    /// * `ENOENT`: `fusermount3` is not installed.
    pub fn start(target: &Path, device: Device, by: By) -> io::Result<Self> {
        let target = c_path(target)?;
        let program = match by {
            By::SystemCall => None,
            By::Fusermount => Some(c_path(&fusermount::find()?)?),
        };
        let abort = CString::new(format!("/sys/fs/fuse/connections/{}/abort", device.minor))?;
        let (lifeline, watched) = UnixStream::pair()?;
        // SAFETY: `watch` runs in the child of a process that may have threads, so it makes only
        // async-signal-safe calls (system calls, no allocation, no locks) and never returns.
        // What it uses was made before and is copied with the address space.
        let process = check(unsafe { libc::fork() })?;
        if process == 0 {
            watch(watched.as_raw_fd(), &Orders { target, device, program, abort });
        }
        Ok(Self { process, lifeline: Some(lifeline) })
    }

    /// Lets the watcher unmount and waits for it to end.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(mut lifeline) = self.lifeline.take() else { return };
        // A byte says that the server is well; without it the end of the stream is its death.
        let _ = lifeline.write_all(b"x");
        drop(lifeline);
        let mut status = 0;
        loop {
            // SAFETY: `status` lives through the call, and the process is our child, not waited
            // for before.
            let waited = check(unsafe { libc::waitpid(self.process, &mut status, 0) });
            match waited {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a watcher is to do, made before it is.
struct Orders {
    target: CString,
    device: Device,
    /// `fusermount3`, where the system call is not allowed.
    program: Option<CString>,
    /// The file that aborts the connection, where the control filesystem is mounted. The kernel
    /// names connections by the minor number of their device.
    abort: CString,
}

/// The watcher's life. Async-signal-safe, as is everything after a fork of a threaded process.
fn watch(lifeline: libc::c_int, orders: &Orders) -> ! {
    // SAFETY: plain system calls with integers, live strings and live locals. close_range leaves
    // only `lifeline` open; the session and the full mask keep a terminal's Ctrl-C, meant for the
    // server, from ending the watcher first.
    let died = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"stratafs-umount".as_ptr());
        let own = lifeline.cast_unsigned();
        if own > 0 {
            libc::syscall(libc::SYS_close_range, 0u32, own - 1, 0u32);
        }
        libc::syscall(libc::SYS_close_range, own + 1, u32::MAX, 0u32);
        libc::chdir(c"/".as_ptr());
        let mut byte = 0u8;
        // EINTR cannot be: all signals are blocked.
        libc::read(lifeline, (&raw mut byte).cast(), 1) != 1
    };
    if device_at_raw(&orders.target).is_ok_and(|now| now == orders.device) {
        if died {
            abort(&orders.abort);
        }
        match &orders.program {
            None => {
                let force = if died { libc::MNT_FORCE } else { 0 };
                let _ = detach_raw(&orders.target, force);
            }
            Some(program) => become_fusermount(program, &orders.target),
        }
    }
    // SAFETY: ends this process without running the server's exit handlers.
    unsafe { libc::_exit(0) }
}

/// Writes to the file `path` that aborts a connection. Async-signal-safe.
fn abort(path: &CStr) {
    // SAFETY: a live, NUL-terminated string and one live byte; the descriptor is this function's.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, b"1".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}

/// Replaces this process by `program`, which unmounts. Async-signal-safe; returns on failure.
fn become_fusermount(program: &CStr, target: &CStr) {
    let arguments = [
        program.as_ptr(),
        c"-u".as_ptr(),
        c"-q".as_ptr(),
        c"-z".as_ptr(),
        c"--".as_ptr(),
        target.as_ptr(),
        std::ptr::null(),
    ];
    let environment = [c"PATH=/usr/bin:/bin:/usr/sbin:/sbin".as_ptr(), std::ptr::null()];
    // SAFETY: both lists end with a null and hold live, NUL-terminated strings. dup2 puts the null device
    // where the program expects its standard streams.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for stream in 0..3 {
            libc::dup2(null, stream);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{MountFlags, device_at, mount};

    /// A tmpfs on a directory of its own, detached and removed at the end.
    struct Tmpfs(std::path::PathBuf);

    impl Tmpfs {
        fn new(name: &str) -> Option<Self> {
            let path = std::env::temp_dir().join(format!("stratafs-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            match mount(c"none", &path, c"tmpfs", MountFlags::empty(), c"size=64k") {
                Ok(()) => Some(Self(path)),
                Err(error) => {
                    eprintln!("skipped: cannot mount a tmpfs: {error}");
                    let _ = std::fs::remove_dir(&path);
                    None
                }
            }
        }
    }

    impl Drop for Tmpfs {
        fn drop(&mut self) {
            let _ = crate::mount::detach(&self.0);
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn finish_of_a_watcher_detaches_the_mount() {
        let Some(tmpfs) = Tmpfs::new("watched") else { return };
        let device = device_at(&tmpfs.0).unwrap();
        let watcher = Watcher::start(&tmpfs.0, device, By::SystemCall).unwrap();
        assert_eq!(device_at(&tmpfs.0).unwrap(), device);
        watcher.finish();
        assert_ne!(device_at(&tmpfs.0).unwrap(), device);
    }

    #[test]
    fn finish_after_another_mount_took_the_place_leaves_it() {
        let Some(tmpfs) = Tmpfs::new("stacked") else { return };
        let device = device_at(&tmpfs.0).unwrap();
        let other = Device { major: device.major, minor: device.minor + 1 };
        Watcher::start(&tmpfs.0, other, By::SystemCall).unwrap().finish();
        assert_eq!(device_at(&tmpfs.0).unwrap(), device);
    }
}
