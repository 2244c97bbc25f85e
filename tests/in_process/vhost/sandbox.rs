//! The sandbox of `stratafs serve`, seen from outside, and what is served from within.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stratafs::sandbox::{Action, is_root, seccomp};
use stratafs::transport::vhost_user::client::fuse;
use tempfile::TempDir;

use super::command::{Program, command, until_ended};
use super::every;
use super::random::send_chains;

/// nobody, and his group.
const NOBODY: u32 = 65_534;
const EROFS: i32 = 30;
const SIGSYS: i32 = 31;
const ALL: [&str; 5] = ["user", "mnt", "pid", "net", "ipc"];

/// A place that nobody may use, and the program in it.
struct Place {
    directory: TempDir,
    program: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("stratafs");
        let built = env!("CARGO_BIN_EXE_stratafs");
        // No copy: a file that was just written may still be open in a process that another test
        // is starting.
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        let place = Self { directory, program };
        for name in ["share", "lower", "upper", "work"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        fs::write(place.path("lower/below"), "from the lower layer").unwrap();
        fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// Serves `spec` as this user.
    fn serve(&self, spec: &str, more: &[&str]) -> (Program, String) {
        let mut command = command(&["serve", spec, "--log-level", "info", "--socket-path"]);
        command.arg(self.socket()).args(more);
        Program::run(&mut command, &self.socket())
    }

    /// Serves `spec` as nobody, if this is root.
    fn serve_as_nobody(&self, spec: &str, more: &[&str]) -> (Program, String) {
        if !is_root() {
            return self.serve(spec, more);
        }
        for name in ["", "share", "lower", "lower/below", "upper", "work"] {
            chown(self.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")]);
        command.args(["--clear-groups", "env", "--default-signal=INT,HUP"]).arg(&self.program);
        command.args(["serve", spec, "--log-level", "info", "--socket-path"]);
        command.arg(self.socket()).args(more).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null());
        Program::run(&mut command, &self.socket())
    }
}

/// Whether this host lets this user have namespaces, as it lets unshare(1).
fn has_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--mount", "--pid", "--net", "--ipc", "--fork", "true"]);
    let has = unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has {
        eprintln!("not tried: this host allows no namespaces");
    }
    has
}

/// A line of `/proc/PID/status`.
fn status(process: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Which of its namespaces are not this process's.
fn other_namespaces(process: u32) -> Vec<&'static str> {
    let inode = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}"));
    let is_other =
        |kind: &&str| inode(&process.to_string(), kind).unwrap() != inode("self", kind).unwrap();
    ALL.into_iter().filter(is_other).collect()
}

/// What is in a directory of the process's root.
fn list(process: u32, directory: &Path) -> Vec<String> {
    let path = PathBuf::from(format!("/proc/{process}/root")).join(directory);
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

const NO_CAPABILITY: &str = "0000000000000000";

/// The layers that hold in every mode.
fn has_inner_layers(server: u32) {
    assert_eq!(status(server, "NoNewPrivs"), "1");
    assert_eq!(status(server, "Seccomp"), "2");
    assert_eq!(status(server, "CapEff"), NO_CAPABILITY);
    assert_eq!(status(server, "CapPrm"), NO_CAPABILITY);
    assert_eq!(status(server, "CapInh"), NO_CAPABILITY);
    assert_eq!(status(server, "CapAmb"), NO_CAPABILITY);
}

fn first_part(path: &Path) -> String {
    path.components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned()
}

#[test]
fn namespaces_of_root_hold_what_is_served_and_nothing_else() {
    if !has_namespaces() || !is_root() {
        return;
    }
    let place = Place::new();
    let spec = format!("passthrough({}, ownership=virtual)", place.text("share"));
    let (program, said) = place.serve(&spec, &["--require-sandbox"]);
    is_alone_with_its_share(&place, &program, &said);
    assert_eq!(status(program.server(), "CapBnd"), NO_CAPABILITY);
}

#[test]
fn namespaces_of_a_user_hold_what_is_served_and_nothing_else() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let (program, said) = place.serve_as_nobody(&place.text("share"), &["--require-sandbox"]);
    is_alone_with_its_share(&place, &program, &said);
    let user = status(program.server(), "Uid");
    assert!(!is_root() || user.starts_with(&NOBODY.to_string()), "{user}");
}

