//! How a filesystem is served.
//!
//! A transport moves requests between a client and [`crate::protocol`]. It knows descriptors,
//! threads and processes, and no backend.

pub mod background;
pub mod fuse_dev;
