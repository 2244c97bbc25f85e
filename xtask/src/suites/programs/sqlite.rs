//! A database in WAL mode: shared memory through mmap, byte-range locks, two processes at once.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::target::Scratch;

/// Two processes read and write one database, each seeing what WAL mode promises.
pub(super) fn work(mount: &Path, _: &Scratch, _: &str) -> Result<()> {
    let path = mount.join("database");
    let mut writer = Connection::open(&path)?;
    writer.expect("PRAGMA journal_mode=WAL;", "wal")?;
    writer.expect("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB); SELECT 1;", "1")?;
    writer.expect(&insert(1000), "1000")?;

    let mut reader = Connection::open(&path)?;
    reader.expect("PRAGMA journal_mode;", "wal")?;
    reader.expect("BEGIN; SELECT count(*) FROM t;", "1000")?;
    writer.expect(&insert(500), "1500")?;
    // A reader keeps the snapshot of its transaction while the writer goes on.
    reader.expect("SELECT count(*) FROM t;", "1000")?;
    reader.expect("COMMIT; SELECT count(*) FROM t;", "1500")?;

    // One writer at a time: the lock of one process is seen by the other.
    writer.expect("BEGIN IMMEDIATE; INSERT INTO t(body) VALUES('held'); SELECT 1;", "1")?;
    let mut rival = Connection::open(&path)?;
    let refused = rival.ask("INSERT INTO t(body) VALUES('refused');")?;
    ensure!(refused.contains("locked"), "a second writer was not refused: {refused:?}");
    rival.kill();

    // A writer that dies in its transaction leaves nothing of it.
    writer.kill();
    reader.expect("SELECT count(*) FROM t;", "1500")?;
    reader.expect("INSERT INTO t(body) VALUES('after'); SELECT count(*) FROM t;", "1501")?;

    reader.expect("PRAGMA wal_checkpoint(TRUNCATE);", "0|0|0")?;
    let log_bytes = fs::metadata(mount.join("database-wal"))?.len();
    ensure!(log_bytes == 0, "the log has {log_bytes} bytes after a truncating checkpoint");
    reader.expect("PRAGMA integrity_check;", "ok")?;
    reader.close()?;

    let mut last = Connection::open(&path)?;
    last.expect("SELECT count(*), sum(length(body)) > 1500000 FROM t;", "1501|1")?;
    last.expect("PRAGMA integrity_check;", "ok")?;
    last.close()
}

fn insert(rows: usize) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         INSERT INTO t(body) SELECT randomblob(1500) FROM n; SELECT count(*) FROM t;"
    )
}

/// One `sqlite3` process.
struct Connection {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// Printed after each answer, so that its end is seen.
const END: &str = "--end of answer--";

impl Connection {
    fn open(path: &Path) -> Result<Self> {
        let mut process = Command::new("sqlite3")
            .args(["-batch", "-init", "/dev/null"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start sqlite3")?;
        let input = process.stdin.take().context("sqlite3 has no input")?;
        let output = process.stdout.take().context("sqlite3 has no output")?;
        let errors = process.stderr.take().context("sqlite3 has no errors")?;
        let (sender, lines) = mpsc::channel();
        let errors_sender = sender.clone();
        // Both end with the process, whose streams they read.
        thread::spawn(move || forward(output, &sender));
        thread::spawn(move || forward(errors, &errors_sender));
        Ok(Self { process, input, lines })
    }

    /// Runs statements; their rows or their error.
    fn ask(&mut self, sql: &str) -> Result<String> {
        writeln!(self.input, "{sql}\n.print {END}").context("sqlite3 is gone")?;
        self.input.flush()?;
        let mut answer = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(60))
                .with_context(|| format!("no answer to {sql}"))?;
            if line != END {
                answer.push(line);
            } else if answer.is_empty() && !sql.contains("SELECT") {
                // An error comes by another stream and may come after the mark.
                answer.extend(self.lines.recv_timeout(Duration::from_secs(30)).ok());
                return Ok(answer.join("\n"));
            } else {
                return Ok(answer.join("\n"));
            }
        }
    }

    fn expect(&mut self, sql: &str, expected: &str) -> Result<()> {
        let answer = self.ask(sql)?;
        ensure!(answer == expected, "{sql}: {answer:?} where {expected:?} was expected");
        Ok(())
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn close(mut self) -> Result<()> {
        writeln!(self.input, ".quit")?;
        self.input.flush()?;
        let status = self.process.wait()?;
        if !status.success() {
            bail!("sqlite3 ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.kill();
    }
}

fn forward(stream: impl std::io::Read, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if lines.send(line).is_err() {
            return;
        }
    }
}
