//! How many workers read requests at a time.
//!
//! All descriptors of a connection share one queue, and the kernel wakes any one reader for each
//! request. With more readers than work each request wakes the thread that slept longest, on a CPU
//! that has gone idle and with nothing of the filesystem in its caches; waking an idle CPU costs
//! more than the request. So a filesystem that answers promptly
//! ([`Behaviours::PROMPT`](stratafs_core::Behaviours::PROMPT)) is read for by one worker, and
//! another is called in when requests pile up. It rests again when it finds itself waiting. A
//! filesystem whose methods may wait is read for by all workers always, for each may be stuck in
//! one request.
//!
//! That a read returned at once does not say that requests pile up: where client and server share
//! a CPU, the client runs as soon as it has its reply, and its next request is there before the
//! server reads again. That is the fastest case of all, and a second reader would ruin it. So
//! after a row of such reads the queue itself is asked (one poll(2)) whether another request waits
//! beside the one just read.
//!
//! Measured and rejected (do-nothing filesystem, stat in a loop, 2 CPUs): following the client's
//! CPU by affinity never settles, for the reply wakes the client on the idle CPU; a busy poll
//! gains where the kernel's halt polling is off and takes a CPU away from the client everywhere.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A read that returns sooner found its request waiting. A sleeping thread is not woken in less;
/// a read that need not sleep takes a tenth.
const AT_ONCE: Duration = Duration::from_micros(5);
/// After so many requests found waiting in a row the queue is asked. Few enough that a burst of a
/// parallel build has help within its first directory, enough that asking costs nothing.
const PROBE_AFTER: u32 = 8;
/// So many more requests waited for than found waiting, and there is too little work for this
/// worker.
const REST_AFTER: u32 = 64;

/// What a worker does after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on.
    Serve,
    /// Ask whether yet another request waits; if so, have another worker read as well.
    Probe,
    /// Serve this request, then stop reading until called.
    Rest,
}

/// One worker's view of the queue. Knows no clock and no thread.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Requests found waiting in a row.
    at_once: u32,
    /// Requests waited for, less those found waiting.
    idle: u32,
}

impl Pace {
    /// A read returned a request after `wait`.
    pub(super) fn after_read(&mut self, wait: Duration) -> Step {
        if wait < AT_ONCE {
            self.idle = self.idle.saturating_sub(1);
            self.at_once += 1;
            if self.at_once < PROBE_AFTER {
                return Step::Serve;
            }
            self.at_once = 0;
            Step::Probe
        } else {
            self.at_once = 0;
            self.idle += 1;
            if self.idle < REST_AFTER {
                return Step::Serve;
            }
            self.idle = 0;
            Step::Rest
        }
    }
}

/// The workers that read, and those that rest.
#[derive(Debug)]
pub(super) struct Crew {
    state: Mutex<State>,
    called: Condvar,
    workers: usize,
    adaptive: bool,
}

#[derive(Debug)]
struct State {
    reading: usize,
    wanted: usize,
    closed: bool,
}

impl Crew {
    /// A crew of `workers`, all of which read always unless the filesystem is `prompt`.
    pub(super) fn new(workers: usize, prompt: bool) -> Self {
        let wanted = if prompt { 1 } else { workers };
        let state = Mutex::new(State { reading: 0, wanted, closed: false });
        let adaptive = prompt && workers > 1;
        Self { state, called: Condvar::new(), workers, adaptive }
    }

    /// Whether workers need to keep a [`Pace`].
    pub(super) fn is_adaptive(&self) -> bool {
        self.adaptive
    }

    /// Waits until one more reader is wanted; `false` at the end.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        while state.reading >= state.wanted && !state.closed {
            self.called.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        state.reading += 1;
        true
    }

    /// Has one more worker read, if one rests.
    pub(super) fn call(&self) {
        let mut state = self.state.lock();
        // Those called but not there yet count: a queue is not worth two wake-ups at once.
        if state.wanted == state.reading && state.wanted < self.workers {
            state.wanted += 1;
            self.called.notify_one();
        }
    }

    /// Stops reading, unless this is the last reader; answers whether it stopped.
    pub(super) fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if state.reading <= 1 {
            return false;
        }
        state.reading -= 1;
        state.wanted = state.reading;
        true
    }

    /// Ends the crew: nobody enters any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_nanos(500);
    const LATE: Duration = Duration::from_micros(50);

    fn steps(waits: impl IntoIterator<Item = Duration>) -> Vec<Step> {
        let mut pace = Pace::default();
        waits.into_iter().map(|wait| pace.after_read(wait)).collect()
    }

    #[test]
    fn pace_of_a_queue_probes_every_few_requests_and_never_rests() {
        let row = steps([SOON; 4 * PROBE_AFTER as usize]);
        assert_eq!(row.iter().filter(|step| **step == Step::Probe).count(), 4);
        assert_eq!(row[PROBE_AFTER as usize - 1], Step::Probe);
        assert!(!row.contains(&Step::Rest));
    }

    #[test]
    fn pace_of_a_client_on_another_cpu_never_probes_and_rests_in_time() {
        // Every request waited for, with a RELEASE behind the next OPEN now and then.
        let row = steps((0..1000).map(|i| if i % 3 == 2 { SOON } else { LATE }));
        assert!(!row.contains(&Step::Probe));
        let first = row.iter().position(|step| *step == Step::Rest).unwrap();
        assert!(first < 4 * REST_AFTER as usize, "{first}");
    }

    #[test]
    fn pace_with_nothing_to_do_rests_after_the_limit() {
        let row = steps([LATE; REST_AFTER as usize]);
        assert_eq!(row.last(), Some(&Step::Rest));
        assert!(row[..row.len() - 1].iter().all(|step| *step == Step::Serve));
    }

    #[test]
    fn rest_of_the_last_reader_is_refused() {
        let crew = Crew::new(4, true);
        assert!(crew.enter());
        assert!(!crew.rest());
        crew.call();
        assert!(crew.enter());
        assert!(crew.rest());
        assert!(!crew.rest());
    }

    #[test]
    fn call_before_the_called_came_calls_nobody_else() {
        let crew = Crew::new(4, true);
        assert!(crew.enter());
        crew.call();
        crew.call();
        assert_eq!(crew.state.lock().wanted, 2);
    }

    #[test]
    fn call_with_every_worker_reading_changes_nothing() {
        let crew = Crew::new(2, false);
        assert!(crew.enter() && crew.enter());
        crew.call();
        assert_eq!(crew.state.lock().wanted, 2);
        assert!(!crew.is_adaptive());
    }

    #[test]
    fn enter_waits_for_a_call_and_ends_with_close() {
        let crew = Arc::new(Crew::new(2, true));
        assert!(crew.enter());
        let (entered, was_entered) = mpsc::channel();
        let second = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                while crew.enter() {
                    entered.send(()).unwrap();
                    assert!(crew.rest());
                }
            })
        };
        crew.call();
        was_entered.recv_timeout(Duration::from_secs(60)).unwrap();
        crew.close();
        second.join().unwrap();
    }
}
