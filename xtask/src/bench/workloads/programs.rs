//! Programs that people run all day.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::{Measured, Place, made};

const DIRECTORIES: usize = 50;
const FILES_IN_EACH: usize = 20;
const FILES: usize = DIRECTORIES * FILES_IN_EACH;

/// Runs a program that says nothing but what is thrown away.
fn quietly(program: &str, arguments: &[&str], directory: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.env("LC_ALL", "C");
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    ensure!(
        ended.status.success(),
        "{program} {} ended with {}: {}",
        arguments.join(" "),
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

/// A tree of source-like files as an archive, made when it is first asked for.
///
/// Its files are old: git takes a file that is as young as its index for one that may have changed.
fn archive(place: &Place<'_>) -> Result<String> {
    let path = place.shared.join("tree.tar");
    if !path.exists() {
        let tree = place.shared.join("tree");
        for index in 0..DIRECTORIES {
            let directory = tree.join(format!("module{index}"));
            fs::create_dir_all(&directory)?;
            let line = format!("what the module {index} is for, and what it deliberately is not\n");
            for file in 0..FILES_IN_EACH {
                fs::write(directory.join(format!("source{file}.rs")), line.repeat(10 + file * 10))?;
            }
        }
        let path = path.to_string_lossy();
        let old = "--mtime=2020-01-01 12:00:00";
        quietly("tar", &["-cf", &path, old, "-C", ".", "tree"], place.shared)?;
    }
    Ok(path.to_string_lossy().into_owned())
}

fn unpacked(place: &Place<'_>) -> Result<PathBuf> {
    let archive = archive(place)?;
    quietly("tar", &["-xf", &archive], place.directory)?;
    Ok(place.path("tree"))
}

pub(in crate::bench) fn untar(place: &Place<'_>) -> Result<Measured> {
    let archive = archive(place)?;
    place.timed(FILES, || quietly("tar", &["-xf", &archive], place.directory))
}

pub(in crate::bench) fn cold_ls(place: &Place<'_>) -> Result<Measured> {
    const ENTRIES: usize = 2_000;
    made(place.directory, "file", ENTRIES, 0)?;
    place.make_cold()?;
    place.timed(ENTRIES, || quietly("ls", &["-l"], place.directory))
}

pub(in crate::bench) fn cold_find(place: &Place<'_>) -> Result<Measured> {
    let tree = unpacked(place)?;
    place.make_cold()?;
    place.timed(FILES, || find(&tree))
}

/// With a test of the size, so that each is looked at.
pub(super) fn find(tree: &Path) -> Result<()> {
    quietly("find", &[".", "-type", "f", "-size", "+1"], tree)
}

pub(in crate::bench) fn cold_grep(place: &Place<'_>) -> Result<Measured> {
    let tree = unpacked(place)?;
    place.make_cold()?;
    place.timed(FILES, || quietly("grep", &["-r", "the module 7 is"], &tree))
}

pub(in crate::bench) fn copy(place: &Place<'_>) -> Result<Measured> {
    unpacked(place)?;
    place.timed(FILES, || quietly("cp", &["-a", "tree", "copy"], place.directory))
}

pub(in crate::bench) fn remove(place: &Place<'_>) -> Result<Measured> {
    unpacked(place)?;
    place.timed(FILES, || remove_tree(place.directory))
}

pub(super) fn remove_tree(directory: &Path) -> Result<()> {
    quietly("rm", &["-rf", "tree"], directory)
}

fn repository(place: &Place<'_>) -> Result<PathBuf> {
    let tree = unpacked(place)?;
    let git = |arguments: &[&str]| quietly("git", arguments, &tree);
    git(&["init", "-q"])?;
    git(&["config", "user.name", "Bench"])?;
    git(&["config", "user.email", "bench@example.org"])?;
    // Packing in the background would go on into what is measured.
    git(&["config", "gc.auto", "0"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "all"])?;
    git(&["status"])?;
    Ok(tree)
}

pub(in crate::bench) fn cold_git_status(place: &Place<'_>) -> Result<Measured> {
    let tree = repository(place)?;
    place.make_cold()?;
    place.timed(1, || quietly("git", &["status"], &tree))
}

pub(in crate::bench) fn warm_git_status(place: &Place<'_>) -> Result<Measured> {
    let tree = repository(place)?;
    place.timed(10, || (0..10).try_for_each(|_| quietly("git", &["status"], &tree)))
}

/// SQLite maps its file and reads it page by page, as the pages of a table come.
pub(in crate::bench) fn cold_mmap(place: &Place<'_>) -> Result<Measured> {
    const ROWS: usize = 8_000;
    let make = format!(
        "CREATE TABLE t(text TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < {ROWS}) INSERT INTO t SELECT hex(zeroblob(2000)) FROM n;"
    );
    quietly("sqlite3", &["database", &make], place.directory)?;
    place.make_cold()?;
    let read = "PRAGMA mmap_size=268435456; SELECT count(*) FROM t WHERE instr(text, 'x') > 0;";
    place.timed(ROWS, || quietly("sqlite3", &["database", read], place.directory))
}
