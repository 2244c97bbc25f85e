//! `stratafs mount` as a program: what it says, when it returns, what it leaves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// For machines under load; what is waited for takes milliseconds otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory to mount on, unmounted whatever happens.
struct Mountpoint(TempDir);

impl Mountpoint {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn is_mounted(&self) -> bool {
        let path = self.path();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
    }

    fn unmount(&self) {
        assert!(self.unmount_command(&[]).status().unwrap().success());
    }

    fn unmount_command(&self, options: &[&str]) -> Command {
        let mut command = if is_root() {
            Command::new("umount")
        } else {
            let mut command = Command::new("fusermount3");
            command.arg("-u");
            command
        };
        command.args(options).arg(self.0.path());
        command
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        // A test that failed may leave a mount behind.
        let lazy = if is_root() { "-l" } else { "-z" };
        let _ = self.unmount_command(&[lazy]).stderr(Stdio::null()).status();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn stratafs(args: &[&str], path: &Path) -> Command {
    // Whoever runs the tests in the background, or by nohup(1), has SIGINT or SIGHUP ignored, and
    // what is ignored a child inherits.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,HUP", env!("CARGO_BIN_EXE_stratafs")]);
    command.arg("mount").args(args).arg("mem(capacity=16MiB)").arg(path).env_remove("RUST_LOG");
    command
}

/// A server in the foreground that has said that it is ready.
struct Foreground {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Foreground {
    fn start(args: &[&str], path: &Path) -> (Self, String) {
        Self::of(&mut stratafs(args, path))
    }

    fn of(command: &mut Command) -> (Self, String) {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        (Self { child, stderr }, line)
    }

    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// The status and what else was said.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose command line ends with this path.
fn servers_of(path: &Path) -> Vec<String> {
    let end = format!("{}\0", path.display());
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes
        .filter(|process| {
            fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.ends_with(&end))
        })
        .map(|process| process.display().to_string())
        .collect()
}

fn mount_until_signal_ends_cleanly(signal: &str) {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let (server, line) = Foreground::start(&[], &path);
    assert_eq!(line, format!("stratafs: mem(capacity=16MiB) is mounted on {}\n", path.display()));
    assert!(mountpoint.is_mounted());
    fs::write(path.join("file"), "content").unwrap();
    server.signal(signal);
    let (status, rest) = server.end();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    assert!(!mountpoint.is_mounted());
    assert!(!path.join("file").exists());
}

#[test]
fn mount_until_sigterm_says_one_line_and_unmounts() {
    mount_until_signal_ends_cleanly("TERM");
}

#[test]
fn mount_until_sigint_says_one_line_and_unmounts() {
    mount_until_signal_ends_cleanly("INT");
}

#[test]
fn mount_that_someone_else_unmounts_ends_with_0() {
    let mountpoint = Mountpoint::new();
    let (server, _) = Foreground::start(&["--threads", "1"], &mountpoint.path());
    mountpoint.unmount();
    let (status, rest) = server.end();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
}

#[test]
fn mount_in_the_background_returns_when_it_is_mounted_with_its_streams_closed() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    // `output` returns when both streams are closed by everybody who had them.
    let output = stratafs(&["--background"], &path).output().unwrap();
    assert!(mountpoint.is_mounted());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"");
    let line = format!("stratafs: mem(capacity=16MiB) is mounted on {}\n", path.display());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
    fs::write(path.join("file"), "content").unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"content");
    assert_eq!(servers_of(&path).len(), 1);
    mountpoint.unmount();
    wait_until("the server ends", || servers_of(&path).is_empty());
}

