//! `mount.stratafs`: what mount(8) and fstab call for `-t stratafs`.
//!
//! The same program under another name, by a link: `ln -s $(command -v stratafs)
//! /sbin/mount.stratafs`. It mounts in the background, as mount(8) expects.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::mount::Mount;

/// The name by which mount(8) looks for it.
const NAME: &str = "mount.stratafs";

/// mount(8): the call was wrong.
const MOUNT_USAGE: u8 = 1;
/// mount(8): it could not be mounted.
const MOUNT_FAILED: u8 = 32;

/// Mount a spec for mount(8)
///
/// To be called by mount(8) and fstab, for the type `stratafs`. To mount by hand, use `stratafs
/// mount`.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Helper {
    /// The spec: the source that mount(8) was given
    spec: OsString,

    /// The directory to mount it on
    mountpoint: PathBuf,

    /// Mount options with commas between them
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Do all but the mount itself
    #[arg(short = 'f')]
    fake: bool,

    /// Taken and without effect: there is no /etc/mtab to write
    #[arg(short = 'n')]
    no_mtab: bool,

    /// Taken and without effect: unknown options are never an error
    #[arg(short = 's')]
    sloppy: bool,

    /// Taken and without effect
    #[arg(short = 'v')]
    verbose: bool,

    /// Taken and without effect: the type that mount(8) was given
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// Does what mount(8) asks for if this process was started by the helper's name; `None` if not.
pub(super) fn run_if_named() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    (Path::new(&name).file_name()? == NAME).then(run)
}

fn run() -> ExitCode {
    let helper = match Helper::try_parse() {
        Ok(helper) => helper,
        Err(error) => {
            // What it prints is either asked for (help, version) or the error.
            let _ = error.print();
            return if error.use_stderr() { MOUNT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    super::logging::init(None, super::logging::Place::StandardError);
    let mount = Mount::silent(helper.spec, helper.mountpoint, helper.options, true);
    let done = if helper.fake { mount.check().map(|()| 0) } else { mount.run(None) };
    mount_code(super::told(done)).into()
}

/// The command's exit code as mount(8) has it.
fn mount_code(code: u8) -> u8 {
    match code {
        0 => 0,
        super::MISUSED => MOUNT_USAGE,
        _ => MOUNT_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn helper_definition_is_consistent() {
        Helper::command().debug_assert();
    }

    #[test]
    fn helper_takes_what_mount_passes() {
        let line = "mount.stratafs mem() /mnt/x -sfnv -o rw,noatime -t stratafs";
        let helper = Helper::try_parse_from(line.split(' ')).unwrap();
        assert!(helper.sloppy && helper.fake && helper.no_mtab && helper.verbose);
        assert_eq!((helper.spec, helper.options), ("mem()".into(), vec!["rw,noatime".into()]));
        assert_eq!(helper.kind.as_deref(), Some("stratafs"));
    }
}
