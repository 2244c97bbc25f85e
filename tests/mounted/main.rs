//! Tests on a filesystem that is mounted over `/dev/fuse`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[cfg(feature = "cli")]
mod cli;
