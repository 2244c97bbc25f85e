//! pjdfstest: POSIX conformance, on mounts of ours and on one of the kernel's, compared test by test.
//!
//! The kernel's filesystem of the same kind on the same machine says what there is to expect, so what
//! it passes must pass, and only what it skips may be skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, iter};

use anyhow::{Context, Result, bail};

use super::Tally;
use crate::process::{find_on_path, is_root, run_collecting};
use crate::target::{Mounted, Scratch, Target};
use crate::tools::PJDFSTEST;

/// The suite of this version has so many tests on Linux.
pub(super) const TESTS: usize = 398;

/// Tests that remount read-only. They are a process of their own: the others leave file descriptors
/// open, with which a remount is EBUSY.
const REMOUNTING: &str = "erofs";

/// Its path is `MOUNT/.tmpXXXXXX/.tmpXXXXXX`.
const NESTED_BYTES: usize = 22;

const DEADLINE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

type Outcomes = BTreeMap<String, Outcome>;

/// What is compared.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// What the kernel itself makes of the tests, and how many of them it passes at least: a reference
    /// that passes little would let anything pass.
    pub(super) reference: (&'a Target, usize),
    /// What is held to it, with names for their mountpoints.
    pub(super) targets: Vec<(&'static str, &'a Target)>,
    /// Tests that the suite skips on the targets alone, each with the reason.
    pub(super) skipped: &'static [(&'static str, &'static str)],
}

/// Runs the tests on the reference, then on each target.
pub(super) fn run(comparison: &Comparison<'_>, scratch: &Scratch) -> Result<Tally> {
    let mut tally = Tally::default();
    let Some(program) = PJDFSTEST.program().filter(|_| is_root()) else {
        println!("SKIPPED: pjdfstest takes root, and the program that the stage tools installs");
        tally.skipped = comparison.targets.len() * TESTS;
        return Ok(tally);
    };
    let (target, least) = comparison.reference;
    let label = target.label();
    let reference = outcomes(&program, target, scratch, "reference", &Outcomes::new())?;
    let passing = reference.values().filter(|outcome| **outcome == Outcome::Passed).count();
    println!("{label} passes {passing} of {} tests", reference.len());
    if reference.len() != TESTS || passing < least {
        bail!("{label} should pass {least} of {TESTS} tests, so the suite itself is not well here");
    }
    for (name, target) in &comparison.targets {
        println!("on {}:", target.label());
        let ours = outcomes(&program, target, scratch, name, &reference)?;
        tally += compare(comparison, &reference, &ours);
    }
    Ok(tally)
}

/// Counts what differs from the reference as failed, and prints it.
fn compare(comparison: &Comparison<'_>, reference: &Outcomes, ours: &Outcomes) -> Tally {
    let mut tally = Tally::default();
    let label = comparison.reference.0.label();
    let mut failing_there = Vec::new();
    for (test, expected) in reference {
        let found = ours.get(test).copied();
        let declared = comparison.skipped.iter().find(|(name, _)| name == test);
        match (expected, found, declared) {
            (_, Some(Outcome::Passed), _) => tally.passed += 1,
            (Outcome::Skipped, Some(Outcome::Skipped), _) => tally.skipped += 1,
            (_, Some(Outcome::Skipped), Some((_, reason))) => {
                tally.skipped += 1;
                println!("skipped: {test}: {reason}");
            }
            (Outcome::Failed, Some(_), _) => {
                tally.skipped += 1;
                failing_there.push(test.as_str());
            }
            (_, found, _) => {
                tally.failed += 1;
                println!("FAILED: {test}: {label} {expected:?}, here {found:?}");
            }
        }
    }
    if !failing_there.is_empty() {
        println!("skipped, as {label} fails them too: {}", failing_there.join(" "));
    }
    tally
}

/// How each test ends on a new mount; failures that the reference does not share are printed.
fn outcomes(
    program: &Path,
    target: &Target,
    scratch: &Scratch,
    name: &str,
    reference: &Outcomes,
) -> Result<Outcomes> {
    let name = format!("pjd-{name}");
    let other = Target::Tmpfs.mount(scratch, &format!("{name}-other"))?;
    let mounted = target.mount(scratch, &suitable(scratch, &name))?;
    let config = scratch.file(&format!("{name}.toml"));
    let path = path_with_plain_mount(scratch)?;
    let mut all = Outcomes::new();
    for remounting in [false, true] {
        fs::write(&config, configuration(remounting))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).arg("-s").arg(other.path()).arg("-p").arg(mounted.path());
        if remounting {
            command.arg(REMOUNTING);
        }
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").env("PATH", &path);
        let log = scratch.file(&format!("{name}-{remounting}.log"));
        let ended = run_collecting(&mut command, &log, DEADLINE)
            .with_context(|| format!("on {}", target.label()))?;
        let found = parse(&ended.text);
        if !reference.is_empty() {
            print_failures(&ended.text, target, reference);
        }
        if found.is_empty() {
            bail!("no test ran, status {}:\n{}{}", ended.status, ended.text, mounted.said());
        }
        // The tests that remount are skipped in the first process and run in the second.
        all.extend(found);
    }
    finish(mounted, other)?;
    Ok(all)
}

