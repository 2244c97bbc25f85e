//! The `stratafs` command: see [`stratafs::cli`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stratafs::cli::run()
}
