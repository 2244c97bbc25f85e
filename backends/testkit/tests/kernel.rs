//! The cases themselves, tested: the kernel's own filesystems pass them.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use stratafs_testkit::{Capabilities, ModelRun, Stack, Stress};

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

/// A stack on a tmpfs of its own.
fn tmpfs_stack() -> Option<(Stack, Tmpfs)> {
    let Some(tmpfs) = Tmpfs::mount() else {
        println!("SKIPPED: no right to mount a tmpfs");
        return None;
    };
    let stack = Stack::mounted("tmpfs", tmpfs.path())
        .ok()?
        .without(Capabilities::ZERO_RANGE, "tmpfs has no FALLOC_FL_ZERO_RANGE")
        .without(
            Capabilities::COLLAPSE_RANGE | Capabilities::INSERT_RANGE,
            "tmpfs moves no ranges of a file",
        );
    Some((stack, tmpfs))
}

/// A stack on whatever filesystem the temporary directory is on.
fn directory_stack() -> (Stack, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let stack = Stack::mounted("temporary directory", dir.path())
        .expect("it can be opened")
        .without(Capabilities::ACCOUNTING, "others use this filesystem too");
    (stack, dir)
}

#[test]
fn tmpfs_passes_every_case() {
    let Some((stack, _tmpfs)) = tmpfs_stack() else { return };
    stack.run().assert_passed();
}

#[test]
fn filesystem_of_the_temporary_directory_passes_every_case() {
    let (stack, _dir) = directory_stack();
    stack.run().assert_passed();
}

#[test]
fn tmpfs_agrees_with_the_model() {
    let Some((stack, _tmpfs)) = tmpfs_stack() else { return };
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn filesystem_of_the_temporary_directory_agrees_with_the_model() {
    let (stack, _dir) = directory_stack();
    ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn tmpfs_under_threads_stays_consistent_and_gives_everything_back() {
    let Some((stack, _tmpfs)) = tmpfs_stack() else { return };
    Stress::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
}
