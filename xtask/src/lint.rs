//! The stage `lint`: formatting, clippy, every set of features, the documentation.

use anyhow::Result;

use crate::process::{self, cargo};

/// Sets of features that must build without a warning; embedders choose among them.
const FEATURE_SETS: [&[&str]; 6] = [
    &["--no-default-features"],
    &["--no-default-features", "--features", "fuse"],
    &["--no-default-features", "--features", "vhost-user"],
    &["--no-default-features", "--features", "cli"],
    &["--no-default-features", "--features", "cli,fuse"],
    &["--all-features"],
];

/// Runs every lint; the first that fails ends the stage.
pub(crate) fn run() -> Result<()> {
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    let deny = ["--", "-D", "warnings"];
    process::run(cargo().args(["clippy", "-q", "--workspace", "--all-targets"]).args(deny))?;
    for set in FEATURE_SETS {
        let mut clippy = cargo();
        clippy.args(["clippy", "-q", "-p", "stratafs", "--lib", "--bins"]);
        process::run(clippy.args(set).args(deny))?;
    }
    let mut doc = cargo();
    doc.args(["doc", "-q", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    process::run(&mut doc)
}