#[test]
fn mount_in_the_background_leaves_session_and_working_directory() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let output = stratafs(&["--background"], &path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let server = PathBuf::from(servers_of(&path).pop().unwrap());
    assert_eq!(fs::read_link(server.join("cwd")).unwrap(), Path::new("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(fs::read_link(server.join(stream)).unwrap(), Path::new("/dev/null"), "{stream}");
    }
    // Field 6 of stat, the fourth after the name in parentheses, is the session.
    let stat = fs::read_to_string(server.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    assert_eq!(fields.split_whitespace().nth(3), server.file_name().unwrap().to_str());
    mountpoint.unmount();
    wait_until("the server ends", || servers_of(&path).is_empty());
}

#[test]
fn mount_of_a_spec_with_options_shows_in_the_mount_table() {
    let mountpoint = Mountpoint::new();
    let options = ["-o", "noatime", "-o", "fsname=a source,ro"];
    let (server, _) = Foreground::start(&options, &mountpoint.path());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(mountpoint.path().to_str().unwrap()));
    let line = line.unwrap();
    assert!(line.starts_with("a\\040source "), "{line}");
    assert!(line.contains(" fuse.stratafs ro,"), "{line}");
    assert!(line.contains("noatime"), "{line}");
    assert!(fs::write(mountpoint.path().join("file"), "").is_err());
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn mount_by_the_helper_s_name_is_silent_and_in_the_background() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let links = TempDir::new().unwrap();
    let helper = links.path().join("mount.stratafs");
    symlink(env!("CARGO_BIN_EXE_stratafs"), &helper).unwrap();
    let mut command = Command::new(&helper);
    command.arg("mem(size=1M)").arg(&path).args(["-o", "rw,noatime", "-t", "stratafs"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
    assert!(mountpoint.is_mounted());
    let again = command.output().unwrap();
    assert_eq!(again.status.code(), Some(32), "{again:?}");
    mountpoint.unmount();
    wait_until("the server ends", || servers_of(&path).is_empty());
}

#[test]
fn mount_belongs_to_whoever_mounts_it() {
    let mountpoint = Mountpoint::new();
    let own = fs::metadata(mountpoint.path()).unwrap().uid();
    let (server, _) = Foreground::start(&[], &mountpoint.path());
    assert_eq!(fs::metadata(mountpoint.path()).unwrap().uid(), own);
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn mount_with_setuid_belongs_to_and_is_served_by_that_user() {
    if !is_root() {
        eprintln!("skipped: only root mounts for another user");
        return;
    }
    let mountpoint = Mountpoint::new();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = users.lines().find_map(|line| line.strip_prefix("nobody:x:")).unwrap();
    let uid: u32 = nobody.split(':').next().unwrap().parse().unwrap();
    let options = ["-o", "setuid=nobody,allow_other"];
    let (server, line) = Foreground::start(&options, &mountpoint.path());
    assert!(line.contains("is mounted on"), "{line}");
    assert_eq!(fs::metadata(mountpoint.path()).unwrap().uid(), uid);
    let process = PathBuf::from(format!("/proc/{}/task/{}", server.child.id(), server.child.id()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
    assert!(!mountpoint.is_mounted());
}

#[test]
fn mount_under_an_umask_and_a_low_limit_of_descriptors_is_bound_by_neither() {
    let (mountpoint, share) = (Mountpoint::new(), TempDir::new().unwrap());
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,HUP", "sh", "-c"]);
    command.args(["ulimit -Sn 256; umask 077; exec \"$@\"", "-"]);
    command.args([env!("CARGO_BIN_EXE_stratafs"), "mount"]).arg(share.path());
    command.arg(mountpoint.path()).env_remove("RUST_LOG");
    let (server, line) = Foreground::of(&mut command);
    assert!(line.contains("is mounted on"), "{line}");
    let of =
        |what: &str| fs::read_to_string(format!("/proc/{}/{what}", server.child.id())).unwrap();
    assert!(of("status").contains("Umask:\t0000"));
    let limits = of("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|at| line.split_whitespace().nth(at).unwrap().parse::<u64>());
    let (soft, hard) = (soft.unwrap(), hard.unwrap_or(u64::MAX));
    assert!(soft == hard || soft >= 1_000_000, "{line}");
    let script = "umask 0; cd \"$1\" && : > file && mkdir dir && mkfifo fifo";
    let made = Command::new("sh").args(["-c", script, "-"]).arg(mountpoint.path()).status();
    assert!(made.unwrap().success());
    for (name, mode) in [("file", 0o666), ("dir", 0o777), ("fifo", 0o666)] {
        let path = mountpoint.path().join(name);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{name}");
    }
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn mount_that_gave_up_its_privilege_serves_the_data_of_host_files_itself() {
    if !is_root() {
        eprintln!("skipped: only root gives privilege up");
        return;
    }
    let (mountpoint, share) = (Mountpoint::new(), TempDir::new().unwrap());
    fs::write(share.path().join("file"), "content").unwrap();
    let chown = Command::new("chown").args(["-R", "nobody"]).arg(share.path()).status();
    assert!(chown.unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    command.args(["--log-level", "debug", "mount", "-o", "setuid=nobody,allow_other"]);
    let spec = format!("passthrough({}, ownership=virtual)", share.path().display());
    let mut child =
        command.arg(spec).arg(mountpoint.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let (mut said, mut told) = (0, Vec::new());
    for line in lines.by_ref() {
        said += usize::from(line.contains("without CAP_SYS_ADMIN"));
        told.push(line);
        if told.last().is_some_and(|line| line.contains("is mounted on")) {
            break;
        }
    }
    for _ in 0..2 {
        assert_eq!(fs::read(mountpoint.path().join("file")).unwrap(), b"content");
        fs::write(mountpoint.path().join("new"), "more").unwrap();
        assert_eq!(fs::read(share.path().join("new")).unwrap(), b"more");
    }
    mountpoint.unmount();
    let rest: Vec<_> = lines.collect();
    said += rest.iter().filter(|line| line.contains("CAP_SYS_ADMIN")).count();
    assert_eq!(said, 1, "{told:?} {rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn mount_on_a_mountpoint_of_another_server_exits_1_in_both_forms() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let (server, _) = Foreground::start(&[], &path);
    let foreground = stratafs(&[], &path).output().unwrap();
    let background = stratafs(&["--background"], &path).output().unwrap();
    let text = String::from_utf8(foreground.stderr.clone()).unwrap();
    assert_eq!(foreground.status.code(), Some(1), "{text}");
    assert!(text.starts_with("stratafs: cannot mount on "), "{text}");
    assert!(text.contains("EBUSY"), "{text}");
    assert_eq!((background.status, background.stderr), (foreground.status, foreground.stderr));
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
    assert!(!mountpoint.is_mounted());
}

#[test]
fn mount_with_traced_logs_requests_at_its_level() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    command.args(["--log-level", "debug", "mount", "traced(mem())"]).arg(&path);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("traced(mem()) is mounted on")));
    fs::create_dir(path.join("made")).unwrap();
    mountpoint.unmount();
    assert!(lines.any(|line| line.contains("mkdir(") && line.contains("\"made\"")));
    let _ = lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Layers of the host for the command line of fuse-overlayfs.
fn layers() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    for name in ["app", "ba:se", "up", "work"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    for (path, content) in [("app/a", "app's"), ("ba:se/a", "base"), ("ba:se/b", "base")] {
        fs::write(dir.path().join(path), content).unwrap();
    }
    let at = dir.path().display().to_string();
    let options = format!("lowerdir={at}/app:{at}/ba\\:se,upperdir={at}/up");
    (dir, options)
}

#[test]
fn fuse_overlayfs_mounts_in_the_background_by_name_and_as_a_subcommand() {
    let mountpoint = Mountpoint::new();
    let path = mountpoint.path();
    let links = TempDir::new().unwrap();
    let link = links.path().join("fuse-overlayfs");
    symlink(env!("CARGO_BIN_EXE_stratafs"), &link).unwrap();
    let mut by_name = Command::new(&link);
    by_name.arg("overlay");
    let mut subcommand = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    subcommand.arg("fuse-overlayfs");
    for mut command in [by_name, subcommand] {
        let (dir, options) = layers();
        let work = format!("workdir={},noatime", dir.path().join("work").display());
        command.args(["-o", &options, "-o", &work]).arg(&path).env_remove("RUST_LOG");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap();
        assert!(line.starts_with("fuse-overlayfs ") && line.contains(" fuse.fuse-overlayfs "));
        assert_eq!(fs::read(path.join("a")).unwrap(), b"app's");
        assert_eq!(fs::read(path.join("b")).unwrap(), b"base");
        fs::write(path.join("b"), "changed").unwrap();
        fs::remove_file(path.join("a")).unwrap();
        mountpoint.unmount();
        wait_until("the server ends", || servers_of(&path).is_empty());
        assert_eq!(fs::read(dir.path().join("up/b")).unwrap(), b"changed");
        assert!(fs::symlink_metadata(dir.path().join("up/a")).unwrap().rdev() == 0);
    }
}

#[test]
fn fuse_overlayfs_that_is_asked_wrongly_mounts_nothing() {
    let mountpoint = Mountpoint::new();
    let run = |options: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        command.args(["fuse-overlayfs", "-o", options]).arg(mountpoint.path());
        command.output().unwrap().status.code()
    };
    assert_eq!(run("noatime"), Some(2));
    assert_eq!(run("lowerdir=/tmp,squash_to_root"), Some(2));
    assert_eq!(run("lowerdir=/nonexistent"), Some(1));
    assert!(!mountpoint.is_mounted());
}
