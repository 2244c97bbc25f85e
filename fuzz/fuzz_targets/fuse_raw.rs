//! See `harness/raw.rs`, which lists the invariants.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../harness/raw.rs"]
mod raw;

libfuzzer_sys::fuzz_target!(|input: &[u8]| raw::run(input));
