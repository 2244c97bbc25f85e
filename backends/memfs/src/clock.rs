//! Where the filesystem's time comes from.

use std::fmt;
use std::time::SystemTime;

use parking_lot::Mutex;
use stratafs_core::Timestamp;

/// A source of the present: what the times of new and changed objects are taken from.
///
/// It is asked with no lock held, from any thread.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that stands still until it is told to move, for tests and for runs that are to be
/// repeated.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Makes it show `now`.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock() = now;
    }

    /// Moves it on by `secs` seconds.
    pub fn advance(&self, secs: i64) {
        let mut now = self.0.lock();
        now.sec = now.sec.saturating_add(secs);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}
