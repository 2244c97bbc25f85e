//! A place from which nothing is left, however the run ends.
//!
//! The bench starts itself again in a mount namespace of its own, in which it mounts everything. The
//! namespace ends with its last process, and its mounts, their loop devices and their memory with it;
//! the servers die with the bench. What is outside the namespace a guardian puts back: a shell in a
//! session of its own, which a Ctrl-C does not reach, waits until the bench is gone.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::idle::HaltPoll;
use crate::target::Scratch;

/// Set in the namespace, to the scratch directory.
const INSIDE: &str = "STRATAFS_BENCH_SCRATCH";

/// What a bench holds until it ends.
#[derive(Debug)]
pub(super) struct Enclosure {
    scratch: Scratch,
    _polling: HaltPoll,
}

impl Enclosure {
    /// Goes into a mount namespace, which starts the program again, and answers there.
    pub(super) fn enter() -> Result<Self> {
        if let Some(top) = env::var_os(INSIDE).map(PathBuf::from) {
            return Ok(Self { scratch: Scratch::adopt(top), _polling: HaltPoll::raised()? });
        }
        // Outside for as long as it takes to make the directory: it belongs to the process, which stays
        // the same.
        let scratch = Scratch::new()?.leak();
        watch(&scratch)?;
        let program = env::current_exe().context("cannot tell where this program is")?;
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private", "--"]).arg(program);
        again.args(env::args_os().skip(1)).env(INSIDE, scratch);
        bail!("cannot start unshare: {}", again.exec())
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// Starts the guardian of this process.
fn watch(scratch: &std::path::Path) -> Result<()> {
    // The directory is empty outside of the namespace, so only directories and logs are removed.
    let mut script = String::from("tail --pid=\"$1\" -s 0.2 -f /dev/null; rm -rf -- \"$2\"");
    if let Some((parameter, value)) = HaltPoll::current() {
        script += &format!("; echo {value} > {parameter}");
    }
    Command::new("setsid")
        .args(["sh", "-c", &script, "sh", &std::process::id().to_string()])
        .arg(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start setsid")?;
    Ok(())
}
