//! The stage `mounted`: the tests on a mounted filesystem, then the external suites.

use std::path::Path;

use anyhow::{Result, bail};

use crate::build::{MOUNTED, targets};
use crate::process::{self, cargo, target_profile_dir};
use crate::suites::{Suite, Tally, Targets};

/// What the external suites run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// A MemFs mounted by the `stratafs` command.
    #[default]
    Memfs,
    /// tmpfs, which tries the suites themselves.
    Tmpfs,
}

/// Runs the chosen suites, or with none chosen the test binary and every suite.
pub(crate) fn run(chosen: &[Suite], on: On) -> Result<()> {
    let mut failed = Vec::new();
    let suites = if chosen.is_empty() {
        if let Err(error) = run_test_binary() {
            eprintln!("xtask: {error:#}");
            failed.push("tests/mounted".to_owned());
        }
        &Suite::ALL
    } else {
        chosen
    };
    let targets = match on {
        On::Tmpfs => Targets::tmpfs(),
        On::Memfs => {
            process::run(cargo().args([
                "test",
                "-q",
                "--workspace",
                "--no-run",
                "--test",
                MOUNTED,
            ]))?;
            Targets::memfs(&target_profile_dir()?.join("stratafs"))
        }
    };
    let can_mount = on == On::Tmpfs || Path::new("/dev/fuse").exists();
    for suite in suites {
        println!("\n-- {suite}");
        let tally = if can_mount { suite.run(&targets) } else { Ok(skipped(*suite)) };
        match tally {
            Ok(tally) => {
                println!("{suite}: {tally}");
                if tally.failed > 0 {
                    failed.push(suite.to_string());
                }
            }
            Err(error) => {
                println!("{suite}: FAILED: {error:#}\n{suite}: 0 passed, 1 failed, 0 skipped");
                failed.push(suite.to_string());
            }
        }
    }
    if !can_mount {
        warn_that_nothing_mounts();
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Two tests at a time: each has a server with threads of its own, and a machine may have two cores.
fn run_test_binary() -> Result<()> {
    if !targets("tests")?.iter().any(|name| name == MOUNTED) {
        bail!("tests/{MOUNTED}/main.rs is missing");
    }
    let mut test = cargo();
    test.args(["test", "--workspace", "--test", MOUNTED, "--", "--test-threads=2"]);
    process::run(&mut test)
}

fn skipped(suite: Suite) -> Tally {
    Tally { skipped: suite.cases(), ..Tally::default() }
}

fn warn_that_nothing_mounts() {
    eprintln!(
        "\n\
         **********************************************************************\n\
         /dev/fuse is missing: nothing was mounted, and every case that mounts\n\
         was counted as skipped. As root: modprobe fuse, or start the container\n\
         with its device: --device /dev/fuse --cap-add SYS_ADMIN\n\
         **********************************************************************"
    );
}
