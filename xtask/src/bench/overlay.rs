//! A mounted overlay of ten layers against the kernel's overlayfs and fuse-overlayfs.
//!
//! All have the same lower layers on one private ext4, in memory, and an upper of their own there, new
//! for each measurement. `ours` is mounted with `cache=always`: as with the other two, nobody changes
//! the layers meanwhile; `shared` has the defaults.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Options;
use super::enclosure::Enclosure;
use super::runner::{Comparison, Site, Subject};
use super::workloads::{Bound, Cold, Run, Workload, layers};
use crate::process::release_build;
use crate::target::{Ext4, Mounted, Scratch, Target};
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

/// In the order of the table.
static WORKLOADS: [Workload; 15] = [
    row("a path 20 directories deep, cold", layers::deep, &[ours(1.0, 2.0)]),
    row("stat of an absent name, new", layers::new_miss, &[ours(0.8, 1.2)]),
    row("list merged directories, cold", layers::cold_readdir, &[ours(0.3, 0.5)]),
    row("list merged directories, warm", layers::warm_readdir, &[ours(2.0, 5.0)]),
    row("copy small files up", layers::copy_up_small, &[ours(0.8, 1.0)]),
    row("copy a large file up", layers::copy_up_large, &[ours(1.0, 1.5)]),
    row("unlink lower files", layers::unlink, &[ours(0.35, 0.5)]),
    row("create 4 KiB files", layers::create, &[ours(0.35, 0.5)]),
    row("find, cold", layers::find, &[aim(0.75)]),
    row("rm -rf a lower directory", layers::remove, &[aim(0.6)]),
    row("stat lower files, cold", layers::cold_stat, &[]),
    row("chmod lower files", layers::chmod, &[]),
    row("rename lower files", layers::rename, &[]),
    row("open, read 4 KiB, close, warm", layers::small_read, &[]),
    row("read 1 MiB at a time, cold", layers::cold_read, &[]),
];

/// Memory that the private ext4 may come to take.
const GIB: u64 = 8;

/// What mounts an overlay: the layers from the topmost, the upper, the work directory.
type Mount = fn(&Path, &[PathBuf], &Path, &Path) -> Target;

fn stratafs(program: &Path, lowers: &[PathBuf], upper: &Path, work: &Path, more: &str) -> Target {
    let lowers: String =
        lowers.iter().map(|lower| format!("lower={}, ", lower.display())).collect();
    let (upper, work) = (upper.display(), work.display());
    Target::stratafs(program, format!("overlay({lowers}upper={upper}, work={work}{more})"))
}

/// As mount(8) writes them.
fn words(lowers: &[PathBuf], upper: &Path, work: &Path) -> String {
    let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
    let (lowers, upper, work) = (lowers.join(":"), upper.display(), work.display());
    format!("lowerdir={lowers},upperdir={upper},workdir={work}")
}

const SUBJECTS: [(&str, bool, Mount); 4] = [
    ("kernel", false, |_, lowers, upper, work| Target::Kernel {
        label: "the kernel's overlayfs",
        arguments: ["-t", "overlay", "-o", &words(lowers, upper, work), "stratafs-xtask"]
            .map(Into::into)
            .into(),
    }),
    ("ours", true, |program, lowers, upper, work| {
        stratafs(program, lowers, upper, work, ", cache=always")
    }),
    ("shared", true, |program, lowers, upper, work| stratafs(program, lowers, upper, work, "")),
    ("fuse-overlayfs", false, |_, lowers, upper, work| Target::Peer {
        label: "fuse-overlayfs",
        command: ["fuse-overlayfs", "-f", "-o", &words(lowers, upper, work)].map(Into::into).into(),
    }),
];

/// Runs it, with a large file of 1 GiB if `full`.
pub(super) fn run(full: bool, options: &Options) -> Result<()> {
    let enclosure = Enclosure::enter()?;
    let scratch = enclosure.scratch();
    tools::install_missing(&tools::PEERS)?;
    let program = release_build()?;
    let ext4 = Ext4::new(scratch, "ext4", GIB)?;
    let mut lowers = Vec::new();
    for index in 0..layers::LAYERS {
        lowers.push(ext4.directory(&format!("layer{index}"))?);
    }
    layers::fill(&lowers, if full { 1_024 } else { 256 })?;
    // From the topmost.
    lowers.reverse();
    let subject = |(name, ours, target): (&'static str, bool, Mount)| {
        let (program, lowers) = (program.clone(), lowers.clone());
        let top = ext4.path().to_owned();
        let mount = move |scratch: &Scratch, count: usize| -> Result<(Mounted, PathBuf)> {
            let written = top.join(format!("written{count}"));
            let (upper, work) = (written.join("upper"), written.join("work"));
            fs::create_dir_all(&upper)?;
            fs::create_dir(&work)?;
            let target = target(&program, &lowers, &upper, &work);
            Ok((target.mount(scratch, &format!("mount{count}"))?, written))
        };
        Subject { name, ours, site: Site::Anew(Box::new(mount)) }
    };
    let [reference, subjects @ ..] = SUBJECTS.map(subject);
    let shared = ext4.directory("shared")?;
    let comparison = Comparison {
        name: "overlay",
        reference,
        subjects: subjects.into(),
        workloads: &WORKLOADS,
        cold: Cold::Everything { backing: ext4.path().to_owned() },
        scratch,
        shared: &shared,
        done: Cell::new(0),
    };
    comparison.run(options)
}
