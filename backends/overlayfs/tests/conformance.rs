//! The conformance map and the model, on overlays of several kinds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{CachePolicy, DynFileSystem};
use stratafs_overlayfs::{Builder, OverlayFs, Whiteouts};
use stratafs_testkit::{Capabilities, Ledger, ModelRun, Stack};
use support::{mem, populated};

/// An overlay with content in two read-only layers, and whatever `options` add.
fn stack(name: &str, options: impl FnOnce(Builder) -> Builder) -> Stack {
    let builder = OverlayFs::builder().layer(populated("base")).layer(populated("app"));
    let fs = options(builder.writable(mem())).build().unwrap();
    declared(Stack::in_process(name, Arc::new(fs)))
}

/// What every overlay lacks.
fn declared(stack: Stack) -> Stack {
    stack
        .without(Capabilities::WHITEOUT, "a whiteout would be a deletion that no client may make")
        .without(
            Capabilities::ACCOUNTING,
            "a directory that held deleted names of lower layers leaves their whiteouts behind",
        )
}

#[test]
fn conformance_over_memory() {
    stack("overlay", |b| b).run().assert_passed();
}

#[test]
fn conformance_with_nothing_cached_and_user_attributes() {
    let options = |b: Builder| b.cache_policy(CachePolicy::Never).userxattr(true).volatile(true);
    stack("overlay(userxattr, volatile)", options).run().assert_passed();
}

#[test]
fn conformance_with_everything_cached_and_oci_layers() {
    let options =
        |b: Builder| b.cache_policy(CachePolicy::Always).whiteouts(Whiteouts::Oci).xino(false);
    stack("overlay(whiteout=oci)", options).run().assert_passed();
}

#[test]
fn conformance_over_an_overlay() {
    let inner = OverlayFs::builder().layer(populated("base")).layer(populated("app"));
    let inner = Arc::new(inner.build().unwrap());
    let fs = OverlayFs::builder().layer(inner).writable(mem()).build().unwrap();
    declared(Stack::in_process("overlay over overlay", Arc::new(fs))).run().assert_passed();
}

#[test]
fn random_operations_agree_with_the_model() {
    let stack = stack("overlay", |b| b);
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn everything_taken_of_the_layers_is_given_back() {
    let (base, of_base) = Ledger::keep(populated("base"));
    let (scratch, of_scratch) = Ledger::keep(mem());
    let fs = OverlayFs::builder().layer(base).writable(scratch).build().unwrap();
    let fs: Arc<dyn DynFileSystem> = Arc::new(fs);
    let stack = declared(Stack::in_process("overlay", Arc::clone(&fs)));
    stack.run().assert_passed();
    drop((stack, fs));
    of_base.check().unwrap();
    of_scratch.check().unwrap();
}
