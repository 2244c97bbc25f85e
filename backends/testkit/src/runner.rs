//! Running the conformance map on a stack.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use stratafs_core::{DynFileSystem, StatFs};

use crate::capability::gaps_of;
use crate::client::{Client, InProcess, Mounted};
use crate::counted::Ledger;
use crate::world::{remove_all, settled};
use crate::{Capabilities, Case, Failure, Place, Verdict, World, cases};

/// Something that the conformance map runs on: a client of a filesystem, with what is known to be
/// missing.
pub struct Stack {
    name: String,
    client: Arc<dyn Client>,
    ledger: Option<Arc<Ledger>>,
    /// The directory in which cases work, with a slash at its end; empty for the root.
    below: Vec<u8>,
    gaps: Vec<(Capabilities, String)>,
    excuses: Vec<(&'static str, String)>,
}

impl Stack {
    /// `fs`, driven in process. Every case ends with a leak check:
    /// lookups, handles, blocks, inodes. What `fs` does not promise in
    /// its [`Features`](stratafs_core::Features) is a gap of itself.
    #[must_use]
    pub fn in_process(name: impl Into<String>, fs: Arc<dyn DynFileSystem>) -> Self {
        let gaps = gaps_of(&fs.features());
        let (client, ledger) = InProcess::counted(fs);
        Self {
            name: name.into(),
            client: Arc::new(client),
            ledger: Some(ledger),
            below: Vec::new(),
            gaps: gaps.into_iter().map(|(what, why)| (what, why.to_owned())).collect(),
            excuses: Vec::new(),
        }
    }

    /// The filesystem that the directory `path` is on, through the kernel. Where this process is
    /// not root, that is a gap of itself.
    ///
    /// # Errors
    /// The directory can't be opened.
    pub fn mounted(name: impl Into<String>, path: &Path) -> std::io::Result<Self> {
        let client = Mounted::new(path)?;
        let mut gaps = vec![(
            Capabilities::POSIX_LOCKS,
            "POSIX locks of two owners take two processes".to_owned(),
        )];
        if !client.is_privileged() {
            let what = Capabilities::PRIVILEGE
                | Capabilities::DEVICES
                | Capabilities::XATTR_TRUSTED
                | Capabilities::XATTR_SECURITY
                | Capabilities::XATTR_ON_SYMLINK;
            gaps.push((what, "this process is not root".to_owned()));
        }
        Ok(Self {
            name: name.into(),
            client: Arc::new(client),
            ledger: None,
            below: Vec::new(),
            gaps,
            excuses: Vec::new(),
        })
    }

    /// The same stack, which lacks `gap` for this reason: cases that need it are skipped, and the
    /// report says why.
    #[must_use]
    pub fn without(mut self, gap: Capabilities, reason: impl Into<String>) -> Self {
        self.gaps.push((gap, reason.into()));
        self
    }

    /// The same stack, on which the case `name` alone is skipped, for this reason. A name that is
    /// no case's fails the run, so that an excuse can't outlive its case.
    #[must_use]
    pub fn excuse(mut self, name: &'static str, reason: impl Into<String>) -> Self {
        self.excuses.push((name, reason.into()));
        self
    }

    /// The same stack, whose cases work in the directory `path` of it, which exists, and not in its
    /// root: on a mount in the tree, say. `statfs` stays the root's.
    #[must_use]
    pub fn below(mut self, path: impl Into<Vec<u8>>) -> Self {
        self.below = path.into();
        self.below.push(b'/');
        self
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    /// What the stack is taken to have: all but its gaps.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.gaps.iter().fold(Capabilities::all(), |all, (gap, _)| all.difference(*gap))
    }

    /// Runs the whole map.
    #[must_use]
    pub fn run(&self) -> Report {
        self.run_cases(cases().iter())
    }

    /// Runs `some` cases.
    #[must_use]
    pub fn run_cases<'a>(&self, some: impl IntoIterator<Item = &'a Case>) -> Report {
        let mut report = Report { stack: self.name.clone(), ..Report::default() };
        for (name, _) in &self.excuses {
            if !cases().iter().any(|case| case.name == *name) {
                let failure = Failure::nowhere("excused, but there is no such case");
                report.failed.push((name, failure));
            }
        }
        for case in some {
            match self.skip(case) {
                Some(reason) => report.skipped.push((case.name, reason)),
                None => match self.run_case(case) {
                    Ok(()) => report.passed.push(case.name),
                    Err(failure) => report.failed.push((case.name, failure)),
                },
            }
        }
        report
    }

