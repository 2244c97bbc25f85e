//! Random operations on a directory of the host and on a plain model: the same answers.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

use std::sync::Arc;

use stratafs_passthroughfs::{Builder, Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, ModelRun, Stack, Stress};

fn with_stack(name: &str, builder: Builder, run: impl FnOnce(&Stack)) {
    let dir = tempfile::tempdir().unwrap();
    let fs = Arc::new(builder.root_dir(dir.path()).default_owner(0, 0).build().unwrap());
    let stack = Stack::in_process(name, Arc::clone(&fs) as _)
        .without(Capabilities::ACCOUNTING, "others use the host's filesystem at the same time")
        .without(Capabilities::XATTR_ON_SYMLINK, "symlinks of the host have no user attributes");
    run(&stack);
    let usage = fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "all is given back");
}

fn agrees(name: &str, builder: Builder) {
    with_stack(name, builder, |stack| {
        ModelRun::from_env().run(stack).unwrap_or_else(|found| panic!("{found}"));
    });
}

fn gives_everything_back(name: &str, builder: Builder) {
    with_stack(name, builder, |stack| {
        Stress::from_env().run(stack).unwrap_or_else(|found| panic!("{found}"));
    });
}

#[test]
fn model_agrees_with_virtual_ownership_and_few_descriptors() {
    let builder = PassthroughFs::builder().ownership(Ownership::Virtual).fd_budget(8);
    agrees("passthrough(virtual)", builder);
}

#[test]
fn model_agrees_with_host_ownership() {
    agrees("passthrough(host)", PassthroughFs::builder().ownership(Ownership::Host));
}

#[test]
fn threads_with_few_descriptors_under_virtual_ownership_give_everything_back() {
    let builder = PassthroughFs::builder().ownership(Ownership::Virtual).fd_budget(16);
    gives_everything_back("passthrough(virtual)", builder);
}

#[test]
fn threads_with_few_descriptors_under_host_ownership_give_everything_back() {
    let builder = PassthroughFs::builder().ownership(Ownership::Host).fd_budget(16);
    gives_everything_back("passthrough(host)", builder);
}
