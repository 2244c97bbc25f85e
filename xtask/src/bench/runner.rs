//! One workload on several filesystems, in rounds.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::table::Table;
use super::workloads::{Cold, Measured, Place, Workload};
use super::{Options, plot};
use crate::process::target_profile_dir;
use crate::target::{Mounted, Scratch};

/// A filesystem that is measured.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Whether it is ours, which is judged, or one to compare with.
    pub(super) ours: bool,
    pub(super) site: Site,
}

/// How a subject is mounted.
pub(super) enum Site {
    /// Once; each workload gets an empty directory in it.
    Standing(Mounted),
    /// For each measurement anew, as what a workload changes cannot be changed back; it gets the top.
    /// The directory under which the mount keeps what is written is removed after.
    Anew(Box<Anew>),
}

/// Mounts a subject; the number is another each time.
pub(super) type Anew = dyn Fn(&Scratch, usize) -> Result<(Mounted, PathBuf)>;

impl Subject {
    /// One that is mounted.
    pub(super) fn standing(name: &'static str, ours: bool, mounted: Mounted) -> Self {
        Self { name, ours, site: Site::Standing(mounted) }
    }
}

/// A comparison.
pub(super) struct Comparison<'a> {
    /// In file names and titles.
    pub(super) name: &'static str,
    /// What the ratios are to.
    pub(super) reference: Subject,
    pub(super) subjects: Vec<Subject>,
    pub(super) workloads: &'static [Workload],
    /// What it takes to make the reference and the subjects forget.
    pub(super) cold: Cold,
    pub(super) scratch: &'a Scratch,
    /// Outside of all of them: what they are all given.
    pub(super) shared: &'a Path,
    /// How many measurements were made.
    pub(super) done: Cell<usize>,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) workload: &'static Workload,
    /// For each subject the ratios of the rounds, sorted.
    pub(super) ratios: Vec<Vec<f64>>,
    /// Writes of the first server for each operation; `None` where the kernel does not count.
    pub(super) answers: Option<f64>,
}

/// The middle one of sorted ratios.
pub(super) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Comparison<'_> {
    /// Runs it, prints the table, writes the files, and unmounts.
    ///
    /// # Errors
    /// A workload failed, or one of ours is below its floor or behind a peer.
    pub(super) fn run(self, options: &Options) -> Result<()> {
        let chosen = |workload: &&Workload| {
            options.only.as_ref().is_none_or(|only| workload.name.contains(only.as_str()))
        };
        let mut table = Table::new(&self, options.rounds);
        table.print_head();
        for workload in self.workloads.iter().filter(chosen) {
            let row = self.measure(workload, options.rounds)?;
            table.add(row);
        }
        ensure!(!table.rows.is_empty(), "no workload has such a name");
        if let Some(path) = &options.json {
            fs::write(path, table.json()).with_context(|| format!("cannot write {path:?}"))?;
        }
        let svg = match &options.svg {
            Some(path) => path.clone(),
            None => target_profile_dir()?
                .parent()
                .context("no target directory")?
                .join(format!("bench-{}.svg", self.name)),
        };
        fs::write(&svg, plot::svg(&table)).with_context(|| format!("cannot write {svg:?}"))?;
        println!("\nthe plot is {}", svg.display());
        for subject in self.subjects.into_iter().chain([self.reference]) {
            if let Site::Standing(mounted) = subject.site {
                mounted.unmount().with_context(|| subject.name)?;
            }
        }
        table.verdict()
    }

    fn measure(&self, workload: &'static Workload, rounds: u32) -> Result<Row> {
        let all: Vec<&Subject> = [&self.reference].into_iter().chain(&self.subjects).collect();
        let mut ratios = vec![Vec::new(); self.subjects.len()];
        let (mut answers, mut operations) = (Some(0), 0);
        for round in 0..rounds as usize {
            let mut measured: Vec<Option<Measured>> = all.iter().map(|_| None).collect();
            // Who goes first takes turns too.
            for turn in 0..all.len() {
                let index = (round + turn) % all.len();
                measured[index] = Some(self.once(workload, all[index], round)?);
            }
            let measured: Vec<Measured> = measured.into_iter().flatten().collect();
            for (ratios, subject) in ratios.iter_mut().zip(&measured[1..]) {
                ratios.push(subject.per_second() / measured[0].per_second());
            }
            answers = answers.zip(measured[1].answers).map(|(sum, more)| sum + more);
            operations += measured[1].operations;
        }
        for ratios in &mut ratios {
            ratios.sort_by(f64::total_cmp);
        }
        let answers = answers.map(|answers| answers as f64 / operations as f64);
        Ok(Row { workload, ratios, answers })
    }

    fn once(&self, workload: &Workload, subject: &Subject, round: usize) -> Result<Measured> {
        let context = |said: String| {
            format!("{} on {}; the server said: {said}", workload.name, subject.name)
        };
        match &subject.site {
            Site::Standing(mounted) => {
                let directory = mounted.path().join(format!("round{round}"));
                let work = || -> Result<Measured> {
                    fs::create_dir(&directory)?;
                    let measured = self.at(workload, mounted, &directory)?;
                    fs::remove_dir_all(&directory)?;
                    Ok(measured)
                };
                work().with_context(|| context(mounted.said()))
            }
            Site::Anew(mount) => {
                let (mounted, written) =
                    mount(self.scratch, self.done.replace(self.done.get() + 1))?;
                let measured = self
                    .at(workload, &mounted, mounted.path())
                    .with_context(|| context(mounted.said()))?;
                mounted.unmount()?;
                fs::remove_dir_all(written)?;
                Ok(measured)
            }
        }
    }

    fn at(&self, workload: &Workload, mounted: &Mounted, directory: &Path) -> Result<Measured> {
        (workload.run)(&Place {
            directory,
            shared: self.shared,
            cold: &self.cold,
            answers: &|| answers_of(mounted.server_pid()?),
        })
    }
}

/// How many writes a process has made: a server's replies, where it writes nothing else.
fn answers_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscw:"))?.trim().parse().ok()
}
