//! Mounts that cannot be: a message that says what to do, and nothing left behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use stratafs::transport::fuse_dev::{Mount, MountError, MountOptions, Server};
use stratafs_memfs::{MemFs, SizeExt as _};

use crate::child;
use crate::stage::{Mountpoint, Stage, can_mount};

fn mem() -> Arc<MemFs> {
    Arc::new(MemFs::builder().capacity(1.mib()).build().unwrap())
}

fn mount(path: &Path, options: &str) -> Result<Server, MountError> {
    let options = MountOptions::parse([options])?;
    Mount::builder(mem()).options(options).threads(1).mount(path)
}

#[track_caller]
fn assert_says(result: Result<Server, MountError>, words: &[&str]) {
    let text = result.expect_err("it was mounted").to_string();
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[test]
fn mount_on_a_missing_directory_says_mkdir() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    assert_says(mount(&mountpoint.path().join("no"), ""), &["ENOENT", "mkdir -p"]);
}

#[test]
fn mount_on_a_file_says_it_is_no_directory() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let file = mountpoint.beside().join("file");
    fs::write(&file, b"").unwrap();
    assert_says(mount(&file, ""), &["ENOTDIR"]);
}

#[test]
fn mount_on_a_mountpoint_of_ours_says_it_is_busy_and_leaves_it() {
    let Some(stage) = Stage::new(mem()) else { return };
    fs::write(stage.path("file"), b"x").unwrap();
    assert_says(mount(stage.mountpoint.path(), ""), &["EBUSY", "stratafs:mem", "umount"]);
    assert_eq!(fs::read(stage.path("file")).unwrap(), b"x");
}

#[test]
fn mount_over_a_foreign_filesystem_is_the_callers_right() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let mut tmpfs = Command::new("mount");
    tmpfs.args(["-t", "tmpfs", "tmpfs"]).arg(mountpoint.path());
    assert!(tmpfs.status().unwrap().success());
    fs::write(mountpoint.path().join("below"), b"x").unwrap();
    let server = mount(mountpoint.path(), "").unwrap();
    assert!(!mountpoint.path().join("below").exists());
    server.unmount().unwrap();
    assert!(mountpoint.path().join("below").exists());
}

#[test]
fn mount_as_an_unknown_user_says_who_is_missing_and_mounts_nothing() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let result = mount(mountpoint.path(), "setuid=no-such-user");
    assert_says(result, &["no-such-user", "ENOENT", "getent passwd"]);
    assert!(!mountpoint.is_mounted());
}

#[test]
fn mount_with_options_that_the_kernel_refuses_mounts_nothing() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let mut options = MountOptions::default();
    // Past the parser, which would refuse it.
    options.fsname = Some("x".repeat(5000).into());
    let result = Mount::builder(mem()).options(options).mount(mountpoint.path());
    assert_says(result, &["cannot mount on"]);
    assert!(!mountpoint.is_mounted());
}

#[test]
fn mount_of_a_filesystem_that_refuses_to_begin_fails_and_mounts_nothing() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let filesystem = crate::probe::Probe::refusing();
    let result = Mount::builder(filesystem).mount(mountpoint.path());
    assert_says(result, &["EPROTO", "could not begin", "EIO"]);
    assert!(!mountpoint.is_mounted());
}

/// Runs a server in a mount namespace of its own, where `prepare`, a shell script, ran before.
fn in_namespace(prepare: &str, mountpoint: &Path) -> Option<String> {
    if !can_mount() {
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).arg(format!("set -e; {prepare}; exec \"$@\"")).arg("sh");
    command.arg(program);
    child::configure(&mut command, mountpoint, "");
    Some(child::launch(command).err().expect("it was mounted"))
}

#[test]
fn mount_without_the_device_says_modprobe() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    // An empty /dev, but for what the test's own process needs.
    let prepare = "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; \
                   mknod -m 666 /dev/urandom c 1 9";
    let said = in_namespace(prepare, mountpoint.path()).unwrap();
    assert!(said.contains("ENOENT") && said.contains("modprobe fuse"), "{said}");
}

#[test]
fn mount_with_a_device_that_is_not_fuse_fails_and_mounts_nothing() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let said = in_namespace("mount --bind /dev/null /dev/fuse", mountpoint.path()).unwrap();
    assert!(said.contains("cannot mount on") && said.contains("EINVAL"), "{said}");
}

#[test]
fn mount_without_the_privilege_says_which() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(program);
    child::configure(&mut command, mountpoint.path(), "");
    let said = child::launch(command).err().expect("it was mounted");
    assert!(said.contains("EPERM") && said.contains("SYS_ADMIN"), "{said}");
    assert!(!mountpoint.is_mounted());
}
