//! Many threads that change one tree, most of which is on the side that is not written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use stratafs_core::DynFileSystem;
use stratafs_dualfs::DualFs;
use stratafs_testkit::Ledger;
use support::sides::{Sides, of_both, side};
use support::tree::{Random, apply, tree};
use support::{mem, on};

/// How long the threads may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many are tried with each policy.
const ROUNDS: u64 = 20;

/// A filesystem with every path that the changes work on, as far as directories go.
fn full() -> Arc<dyn DynFileSystem> {
    side(|w| {
        for a in ["a", "b", "c"] {
            w.mkdir(a, 0o755).unwrap();
            for b in ["a", "b", "c"] {
                w.mkdir(format!("{a}/{b}"), 0o755).unwrap();
                for c in ["a", "b"] {
                    w.file(format!("{a}/{b}/{c}"), b"of B").unwrap();
                }
            }
        }
    })
}

#[test]
fn changes_by_many_threads_end_and_leave_what_a_later_run_shows_too() {
    // A deadlock must fail, not hang.
    let (done, watch) = channel::<()>();
    std::thread::spawn(move || {
        if watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("no end after {PATIENCE:?}: a deadlock");
            std::process::abort();
        }
    });
    (0..ROUNDS).for_each(round);
    drop(done);
}

/// One tree, changed by all threads until most of what B has is gone.
fn round(round: u64) {
    for policy in of_both() {
        let (a, ledger) = Ledger::keep(mem());
        let sides = Sides { a, b: full() };
        let fs = Arc::new(sides.dual(&policy));
        change(round, &fs);
        assert_eq!(fs.nodes(), 1, "everything was given back");
        let shared: Arc<dyn DynFileSystem> = Arc::<DualFs>::clone(&fs);
        let seen = tree(&shared);
        drop((fs, shared));
        assert_eq!(tree(&sides.build(&policy)), seen, "{}", policy.name());
        ledger.check().unwrap();
    }
}

/// Changes by six threads at random.
fn change(round: u64, fs: &Arc<DualFs>) {
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let fs: Arc<dyn DynFileSystem> = Arc::<DualFs>::clone(fs);
            scope.spawn(move || {
                let mut random = Random::new(round * 100 + thread);
                for step in 0..300 {
                    let _ = apply(&fs, &random.change());
                    if step % 50 == 0 {
                        let _ = on(&fs, |w| w.list("").map(drop));
                    }
                }
            });
        }
    });
}
