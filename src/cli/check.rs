//! `stratafs check`: whether the writable layer of an overlay is well-formed.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use super::{FAILED, Printer};
use crate::spec::Composition;

const EXAMPLES: &str = "\
Examples:
  stratafs check 'overlay(lower=/layers/base, upper=/var/up, work=/var/work)'
  stratafs check --repair @/etc/stratafs/build.toml

What is found: leftover (of a crash, in the staging directory), incompatible (a mark that keeps the
layer from being used), dangling-redirect, missing-data, useless-whiteout, missing-origin,
not-impure, orphaned-index. With --json each line is an object:
  {\"problem\":\"leftover\",\"area\":\"work\",\"path\":\"work/#1f\",\"repaired\":false}

With --repair the overlay must not be in use, and nobody else can use it meanwhile. What shows in it stays as it is; missing
data and marks are left for you to decide. Exit codes: 0 nothing is wrong any more, 1 something is,
or a layer failed, 2 it was asked for wrongly.";

/// Check whether the writable layer of an overlay is well-formed, and mend it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// The overlay, as it is mounted or served
    spec: OsString,

    /// Mend what can be mended without loss
    #[arg(long)]
    repair: bool,

    /// Print objects of JSON, one a line
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self) -> Result<u8> {
        let composition = Composition::parse(&self.spec)?;
        let inspection =
            if self.repair { composition.inspect_alone()? } else { composition.inspect()? };
        let mut printer = Printer::new();
        let told = inspection.check(self.repair, |line| printer.tell(&line, self.json));
        printer.end()?;
        Ok(if told? { 0 } else { FAILED })
    }
}
