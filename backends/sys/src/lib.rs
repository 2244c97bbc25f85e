//! The system calls of stratafs, behind safe wrappers.
//!
//! This is the only package that contains `unsafe` and raw system calls. A wrapper takes
//! [`BorrowedFd`](std::os::fd::BorrowedFd), returns [`OwnedFd`](std::os::fd::OwnedFd), holds one
//! call, and sets close-on-exec on every descriptor it makes: a descriptor of `/dev/fuse` that
//! leaks into a child keeps a dead server's mount alive. Errors are [`std::io::Error`] with the
//! kernel's number, unchanged; retrying `EINTR` is the caller's choice unless a wrapper says so.
//!
//! | module | calls |
//! |---|---|
//! | [`affinity`] | which CPU a thread may use, runs on, or last ran on |
//! | [`creds`] | users, and giving up root for good |
//! | [`daemon`] | leaving the terminal |
//! | [`eventfd`] | a counter that wakes a poller |
//! | [`fuse`] | `/dev/fuse` |
//! | [`fusermount`] | mounting without privilege through the `fusermount3` program |
//! | [`io`] | positioned and vectored reads and writes, copies between files |
//! | [`mount`] | mount(2), umount2(2), `/proc/self/mountinfo` |
//! | [`poll`] | waiting for several descriptors |
//! | [`signal`] | SIGINT, SIGTERM and SIGHUP as a descriptor |
//! | [`watcher`] | a process that unmounts when the server is gone |
//!
//! It knows no filesystem, no protocol and no policy, takes no locks and starts no threads.

pub mod affinity;
pub mod creds;
pub mod daemon;
pub mod eventfd;
pub mod fuse;
pub mod fusermount;
pub mod io;
pub mod mount;
pub mod poll;
pub mod signal;
pub mod watcher;

/// Turns the C convention of "−1 and errno" into a result.
fn check<T: PartialOrd + From<i8>>(value: T) -> std::io::Result<T> {
    if value < T::from(0) { Err(std::io::Error::last_os_error()) } else { Ok(value) }
}

/// A path as the kernel takes it.
///
/// # Errors
/// `EINVAL`: the path holds a NUL.
fn c_path(path: &std::path::Path) -> std::io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))
}