    fn skip(&self, case: &Case) -> Option<String> {
        let elsewhere = match case.place {
            Place::InProcess(reason) if self.client.in_process().is_none() => Some(reason),
            Place::Mounted(reason) if self.client.in_process().is_some() => Some(reason),
            _ => None,
        };
        if let Some(reason) = elsewhere {
            return Some(reason.to_owned());
        }
        if let Some((_, reason)) = self.excuses.iter().find(|(name, _)| *name == case.name) {
            return Some(reason.clone());
        }
        let gap = self.gaps.iter().find(|(gap, _)| gap.intersects(case.needs));
        gap.map(|(_, reason)| reason.clone())
    }

    /// Runs one case on a thread of its own, whose ids and umask the client may change.
    fn run_case(&self, case: &Case) -> Verdict {
        let outcome = std::thread::scope(|scope| scope.spawn(|| self.run_here(case)).join());
        outcome.unwrap_or_else(|panic| Err(Failure::nowhere(panic_text(&*panic))))
    }

    fn run_here(&self, case: &Case) -> Verdict {
        let client = &*self.client;
        client.begin()?;
        let before = client.statfs()?;
        let dir = &[&self.below, case.name.as_bytes()].concat()[..];
        client.mkdir(dir, 0o777)?;
        let world = World::new(client, dir);
        let verdict = catch_unwind(AssertUnwindSafe(|| (case.run)(&world)))
            .unwrap_or_else(|panic| Err(Failure::nowhere(panic_text(&*panic))));
        let left_open = client.end()?;
        let removed = remove_all(client, dir);
        verdict?;
        if let Err(errno) = removed {
            return Err(Failure::nowhere(format!("can't remove what the case made: {errno}")));
        }
        if left_open > 0 {
            return Err(Failure::nowhere(format!("the case left {left_open} files open")));
        }
        self.leaks(&before)
    }

    /// Fails unless everything was given back: lookups, handles, blocks and inodes.
    pub(crate) fn leaks(&self, before: &StatFs) -> Verdict {
        if let Some(ledger) = &self.ledger {
            ledger.check()?;
        }
        if !self.capabilities().contains(Capabilities::ACCOUNTING) {
            return Ok(());
        }
        let used = |stat: &StatFs| {
            (stat.blocks.wrapping_sub(stat.bfree), stat.files.wrapping_sub(stat.ffree))
        };
        let before = used(before);
        let client = &*self.client;
        let after = settled(client, || Ok(used(&client.statfs()?)), &before)?;
        if after == before {
            return Ok(());
        }
        Err(Failure::nowhere(format!(
            "blocks and inodes in use are {after:?} in the end, and were {before:?} at the start"
        )))
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({}, {} gaps)", self.name, self.gaps.len())
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
    format!("a panic: {text}")
}

/// How a run went. Its `Display` names every failure with its place, how many cases were
/// skipped for what reason, and ends in a line `N passed, N failed, N skipped`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The stack's name.
    pub stack: String,
    /// The cases that passed.
    pub passed: Vec<&'static str>,
    /// The cases that failed.
    pub failed: Vec<(&'static str, Failure)>,
    /// The cases that were skipped, with the reason.
    pub skipped: Vec<(&'static str, String)>,
}

impl Report {
    /// Panics with the whole report if a case failed, or if none passed; prints it otherwise.
    ///
    /// # Panics
    /// As said: it is the last line of a test.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.failed.is_empty(), "{self}");
        assert!(!self.passed.is_empty(), "nothing was run: {self}");
        println!("{self}");
    }

    /// Whether the case `name` failed.
    #[must_use]
    pub fn has_failed(&self, name: &str) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == name)
    }
}

/// How many names of cases that are skipped for one reason a report prints.
const SHOWN: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, failure) in &self.failed {
            writeln!(f, "{}: {name} FAILED: {failure}", self.stack)?;
        }
        let mut reasons: Vec<&str> = self.skipped.iter().map(|(_, why)| why.as_str()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let same = self.skipped.iter().filter(|(_, why)| why == reason);
            let names: Vec<_> = same.map(|(name, _)| *name).collect();
            let shown = names[..names.len().min(SHOWN)].join(", ");
            let more = if names.len() > SHOWN { ", …" } else { "" };
            writeln!(f, "{}: {} skipped, {reason}: {shown}{more}", self.stack, names.len())?;
        }
        let (passed, failed) = (self.passed.len(), self.failed.len());
        let skipped = self.skipped.len();
        write!(f, "{}: {passed} passed, {failed} failed, {skipped} skipped", self.stack)
    }
}
