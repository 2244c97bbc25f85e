//! `cargo xtask bench memfs`: a mounted MemFs against a tmpfs, on the same machine in one run.
//!
//! The question: what does a program pay for a MemFs where it could have had a tmpfs? The unit is the
//! ratio of operations per second. The two take turns in each round, so that what else the machine does
//! falls on both; differences under 30% are noise, and times in themselves say nothing.

mod idle;
mod workloads;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use workloads::{WORKLOADS, Workload};

use crate::process::{self, cargo, is_root, target_profile_dir};
use crate::target::{Mounted, Scratch, Target};

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
        /// How often each workload runs on each of the two.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Measures tmpfs against itself, which shows the noise of this machine.
        #[arg(long)]
        noise: bool,

        /// Of the workloads, those whose names contain this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
}

/// Runs the comparison.
pub(crate) fn run(args: &Args) -> Result<()> {
    let What::Memfs { rounds, noise, only } = &args.what;
    ensure!(is_root(), "mounting a tmpfs and dropping the kernel's caches take root");
    let ours = if *noise { Target::Tmpfs } else { served()? };
    let _polling = idle::HaltPoll::raised()?;
    let scratch = Scratch::new()?;
    // The same length of path for both, as the kernel walks it each time.
    let ours = ours.mount(&scratch, "ours")?;
    let reference = Target::Tmpfs.mount(&scratch, "ramf")?;
    let chosen =
        |workload: &&Workload| only.as_ref().is_none_or(|only| workload.name.contains(only));
    let mut below = Vec::new();
    println!(
        "\n{rounds} rounds; the ratio is our operations per second to those of tmpfs\n\n\
         {:34} {:>6} {:>6} {:>6}  {:>5} {:>5}  answers per operation",
        "workload", "min", "median", "max", "floor", "goal"
    );
    for workload in WORKLOADS.iter().filter(chosen) {
        let row = measure(workload, &ours, &reference, *rounds)
            .with_context(|| format!("{}: the server said: {}", workload.name, ours.said()))?;
        println!("{}", row.shown(workload));
        if workload.floor.is_some_and(|floor| row.median() < floor) {
            below.push(workload.name);
        }
    }
    ours.unmount()?;
    reference.unmount()?;
    if below.is_empty() { Ok(()) } else { bail!("below the floor: {}", below.join(", ")) }
}

/// An optimised build, serving in full use of the kernel's caches.
fn served() -> Result<Target> {
    process::run(cargo().args(["build", "--release", "-p", "stratafs"]))?;
    let profiles = target_profile_dir()?;
    let target = profiles.parent().context("no target directory")?;
    Ok(Target::Stratafs { program: target.join("release/stratafs"), spec: "mem(capacity=1GiB)" })
}

/// One line of the table.
struct Row {
    /// Sorted.
    ratios: Vec<f64>,
    /// Replies that the server wrote for each operation; `None` where the kernel does not count.
    answers: Option<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        self.ratios[self.ratios.len() / 2]
    }

    fn shown(&self, workload: &Workload) -> String {
        let figure = |figure: Option<f64>| figure.map_or("-".to_owned(), |it| format!("{it:.2}"));
        let answers = self.answers.map_or("-".to_owned(), |answers| format!("{answers:.3}"));
        let below = workload.floor.is_some_and(|floor| self.median() < floor);
        format!(
            "{:34} {:6.3} {:6.3} {:6.3}  {:>5} {:>5}  {answers:>8}{}",
            workload.name,
            self.ratios[0],
            self.median(),
            self.ratios[self.ratios.len() - 1],
            figure(workload.floor),
            figure(workload.goal),
            if below { "  BELOW THE FLOOR" } else { "" }
        )
    }
}

fn measure(workload: &Workload, ours: &Mounted, reference: &Mounted, rounds: u32) -> Result<Row> {
    let mut ratios = Vec::new();
    let (mut answers, mut operations) = (Some(0), 0);
    for round in 0..rounds {
        let name = format!("round{round}");
        let on = |mounted: &Mounted| -> Result<workloads::Measured> {
            let directory = mounted.path().join(&name);
            fs::create_dir(&directory)?;
            let counter = || mounted.server_pid().and_then(answers_of);
            let measured = (workload.run)(&directory, &counter)?;
            fs::remove_dir_all(&directory)?;
            Ok(measured)
        };
        // Who goes first takes turns too.
        let (mine, theirs) = if round % 2 == 0 {
            let mine = on(ours)?;
            (mine, on(reference)?)
        } else {
            let theirs = on(reference)?;
            (on(ours)?, theirs)
        };
        ratios.push(mine.per_second() / theirs.per_second());
        answers = answers.zip(mine.answers).map(|(sum, more)| sum + more);
        operations += mine.operations;
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Row { ratios, answers: answers.map(|answers| answers as f64 / operations as f64) })
}

/// How many writes a process has made: a server's replies, as it writes nothing else.
fn answers_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscw:"))?.trim().parse().ok()
}
