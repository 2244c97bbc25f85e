//! `stratafs explain`: which layer of an overlay shows what.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use stratafs_core::{FileType, Name};
use stratafs_overlayfs::{Part, Role};

use super::{Misuse, Printer, json};
use crate::spec::{Composition, Inspection};

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
        let names = names(self.path.as_bytes())?;
        let inspection = Composition::parse(&self.spec)?.inspect()?;
        let overlay = &inspection.overlay;
        let path = self.path.as_bytes().escape_ascii();
        let failed = || format!("cannot explain {path}");
        let parts = overlay.explain(&names).with_context(failed)?;
        if parts.is_empty() {
            bail!("cannot explain {path}: no layer has anything there");
        }
        let mut printer = Printer::new();
        for part in &parts {
            printer.line(self.part(&inspection, part));
        }
        let is_shown = |part: &&Part| matches!(part.role, Role::Shown);
        let shown = parts.iter().find(is_shown).and_then(|part| part.file_type);
        let told = match shown {
            Some(FileType::Directory) => overlay.explain_entries(&names, |name, kind, layer| {
                printer.line(self.entry(&inspection, name, kind, layer));
            }),
            _ => Ok(()),
        };
        printer.end()?;
        told.with_context(failed)?;
        Ok(0)
    }

    fn part(&self, inspection: &Inspection, part: &Part) -> String {
        let label = label(inspection, part.layer);
        if !self.json {
            return format!("{part}: {label}");
        }
        let role = match part.role {
            Role::Shown => "shown",
            Role::Merged => "merged",
            Role::Data => "data",
            Role::Linked => "linked",
            Role::Hidden => "hidden",
            Role::Whiteout => "whiteout",
        };
        let object = named(part.layer, label).text("role", role);
        match part.file_type {
            Some(kind) => object.text("type", json::file_type(kind)).end(),
            None => object.end(),
        }
    }

    fn entry(
        &self,
        inspection: &Inspection,
        name: Name<'_>,
        kind: FileType,
        layer: usize,
    ) -> String {
        let label = label(inspection, layer);
        if self.json {
            let object = named(layer, label).bytes("entry", name.as_bytes());
            return object.text("type", json::file_type(kind)).end();
        }
        let slash = if kind == FileType::Directory { "/" } else { "" };
        format!("  {}{slash}: {label}", name.as_bytes().escape_ascii())
    }
}

fn named(layer: usize, label: &str) -> json::Object {
    let number = u64::try_from(layer).unwrap_or(u64::MAX);
    json::Object::new().number("layer", number).text("name", label)
}

fn label(inspection: &Inspection, layer: usize) -> &str {
    inspection.layers.get(layer).map_or("", String::as_str)
}

/// The names in a path.
fn names(path: &[u8]) -> Result<Vec<Name<'_>>> {
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    let names = parts.map(|part| {
        Name::new(part).map_err(|_| {
            let (part, path) = (part.escape_ascii(), path.escape_ascii());
            Misuse(format!("cannot explain {path}: `{part}` is no name in a directory")).into()
        })
    });
    names.collect()
}
