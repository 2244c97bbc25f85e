//! The stage `guest`: two virtual machines that boot from virtio-fs.
//!
//! Both have one root, a host directory served by an unprivileged process, and one share, a MemFs.
//! `tests/guest/init` is their first process; it and `tests/guest/checks.rs` print a line for each
//! check on the console, and here they are counted. QEMU's software emulation is enough, so that it
//! runs wherever the other tests do.

pub(crate) mod debian;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use anyhow::{Context, Result, bail};

use crate::process::{
    self, cargo, is_root, on_path, run_checked, source_root, tail, target_profile_dir, wait_until,
};
use crate::suites::Tally;
use crate::target::{Scratch, terminate};
use crate::tools;

/// From the start of both machines to their end. Twenty seconds on an idle machine of two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);
/// For what takes no time.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// nobody, who serves the root where the tests run as root.
const NOBODY: u32 = 65_534;

/// A child that is killed with its owner.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the two guests.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) role: &'static str,
    pub(crate) memory: &'static str,
    /// How it mounts its root.
    pub(crate) root: &'static str,
    /// The servers that it is connected to.
    pub(crate) tags: &'static [&'static str],
    /// Of each device.
    pub(crate) request_queues: u16,
}

const TAGS: &[&str] = &["root", "share"];
const GUESTS: [Guest; 2] = [
    Guest { role: "one", memory: "512M", root: "rw", tags: TAGS, request_queues: 2 },
    Guest { role: "two", memory: "256M", root: "ro", tags: TAGS, request_queues: 2 },
];

/// Boots both guests and counts their checks.
///
/// # Errors
/// A check failed, a guest did not come to its end, or a server did not.
pub(crate) fn run() -> Result<()> {
    let tally = match boots()? {
        Some(what) => {
            println!("guest: skipped: {what}");
            Tally { skipped: 1, ..Tally::default() }
        }
        None => boot()?,
    };
    println!("guest: {tally}");
    if tally.failed > 0 { bail!("{} checks failed", tally.failed) } else { Ok(()) }
}

/// What is missing to boot a guest here, if anything is.
pub(crate) fn boots() -> Result<Option<String>> {
    if env::consts::ARCH != "x86_64" {
        return Ok(Some("its kernel is one for x86-64".to_owned()));
    }
    for program in ["qemu-system-x86_64", "busybox", "setpriv"] {
        if !on_path(program) {
            return Ok(Some(format!("{program} is missing")));
        }
    }
    Ok(tools::kernel()?.is_none().then(|| "its kernel is missing".to_owned()))
}

/// Builds what runs inside a guest.
///
/// # Errors
/// It does not build.
pub(crate) fn build_checks() -> Result<()> {
    let mut checks = cargo();
    checks.args(["rustc", "-q", "-p", "stratafs", "--example", "guest-checks"]);
    process::run(checks.args(["--", "-C", "target-feature=+crt-static"]))
}

fn boot() -> Result<Tally> {
    let kernel = tools::kernel()?.context("the guest's kernel is missing")?;
    process::run(cargo().args(["build", "-q", "--workspace", "--bins"]))?;
    build_checks()?;

    let scratch = Scratch::new()?;
    let place = scratch.directory("guest")?;
    open_to_others(&place)?;
    let root = place.join("root");
    make_root(&root, &target_profile_dir()?.join("examples/guest-checks"), "init")?;
    if is_root() {
        chown_all(&root)?;
        chown(&place, Some(NOBODY), Some(NOBODY))?;
    }
    // nobody may not look into the directory where it was built.
    let program = place.join("stratafs");
    fs::copy(target_profile_dir()?.join("stratafs"), &program)?;

    let root_spec = format!("passthrough({}, ownership=virtual)", root.display());
    let mut servers = [
        serve(&program, &place, "root", &root_spec, &GUESTS)?,
        serve(&program, &place, "share", "mem(capacity=256MiB, cache=auto)", &GUESTS)?,
    ];
    let mut machines = Vec::new();
    for guest in GUESTS {
        machines.push((guest, start(&kernel, &place, guest)?));
    }
    let begin = Instant::now();
    let mut tally = Tally::default();
    for (guest, machine) in &mut machines {
        let left = DEADLINE.saturating_sub(begin.elapsed());
        tally += counted_to_end(&place, *guest, machine, left)?;
    }
    drop(machines);
    for (name, server) in ["root", "share"].into_iter().zip(&mut servers) {
        terminate(server.0.id())?;
        let outcome = match wait_until(&mut server.0, SHORT)? {
            Some(status) if status.success() => Ok(()),
            ended => bail!("it ended with {ended:?}:\n{}", said(&place, name)),
        };
        tally.count(&format!("server of the {name} ends with 0 on SIGTERM"), outcome);
    }
    tally.count("every object on the host is plain and the server's own", is_plain(&root));
    Ok(tally)
}

