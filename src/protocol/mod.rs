//! The FUSE wire: bytes in, trait call, bytes out.
//!
//! # Absences
//! No file descriptor is owned here and no I/O is done.

pub mod io;
