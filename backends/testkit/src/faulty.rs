//! Faults on purpose: a request that fails, a read or a write that is short.
//!
//! Whoever stands on another filesystem must bear its failures: nothing lost, nothing half there,
//! nothing kept. [`sweep`] makes the first request fail, then the second, and so on until the work
//! is done without meeting one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use stratafs_core::intercept::{Intercept, Op, OpKind};
use stratafs_core::{Context, DynFileSystem, Errno, Result};

use crate::consistency::check_tree;
use crate::world::remove_all;
use crate::{Failure, Stack, Verdict, World};

/// An intercept that makes requests fail or come short. Clones share their state, so one can be
/// kept to steer the other.
///
/// Forgets cannot fail. A `release` that is made to fail releases nevertheless.
#[derive(Clone)]
pub struct Faulty(Arc<Plan>);

struct Plan {
    fault: Fault,
    /// Of which kinds; empty: of all.
    kinds: Vec<OpKind>,
    armed: AtomicBool,
    calls: AtomicU64,
    fired: Mutex<Option<OpKind>>,
}

#[derive(Clone, Copy)]
enum Fault {
    Nth(u64, Errno),
    Short(u64),
}

impl Faulty {
    /// Makes the `n`-th request (from 1 on) fail with `errno`.
    #[must_use]
    pub fn nth(n: u64, errno: Errno) -> Self {
        Self::with(Fault::Nth(n, errno), &[])
    }

    /// Makes every read, write and copy move `most` bytes at the most, as a signal, a full disk or
    /// a pipe might: a count that is short is no error. 0 looks like the end of a file.
    #[must_use]
    pub fn short(most: u64) -> Self {
        Self::with(Fault::Short(most), &[])
    }

    fn with(fault: Fault, kinds: &[OpKind]) -> Self {
        Self(Arc::new(Plan {
            fault,
            kinds: kinds.to_vec(),
            armed: AtomicBool::new(true),
            calls: AtomicU64::new(0),
            fired: Mutex::new(None),
        }))
    }

    /// The same fault, of these kinds of requests alone, which alone are counted. Counts from 0.
    #[must_use]
    pub fn of(self, kinds: &[OpKind]) -> Self {
        Self::with(self.0.fault, kinds)
    }

    /// From now on faults happen, and requests are counted, or neither. Armed at first.
    pub fn arm(&self, armed: bool) {
        self.0.armed.store(armed, Ordering::SeqCst);
    }

    /// The kind of request that was the last to fail or to be cut short, if one was.
    #[must_use]
    pub fn fired(&self) -> Option<OpKind> {
        *self.0.fired.lock()
    }

    /// How many requests were counted.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn concerns(&self, kind: OpKind) -> bool {
        let plan = &*self.0;
        plan.armed.load(Ordering::SeqCst) && (plan.kinds.is_empty() || plan.kinds.contains(&kind))
    }
}

impl Intercept for Faulty {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if !self.concerns(op.kind()) {
            return Ok(());
        }
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match self.0.fault {
            Fault::Nth(n, errno) if n == call => {
                *self.0.fired.lock() = Some(op.kind());
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    fn limit(&self, _: &Context<'_>, op: &Op<'_>, size: u64) -> u64 {
        match self.0.fault {
            Fault::Short(most) if most < size && self.concerns(op.kind()) => {
                *self.0.fired.lock() = Some(op.kind());
                most
            }
            _ => size,
        }
    }

    fn sees_data(&self) -> bool {
        true
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.fault {
            Fault::Nth(n, errno) => write!(f, "Faulty({errno:?} at call {n})"),
            Fault::Short(most) => write!(f, "Faulty(at most {most} bytes)"),
        }
    }
}

/// The most requests that a sweep lets its work make, against one that never ends.
const MOST_CALLS: u64 = 100_000;

/// Does `work` once for each request that it leads to, with that request failing with `errno`, until
/// it is done without a fault. Says how many requests failed so, one after the other.
///
/// `build` makes a fresh composition each time, with the [`Faulty`] that it is given as an
/// [`Intercepted`](stratafs_core::Intercepted) before the filesystem that is to fail. Setting the
/// composition up and looking at it afterwards meets no fault. `work` may fail, as a program may;
/// whatever it came to, afterwards the tree is [consistent](check_tree), `check` holds, all can be
/// removed, and lookups, handles, blocks and inodes are given back.
///
/// # Errors
/// The first fault that is not borne, by its number and the request that failed.
pub fn sweep(
    errno: Errno,
    build: impl Fn(Faulty) -> Arc<dyn DynFileSystem>,
    work: impl Fn(&World<'_>) -> Result<()>,
    check: impl Fn(&World<'_>) -> Verdict,
) -> Result<u64, Failure> {
    for n in 1..MOST_CALLS {
        let faulty = Faulty::nth(n, errno);
        faulty.arm(false);
        let stack = Stack::in_process("sweep", build(faulty.clone()));
        let verdict = one(&stack, &faulty, &work, &check);
        verdict.map_err(|failure| {
            let fired = faulty.fired().map_or("none", OpKind::name);
            Failure::nowhere(format!("{errno:?} at call {n} ({fired}): {failure}"))
        })?;
        if faulty.fired().is_none() {
            return Ok(n - 1);
        }
    }
    Err(Failure::nowhere("the work makes requests without end"))
}

fn one(
    stack: &Stack,
    faulty: &Faulty,
    work: &impl Fn(&World<'_>) -> Result<()>,
    check: &impl Fn(&World<'_>) -> Verdict,
) -> Verdict {
    const DIR: &[u8] = b"sweep";
    let client = &**stack.client();
    client.begin()?;
    let before = client.statfs()?;
    client.mkdir(DIR, 0o777)?;
    let world = World::new(client, DIR);
    faulty.arm(true);
    let outcome = work(&world);
    faulty.arm(false);
    client.end()?;
    if faulty.fired().is_none() {
        outcome?;
    }
    check_tree(client, DIR)?;
    check(&world)?;
    remove_all(client, DIR)?;
    stack.leaks(&before)
}
