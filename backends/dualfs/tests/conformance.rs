//! The conformance map and the model, with each policy on pairs of several kinds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{CachePolicy, DynFileSystem};
use stratafs_dualfs::{
    BackendAFallbackToBackendBRead, BackendAOnly, DispatchPolicy, DualFs,
    MergeReadsBackendAPrecedence, ReadBackendBWriteBackendA,
};
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, Ledger, ModelRun, Stack};
use support::sides::{Sides, policies};
use support::{mem, populate, populated};

const SHARED: &str = "the host's filesystem is used by others at the same time";
const LINKS: &str =
    "under virtual ownership attributes are the host's in user., which symlinks have not";

fn host(dir: &tempfile::TempDir) -> Arc<dyn DynFileSystem> {
    let builder = PassthroughFs::builder().ownership(Ownership::Virtual).default_owner(0, 0);
    Arc::new(builder.root_dir(dir.path()).build().unwrap())
}

fn stack(policy: impl DispatchPolicy + 'static, sides: [Arc<dyn DynFileSystem>; 2]) -> Stack {
    let name = format!("dual({})", policy.name());
    let [a, b] = sides;
    let fs = DualFs::builder().backend_a(a).backend_b(b).policy(policy).build().unwrap();
    Stack::in_process(name, Arc::new(fs))
}

fn over_memories(policy: impl DispatchPolicy + 'static) {
    stack(policy, [mem(), populated()]).run().assert_passed();
}

/// A memory that takes the changes of a host directory.
fn over_host(policy: impl DispatchPolicy + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let b = host(&dir);
    populate(&b);
    let stack = stack(policy, [mem(), b]);
    let stack = stack.without(Capabilities::ACCOUNTING, SHARED);
    stack.run().assert_passed();
}

/// A host directory that takes the changes of a memory.
fn on_host(policy: impl DispatchPolicy + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(policy, [host(&dir), populated()]);
    let stack = stack.without(Capabilities::ACCOUNTING, SHARED);
    stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS).run().assert_passed();
}

/// An overlay that takes the changes of a memory.
fn on_overlay(policy: impl DispatchPolicy + 'static) {
    let overlay = OverlayFs::builder().layer(mem()).writable(mem()).build().unwrap();
    stack(policy, [Arc::new(overlay), populated()])
        .without(Capabilities::WHITEOUT, "a whiteout would be a deletion in the overlay")
        .without(Capabilities::ACCOUNTING, "the overlay leaves whiteouts behind")
        .run()
        .assert_passed();
}

#[test]
fn map_passes_with_read_backend_b_write_backend_a_over_memories() {
    over_memories(ReadBackendBWriteBackendA);
}

#[test]
fn map_passes_with_backend_a_only_over_memories() {
    over_memories(BackendAOnly);
}

#[test]
fn map_passes_with_backend_a_fallback_to_backend_b_read_over_memories() {
    over_memories(BackendAFallbackToBackendBRead);
}

#[test]
fn map_passes_with_merge_reads_backend_a_precedence_over_memories() {
    over_memories(MergeReadsBackendAPrecedence);
}

#[test]
fn map_passes_with_each_policy_over_a_host_directory() {
    over_host(ReadBackendBWriteBackendA);
    over_host(BackendAOnly);
    over_host(BackendAFallbackToBackendBRead);
    over_host(MergeReadsBackendAPrecedence);
}

#[test]
fn map_passes_with_a_host_directory_that_is_written() {
    on_host(ReadBackendBWriteBackendA);
}

#[test]
fn map_passes_with_each_policy_and_an_overlay_that_is_written() {
    on_overlay(ReadBackendBWriteBackendA);
    on_overlay(BackendAOnly);
    on_overlay(BackendAFallbackToBackendBRead);
    on_overlay(MergeReadsBackendAPrecedence);
}

#[test]
fn map_passes_with_a_dual_within_a_dual_and_nothing_cached() {
    let inner = Sides { a: mem(), b: populated() };
    let inner = inner.build(&policies()[0]);
    let fs = DualFs::builder().backend_a(inner).backend_b(populated());
    let fs = fs.cache_policy(CachePolicy::Never).build().unwrap();
    Stack::in_process("dual over dual", Arc::new(fs)).run().assert_passed();
}

#[test]
fn map_passes_with_records_in_user_attributes() {
    let fs = DualFs::builder().backend_a(mem()).backend_b(populated()).userxattr(true);
    Stack::in_process("dual(userxattr)", Arc::new(fs.build().unwrap())).run().assert_passed();
}

#[test]
fn random_operations_agree_with_the_model() {
    for policy in policies() {
        let fs = Sides { a: mem(), b: populated() }.build(&policy);
        let stack = Stack::in_process(policy.name(), fs);
        ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
    }
}

#[test]
fn everything_taken_of_both_sides_is_given_back() {
    for policy in policies() {
        let (a, of_a) = Ledger::keep(mem());
        let (b, of_b) = Ledger::keep(populated());
        let fs = Sides { a, b }.build(&policy);
        let stack = Stack::in_process("dual", Arc::clone(&fs));
        stack.run().assert_passed();
        drop((stack, fs));
        of_a.check().unwrap();
        of_b.check().unwrap();
    }
}
