//! `cargo xtask soak`: the long forms, for a night or before a release.

#[path = "../../fuzz/harness/seeds.rs"]
mod seeds;
#[path = "../../fuzz/harness/vhost_seeds.rs"]
mod vhost_seeds;

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::guest;
use crate::process::{self, cargo, release_build, run_checked, source_root};
use crate::suites::{self, Tally, Targets};
use crate::target::Scratch;
use crate::tools::{CARGO_DENY, CARGO_FUZZ, FSX};

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes for each fuzz target.
    #[arg(long, default_value_t = 10)]
    minutes: u64,

    /// Of the fuzz targets, those whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    target: String,

    /// What to run [default: all].
    #[arg(value_name = "NAME")]
    names: Vec<Soak>,
}

/// One long form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Soak {
    /// Every fuzz target, with the address sanitizer.
    Fuzz,
    /// 50 runs of fsx of 20,000 operations each on a MemFs, and some on host directories and overlays.
    Fsx,
    /// 10 million random and malformed requests.
    Malformed,
    /// Licences, bans and sources of every dependency.
    Deny,
    /// 1,000,000 files in one mount.
    ManyFiles,
    /// A million random descriptor chains to a virtio-fs server.
    Chains,
    /// A Debian guest whose root is served by an unprivileged process.
    Debian,
    /// Two processes that race links, renames and special files under a host directory, 60 s each test.
    Races,
    /// A host directory of 1,000,000 files with 256 and with 64 descriptors.
    HostTree,
    /// Thousands of random lists of operations on every backend and on a plain directory.
    Differential,
    /// Thousands of random lists of changes of an overlay, built anew after every step.
    Overlay,
    /// Crashes of an overlay at every call of every change after every other.
    CrashPairs,
}

const ALL: [Soak; 12] = [
    Soak::Deny,
    Soak::Malformed,
    Soak::Chains,
    Soak::Differential,
    Soak::Overlay,
    Soak::CrashPairs,
    Soak::Races,
    Soak::HostTree,
    Soak::ManyFiles,
    Soak::Debian,
    Soak::Fsx,
    Soak::Fuzz,
];

const FUZZ_TARGETS: [&str; 4] = ["spec", "fuse_raw", "virtqueue", "vhost_msg"];
const MALFORMED_REQUESTS: u64 = 10_000_000;

/// A test of cargo's that a variable makes long.
struct Longer {
    package: &'static str,
    /// The test binary.
    test: &'static str,
    /// Of its tests, those whose names contain one of these; all if empty.
    names: &'static [&'static str],
    variable: &'static str,
    value: &'static str,
}

const CHAINS: Longer = Longer {
    package: "stratafs",
    test: "in_process",
    names: &["vhost::random"],
    variable: "STRATAFS_RANDOM_CHAINS",
    value: "1000000",
};
const RACES: Longer = Longer {
    package: "stratafs-passthroughfs",
    test: "suite",
    names: &["races::", "confinement::"],
    variable: "STRATAFS_RACE_SECONDS",
    value: "60",
};
const HOST_TREE: Longer = Longer {
    package: "stratafs-passthroughfs",
    test: "suite",
    names: &["budget::"],
    variable: "STRATAFS_TREE_FILES",
    value: "1000000",
};
const DIFFERENTIAL: Longer = Longer {
    package: "stratafs",
    test: "in_process",
    names: &["differential"],
    variable: "STRATAFS_DIFFERENTIAL_LISTS",
    value: "2000",
};
const OVERLAY: Longer = Longer {
    package: "stratafs-overlayfs",
    test: "model",
    names: &[],
    variable: "STRATAFS_MODEL_LISTS",
    value: "5000",
};

const CRASH_PAIRS: Longer = Longer {
    package: "stratafs-overlayfs",
    test: "crash",
    names: &["after_another_change"],
    variable: "STRATAFS_CRASH_PAIRS",
    value: "all",
};

