//! The conformance map, through the kernel.

use stratafs_core::CachePolicy;
use stratafs_memfs::{Builder, Locks, MemFs};

use crate::served::Served;

fn passes_every_case(name: &str, memfs: Builder) {
    let Some(served) = Served::new(name, memfs) else { return };
    served.stack().run().assert_passed();
    served.end();
}

#[test]
fn memfs_passes_every_case() {
    passes_every_case("mounted memfs", MemFs::builder());
}

#[test]
fn memfs_that_keeps_locks_itself_passes_every_case() {
    passes_every_case("mounted memfs locks=remote", MemFs::builder().locks(Locks::Remote));
}

#[test]
fn memfs_without_caches_passes_every_case() {
    let memfs = MemFs::builder().cache_policy(CachePolicy::Never);
    passes_every_case("mounted memfs cache=never", memfs);
}

#[test]
fn memfs_with_a_writeback_cache_passes_every_case() {
    passes_every_case("mounted memfs writeback", MemFs::builder().writeback(true));
}
