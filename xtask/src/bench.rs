//! `cargo xtask bench`.
use anyhow::{Result, bail};
/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
/// Runs.
pub(crate) fn run(_: &Args) -> Result<()> {
    bail!("later")
}
