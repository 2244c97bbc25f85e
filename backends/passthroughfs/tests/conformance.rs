//! The conformance map over a directory of the host.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

use std::sync::Arc;

use stratafs_passthroughfs::{OpenMode, Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, Stack};

const SHARED: &str = "the host's filesystem is used by others at the same time";

fn conforms(name: &str, ownership: Ownership, open: OpenMode) {
    let dir = tempfile::tempdir().unwrap();
    let fs = PassthroughFs::builder()
        .root_dir(dir.path())
        .ownership(ownership)
        .open_mode(open)
        .default_owner(0, 0)
        .build()
        .unwrap();
    let fs = Arc::new(fs);
    let report = Stack::in_process(name, Arc::clone(&fs) as _)
        .without(Capabilities::ACCOUNTING, SHARED)
        .run();
    println!("{report}");
    report.assert_passed();
    let usage = fs.usage();
    assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "{usage:?}");
}

#[test]
fn map_with_virtual_ownership_passes() {
    conforms("passthrough(virtual)", Ownership::Virtual, OpenMode::Handles);
}

#[test]
fn map_with_host_ownership_passes() {
    conforms("passthrough(host)", Ownership::Host, OpenMode::Handles);
}

#[test]
fn map_without_handles_passes() {
    conforms("passthrough(virtual, stateless)", Ownership::Virtual, OpenMode::Stateless);
}
