//! The mount modes: what is visible, what is writable, what is not reachable.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs::mount_mode::{MountMode, MountModeError};
use stratafs_core::{DynFileSystem, Errno};
use stratafs_routerfs::RouterFs;
use stratafs_testkit::{InProcess, World};

/// A directory of the host with a file, and a secret beside it that links in it lead to.
struct Host {
    top: tempfile::TempDir,
    home: PathBuf,
}

fn host() -> Host {
    let top = tempfile::tempdir().unwrap();
    let home = top.path().join("home/me");
    fs::create_dir_all(home.join("src")).unwrap();
    fs::write(home.join("src/file"), "mine").unwrap();
    fs::write(top.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../../secret", home.join("up")).unwrap();
    std::os::unix::fs::symlink(top.path().join("secret"), home.join("absolute")).unwrap();
    Host { top, home }
}

fn on<T>(router: RouterFs, work: impl FnOnce(&World<'_>) -> T) -> T {
    let fs: Arc<dyn DynFileSystem> = Arc::new(router);
    let client = InProcess::new(fs);
    work(&World::new(&client, ""))
}

/// `path` without its first slash, as a world wants it.
fn below(path: &Path) -> String {
    path.strip_prefix("/").unwrap().display().to_string()
}

fn places(router: &RouterFs) -> Vec<(String, &'static str)> {
    router.mounts().into_iter().map(|mount| (mount.path, mount.kind)).collect()
}

#[test]
fn passthrough_shows_the_host_and_memory_at_v() {
    let host = host();
    let router = MountMode::Passthrough.build().unwrap();
    assert_eq!(places(&router), [("/".into(), "passthrough"), ("/v".into(), "mem")]);
    on(router, |w| {
        assert_eq!(w.read(below(&host.home.join("src/file"))).unwrap(), b"mine");
        w.file("v/blob", b"in memory").unwrap();
        assert!(w.names("").unwrap().contains(&"v".to_owned()), "though the host has none");
    });
    assert!(!Path::new("/v/blob").exists());
}

#[test]
fn sandboxed_shows_its_root_at_its_own_path_and_nothing_beside_it() {
    let host = host();
    let mode = MountMode::Sandboxed { root: Some(host.home.clone()) };
    let router = mode.build().unwrap();
    let home = below(&host.home);
    on(router, |w| {
        assert_eq!(w.read(format!("{home}/src/file")).unwrap(), b"mine");
        w.file(format!("{home}/src/new"), b"new").unwrap();
        w.file("v/blob", b"").unwrap();
        w.file("elsewhere", b"").unwrap();
        assert_eq!(w.stat(below(&host.top.path().join("secret"))).unwrap_err(), Errno::ENOENT);
        // A link is shown as it is; to follow it is the client's, in this tree.
        let target = w.readlink(format!("{home}/absolute")).unwrap();
        let target = String::from_utf8(target).unwrap();
        assert_eq!(w.stat(below(Path::new(&target))).unwrap_err(), Errno::ENOENT);
        assert_eq!(
            w.read(format!("{home}/up")).unwrap_err(),
            Errno::ELOOP,
            "it is never followed here"
        );
        // What is above the root is made up, and stays.
        let parent = below(host.home.parent().unwrap());
        assert_eq!(w.names(&parent).unwrap(), ["me"]);
        assert_eq!(w.rename(&home, "elsewhere-too").unwrap_err(), Errno::EXDEV);
        assert_eq!(w.rmdir(&home).unwrap_err(), Errno::EBUSY);
        let top = parent.split('/').next().unwrap().to_owned();
        assert_eq!(w.rename(&top, "moved").unwrap_err(), Errno::EBUSY);
        assert_eq!(w.link(format!("{home}/src/file"), "leak").unwrap_err(), Errno::EXDEV);
    });
    assert_eq!(fs::read(host.home.join("src/new")).unwrap(), b"new");
    assert!(!Path::new("/elsewhere").exists() && !Path::new("/v/blob").exists());
}

#[test]
fn sandboxed_shares_the_hosts_tmp_only_if_asked_to() {
    let host = host();
    let mode = || MountMode::Sandboxed { root: Some(host.home.clone()) };
    let tmp = |router: RouterFs| {
        router.mounts().into_iter().find(|mount| mount.path == "/tmp").unwrap().kind
    };
    assert_eq!(tmp(mode().build().unwrap()), "mem");
    assert_eq!(tmp(mode().mounts().share_tmp(true).build().unwrap()), "passthrough");
}

#[test]
fn no_local_has_no_host_file() {
    let router = MountMode::NoLocal.build().unwrap();
    let all = [("/".into(), "mem"), ("/tmp".into(), "mem"), ("/v".into(), "mem")];
    assert_eq!(places(&router), all);
    on(router, |w| {
        let mut names = w.names("").unwrap();
        names.sort();
        assert_eq!(names, ["tmp", "v"]);
        assert_eq!(w.stat("tmp").unwrap().mode, 0o041_777);
        w.mkdir("etc", 0o755).unwrap();
        w.file("etc/passwd", b"").unwrap();
    });
}

#[test]
fn copy_on_write_takes_every_change_and_leaves_the_host_as_it_was() {
    let host = host();
    let mode = MountMode::CopyOnWrite { root: Some(host.home.clone()) };
    let home = below(&host.home);
    on(mode.build().unwrap(), |w| {
        w.truncate(format!("{home}/src/file"), 1).unwrap();
        w.file(format!("{home}/src/new"), b"").unwrap();
        w.unlink(format!("{home}/up")).unwrap();
        assert_eq!(w.read(format!("{home}/src/file")).unwrap(), b"m");
    });
    assert_eq!(fs::read(host.home.join("src/file")).unwrap(), b"mine");
    assert!(!host.home.join("src/new").exists());
    assert!(host.home.join("up").is_symlink());
}

#[test]
fn default_is_a_sandbox_in_the_home_directory_and_modes_are_values() {
    assert_eq!(MountMode::default(), MountMode::Sandboxed { root: None });
    let mode = MountMode::CopyOnWrite { root: Some("/srv".into()) };
    assert_eq!(format!("{:?}", mode.clone()), "CopyOnWrite { root: Some(\"/srv\") }");
    let missing = MountMode::Sandboxed { root: Some("/no/such/directory".into()) };
    let error = missing.build().unwrap_err();
    assert!(matches!(error, MountModeError::Host(_)), "{error}");
}
