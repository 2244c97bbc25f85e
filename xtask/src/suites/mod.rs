//! The external suites: programs that know nothing of stratafs, run on a mounted one.

mod fsx;
mod overlay;
mod passthrough;
mod pjdfstest;
mod programs;
mod readme;
mod trees;

use std::fmt;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use fsx::exercise;

use crate::process::is_root;
use crate::target::{Ext4, Scratch, Target};

/// One external suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// POSIX conformance, compared test by test with the kernel's filesystem of the same kind.
    Pjdfstest,
    /// Random reads, writes, maps, truncations and holes on one file, each read checked.
    Fsx,
    /// git, cargo and SQLite.
    Programs,
    /// The README's command to mount.
    Readme,
}

/// What the suites run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// A MemFs mounted by the `stratafs` command, compared with tmpfs.
    Memfs,
    /// Mounted host directories, compared with the ext4 that they are on.
    Passthrough,
    /// Mounted overlays, compared with the kernel's.
    Overlay,
    /// Mounted dual filesystems and routers, compared with tmpfs.
    Trees,
    /// tmpfs, which tries the suites themselves.
    Tmpfs,
}

impl On {
    /// What is run on where nothing is chosen.
    pub(crate) const OURS: [Self; 4] = [Self::Memfs, Self::Passthrough, Self::Overlay, Self::Trees];
}

impl Suite {
    pub(crate) const ALL: [Self; 4] = [Self::Readme, Self::Pjdfstest, Self::Fsx, Self::Programs];

    /// Whether the suite has cases for it.
    pub(crate) fn covers(self, on: On) -> bool {
        match self {
            Self::Pjdfstest | Self::Fsx => true,
            Self::Programs | Self::Readme => matches!(on, On::Memfs | On::Tmpfs),
        }
    }

    /// Runs the suite on every composition it covers, served by the command at `program`; what fails
    /// is printed where it fails.
    pub(crate) fn run(self, on: On, program: &Path) -> Result<Tally> {
        let scratch = Scratch::new()?;
        let targets = || match on {
            On::Tmpfs => Targets::tmpfs(),
            _ => Targets::memfs(program),
        };
        match (self, on) {
            (Self::Pjdfstest, On::Passthrough) => passthrough::pjdfstest(program, &scratch),
            (Self::Pjdfstest, On::Overlay) => overlay::pjdfstest(program, &scratch),
            (Self::Pjdfstest, On::Trees) => trees::pjdfstest(program, &scratch),
            (Self::Pjdfstest, On::Memfs | On::Tmpfs) => {
                let targets = targets();
                let comparison = pjdfstest::Comparison {
                    reference: (&Target::Tmpfs, pjdfstest::TESTS - 10),
                    targets: vec![("cached", &targets.cached), ("uncached", &targets.uncached)],
                    skipped: &[],
                };
                pjdfstest::run(&comparison, &scratch)
            }
            (Self::Fsx, On::Passthrough) => {
                passthrough::fsx(program, &scratch, 11, fsx::OPERATIONS)
            }
            (Self::Fsx, On::Overlay) => overlay::fsx(program, &scratch, 21, fsx::OPERATIONS),
            (Self::Fsx, On::Trees) => trees::fsx(program, &scratch, 31, fsx::OPERATIONS),
            (Self::Fsx, On::Memfs | On::Tmpfs) => fsx::run(&targets(), &scratch),
            (Self::Programs, _) => programs::run(&targets(), &scratch),
            (Self::Readme, _) => readme::run(&targets(), &scratch),
        }
    }

    /// How many cases are skipped where nothing can be mounted.
    pub(crate) fn cases(self, on: On) -> usize {
        match (self, on) {
            // On two targets each.
            (Self::Pjdfstest, _) => 2 * pjdfstest::TESTS,
            (Self::Fsx, On::Passthrough) => passthrough::FSX_CASES,
            (Self::Fsx, On::Overlay) => overlay::FSX_CASES,
            (Self::Fsx, On::Trees) => trees::FSX_CASES,
            (Self::Fsx, On::Memfs | On::Tmpfs) => fsx::CASES,
            (Self::Programs, _) => programs::CASES,
            (Self::Readme, _) => readme::CASES,
        }
    }
}

/// fsx on every form of a host directory and of an overlay, with seeds from `first` on.
pub(crate) fn exercise_on_the_host(program: &Path, first: u64, operations: u64) -> Result<Tally> {
    let mut tally = passthrough::fsx(program, &Scratch::new()?, first, operations)?;
    tally += overlay::fsx(program, &Scratch::new()?, first, operations)?;
    Ok(tally)
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memfs => "memfs",
            Self::Passthrough => "passthrough",
            Self::Overlay => "overlay",
            Self::Trees => "trees",
            Self::Tmpfs => "tmpfs",
        })
    }
}

/// An empty ext4 of its own for a suite, or why there is none: it takes root and a loop device, which a
/// container may not have.
fn private_ext4(scratch: &Scratch, name: &str) -> Option<Ext4> {
    if !is_root() {
        println!("SKIPPED: a private ext4 takes root");
        return None;
    }
    Ext4::new(scratch, name, EXT4_GIB)
        .inspect_err(|error| println!("SKIPPED: no private ext4 here: {error:#}"))
        .ok()
}

/// Room for the largest file of a suite; only what is written takes memory.
const EXT4_GIB: u64 = 2;

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

/// A filesystem in memory in its two forms.
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
