//! The README's command to mount, as it stands there but for the place and the build.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Tally, Targets};
use crate::process::{source_root, tail, wait_until};
use crate::target::{Scratch, Target, is_mounted, unmount_command};

pub(super) const CASES: usize = 1;

const BUILD_AND_RUN: &str = "cargo run --release --";
const MOUNTPOINT: &str = "/mnt/x";
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs the command, uses what it mounted, and unmounts it as the README says a user may.
pub(super) fn run(targets: &Targets, scratch: &Scratch) -> Result<Tally> {
    let mut tally = Tally::default();
    match &targets.cached {
        Target::Stratafs { program, .. } => {
            tally.count("the README's command mounts", mount(program, scratch));
        }
        other => {
            println!("SKIPPED: the README mounts no {}", other.label());
            tally.skipped = CASES;
        }
    }
    Ok(tally)
}

fn mount(program: &Path, scratch: &Scratch) -> Result<()> {
    let readme = fs::read_to_string(source_root().join("README.md"))?;
    let line = readme.lines().find(|line| line.contains(BUILD_AND_RUN));
    let line = line.with_context(|| format!("no line of the README has `{BUILD_AND_RUN}`"))?;
    let mountpoint = scratch.file("readme");
    let line = line
        .replace(BUILD_AND_RUN, &program.display().to_string())
        .replace(MOUNTPOINT, &mountpoint.display().to_string());
    let log_path = scratch.file("readme.log");
    let log = File::create(&log_path)?;
    let mut shell = Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let said = || tail(&fs::read_to_string(&log_path).unwrap_or_default());
    let start = Instant::now();
    while !is_mounted(&mountpoint)? {
        if let Some(status) = shell.try_wait()? {
            bail!("{line}: ended with {status}: {}", said());
        }
        if start.elapsed() > DEADLINE {
            let _ = shell.kill();
            bail!("{line}: nothing is mounted after {} s: {}", DEADLINE.as_secs(), said());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let written = fs::write(mountpoint.join("file"), "text")
        .and_then(|()| fs::read_to_string(mountpoint.join("file")));
    let unmounted = unmount_command().arg(&mountpoint).status()?;
    ensure!(unmounted.success(), "umount ended with {unmounted}: {}", said());
    ensure!(written? == "text", "the file holds something else");
    match wait_until(&mut shell, DEADLINE)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("after umount the server ended with {status}: {}", said()),
        None => bail!("after umount the server still runs: {}", said()),
    }
}
