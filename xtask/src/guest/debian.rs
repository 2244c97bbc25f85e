//! A Debian guest: `debootstrap` makes its root through a mount of the host directory, so that owners
//! and modes become records, and an unprivileged process serves it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{
    DEADLINE, Guarded, Guest, NOBODY, SHORT, boots, counted_to_end, is_plain, open_to_others,
    serve, start,
};
use crate::process::{
    self, cargo, is_root, on_path, run_checked, source_root, target_profile_dir, wait_until,
};
use crate::target::{Scratch, is_mounted, terminate};
use crate::tools;

const DEBIAN: Guest =
    Guest { role: "debian", memory: "512M", root: "rw", tags: &["root"], request_queues: 2 };
/// Packages of a network that may be slow, through a mount.
const INSTALLATION: Duration = Duration::from_secs(1800);
const RELEASE: &str = "bookworm";

/// Makes the root, boots from it and counts the checks.
///
/// # Errors
/// Something is missing, or a check failed.
pub(crate) fn run() -> Result<()> {
    if !is_root() || !on_path("debootstrap") {
        bail!("as root, with debootstrap: apt-get install debootstrap");
    }
    if let Some(what) = boots()? {
        bail!("{what}");
    }
    let kernel = tools::kernel()?.context("the guest's kernel is missing")?;
    process::run(cargo().args(["build", "-q", "--workspace", "--bins"]))?;
    let scratch = Scratch::new()?;
    let place = scratch.directory("guest")?;
    open_to_others(&place)?;
    let (root, mountpoint) = (place.join("root"), place.join("mountpoint"));
    for directory in [&root, &mountpoint] {
        fs::create_dir(directory)?;
    }
    chown(&root, Some(NOBODY), Some(NOBODY))?;
    chown(&place, Some(NOBODY), Some(NOBODY))?;
    let program = place.join("stratafs");
    fs::copy(target_profile_dir()?.join("stratafs"), &program)?;
    let spec = format!("passthrough({}, ownership=virtual)", root.display());

    let mut mount = Command::new(&program);
    mount.args(["mount", "-o", "allow_other,suid,dev,setuid=nobody"]).arg(&spec).arg(&mountpoint);
    let mut server = Guarded(mount.stdin(Stdio::null()).spawn().context("cannot mount")?);
    let begin = Instant::now();
    while !is_mounted(&mountpoint)? {
        if server.0.try_wait()?.is_some() || begin.elapsed() > SHORT {
            bail!("the root is not mounted");
        }
        thread::sleep(Duration::from_millis(10));
    }
    println!("debootstrap of {RELEASE}, through the mount");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=tcc,libc6-dev", RELEASE]);
    debootstrap.arg(&mountpoint).arg("http://deb.debian.org/debian");
    run_checked(&mut debootstrap, &place.join("debootstrap.log"), INSTALLATION)?;
    let init = mountpoint.join("init");
    fs::copy(source_root().join("tests/guest/debian-init"), &init)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    terminate(server.0.id())?;
    wait_until(&mut server.0, SHORT)?.context("the mount does not end")?;

    let mut server = serve(&program, &place, "root", &spec, &[DEBIAN])?;
    let mut machine = start(&kernel, &place, DEBIAN)?;
    let mut tally = counted_to_end(&place, DEBIAN, &mut machine, DEADLINE)?;
    drop(machine);
    terminate(server.0.id())?;
    wait_until(&mut server.0, SHORT)?.context("the server does not end")?;
    tally.count("every object on the host is plain and the server's own", is_plain(&root));
    println!("guest: {tally}");
    if tally.failed > 0 { bail!("{} checks failed", tally.failed) } else { Ok(()) }
}
