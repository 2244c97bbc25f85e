//! fsx: random operations on one file, each read compared with what was written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Tally, Targets};
use crate::process::run_checked;
use crate::target::{Scratch, Target};
use crate::tools::FSX;

/// Three seeds with caches and one without.
const SEEDS: [(u64, bool); 4] = [(1, true), (2, true), (3, true), (4, false)];
pub(super) const CASES: usize = SEEDS.len();

/// The crate's cost grows with the square of the number of operations.
pub(super) const OPERATIONS: u64 = 10_000;
const DEADLINE: Duration = Duration::from_secs(600);

/// Every operation that the program has, the ones that move data most often.
const CONFIGURATION: &str = "\
flen = 262144
[opsize]
max = 65536
min = 0
align = 1
[weights]
close_open = 1
invalidate = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
";

/// Runs each seed on a mount of its own.
pub(super) fn run(targets: &Targets, scratch: &Scratch) -> Result<Tally> {
    let mut tally = Tally::default();
    for (seed, cached) in SEEDS {
        let target = if cached { &targets.cached } else { &targets.uncached };
        tally += exercise(target, scratch, seed, OPERATIONS)?;
    }
    Ok(tally)
}

/// One run of fsx on a new mount.
///
/// # Errors
/// The program's files cannot be written; a mismatch is a failed case of the tally.
pub(crate) fn exercise(
    target: &Target,
    scratch: &Scratch,
    seed: u64,
    operations: u64,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let Some(program) = FSX.program() else {
        println!("SKIPPED: fsx is not installed; the stage tools does it");
        tally.skipped = 1;
        return Ok(tally);
    };
    let case = format!("{operations} operations of fsx on {}, seed {seed}", target.label());
    tally.count(&case, one_run(&program, target, scratch, seed, operations));
    Ok(tally)
}

fn one_run(
    program: &Path,
    target: &Target,
    scratch: &Scratch,
    seed: u64,
    operations: u64,
) -> Result<()> {
    let config = scratch.file("fsx.toml");
    fs::write(&config, CONFIGURATION)?;
    let name = format!("fsx-{seed}");
    // Of a mismatch it keeps both versions of the file, which tell where it began.
    let artifacts = scratch.directory(&format!("{name}-artifacts"))?;
    let mounted = target.mount(scratch, &name)?;
    let mut command = Command::new(program);
    command.arg("-f").arg(config).arg("-P").arg(artifacts);
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    command.arg(mounted.path().join("exercised"));
    run_checked(&mut command, &scratch.file(&format!("{name}-output.log")), DEADLINE)
        .with_context(|| format!("the server said: {}", mounted.said()))?;
    mounted.unmount()
}
