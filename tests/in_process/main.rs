//! Tests that mount nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

mod arrows;
#[cfg(feature = "cli")]
mod cli;
mod docs;
mod fuzz_twins;
mod hello;
mod peers;
mod simple;
mod tree;
