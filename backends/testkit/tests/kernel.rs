//! The cases themselves, tested: the kernel's own filesystems pass them.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use stratafs_testkit::{Capabilities, Stack};

/// A tmpfs of its own, where this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64M,mode=755", "testkit"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn tmpfs_passes_every_case() {
    let Some(tmpfs) = Tmpfs::mount() else {
        println!("SKIPPED: no right to mount a tmpfs");
        return;
    };
    Stack::mounted("tmpfs", tmpfs.path())
        .unwrap()
        .without(Capabilities::ZERO_RANGE, "tmpfs has no FALLOC_FL_ZERO_RANGE")
        .without(
            Capabilities::COLLAPSE_RANGE | Capabilities::INSERT_RANGE,
            "tmpfs moves no ranges of a file",
        )
        .run()
        .assert_passed();
}

#[test]
fn filesystem_of_the_temporary_directory_passes_every_case() {
    let dir = tempfile::tempdir().unwrap();
    Stack::mounted("temporary directory", dir.path())
        .unwrap()
        .without(Capabilities::ACCOUNTING, "others use this filesystem too")
        .run()
        .assert_passed();
}