/// A path on which `mount` calls no helper: the tests remount by `mount -o remount,ro`, for which the
/// helper of the package fuse3 would start a second server in the place of asking the kernel.
fn path_with_plain_mount(scratch: &Scratch) -> Result<OsString> {
    let real = find_on_path("mount").context("mount is not installed")?;
    let directory = scratch.file("bin");
    let script = directory.join("mount");
    fs::create_dir_all(&directory)?;
    fs::write(&script, format!("#!/bin/sh\nexec {} -i \"$@\"\n", real.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let inherited = env::var_os("PATH").unwrap_or_default();
    let all = iter::once(directory).chain(env::split_paths(&inherited));
    env::join_paths(all).context("the path has a directory with a colon")
}

fn finish(mounted: Mounted, other: Mounted) -> Result<()> {
    mounted.unmount()?;
    other.unmount()
}

/// The tests of the longest path subtract the length of a nested directory's path from the limit, and
/// panic where 127 divides what is left: a mountpoint of such a length gets one more letter.
fn suitable(scratch: &Scratch, name: &str) -> String {
    const LONGEST: usize = 4095;
    let nested = scratch.file(name).as_os_str().len() + NESTED_BYTES;
    if LONGEST.saturating_sub(nested).is_multiple_of(127) {
        format!("{name}_")
    } else {
        name.to_owned()
    }
}

/// What is enabled beyond the default, and the users that every Debian has.
///
/// The nap between two changes must be longer than a tick of the kernel's coarse clock, 10 ms at most.
fn configuration(remounting: bool) -> String {
    format!(
        "[features]\n\
         posix_fallocate = {{}}\n\
         rename_ctime = {{}}\n\
         utime_now = {{}}\n\
         utimensat = {{}}\n\
         stat_st_birthtime = {{}}\n\
         [settings]\n\
         naptime = 0.012\n\
         allow_remount = {remounting}\n\
         [dummy_auth]\n\
         entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n"
    )
}

fn parse(text: &str) -> Outcomes {
    text.lines().filter_map(parse_line).collect()
}

/// `NAME   ok`, and no other line has a name and one of three words.
fn parse_line(line: &str) -> Option<(String, Outcome)> {
    if line.starts_with(char::is_whitespace) {
        return None;
    }
    let mut words = line.split_whitespace();
    let (name, word) = (words.next()?, words.next()?);
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "skipped" => Outcome::Skipped,
        _ => return None,
    };
    words.next().is_none().then(|| (name.to_owned(), outcome))
}

/// Prints each failure with the assertion under it, but for those of the reference.
fn print_failures(text: &str, target: &Target, reference: &Outcomes) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((test, Outcome::Failed)) = parse_line(line) else { continue };
        if reference.get(&test) == Some(&Outcome::Failed) {
            continue;
        }
        println!("{}: {test}", target.label());
        while let Some(detail) = lines.next_if(|next| next.starts_with(char::is_whitespace)) {
            println!("{detail}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(pairs: &[(&str, Outcome)]) -> Outcomes {
        pairs.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    #[test]
    fn parse_output_finds_each_outcome_and_nothing_else() {
        let text = "chmod::eperm        ok\nlink::max   skipped\n\tno limit\n\
                    open::a::b   FAILED\n\tleft: 1\n\nSummary: 1 failed, 1 skipped, 1 passed\n";
        assert_eq!(
            parse(text),
            outcomes(&[
                ("chmod::eperm", Outcome::Passed),
                ("link::max", Outcome::Skipped),
                ("open::a::b", Outcome::Failed),
            ])
        );
    }

    #[test]
    fn compare_with_reference_fails_what_it_passes_and_we_do_not() {
        use Outcome::{Failed, Passed, Skipped};
        let reference = outcomes(&[
            ("fails_here", Passed),
            ("skipped_here", Passed),
            ("missing_here", Passed),
            ("declared", Passed),
            ("declared_and_fails", Passed),
            ("skipped_both", Skipped),
            ("fails_both", Failed),
            ("passes_both", Passed),
        ]);
        let ours = outcomes(&[
            ("fails_here", Failed),
            ("skipped_here", Skipped),
            ("declared", Skipped),
            ("declared_and_fails", Failed),
            ("skipped_both", Skipped),
            ("fails_both", Failed),
            ("passes_both", Passed),
        ]);
        let comparison = Comparison {
            reference: (&Target::Tmpfs, 0),
            targets: Vec::new(),
            skipped: &[("declared", "why"), ("declared_and_fails", "why")],
        };
        let tally = compare(&comparison, &reference, &ours);
        assert_eq!(tally, Tally { passed: 1, failed: 4, skipped: 3 });
    }
}
