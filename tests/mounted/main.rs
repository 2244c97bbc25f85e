//! Tests on a filesystem that is mounted over `/dev/fuse`. They need root, and say so loudly where
//! they cannot run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

mod backing;
mod child;
#[cfg(feature = "cli")]
mod cli;
mod conformance;
mod errors;
mod lifecycle;
mod locks;
mod model;
mod notify;
mod overlay;
mod passthrough;
mod probe;
mod requests;
mod served;
mod signals;
mod stage;
mod stuck;
mod trees;
mod unprivileged;