const FSX_RUNS: u64 = 50;
const FSX_OPERATIONS: u64 = 20_000;
/// Of each form of a host directory and of an overlay.
const FSX_ON_THE_HOST: u64 = 5;
const DIRECTORIES: usize = 1_000;
const FILES_IN_EACH: usize = 1_000;

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fuzz => "fuzz",
            Self::Fsx => "fsx",
            Self::Malformed => "malformed",
            Self::Deny => "deny",
            Self::ManyFiles => "many-files",
            Self::Chains => "chains",
            Self::Debian => "debian",
            Self::Races => "races",
            Self::HostTree => "host-tree",
            Self::Differential => "differential",
            Self::Overlay => "overlay",
            Self::CrashPairs => "crash-pairs",
        })
    }
}

/// Runs the chosen forms, every one of them though an earlier failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let names = if args.names.is_empty() { &ALL[..] } else { &args.names };
    let mut failed = Vec::new();
    for name in names {
        println!("\n== soak {name}");
        let start = Instant::now();
        let outcome = match name {
            Soak::Fuzz => fuzz(args),
            Soak::Fsx => fsx(),
            Soak::Malformed => malformed(),
            Soak::Deny => deny(),
            Soak::ManyFiles => many_files(),
            Soak::Chains => longer(&CHAINS),
            Soak::Debian => guest::debian::run(),
            Soak::Races => longer(&RACES),
            Soak::HostTree => longer(&HOST_TREE),
            Soak::Differential => longer(&DIFFERENTIAL),
            Soak::Overlay => longer(&OVERLAY),
            Soak::CrashPairs => longer(&CRASH_PAIRS),
        };
        let took = start.elapsed().as_secs();
        match outcome {
            Ok(()) => println!("== soak {name}: ok, {took} s"),
            Err(error) => {
                println!("== soak {name}: FAILED, {took} s: {error:#}");
                failed.push(name.to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Runs what the tests run, but more of it.
fn longer(what: &Longer) -> Result<()> {
    println!("with {}={}", what.variable, what.value);
    let mut test = cargo();
    test.args(["test", "-q", "-p", what.package, "--test", what.test, "--"]);
    process::run(test.args(what.names).env(what.variable, what.value))
}

/// Runs each target for its minutes, the second too where the first finds something.
fn fuzz(args: &Args) -> Result<()> {
    let program = CARGO_FUZZ.install()?;
    let mut failed = Vec::new();
    for target in FUZZ_TARGETS.into_iter().filter(|target| target.contains(&args.target)) {
        if let Err(error) = fuzz_one(&program, target, args.minutes) {
            println!("{error:#}");
            failed.push(target);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("see the input above for {}", failed.join(", ")) }
}

fn fuzz_one(program: &Path, target: &str, minutes: u64) -> Result<()> {
    let fuzz_dir = source_root().join("fuzz");
    let mut fuzz = Command::new(program);
    // The sanitizer is a flag that a stable compiler takes only when it is told to bootstrap.
    fuzz.current_dir(source_root()).env("RUSTC_BOOTSTRAP", "1");
    fuzz.args(["fuzz", "run", "--sanitizer", "address", "--all-features", target]);
    // What is found goes to the first directory; the seeds are only read.
    let directories = [fuzz_dir.join("corpus").join(target), fuzz_dir.join("seeds").join(target)];
    fs::create_dir_all(&directories[0])?;
    let seeds = match target {
        "fuse_raw" => seeds::raw(),
        "virtqueue" => vhost_seeds::virtqueue(),
        "vhost_msg" => vhost_seeds::vhost_msg(),
        _ => Vec::new(),
    };
    for (name, seed) in seeds {
        fs::write(directories[0].join(name), seed)?;
    }
    fuzz.args(directories.iter().filter(|directory| directory.is_dir()));
    let seconds = minutes * 60;
    fuzz.args(["--", &format!("-max_total_time={seconds}"), "-rss_limit_mb=2048", "-timeout=10"]);
    process::run(&mut fuzz)
}

fn fsx() -> Result<()> {
    FSX.install()?;
    let targets = memfs()?;
    let mut tally = Tally::default();
    // One at a time: those on the host make their own.
    let scratch = Scratch::new()?;
    for seed in 0..FSX_RUNS {
        // Every fifth without the kernel's caches.
        let target = if seed % 5 == 4 { &targets.uncached } else { &targets.cached };
        tally += suites::exercise(target, &scratch, 1_000 + seed, FSX_OPERATIONS)?;
    }
    drop(scratch);
    for number in 0..FSX_ON_THE_HOST {
        let program = release_build()?;
        tally += suites::exercise_on_the_host(&program, 100 * (number + 1), FSX_OPERATIONS)?;
    }
    println!("fsx: {tally}");
    ensure!(tally.failed + tally.skipped == 0, "not every run passed");
    Ok(())
}

fn malformed() -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--release", "-p", "stratafs", "--test", "in_process", "malformed"]);
    test.args(["--", "--nocapture"]);
    test.env("STRATAFS_MALFORMED_REQUESTS", MALFORMED_REQUESTS.to_string());
    process::run(&mut test)
}

fn deny() -> Result<()> {
    let program = CARGO_DENY.install()?;
    let mut deny = Command::new(program);
    deny.current_dir(source_root());
    // The advisories are left to who can reach their database.
    process::run(deny.args(["--all-features", "check", "licenses", "bans", "sources"]))
}

/// Creates, counts, reads a sample of and removes a million files, and every inode comes back.
fn many_files() -> Result<()> {
    let scratch = Scratch::new()?;
    let mounted = memfs()?.cached.mount(&scratch, "many")?;
    let inodes_used = |when: &str| -> Result<u64> {
        let mut df = Command::new("df");
        df.args(["--output=iused"]).arg(mounted.path());
        let text = run_checked(&mut df, &scratch.file("df.log"), Duration::from_secs(60))?;
        let number = text.lines().last().and_then(|line| line.trim().parse().ok());
        number.with_context(|| format!("df {when} printed {text}"))
    };
    let before = inodes_used("before")?;
    for directory in 0..DIRECTORIES {
        let parent = mounted.path().join(format!("d{directory}"));
        fs::create_dir(&parent)?;
        for index in 0..FILES_IN_EACH {
            File::create_new(parent.join(format!("f{index}")))
                .and_then(|mut file| write!(file, "{directory} {index}"))
                .with_context(|| format!("file {index} of directory {directory}"))?;
        }
    }
    let files = DIRECTORIES * FILES_IN_EACH;
    let made = inodes_used("after")?.saturating_sub(before);
    ensure!(made == (files + DIRECTORIES) as u64, "df counts {made} inodes for {files} files");
    let mut listed = 0;
    for directory in 0..DIRECTORIES {
        let parent = mounted.path().join(format!("d{directory}"));
        listed += fs::read_dir(&parent)?.filter(Result::is_ok).count();
        let sample = directory * 7 % FILES_IN_EACH;
        let text = fs::read_to_string(parent.join(format!("f{sample}")))?;
        ensure!(text == format!("{directory} {sample}"), "a file holds {text:?}");
    }
    ensure!(listed == files, "{listed} of {files} files are listed");
    println!("{files} files; the server holds {}", resident(mounted.server_pid())?);
    for directory in 0..DIRECTORIES {
        fs::remove_dir_all(mounted.path().join(format!("d{directory}")))?;
    }
    let after = inodes_used("at the end")?;
    ensure!(after == before, "{after} inodes are used where {before} were");
    mounted.unmount()
}

/// The resident memory of a process, as the kernel writes it.
fn resident(pid: Option<u32>) -> Result<String> {
    let pid = pid.context("no server")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("no VmRSS")?.trim().to_owned())
}

/// A MemFs served by an optimised build, as these run for long.
fn memfs() -> Result<Targets> {
    Ok(Targets::memfs(&release_build()?))
}
