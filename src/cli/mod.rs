//! The `stratafs` command.
//!
//! | module | what it holds |
//! |---|---|
//! | `backends` | `stratafs backends`: what a spec can name |
//! | `mount` | `stratafs mount`: a spec as a filesystem of this host |
//! | `mount_helper` | `mount.stratafs`: the same for mount(8) and fstab |
//! | `fuse_overlayfs` | `stratafs fuse-overlayfs`: an overlay by that program's command line |
//! | `serve` | `stratafs serve`: a spec as a share for virtual machines |
//! | `ring` | `stratafs ring`: a VMM and its guest, played |
//! | `changes` | `stratafs changes`: what the writable layer of an overlay changes |
//! | `explain` | `stratafs explain`: which layer of an overlay shows what |
//! | `check` | `stratafs check`: whether a writable layer is well-formed |
//! | `json` | values as JSON |
//! | `logging` | `--log-level`, `RUST_LOG` and `--syslog` |
//!
//! Exit codes: 0 all went well, 1 it could not be done, 2 it was asked for wrongly (usage, spec,
//! options). Every error is one paragraph on the standard error.

mod backends;
mod changes;
mod check;
mod explain;
#[cfg(feature = "fuse")]
mod fuse_overlayfs;
mod json;
mod logging;
#[cfg(feature = "fuse")]
mod mount;
#[cfg(feature = "fuse")]
mod mount_helper;
#[cfg(feature = "ring")]
mod ring;
#[cfg(feature = "vhost-user")]
mod serve;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::spec::inspect::Line;
use crate::spec::{InspectError, SpecError};
#[cfg(feature = "fuse")]
use crate::transport::fuse_dev::MountError;
use clap::{Parser, Subcommand};

/// It could not be done.
const FAILED: u8 = 1;
/// It was asked for wrongly; what clap exits with for usage, too.
const MISUSED: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  A filesystem in memory of at most 1 GiB, until Ctrl-C:
      stratafs mount 'mem(capacity=1GiB)' /mnt/x

  The same in the background, for every user, and its end:
      stratafs mount --background -o allow_other 'mem(capacity=1GiB)' /mnt/x
      umount /mnt/x

  A host directory for a virtual machine, over virtio-fs:
      stratafs serve /srv/guest --socket-path /run/vm/root.sock

  A composition kept in a file:
      stratafs mount @/etc/stratafs/build.toml /mnt/x

  What a spec can name, and the keys of one backend:
      stratafs backends
      stratafs backends mem

In a shell a spec is one word: put it in single quotes.";

/// Composable userspace filesystems.
///
/// A filesystem is described by a spec, such as `mem(capacity=1GiB)`: backends by name, nested
/// freely.
#[derive(Debug, Parser)]
#[command(name = "stratafs", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How much to log on the standard error; without it, RUST_LOG decides, or else `warn`
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<logging::Level>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "fuse")]
    Mount(mount::Mount),
    #[cfg(feature = "fuse")]
    FuseOverlayfs(fuse_overlayfs::FuseOverlayfs),
    #[cfg(feature = "vhost-user")]
    Serve(serve::Serve),
    #[cfg(feature = "ring")]
    Ring(ring::Ring),
    Backends(backends::Backends),
    Changes(changes::Changes),
    Explain(explain::Explain),
    Check(check::Check),
}

impl Command {
    /// How much is logged if nothing else is said.
    fn log_level(&self) -> Option<logging::Level> {
        match self {
            #[cfg(feature = "fuse")]
            Self::FuseOverlayfs(overlay) => overlay.log_level(),
            _ => None,
        }
    }

    fn logs_to(&self) -> logging::Place {
        match self {
            #[cfg(feature = "vhost-user")]
            Self::Serve(serve) if serve.syslog => logging::Place::Syslog,
            _ => logging::Place::StandardError,
        }
    }
}

/// A request that cannot be right whatever the host is like: exit code 2.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// Runs the command that the arguments of this process ask for.
pub fn run() -> ExitCode {
    #[cfg(feature = "fuse")]
    if let Some(code) = mount_helper::run_if_named().or_else(fuse_overlayfs::run_if_named) {
        return code;
    }
    let cli = Cli::parse();
    let log_level = cli.log_level.or_else(|| cli.command.log_level());
    logging::init(log_level, cli.command.logs_to());
    let done = match &cli.command {
        #[cfg(feature = "fuse")]
        Command::Mount(mount) => mount.run(cli.log_level),
        #[cfg(feature = "fuse")]
        Command::FuseOverlayfs(overlay) => overlay.run(cli.log_level),
        #[cfg(feature = "vhost-user")]
        Command::Serve(serve) => serve.run(),
        #[cfg(feature = "ring")]
        Command::Ring(ring) => ring.run(),
        Command::Backends(backends) => backends.run(),
        Command::Changes(changes) => changes.run(),
        Command::Explain(explain) => explain.run(),
        Command::Check(check) => check.run(),
    };
    told(done).into()
}

/// The exit code of what was done, once the user was told of its error.
fn told(done: anyhow::Result<u8>) -> u8 {
    done.unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        exit_code(&error)
    })
}

/// Prints to the standard output. A reader that has seen enough, as `head` has, is no failure.
struct Printer {
    out: io::BufWriter<io::StdoutLock<'static>>,
    failed: Option<io::Error>,
}

impl Printer {
    fn new() -> Self {
        Self { out: io::BufWriter::new(io::stdout().lock()), failed: None }
    }

    fn line(&mut self, line: impl fmt::Display) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }

    /// What an inspection tells: as an object of JSON, or as text.
    fn tell(&mut self, line: &Line, json: bool) {
        match json {
            true => self.line(json::of(line)),
            false => self.line(&line.text),
        }
    }

    /// Ends the output.
    fn end(mut self) -> anyhow::Result<()> {
        match self.failed.or_else(|| self.out.flush().err()) {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Tells the user something. Where nobody reads the standard error, nobody needs to know.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "stratafs: {text}");
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_misuse = error.is::<Misuse>()
        || error.downcast_ref::<SpecError>().is_some_and(SpecError::is_misuse)
        || error.downcast_ref::<InspectError>().is_some_and(InspectError::is_misuse)
        || is_bad_option(error);
    if is_misuse { MISUSED } else { FAILED }
}

#[cfg(feature = "fuse")]
fn is_bad_option(error: &anyhow::Error) -> bool {
    error.downcast_ref::<MountError>().is_some_and(MountError::is_misuse)
}

#[cfg(not(feature = "fuse"))]
fn is_bad_option(_: &anyhow::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
