//! Mounts by a user who is not root, through `fusermount3`.
//!
//! In a mount namespace of its own the device is opened to everybody, as it is on most hosts.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stratafs_sys::creds;

use crate::child::{self, Serving};
use crate::signals::open_to_all;
use crate::stage::{Mountpoint, wait_until};

/// The user who mounts.
const USER: &str = "nobody";

struct Unprivileged {
    mountpoint: Mountpoint,
    program: PathBuf,
    device: PathBuf,
}

impl Unprivileged {
    /// `None` where it cannot be tried.
    fn new() -> Option<Self> {
        let mountpoint = Mountpoint::new()?;
        if Command::new("fusermount3").arg("-V").output().is_err() {
            eprintln!("\n********** skipped: fusermount3 is not installed **********\n");
            return None;
        }
        let user = creds::user(USER).unwrap();
        let beside = mountpoint.beside();
        open_to_all(beside);
        chown(mountpoint.path(), Some(user.uid), Some(user.gid)).unwrap();
        // Where this binary was built the user may have no access. Another process copies it: what
        // other tests start meanwhile would inherit a descriptor open for writing, and for as long
        // as one is the copy is a "text file busy" that nobody can run.
        let program = beside.join("program");
        let mut copy = Command::new("cp");
        copy.arg(std::env::current_exe().unwrap()).arg(&program);
        assert!(copy.status().unwrap().success());
        let device = beside.join("fuse");
        let mut mknod = Command::new("mknod");
        mknod.args(["-m", "666"]).arg(&device).args(["c", "10", "229"]);
        assert!(mknod.status().unwrap().success());
        Some(Self { mountpoint, program, device })
    }

    /// A shell as the user, in a namespace where the device is open; runs its arguments.
    fn shell(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c"]);
        command.arg(
            "set -e; mount --bind \"$0\" /dev/fuse; \
             exec setpriv --reuid nobody --regid nogroup --clear-groups \"$@\"",
        );
        command.arg(&self.device);
        command
    }

    fn start(&self, options: &str) -> Result<Serving, String> {
        let mut command = self.shell();
        command.arg(&self.program);
        child::configure(&mut command, self.mountpoint.path(), options);
        child::launch(command)
    }
}

/// Runs a program on `path` in the namespace of `server`, as the user.
fn beside(server: &Serving, program: &[&str], path: &Path) -> Output {
    Command::new("nsenter")
        .args(["-m", "-t", &server.pid().to_string()])
        .args(["setpriv", "--reuid", USER, "--regid", "nogroup", "--clear-groups"])
        .args(program)
        .arg(path)
        .output()
        .unwrap()
}

/// Whether something is mounted where `server` sees the mountpoint.
fn mounts_of(server: &Serving) -> String {
    fs::read_to_string(format!("/proc/{}/mounts", server.pid())).unwrap_or_default()
}

#[test]
fn mount_by_a_user_is_theirs_and_ends_with_sigterm() {
    let Some(it) = Unprivileged::new() else { return };
    let server = it.start("").unwrap();
    let mounts = mounts_of(&server);
    let path = it.mountpoint.path().to_str().unwrap();
    let line = mounts.lines().find(|line| line.contains(path)).unwrap();
    assert!(line.starts_with("stratafs:mem ") && line.contains(" fuse.stratafs "), "{line}");
    assert!(line.contains("nosuid,nodev") && line.contains("default_permissions"), "{line}");
    assert!(!line.contains("allow_other"), "{line}");
    assert!(beside(&server, &["mkdir"], &it.mountpoint.path().join("dir")).status.success());
    server.signal("TERM");
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn umount_by_the_user_with_fusermount3_exits_0() {
    let Some(it) = Unprivileged::new() else { return };
    let server = it.start("").unwrap();
    let output = beside(&server, &["fusermount3", "-u"], it.mountpoint.path());
    assert!(output.status.success(), "{output:?}");
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("unmounted"), "{said}");
}

#[test]
fn sigkill_with_auto_unmount_leaves_the_user_nothing_mounted() {
    let Some(it) = Unprivileged::new() else { return };
    // A process that keeps the namespace, to look into it after the server's end.
    let mut keeper = it.shell();
    let script = "setpriv --pdeathsig KILL \"$0\" \"$@\" & wait; exec sleep 100";
    keeper.args(["sh", "-c", script]).arg(&it.program);
    child::configure(&mut keeper, it.mountpoint.path(), "auto_unmount");
    let keeper = child::launch(keeper).unwrap();
    let path = it.mountpoint.path().to_str().unwrap();
    assert!(mounts_of(&keeper).contains(path));
    let server = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid())).unwrap();
    let pid = server.split_whitespace().next().unwrap();
    assert!(Command::new("kill").args(["-s", "KILL", pid]).status().unwrap().success());
    wait_until("it is unmounted", || !mounts_of(&keeper).contains(path));
}

#[test]
fn mount_where_the_user_may_not_write_says_so() {
    let Some(it) = Unprivileged::new() else { return };
    chown(it.mountpoint.path(), Some(0), Some(0)).unwrap();
    let said = it.start("").err().expect("it was mounted");
    assert!(said.contains("through fusermount3") && said.contains("that you own"), "{said}");
}

#[test]
fn mount_without_fusermount3_says_what_to_install() {
    let Some(it) = Unprivileged::new() else { return };
    let mut command = it.shell();
    command.args(["env", "PATH=/nonexistent"]).arg(&it.program);
    child::configure(&mut command, it.mountpoint.path(), "");
    let said = child::launch(command).err().expect("it was mounted");
    assert!(said.contains("package fuse3"), "{said}");
}

#[test]
fn setuid_by_a_user_says_that_it_takes_root() {
    let Some(it) = Unprivileged::new() else { return };
    let said = it.start("setuid=daemon").err().expect("it was mounted");
    assert!(said.contains("EPERM") && said.contains("only root"), "{said}");
}
