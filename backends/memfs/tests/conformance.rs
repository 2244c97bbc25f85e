//! The conformance map, on every way to set a [`MemFs`] up that changes what it answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use stratafs_core::CachePolicy;
use stratafs_memfs::{Builder, Locks, MemFs};
use stratafs_testkit::Stack;

/// Runs the whole map; what is excused is the kernel's work.
fn run(name: &str, options: impl FnOnce(Builder) -> Builder) {
    let fs = options(MemFs::builder()).build().unwrap();
    let report = Stack::in_process(name, Arc::new(fs))
        .excuse(
            "chmod_by_an_owner_outside_the_group_clears_setgid",
            "the client's kernel does it, which alone knows all groups of the caller",
        )
        .excuse(
            "write_through_a_read_only_handle_returns_ebadf",
            "the kernel refuses such an ftruncate, and sends the same request for a good reason: \
             an open with O_RDONLY and O_TRUNC",
        )
        .run();
    report.assert_passed();
}

#[test]
fn conformance_of_the_defaults() {
    run("mem", |b| b);
}

#[test]
fn conformance_with_remote_locks_and_nothing_cached() {
    run("mem(locks=remote, cache=never)", |b| {
        b.locks(Locks::Remote).cache_policy(CachePolicy::Never)
    });
}
