//! Random operations on every filesystem here and on a plain model, in process.

use std::sync::Arc;

use stratafs_memfs::MemFs;
use stratafs_testkit::{ModelRun, Stack};

use crate::conformance::CAPACITY;

#[test]
fn memfs_agrees_with_the_model() {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    let stack = Stack::in_process("memfs", Arc::new(fs));
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}
