//! A virtual machine's root over virtio-fs, served by stratafs and by virtiofsd.
//!
//! The question: what does a program inside a guest pay for the server that its host chose? Each boots
//! the same guest from the same host directory, in turns, and `tests/guest/bench.rs` prints operations
//! per second. Under software emulation a round trip costs more than any server takes to answer, so
//! what shows is how many requests a server lets the guest save. The unit is the ratio to virtiofsd;
//! differences under 30% are noise.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{DEADLINE, Guarded, Guest, SHORT, boots, console, make_root, socket, start};
use crate::process::{
    self, cargo, find_on_path, release_build, tail, target_profile_dir, wait_until,
};
use crate::target::{Scratch, terminate};
use crate::tools;

/// Arguments of `cargo xtask bench guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The virtiofsd to compare with: `cargo install virtiofsd --version 1.14.0` makes one.
    #[arg(long, value_name = "PROGRAM")]
    virtiofsd: Option<PathBuf>,

    /// How often each server boots the guest.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// virtiofsd has one request queue, so there is one.
const GUEST: Guest =
    Guest { role: "bench", memory: "512M", root: "rw", tags: &["root"], request_queues: 1 };
/// Of the directory that is listed.
const FILES: usize = 500;
/// Of the file that is read and written.
const LARGE: usize = 16 << 20;

/// A server, and what it is told beside the directory.
struct Server {
    name: &'static str,
    kind: Kind,
    /// With which of the others it is compared.
    reference: Option<&'static str>,
}

enum Kind {
    /// Keys of `passthrough(DIRECTORY, …)`.
    Ours(&'static str),
    Virtiofsd(&'static [&'static str]),
}

/// Each of ours behind the one that it is compared with: as either is without being told anything,
/// and where nobody else changes the directory.
const SERVERS: [Server; 6] = [
    Server { name: "virtiofsd", kind: Kind::Virtiofsd(&[]), reference: None },
    Server { name: "stratafs", kind: Kind::Ours(""), reference: Some("virtiofsd") },
    Server {
        name: "virtiofsd --cache=always",
        kind: Kind::Virtiofsd(&["--cache=always", "--killpriv-v2"]),
        reference: None,
    },
    Server {
        name: "exclusive",
        kind: Kind::Ours(", exclusive"),
        reference: Some("virtiofsd --cache=always"),
    },
    Server {
        name: "virtiofsd --writeback",
        kind: Kind::Virtiofsd(&["--cache=always", "--killpriv-v2", "--writeback"]),
        reference: None,
    },
    Server {
        name: "exclusive, writeback",
        kind: Kind::Ours(", exclusive, writeback"),
        reference: Some("virtiofsd --writeback"),
    },
];

/// Operations per second of each workload, once for each round.
type Figures = BTreeMap<String, Vec<f64>>;

/// Boots all in turns and prints the ratios.
///
/// # Errors
/// Something is missing, or a guest did not come to its end.
pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(what) = boots()? {
        bail!("{what}");
    }
    let virtiofsd = args
        .virtiofsd
        .clone()
        .or_else(|| find_on_path("virtiofsd"))
        .context("virtiofsd is missing: say where it is with --virtiofsd")?;
    let kernel = tools::kernel()?.context("the guest's kernel is missing")?;
    let ours = release_build()?;
    // What it does is done by the kernels; a release build would take all that the tests depend on.
    let mut bench = cargo();
    bench.args(["rustc", "-q", "-p", "stratafs", "--example", "guest-bench"]);
    process::run(bench.args(["--", "-C", "target-feature=+crt-static"]))?;
    let bench = target_profile_dir()?.join("examples/guest-bench");

    let scratch = Scratch::new()?;
    let place = scratch.directory("guest")?;
    let root = place.join("root");
    make_root(&root, &bench, "bench-init")?;
    fill(&root.join("bench"))?;
    let mut all: Vec<Figures> = SERVERS.iter().map(|_| Figures::new()).collect();
    for round in 1..=args.rounds {
        for (server, figures) in SERVERS.iter().zip(&mut all) {
            let begin = Instant::now();
            let program = if let Kind::Ours(_) = server.kind { &ours } else { &virtiofsd };
            let said = boot(server, program, &kernel, &place, &root)?;
            let mut count = 0;
            for line in said.lines().filter_map(|line| line.trim().strip_prefix("BENCH ")) {
                let (name, figure) = line.split_once(' ').context("a workload has a figure")?;
                figures.entry(name.to_owned()).or_default().push(figure.parse()?);
                count += 1;
            }
            let took = begin.elapsed().as_secs();
            println!("round {round}, {}: {count} workloads, {took} s", server.name);
            ensure!(count > 0, "nothing was measured:\n{}", tail(&said));
        }
    }
    print(&all, args.rounds);
    Ok(())
}

