//! Whether a worker stays awake for the next request.
//!
//! A program that walks a tree sends its next request a few microseconds after the last reply. A
//! worker that sleeps in between costs the program its own sleep, the worker's and two wake-ups,
//! more than all else in a small request. So a worker that was not kept waiting asks again for a
//! while without sleeping, and gives its CPU to whoever else can run between two questions
//! (sched_yield(2)): the program that it just answered above all, whose next request then finds a
//! server on its own CPU that need not be woken.
//!
//! To yield is also to stand back behind a program that computes, for a time slice of milliseconds
//! in which a sleeper would have been woken. Nor is staying awake for nothing free. So a worker that
//! lingered in vain must meet more and more requests that came soon before it lingers again.
//!
//! Measured on 2 CPUs, a cold stat in a loop on a MemFs: 14 µs by sleeping, 10 by lingering; asking
//! without to yield, 19, for worker and program get into each other's way.

use std::thread;
use std::time::{Duration, Instant};

use super::device::{Device, NoRequest};

/// How long to stay awake: above what a woken program takes to send its next request, where the
/// CPU it slept on had halted.
const LINGER: Duration = Duration::from_micros(60);
/// A read that sleeps and returns sooner found its request waiting: a sleeping thread is not woken
/// in less, a read that need not sleep takes a tenth.
const AT_ONCE: Duration = Duration::from_micros(5);
/// A wait so short would have ended while lingering, save for the time to wake this worker.
const SOON: Duration = Duration::from_micros(120);
/// So many waits in a row must be short, at most, before lingering is tried again.
const MOST_RELUCTANT: u32 = 256;

/// What one worker has learned of the times between requests. Knows no clock.
#[derive(Debug)]
struct Habit {
    lingers: bool,
    /// Short waits wanted before it lingers again.
    reluctance: u32,
    /// Short waits met.
    short: u32,
}

impl Default for Habit {
    fn default() -> Self {
        Self { lingers: false, reluctance: 1, short: 0 }
    }
}

impl Habit {
    /// A request was slept for.
    fn slept(&mut self, wait: Duration) {
        self.short = if wait < SOON { self.short + 1 } else { 0 };
        self.lingers = self.short >= self.reluctance;
    }

    /// Lingering brought a request.
    fn was_worth_it(&mut self) {
        self.reluctance = self.reluctance.saturating_sub(1).max(1);
    }

    /// Lingering brought none.
    fn was_in_vain(&mut self) {
        self.lingers = false;
        self.short = 0;
        self.reluctance = self.reluctance.saturating_mul(2).min(MOST_RELUCTANT);
    }
}

/// Reads one worker's requests.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    device: &'a Device,
    habit: Habit,
    /// Whether the device answers a read at once, with or without a request.
    is_nonblocking: bool,
}

impl<'a> Reader<'a> {
    /// A reader that sleeps for its first request.
    pub(super) fn new(device: &'a Device) -> Self {
        Self { device, habit: Habit::default(), is_nonblocking: false }
    }

    /// Waits for a request; answers its length and whether it was there already.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), NoRequest> {
        if self.habit.lingers && self.set_nonblocking(true) {
            let mut begin = None;
            loop {
                // Before it asks: on this CPU the program can do nothing until it is let.
                thread::yield_now();
                let request = self.device.read(buffer);
                if !matches!(request, Err(NoRequest::Again)) {
                    self.habit.was_worth_it();
                    return request.map(|len| (len, begin.is_none()));
                }
                if begin.get_or_insert_with(Instant::now).elapsed() >= LINGER {
                    break;
                }
            }
            self.habit.was_in_vain();
        }
        if !self.set_nonblocking(false) {
            // Which no kernel does; but a loop without a pause would be worse than a slow one.
            thread::sleep(LINGER);
        }
        let begin = Instant::now();
        let len = self.device.read(buffer)?;
        let wait = begin.elapsed();
        self.habit.slept(wait);
        Ok((len, wait < AT_ONCE))
    }

    /// Has reads answer at once, or wait; whether it is so.
    fn set_nonblocking(&mut self, on: bool) -> bool {
        if self.is_nonblocking != on && self.device.set_nonblocking(on) {
            self.is_nonblocking = on;
        }
        self.is_nonblocking == on
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.set_nonblocking(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(1);
    const PROMPT: Duration = Duration::from_micros(10);

    #[test]
    fn habit_lingers_after_a_request_that_came_soon_and_not_after_a_late_one() {
        let mut habit = Habit::default();
        assert!(!habit.lingers);
        habit.slept(LATE);
        assert!(!habit.lingers);
        habit.slept(PROMPT);
        assert!(habit.lingers);
    }

    #[test]
    fn habit_of_lingering_in_vain_wants_more_and_more_short_waits_up_to_a_limit() {
        let mut habit = Habit::default();
        let mut wanted = Vec::new();
        for _ in 0..12 {
            let mut waits = 0;
            while !habit.lingers {
                habit.slept(PROMPT);
                waits += 1;
            }
            wanted.push(waits);
            habit.was_in_vain();
        }
        assert_eq!(wanted[..4], [1, 2, 4, 8]);
        assert_eq!(wanted.last(), Some(&MOST_RELUCTANT));
    }

    #[test]
    fn habit_forgives_with_every_request_that_lingering_brought() {
        let mut habit = Habit::default();
        for _ in 0..12 {
            habit.was_in_vain();
        }
        for _ in 0..MOST_RELUCTANT {
            habit.was_worth_it();
        }
        habit.slept(PROMPT);
        assert!(habit.lingers);
    }

    #[test]
    fn habit_counts_short_waits_in_a_row_only() {
        let mut habit = Habit::default();
        habit.was_in_vain();
        habit.slept(PROMPT);
        habit.slept(LATE);
        habit.slept(PROMPT);
        assert!(!habit.lingers);
        habit.slept(PROMPT);
        assert!(habit.lingers);
    }

    mod device {
        use super::*;
        use std::io::Write as _;
        use std::os::unix::net::UnixStream;

        #[test]
        fn read_while_lingering_brings_requests_and_sleeps_when_there_are_none() {
            let (ours, mut kernel) = UnixStream::pair().unwrap();
            let device = Device::new(ours.into());
            let mut reader = Reader::new(&device);
            let mut buffer = [0; 8];
            kernel.write_all(b"a").unwrap();
            assert!(matches!(reader.read(&mut buffer), Ok((1, _))));
            reader.habit.lingers = true;
            kernel.write_all(b"b").unwrap();
            assert!(matches!(reader.read(&mut buffer), Ok((1, true))));
            assert!(reader.is_nonblocking);
            let writer = thread::spawn(move || {
                thread::sleep(100 * LINGER);
                kernel.write_all(b"c").unwrap();
                kernel
            });
            // It lingers in vain, then waits for as long as it takes.
            assert!(matches!(reader.read(&mut buffer), Ok((1, false))));
            assert!(!reader.is_nonblocking);
            assert!(!reader.habit.lingers);
            writer.join().unwrap();
        }
    }
}
