//! The conformance map and the model, on overlays of directories of the host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, OpenFlags, XattrMode};
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, ModelRun, Stack, World};
use support::on;

/// Two directories of the host, one with content, and an overlay of them.
struct Subject {
    fs: Arc<OverlayFs>,
    shares: [Arc<PassthroughFs>; 2],
    stack: Stack,
    dir: tempfile::TempDir,
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
        Self { fs, shares: [base, scratch], stack, dir }
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

#[test]
fn layer_that_changes_underneath_breaks_nothing_but_what_changed() {
    let subject = Subject::new("changing", Ownership::Virtual, true);
    let fs: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&subject.fs) as _;
    let at = |name: &str| subject.dir.path().join("base").join(name);
    std::fs::write(at("etc/other"), "stays").unwrap();
    on(&fs, |w| {
        let fd = w.open("etc/common", OpenFlags::READ_ONLY).unwrap();
        let dir = w.opendir("etc").unwrap();
        std::fs::remove_file(at("etc/common")).unwrap();
        assert_eq!(w.stat("etc/common").unwrap_err(), Errno::ENOENT);
        assert_eq!(w.read_fd(fd).unwrap(), b"base", "what is open stays");
        assert_eq!(w.read("etc/other").unwrap(), b"stays");
        std::fs::write(at("etc/common"), "another").unwrap();
        w.write_at("etc/common", 0, b"A").unwrap();
        assert_eq!(w.read("etc/common").unwrap(), b"Another", "a copy is of what is there");
        std::fs::remove_dir_all(at("etc")).unwrap();
        w.file("etc/new", b"new").unwrap();
        assert_eq!(w.read("etc/new").unwrap(), b"new");
        assert_eq!(w.read("etc/common").unwrap(), b"Another");
        assert_eq!(w.stat("etc/other").unwrap_err(), Errno::ENOENT);
        w.close(fd).unwrap();
        w.close(dir).unwrap();
    });
    on(&fs, |w| assert_eq!(w.names("etc").unwrap(), ["common", "new"]));
    subject.gave_everything_back();
}

#[test]
fn writable_layer_on_a_filesystem_without_attributes_is_refused() {
    if !is_root() {
        eprintln!("not run: it takes root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut ramfs = std::process::Command::new("mount");
    let mounted = ramfs.args(["-t", "ramfs", "ramfs"]).arg(dir.path()).status().unwrap();
    if !mounted.success() {
        eprintln!("not run: it takes a mount");
        return;
    }
    let share = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Host);
    let refused = share.build().map(|share| {
        OverlayFs::builder().layer(support::mem()).writable(Arc::new(share)).build().map(drop)
    });
    let unmounted = std::process::Command::new("umount").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    let said = refused.unwrap().unwrap_err().to_string();
    assert!(said.contains("lacks attributes in trusted."), "{said}");
}

#[test]
fn copy_up_of_a_file_without_a_record_keeps_its_mode_and_owner() {
    let subject = Subject::of_anyone("unrecorded");
    let path = subject.dir.path().join("base/etc/plain");
    std::fs::write(&path, "data").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
    let fs: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&subject.fs) as _;
    on(&fs, |w| {
        let before = w.stat("etc/plain").unwrap();
        w.setxattr("etc/plain", b"user.x", b"1", XattrMode::Set).unwrap();
        let after = w.stat("etc/plain").unwrap();
        assert_eq!((after.mode, after.uid, after.gid), (before.mode, before.uid, before.gid));
        assert_eq!(after.mode & 0o7777, 0o751);
        assert_eq!((after.mtime, after.ino), (before.mtime, before.ino));
    });
    let copy = std::fs::metadata(subject.dir.path().join("scratch/upper/etc/plain")).unwrap();
    assert_eq!(copy.len(), 4);
    subject.gave_everything_back();
}
