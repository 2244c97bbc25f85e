//! A mounted host directory against the directory itself, bindfs and fuse-overlayfs.
//!
//! All are directories of one private ext4, in memory, each with the options that it has by itself, but
//! for ours: `ours` is mounted with `exclusive`, so it may take for granted that nobody else changes the
//! directory, as fuse-overlayfs always does, and let the kernel keep more; `stateless` is that with
//! `open=stateless`; `shared` has the defaults. The first is what is judged.

use std::cell::Cell;
use std::ffi::OsString;

use anyhow::Result;

use super::Options;
use super::enclosure::Enclosure;
use super::runner::{Comparison, Subject};
use super::workloads::{Bound, Cold, Run, Workload, data, metadata, programs};
use crate::process::release_build;
use crate::target::{Ext4, Target};
use crate::tools;

const fn row(name: &'static str, run: Run, bounds: &'static [Bound]) -> Workload {
    Workload { name, bounds, run }
}

const fn ours(floor: f64, goal: f64) -> Bound {
    Bound { of: "ours", floor: Some(floor), goal: Some(goal) }
}

const fn aim(goal: f64) -> Bound {
    Bound { of: "ours", floor: None, goal: Some(goal) }
}

const fn stateless(floor: Option<f64>, goal: f64) -> Bound {
    Bound { of: "stateless", floor, goal: Some(goal) }
}

/// In the order of the table.
static WORKLOADS: [Workload; 31] = [
    row("stat, warm", metadata::warm_stat, &[ours(0.95, 0.95)]),
    row("stat, cold", metadata::cold_stat, &[ours(0.40, 0.50)]),
    row("stat of an absent name, repeated", metadata::repeated_miss, &[ours(0.95, 0.95)]),
    row("stat of an absent name, new", metadata::new_miss, &[aim(0.55)]),
    row(
        "open, read 4 KiB, close, warm",
        data::small_read,
        &[ours(0.22, 0.25), stateless(Some(0.75), 0.85)],
    ),
    row("create 4 KiB files", metadata::create, &[ours(0.28, 0.45)]),
    row("unlink", metadata::unlink, &[ours(0.4, 0.5)]),
    row("rename", metadata::rename, &[ours(0.4, 0.5)]),
    row("mkdir", metadata::mkdir, &[ours(0.4, 0.5)]),
    row("list a directory, cold", metadata::cold_readdir, &[aim(0.60)]),
    row("list a directory, warm", metadata::warm_readdir, &[aim(3.0)]),
    row("ls -l, cold", programs::cold_ls, &[aim(0.75)]),
    row("find, cold", programs::cold_find, &[aim(0.75)]),
    row("read 1 MiB at a time, cold", data::cold_read, &[ours(0.9, 1.0)]),
    row("read 1 MiB at a time, warm", data::warm_read, &[aim(0.95)]),
    row("SQLite reads by mmap, cold", programs::cold_mmap, &[ours(0.9, 1.0)]),
    row("read 4 KiB at random, cold", data::cold_random_read, &[]),
    row("write 1 MiB at a time", data::sequential_write, &[]),
    row("write 4 KiB at random", data::random_write, &[ours(0.8, 0.85)]),
    row("append 4 KiB and fsync", data::append, &[aim(0.95)]),
    row("getxattr", metadata::getxattr, &[]),
    row("untar", programs::untar, &[aim(0.40)]),
    row("git status, cold", programs::cold_git_status, &[aim(0.55)]),
    row("git status, warm", programs::warm_git_status, &[ours(0.6, 0.85)]),
    row("grep -r, cold", programs::cold_grep, &[aim(0.85)]),
    row("cp -a", programs::copy, &[aim(0.45)]),
    row("rm -rf", programs::remove, &[aim(0.50)]),
    row("2 clients open, read 4 KiB, close", data::small_read_by_two, &[stateless(None, 0.80)]),
    row("2 clients create 4 KiB files", metadata::create_by_two, &[aim(0.45)]),
    row("2 clients stat, cold", metadata::cold_stat_by_two, &[]),
    row("2 clients read 1 MiB at a time, cold", data::cold_read_by_two, &[]),
];

/// Memory that the private ext4 may come to take.
const GIB: u64 = 4;

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let enclosure = Enclosure::enter()?;
    let scratch = enclosure.scratch();
    tools::install_missing(&tools::PEERS)?;
    let program = release_build()?;
    let ext4 = Ext4::new(scratch, "ext4", GIB)?;
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mounted = |name, ours, directory: &str, target: Target| -> Result<Subject> {
        // Every path has the same length, as the kernel walks it each time.
        Ok(Subject::standing(name, ours, target.mount(scratch, directory)?))
    };
    let mut subjects = Vec::new();
    for (name, directory, more) in [
        ("ours", "ours", ", exclusive"),
        ("stateless", "less", ", exclusive, open=stateless"),
        ("shared", "open", ""),
    ] {
        let spec = format!("passthrough({}{more})", ext4.directory(directory)?.display());
        subjects.push(mounted(name, true, directory, Target::stratafs(&program, spec))?);
    }
    let mut command = words(&["bindfs", "-f"]);
    command.push(ext4.directory("bind")?.into());
    subjects.push(mounted("bindfs", false, "bind", Target::Peer { label: "bindfs", command })?);
    let (lower, upper, work) =
        (ext4.directory("lower")?, ext4.directory("upper")?, ext4.directory("work")?);
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let command = words(&["fuse-overlayfs", "-f", "-o", &layers]);
    let overlay = Target::Peer { label: "fuse-overlayfs", command };
    subjects.push(mounted("fuse-overlayfs", false, "over", overlay)?);
    let shared = ext4.directory("shared")?;
    // A mount of its own for the directory itself, so that its path is as long.
    let bound = Target::Kernel {
        label: "native",
        arguments: vec!["--bind".into(), ext4.directory("host")?.into()],
    };
    let comparison = Comparison {
        name: "passthrough",
        reference: Subject::standing("native", false, bound.mount(scratch, "host")?),
        subjects,
        workloads: &WORKLOADS,
        cold: Cold::Everything { backing: ext4.path().to_owned() },
        scratch,
        shared: &shared,
        done: Cell::new(0),
    };
    comparison.run(options)?;
    drop(ext4);
    Ok(())
}
