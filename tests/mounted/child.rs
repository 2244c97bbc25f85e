//! A server in a process of its own, for what concerns a whole process.
//!
//! The process is this test binary again, told to run [`serve`] alone.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;

use stratafs::transport::fuse_dev::{Ended, Mount, MountOptions};
use stratafs_memfs::{MemFs, SizeExt as _};
use stratafs_sys::signal::Termination;

use crate::stage::wait_until;

const MOUNTPOINT: &str = "STRATAFS_TEST_MOUNTPOINT";
const OPTIONS: &str = "STRATAFS_TEST_OPTIONS";
const READY: &str = "child: ready";

/// A running server.
pub(crate) struct Serving {
    process: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

/// The command that serves a MemFs on `mountpoint`.
pub(crate) fn command(program: &Path, mountpoint: &Path, options: &str) -> Command {
    // Whoever runs the tests in the background, or by nohup(1), has SIGINT or SIGHUP ignored, and
    // what is ignored a child inherits.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,HUP").arg(program);
    configure(&mut command, mountpoint, options);
    command
}

/// Makes `command`, whose program and leading arguments are there already, serve.
pub(crate) fn configure(command: &mut Command, mountpoint: &Path, options: &str) {
    command
        .args(["child::serve", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(MOUNTPOINT, mountpoint)
        .env(OPTIONS, options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

/// Starts a server in a process of its own and waits until it is ready.
pub(crate) fn start(mountpoint: &Path, options: &str) -> Serving {
    let program = std::env::current_exe().unwrap();
    launch(command(&program, mountpoint, options)).unwrap()
}

/// Starts `command` and waits until it is ready.
///
/// # Errors
/// What it said, if it ended instead.
pub(crate) fn launch(mut command: Command) -> Result<Serving, String> {
    let mut process = command.spawn().unwrap();
    let stderr = BufReader::new(process.stderr.take().unwrap());
    let mut serving = Serving { process, stderr, said: String::new() };
    loop {
        let mut line = String::new();
        if serving.stderr.read_line(&mut line).unwrap() == 0 {
            return Err(serving.wait().1);
        }
        if line.trim_end() == READY {
            return Ok(serving);
        }
        serving.said.push_str(&line);
    }
}

impl Serving {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends `signal`, by the name that kill(1) gives it.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and answers all that it said.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        wait_until("the server ends", || self.process.try_wait().unwrap().is_some());
        let _ = self.stderr.read_to_string(&mut self.said);
        (self.process.wait().unwrap(), std::mem::take(&mut self.said))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "is a server; other tests run it in a process of its own"]
fn serve() {
    let Some(mountpoint) = std::env::var_os(MOUNTPOINT) else { return };
    let options: OsString = std::env::var_os(OPTIONS).unwrap_or_default();
    let termination = Termination::install().unwrap();
    let mounted = MountOptions::parse([options]).and_then(|options| {
        let (uid, gid) = options.server_ids()?;
        let filesystem = MemFs::builder().capacity(64.mib()).root_owner(uid, gid).build().unwrap();
        let mount = Mount::builder(Arc::new(filesystem)).options(options).threads(2);
        mount.mount(Path::new(&mountpoint))
    });
    let server = match mounted {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(if error.is_misuse() { 2 } else { 1 });
        }
    };
    eprintln!("{READY}");
    let ended = server.wait_or(termination);
    match server.unmount() {
        Ok(()) => eprintln!("{}", if ended == Ended::Unmounted { "unmounted" } else { "signal" }),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
    // A thread that was joined is listed a moment longer, until the kernel has buried it.
    wait_until("nothing is left behind", || left_behind().is_empty());
    std::process::exit(0);
}

/// Descriptors of the device and threads of the server that outlived it.
fn left_behind() -> Vec<String> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    let devices = files.map(|file| file.display().to_string()).filter(|file| file == "/dev/fuse");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let threads = names.filter(|name| name.starts_with("stratafs-"));
    devices.chain(threads).collect()
}
