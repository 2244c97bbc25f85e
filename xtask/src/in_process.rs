//! The stage `in process`: every test that mounts nothing.

use anyhow::Result;

use crate::build::cargo_test;
use crate::process::{self, cargo};

/// Runs the tests, then the documentation's examples; each prints its own closing line.
pub(crate) fn run() -> Result<()> {
    let tests = process::run(cargo_test()?.arg("--no-fail-fast"));
    let examples = process::run(cargo().args(["test", "--workspace", "--doc", "--no-fail-fast"]));
    tests.and(examples)
}
