//! The stage `tools`: what the tests need beyond cargo.
//!
//! Debian packages come by apt as root, and only those whose programs are missing; test suites come
//! from crates.io at fixed versions into a cache outside `target/`, so a clean build keeps them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, iter};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, is_root, on_path, run_with_retries};

/// A program that comes from crates.io.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    version: &'static str,
}

/// The POSIX conformance suite.
pub(crate) const PJDFSTEST: Tool = Tool { name: "pjdfstest", version: "0.2.2" };
/// The file system exerciser.
pub(crate) const FSX: Tool = Tool { name: "fsx", version: "0.3.2" };
/// Runs the fuzz targets; used by soak alone.
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };
/// Checks licences, bans and sources; used by soak alone.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// Debian packages: (package, a program in it, who needs it).
const PACKAGES: [(&str, &str, &str); 7] = [
    ("fuse3", "fusermount3", "mounting without root"),
    ("git", "git", "the suite that clones in the mount"),
    ("sqlite3", "sqlite3", "the suite that keeps a database in the mount"),
    ("mount", "mount", "mounting tmpfs to compare with"),
    ("util-linux", "setpriv", "tests that drop root"),
    ("attr", "setfattr", "tests of extended attributes"),
    ("acl", "setfacl", "tests of access control lists"),
];

impl Tool {
    fn root(self) -> PathBuf {
        cache_dir().join(format!("{}-{}", self.name, self.version))
    }

    /// Where the program is, once installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let program = self.root().join("bin").join(self.name);
        program.is_file().then_some(program)
    }

    /// Installs the program unless this version is there already.
    pub(crate) fn install(self) -> Result<PathBuf> {
        if self.program().is_none() {
            println!("installing {} {} from crates.io", self.name, self.version);
            run_with_retries(|| {
                let mut cargo = cargo();
                cargo.args(["install", "--locked", "--version", self.version, "--root"]);
                cargo.arg(self.root()).arg(self.name);
                cargo
            })?;
        }
        self.program().with_context(|| format!("{} did not install", self.name))
    }
}

/// `tools` in the user's cache directory.
fn cache_dir() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("stratafs")
        .join("tools")
}

/// Installs what is missing, or with `no_install` says what is.
pub(crate) fn run(no_install: bool) -> Result<()> {
    check_components()?;
    let missing: Vec<_> = PACKAGES.iter().filter(|(_, program, _)| !on_path(program)).collect();
    let names: Vec<&str> = missing.iter().map(|(package, ..)| *package).collect();
    for (package, program, user) in &missing {
        println!("missing: {program} of the Debian package {package}, for {user}");
    }
    if no_install {
        for tool in [PJDFSTEST, FSX].into_iter().filter(|tool| tool.program().is_none()) {
            println!("missing: {} {} from crates.io", tool.name, tool.version);
        }
        return Ok(());
    }
    if !names.is_empty() {
        install_packages(&names)?;
    }
    for tool in [PJDFSTEST, FSX] {
        let program = tool.install()?;
        println!("{} {}: {}", tool.name, tool.version, shortened(&program));
    }
    Ok(())
}

/// rustfmt and clippy belong to the toolchain, whose owner chooses; they are only asked for.
fn check_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let found = cargo()
            .args([subcommand, "--version"])
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success());
        if !found {
            bail!("cargo {subcommand} is missing: rustup component add {component}");
        }
    }
    Ok(())
}

fn install_packages(names: &[&str]) -> Result<()> {
    let command = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
    if !on_path("apt-get") {
        bail!("this is no Debian: install {} by its package manager", names.join(", "));
    }
    if !is_root() {
        bail!("as root, run: {command}\nor pass --no-install to skip what needs them");
    }
    println!("installing the Debian packages {}", names.join(" "));
    run_with_retries(|| apt(iter::once("update")))?;
    run_with_retries(|| {
        let install = ["install", "-y", "--no-install-recommends"];
        apt(install.into_iter().chain(names.iter().copied()))
    })
}

fn apt<'a>(args: impl Iterator<Item = &'a str>) -> Command {
    let mut apt = Command::new("apt-get");
    // Another installation on the machine is waited for, not failed on.
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]).args(args);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn shortened(path: &Path) -> String {
    match env::var_os("HOME").and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}
