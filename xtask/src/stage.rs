//! The stages of a test run: their order, their budgets, and what they took.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

/// One stage of `cargo xtask test`, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Stage {
    /// Installs what the others need.
    Tools,
    /// Formatting, lints, every set of features, the documentation's links.
    Lint,
    /// Builds the tests and the `stratafs` command.
    Build,
    /// Every test that mounts nothing.
    InProcess,
    /// The tests on a mounted filesystem, and the external suites.
    Mounted,
    /// Virtual machines that boot from virtio-fs.
    Guest,
}

impl Stage {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tools, Self::Lint, Self::Build, Self::InProcess, Self::Mounted, Self::Guest];

    /// A goal for a machine of two cores with nothing built; passing it fails no run.
    fn budget(self) -> Duration {
        let minutes = match self {
            Self::Tools | Self::Lint | Self::Guest => 2,
            Self::Build => 5,
            Self::InProcess | Self::Mounted => 4,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Whether the stages after this one say nothing once it has failed.
    pub(crate) fn carries_the_rest(self) -> bool {
        matches!(self, Self::Tools | Self::Build)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tools => "tools",
            Self::Lint => "lint",
            Self::Build => "build",
            Self::InProcess => "in process",
            Self::Mounted => "mounted",
            Self::Guest => "guest",
        })
    }
}

/// What a stage took and how it ended.
#[derive(Debug)]
pub(crate) struct Timed {
    stage: Stage,
    took: Duration,
    pub(crate) outcome: Result<()>,
}

/// Runs a stage and prints its seconds beside its budget.
pub(crate) fn timed(stage: Stage, work: impl FnOnce() -> Result<()>) -> Timed {
    println!("\n== {stage} (budget {} s)", stage.budget().as_secs());
    let start = Instant::now();
    let outcome = work();
    let timed = Timed { stage, took: start.elapsed(), outcome };
    println!("== {timed}");
    timed
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, budget) = (self.took.as_secs_f64(), self.stage.budget().as_secs());
        write!(f, "{:10} {took:6.1} s of {budget:3} s", self.stage.to_string())?;
        if self.took > self.stage.budget() {
            f.write_str("  OVER BUDGET")?;
        }
        match &self.outcome {
            Ok(()) => Ok(()),
            Err(error) => write!(f, "  FAILED: {error:#}"),
        }
    }
}
