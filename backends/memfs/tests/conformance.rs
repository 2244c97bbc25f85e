//! The conformance map, on every way to set a [`MemFs`] up that changes what it answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use stratafs_core::CachePolicy;
use stratafs_memfs::{Builder, Locks, MemFs};
use stratafs_testkit::{ModelRun, Stack};

/// The filesystem with these options.
fn stack(name: &str, options: impl FnOnce(Builder) -> Builder) -> Stack {
    let fs = options(MemFs::builder()).build().unwrap();
    Stack::in_process(name, Arc::new(fs))
}

/// Runs the whole map.
fn run(name: &str, options: impl FnOnce(Builder) -> Builder) {
    stack(name, options).run().assert_passed();
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

#[test]
fn random_operations_agree_with_the_model() {
    let stack = stack("mem", |b| b);
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}
