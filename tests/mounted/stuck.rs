//! Requests that wait for a disk, and those behind them.

use std::fs::{self, File};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use stratafs_core::{Behaviours, Context, Features, Intercept, Intercepted, Needs, Op, Result};
use stratafs_memfs::MemFs;

use crate::stage::{DEADLINE, Stage, join, wait_until};

/// A disk: every fsync waits until it is let go.
#[derive(Default)]
struct Disk {
    state: Mutex<(usize, bool)>,
    ready: Condvar,
}

impl Intercept for Disk {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if let Op::Fsync { .. } = op {
            let mut state = self.state.lock();
            state.0 += 1;
            // Not for ever: a test that fails must end.
            self.ready.wait_while_for(&mut state, |(_, is_ready)| !*is_ready, DEADLINE);
        }
        Ok(())
    }

    fn features(&self, mut inner: Features) -> Features {
        inner.behaviours.remove(Behaviours::PROMPT);
        inner.needs |= Needs::FSYNC;
        inner
    }
}

#[test]
fn stat_behind_requests_that_are_stuck_in_all_other_threads_is_answered() {
    let mem = Arc::new(MemFs::builder().build().unwrap());
    let disk = Arc::new(Intercepted::new(mem, Disk::default()));
    let Some(stage) = Stage::with(disk.clone(), "", 4) else { return };
    let disk = disk.intercept();
    fs::write(stage.path("seen"), b"x").unwrap();
    let stuck: Vec<_> = (0..3)
        .map(|index| {
            let file = File::create(stage.path(&index.to_string())).unwrap();
            thread::spawn(move || file.sync_all())
        })
        .collect();
    wait_until("three are stuck", || disk.state.lock().0 == 3);
    // New names each, which only the server knows.
    for index in 0..200 {
        assert!(fs::metadata(stage.path(&format!("absent{index}"))).is_err());
    }
    assert!(stuck.iter().all(|thread| !thread.is_finished()));
    disk.state.lock().1 = true;
    disk.ready.notify_all();
    stuck.into_iter().for_each(|thread| join(thread).unwrap());
}
