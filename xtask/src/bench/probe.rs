//! What a server does while a workload's loop runs: how often it writes, or which system calls it makes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::wait_until;

/// Told right before a loop and right after it.
pub(super) trait Probe {
    fn begin(&self) -> Result<()>;
    fn end(&self) -> Result<()>;
}

/// Counts a process's writes: a server's replies, where it writes nothing else.
#[derive(Debug, Default)]
pub(super) struct Writes {
    server: Option<u32>,
    before: Cell<Option<u64>>,
    during: Cell<Option<u64>>,
}

impl Writes {
    pub(super) fn of(server: Option<u32>) -> Self {
        Self { server, ..Self::default() }
    }

    /// `None` where there is no server, or the kernel does not count.
    pub(super) fn counted(&self) -> Option<u64> {
        self.during.get()
    }

    fn read(&self) -> Option<u64> {
        let path = Path::new("/proc").join(self.server?.to_string()).join("io");
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("syscw:"))?.trim().parse().ok()
    }
}

impl Probe for Writes {
    fn begin(&self) -> Result<()> {
        self.before.set(self.read());
        Ok(())
    }

    fn end(&self) -> Result<()> {
        self.during.set(self.before.get().zip(self.read()).map(|(before, after)| after - before));
        Ok(())
    }
}

/// Counts a process's system calls by strace(1), which slows it down many times: what is measured
/// meanwhile says nothing.
#[derive(Debug)]
pub(super) struct Calls {
    server: u32,
    summary: PathBuf,
    strace: RefCell<Option<Child>>,
    counted: RefCell<Vec<(String, u64)>>,
}

/// Generous: the machine may be loaded.
const DEADLINE: Duration = Duration::from_secs(30);

impl Calls {
    pub(super) fn of(server: u32, summary: PathBuf) -> Self {
        Self { server, summary, strace: RefCell::default(), counted: RefCell::default() }
    }

    /// For each operation, the most frequent first.
    pub(super) fn per_operation(&self, operations: u64) -> PerOperation {
        let counted = self.counted.borrow();
        let calls =
            counted.iter().map(|(name, count)| (name.clone(), *count as f64 / operations as f64));
        PerOperation(calls.collect())
    }
}

impl Probe for Calls {
    fn begin(&self) -> Result<()> {
        let said = self.summary.with_extension("log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-S", "calls", "-U", "name,calls", "-o"]).arg(&self.summary);
        strace.args(["-p", &self.server.to_string()]);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
        let strace = strace.spawn().context("cannot start strace")?;
        let strace = self.strace.borrow_mut().insert(strace).id();
        let start = Instant::now();
        while !fs::read_to_string(&said)?.contains("attached") {
            if start.elapsed() > DEADLINE {
                bail!("strace {strace} does not attach: {}", fs::read_to_string(&said)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let mut strace = self.strace.take().context("strace was not started")?;
        let stop = Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
        if !stop.success() || wait_until(&mut strace, DEADLINE)?.is_none() {
            let _ = strace.kill();
            bail!("strace does not end");
        }
        self.counted.replace(parse(&fs::read_to_string(&self.summary)?));
        Ok(())
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let Some(mut strace) = self.strace.take() {
            let _ = strace.kill();
            let _ = strace.wait();
        }
    }
}

/// System calls for each operation of a workload.
pub(super) struct PerOperation(Vec<(String, f64)>);

impl fmt::Display for PerOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: f64 = self.0.iter().map(|(_, count)| count).sum();
        write!(f, "{all:6.2}")?;
        for (name, count) in self.0.iter().filter(|(_, count)| *count >= 0.05) {
            write!(f, "  {name} {count:.2}")?;
        }
        Ok(())
    }
}

/// The lines `NAME COUNT` of the summary, but for its total.
fn parse(summary: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, count) = (words.next()?, words.next()?.parse().ok()?);
        (name != "total" && words.next().is_none()).then(|| (name.to_owned(), count))
    };
    summary.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_each_call_and_no_total() {
        let text = "syscall              calls\n---------------- ---------\nread                  4001\n\
                    statx                   12\n---------------- ---------\ntotal                 4013\n";
        assert_eq!(parse(text), [("read".to_owned(), 4001), ("statx".to_owned(), 12)]);
    }
}
