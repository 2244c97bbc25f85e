//! See `harness/virtqueue.rs`, which lists the invariants.
#![no_main]
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the other target uses it too")]

#[path = "../harness/virtqueue.rs"]
mod virtqueue;

libfuzzer_sys::fuzz_target!(|input: &[u8]| virtqueue::run(input));
