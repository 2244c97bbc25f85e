//! `stratafs backends`: what a spec can name.

use std::io::{self, Write as _};

use anyhow::{Result, bail};
use clap::Args;

use super::Misuse;
use crate::spec::tables;

/// List what a spec can name, or explain one of the names
#[derive(Debug, Args)]
pub(super) struct Backends {
    /// Explain the keys of this backend
    name: Option<String>,
}

impl Backends {
    pub(super) fn run(&self) -> Result<u8> {
        let text = match &self.name {
            None => list(),
            Some(name) => match tables::find(name.as_bytes()) {
                Some(backend) => backend.to_string(),
                None => bail!(Misuse(unknown(name))),
            },
        };
        // A reader that has seen enough, as `head` has, is no failure.
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(0),
        }
    }
}

fn list() -> String {
    let width = tables::BACKENDS.iter().map(|backend| backend.name.len()).max().unwrap_or(0);
    tables::BACKENDS
        .iter()
        .map(|backend| {
            let later = if backend.is_built() { "" } else { " (not yet built into this version)" };
            format!("{:width$}  {}{later}\n", backend.name, backend.summary)
        })
        .collect()
}

fn unknown(name: &str) -> String {
    let next = match tables::suggest(name.as_bytes()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name one of these".to_owned(),
    };
    format!(
        "cannot explain `{}`: nothing is called so\n  known: {}\n  {next}",
        name.escape_debug(),
        tables::names()
    )
}