/// Waits for a guest, and counts its checks; one that does not come to its end has failed one more.
fn counted_to_end(
    place: &Path,
    guest: Guest,
    machine: &mut Guarded,
    deadline: Duration,
) -> Result<Tally> {
    let ended = wait_until(&mut machine.0, deadline)?;
    let said = fs::read(console(place, guest)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut tally = counted(&said);
    if !said.contains(&format!("CHECKS END {}", guest.role)) {
        let how = ended.map_or("still runs".to_owned(), |status| format!("ended: {status}"));
        tally.failed += 1;
        println!("guest {} did not come to its end; QEMU {how}\n{}", guest.role, tail(&said));
    }
    Ok(tally)
}

/// Counts the lines of checks; prints those that failed, and why others were skipped.
fn counted(console: &str) -> Tally {
    let mut tally = Tally::default();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for line in console.lines().filter_map(|line| line.trim().strip_prefix("CHECK ")) {
        match line.split_once(' ') {
            Some(("passed", _)) => tally.passed += 1,
            Some(("skipped", case)) => {
                tally.skipped += 1;
                *reasons.entry(case.split_once(": ").unwrap_or_default().1).or_default() += 1;
            }
            _ => {
                tally.failed += 1;
                println!("guest {line}");
            }
        }
    }
    for (reason, count) in reasons {
        println!("guest: {count} skipped, {reason}");
    }
    tally
}

/// Programs, mountpoints and users of a guest's root.
pub(crate) fn make_root(root: &Path, program: &Path, init: &str) -> Result<()> {
    for directory in ["", "bin", "dev", "etc", "proc", "share", "sys"] {
        fs::create_dir(root.join(directory))?;
    }
    let busybox = busybox()?;
    let bin = root.join("bin");
    fs::copy(&busybox, bin.join("busybox"))?;
    let mut list = Command::new(&busybox);
    let names = run_checked(list.arg("--list"), &root.join("list"), SHORT)?;
    fs::remove_file(root.join("list"))?;
    for name in names.lines().filter(|name| *name != "busybox") {
        symlink("busybox", bin.join(name))?;
    }
    fs::copy(program, bin.join(program.file_name().context("a program has a name")?))?;
    let from = source_root().join("tests/guest").join(init);
    let init = root.join("init");
    fs::copy(from, &init)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    // root without a password, for a setuid su; another for what root may not be asked to do.
    let users = "root::0:0:root:/:/bin/sh\nother:x:1002:1002:other:/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users)?;
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|program| program.is_file())
        .context("busybox is missing")?;
    // A program that needs a loader names it within the first page.
    let bytes = fs::read(&found)?;
    let first = bytes.get(..4096).unwrap_or(&bytes);
    if first.windows(8).any(|window| window == b"ld-linux") {
        bail!("{} needs libraries: install busybox-static", found.display());
    }
    Ok(found)
}

fn open_to_others(directory: &Path) -> Result<()> {
    // The scratch directory, and this one within it.
    for directory in directory.ancestors().take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn chown_all(path: &Path) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            chown_all(&entry?.path())?;
        }
    }
    Ok(())
}

/// Files, directories and symbolic links of the server's user, without a special bit.
fn is_plain(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let owner = if is_root() { NOBODY } else { fs::metadata("/proc/self")?.uid() };
    if !(kind.is_file() || kind.is_dir() || kind.is_symlink())
        || metadata.uid() != owner
        || metadata.mode() & 0o7000 != 0
    {
        let (uid, mode) = (metadata.uid(), metadata.mode());
        bail!("{}: owner {uid}, mode {mode:o}", path.display());
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            is_plain(&entry?.path())?;
        }
    }
    Ok(())
}

pub(crate) fn socket(place: &Path, name: &str, guest: Guest) -> PathBuf {
    place.join(format!("{name}-{}.sock", guest.role))
}

fn said(place: &Path, name: &str) -> String {
    tail(&fs::read_to_string(place.join(format!("{name}.log"))).unwrap_or_default())
}

/// Serves `spec` to `guests`, by a process without privilege.
fn serve(
    program: &Path,
    place: &Path,
    name: &str,
    spec: &str,
    guests: &[Guest],
) -> Result<Guarded> {
    let mut command = if is_root() {
        let mut setpriv = Command::new("setpriv");
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        setpriv.args(ids).arg("--clear-groups").arg(program);
        setpriv
    } else {
        Command::new(program)
    };
    command.arg("serve").arg(spec);
    for guest in guests {
        command.arg("--socket-path").arg(socket(place, name, *guest));
    }
    let log = File::create(place.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut server = Guarded(command.spawn().context("cannot start stratafs serve")?);
    let begin = Instant::now();
    while !said(place, name).contains("is served at") {
        if let Some(status) = server.0.try_wait()? {
            bail!("stratafs serve ended with {status}:\n{}", said(place, name));
        }
        if begin.elapsed() > SHORT {
            bail!("stratafs serve does not begin:\n{}", said(place, name));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

pub(crate) fn console(place: &Path, guest: Guest) -> PathBuf {
    place.join(format!("console-{}.log", guest.role))
}

pub(crate) fn start(kernel: &Path, place: &Path, guest: Guest) -> Result<Guarded> {
    let Guest { role, memory, root, tags, request_queues } = guest;
    let mut qemu = Command::new("qemu-system-x86_64");
    // A KVM that opens may still not run an ordinary kernel; emulation always does.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", memory]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-object").arg(format!("memory-backend-memfd,id=mem,size={memory},share=on"));
    qemu.args(["-machine", "q35,memory-backend=mem"]);
    for tag in tags {
        let path = socket(place, tag, guest);
        qemu.arg("-chardev").arg(format!("socket,id={tag},path={}", path.display()));
        let device = "vhost-user-fs-pci,queue-size=1024";
        let queues = format!("num-request-queues={request_queues}");
        qemu.arg("-device").arg(format!("{device},{queues},chardev={tag},tag={tag}"));
    }
    let log = console(place, guest);
    qemu.args(["-serial", "stdio", "-kernel"]).arg(kernel);
    qemu.arg("-append").arg(format!(
        "console=ttyS0 quiet loglevel=1 panic=-1 rootfstype=virtiofs root=root {root} \
         init=/init role={role}"
    ));
    let out = File::create(log)?;
    qemu.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    Ok(Guarded(qemu.spawn().context("cannot start qemu-system-x86_64")?))
}
