//! A crate without dependencies, its source and its target directory in the mount.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::DEADLINE;
use crate::process::{self, run_checked};
use crate::target::Scratch;

/// Builds, runs, changes a source, rebuilds, and runs the crate's test.
pub(super) fn work(mount: &Path, scratch: &Scratch, name: &str) -> Result<()> {
    let package = mount.join("package");
    fs::create_dir_all(package.join("src"))?;
    // A workspace of its own, whatever lies above the mount.
    fs::write(
        package.join("Cargo.toml"),
        "[package]\nname = \"counted\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    )?;
    // A build script is a program that is linked into the mount and run from there.
    fs::write(
        package.join("build.rs"),
        "fn main() { println!(\"cargo:rustc-env=BUILT=by a script\"); }\n",
    )?;
    fs::write(
        package.join("src/lib.rs"),
        "pub fn sum(upto: u64) -> u64 { (1..=upto).sum() }\n\
         #[cfg(test)] #[test] fn sum_to_ten_is_55() { assert_eq!(sum(10), 55); }\n",
    )?;
    let write_main = |upto: u64| {
        let text = format!(
            "fn main() {{ println!(\"{{}} {{}}\", counted::sum({upto}), env!(\"BUILT\")); }}\n"
        );
        fs::write(package.join("src/main.rs"), text)
    };
    let cargo = |args: &[&str]| -> Result<String> {
        let mut cargo = process::cargo();
        cargo.current_dir(&package).args(args).args(["--offline"]);
        for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "RUSTC_WRAPPER"]
        {
            cargo.env_remove(variable);
        }
        run_checked(&mut cargo, &scratch.file(&format!("{name}-cargo.log")), DEADLINE)
    };
    write_main(10)?;
    cargo(&["build"])?;
    let first = cargo(&["run", "-q"])?;
    ensure!(first.contains("55 by a script"), "the program printed: {first}");
    // cargo rebuilds by modification time, so a stale time would run the old program.
    write_main(100)?;
    let second = cargo(&["run", "-q"])?;
    ensure!(second.contains("5050 by a script"), "after a change the program printed: {second}");
    let tested = cargo(&["test"])?;
    ensure!(tested.contains("1 passed"), "the crate's test printed: {tested}");
    Ok(())
}
