//! Programs that people run on a filesystem all day: git, cargo, SQLite in WAL mode.

mod cargo;
mod git;
mod sqlite;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Tally, Targets};
use crate::process::on_path;
use crate::target::{Scratch, Target};

/// Each program on each of two targets.
pub(super) const CASES: usize = 2 * PROGRAMS.len();

const DEADLINE: Duration = Duration::from_secs(300);

/// A program: its name on the path, what it does, and the work of it.
///
/// The work gets the mount, and the scratch directory for what lies outside of it.
type Program = (&'static str, &'static str, fn(&Path, &Scratch, &str) -> Result<()>);

const PROGRAMS: [Program; 3] = [
    ("git", "clones, checks out and packs a repository", git::work),
    ("cargo", "builds a crate, rebuilds it and runs its tests", cargo::work),
    ("sqlite3", "keeps a database in WAL mode, two connections", sqlite::work),
];

/// Runs each program on a mount of its own.
pub(super) fn run(targets: &Targets, scratch: &Scratch) -> Result<Tally> {
    let mut tally = Tally::default();
    for (target, mode) in targets.both().into_iter().zip(["cached", "uncached"]) {
        for (program, what, work) in PROGRAMS {
            if !on_path(program) {
                println!("SKIPPED: {program} is not installed");
                tally.skipped += 1;
                continue;
            }
            let name = format!("{program}-{mode}");
            let case = format!("{program} {what} on {}", target.label());
            tally.count(&case, on_mount(target, scratch, &name, work));
        }
    }
    Ok(tally)
}

fn on_mount(
    target: &Target,
    scratch: &Scratch,
    name: &str,
    work: fn(&Path, &Scratch, &str) -> Result<()>,
) -> Result<()> {
    let mounted = target.mount(scratch, name)?;
    work(mounted.path(), scratch, name)
        .with_context(|| format!("the server said: {}", mounted.said()))?;
    mounted.unmount()
}
