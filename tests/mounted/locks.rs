//! Waits for locks: they hold no worker and can be called off.

use std::fs::{self, File};
use std::thread::{self, JoinHandle};

use stratafs_core::Errno;
use stratafs_sys::interrupt::Interrupt;

use crate::probe::Probe;
use crate::stage::{Stage, join, wait_until};

const WAITERS: usize = 64;

/// Starts a thread that takes the lock and answers how that went.
fn waiter(stage: &Stage, interrupt: Interrupt) -> JoinHandle<Result<(), Errno>> {
    let file = File::open(stage.path("file")).unwrap();
    thread::spawn(move || {
        interrupt.accept().unwrap();
        file.lock().map_err(Errno::from)
    })
}

/// Interrupts a thread until it ends.
fn interrupt_until_it_ends(
    interrupt: Interrupt,
    waiter: JoinHandle<Result<(), Errno>>,
) -> Result<(), Errno> {
    wait_until("the interrupted thread ends", || {
        interrupt.send(&waiter);
        waiter.is_finished()
    });
    join(waiter)
}

#[test]
fn sixty_four_waiters_on_two_workers_leave_a_stat_answered_and_end_by_interrupt() {
    let probe = Probe::new();
    let Some(stage) = Stage::with(probe.clone(), "", 2) else { return };
    let interrupt = Interrupt::install().unwrap();
    let holder = File::open(stage.path("file")).unwrap();
    holder.lock().unwrap();
    let waiters: Vec<_> = (0..WAITERS).map(|_| waiter(&stage, interrupt)).collect();
    wait_until("all of them wait", || probe.waiting() == WAITERS);

    for name in ["a", "b", "c"] {
        fs::metadata(stage.path(name)).unwrap();
    }

    for (ended, waiter) in waiters.into_iter().enumerate() {
        assert_eq!(probe.waiting(), WAITERS - ended);
        assert_eq!(interrupt_until_it_ends(interrupt, waiter), Err(Errno::EINTR));
    }
    assert_eq!(probe.waiting(), 0);
    holder.unlock().unwrap();
    File::open(stage.path("file")).unwrap().lock().unwrap();
}

#[test]
fn unlock_lets_each_waiter_have_its_turn() {
    let probe = Probe::new();
    let Some(stage) = Stage::with(probe.clone(), "", 1) else { return };
    let interrupt = Interrupt::install().unwrap();
    let holder = File::open(stage.path("file")).unwrap();
    holder.lock().unwrap();
    let waiters: Vec<_> = (0..8).map(|_| waiter(&stage, interrupt)).collect();
    wait_until("all of them wait", || probe.waiting() == 8);
    // Closing gives the lock up as well; so does the end of each waiter.
    drop(holder);
    for waiter in waiters {
        assert_eq!(join(waiter), Ok(()));
    }
    assert_eq!(probe.waiting(), 0);
}

#[test]
fn try_lock_of_a_lock_that_is_held_says_so_at_once() {
    let Some(stage) = Stage::new(Probe::new()) else { return };
    let (holder, other) =
        (File::open(stage.path("file")).unwrap(), File::open(stage.path("file")).unwrap());
    holder.lock().unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    holder.unlock().unwrap();
    other.try_lock().unwrap();
}

#[test]
fn unmount_with_waiters_ends_their_waits() {
    let probe = Probe::new();
    let Some(stage) = Stage::with(probe.clone(), "", 2) else { return };
    let interrupt = Interrupt::install().unwrap();
    let holder = File::open(stage.path("file")).unwrap();
    holder.lock().unwrap();
    let waiters: Vec<_> = (0..4).map(|_| waiter(&stage, interrupt)).collect();
    wait_until("all of them wait", || probe.waiting() == 4);
    stage.server.unmount().unwrap();
    for waiter in waiters {
        assert!(join(waiter).is_err());
    }
    // The waits are called off in the filesystem as well, so none leaks.
    assert_eq!(probe.waiting(), 0);
}
