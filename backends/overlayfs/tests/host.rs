//! The conformance map and the model, on overlays of directories of the host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, ModelRun, Stack, World};
use support::on;

/// Two directories of the host, one with content, and an overlay of them.
struct Subject {
    fs: Arc<OverlayFs>,
    shares: [Arc<PassthroughFs>; 2],
    stack: Stack,
    _dir: tempfile::TempDir,
}

fn fill(w: &World<'_>) {
    w.mkdir("etc", 0o755).unwrap();
    w.file("etc/common", b"base").unwrap();
    w.symlink("common", "etc/link").unwrap();
}

impl Subject {
    fn new(name: &str, ownership: Ownership, userxattr: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let share = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let share = PassthroughFs::builder().root_dir(path).default_owner(0, 0);
            Arc::new(share.ownership(ownership).build().unwrap())
        };
        let (base, scratch) = (share("base"), share("scratch"));
        on(&(Arc::<PassthroughFs>::clone(&base) as _), fill);
        let fs = OverlayFs::builder()
            .layer(Arc::<PassthroughFs>::clone(&base))
            .writable(Arc::<PassthroughFs>::clone(&scratch))
            .userxattr(userxattr)
            .build()
            .unwrap();
        let fs = Arc::new(fs);
        let stack = Stack::in_process(name, Arc::<OverlayFs>::clone(&fs) as Arc<dyn DynFileSystem>)
            .without(Capabilities::ACCOUNTING, "the host's filesystem is used by others too")
            .without(
                Capabilities::WHITEOUT,
                "a whiteout would be a deletion, which no client makes",
            );
        Self { fs, shares: [base, scratch], stack, _dir: dir }
    }

    /// Under virtual ownership, which needs no privilege.
    fn of_anyone(name: &str) -> Self {
        let mut subject = Self::new(name, Ownership::Virtual, true);
        let why = "attributes of symlinks are the host's in user., which symlinks have not";
        subject.stack = subject.stack.without(Capabilities::XATTR_ON_SYMLINK, why);
        subject
    }

    /// Nothing of the layers is held but what the overlay holds itself: the directories `upper`,
    /// `work`, `work/work` and `work/index`, and the roots.
    fn gave_everything_back(self) {
        assert_eq!(self.fs.nodes(), 1);
        let held: Vec<_> = self.shares.iter().map(|share| share.usage()).collect();
        assert_eq!(held.iter().map(|usage| usage.handles).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(held.iter().map(|usage| usage.nodes).collect::<Vec<_>>(), [1, 5]);
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn map_over_directories_of_anyone_passes() {
    let subject = Subject::of_anyone("overlay of the host, userxattr");
    subject.stack.run().assert_passed();
    subject.gave_everything_back();
}

#[test]
fn map_over_directories_of_root_passes() {
    if !is_root() {
        eprintln!("not run: it takes root");
        return;
    }
    let subject = Subject::new("overlay of the host", Ownership::Host, false);
    subject.stack.run().assert_passed();
    subject.gave_everything_back();
}

#[test]
fn random_operations_over_directories_of_the_host_agree_with_the_model() {
    let subject = Subject::of_anyone("overlay of the host, userxattr");
    let run = ModelRun { lists: ModelRun::from_env().lists.min(30), ..ModelRun::from_env() };
    run.run(&subject.stack).unwrap_or_else(|found| panic!("{found}"));
    subject.gave_everything_back();
}
