//! See `harness/spec.rs`, which lists the invariants.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../harness/spec.rs"]
mod spec;

libfuzzer_sys::fuzz_target!(|text: &[u8]| spec::run(text));
