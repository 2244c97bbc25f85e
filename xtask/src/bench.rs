//! `cargo xtask bench`: mounted filesystems against each other, on the same machine in one run.
//!
//! The question: what does a program pay for a filesystem of ours where it could have had the kernel's,
//! or another project's? The unit is the ratio of operations per second to those of the reference. All
//! take turns in each round, so that what else the machine does falls on each; differences under 30%
//! are noise, and times in themselves say nothing.

mod enclosure;
mod guest;
mod idle;
mod memfs;
mod overlay;
mod passthrough;
mod plot;
mod probe;
mod runner;
mod table;
mod workloads;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::process::is_root;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A mounted MemFs against a tmpfs.
    Memfs {
        /// Measures tmpfs against itself, which shows the noise of this machine.
        #[arg(long)]
        noise: bool,

        #[command(flatten)]
        options: Options,
    },
    /// A mounted host directory against the directory itself, bindfs and fuse-overlayfs.
    Passthrough(Options),
    /// A mounted overlay of ten layers against the kernel's and fuse-overlayfs.
    Overlay {
        /// Copies a file of 1 GiB up, not of 256 MiB.
        #[arg(long)]
        full: bool,

        #[command(flatten)]
        options: Options,
    },
    /// A share of a virtual machine against virtiofsd.
    Guest(guest::Args),
}

/// What every comparison takes.
#[derive(Debug, clap::Args)]
struct Options {
    /// How often each workload runs on each filesystem.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Of the workloads, those whose names contain this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Also counts each server's system calls, in one more round, by strace.
    #[arg(long)]
    calls: bool,

    /// Writes every ratio here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Writes the plot here [default: bench-NAME.svg in the target directory].
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the comparison.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(is_root(), "mounting, and dropping the kernel's caches, take root");
    match &args.what {
        What::Memfs { noise, options } => memfs::run(*noise, options),
        What::Passthrough(options) => passthrough::run(options),
        What::Overlay { full, options } => overlay::run(*full, options),
        What::Guest(args) => guest::run(args),
    }
}
