//! A state machine against a plain model: lists of operations, made up at random and shrunk when
//! one fails.
//!
//! Every step is done on the model and on the filesystem. What it answers is compared, and after it
//! the whole tree: names, types, modes, owners, sizes, data, link counts, which names are one object,
//! xattrs, set times, and what is open, with a name or without.
//!
//! ```no_run
//! # let stack: stratafs_testkit::Stack = todo!();
//! stratafs_testkit::ModelRun::from_env().run(&stack).expect("the model and the filesystem agree");
//! ```

mod compare;
mod op;
mod tree;

use std::fmt;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use stratafs_core::{Errno, OpenFlags, Result, SetTime, Timestamp};

pub use op::{How, Op, Path, SLOTS};

use crate::client::{Client, Fd};
use crate::world::remove_all;
use crate::{Failure, Stack, Verdict, World};
use tree::{Expected, Tree};

/// How many lists are tried, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelRun {
    /// How many lists of operations.
    pub lists: u32,
    /// The longest list.
    pub longest: usize,
    /// Where the random numbers start: the same seed gives the same lists.
    pub seed: u64,
}

impl Default for ModelRun {
    /// Enough to be worth it and to take seconds: 100 lists of up to 60 operations.
    fn default() -> Self {
        Self { lists: 100, longest: 60, seed: 0 }
    }
}

impl ModelRun {
    /// The default, but for what `STRATAFS_MODEL_LISTS`, `STRATAFS_MODEL_LONGEST` and
    /// `STRATAFS_MODEL_SEED` say; what is no number there counts as absent.
    #[must_use]
    pub fn from_env() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let default = Self::default();
        Self {
            lists: number("STRATAFS_MODEL_LISTS")
                .map_or(default.lists, |n: u64| u32::try_from(n).unwrap_or(u32::MAX)),
            longest: number("STRATAFS_MODEL_LONGEST")
                .map_or(default.longest, |n: u64| usize::try_from(n).unwrap_or(usize::MAX)),
            seed: number("STRATAFS_MODEL_SEED").unwrap_or(default.seed),
        }
    }

    /// Tries the lists on `stack`, each in an empty directory.
    ///
    /// # Errors
    /// The first list on which model and filesystem differ, cut down to what is needed, with the
    /// first difference.
    pub fn run(&self, stack: &Stack) -> Result<(), Disagreement> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let config = Config {
            cases: self.lists,
            max_shrink_iters: 2000,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        // On a thread of its own, whose umask the client may change.
        let outcome = std::thread::scope(|scope| {
            let run = || {
                let strategy = op::ops(stack.capabilities(), self.longest);
                TestRunner::new_with_rng(config, rng).run(&strategy, |ops| {
                    check(stack, &ops).map_err(|failure| TestCaseError::fail(failure.to_string()))
                })
            };
            scope.spawn(run).join()
        });
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TestError::Fail(reason, ops))) => {
                Err(Disagreement { ops, difference: reason.to_string(), seed: self.seed })
            }
            Ok(Err(TestError::Abort(reason))) => {
                let difference = reason.to_string();
                Err(Disagreement { ops: Vec::new(), difference, seed: self.seed })
            }
            Err(_) => {
                let difference = "a panic".to_owned();
                Err(Disagreement { ops: Vec::new(), difference, seed: self.seed })
            }
        }
    }
}