fn is_alone_with_its_share(place: &Place, program: &Program, said: &str) {
    let server = program.server();
    assert_ne!(server, program.id());
    has_inner_layers(server);
    assert_eq!(other_namespaces(server), ALL);
    assert!(status(server, "NSpid").ends_with("\t1"), "{}", status(server, "NSpid"));
    let share = place.directory.path();
    let mut expected = vec!["proc".to_owned(), first_part(share)];
    expected.push(first_part(&std::env::current_dir().unwrap()));
    expected.sort();
    expected.dedup();
    assert_eq!(list(server, Path::new("")), expected);
    assert_eq!(list(server, share.strip_prefix("/").unwrap()), ["share"]);
    // Of the kernel's own files nothing, and of processes the server alone.
    let proc = list(server, Path::new("proc"));
    assert!(!proc.contains(&"sys".to_owned()) && !proc.contains(&"kcore".to_owned()), "{proc:?}");
    assert!(
        said.contains(
            "sandbox: namespaces user mount pid network ipc; root: what is served; no_new_privs; \
         no capabilities; Landlock; seccomp: kill"
        ) || said.contains("no Landlock"),
        "{said}"
    );
}

#[test]
fn capabilities_of_root_with_the_hosts_owners_are_those_of_files() {
    if !has_namespaces() || !is_root() {
        return;
    }
    let place = Place::new();
    let (program, _) = place.serve(&place.text("share"), &["--require-sandbox"]);
    let server = program.server();
    // chown, dac_override, dac_read_search, fowner, fsetid, mknod and setfcap.
    assert_eq!(status(server, "CapEff"), "000000008800001f");
    assert_eq!(status(server, "CapBnd"), "000000008800001f");
    // A device node takes a capability on the host.
    assert_eq!(other_namespaces(server), ["mnt", "pid", "net", "ipc"]);
}

#[test]
fn chroot_of_root_is_empty() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let spec = format!("passthrough({}, ownership=virtual)", place.text("share"));
    let (program, _) = place.serve(&spec, &["--sandbox=chroot", "--require-sandbox"]);
    let server = program.server();
    has_inner_layers(server);
    assert_eq!(status(server, "CapBnd"), NO_CAPABILITY);
    assert_eq!(list(server, Path::new("")), [""; 0]);
    assert_eq!(other_namespaces(server), [""; 0]);
    let (_vmm, mut queues) = program.guest();
    every::send(&mut queues[1]);
}

