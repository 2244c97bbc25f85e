//! What a suite runs on: a mounted stratafs, or a tmpfs to compare it with.
//!
//! Whatever way a suite ends, nothing stays mounted: [`Mounted`] unmounts on drop, and a run that was
//! killed is cleared away by the next one, in [`Scratch::new`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use anyhow::{Context, Result, bail};

use crate::process::{is_root, run_checked, tail, wait_until};

/// Generous: the machine may be loaded.
const MOUNT_DEADLINE: Duration = Duration::from_secs(30);

/// A filesystem that can be mounted afresh for each suite.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The kernel's own, which says what the suites expect of a filesystem in memory.
    Tmpfs,
    /// The command at `program`, serving `spec`.
    Stratafs {
        /// The `stratafs` command.
        program: PathBuf,
        /// What it mounts.
        spec: &'static str,
    },
}

impl Target {
    /// For messages.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Stratafs { spec, .. } => spec,
        }
    }

    /// Mounts a new, empty one at a directory of `scratch` of this name.
    ///
    /// # Errors
    /// The mount failed, or was not there within 30 s.
    pub(crate) fn mount(&self, scratch: &Scratch, name: &str) -> Result<Mounted> {
        let directory = scratch.directory(name)?;
        let log = scratch.file(&format!("{name}.log"));
        let mut mounted = Mounted { directory, server: None, log };
        match self {
            Self::Tmpfs => {
                let mut mount = Command::new("mount");
                mount.args(["-t", "tmpfs", "-o", "size=1g", "stratafs-xtask"]);
                run_checked(mount.arg(&mounted.directory), &mounted.log, MOUNT_DEADLINE)?;
            }
            Self::Stratafs { program, spec } => mounted.serve(program, spec)?,
        }
        Ok(mounted)
    }
}

/// A mounted filesystem, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    directory: PathBuf,
    server: Option<Child>,
    log: PathBuf,
}

impl Mounted {
    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// The process that serves it, where there is one.
    pub(crate) fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    fn serve(&mut self, program: &Path, spec: &str) -> Result<()> {
        let log = File::create(&self.log)?;
        let mut command = Command::new(program);
        command.arg("mount").arg(spec).arg(&self.directory);
        if is_root() {
            // The suites become other users, and make and open device nodes.
            command.args(["-o", "allow_other,suid,dev"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = command
            .spawn()
            .with_context(|| format!("cannot start {}: build it first", program.display()))?;
        let start = Instant::now();
        while !is_mounted(&self.directory)? {
            if let Some(status) = server.try_wait()? {
                bail!("stratafs mount ended with {status}:\n{}", self.said());
            }
            if start.elapsed() > MOUNT_DEADLINE {
                let _ = server.kill();
                let _ = server.wait();
                bail!("not mounted after {} s:\n{}", MOUNT_DEADLINE.as_secs(), self.said());
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.server = Some(server);
        Ok(())
    }

    /// What the server printed.
    pub(crate) fn said(&self) -> String {
        tail(&String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()))
    }

    /// Unmounts as a user would, and checks that it is gone: SIGTERM to the server, umount for tmpfs.
    ///
    /// # Errors
    /// The server did not end with status 0 within 30 s, or something is still mounted.
    pub(crate) fn unmount(mut self) -> Result<()> {
        match self.server.as_mut() {
            None => {
                let mut umount = Command::new("umount");
                run_checked(umount.arg(&self.directory), &self.log, MOUNT_DEADLINE)?;
            }
            Some(server) => {
                terminate(server.id())?;
                let ended = wait_until(server, MOUNT_DEADLINE)?;
                match ended {
                    None => bail!("the server still runs after SIGTERM:\n{}", self.said()),
                    Some(status) if !status.success() => {
                        bail!("the server ended with {status}:\n{}", self.said())
                    }
                    Some(_) => self.server = None,
                }
            }
        }
        if is_mounted(&self.directory)? {
            bail!("{} is still mounted", self.directory.display());
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(&self.directory).unwrap_or(true) {
            lazy_unmount(&self.directory);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// SIGTERM, by the shell's own `kill`, as the standard library sends none.
pub(crate) fn terminate(pid: u32) -> Result<()> {
    let sent = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status()?;
    if !sent.success() {
        bail!("cannot send SIGTERM to the server: it is gone");
    }
    Ok(())
}

/// What unmounts for this user; an unprivileged one's mounts are fusermount3's.
pub(crate) fn unmount_command() -> Command {
    if is_root() {
        Command::new("umount")
    } else {
        let mut fusermount = Command::new("fusermount3");
        fusermount.arg("-u");
        fusermount
    }
}

/// Detaches a mount whatever uses it.
fn lazy_unmount(directory: &Path) {
    let mut unmount = unmount_command();
    unmount.arg(if is_root() { "-l" } else { "-z" });
    let _ = unmount.arg(directory).stderr(Stdio::null()).status();
}

/// Whether a filesystem is mounted at exactly this directory.
pub(crate) fn is_mounted(directory: &Path) -> Result<bool> {
    Ok(mountpoints()?.iter().any(|mountpoint| mountpoint == directory))
}

fn mountpoints() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    // proc(5): the fifth field is the mount point, its spaces written \040.
    let fields = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(fields.map(|field| PathBuf::from(field.replace("\\040", " "))).collect())
}

/// A directory for one run's mountpoints and logs, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    top: PathBuf,
}

const SCRATCH_PREFIX: &str = "stratafs-xtask.";

impl Scratch {
    /// Makes one under the temporary directory, and clears those whose process is gone.
    pub(crate) fn new() -> Result<Self> {
        let temporary = fs::canonicalize(env::temp_dir()).context("no temporary directory")?;
        for entry in fs::read_dir(&temporary)?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                clear(&entry.path());
            }
        }
        let top = temporary.join(format!("{SCRATCH_PREFIX}{}", process::id()));
        fs::create_dir(&top).with_context(|| format!("cannot create {}", top.display()))?;
        Ok(Self { top })
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.top.join(name);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory)
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&self.top);
    }
}

fn clear(top: &Path) {
    for mountpoint in mountpoints().unwrap_or_default() {
        if mountpoint.starts_with(top) {
            lazy_unmount(&mountpoint);
        }
    }
    let _ = fs::remove_dir_all(top);
}
