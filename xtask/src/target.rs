//! What a suite runs on: a mounted stratafs, or a tmpfs to compare it with.
//!
//! Whatever way a suite ends, nothing stays mounted: [`Mounted`] unmounts on drop, and a run that was
//! killed is cleared away by the next one, in [`Scratch::new`].

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, mem, process, thread};

use anyhow::{Context, Result, bail};

use crate::process::{find_on_path, is_root, run_checked, tail, wait_until};

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
        spec: String,
        /// More for its `-o`, with commas between.
        options: &'static str,
    },
    /// Another project's server, which stays in the foreground and takes the mountpoint last.
    Peer {
        /// Its name.
        label: &'static str,
        /// The program and its arguments but for the mountpoint.
        command: Vec<OsString>,
    },
    /// What mount(8) mounts with these arguments and the mountpoint after them.
    Kernel {
        /// Its name.
        label: &'static str,
        /// The arguments.
        arguments: Vec<OsString>,
    },
}

impl Target {
    /// `spec` served by the command at `program`, with no options of its own.
    pub(crate) fn stratafs(program: &Path, spec: impl Into<String>) -> Self {
        Self::Stratafs { program: program.to_owned(), spec: spec.into(), options: "" }
    }

    /// For messages.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Stratafs { spec, .. } => spec,
            Self::Peer { label, .. } | Self::Kernel { label, .. } => label,
        }
    }

    /// Mounts a new, empty one at a directory of `scratch` of this name.
    ///
    /// # Errors
    /// The mount failed, or was not there within 30 s.
    pub(crate) fn mount(&self, scratch: &Scratch, name: &str) -> Result<Mounted> {
        let directory = scratch.directory(name)?;
        let log = scratch.file(&format!("{name}.log"));
        let mut mounted = Mounted { directory, server: None, exits_cleanly: true, log };
        match self {
            Self::Tmpfs => mounted.mount(["-t", "tmpfs", "-o", "size=1g", "stratafs-xtask"])?,
            Self::Kernel { arguments, .. } => mounted.mount(arguments)?,
            Self::Stratafs { program, spec, options } => {
                let mut command = outliving_nobody(program);
                command.arg("mount").arg(spec).arg(&mounted.directory);
                if is_root() {
                    // The suites become other users, and make and open device nodes.
                    command.args(["-o", "allow_other,suid,dev"]);
                }
                if !options.is_empty() {
                    command.args(["-o", options]);
                }
                mounted.serve(command)?;
            }
            Self::Peer { command, label } => {
                let program = command.first().with_context(|| format!("{label}: no program"))?;
                let mut server = outliving_nobody(Path::new(program));
                server.args(&command[1..]).arg(&mounted.directory);
                mounted.exits_cleanly = false;
                mounted.serve(server)?;
            }
        }
        Ok(mounted)
    }
}

/// A server that dies with this process, however that ends.
fn outliving_nobody(program: &Path) -> Command {
    match find_on_path("setpriv") {
        None => Command::new(program),
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
    }
}

/// A mounted filesystem, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    directory: PathBuf,
    server: Option<Child>,
    /// Whether the server ends with status 0 on SIGTERM.
    exits_cleanly: bool,
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

    fn mount(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(arguments).arg(&self.directory);
        run_checked(&mut mount, &self.log, MOUNT_DEADLINE).map(drop)
    }

    fn serve(&mut self, mut command: Command) -> Result<()> {
        let log = File::create(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = command.spawn().with_context(|| {
            format!("cannot start {}: build it first", command.get_program().display())
        })?;
        let start = Instant::now();
        while !is_mounted(&self.directory)? {
            if let Some(status) = server.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.said());
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
                if self.exits_cleanly {
                    terminate(server.id())?;
                } else {
                    // Some end with an error on a signal; all end well where they are unmounted.
                    let mut umount = Command::new("umount");
                    run_checked(umount.arg(&self.directory), &self.log, MOUNT_DEADLINE)?;
                }
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

/// An image of an empty ext4 in memory, on a tmpfs of its own, to be mounted through a loop device.
#[derive(Debug)]
pub(crate) struct Image {
    target: Target,
    _memory: Mounted,
}

impl Image {
    /// Makes one of `gib` GiB, which takes memory only as it fills, under this name in `scratch`.
    ///
    /// # Errors
    /// mkfs.ext4 is missing or failed.
    pub(crate) fn ext4(scratch: &Scratch, name: &str, gib: u64) -> Result<Self> {
        let memory = Target::Kernel {
            label: "tmpfs",
            arguments: ["-t", "tmpfs", "-o", "size=90%", "stratafs-xtask"].map(Into::into).into(),
        };
        let memory = memory.mount(scratch, name)?;
        let image = memory.path().join("ext4");
        File::create_new(&image)?.set_len(gib << 30)?;
        let mkfs = find_on_path("mkfs.ext4").context("mkfs.ext4 is not installed")?;
        // What is otherwise written in the background after the mount would fall into measurements.
        let mut mkfs = Command::new(mkfs);
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image);
        run_checked(&mut mkfs, &scratch.file(&format!("{name}.log")), MOUNT_DEADLINE)?;
        let arguments = ["-t", "ext4", "-o", "loop"].map(OsString::from).into_iter();
        let arguments = arguments.chain([image.into_os_string()]).collect();
        Ok(Self { target: Target::Kernel { label: "ext4", arguments }, _memory: memory })
    }

    /// Mounts the image; the loop device goes with the mount.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}

/// A private ext4, empty, in memory.
#[derive(Debug)]
pub(crate) struct Ext4 {
    // In the order in which they must go.
    mounted: Mounted,
    _image: Image,
}

impl Ext4 {
    /// Makes one of `gib` GiB, which takes memory only as it fills, under this name in `scratch`.
    ///
    /// # Errors
    /// The kernel has no ext4 or no loop devices, or mkfs.ext4 is missing.
    pub(crate) fn new(scratch: &Scratch, name: &str, gib: u64) -> Result<Self> {
        let image = Image::ext4(scratch, &format!("{name}-image"), gib)?;
        let mounted = image.target.mount(scratch, name)?;
        fs::remove_dir(mounted.path().join("lost+found"))?;
        Ok(Self { mounted, _image: image })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.path().join(name);
        fs::create_dir(&directory)?;
        Ok(directory)
    }
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

    /// One that another of this process made and leaked.
    pub(crate) fn adopt(top: PathBuf) -> Self {
        Self { top }
    }

    /// Leaves it where it is.
    pub(crate) fn leak(self) -> PathBuf {
        let mut this = self;
        mem::take(&mut this.top)
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
        if !self.top.as_os_str().is_empty() {
            clear(&self.top);
        }
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