#[test]
fn no_sandbox_is_one_process_without_privilege() {
    let place = Place::new();
    let (mut program, _) = place.serve("mem()", &["--sandbox=none"]);
    assert_eq!(program.server(), program.id());
    has_inner_layers(program.id());
    assert_eq!(other_namespaces(program.id()), [""; 0]);
    program.signal("-TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!place.socket().exists());
}

#[test]
fn seccomp_of_each_action_shows_in_the_status() {
    let place = Place::new();
    for (action, filters) in [("kill", "2"), ("log", "2"), ("trap", "2"), ("none", "0")] {
        let (program, _) = place.serve("mem()", &["--seccomp", action]);
        let server = program.server();
        assert_eq!(status(server, "Seccomp"), filters, "{action}");
        drop(program);
        until_ended(server);
    }
}

/// In a process of its own: makes forbidden calls under a filter. See the test below.
#[test]
#[ignore = "ends the whole process; run by the test below in one of its own"]
fn forbidden_call() {
    let [action, call] =
        ["ACTION", "CALL"].map(|name| std::env::var(format!("STRATAFS_TEST_{name}")).unwrap());
    let action = match action.as_str() {
        "kill" => Action::Kill,
        "log" => Action::Log,
        "trap" => Action::Trap,
        _ => Action::None,
    };
    seccomp::install(action).unwrap();
    match call.as_str() {
        "socket" => drop(UnixDatagram::unbound().unwrap()),
        "execve" => panic!("{}", Command::new("true").exec()),
        _ => drop(fs::metadata("/").unwrap()),
    }
    std::process::exit(42);
}

#[test]
fn forbidden_calls_kill_log_or_trap_and_others_are_made() {
    for (action, call, outcome) in [
        ("kill", "socket", (None, Some(SIGSYS))),
        ("kill", "execve", (None, Some(SIGSYS))),
        ("trap", "socket", (None, Some(SIGSYS))),
        ("log", "socket", (Some(42), None)),
        ("log", "execve", (Some(0), None)),
        ("none", "socket", (Some(42), None)),
        ("kill", "stat", (Some(42), None)),
    ] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["vhost::sandbox::forbidden_call", "--exact", "--ignored", "--nocapture"])
            .env("STRATAFS_TEST_ACTION", action)
            .env("STRATAFS_TEST_CALL", call)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!((status.code(), status.signal()), outcome, "{call} under {action}");
    }
}

/// Serves `spec` in the sandbox, where a system call that is missing in the list of those allowed
/// kills the server; sends a request of every kind, and some of none.
fn serves_everything((mut program, _said): (Program, String)) {
    let (vmm, mut queues) = program.guest();
    every::send(&mut queues[1]);
    send_chains(&mut queues[1], 2_000);
    assert!(fuse::getattr(&mut queues[1], fuse::ROOT).is_ok());
    drop((vmm, queues));
    // A second VMM: what begins a connection is done again.
    let (_vmm, mut queues) = program.guest();
    assert!(fuse::lookup(&mut queues[1], fuse::ROOT, "directory").is_ok());
    program.signal("-TERM");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn every_request_is_served_in_the_sandbox_from_memory() {
    let place = Place::new();
    serves_everything(place.serve("mem(cache=auto)", &[]));
}

#[test]
fn every_request_is_served_in_the_sandbox_from_a_directory_of_a_user() {
    let place = Place::new();
    let share = place.text("share");
    serves_everything(place.serve_as_nobody(&share, &[]));
}

#[test]
fn every_request_is_served_in_the_sandbox_from_a_directory_as_this_user() {
    let place = Place::new();
    serves_everything(place.serve(&place.text("share"), &[]));
}

#[test]
fn every_request_is_served_in_the_sandbox_without_handles() {
    let place = Place::new();
    let spec = format!("passthrough({}, exclusive, open=stateless)", place.text("share"));
    serves_everything(place.serve(&spec, &[]));
}

#[test]
fn every_request_is_served_in_the_sandbox_from_an_overlay() {
    for is_nobody in [false, true] {
        let place = Place::new();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.text(name));
        let spec = format!("overlay(lower={lower}, upper={upper}, work={work})");
        if is_nobody {
            serves_everything(place.serve_as_nobody(&spec, &[]));
        } else {
            serves_everything(place.serve(&spec, &[]));
        }
        assert!(place.path("upper/directory").exists());
    }
}

#[test]
fn every_request_is_served_without_a_sandbox_and_a_pool() {
    let place = Place::new();
    let more = ["--sandbox=none", "--thread-pool-size=0"];
    serves_everything(place.serve(&place.text("share"), &more));
}

#[test]
fn path_through_links_and_a_relative_one_are_served_in_the_sandbox() {
    let place = Place::new();
    fs::write(place.path("share/file"), "").unwrap();
    std::os::unix::fs::symlink(place.directory.path(), place.path("here")).unwrap();
    let through = place.text("here/share");
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    let relative = format!("./{up}{}", place.text("share"));
    let file = place.text("share/file");
    for spec in [through, relative, file] {
        let (program, _) = place.serve(&spec, &[]);
        let (_vmm, mut queues) = program.guest();
        assert!(fuse::lookup(&mut queues[1], fuse::ROOT, "file").is_ok(), "{spec}");
        let server = program.server();
        drop(program);
        until_ended(server);
    }
}

