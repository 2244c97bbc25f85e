//! The external suites: programs that know nothing of stratafs, run on a mounted one.

mod fsx;
mod pjdfstest;
mod programs;
mod readme;

use std::fmt;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use fsx::exercise;

use crate::target::{Scratch, Target};

/// One external suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// POSIX conformance, compared test by test with tmpfs.
    Pjdfstest,
    /// Random reads, writes, maps, truncations and holes on one file, each read checked.
    Fsx,
    /// git, cargo and SQLite.
    Programs,
    /// The README's command to mount.
    Readme,
}

impl Suite {
    pub(crate) const ALL: [Self; 4] = [Self::Readme, Self::Pjdfstest, Self::Fsx, Self::Programs];

    /// Runs the suite on every composition it covers; what fails is printed where it fails.
    pub(crate) fn run(self, targets: &Targets) -> Result<Tally> {
        let scratch = Scratch::new()?;
        match self {
            Self::Pjdfstest => pjdfstest::run(targets, &scratch),
            Self::Fsx => fsx::run(targets, &scratch),
            Self::Programs => programs::run(targets, &scratch),
            Self::Readme => readme::run(targets, &scratch),
        }
    }

    /// How many cases are skipped where nothing can be mounted.
    pub(crate) fn cases(self) -> usize {
        match self {
            Self::Pjdfstest => pjdfstest::CASES,
            Self::Fsx => fsx::CASES,
            Self::Programs => programs::CASES,
            Self::Readme => readme::CASES,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pjdfstest => "pjdfstest",
            Self::Fsx => "fsx",
            Self::Programs => "programs",
            Self::Readme => "readme",
        })
    }
}

/// What the suites run on.
#[derive(Debug)]
pub(crate) struct Targets {
    /// With the kernel's caches used in full.
    pub(crate) cached: Target,
    /// Each read and write reaches the server.
    pub(crate) uncached: Target,
}

impl Targets {
    /// A MemFs served by the command at `program`.
    pub(crate) fn memfs(program: &Path) -> Self {
        let serve = |spec| Target::stratafs(program, spec);
        Self {
            cached: serve("mem(capacity=1GiB)"),
            uncached: serve("mem(capacity=1GiB, cache=never)"),
        }
    }

    /// tmpfs in the place of both, which tries the suites themselves.
    pub(crate) fn tmpfs() -> Self {
        Self { cached: Target::Tmpfs, uncached: Target::Tmpfs }
    }

    pub(crate) fn both(&self) -> [&Target; 2] {
        [&self.cached, &self.uncached]
    }
}

/// A suite's closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// Counts a case and prints how it went.
    pub(crate) fn count(&mut self, case: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("{case}: ok");
            }
            Err(error) => {
                self.failed += 1;
                println!("{case}: FAILED: {error:#}");
            }
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}
