//! `stratafs mount`: a spec as a filesystem of this host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum as _};

use super::logging::Level;
use super::say;
use crate::spec::Composition;
use crate::spec::ast::Word;
use crate::transport::background::{self, Started, Starter};
use crate::transport::fuse_dev::{self, Ended, MountOptions, Server};
use crate::transport::{self, service};

const EXAMPLES: &str = "\
Examples:
  stratafs mount 'mem(capacity=1GiB)' /mnt/x
  stratafs mount -o allow_other,noatime 'mem(capacity=1GiB, max_inodes=100k)' /mnt/x
  stratafs mount --background --log-level info @/etc/stratafs/build.toml /mnt/x

It ends, and unmounts, with Ctrl-C or SIGTERM, or when someone else unmounts it:
  umount /mnt/x              as root
  fusermount3 -u /mnt/x      as another user

For mount(8) and fstab, link the program once, and write a space in a spec as \\040:
  ln -s \"$(command -v stratafs)\" /sbin/mount.stratafs
  mem(capacity=1GiB)  /mnt/x  stratafs  allow_other,noatime  0  0";

/// Mount a spec on a directory of this host
///
/// It serves in the foreground until it is told to end or is unmounted, and prints one line when
/// the filesystem is ready.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Mount {
    /// What to mount, such as 'mem(capacity=1GiB)' or @FILE.toml
    spec: OsString,

    /// The directory to mount it on
    mountpoint: PathBuf,

    /// Mount options with commas between them, as for mount(8): ro, noexec, noatime, suid, dev,
    /// allow_other, auto_unmount, nopassthrough, max_stack_depth=1|2, fsname=NAME, subtype=NAME,
    /// max_read=BYTES, and setuid=USER to mount as root and serve as another user. One that nobody knows is left out with a warning
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Return as soon as the filesystem is ready and serve it in the background, where nothing more
    /// is logged
    #[arg(long)]
    background: bool,

    /// Be the server that --background started
    #[arg(long, hide = true, conflicts_with = "background")]
    background_server: bool,

    /// Print no line when the filesystem is ready
    #[arg(long, short)]
    quiet: bool,

    /// How many threads serve requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Mount {
    /// A mount that says nothing unless it fails.
    pub(super) fn silent(
        spec: OsString,
        mountpoint: PathBuf,
        options: Vec<OsString>,
        background: bool,
    ) -> Self {
        let background_server = false;
        let (quiet, threads) = (true, None);
        Self { spec, mountpoint, options, background, background_server, quiet, threads }
    }

    /// Finds what is wrong with the spec and the options, and does nothing else.
    pub(super) fn check(&self) -> Result<()> {
        MountOptions::parse(&self.options)?;
        Composition::parse(&self.spec)?;
        Ok(())
    }

    /// Mounts, and serves unless in the background; the answer is the exit code.
    pub(super) fn run(&self, log_level: Option<Level>) -> Result<u8> {
        if self.background {
            return self.start_in_background(log_level);
        }
        let starter = self
            .background_server
            .then(Starter::adopt)
            .transpose()
            .context("cannot go to the background: giving up the standard output")?;
        let composition = Composition::parse(&self.spec)?;
        // Before there is a mount: from then on a signal must end it, not this process alone.
        let termination = transport::catch_signals().context("cannot catch signals")?;
        // Before the filesystem is there: it divides the descriptors it may have, and mends modes
        // where there is an umask.
        let limit = service::raise_descriptor_limit(service::DEFAULT_DESCRIPTORS)
            .context("cannot raise the limit of open files")?;
        log::debug!("up to {limit} descriptors may be open");
        service::clear_umask();
        let server = self.mount(&composition)?;
        let path = Word::new(server.mountpoint().as_os_str().as_bytes());
        if !self.quiet {
            say(&format!("{composition} is mounted on {path}"));
        }
        if let Some(starter) = starter {
            starter.leave().context("cannot go to the background")?;
        }
        if let Ended::Signal(signal) = server.wait_or(termination) {
            log::info!("{path}: unmounting on signal {signal}");
        }
        server.unmount()?;
        Ok(0)
    }

    fn mount(&self, composition: &Composition) -> Result<Server> {
        let options = MountOptions::parse(&self.options)?;
        // As with tmpfs, what is mounted belongs to whoever mounts it.
        let (uid, gid) = options.server_ids()?;
        let mut mount = fuse_dev::Mount::builder(composition.build_for(uid, gid)?).options(options);
        if let Some(threads) = self.threads {
            mount = mount.threads(threads.into());
        }
        Ok(mount.mount(&self.mountpoint)?)
    }

    fn start_in_background(&self, log_level: Option<Level>) -> Result<u8> {
        let started = background::start(self.server_args(log_level))
            .context("cannot go to the background: starting the server")?;
        let status = match started {
            Started::Ready => return Ok(0),
            Started::Ended(status) => status,
        };
        // With a code it has printed what was wrong.
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != 0 => Ok(code),
            _ => bail!(
                "cannot go to the background: the server ended before it was ready: {status}\n  \
                 run it without --background to see more"
            ),
        }
    }

    /// The arguments with which this program is the server of this mount.
    fn server_args(&self, log_level: Option<Level>) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["mount", "--background-server"].map(Into::into).into();
        if self.quiet {
            args.push("--quiet".into());
        }
        let mut option = |name: &str, value: &OsStr| {
            args.push(name.into());
            args.push(value.into());
        };
        if let Some(level) = log_level.and_then(|level| level.to_possible_value()) {
            option("--log-level", level.get_name().as_ref());
        }
        if let Some(threads) = self.threads {
            option("--threads", threads.to_string().as_ref());
        }
        for options in &self.options {
            option("-o", options);
        }
        // A spec or a path may begin with a hyphen.
        args.push("--".into());
        args.push(self.spec.clone());
        args.push(self.mountpoint.clone().into());
        args
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn parsed(args: impl IntoIterator<Item = OsString>) -> (Mount, Option<Level>) {
        match Cli::try_parse_from(std::iter::once("stratafs".into()).chain(args)) {
            Ok(Cli { command: Command::Mount(mount), log_level }) => (mount, log_level),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn server_args_say_the_same_as_the_command_line() {
        let line = [
            "--log-level",
            "debug",
            "mount",
            "--background",
            "-o",
            "ro",
            "-o",
            "fsname=-x",
            "--threads",
            "3",
            "-q",
            "--",
            "-spec",
            "-mountpoint",
        ];
        let (asked, asked_level) = parsed(line.map(Into::into));
        let (server, server_level) = parsed(asked.server_args(asked_level));
        assert!(server.background_server && !server.background);
        assert_eq!(server.spec, asked.spec);
        assert_eq!(server.mountpoint, asked.mountpoint);
        assert_eq!(server.options, asked.options);
        assert_eq!(server.threads, asked.threads);
        assert!(server.quiet && asked.quiet);
        assert_eq!(server_level, asked_level);
    }
}
