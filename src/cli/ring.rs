//! `stratafs ring`: a VMM and its guest, played against any vhost-user-fs server.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::transport::vhost_user::client::bench::{self, Target, Workload};
use crate::transport::vhost_user::client::{Queue, Setup, Vmm, fuse};

/// Ask a virtio-fs server for its abilities, or for its speed
///
/// Plays a VMM and its guest: it works with any vhost-user-fs server that no VMM is connected to.
#[derive(Debug, Args)]
pub(super) struct Ring {
    /// Where the server listens
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Connect, look at the root and say what was found
    Probe,
    /// Requests per second, by kind and queue depth; works in a file that it makes in the root
    Bench {
        /// How many request queues are driven, each by a thread
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
        queues: u16,

        /// How many requests are under way on each queue; more than once for several
        #[arg(long, value_name = "N", default_values_t = [1, 32])]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
        depth: Vec<u16>,

        /// Which request is measured; more than once for several, without it all
        #[arg(long, value_name = "NAME", value_parser = parse_workload)]
        request: Vec<Workload>,

        /// How long each figure is taken, in seconds
        #[arg(long, value_name = "S", default_value_t = 2)]
        seconds: u64,
    },
}

fn parse_workload(name: &str) -> Result<Workload, String> {
    let known = || Workload::ALL.map(Workload::name).join(", ");
    let is_it = |workload: &Workload| workload.name().eq_ignore_ascii_case(name);
    Workload::ALL.into_iter().find(is_it).ok_or_else(|| format!("known: {}", known()))
}

/// Entries of a queue: 64 requests of 4 descriptors.
const QUEUE_SIZE: u16 = 256;

impl Ring {
    pub(super) fn run(&self) -> Result<u8> {
        match &self.what {
            What::Probe => self.probe(),
            What::Bench { queues, depth, request, seconds } => {
                let all: &[Workload] = if request.is_empty() { &Workload::ALL } else { request };
                let time = Duration::from_secs((*seconds).max(1));
                self.bench((*queues).into(), all, depth, time)
            }
        }
    }

    fn connect(&self, queues: usize) -> Result<(Vmm, Vec<Queue>)> {
        let setup = Setup::default().with_request_queues(queues).with_queue_size(QUEUE_SIZE);
        let place = self.socket.display();
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("cannot connect to {place}"))?;
        Vmm::connect(stream, &setup).with_context(|| format!("cannot set up queues with {place}"))
    }

    fn probe(&self) -> Result<u8> {
        let (vmm, mut queues) = self.connect(1)?;
        let queue = queues.last_mut().context("there is no request queue")?;
        let minor = fuse::init(queue).context("INIT failed")?;
        let attributes = fuse::getattr(queue, fuse::ROOT).context("GETATTR of the root failed")?;
        let tag = vmm.tag().map_or_else(
            || "none told".to_owned(),
            |tag| String::from_utf8_lossy(tag).escape_debug().to_string(),
        );
        print(&format!("tag: {tag}\nFUSE: 7.{minor}\nroot: mode {:o}\n", attributes.mode))
    }

    fn bench(
        &self,
        count: usize,
        workloads: &[Workload],
        depths: &[u16],
        time: Duration,
    ) -> Result<u8> {
        let (_vmm, mut queues) = self.connect(count)?;
        // The queue of high priority is not measured.
        let mut queues = queues.split_off(1);
        let first = queues.first_mut().context("there is no request queue")?;
        fuse::init(first).context("INIT failed")?;
        let name = format!(".stratafs-ring-{}", process::id());
        let targets = queues
            .iter_mut()
            .enumerate()
            .map(|(index, queue)| Target::make(queue, &format!("{name}-{index}")))
            .collect::<io::Result<Vec<_>>>()
            .context("cannot make a file in the root")?;
        print(&format!("{:14} {:>5} {:>7} {:>12}\n", "request", "depth", "queues", "per second"))?;
        let measured = measure(&mut queues, &targets, workloads, depths, time);
        for (queue, target) in queues.iter_mut().zip(targets) {
            target.remove(queue).context("cannot remove the file from the root")?;
        }
        measured
    }
}

fn measure(
    queues: &mut [Queue],
    targets: &[Target],
    workloads: &[Workload],
    depths: &[u16],
    time: Duration,
) -> Result<u8> {
    for &workload in workloads {
        for depth in depths {
            let rates = thread::scope(|scope| {
                let threads: Vec<_> = queues
                    .iter_mut()
                    .zip(targets)
                    .map(|(queue, target)| {
                        scope.spawn(move || bench::run(queue, target, workload, *depth, time))
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or(Err(io::ErrorKind::Other.into())))
                    .sum::<io::Result<f64>>()
            })
            .with_context(|| format!("{} failed", workload.name()))?;
            let (name, count) = (workload.name(), queues.len());
            print(&format!("{name:14} {depth:5} {count:7} {rates:12.0}\n"))?;
        }
    }
    Ok(0)
}

fn print(text: &str) -> Result<u8> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}
