//! The stage `tools`: what the tests need beyond cargo.
//!
//! Debian packages come by apt as root, and only those whose programs are missing; test suites come
//! from crates.io at fixed versions into a cache outside `target/`, so a clean build keeps them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, iter};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, is_root, on_path, run, run_with_retries};

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

/// A Debian package: its name, a program in it, who needs it.
type Package = (&'static str, &'static str, &'static str);

/// What the tests need.
const PACKAGES: [Package; 11] = [
    ("fuse3", "fusermount3", "mounting without root"),
    ("git", "git", "the suite that clones in the mount"),
    ("sqlite3", "sqlite3", "the suite that keeps a database in the mount"),
    ("mount", "mount", "mounting tmpfs to compare with"),
    ("e2fsprogs", "mkfs.ext4", "a private ext4 to serve and to compare with"),
    ("util-linux", "setpriv", "tests that drop root"),
    ("strace", "strace", "a test that counts system calls"),
    ("attr", "setfattr", "tests of extended attributes"),
    ("acl", "setfacl", "tests of access control lists"),
    ("qemu-system-x86", "qemu-system-x86_64", "virtual machines that boot from virtio-fs"),
    ("busybox-static", "busybox", "the programs of those machines"),
];

/// The other projects' servers that a bench compares with.
pub(crate) const PEERS: [Package; 2] =
    [("bindfs", "bindfs", "a comparison"), ("fuse-overlayfs", "fuse-overlayfs", "a comparison")];

/// The guest's kernel: a series that has FUSE, virtio-fs and virtio over PCI built in, so that it
/// needs no initial file system.
const KERNEL: &str = r"^linux-image-6\.12\.[0-9].*-cloud-amd64$";

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
pub(crate) fn install(no_install: bool) -> Result<()> {
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
        if kernel()?.is_none() {
            println!("missing: a kernel of Debian for virtual machines that boot from virtio-fs");
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
    if kernel()?.is_none() && env::consts::ARCH == "x86_64" {
        fetch_kernel()?;
    }
    Ok(())
}

/// Installs the packages of which the program is missing.
pub(crate) fn install_missing(packages: &[Package]) -> Result<()> {
    let missing = packages.iter().filter(|(_, program, _)| !on_path(program));
    let names: Vec<&str> = missing.map(|(package, ..)| *package).collect();
    if names.is_empty() { Ok(()) } else { install_packages(&names) }
}

fn kernel_dir() -> PathBuf {
    cache_dir().join("guest-kernel")
}

/// The guest's kernel, once fetched.
pub(crate) fn kernel() -> Result<Option<PathBuf>> {
    let directory = kernel_dir();
    if !directory.is_dir() {
        return Ok(None);
    }
    let mut kernels = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("vmlinuz-6.12") {
            kernels.push(path);
        }
    }
    kernels.sort();
    Ok(kernels.pop())
}

/// Downloads the newest package of the series and keeps its kernel; nothing is installed.
fn fetch_kernel() -> Result<()> {
    let mut packages = kernel_packages()?;
    if packages.is_empty() && is_root() {
        run_with_retries(|| apt(iter::once("update")))?;
        packages = kernel_packages()?;
    }
    let package = packages.pop().context("this Debian has no cloud kernel of the series 6.12")?;
    println!("fetching the guest's kernel from {package}");
    let directory = kernel_dir();
    let unpacked = directory.join(format!("unpacking.{}", std::process::id()));
    fs::create_dir_all(&unpacked)?;
    run_with_retries(|| {
        let mut download = apt(["download", package.as_str()].into_iter());
        download.current_dir(&unpacked);
        download
    })?;
    // Listed before there is more in it.
    let fetched: Vec<_> = fs::read_dir(&unpacked)?.collect::<Result<_, _>>()?;
    for archive in fetched {
        run(Command::new("dpkg").arg("-x").arg(archive.path()).arg(&unpacked))?;
    }
    for entry in fs::read_dir(unpacked.join("boot"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            fs::rename(entry.path(), directory.join(entry.file_name()))?;
        }
    }
    fs::remove_dir_all(&unpacked)?;
    kernel()?.map(drop).with_context(|| format!("{package} holds no kernel"))
}

/// The packages of the series, the newest last.
fn kernel_packages() -> Result<Vec<String>> {
    let output = Command::new("apt-cache")
        .args(["search", "--names-only", KERNEL])
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    // By their numbers: 6.12.100 is newer than 6.12.99.
    names.sort_by_key(|name| {
        let digits = name.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        digits.map(|part| part.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>()
    });
    Ok(names)
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
