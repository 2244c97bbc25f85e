//! The conformance map over a directory of the host.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

use std::sync::Arc;

use stratafs_passthroughfs::{Builder, OpenMode, Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, Stack};

const SHARED: &str = "the host's filesystem is used by others at the same time";

const LINKS: &str =
    "under virtual ownership attributes are the host's in user., which symlinks have not";
const NO_HANDLES: &str = "without handles the kernel alone knows how a file is open";

/// The cases that are about what a handle allows.
const ABOUT_HANDLES: [&str; 5] = [
    "forget_while_open_keeps_the_handle_working",
    "read_through_a_write_only_handle_returns_ebadf",
    "write_through_a_read_only_handle_returns_ebadf",
    "fallocate_through_a_read_only_handle_returns_ebadf",
    "copy_range_into_a_read_only_handle_returns_ebadf",
];

struct Subject {
    fs: Arc<PassthroughFs>,
    stack: Stack,
    _dir: tempfile::TempDir,
}

impl Subject {
    fn new(name: &str, builder: Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = builder.root_dir(dir.path()).default_owner(0, 0).build().unwrap();
        let fs = Arc::new(fs);
        let stack = Stack::in_process(name, Arc::clone(&fs) as _);
        Self { fs, stack: stack.without(Capabilities::ACCOUNTING, SHARED), _dir: dir }
    }

    fn passes(self) {
        let report = self.stack.run();
        println!("{report}");
        report.assert_passed();
        let usage = self.fs.usage();
        assert_eq!((usage.nodes, usage.pins, usage.handles), (1, 0, 0), "{usage:?}");
    }
}

fn builder(ownership: Ownership) -> Builder {
    PassthroughFs::builder().ownership(ownership)
}

#[test]
fn map_with_virtual_ownership_passes() {
    let mut subject = Subject::new("passthrough(virtual)", builder(Ownership::Virtual));
    subject.stack = subject.stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS);
    subject.passes();
}

#[test]
fn map_with_host_ownership_passes() {
    Subject::new("passthrough(host)", builder(Ownership::Host)).passes();
}

#[test]
fn map_with_the_smallest_descriptor_budget_passes() {
    let builder = builder(Ownership::Virtual).fd_budget(8);
    let mut subject = Subject::new("passthrough(virtual, fd_budget=8)", builder);
    subject.stack = subject.stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS);
    subject.passes();
}

#[test]
fn map_of_an_exclusive_share_passes() {
    let builder = builder(Ownership::Virtual).exclusive(true);
    let mut subject = Subject::new("passthrough(virtual, exclusive)", builder);
    subject.stack = subject.stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS);
    subject.passes();
}

#[test]
fn map_without_handles_passes() {
    let builder = builder(Ownership::Virtual).open(OpenMode::Stateless);
    let mut subject = Subject::new("passthrough(virtual, stateless)", builder);
    subject.stack = subject.stack.without(Capabilities::XATTR_ON_SYMLINK, LINKS);
    for case in ABOUT_HANDLES {
        subject.stack = subject.stack.excuse(case, NO_HANDLES);
    }
    subject.passes();
}
