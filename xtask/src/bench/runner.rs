//! One workload on several filesystems, in rounds.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::probe::{Calls, PerOperation, Probe, Writes};
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
        if options.calls {
            println!("\nsystem calls of each server for one operation, replies and waits included");
            for row in &table.rows {
                self.count_calls(row.workload)?;
            }
        }
        for subject in self.subjects.into_iter().chain([self.reference]) {
            if let Site::Standing(mounted) = subject.site {
                mounted.unmount().with_context(|| subject.name)?;
            }
        }
        table.verdict()
    }

    fn all(&self) -> Vec<&Subject> {
        [&self.reference].into_iter().chain(&self.subjects).collect()
    }

    fn measure(&self, workload: &'static Workload, rounds: u32) -> Result<Row> {
        let all = self.all();
        let mut ratios = vec![Vec::new(); self.subjects.len()];
        let (mut answers, mut operations) = (Some(0), 0);
        for round in 0..rounds as usize {
            let mut measured: Vec<Option<Measured>> = all.iter().map(|_| None).collect();
            // Who goes first takes turns too.
            for turn in 0..all.len() {
                let index = (round + turn) % all.len();
                let work = |mounted: &Mounted, directory: &Path| -> Result<Measured> {
                    let writes = Writes::of(mounted.server_pid());
                    let measured = self.at(workload, directory, &writes)?;
                    if index == 1 {
                        answers = answers.zip(writes.counted()).map(|(sum, more)| sum + more);
                        operations += measured.operations;
                    }
                    Ok(measured)
                };
                measured[index] = Some(self.once(workload, all[index], round, work)?);
            }
            let measured: Vec<Measured> = measured.into_iter().flatten().collect();
            for (ratios, subject) in ratios.iter_mut().zip(&measured[1..]) {
                ratios.push(subject.per_second() / measured[0].per_second());
            }
        }
        for ratios in &mut ratios {
            ratios.sort_by(f64::total_cmp);
        }
        let answers = answers.map(|answers| answers as f64 / operations as f64);
        Ok(Row { workload, ratios, answers })
    }

    /// Prints which system calls each server makes for one operation of a workload.
    fn count_calls(&self, workload: &Workload) -> Result<()> {
        println!("\n{}", workload.name);
        for subject in self.all() {
            let work = |mounted: &Mounted, directory: &Path| -> Result<Option<PerOperation>> {
                let Some(server) = mounted.server_pid() else { return Ok(None) };
                let calls = Calls::of(server, self.scratch.file("strace"));
                let measured = self.at(workload, directory, &calls)?;
                Ok(Some(calls.per_operation(measured.operations)))
            };
            if let Some(calls) = self.once(workload, subject, 0, work)? {
                println!("  {:16} {calls}", subject.name);
            }
        }
        Ok(())
    }

    /// Mounts what must be mounted for it, makes a directory for it, and cleans up after.
    fn once<T>(
        &self,
        workload: &Workload,
        subject: &Subject,
        round: usize,
        work: impl FnOnce(&Mounted, &Path) -> Result<T>,
    ) -> Result<T> {
        let context = |mounted: &Mounted| {
            let said = mounted.said();
            format!("{} on {}; the server said: {said}", workload.name, subject.name)
        };
        match &subject.site {
            Site::Standing(mounted) => {
                let directory = mounted.path().join(format!("round{round}"));
                let all = || -> Result<T> {
                    fs::create_dir(&directory)?;
                    let done = work(mounted, &directory)?;
                    fs::remove_dir_all(&directory)?;
                    Ok(done)
                };
                all().with_context(|| context(mounted))
            }
            Site::Anew(mount) => {
                let number = self.done.replace(self.done.get() + 1);
                let (mounted, written) = mount(self.scratch, number)?;
                let done = work(&mounted, mounted.path()).with_context(|| context(&mounted))?;
                mounted.unmount()?;
                fs::remove_dir_all(written)?;
                Ok(done)
            }
        }
    }

    fn at(&self, workload: &Workload, directory: &Path, probe: &dyn Probe) -> Result<Measured> {
        (workload.run)(&Place { directory, shared: self.shared, cold: &self.cold, probe })
    }
}
