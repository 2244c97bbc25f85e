//! What does one request cost, from its bytes to the reply's bytes?
//!
//! **Workload.** One session over a filesystem in process, without a kernel, a system call or a copy
//! of the transport's. `null` answers at once, so it shows the protocol alone; `mem` is a MemFs.
//! `2` is two workers on the same session, each with a file or directory of its own.
//!
//! **Unit.** Time per request and worker; of `create_unlink` per CREATE, RELEASE, UNLINK and FORGET;
//! of `readdirplus_10000` per whole listing, in replies of 64 KiB. With as many free CPUs as workers
//! a number that is the same for one and two means that they do not hinder each other.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion makes functions that have none")]
#![allow(clippy::unwrap_used, reason = "a bench that panics says where")]

#[path = "../tests/in_process/protocol/wire.rs"]
mod wire;

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use stratafs::protocol::io::{DetachedReply, ReplySlot, Undeliverable};
use stratafs::protocol::null::NullFs;
use stratafs::protocol::{Opcode, Scratch, Session};
use stratafs_core::{DynFileSystem, Errno, ReadSink, SliceSink, SliceSource};
use stratafs_memfs::MemFs;

use wire::{Body, Client, Fields, O_RDWR, create_body, node_of, read_body, request, write_body};

/// Entries of the directory that is listed.
const ENTRIES: u32 = 10_000;
/// Bytes of a reply's buffer.
const ROOM: usize = 64 << 10;

/// A worker: what a transport's thread holds.
struct Worker {
    session: Arc<Session>,
    scratch: Scratch,
    reply: Vec<u8>,
}

/// A reply into a buffer.
struct Slot<'a> {
    payload: SliceSink<'a>,
    filled: &'a mut usize,
}

impl ReplySlot for Slot<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }
    fn clear(&mut self) {}
    fn send(self, _: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        answer.unwrap();
        *self.filled = self.payload.filled();
        Ok(())
    }
    fn finish(self) {}
    fn detach(self) -> Box<dyn DetachedReply> {
        unreachable!("nothing waits here")
    }
}

impl Worker {
    fn of(session: &Arc<Session>) -> Self {
        let scratch = Scratch::new(session.config());
        Self { session: Arc::clone(session), scratch, reply: vec![0; ROOM] }
    }

    /// Serves a request, and gives the payload of its reply.
    fn serve(&mut self, request: &[u8]) -> &[u8] {
        let mut filled = 0;
        let slot = Slot { payload: SliceSink::new(&mut self.reply), filled: &mut filled };
        self.session.handle(&mut SliceSource::new(request), slot, &mut self.scratch);
        &self.reply[..filled]
    }
}

/// Times `iterations` of what each of `workers` does, side by side.
fn side_by_side<F: FnMut() + Send>(workers: Vec<F>, iterations: u64) -> Duration {
    let start = Barrier::new(workers.len() + 1);
    std::thread::scope(|scope| {
        let start = &start;
        for mut work in workers {
            scope.spawn(move || {
                start.wait();
                for _ in 0..iterations {
                    work();
                }
            });
        }
        start.wait();
        // The scope ends when the last worker does.
        Instant::now()
    })
    .elapsed()
}

/// A filesystem with a file for each worker, and in it the ids of these.
struct Stage {
    name: &'static str,
    session: Arc<Session>,
    files: [(u64, u64); 2],
    dirs: [u64; 2],
}

impl Stage {
    fn all() -> [Self; 2] {
        let mem = MemFs::builder().build().unwrap();
        [
            Self::new("null", Arc::new(NullFs::new().with_entries(u64::from(ENTRIES)))),
            Self::new("mem", Arc::new(mem)),
        ]
    }

    fn new(name: &'static str, fs: Arc<dyn DynFileSystem>) -> Self {
        let mut client = Client::started(fs);
        let names = [&b"file-a"[..], b"file-b"];
        let files = names.map(|name| client.create(1, name));
        for (node, fh) in files {
            client.write(node, fh, 0, &[7; 1 << 20]).unwrap();
        }
        // What is no directory to the null filesystem serves as one.
        let dirs = [&b"dir-a"[..], b"dir-b"].map(|name| match name_of(&mut client, name) {
            Ok(node) => node,
            Err(_) => client.mkdir(1, name),
        });
        Self { name, session: Arc::clone(&client.session), files, dirs }
    }

