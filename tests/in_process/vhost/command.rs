//! `stratafs serve` as a program: signals, kills, sockets, exit codes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stratafs::transport::vhost_user::client::{Queue, Setup, Vmm, fuse};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub(super) struct Program {
    child: Child,
    pub(super) socket: PathBuf,
}

pub(super) fn command(args: &[&str]) -> Command {
    // Whoever runs the tests in the background, or by nohup(1), has SIGINT or SIGHUP ignored, and
    // what is ignored a child inherits.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,HUP", env!("CARGO_BIN_EXE_stratafs")]);
    command.args(args).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

impl Program {
    /// Starts `stratafs serve` and waits for the line that says that it is ready.
    pub(super) fn start(socket: &Path, more: &[&str]) -> Self {
        Self::serving("mem(capacity=64MiB)", socket, more)
    }

    pub(super) fn serving(spec: &str, socket: &Path, more: &[&str]) -> Self {
        let mut command = command(&["serve", spec]);
        command.arg("--socket-path").arg(socket).args(more);
        Self::run(&mut command, socket).0
    }

    /// The same for a command that serves at `socket`; and what it said before.
    pub(super) fn run(command: &mut Command, socket: &Path) -> (Self, String) {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said}")).unwrap();
            if line.contains("is served at") {
                break;
            }
            said.push_str(&line);
            said.push('\n');
        }
        // Nothing it says later may block it.
        thread::spawn(move || lines.for_each(drop));
        (Self { child, socket: socket.to_owned() }, said)
    }

    /// The process that was started.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves: in a sandbox a child of the one that was started.
    pub(super) fn server(&self) -> u32 {
        child_of(self.id()).unwrap_or(self.id())
    }

    pub(super) fn guest(&self) -> (Vmm, Vec<Queue>) {
        let stream = UnixStream::connect(&self.socket).unwrap();
        let (vmm, mut queues) = Vmm::connect(stream, &Setup::default()).unwrap();
        fuse::init(&mut queues[1]).unwrap();
        (vmm, queues)
    }

    pub(super) fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(name).arg(self.child.id().to_string()).status();
        assert!(kill.unwrap().success());
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.server())).unwrap().count()
    }
}

/// The one child of a process, if it has one.
fn child_of(parent: u32) -> Option<u32> {
    let line = format!("PPid:\t{parent}\n");
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let mut ids = all.filter_map(|name| name.to_str()?.parse().ok());
    ids.find(|id| {
        fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|status| status.contains(&line))
    })
}

