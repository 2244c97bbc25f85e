//! Many threads that change one tree, whose layers below have most of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use stratafs_core::DynFileSystem;
use stratafs_overlayfs::OverlayFs;
use stratafs_testkit::Ledger;
use support::layers::{Layers, layer};
use support::tree::{Random, apply, tree};
use support::{mem, on};

/// How long the threads may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many overlays are tried.
const ROUNDS: u64 = 60;

/// A layer with every path that the changes work on, as far as directories go.
fn full() -> Arc<dyn DynFileSystem> {
    layer(|w| {
        for a in ["a", "b", "c"] {
            w.mkdir(a, 0o755).unwrap();
            for b in ["a", "b", "c"] {
                w.mkdir(format!("{a}/{b}"), 0o755).unwrap();
                for c in ["a", "b"] {
                    w.file(format!("{a}/{b}/{c}"), b"lower").unwrap();
                }
            }
        }
        for (first, other) in [("a/a/a", "b/b/c"), ("a/a/a", "c/a/c"), ("b/c/b", "c/c/c")] {
            w.link(first, other).unwrap();
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

/// One overlay, changed by all threads until most of what its layers have is gone.
fn round(round: u64) {
    let (scratch, ledger) = Ledger::keep(mem());
    let mut layers = Layers::new([full(), full()]);
    layers.scratch = scratch;
    let build = || Arc::new(layers.builder().metacopy(round % 2 == 1).build().unwrap());
    let fs = build();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let fs: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
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
    assert_eq!(fs.nodes(), 1, "everything was given back");
    let shared: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
    let seen = tree(&shared);
    drop((fs, shared));
    assert_eq!(tree(&(build() as _)), seen);
    ledger.check().unwrap();
}
