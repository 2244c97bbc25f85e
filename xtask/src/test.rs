//! `cargo xtask test`: the one test command.

use anyhow::{Result, bail};

use crate::stage::{self, Stage};
use crate::suites::{On, Suite};
use crate::{build, guest, in_process, lint, mounted, tools};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reports the tools that are missing instead of installing them; what needs them is skipped.
    #[arg(long)]
    no_install: bool,

    /// Of the mounted suites, runs these only.
    #[arg(long = "suite", value_name = "SUITE")]
    suites: Vec<Suite>,

    /// What the mounted suites run on [default: each of ours].
    #[arg(long, value_name = "TARGET")]
    on: Vec<On>,

    /// The stages to run [default: all].
    #[arg(value_name = "STAGE")]
    stages: Vec<Stage>,
}

/// Runs the chosen stages in order and sums up what each took.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut all = Vec::new();
    for stage in Stage::ALL {
        if !args.stages.is_empty() && !args.stages.contains(&stage) {
            continue;
        }
        let timed = stage::timed(stage, || match stage {
            Stage::Tools => tools::install(args.no_install),
            Stage::Lint => lint::run(),
            Stage::Build => build::run(),
            Stage::InProcess => in_process::run(),
            Stage::Mounted => mounted::run(&args.suites, &args.on),
            Stage::Guest => guest::run(),
        });
        let stop = timed.outcome.is_err() && stage.carries_the_rest();
        all.push(timed);
        if stop {
            break;
        }
    }
    println!();
    for timed in &all {
        println!("{timed}");
    }
    match all.iter().filter(|timed| timed.outcome.is_err()).count() {
        0 => Ok(()),
        1 => bail!("a stage failed"),
        failed => bail!("{failed} stages failed"),
    }
}
