//! Tests that mount nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

mod arrows;
#[cfg(feature = "cli")]
mod cli;
mod conformance;
mod differential;
mod docs;
mod faults;
mod fuzz_twins;
mod hello;
mod model;
mod mount_mode;
mod nestings;
#[cfg(feature = "cli")]
mod overlay_tools;
mod peers;
mod planted;
mod protocol;
mod simple;
mod tree;
#[cfg(feature = "ring")]
mod vhost;
