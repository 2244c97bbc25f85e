//! Random operations on a directory of the host and on a plain model: the same answers.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

use std::sync::Arc;

use stratafs_passthroughfs::{Builder, Ownership, PassthroughFs};
use stratafs_testkit::model::ModelRun;
use stratafs_testkit::{Capabilities, Stack};

fn agrees(name: &str, builder: Builder) {
    let dir = tempfile::tempdir().unwrap();
    let fs = builder.root_dir(dir.path()).default_owner(0, 0).build().unwrap();
    let stack = Stack::in_process(name, Arc::new(fs))
        .without(Capabilities::ACCOUNTING, "others use the host's filesystem at the same time")
        .without(Capabilities::XATTR_ON_SYMLINK, "symlinks of the host have no user attributes");
    if let Err(disagreement) = ModelRun::from_env().run(&stack) {
        panic!("{disagreement}");
    }
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
