//! See `harness/vhost_msg.rs`, which lists the invariants.
#![no_main]
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the other target uses the rest of its harness")]

#[path = "../harness/vhost_msg.rs"]
mod vhost_msg;
#[path = "../harness/virtqueue.rs"]
mod virtqueue;

libfuzzer_sys::fuzz_target!(|input: &[u8]| vhost_msg::run(input, true));
