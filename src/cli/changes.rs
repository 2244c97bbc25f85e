//! `stratafs changes`: what the writable layer of an overlay changes.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use super::Printer;
use crate::spec::Composition;

const EXAMPLES: &str = "\
Examples:
  stratafs changes 'overlay(lower=/layers/base, upper=/var/up, work=/var/work)'
  stratafs changes --json @/etc/stratafs/build.toml | jq -r 'select(.kind == \"D\") | .path'

A line is a letter (A added, C changed, D deleted), the type as ls(1) has it, the size in bytes, and
the path with unusual bytes escaped. With --json each line is an object:
  {\"kind\":\"C\",\"type\":\"file\",\"size\":12,\"path\":\"etc/hosts\"}

Nothing is changed, and the overlay may be in use meanwhile. Exit codes: 0 all was told, 1 a layer
failed, 2 it was asked for wrongly.";

/// List what the writable layer of an overlay changes, all deletions included
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Changes {
    /// The overlay, as it is mounted or served
    spec: OsString,

    /// Print objects of JSON, one a line
    #[arg(long)]
    json: bool,
}

impl Changes {
    pub(super) fn run(&self) -> Result<u8> {
        let inspection = Composition::parse(&self.spec)?.inspect()?;
        let mut printer = Printer::new();
        let told = inspection.changes(|line| printer.tell(&line, self.json));
        printer.end()?;
        told?;
        Ok(0)
    }
}
