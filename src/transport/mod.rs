//! How a filesystem is served.
//!
//! A transport moves requests between a client and [`crate::protocol`]. It knows descriptors,
//! threads and processes, and no backend.

pub mod background;
#[cfg(feature = "fuse")]
pub mod fuse_dev;
pub mod service;
#[cfg(feature = "vhost-user")]
pub mod vhost_user;

use std::io;

use stratafs_sys::signal::Termination;

/// Catches SIGINT, SIGTERM and SIGHUP from now on, in the whole process: what a server waits for
/// beside the end of its mount. A program that serves calls it before it mounts, for a signal that
/// ends the process leaves the mount behind.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no descriptor is left.
pub fn catch_signals() -> io::Result<Termination> {
    Termination::install()
}

/// The same for a process that was just forked from one that had called [`catch_signals`]: what it
/// inherited is the other's too.
///
/// # Errors
/// As [`catch_signals`].
pub fn catch_signals_in_child() -> io::Result<Termination> {
    Termination::install_in_child()
}
