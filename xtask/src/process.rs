//! Child processes: printed, without a standard input, and with a deadline.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, iter, thread};

use anyhow::{Context, Result, bail};

/// The top of the source tree.
pub(crate) fn source_root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo put this program, so where it puts those built beside it.
pub(crate) fn target_profile_dir() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program is")?;
    own.parent().map(Path::to_path_buf).context("this program is in no directory")
}

/// cargo, at the top of the source tree.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(source_root());
    // What `cargo run` sets for this package would be read as another's by what it starts.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Builds the `stratafs` command for speed and says where it is.
pub(crate) fn release_build() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "-p", "stratafs"]))?;
    let profiles = target_profile_dir()?;
    let target = profiles.parent().context("no target directory")?;
    Ok(target.join("release/stratafs"))
}

/// Whether the caller is root, which installing and mounting tmpfs take.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program of this name on the path, or where Debian keeps an administrator's.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|program| program.is_file())
}

/// Whether there is a program of this name.
pub(crate) fn on_path(program: &str) -> bool {
    find_on_path(program).is_some()
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = iter::once(name).chain(command.get_args()).map(|word| word.to_string_lossy());
    words.map(|word| if word.is_empty() { "''".into() } else { word }).collect::<Vec<_>>().join(" ")
}

/// Runs a command, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    io::stdout().flush().context("cannot write to standard output")?;
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Tries a step that uses the network up to three times.
pub(crate) fn run_with_retries(mut command: impl FnMut() -> Command) -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(5);
    for _ in 0..2 {
        match run(&mut command()) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("xtask: {error:#}; trying again in {} s", PAUSE.as_secs()),
        }
        thread::sleep(PAUSE);
    }
    run(&mut command())
}

/// How a child ended and what it printed on both streams.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

/// Runs a command to its end, collecting its output, and kills it at the deadline.
///
/// The output goes through the file `log`, so a child that is killed loses nothing of it.
pub(crate) fn run_collecting(
    command: &mut Command,
    log: &Path,
    deadline: Duration,
) -> Result<Ended> {
    let shown = shown(command);
    let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().context("cannot share a log file")?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let status = wait_until(&mut child, deadline)?;
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let Some(status) = status else {
        // SIGKILL; it may be stuck in the kernel, so its end is not waited for.
        let _ = child.kill();
        bail!("{shown} was still running after {} s:\n{}", deadline.as_secs(), tail(&text));
    };
    Ok(Ended { status, text })
}

/// Like [`run_collecting`], and an exit status other than 0 is an error that quotes the output.
pub(crate) fn run_checked(command: &mut Command, log: &Path, deadline: Duration) -> Result<String> {
    let ended = run_collecting(command, log, deadline)?;
    if !ended.status.success() {
        bail!("{} ended with {}:\n{}", shown(command), ended.status, tail(&ended.text));
    }
    Ok(ended.text)
}

/// Waits for a child; `None` when it is still running at the deadline.
pub(crate) fn wait_until(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if start.elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The last lines of a text, where programs say what went wrong.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
