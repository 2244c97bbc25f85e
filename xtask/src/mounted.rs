//! The stage `mounted`: the tests on a mounted filesystem, then the external suites.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::build::{MOUNTED, targets};
use crate::process::{self, cargo, target_profile_dir};
use crate::suites::{On, Suite, Tally};

/// Runs the chosen suites, or with none chosen the test binary and every suite.
pub(crate) fn run(chosen: &[Suite], on: &[On]) -> Result<()> {
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
    let on = if on.is_empty() { &On::OURS } else { on };
    if on.iter().any(|on| *on != On::Tmpfs) {
        process::run(cargo().args(["test", "-q", "--workspace", "--no-run", "--test", MOUNTED]))?;
    }
    let program = target_profile_dir()?.join("stratafs");
    let fuse = Path::new("/dev/fuse").exists();
    let pairs = on.iter().flat_map(|on| suites.iter().map(move |suite| (*on, *suite)));
    for (on, suite) in pairs.filter(|(on, suite)| suite.covers(*on)) {
        let name = format!("{suite} on {on}");
        println!("\n-- {name}");
        let start = Instant::now();
        let tally = if fuse || on == On::Tmpfs {
            suite.run(on, &program)
        } else {
            Ok(Tally { skipped: suite.cases(on), ..Tally::default() })
        };
        match tally {
            Ok(tally) => {
                println!("{name}: {tally} ({} s)", start.elapsed().as_secs());
                if tally.failed > 0 {
                    failed.push(name);
                }
            }
            Err(error) => {
                println!("{name}: FAILED: {error:#}\n{name}: 0 passed, 1 failed, 0 skipped");
                failed.push(name);
            }
        }
    }
    if !fuse {
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
