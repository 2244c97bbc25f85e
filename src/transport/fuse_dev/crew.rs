//! How many workers read requests at a time.
//!
//! All descriptors of a connection share one queue, and the kernel wakes any one reader for each
//! request. With more readers than work each request wakes the thread that slept longest, on a CPU
//! that has gone idle and with nothing of the filesystem in its caches; waking an idle CPU costs
//! more than the request. So one worker reads, another is called in when requests pile up, and
//! rests again when it finds itself waiting.
//!
//! That a read returned at once does not say that requests pile up: where client and server share
//! a CPU, the client runs as soon as it has its reply, and its next request is there before the
//! server reads again. That is the fastest case of all, and a second reader would ruin it. So
//! after a row of such reads the queue itself is asked (one poll(2)) whether another request waits
//! beside the one just read.
//!
//! A reader stuck in a request (a disk, a network below) cannot ask. Where a filesystem does not
//! promise to answer promptly ([`Behaviours::PROMPT`](stratafs_core::Behaviours::PROMPT)), one of
//! those that rest watches: when every reader is in the request that it was in a tick ago, the next
//! is called in. It dozes while there are no requests, and the first one wakes it.
//!
//! Measured and rejected (do-nothing filesystem, stat in a loop, 2 CPUs): following the client's
//! CPU by affinity never settles, for the reply wakes the client on the idle CPU. The same of real
//! ones: sending a worker to rest because another waits beside it saves a tenth of a cold stat (MemFs)
//! and costs a third of an open, a read and a close (PassthroughFs), whose RELEASE and next OPEN two
//! workers serve at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// After so many requests found waiting in a row the queue is asked. Few enough that a burst of a
/// parallel build has help within its first directory, enough that asking costs nothing.
const PROBE_AFTER: u32 = 8;
/// So many more requests waited for than found waiting, and there is too little work for this
/// worker.
const REST_AFTER: u32 = 64;
/// Between two looks at whether every reader is stuck: what a request behind a stuck one waits
/// for, at most twice.
const TICK: Duration = Duration::from_millis(1);
/// After so many looks without a request there is no more looking until one comes.
const DOZE_AFTER: u32 = 16;

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
    /// A request was read, which `was_waiting` or was waited for.
    pub(super) fn after_read(&mut self, was_waiting: bool) -> Step {
        if was_waiting {
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
    /// For those that rest.
    called: Condvar,
    /// For the one of them that watches.
    watch: Condvar,
    workers: usize,
    /// Whether a reader may be stuck in a request, so that one of those that rest must watch.
    may_stick: bool,
    /// Workers waiting for a request.
    listening: AtomicUsize,
    /// Requests read so far.
    taken: AtomicU64,
    /// The watch sleeps until a request is taken.
    dozes: AtomicBool,
}

#[derive(Debug)]
struct State {
    reading: usize,
    wanted: usize,
    is_watched: bool,
    closed: bool,
}

impl Crew {
    /// A crew of `workers`; a filesystem that is `prompt` has them watched by nobody.
    pub(super) fn new(workers: usize, prompt: bool) -> Self {
        let state = State { reading: 0, wanted: 1, is_watched: false, closed: false };
        Self {
            state: Mutex::new(state),
            called: Condvar::new(),
            watch: Condvar::new(),
            workers,
            may_stick: !prompt,
            listening: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            dozes: AtomicBool::new(false),
        }
    }

    /// Waits until one more reader is wanted; `false` at the end.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return false;
            }
            if state.reading < state.wanted {
                state.reading += 1;
                return true;
            }
            if !self.may_stick || state.is_watched {
                self.called.wait(&mut state);
                continue;
            }
            state.is_watched = true;
            self.watch(&mut state);
            state.is_watched = false;
            // The watch goes to another, for this one is about to read.
            self.called.notify_one();
        }
    }

    /// Watches the readers until one more is wanted, or the end.
    fn watch(&self, state: &mut MutexGuard<'_, State>) {
        let mut seen = self.taken.load(Ordering::SeqCst);
        let mut quiet = 0;
        while state.reading >= state.wanted && !state.closed {
            if quiet < DOZE_AFTER {
                self.watch.wait_for(state, TICK);
            } else {
                self.dozes.store(true, Ordering::SeqCst);
                // Whoever takes a request from here on sees that the watch dozes; whoever took one
                // before is seen here.
                if self.taken.load(Ordering::SeqCst) == seen {
                    self.watch.wait(state);
                }
                self.dozes.store(false, Ordering::SeqCst);
                quiet = 0;
            }
            let taken = self.taken.load(Ordering::SeqCst);
            if taken != seen {
                seen = taken;
                quiet = 0;
            } else if self.listening.load(Ordering::SeqCst) == 0 {
                self.want_another(state);
            } else {
                quiet += 1;
            }
        }
    }

    /// A worker goes to wait for a request.
    pub(super) fn listen(&self) {
        self.listening.fetch_add(1, Ordering::SeqCst);
    }

    /// It waits no longer; whether it `took` a request.
    pub(super) fn heard(&self, took: bool) {
        if took {
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
        self.listening.fetch_sub(1, Ordering::SeqCst);
        if took && self.dozes.load(Ordering::SeqCst) {
            // With the lock: the watch has it from its last look until it sleeps.
            let _state = self.state.lock();
            self.watch.notify_one();
        }
    }

    /// Has one more worker read, if one rests.
    pub(super) fn call(&self) {
        if self.want_another(&mut self.state.lock()) && !self.called.notify_one() {
            self.watch.notify_one();
        }
    }

    /// Those called but not there yet count: a queue is not worth two wake-ups at once.
    fn want_another(&self, state: &mut State) -> bool {
        let can = state.wanted == state.reading && state.wanted < self.workers;
        state.wanted += usize::from(can);
        can
    }

    /// Stops reading, unless nobody else listens; answers whether it stopped.
    pub(super) fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if state.reading <= 1 || self.listening.load(Ordering::SeqCst) == 0 {
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
        self.watch.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn steps(reads: impl IntoIterator<Item = bool>) -> Vec<Step> {
        let mut pace = Pace::default();
        reads.into_iter().map(|was_waiting| pace.after_read(was_waiting)).collect()
    }

    #[test]
    fn pace_of_a_queue_probes_every_few_requests_and_never_rests() {
        let row = steps([true; 4 * PROBE_AFTER as usize]);
        assert_eq!(row.iter().filter(|step| **step == Step::Probe).count(), 4);
        assert_eq!(row[PROBE_AFTER as usize - 1], Step::Probe);
        assert!(!row.contains(&Step::Rest));
    }

    #[test]
    fn pace_of_a_client_on_another_cpu_never_probes_and_rests_in_time() {
        // Every request waited for, with a RELEASE behind the next OPEN now and then.
        let row = steps((0..1000).map(|i| i % 3 == 2));
        assert!(!row.contains(&Step::Probe));
        let first = row.iter().position(|step| *step == Step::Rest).unwrap();
        assert!(first < 4 * REST_AFTER as usize, "{first}");
    }

    #[test]
    fn pace_with_nothing_to_do_rests_after_the_limit() {
        let row = steps([false; REST_AFTER as usize]);
        assert_eq!(row.last(), Some(&Step::Rest));
        assert!(row[..row.len() - 1].iter().all(|step| *step == Step::Serve));
    }

    #[test]
    fn rest_of_the_last_that_listens_is_refused() {
        let crew = Crew::new(4, true);
        assert!(crew.enter());
        assert!(!crew.rest());
        crew.call();
        assert!(crew.enter());
        // The other is in a request.
        assert!(!crew.rest());
        crew.listen();
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
        assert!(crew.enter());
        crew.call();
        assert!(crew.enter());
        crew.call();
        assert_eq!(crew.state.lock().wanted, 2);
    }

    /// A worker that tells of each time it is called in, until the crew is closed.
    fn reserve(crew: &Arc<Crew>) -> (thread::JoinHandle<()>, mpsc::Receiver<()>) {
        let (entered, was_entered) = mpsc::channel();
        let crew = Arc::clone(crew);
        let thread = thread::spawn(move || {
            while crew.enter() {
                entered.send(()).unwrap();
                crew.listen();
                while !crew.rest() && !crew.state.lock().closed {
                    thread::yield_now();
                }
                crew.heard(false);
            }
        });
        (thread, was_entered)
    }

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn enter_waits_for_a_call_and_ends_with_close() {
        for prompt in [true, false] {
            let crew = Arc::new(Crew::new(2, prompt));
            assert!(crew.enter());
            crew.listen();
            let (thread, called) = reserve(&crew);
            crew.call();
            called.recv_timeout(SOON).unwrap();
            crew.close();
            thread.join().unwrap();
        }
    }

    #[test]
    fn watch_over_a_stuck_reader_calls_another_in_whenever_that_is() {
        let crew = Arc::new(Crew::new(2, false));
        assert!(crew.enter());
        crew.listen();
        let (thread, called) = reserve(&crew);
        for pause in [0, 1, 2 * u64::from(DOZE_AFTER)] {
            // The watch may be ticking by now, or doze.
            thread::sleep(Duration::from_millis(pause));
            assert!(called.try_recv().is_err(), "nothing is stuck");
            crew.heard(true);
            called.recv_timeout(SOON).unwrap();
            crew.listen();
            while crew.state.lock().reading > 1 {
                thread::yield_now();
            }
        }
        crew.close();
        thread.join().unwrap();
    }

    #[test]
    fn watch_of_a_prompt_filesystem_is_kept_by_nobody() {
        let crew = Arc::new(Crew::new(2, true));
        assert!(crew.enter());
        let (thread, called) = reserve(&crew);
        assert!(called.recv_timeout(50 * TICK).is_err());
        crew.close();
        thread.join().unwrap();
    }

    #[test]
    fn watch_goes_to_another_when_the_one_that_kept_it_reads() {
        let crew = Arc::new(Crew::new(3, false));
        assert!(crew.enter());
        let (entered, was_entered) = mpsc::channel();
        let stuck: Vec<_> = (0..2)
            .map(|_| {
                let (crew, entered) = (Arc::clone(&crew), entered.clone());
                thread::spawn(move || {
                    if crew.enter() {
                        // Stuck at once, and for good.
                        entered.send(()).unwrap();
                    }
                })
            })
            .collect();
        was_entered.recv_timeout(SOON).unwrap();
        was_entered.recv_timeout(SOON).unwrap();
        crew.close();
        stuck.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
