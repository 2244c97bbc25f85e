//! Against the kernel's overlayfs: what we leave it mounts and shows the same, what it leaves we
//! show the same, and the same changes come to the same.
//!
//! It takes root, for a mount; without, each test says so and ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod options;
mod random;
#[path = "../support/mod.rs"]
mod support;
