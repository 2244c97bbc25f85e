//! The conformance map, the model and a stress on routers of several kinds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{CachePolicy, DynFileSystem};
use stratafs_memfs::MemFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_routerfs::{MountFlags, RouterFs};
use stratafs_testkit::{Capabilities, Ledger, ModelRun, Stack, Stress, cases};
use support::mem;

const OF_THE_ROOT: &str = "statfs is asked of the root, which is another mount";
const SHARED: &str = "the host's filesystem is used by others at the same time";
const LINKS: &str =
    "under virtual ownership attributes are the host's in user., which symlinks have not";

fn uncached() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().cache_policy(CachePolicy::Never).build().unwrap())
}

fn host(dir: &tempfile::TempDir) -> Arc<dyn DynFileSystem> {
    let builder = PassthroughFs::builder().ownership(Ownership::Virtual).default_owner(0, 0);
    Arc::new(builder.root_dir(dir.path()).build().unwrap())
}

fn two_memories() -> Arc<dyn DynFileSystem> {
    let builder = RouterFs::builder().mount("/", mem()).mount("/deep/in/it", mem());
    Arc::new(builder.mount("/deep/in/it/and/on", uncached()).build().unwrap())
}

fn with_host(dir: &tempfile::TempDir) -> Arc<dyn DynFileSystem> {
    Arc::new(RouterFs::builder().mount("/", mem()).mount("/host", host(dir)).build().unwrap())
}

#[test]
fn map_passes_in_the_root_of_two_memories() {
    Stack::in_process("router(/=mem)", two_memories()).run().assert_passed();
}

#[test]
fn map_passes_in_a_mount_within_a_memory() {
    let stack = Stack::in_process("router(/deep/in/it=mem)", two_memories()).below("deep/in/it");
    stack.without(Capabilities::ACCOUNTING, OF_THE_ROOT).run().assert_passed();
}

#[test]
fn map_passes_in_the_root_of_a_memory_with_a_host_directory() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::in_process("router(/=mem, /host=passthrough)", with_host(&dir));
    stack.run().assert_passed();
}

#[test]
fn map_passes_in_a_host_directory_within_a_memory() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::in_process("router(/host=passthrough)", with_host(&dir)).below("host");
    let stack = stack.without(Capabilities::ACCOUNTING, OF_THE_ROOT);
    stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS).run().assert_passed();
}

#[test]
fn map_passes_in_the_root_of_a_host_directory() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RouterFs::builder().mount("/", host(&dir)).mount("/mem", mem()).build().unwrap();
    let stack = Stack::in_process("router(/=passthrough, /mem=mem)", Arc::new(fs));
    let stack = stack.without(Capabilities::ACCOUNTING, SHARED);
    stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS).run().assert_passed();
}

#[test]
fn map_passes_in_routers_within_routers() {
    // The ids of the outermost have no room for an index, so they go through tables.
    let mut fs = two_memories();
    for _ in 0..3 {
        let builder = RouterFs::builder().mount("/", mem()).mount("/in", fs);
        fs = Arc::new(builder.build().unwrap());
    }
    let stack = Stack::in_process("router(/in=router(…))", fs).below("in/in/in/deep/in/it");
    stack.without(Capabilities::ACCOUNTING, OF_THE_ROOT).run().assert_passed();
}

#[test]
fn random_operations_agree_with_the_model() {
    let stack = Stack::in_process("router", two_memories());
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn four_threads_leave_a_tree_that_makes_sense() {
    let stack = Stack::in_process("router", two_memories());
    Stress { operations: 1000, ..Stress::from_env() }.run(&stack).unwrap();
}

#[test]
fn everything_taken_of_the_members_is_given_back() {
    let (root, of_root) = Ledger::keep(mem());
    let (below, of_below) = Ledger::keep(mem());
    support::on(&(Arc::clone(&root) as _), |w| w.mkdir("on", 0o755).unwrap());
    let fs = RouterFs::builder().mount("/", root).mount("/on/the/way", below);
    let fs: Arc<dyn DynFileSystem> = Arc::new(fs.build().unwrap());
    for at in ["", "on/the/way"] {
        let stack = Stack::in_process("router", Arc::clone(&fs));
        let stack = if at.is_empty() { stack } else { stack.below(at) };
        let stack = stack.without(Capabilities::ACCOUNTING, OF_THE_ROOT);
        // Without those which forget what they were not given: the members are told, as they are.
        let honest = cases().iter().filter(|case| !case.name.contains("forget"));
        stack.run_cases(honest).assert_passed();
    }
    drop(fs);
    of_root.check().unwrap();
    of_below.check().unwrap();
}

#[test]
fn map_of_a_mount_without_setuid_devices_and_execution_passes_but_for_these() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let fs = RouterFs::builder().mount_with("/", mem(), flags).build().unwrap();
    let report = Stack::in_process("router(nosuid,nodev,noexec)", Arc::new(fs))
        .without(Capabilities::DEVICES, "the mount is nodev")
        .without(Capabilities::KILL_PRIV, "the mount is nosuid")
        .run();
    for (name, failure) in &report.failed {
        let text = failure.to_string();
        assert!(text.contains("mode"), "{name} fails for something else: {text}");
    }
    assert!(report.passed.len() > 200, "{report}");
}