/// Waits until a process has ended, whether or not its parent has noticed.
pub(super) fn until_ended(id: u32) {
    let deadline = Instant::now() + PATIENCE;
    let lives = || {
        let status = fs::read_to_string(format!("/proc/{id}/status"));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    };
    while lives() {
        assert!(Instant::now() < deadline, "process {id} does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sigterm_with_a_vmm_connected_ends_it_with_0_and_removes_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start(&directory.path().join("s"), &[]);
    let (_vmm, mut queues) = program.guest();
    fuse::mkdir(&mut queues[1], fuse::ROOT, "a").unwrap();
    program.signal("-TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(!program.socket.exists());
}

#[test]
fn serve_under_an_umask_and_a_low_limit_of_descriptors_is_bound_by_neither() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; umask 027; exec \"$@\"", "-"]);
    command.args([env!("CARGO_BIN_EXE_stratafs"), "serve", "mem()", "--socket-path"]);
    command.arg(&socket).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    let (program, _) = Program::run(&mut command, &socket);
    let of = |what: &str| fs::read_to_string(format!("/proc/{}/{what}", program.server())).unwrap();
    assert!(of("status").contains("Umask:\t0000"));
    let limits = of("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|at| line.split_whitespace().nth(at).unwrap().parse::<u64>());
    let (soft, hard) = (soft.unwrap(), hard.unwrap_or(u64::MAX));
    assert!(soft == hard || soft >= 1_000_000, "{line}");
    // The socket lets its owner in and nobody else, all the same.
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn vmms_that_come_and_go_a_hundred_times_leave_no_descriptor_and_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start(&directory.path().join("s"), &[]);
    let counts = || (program.count("fd"), program.count("task"));
    let before = counts();
    for round in 0..100 {
        let (vmm, mut queues) = program.guest();
        fuse::mkdir(&mut queues[1], fuse::ROOT, format!("{round}")).unwrap();
        drop((vmm, queues));
    }
    let deadline = Instant::now() + PATIENCE;
    while counts() != before {
        assert!(Instant::now() < deadline, "{:?}, before {before:?}", counts());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn socket_of_a_killed_server_is_taken_over_twenty_times_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    for _ in 0..20 {
        let mut program = Program::start(&socket, &[]);
        let (_vmm, mut queues) = program.guest();
        let queue = &mut queues[1];
        let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
        for block in 0..50 {
            fuse::write(queue, node, handle, block * 4096, &[7; 4096]).unwrap();
        }
        // Requests that it is in the middle of.
        for slot in 0..8 {
            let args = fuse::write_args(handle, 0, 4096);
            let call = stratafs::transport::vhost_user::client::Call {
                opcode: fuse::op::WRITE,
                node,
                args: args.bytes(),
                data: &[8; 4096],
                room: Some(8),
            };
            queue.submit(slot, &call).unwrap();
        }
        queue.kick().unwrap();
        program.signal("-KILL");
        program.wait();
        assert!(socket.exists());
    }
    let program = Program::start(&socket, &[]);
    program.guest();
}

#[test]
fn what_a_guest_had_fsynced_is_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (share, socket) = (directory.path().join("share"), directory.path().join("s"));
    fs::create_dir(&share).unwrap();
    let spec = format!("passthrough({}, ownership=virtual)", share.display());
    let mut program = Program::serving(&spec, &socket, &[]);
    let (_vmm, mut queues) = program.guest();
    let queue = &mut queues[1];
    let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
    for block in 0..16 {
        fuse::write(queue, node, handle, block * 4096, &[block as u8; 4096]).unwrap();
        fuse::fsync(queue, node, handle).unwrap();
    }
    program.signal("-KILL");
    program.wait();

    let program = Program::serving(&spec, &socket, &[]);
    let (_vmm, mut queues) = program.guest();
    let queue = &mut queues[1];
    let node = fuse::lookup(queue, fuse::ROOT, "file").unwrap();
    let handle = fuse::open(queue, node).unwrap();
    for block in 0..16 {
        let data = fuse::read(queue, node, handle, block * 4096, 4096).unwrap();
        assert!(data == [block as u8; 4096], "block {block}");
    }
}

#[test]
fn once_ends_with_0_when_the_vmm_goes() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start(&directory.path().join("s"), &["--once"]);
    drop(program.guest());
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn two_sockets_serve_two_vmms_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let second = directory.path().join("t");
    let more = ["--socket-path", second.to_str().unwrap()];
    let program = Program::start(&directory.path().join("s"), &more);
    let (_vmm, mut one) = program.guest();
    let (_other, mut two) =
        Vmm::connect(UnixStream::connect(&second).unwrap(), &Setup::default()).unwrap();
    fuse::init(&mut two[1]).unwrap();
    let node = fuse::mkdir(&mut one[1], fuse::ROOT, "a").unwrap();
    assert!(fuse::getattr(&mut two[1], node).is_err());
    assert_eq!(fuse::lookup(&mut two[1], fuse::ROOT, "a").unwrap(), node);
}

#[test]
fn notify_socket_is_told_when_vmms_can_connect() {
    let directory = tempfile::tempdir().unwrap();
    let (notify, socket) = (directory.path().join("n"), directory.path().join("s"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command(&["serve", "mem()", "--socket-path"]);
    command.arg(&socket).env("NOTIFY_SOCKET", &notify).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let mut program = Program { child, socket };
    let mut told = [0; 64];
    let len = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..len], b"READY=1\n");
    program.guest();
    program.signal("-INT");
    assert_eq!(program.wait().code(), Some(0));
    let len = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..len], b"STOPPING=1\n");
}

