//! Composable userspace filesystem backends for microVM hosts.

#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod mount_mode;
pub mod protocol;
#[cfg(feature = "cli")]
pub mod sandbox;
pub mod spec;
#[cfg(any(feature = "fuse", feature = "vhost-user"))]
pub mod transport;
