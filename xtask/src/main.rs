//! The project's own tasks: `cargo xtask test`, `cargo xtask soak`, `cargo xtask bench`.
//!
//! | module | what it does |
//! |---|---|
//! | `test` | the stages of the one test command, and `stage`, which times them |
//! | `tools`, `lint`, `build`, `in_process`, `mounted`, `guest` | one stage each |
//! | `suites` | the external suites that run on a mounted filesystem |
//! | `target` | mounts what a suite runs on, and unmounts it on every way out |
//! | `soak`, `bench` | the long forms, and the mounts against others |
//! | `process` | child processes with deadlines |
//!
//! It knows stratafs as a user does, by its command line, so that it compiles in seconds.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod guest;
mod in_process;
mod lint;
mod mounted;
mod process;
mod soak;
mod stage;
mod suites;
mod target;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs the tests: installs what they need, then each stage in turn.
    Test(test::Args),
    /// Runs the long forms of the tests: fuzzing, a million files, licences.
    Soak(soak::Args),
    /// Compares speeds with another filesystem on the same machine.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