/// Runs to its end; the exit code and the standard error.
fn fails(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    assert_eq!(output.stdout, b"", "{args:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn serve_that_cannot_be_says_why_and_exits_1_or_2() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let socket = at("s");
    let _program = Program::start(Path::new(&socket), &[]);
    fs::write(at("file"), "").unwrap();
    for (args, code, says) in [
        (&["serve", "mem()", "--socket-path", &socket][..], 1, "another server listens there"),
        (&["serve", "mem()", "--socket-path", &at("file")], 1, "no socket"),
        (&["serve", "mem()", "--socket-path", &at("no/s")], 1, "the directory is missing"),
        (&["serve", "mem()", "--socket-path", &at(&"x".repeat(120))], 1, "longer than a socket's"),
        (&["serve", "mem()", "--fd", "77"], 1, "descriptor 77: EBADF"),
        (&["serve", "mem()", "--fd", "1"], 2, "1 is not in"),
        (&["serve", "mem(capcity=1)", "--socket-path", &at("t")], 2, "capcity"),
        (&["serve", "mem()", "--socket-path", &at("t"), "--tag", ""], 2, "a tag has 1 to 36"),
        (&["serve", "mem()", "--socket-path", &at("t"), "--socket-group", "no such"], 2, "group"),
        (&["serve", "mem()", "--socket-path", &at("t"), "--sandbox=some"], 2, "--sandbox"),
        (
            &["serve", "mem()", "--socket-path", &at("t"), "--sandbox=none", "--require-sandbox"],
            2,
            "exclude each other",
        ),
        (&["serve", &at("no"), "--socket-path", &at("t")], 1, "make it, or check the spelling"),
        (&["serve", "mem()"], 2, "--socket-path"),
        (&["serve", "--socket-path", &at("t")], 2, "<SPEC>"),
    ] {
        let (exit, error) = fails(args);
        assert_eq!(exit, Some(code), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    assert!(!Path::new(&at("t")).exists());
}

/// Serves with `stdin` for descriptor 3.
fn with_descriptor_3(stdin: Stdio) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 3<&0 </dev/null", "-"]);
    command.args([env!("CARGO_BIN_EXE_stratafs"), "serve", "mem()", "--fd=3"]);
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(stdin);
    command
}

#[test]
fn fd_that_is_listened_on_is_served_and_its_file_left() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = with_descriptor_3(Stdio::from(OwnedFd::from(listener)));
    let (mut program, _) = Program::run(&mut command, &socket);
    let (_vmm, mut queues) = program.guest();
    assert!(fuse::mkdir(&mut queues[1], fuse::ROOT, "a").is_ok());
    program.signal("-TERM");
    assert_eq!(program.wait().code(), Some(0));
    assert!(socket.exists());
}

#[test]
fn fd_that_is_no_socket_or_not_listened_on_says_so_and_exits_1() {
    let connected = UnixStream::pair().unwrap().0;
    for (stdin, says) in [
        (Stdio::null(), "it is no Unix stream socket"),
        (Stdio::from(OwnedFd::from(connected)), "nobody listens on it"),
    ] {
        let output = with_descriptor_3(stdin).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let begin = "stratafs: cannot listen on descriptor 3: ";
        assert!(error.starts_with(begin) && error.contains(says), "{error}");
    }
}

#[test]
fn help_has_every_option_and_exits_0() {
    let output = command(&["serve", "--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--socket-path",
        "--fd",
        "--socket-group",
        "--tag",
        "--num-request-queues",
        "--thread-pool-size",
        "--once",
        "--rlimit-nofile",
        "--readonly",
        "--sandbox",
        "--require-sandbox",
        "--seccomp",
        "--syslog",
        "--print-capabilities",
        "--log-level",
    ] {
        assert!(
            text.contains(&format!("{option}\n")) || text.contains(&format!("{option} ")),
            "{option}"
        );
    }
}

#[test]
fn print_capabilities_needs_no_spec() {
    let output = command(&["serve", "--print-capabilities"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"{\n  \"type\": \"fs\"\n}\n");
}

#[test]
fn ring_probe_tells_what_a_server_is() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start(&directory.path().join("s"), &["--tag", "root"]);
    let socket = program.socket.to_str().unwrap();
    let output = command(&["ring", "--socket", socket, "probe"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "tag: root\nFUSE: 7.41\nroot: mode 40755\n");
    assert_eq!(output.status.code(), Some(0));
}