/// A list of operations on which model and filesystem differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Disagreement {
    /// The list, cut down to what is needed.
    pub ops: Vec<Op>,
    /// The first difference.
    pub difference: String,
    /// The seed that led to it.
    pub seed: u64,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (seed {}), after:", self.difference, self.seed)?;
        for op in &self.ops {
            writeln!(f, "    {op:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Disagreement {}

/// The directory that a list works in.
const DIR: &[u8] = b"model";

/// Does `ops` on the model and on `stack`, in an empty directory.
///
/// # Errors
/// The first difference, or what was left over in the end.
pub fn check(stack: &Stack, ops: &[Op]) -> Verdict {
    let client = &**stack.client();
    client.begin()?;
    let before = client.statfs()?;
    client.mkdir(DIR, 0o777)?;
    let verdict = Machine::new(client).and_then(|mut machine| machine.run(ops));
    client.end()?;
    let removed = remove_all(client, DIR);
    verdict?;
    removed?;
    stack.leaks(&before)
}

/// The model and the filesystem, side by side.
struct Machine<'c> {
    world: World<'c>,
    tree: Tree,
    slots: [Option<Fd>; SLOTS],
    /// The owner of what the client makes.
    owner: (u32, u32),
}

impl<'c> Machine<'c> {
    fn new(client: &'c dyn Client) -> Result<Self, Failure> {
        let world = World::new(client, DIR);
        let own = world.stat("")?;
        let owner = (own.uid, own.gid);
        Ok(Self { world, tree: Tree::new(), slots: [None; SLOTS], owner })
    }

    fn run(&mut self, ops: &[Op]) -> Verdict {
        for (step, op) in ops.iter().enumerate() {
            let step = |failure: Failure| {
                Failure::nowhere(format!("step {} ({op:?}): {failure}", step + 1))
            };
            self.step(op).map_err(step)?;
            self.compare().map_err(step)?;
        }
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            self.world.close(slot)?;
        }
        Ok(())
    }

    fn step(&mut self, op: &Op) -> Verdict {
        let expected = self.tree.apply(op);
        if expected == Expected::Void {
            return Ok(());
        }
        let got = self.perform(op);
        let agree = match (&expected, &got) {
            (Expected::Refused(errors), Err(errno)) => errors.contains(errno),
            (expected, Ok(got)) => expected == got,
            _ => false,
        };
        if agree {
            return Ok(());
        }
        Err(Failure::nowhere(format!("answers {got:?} where {expected:?} is right")))
    }

    /// Does `op` on the filesystem; it is not void.
    fn perform(&mut self, op: &Op) -> Result<Expected> {
        let w = &self.world;
        let fd = |slot: usize| self.slots[slot].ok_or(Errno::EBADF);
        let done = |()| Expected::Done;
        match op {
            Op::Create { path, slot, how, exclusive, mode } => {
                let flags = flags(*how);
                let flags = if *exclusive { flags.with_exclusive() } else { flags };
                let fd = w.create(path, flags, *mode)?;
                self.keep(*slot, fd)
            }
            Op::Open { path, slot, how } => {
                let fd = w.open(path, flags(*how))?;
                self.keep(*slot, fd)
            }
            Op::Tmpfile { slot } => {
                let fd = w.tmpfile("", OpenFlags::READ_WRITE, 0o600)?;
                self.keep(*slot, fd)
            }
            Op::Close { slot } => {
                let fd = self.slots[*slot].take().ok_or(Errno::EBADF)?;
                w.close(fd).map(done)
            }
            Op::Read { slot, offset, len } => {
                w.pread(fd(*slot)?, *offset, *len).map(Expected::Bytes)
            }
            Op::Write { slot, offset, len, fill } => {
                let written = w.pwrite(fd(*slot)?, *offset, &vec![*fill; *len])?;
                Ok(Expected::Count(written as u64))
            }
            Op::Ftruncate { slot, size } => w.ftruncate(fd(*slot)?, *size).map(done),
            Op::Fallocate { slot, mode, offset, len } => {
                w.fallocate(fd(*slot)?, *mode, *offset, *len).map(done)
            }
            Op::CopyRange { from, from_offset, to, to_offset, len } => {
                copy_all(w, (fd(*from)?, *from_offset), (fd(*to)?, *to_offset), *len)
            }
            Op::LinkFd { slot, path } => w.link_fd(fd(*slot)?, path).map(done),
            Op::Truncate { path, size } => w.truncate(path, *size).map(done),
            Op::Mkdir { path, mode } => w.mkdir(path, *mode).map(done),
            Op::Rmdir { path } => w.rmdir(path).map(done),
            Op::Unlink { path } => w.unlink(path).map(done),
            Op::Rename { from, to, flags } => w.rename2(from, to, *flags).map(done),
            Op::Link { from, to } => w.link(from, to).map(done),
            Op::Symlink { path, target } => w.symlink(target, path).map(done),
            Op::Chmod { path, mode } => w.chmod(path, *mode).map(done),
            Op::Chown { path, uid, gid } => w.chown(path, *uid, *gid).map(done),
            Op::Utimens { path, sec, nsec } => {
                let time = SetTime::At(Timestamp::new(*sec, *nsec));
                w.utimens(path, Some(time), Some(time)).map(done)
            }
            Op::Setxattr { path, name, value, mode } => {
                w.setxattr(path, &xattr(*name), value, *mode).map(done)
            }
            Op::Removexattr { path, name } => w.removexattr(path, &xattr(*name)).map(done),
        }
    }

    fn keep(&mut self, slot: usize, fd: Fd) -> Result<Expected> {
        if let Some(old) = self.slots[slot].replace(fd) {
            self.world.close(old)?;
        }
        Ok(Expected::Done)
    }
}

/// The name of the model's attribute `name`.
fn xattr(name: u8) -> [u8; 7] {
    [b'u', b's', b'e', b'r', b'.', b'x', b'0' + name]
}

fn flags(how: How) -> OpenFlags {
    let mut flags = match (how.read, how.write) {
        (true, true) => OpenFlags::READ_WRITE,
        (false, true) => OpenFlags::WRITE_ONLY,
        _ => OpenFlags::READ_ONLY,
    };
    if how.append {
        flags = flags.with_append();
    }
    if how.truncate {
        flags = flags.with_truncate();
    }
    flags
}

fn copy_all(w: &World<'_>, from: (Fd, u64), to: (Fd, u64), len: u64) -> Result<Expected> {
    let mut done = 0;
    while done < len {
        match w.copy_range((from.0, from.1 + done), (to.0, to.1 + done), len - done)? {
            0 => break,
            some => done += some as u64,
        }
    }
    Ok(Expected::Count(done))
}
