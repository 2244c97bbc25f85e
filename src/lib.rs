//! Composable userspace filesystem backends for microVM hosts.

#![forbid(unsafe_code)]

pub mod protocol;
pub mod spec;
