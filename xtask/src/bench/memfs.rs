//! A mounted MemFs against a tmpfs.

use std::cell::Cell;

use anyhow::Result;

use super::Options;
use super::enclosure::Enclosure;
use super::runner::{Comparison, Subject};
use super::workloads::{Bound, Cold, Workload, data, metadata};
use crate::process::release_build;
use crate::target::Target;

const fn row(name: &'static str, run: super::workloads::Run, bounds: &'static [Bound]) -> Workload {
    Workload { name, bounds, run }
}

const fn bound(floor: f64, goal: f64) -> Bound {
    Bound { of: "memfs", floor: Some(floor), goal: Some(goal) }
}

/// In the order of the table; those with a floor first.
static WORKLOADS: [Workload; 15] = [
    row("stat, cold", metadata::cold_stat, &[bound(0.15, 0.18)]),
    row("create 4 KiB files", metadata::create, &[bound(0.12, 0.15)]),
    row("read 1 MiB at a time, warm", data::warm_read, &[bound(0.9, 0.9)]),
    row("stat, warm", metadata::warm_stat, &[]),
    row("statx with the birth time, cold", metadata::cold_statx, &[]),
    row("stat of an absent name, repeated", metadata::repeated_miss, &[]),
    row("stat of an absent name, new", metadata::new_miss, &[]),
    row("open, read 4 KiB, close, warm", data::small_read, &[]),
    row("write 1 MiB at a time", data::sequential_write, &[]),
    row("list 1,000 entries, warm", metadata::warm_readdir, &[]),
    row("unlink", metadata::unlink, &[]),
    row("rename", metadata::rename, &[]),
    row("mkdir", metadata::mkdir, &[]),
    row("create 4 KiB files, 2 clients", metadata::create_by_two, &[]),
    row("stat, cold, 2 clients", metadata::cold_stat_by_two, &[]),
];

/// Runs it, or with `noise` a tmpfs in the place of ours.
pub(super) fn run(noise: bool, options: &Options) -> Result<()> {
    let enclosure = Enclosure::enter()?;
    let scratch = enclosure.scratch();
    let ours = if noise {
        Target::Tmpfs
    } else {
        Target::stratafs(&release_build()?, "mem(capacity=1GiB)")
    };
    // The same length of path for both, as the kernel walks it each time.
    let ours = Subject::standing("memfs", true, ours.mount(scratch, "ours")?);
    let reference = Subject::standing("tmpfs", false, Target::Tmpfs.mount(scratch, "ramf")?);
    let shared = scratch.directory("shared")?;
    let comparison = Comparison {
        name: "memfs",
        reference,
        subjects: vec![ours],
        workloads: &WORKLOADS,
        cold: Cold::Entries,
        scratch,
        shared: &shared,
        done: Cell::new(0),
    };
    comparison.run(options)
}