#[test]
fn readonly_is_erofs_for_every_change() {
    let place = Place::new();
    let (program, _) = place.serve(&place.text("share"), &["--readonly"]);
    let (_vmm, mut queues) = program.guest();
    let error = fuse::mkdir(&mut queues[1], fuse::ROOT, "a").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EROFS));
    assert_eq!(fs::read_dir(place.path("share")).unwrap().count(), 0);
}

/// A command in a user namespace of its own, in which there can be no further ones.
fn without_namespaces(place: &Place, more: &[&str]) -> Command {
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_stratafs")).args(["serve", "mem()", "--socket-path"]);
    command.arg(place.socket()).args(more).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null());
    command
}

#[test]
fn sandbox_that_cannot_be_is_an_error_if_it_is_required() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let output = without_namespaces(&place, &["--require-sandbox"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("stratafs: cannot make namespaces: ENOSPC"), "{error}");
    assert!(!place.socket().exists());
}

#[test]
fn sandbox_that_cannot_be_is_a_warning_and_leaves_the_other_layers() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let mut command = without_namespaces(&place, &[]);
    let (mut program, said) = Program::run(&mut command, &place.socket());
    assert!(said.contains("WARN") && said.contains("cannot make namespaces: ENOSPC"), "{said}");
    has_inner_layers(program.server());
    let (_vmm, mut queues) = program.guest();
    assert!(fuse::mkdir(&mut queues[1], fuse::ROOT, "a").is_ok());
    program.signal("-TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!place.socket().exists());
}

#[test]
fn kill_of_the_process_outside_ends_the_server_and_frees_the_socket() {
    let place = Place::new();
    let (mut program, _) = place.serve("mem()", &[]);
    let server = program.server();
    let _connected = program.guest();
    program.signal("-KILL");
    program.wait();
    until_ended(server);
    assert!(place.socket().exists());
    let (program, _) = place.serve("mem()", &[]);
    program.guest();
}

#[test]
fn kill_of_the_server_ends_the_process_outside_with_1_and_removes_the_socket() {
    let place = Place::new();
    let (mut program, _) = place.serve("mem()", &[]);
    let server = program.server();
    let kill = Command::new("kill").args(["-KILL", &server.to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(program.wait().code(), Some(1));
    assert!(!place.socket().exists());
}

#[test]
fn signal_to_the_server_itself_ends_both_with_0() {
    let place = Place::new();
    let (mut program, _) = place.serve("mem()", &[]);
    let kill = Command::new("kill").args(["-TERM", &program.server().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(program.wait().code(), Some(0));
    assert!(!place.socket().exists());
}

#[test]
fn syslog_gets_what_is_logged_with_the_number_of_the_process_that_was_started() {
    if !has_namespaces() {
        return;
    }
    let place = Place::new();
    let log = UnixDatagram::bind(place.path("log")).unwrap();
    log.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Where the host's log listens, in a mount namespace.
    let script =
        "mount -t tmpfs tmpfs /dev && : >/dev/log && mount --bind \"$0\" /dev/log && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(place.path("log")).arg(env!("CARGO_BIN_EXE_stratafs"));
    command.args(["serve", "mem()", "--syslog", "--log-level=info", "--socket-path"]);
    command.arg(place.socket()).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    let (program, said) = Program::run(command.stdin(Stdio::null()), &place.socket());
    assert_eq!(said, "");
    let mut message = [0; 1024];
    let len = log.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..len]).into_owned();
    let begin = format!("<30>stratafs[{}]: stratafs::sandbox: sandbox: ", program.id());
    assert!(message.starts_with(&begin), "{message}");
}
