//! The conformance map, on every filesystem here, in process.

use std::sync::Arc;

use stratafs_core::CachePolicy;
use stratafs_memfs::{ByteSize, Locks, MemFs};
use stratafs_testkit::Stack;

/// Large enough for every case, small enough that an account that is wrong shows.
pub(crate) const CAPACITY: ByteSize = ByteSize::mib(256);

#[test]
fn memfs_passes_every_case() {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    Stack::in_process("memfs", Arc::new(fs)).run().assert_passed();
}

#[test]
fn memfs_that_keeps_locks_itself_passes_every_case() {
    let fs = MemFs::builder().capacity(CAPACITY).locks(Locks::Remote).build().unwrap();
    Stack::in_process("memfs locks=remote", Arc::new(fs)).run().assert_passed();
}

#[test]
fn memfs_without_caches_passes_every_case() {
    let fs = MemFs::builder().capacity(CAPACITY).cache_policy(CachePolicy::Never);
    Stack::in_process("memfs cache=never", Arc::new(fs.build().unwrap())).run().assert_passed();
}
