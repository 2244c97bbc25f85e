//! What the filesystems are given to do. Each makes its files first, and the caller removes them
//! after; only the loop between is timed, with its paths made beforehand.

pub(super) mod data;
pub(super) mod layers;
pub(super) mod metadata;
pub(super) mod programs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::probe::Probe;

/// One workload, with what is asked of it.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) bounds: &'static [Bound],
    pub(super) run: Run,
}

pub(super) type Run = fn(&Place<'_>) -> Result<Measured>;

/// What is asked of one filesystem: the ratio that closes the work on it, and the one aimed for.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) of: &'static str,
    pub(super) floor: Option<f64>,
    pub(super) goal: Option<f64>,
}

/// Where a workload works.
pub(super) struct Place<'a> {
    /// Empty, on the filesystem that is measured; the caller removes it.
    pub(super) directory: &'a Path,
    /// Outside of what is measured, kept for the whole comparison.
    pub(super) shared: &'a Path,
    pub(super) cold: &'a Cold,
    /// Told when the loop begins and ends.
    pub(super) probe: &'a dyn Probe,
}

/// What it takes to make a filesystem cold.
#[derive(Debug)]
pub(super) enum Cold {
    /// The kernel forgets every entry and inode that nothing uses, so each is asked for again.
    ///
    /// tmpfs has its entries nowhere else, so there they stay and its cold stat is a warm one: that is
    /// what a program is given.
    Entries,
    /// It forgets the data too, and so does the filesystem behind the one that is measured.
    Everything {
        /// What is behind.
        backing: PathBuf,
    },
}

/// A timed loop.
pub(super) struct Measured {
    pub(super) operations: u64,
    elapsed: Duration,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self { operations: 0, elapsed: Duration::ZERO }
    }
}

/// Long enough for the kernel to tell a server what it has forgotten.
const FORGETTING: Duration = Duration::from_millis(300);

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn timed(&self, operations: usize, work: impl FnOnce() -> Result<()>) -> Result<Measured> {
        self.probe.begin()?;
        let start = Instant::now();
        work()?;
        let elapsed = start.elapsed();
        self.probe.end()?;
        Ok(Measured { operations: operations as u64, elapsed })
    }

    /// Makes everyone forget.
    fn make_cold(&self) -> Result<()> {
        match self.cold {
            Cold::Entries => {
                drop_caches("2")?;
                thread::sleep(FORGETTING);
            }
            Cold::Everything { backing } => {
                // What is not written yet cannot be dropped.
                rustix::fs::syncfs(File::open(backing)?)?;
                drop_caches("3")?;
                thread::sleep(FORGETTING);
                // A server held what is behind until it was told to forget it.
                drop_caches("3")?;
            }
        }
        // The walk to the directory itself is not measured.
        fs::symlink_metadata(self.directory)?;
        Ok(())
    }
}

fn drop_caches(what: &str) -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", what).context("cannot drop the kernel's caches")
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Deterministic and well spread: the multiplier is Knuth's for 64 bits.
fn spread(index: usize) -> usize {
    let mixed = (index as u64 + 1).wrapping_mul(6_364_136_223_846_793_005);
    (mixed >> 33) as usize
}

fn paths(directory: &Path, stem: &str, count: usize) -> Vec<PathBuf> {
    (0..count).map(|index| directory.join(format!("{stem}{index}"))).collect()
}

fn made(directory: &Path, stem: &str, count: usize, bytes: usize) -> Result<Vec<PathBuf>> {
    let paths = paths(directory, stem, count);
    let data = vec![0x5a; bytes];
    for path in &paths {
        fs::write(path, &data)?;
    }
    Ok(paths)
}

/// Two client threads at once.
fn both(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    thread::scope(|scope| {
        let (one, other) = (scope.spawn(one), scope.spawn(other));
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        };
        joined(one).and(joined(other))
    })
}