    /// Benches what `make` makes of each worker, alone and two side by side.
    fn bench<F: FnMut() + Send>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        make: impl Fn(Worker, usize) -> F,
    ) {
        for count in [1, 2] {
            group.bench_function(BenchmarkId::new(self.name, count), |bencher| {
                bencher.iter_custom(|iterations| {
                    let workers = (0..count).map(|at| make(Worker::of(&self.session), at));
                    side_by_side(workers.collect(), iterations)
                });
            });
        }
    }
}

fn name_of(client: &mut Client, name: &[u8]) -> Result<u64, Errno> {
    match client.lookup(1, name)? {
        0 => Err(Errno::ENOENT),
        node => Ok(node),
    }
}

/// One request again and again.
fn repeated(mut worker: Worker, bytes: Vec<u8>) -> impl FnMut() + Send {
    move || {
        worker.serve(&bytes);
    }
}

fn requests(criterion: &mut Criterion) {
    let stages = Stage::all();
    type Make = fn(&Stage, usize) -> Vec<u8>;
    let kinds: [(&str, Make); 4] = [
        ("lookup", |_, at| {
            let name: &[u8] = if at == 0 { b"file-a" } else { b"file-b" };
            request(Opcode::Lookup.raw(), 9, 1, &Body::new().name(name).0)
        }),
        ("getattr", |stage, at| {
            let body = Body::new().u32(0).u32(0).u64(0);
            request(Opcode::Getattr.raw(), 9, stage.files[at].0, &body.0)
        }),
        ("read_4k", |stage, at| {
            let (node, fh) = stage.files[at];
            request(Opcode::Read.raw(), 9, node, &read_body(fh, 65_536, 4096).0)
        }),
        ("write_4k", |stage, at| {
            let (node, fh) = stage.files[at];
            request(Opcode::Write.raw(), 9, node, &write_body(fh, 65_536, &[1; 4096]).0)
        }),
    ];
    for (name, make) in kinds {
        let mut group = criterion.benchmark_group(name);
        for stage in &stages {
            stage.bench(&mut group, |worker, at| repeated(worker, make(stage, at)));
        }
        group.finish();
    }
}

fn create_unlink(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("create_unlink");
    for stage in &Stage::all() {
        stage.bench(&mut group, |mut worker, at| {
            let dir = stage.dirs[at];
            let create = request(Opcode::Create.raw(), 9, dir, &create_body(O_RDWR, 0o644, b"f").0);
            let unlink = request(Opcode::Unlink.raw(), 9, dir, &Body::new().name(b"f").0);
            move || {
                let made = worker.serve(&create);
                let (node, fh) = (node_of(&made[..8]), Fields::of(&made[128..136]).u64());
                let body = Body::new().u64(fh).u32(0).u32(0).u64(0);
                worker.serve(&request(Opcode::Release.raw(), 9, node, &body.0));
                worker.serve(&unlink);
                let body = Body::new().u64(1);
                worker.serve(&request(Opcode::Forget.raw(), 9, node, &body.0));
            }
        });
    }
    group.finish();
}

fn readdirplus(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("readdirplus_10000");
    group.sample_size(20);
    for stage in &Stage::all() {
        let mut client = Client::of(Arc::clone(&stage.session));
        if stage.name == "mem" {
            for index in 0..ENTRIES {
                let (node, fh) = client.create(1, format!("file-{index:07}").as_bytes());
                client.release(Opcode::Release, node, fh).unwrap();
                client.forget(node, 1);
            }
        }
        let fh = client.open(Opcode::Opendir, 1, 0).unwrap();
        stage.bench(&mut group, |mut worker, _| {
            let mut list = request(Opcode::Readdirplus.raw(), 9, 1, &read_body(fh, 0, 65_536).0);
            move || {
                let mut cookie = 0_u64;
                loop {
                    list[48..56].copy_from_slice(&cookie.to_ne_bytes());
                    let reply = worker.serve(&list);
                    match last_cookie(reply) {
                        Some(last) => cookie = last,
                        None => break,
                    }
                }
            }
        });
    }
    group.finish();
}

/// The cookie of the last entry of a READDIRPLUS's reply, found without an allocation.
fn last_cookie(reply: &[u8]) -> Option<u64> {
    let mut rest = reply;
    let mut last = None;
    while let Some((entry, _)) = rest.split_at_checked(152) {
        last = Some(u64::from_ne_bytes(entry[136..144].try_into().unwrap()));
        let name = u32::from_ne_bytes(entry[144..148].try_into().unwrap()) as usize;
        rest = &rest[152 + name.next_multiple_of(8)..];
    }
    last
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = requests, create_unlink, readdirplus
}
criterion_main!(benches);
