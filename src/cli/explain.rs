//! `stratafs explain`: which layer of an overlay shows what.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Result;
use clap::Args;

use super::Printer;
use crate::spec::Composition;

const EXAMPLES: &str = "\
Examples:
  stratafs explain 'overlay(lower=/layers/app, lower=/layers/base)' /etc/hosts
  stratafs explain --json @/etc/stratafs/build.toml etc

Of a path it tells what each layer has there: which one shows attributes and data, what is merged
in, and what hides what. Of a directory it tells which layer each entry comes from too. With --json
each line is an object, about a part of the path or an entry of the directory:
  {\"layer\":1,\"name\":\"/layers/app\",\"role\":\"shown\",\"type\":\"file\"}
  {\"layer\":2,\"name\":\"/layers/base\",\"entry\":\"hosts\",\"type\":\"file\"}

Layer 0 is the writable one; read-only ones count from 1 at the top. Exit codes: 0 it was told, 1 no
layer has the path, or one failed, 2 it was asked for wrongly.";

/// Tell which layer of an overlay shows, hides or deletes a path
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// The overlay, as it is mounted or served
    spec: OsString,

    /// The path, from the overlay's root, with a slash in front or without
    path: OsString,

    /// Print objects of JSON, one a line
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(&self) -> Result<u8> {
        let inspection = Composition::parse(&self.spec)?.inspect()?;
        let mut printer = Printer::new();
        let told = inspection.explain(self.path.as_bytes(), |line| printer.tell(&line, self.json));
        printer.end()?;
        told?;
        Ok(0)
    }
}