/// What the workloads find.
fn fill(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("many"))?;
    for index in 0..FILES {
        fs::write(directory.join(format!("many/file{index}")), [7; 4096])?;
    }
    fs::write(directory.join("large"), vec![7; LARGE])?;
    Ok(())
}

/// Boots the guest once; its console.
fn boot(
    server: &Server,
    program: &Path,
    kernel: &Path,
    place: &Path,
    root: &Path,
) -> Result<String> {
    let path = socket(place, "root", GUEST);
    let mut command = Command::new(program);
    match server.kind {
        Kind::Ours(keys) => {
            command
                .arg("serve")
                .arg(format!("passthrough({}{keys})", root.display()))
                .arg("--once");
        }
        Kind::Virtiofsd(flags) => {
            command.arg("--shared-dir").arg(root).args(flags);
        }
    }
    command.arg("--socket-path").arg(&path);
    let log = place.join("server.log");
    let out = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let mut serving = Guarded(command.spawn().context("cannot start the server")?);
    let begin = Instant::now();
    while !path.exists() {
        let ended = serving.0.try_wait()?;
        if ended.is_some() || begin.elapsed() > SHORT {
            bail!("{} does not begin:\n{}", server.name, tail(&fs::read_to_string(log)?));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let mut machine = start(kernel, place, GUEST)?;
    let begin = Instant::now();
    let mut ended = None;
    // A guest whose server has ended waits for ever.
    while ended.is_none() && serving.0.try_wait()?.is_none() && begin.elapsed() < DEADLINE {
        ended = wait_until(&mut machine.0, Duration::from_millis(100))?;
    }
    if ended.is_none() {
        ended = wait_until(&mut machine.0, Duration::from_secs(5))?;
    }
    let said = String::from_utf8_lossy(&fs::read(console(place, GUEST))?).into_owned();
    drop(machine);
    if wait_until(&mut serving.0, SHORT)?.is_none() {
        terminate(serving.0.id())?;
        wait_until(&mut serving.0, SHORT)?;
    }
    // virtiofsd leaves it.
    let _ = fs::remove_file(&path);
    if ended.is_none() || !said.contains("CHECKS END bench") {
        let server_said = fs::read_to_string(log)?;
        bail!("{}: the guest did not end:\n{}\n{}", server.name, tail(&said), tail(&server_said));
    }
    Ok(said)
}

/// Each of ours to its reference: the median of the rounds, the least and the most.
fn print(all: &[Figures], rounds: u32) {
    let index = |name: &str| SERVERS.iter().position(|server| server.name == name);
    println!("\n{rounds} rounds; operations per second to those of virtiofsd with like options:");
    println!("median (least–most)\n");
    print!("{:24}", "workload");
    let pairs: Vec<(&Server, &Figures, &Figures)> = SERVERS
        .iter()
        .zip(all)
        .filter_map(|(server, figures)| Some((server, figures, &all[index(server.reference?)?])))
        .collect();
    for (server, ..) in &pairs {
        print!(" {:24}", server.name);
    }
    println!();
    let names = all.iter().flat_map(Figures::keys).collect::<std::collections::BTreeSet<_>>();
    for name in names {
        print!("{name:24}");
        for (_, ours, theirs) in &pairs {
            let of = |figures: &Figures| figures.get(name).cloned().unwrap_or_default();
            let mut ratios: Vec<f64> =
                of(ours).iter().zip(of(theirs)).map(|(ours, theirs)| ours / theirs).collect();
            ratios.sort_by(f64::total_cmp);
            let cell = match ratios[..] {
                [] => "none".to_owned(),
                [least, .., most] => {
                    format!("{:.2} ({least:.2}–{most:.2})", ratios[ratios.len() / 2])
                }
                [only] => format!("{only:.2}"),
            };
            print!(" {cell:24}");
        }
        println!();
    }
}
