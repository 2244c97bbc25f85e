//! How many requests a second a server answers, at a queue depth, on one queue.

use std::io;
use std::time::{Duration, Instant};

use super::fuse::{self, Args, op};
use super::queue::{Call, Queue};

/// Bytes of a READ and a WRITE.
const BLOCK: u32 = 4096;
/// Bytes of the file that is read and written.
const FILE: u64 = 1 << 20;
/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// GETATTR of one file.
    Getattr,
    /// LOOKUP of one file.
    Lookup,
    /// READ of 4 KiB, block after block of a file of 1 MiB.
    Read,
    /// WRITE of 4 KiB, block after block of a file of 1 MiB.
    Write,
    /// CREATE of a file, its RELEASE and its UNLINK: three requests.
    CreateUnlink,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Getattr, Self::Lookup, Self::Read, Self::Write, Self::CreateUnlink];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Getattr => "GETATTR",
            Self::Lookup => "LOOKUP",
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::CreateUnlink => "CREATE+UNLINK",
        }
    }
}

/// A file to ask for, made in the root.
#[derive(Clone, Debug)]
pub struct Target {
    name: String,
    node: u64,
    handle: u64,
}

impl Target {
    /// Makes and fills the file `name`.
    ///
    /// # Errors
    /// What the server answers.
    pub fn make(queue: &mut Queue, name: &str) -> io::Result<Self> {
        let (node, handle) = fuse::create(queue, fuse::ROOT, name)?;
        let block = vec![b'x'; BLOCK as usize];
        for offset in (0..FILE).step_by(BLOCK as usize) {
            fuse::write(queue, node, handle, offset, &block)?;
        }
        Ok(Self { name: name.to_owned(), node, handle })
    }

    /// Removes it.
    ///
    /// # Errors
    /// What the server answers.
    pub fn remove(self, queue: &mut Queue) -> io::Result<()> {
        fuse::release(queue, self.node, self.handle)?;
        fuse::unlink(queue, fuse::ROOT, &self.name)
    }
}

/// Asks for `workload` with `depth` requests under way, for `time`; requests per second.
///
/// # Errors
/// What the server answers, and `TimedOut`.
pub fn run(
    queue: &mut Queue,
    target: &Target,
    workload: Workload,
    depth: u16,
    time: Duration,
) -> io::Result<f64> {
    let depth = depth.clamp(1, queue.slots());
    if workload == Workload::CreateUnlink {
        return create_unlink(queue, target, depth, time);
    }
    let data = vec![b'y'; BLOCK as usize];
    let mut offset = 0;
    let mut submit = |queue: &mut Queue, slot| {
        offset = (offset + u64::from(BLOCK)) % FILE;
        let (opcode, node, args, data, room) = match workload {
            Workload::Lookup => {
                (op::LOOKUP, fuse::ROOT, Args::new().name(&target.name), &[][..], fuse::ENTRY_OUT)
            }
            Workload::Read => {
                let args = fuse::read_args(target.handle, offset, BLOCK);
                (op::READ, target.node, args, &[][..], BLOCK)
            }
            Workload::Write => {
                let args = fuse::write_args(target.handle, offset, BLOCK);
                (op::WRITE, target.node, args, &data[..], 8)
            }
            Workload::Getattr | Workload::CreateUnlink => {
                let args = Args::new().u32(0).u32(0).u64(0);
                (op::GETATTR, target.node, args, &[][..], fuse::ATTR_OUT)
            }
        };
        let call = Call { opcode, node, args: args.bytes(), data, room: Some(room) };
        queue.submit(slot, &call).map(drop)
    };
    let begin = Instant::now();
    let mut done = 0u64;
    for slot in 0..depth {
        submit(queue, slot)?;
    }
    queue.kick()?;
    let mut under_way = depth;
    while under_way > 0 {
        let mut next = queue.wait(PATIENCE)?.ok_or(io::ErrorKind::TimedOut)?;
        let is_over = begin.elapsed() >= time;
        loop {
            let slot = queue.slot_of(next.0);
            check(queue, slot, next.1)?;
            done += 1;
            if is_over {
                under_way -= 1;
            } else {
                submit(queue, slot)?;
            }
            match queue.completed()? {
                Some(completed) => next = completed,
                None => break,
            }
        }
        queue.kick()?;
    }
    if workload == Workload::Lookup {
        fuse::forget(queue, target.node, done)?;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

fn check(queue: &Queue, slot: u16, written: u32) -> io::Result<()> {
    match queue.errno(slot, written)? {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("a request came back unanswered")),
    }
}

/// A file's life in one slot, request after request.
#[derive(Clone, Copy)]
enum Step {
    Create,
    Release(u64),
    Unlink(u64),
    Forget,
}

/// Each slot makes a file, releases its handle, removes it and forgets it, again and again. FORGET
/// has no answer and is not counted.
fn create_unlink(
    queue: &mut Queue,
    target: &Target,
    depth: u16,
    time: Duration,
) -> io::Result<f64> {
    let mut steps = vec![Step::Create; usize::from(depth)];
    let begin = Instant::now();
    let (mut done, mut under_way) = (0u64, depth);
    for slot in 0..depth {
        submit_step(queue, target, slot, Step::Create, 0)?;
    }
    queue.kick()?;
    while under_way > 0 {
        let (head, written) = queue.wait(PATIENCE)?.ok_or(io::ErrorKind::TimedOut)?;
        let slot = queue.slot_of(head);
        let Some(step) = steps.get_mut(usize::from(slot)) else { continue };
        if !matches!(step, Step::Forget) {
            check(queue, slot, written)?;
            done += 1;
        }
        let mut handle = 0;
        *step = match *step {
            Step::Create => {
                let payload = queue.reply(slot, written)?.map_or_else(Vec::new, |r| r.payload);
                handle = fuse::number(&payload, fuse::ENTRY_OUT as usize)?;
                Step::Release(fuse::number(&payload, 0)?)
            }
            Step::Release(node) => Step::Unlink(node),
            Step::Unlink(node) => {
                forget(queue, slot, node)?;
                *step = Step::Forget;
                queue.kick()?;
                continue;
            }
            Step::Forget => Step::Create,
        };
        if matches!(step, Step::Create) && begin.elapsed() >= time {
            under_way -= 1;
            continue;
        }
        submit_step(queue, target, slot, *step, handle)?;
        queue.kick()?;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

fn submit_step(
    queue: &mut Queue,
    target: &Target,
    slot: u16,
    step: Step,
    handle: u64,
) -> io::Result<()> {
    let name = format!("{}-{slot}", target.name);
    let (opcode, node, args, room) = match step {
        Step::Create | Step::Forget => {
            let args = Args::new().u32(2).u32(0o100_644).u32(0o22).u32(0).name(name);
            (op::CREATE, fuse::ROOT, args, fuse::ENTRY_OUT + 16)
        }
        Step::Release(node) => (op::RELEASE, node, Args::new().u64(handle).u32(2).u32(0).u64(0), 0),
        Step::Unlink(_) => (op::UNLINK, fuse::ROOT, Args::new().name(name), 0),
    };
    let call = Call { opcode, node, args: args.bytes(), data: &[], room: Some(room) };
    queue.submit(slot, &call).map(drop)
}

fn forget(queue: &mut Queue, slot: u16, node: u64) -> io::Result<()> {
    let args = Args::new().u64(1);
    let call = Call { opcode: op::FORGET, node, args: args.bytes(), data: &[], room: None };
    queue.submit(slot, &call).map(drop)
}
