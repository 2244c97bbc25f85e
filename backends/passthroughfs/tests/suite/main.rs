//! What a host directory promises beyond the conformance map.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

mod acls;
mod budget;
mod confinement;
mod faults;
mod hostile;
mod identity;
mod injected;
mod options;
mod ownership;
mod races;
mod records;
mod state;
mod support;
mod syscalls;
