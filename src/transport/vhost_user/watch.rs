//! What waits behind a reader that is stuck in a request.
//!
//! A reader serves most requests itself, for handing one over costs more than it takes. Which will
//! take long nobody knows before. So each reader has a pulse, a counter that says whether it serves
//! and that it goes on, and one thread looks at all of them every few milliseconds while there is
//! something to see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::ring::Ring;

/// How long a reader may take over one request before what is behind it is served by others: within
/// one and two of these. Long against what a request takes from memory, short against a disk.
const PERIOD: Duration = Duration::from_millis(2);
/// After so many looks without anything to see the watch sleeps until a reader wakes it.
const IDLE_LOOKS: u32 = 50;

/// The pulse of one reader: odd while it serves a request, and another number for each.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    /// The request was served.
    pub(super) fn end(&self) {
        // Even again, if the watch was told that it began.
        let beat = self.0.load(Ordering::Relaxed);
        self.0.store(beat.wrapping_add(beat & 1), Ordering::Release);
    }
}

/// A reader that is watched.
#[derive(Debug)]
struct Watched {
    ring: Weak<Ring>,
    pulse: Weak<Pulse>,
    last: u64,
}

/// The watch over the readers of one server.
#[derive(Debug, Default)]
pub(super) struct Watch {
    readers: Mutex<Vec<Watched>>,
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Watch {
    /// Watches the reader of `ring`, as long as it keeps its pulse.
    pub(super) fn add(&self, ring: &Arc<Ring>, pulse: &Arc<Pulse>) {
        let (ring, pulse) = (Arc::downgrade(ring), Arc::downgrade(pulse));
        let mut readers = self.readers.lock();
        readers.retain(|reader| reader.pulse.strong_count() > 0);
        readers.push(Watched { ring, pulse, last: 0 });
    }

    /// A reader begins to serve a request.
    pub(super) fn begin(&self, pulse: &Pulse) {
        // Before the look at whether the watch sleeps, which looks in the other order.
        pulse.0.fetch_add(1, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst) {
            self.rouse();
        }
    }

    fn rouse(&self) {
        let _sleep = self.sleep.lock();
        self.is_asleep.store(false, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Ends [`Watch::run`].
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.rouse();
    }

    /// Calls `stuck` with the ring of each reader that is stuck, again and again as long as it is.
    pub(super) fn run(&self, stuck: impl Fn(&Arc<Ring>)) {
        let mut idle = 0;
        while !self.is_closed.load(Ordering::SeqCst) {
            let (moves, rings) = self.look();
            rings.iter().for_each(&stuck);
            idle = if moves || !rings.is_empty() { 0 } else { idle + 1 };
            let mut sleep = self.sleep.lock();
            if idle >= IDLE_LOOKS {
                idle = 0;
                self.is_asleep.store(true, Ordering::SeqCst);
                // A reader may have begun before it could see that.
                if !self.serves() {
                    self.doze(&mut sleep);
                }
                self.is_asleep.store(false, Ordering::SeqCst);
            } else if !self.is_closed.load(Ordering::SeqCst) {
                self.wake.wait_for(&mut sleep, PERIOD);
            }
        }
    }

    fn doze(&self, sleep: &mut parking_lot::MutexGuard<'_, ()>) {
        while self.is_asleep.load(Ordering::SeqCst) && !self.is_closed.load(Ordering::SeqCst) {
            self.wake.wait(sleep);
        }
    }

    /// Whether any reader serves a request.
    fn serves(&self) -> bool {
        let beat = |reader: &Watched| {
            reader.pulse.upgrade().map_or(0, |pulse| pulse.0.load(Ordering::SeqCst))
        };
        self.readers.lock().iter().any(|reader| beat(reader) & 1 == 1)
    }

    /// Whether any reader went on since the last look, and the rings of those that are stuck.
    fn look(&self) -> (bool, Vec<Arc<Ring>>) {
        let mut moves = false;
        let mut stuck = Vec::new();
        for reader in self.readers.lock().iter_mut() {
            let Some(pulse) = reader.pulse.upgrade() else { continue };
            let beat = pulse.0.load(Ordering::Acquire);
            if beat != reader.last {
                moves = true;
            } else if beat & 1 == 1 {
                stuck.extend(reader.ring.upgrade());
            }
            reader.last = beat;
        }
        (moves, stuck)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn look_finds_a_reader_that_serves_one_request_and_no_other() {
        let watch = Watch::default();
        let rings = [0, 1, 2].map(|index| Arc::new(Ring::new(index).unwrap()));
        let pulses = [0, 1, 2].map(|_| Arc::<Pulse>::default());
        for (ring, pulse) in rings.iter().zip(&pulses) {
            watch.add(ring, pulse);
        }
        watch.begin(&pulses[0]);
        watch.begin(&pulses[1]);
        assert!(watch.look().1.is_empty());
        pulses[1].end();
        watch.begin(&pulses[1]);
        let (moves, stuck) = watch.look();
        assert!(moves);
        assert_eq!(stuck.iter().map(|ring| ring.index).collect::<Vec<_>>(), [0]);
        pulses[0].end();
        pulses[1].end();
        watch.look();
        let (moves, stuck) = watch.look();
        assert!(!moves && stuck.is_empty());
    }

    #[test]
    fn run_that_fell_asleep_sees_who_is_stuck_later() {
        let watch = Watch::default();
        let (ring, pulse) = (Arc::new(Ring::new(7).unwrap()), Arc::<Pulse>::default());
        watch.add(&ring, &pulse);
        let (found, finds) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| watch.run(|ring| found.send(ring.index).unwrap()));
            while !watch.is_asleep.load(Ordering::SeqCst) {
                thread::sleep(PERIOD);
            }
            watch.begin(&pulse);
            assert_eq!(finds.recv_timeout(Duration::from_secs(60)), Ok(7));
            watch.close();
        });
    }
}
