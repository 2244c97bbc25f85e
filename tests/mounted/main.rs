//! Tests on a filesystem that is mounted over `/dev/fuse`. They need root, and say so loudly where
//! they cannot run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

mod child;
#[cfg(feature = "cli")]
mod cli;
mod errors;
mod lifecycle;
mod locks;
mod notify;
mod probe;
mod signals;
mod stage;
mod unprivileged;
