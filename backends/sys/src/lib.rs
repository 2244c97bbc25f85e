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
//! | [`at`] | changing directory entries, and objects pinned by descriptor |
//! | [`buffer`] | file data between a buffer in memory and a descriptor |
//! | [`calls`] | which calls a server makes once it serves |
//! | [`capability`] | capabilities, and giving them up |
//! | [`creds`] | users, and giving up root for good |
//! | [`daemon`] | leaving the terminal |
//! | [`dirent`] | reading directories |
//! | [`eventfd`] | a counter that wakes a poller |
//! | [`mod@file`] | size, storage, durability, position and flags of an open file |
//! | [`fuse`] | `/dev/fuse` |
//! | [`fusermount`] | mounting without privilege through the `fusermount3` program |
//! | `guest` | file data between a guest's memory and a descriptor (feature `guest-memory`) |
//! | [`handle`] | identities that outlive a mount |
//! | [`interrupt`] | ending another thread's wait in the kernel |
//! | [`io`] | positioned and vectored reads and writes, copies between files |
//! | [`landlock`] | which directories a thread can open things below |
//! | [`mount`] | mount(2), umount2(2), `/proc/self/mountinfo` |
//! | [`namespace`] | namespaces, and another root directory |
//! | [`openat`] | opening the child of a directory, and nothing outside it |
//! | [`poll`] | waiting for several descriptors |
//! | [`proc`] | what an O_PATH descriptor pins, through `/proc/self/fd` |
//! | [`process`] | a copy of this process, its end, and what ties it to its parent |
//! | [`signal`] | SIGINT, SIGTERM and SIGHUP as a descriptor |
//! | [`socket`] | sockets that another process handed on |
//! | [`stat`] | attributes of objects and filesystems |
//! | [`tree`] | mounts that are nowhere yet |
//! | [`watcher`] | a process that unmounts when the server is gone |
//! | [`xattr`] | extended attributes by descriptor |
//!
//! It knows no filesystem, no protocol and no policy, takes no locks and starts no threads.

pub mod at;
pub mod buffer;
pub mod calls;
pub mod capability;
pub mod creds;
pub mod daemon;
pub mod dirent;
pub mod eventfd;
pub mod file;
pub mod fuse;
pub mod fusermount;
#[cfg(feature = "guest-memory")]
pub mod guest;
pub mod handle;
pub mod interrupt;
pub mod io;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod openat;
pub mod poll;
pub mod proc;
pub mod process;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod tree;
pub mod watcher;
pub mod xattr;

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

/// Runs `call` with `name` as the kernel takes it, on the stack.
fn with_name<T>(name: stratafs_core::Name<'_>, call: impl FnOnce(&std::ffi::CStr) -> T) -> T {
    let mut bytes = [0; stratafs_core::name::NAME_MAX + 1];
    // A name has at most NAME_MAX bytes and no NUL, so one always follows it.
    for (to, from) in bytes.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    call(std::ffi::CStr::from_bytes_until_nul(&bytes).unwrap_or(c""))
}
