//! The stage `build`: every test and the `stratafs` command, by one choice of packages, so that the
//! stages after it find everything built.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest;
use crate::process::{self, cargo, source_root};

/// The binary whose tests mount; a stage of its own runs it.
pub(crate) const MOUNTED: &str = "mounted";

/// Builds the tests, and with them the command.
pub(crate) fn run() -> Result<()> {
    let mut build = cargo_test()?;
    build.arg("--no-run");
    if targets("tests")?.iter().any(|name| name == MOUNTED) {
        build.args(["--test", MOUNTED]);
    }
    process::run(&mut build)?;
    // Without libraries, which takes a build of its own.
    if guest::boots()?.is_none() { guest::build_checks() } else { Ok(()) }
}

/// `cargo test` of every target but the mounted tests and the documentation's examples.
pub(crate) fn cargo_test() -> Result<Command> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--lib", "--bins", "--examples"]);
    for name in targets("tests")?.iter().filter(|name| *name != MOUNTED) {
        test.args(["--test", name]);
    }
    for name in targets("benches")? {
        test.args(["--bench", &name]);
    }
    Ok(test)
}

/// The targets of a kind in every package: `KIND/NAME.rs` and `KIND/NAME/main.rs`.
///
/// cargo can leave none out by name, so those that are wanted are named.
pub(crate) fn targets(kind: &str) -> Result<Vec<String>> {
    let root = source_root();
    let mut packages = vec![root.clone(), root.join("xtask")];
    let backends = root.join("backends");
    for entry in fs::read_dir(&backends).context("cannot list backends/")? {
        packages.push(entry?.path());
    }
    let mut names = Vec::new();
    for directory in packages.iter().map(|package| package.join(kind)).filter(|dir| dir.is_dir()) {
        for entry in fs::read_dir(&directory)? {
            names.extend(target_name(&entry?.path()));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn target_name(path: &Path) -> Option<String> {
    let is_target = match path.extension() {
        Some(extension) => extension == "rs",
        None => path.join("main.rs").is_file(),
    };
    let stem = path.file_stem()?.to_str()?;
    is_target.then(|| stem.to_owned())
}
