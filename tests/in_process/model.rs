//! Random operations on every filesystem here and on a plain model, and by many threads, in
//! process.

use std::sync::Arc;

use stratafs_memfs::{ByteSize, MemFs};
use stratafs_testkit::{ModelRun, Stack, Stress};

use crate::conformance::CAPACITY;

#[test]
fn memfs_agrees_with_the_model() {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    let stack = Stack::in_process("memfs", Arc::new(fs));
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn memfs_under_threads_stays_consistent_and_gives_everything_back() {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    let stack = Stack::in_process("memfs", Arc::new(fs));
    Stress::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

/// So small that operations fail for want of space at any point.
#[test]
fn memfs_that_is_full_stays_consistent_and_gives_everything_back() {
    let fs = MemFs::builder().capacity(ByteSize::kib(64)).max_inodes(20).build().unwrap();
    let stack = Stack::in_process("small memfs", Arc::new(fs));
    Stress::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}
