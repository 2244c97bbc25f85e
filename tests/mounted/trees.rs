//! Dual filesystems and routers, through the kernel.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stratafs::mount_mode::MountMode;
use stratafs_core::DynFileSystem;
use stratafs_dualfs::{
    DispatchPolicy, DualFs, MergeReadsBackendAPrecedence, ReadBackendBWriteBackendA,
};
use stratafs_memfs::MemFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_routerfs::{MountFlags, RouterFs};
use stratafs_testkit::{Capabilities, InProcess, ModelRun, Stress, World};
use tempfile::TempDir;

use crate::served::Served;
use crate::stage::Stage;

const SHARED: &str = "the host's filesystem is used by others at the same time";

fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
}

fn host(dir: &Path) -> Arc<dyn DynFileSystem> {
    let share = PassthroughFs::builder().root_dir(dir).ownership(Ownership::Host);
    Arc::new(share.default_owner(0, 0).build().unwrap())
}

/// A host directory with something in it, and memory that takes the changes.
fn dual(dir: &TempDir, policy: impl DispatchPolicy + 'static) -> Arc<dyn DynFileSystem> {
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "of B").unwrap();
    fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
    let builder = DualFs::builder().backend_a(mem()).backend_b(host(dir.path()));
    Arc::new(builder.policy(policy).build().unwrap())
}

fn router(dir: &TempDir) -> RouterFs {
    let inner = mem();
    World::new(&InProcess::new(Arc::clone(&inner)), "").file("f", b"inner").unwrap();
    let builder = RouterFs::builder().mount("/", mem()).mount("/host", host(dir.path()));
    builder.mount("/host/made/up", inner).build().unwrap()
}

#[test]
fn dual_passes_every_case_with_each_order() {
    for first_b in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let fs = match first_b {
            true => dual(&dir, ReadBackendBWriteBackendA),
            false => dual(&dir, MergeReadsBackendAPrecedence),
        };
        let Some(served) = Served::over("mounted dual", fs) else { return };
        let served = served.without(Capabilities::ACCOUNTING, SHARED);
        served.stack().run().assert_passed();
        served.end();
        assert_eq!(fs::read(dir.path().join("d/f")).unwrap(), b"of B");
    }
}

#[test]
fn dual_agrees_with_the_model_and_bears_threads() {
    let dir = tempfile::tempdir().unwrap();
    let fs = dual(&dir, ReadBackendBWriteBackendA);
    let Some(served) = Served::over("mounted dual", fs) else { return };
    let served = served.without(Capabilities::ACCOUNTING, SHARED);
    ModelRun::from_env().run(served.stack()).unwrap_or_else(|found| panic!("{found}"));
    Stress::from_env().run(served.stack()).unwrap_or_else(|found| panic!("{found}"));
    served.end();
}

#[test]
fn router_passes_every_case_in_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let Some(served) = Served::over("mounted router", Arc::new(router(&dir))) else { return };
    served.stack().run().assert_passed();
    served.end();
}

#[test]
fn router_passes_every_case_in_a_mount_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let Some(served) = Served::over("mounted router", Arc::new(router(&dir))) else { return };
    let served = served.without(Capabilities::ACCOUNTING, SHARED).below("host");
    served.stack().run().assert_passed();
    served.end();
}

#[test]
fn router_shows_mounts_to_tools_and_keeps_them_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let router = Arc::new(router(&dir));
    let fs: Arc<dyn DynFileSystem> = Arc::<RouterFs>::clone(&router);
    let Some(stage) = Stage::with(fs, "", 2) else { return };
    let root = stage.mountpoint.path();
    assert_eq!(fs::read(root.join("host/made/up/f")).unwrap(), b"inner");
    let names = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(root.join(path)).unwrap();
        let mut all: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(names(""), ["host"]);
    assert_eq!(names("host"), ["made"]);
    let refused = fs::rename(root.join("host/made"), root.join("host/moved")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
    fs::write(root.join("f"), "x").unwrap();
    let across = fs::rename(root.join("f"), root.join("host/f")).unwrap_err();
    assert_eq!(across.kind(), ErrorKind::CrossesDevices);
    // mv(1) copies then, and `rm -r` of all that is not a mount works.
    let moved = Command::new("mv").arg(root.join("f")).arg(root.join("host/f")).status().unwrap();
    assert!(moved.success());
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"x");

    // What comes and goes shows at once: the kernel is told.
    router.mount("/late", mem(), MountFlags::empty()).unwrap();
    wait("the mount shows", || names("") == ["host", "late"]);
    fs::write(root.join("late/f"), "y").unwrap();
    router.unmount("/late").unwrap();
    wait("the mount is gone", || !root.join("late").exists() && names("") == ["host"]);
}

#[test]
fn flags_of_a_mount_take_its_programs_their_rights() {
    let inner = mem();
    let world = |w: &World<'_>| {
        w.file("tool", b"#!/bin/sh\nexit 0\n").unwrap();
        w.chmod("tool", 0o4755).unwrap();
        w.mknod("null", 0o020_666, 0x103).unwrap();
    };
    world(&World::new(&InProcess::new(Arc::clone(&inner)), ""));
    let builder = RouterFs::builder().mount("/free", Arc::clone(&inner));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let fs = builder.mount_with("/tight", inner, flags).build().unwrap();
    let Some(stage) = Stage::with(Arc::new(fs), "dev,suid", 2) else { return };
    let root = stage.mountpoint.path();
    let run = |path: &str| Command::new(root.join(path)).status();
    assert!(run("free/tool").unwrap().success());
    assert_eq!(run("tight/tool").unwrap_err().kind(), ErrorKind::PermissionDenied);
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("free/tool"), mode("tight/tool")), (0o4755, 0o644));
    assert!(fs::read(root.join("free/null")).is_ok());
    let error = fs::read(root.join("tight/null")).unwrap_err();
    assert!(error.raw_os_error().is_some(), "{error}");
}

#[test]
fn sandbox_shows_nothing_of_the_host_but_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("f"), "mine").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", home.join("up")).unwrap();
    let router = MountMode::Sandboxed { root: Some(home.clone()) }.build().unwrap();
    let Some(stage) = Stage::with(Arc::new(router), "", 2) else { return };
    let root = stage.mountpoint.path();
    let inside = root.join(home.strip_prefix("/").unwrap());
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"mine");
    assert_eq!(fs::read(inside.join("up")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!root.join("etc").exists());
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let refused = fs::remove_dir(inside.parent().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
}

/// Waits until `done`, as long as a loaded machine may need.
fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "no end of waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
