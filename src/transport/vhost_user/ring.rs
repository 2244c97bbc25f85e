//! One virtqueue: taking requests off it, giving answers back, starting and stopping.
//!
//! Any thread may take and any may give back, so answers come in whatever order they are ready. The
//! lock is held for what the ring's few words need and never across a system call.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Address as _, GuestAddress, GuestMemory as _};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::chain::Table;
use super::memory::Mapped;

/// The largest ring: what VIRTIO allows (2.7).
pub(super) const MAX_SIZE: u16 = 32_768;
/// A request taken off a ring.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) head: u16,
    /// How many more were there.
    pub(super) waiting: u16,
    pub(super) table: Table,
    pub(super) memory: Arc<Mapped>,
    /// The life of the ring in which it was taken.
    pub(super) life: u64,
}

/// What the VMM set up, and where the ring stands.
struct State {
    queue: Queue,
    memory: Arc<Mapped>,
    kick: Option<File>,
    call: Option<Arc<File>>,
    has_addresses: bool,
    is_enabled: bool,
    /// Requests are taken.
    is_running: bool,
    /// Counts starts and stops: an answer from another life goes nowhere.
    life: u64,
    /// Requests taken in this life and not given back.
    under_way: usize,
    /// Whether a bogus index was logged in this life.
    is_suspect: bool,
}

/// A virtqueue.
pub(super) struct Ring {
    pub(super) index: usize,
    state: Mutex<State>,
    /// Told when nothing is under way.
    idle: Condvar,
    /// What its reader sleeps on: kicks, edge by edge, so that none has to be read.
    epoll: Epoll,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What a ring cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable;

impl Ring {
    pub(super) fn new(index: usize) -> std::io::Result<Self> {
        let queue = Queue::new(MAX_SIZE).map_err(std::io::Error::other)?;
        let state = State {
            queue,
            memory: Arc::default(),
            kick: None,
            call: None,
            has_addresses: false,
            is_enabled: false,
            is_running: false,
            life: 0,
            under_way: 0,
            is_suspect: false,
        };
        Ok(Self { index, state: Mutex::new(state), idle: Condvar::new(), epoll: Epoll::new()? })
    }

    /// Sleeps until there may be something to take.
    ///
    /// # Errors
    /// What epoll_wait(2) answers, interruptions apart.
    pub(super) fn wait(&self) -> std::io::Result<()> {
        let mut events = [EpollEvent::default(); 2];
        match self.epoll.wait(-1, &mut events) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Has `wait` return whenever `event` is signalled, too.
    pub(super) fn also_wait_for(&self, event: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 1);
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), edge)
    }

    pub(super) fn set_size(&self, size: u32) -> Result<(), Unusable> {
        let size = u16::try_from(size).map_err(|_| Unusable)?;
        let mut state = self.state.lock();
        if state.is_running {
            return Err(Unusable);
        }
        state.queue.try_set_size(size).map_err(|_| Unusable)
    }

    pub(super) fn set_addresses(
        &self,
        [descriptors, available, used]: [GuestAddress; 3],
    ) -> Result<(), Unusable> {
        let mut state = self.state.lock();
        let queue = &mut state.queue;
        queue.try_set_desc_table_address(descriptors).map_err(|_| Unusable)?;
        queue.try_set_avail_ring_address(available).map_err(|_| Unusable)?;
        queue.try_set_used_ring_address(used).map_err(|_| Unusable)?;
        state.has_addresses = true;
        state.start_if_complete()
    }

    pub(super) fn set_base(&self, base: u32) -> Result<(), Unusable> {
        let base = u16::try_from(base).map_err(|_| Unusable)?;
        let mut state = self.state.lock();
        if state.is_running {
            return Err(Unusable);
        }
        state.queue.set_next_avail(base);
        Ok(())
    }

    pub(super) fn set_memory(&self, memory: &Arc<Mapped>) {
        // The old one may be unmapped as it is dropped, which is no work for under a lock.
        let _old = std::mem::replace(&mut self.state.lock().memory, Arc::clone(memory));
    }

    pub(super) fn set_event_idx(&self, is_used: bool) {
        self.state.lock().queue.set_event_idx(is_used);
    }

    pub(super) fn set_call(&self, call: Option<File>) {
        let mut state = self.state.lock();
        let _old = std::mem::replace(&mut state.call, call.map(Arc::new));
        drop(state);
        // What was given back meanwhile must not wait for the next answer.
        self.signal();
    }

    /// Takes kicks from `kick` from now on, and begins where all else is set up.
    pub(super) fn set_kick(&self, kick: Option<File>) -> Result<(), Unusable> {
        let old = self.state.lock().kick.take();
        if let Some(old) = old {
            // Before it is closed: the VMM has it too, so that it would go on waking.
            let none = EpollEvent::default();
            let _ = self.epoll.ctl(ControlOperation::Delete, old.as_raw_fd(), none);
        }
        let Some(kick) = kick else { return Ok(()) };
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        self.epoll.ctl(ControlOperation::Add, kick.as_raw_fd(), edge).map_err(|_| Unusable)?;
        let mut state = self.state.lock();
        state.kick = Some(kick);
        state.start_if_complete()
    }

    pub(super) fn set_enabled(&self, is_enabled: bool) {
        self.state.lock().is_enabled = is_enabled;
    }

    /// Stops taking requests, waits at most `grace` for those that are under way, and says which
    /// would be the next to take. Kicks and answers have nowhere to go afterwards.
    pub(super) fn stop(&self, grace: Duration) -> u16 {
        let deadline = Instant::now().checked_add(grace);
        let mut state = self.state.lock();
        state.is_running = false;
        while state.under_way > 0 {
            let timed_out = match deadline {
                Some(deadline) => self.idle.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.idle.wait(&mut state);
                    false
                }
            };
            if timed_out && state.under_way > 0 {
                log::error!(
                    "queue {}: {} requests are stuck in the filesystem; it stops without them",
                    self.index,
                    state.under_way
                );
                break;
            }
        }
        state.life = state.life.wrapping_add(1);
        state.under_way = 0;
        state.is_suspect = false;
        // The last answers, before there is nobody to tell.
        let bell = state.call_if_wanted();
        let (kick, call) = (state.kick.take(), state.call.take());
        state.queue.set_ready(false);
        let next = state.queue.next_avail();
        drop(state);
        ring_bell(bell);
        if let Some(kick) = kick {
            let none = EpollEvent::default();
            let _ = self.epoll.ctl(ControlOperation::Delete, kick.as_raw_fd(), none);
        }
        drop(call);
        next
    }

    /// Takes the next request; `None` where there is none, and kicks are asked for.
    pub(super) fn take(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        if !state.is_running || !state.is_enabled {
            return None;
        }
        let memory = Arc::clone(&state.memory);
        // Without EVENT_IDX a flag keeps the guest from kicking while it is looked after anyway.
        let _ = state.queue.disable_notification(&*memory);
        loop {
            if let Some((head, waiting)) = state.pop(&memory, self.index)? {
                state.under_way = state.under_way.saturating_add(1);
                let table = Table {
                    address: GuestAddress(state.queue.desc_table()),
                    size: state.queue.size(),
                };
                let life = state.life;
                return Some(Taken { head, waiting, table, memory, life });
            }
            // `true`: something came before kicks were asked for.
            if !state.queue.enable_notification(&*memory).unwrap_or(false) {
                return None;
            }
        }
    }

    /// Gives a request back with `written` bytes of answer; whether the guest will hear of it.
    pub(super) fn give_back(&self, life: u64, head: u16, written: u32) -> bool {
        let mut state = self.state.lock();
        if state.life != life {
            return false;
        }
        let State { queue, memory, .. } = &mut *state;
        let is_given = queue.add_used(&**memory, head, written).is_ok();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 && !state.is_running {
            self.idle.notify_all();
        }
        is_given
    }

    /// Tells the guest of what was given back, where it wants to be told.
    pub(super) fn signal(&self) {
        let call = self.state.lock().call_if_wanted();
        ring_bell(call);
    }
}

fn ring_bell(call: Option<Arc<File>>) {
    if let Some(call) = call {
        // It fails where the VMM is gone, which its connection tells.
        let _ = (&*call).write(&1u64.to_ne_bytes());
    }
}

impl State {
    /// By what to tell the guest of what was given back, if it is to be told.
    fn call_if_wanted(&mut self) -> Option<Arc<File>> {
        let call = self.call.as_ref()?;
        if !self.queue.ready() {
            return None;
        }
        let is_wanted = self.queue.needs_notification(&*self.memory).unwrap_or(false);
        is_wanted.then(|| Arc::clone(call))
    }

    /// Begins once addresses and kicks are known, in whatever order they come.
    fn start_if_complete(&mut self) -> Result<(), Unusable> {
        if self.is_running || !self.has_addresses || self.kick.is_none() {
            return Ok(());
        }
        let size = usize::from(self.queue.size());
        // VIRTIO 1.2, 2.7: 16 bytes a descriptor, 2 an available one, 8 a used one, and 6.
        for (address, len) in [
            (self.queue.desc_table(), 16 * size),
            (self.queue.avail_ring(), 2 * size + 6),
            (self.queue.used_ring(), 8 * size + 6),
        ] {
            let address = GuestAddress(address);
            let is_there =
                address.checked_add(len as u64).is_some() && self.memory.check_range(address, len);
            if !is_there {
                return Err(Unusable);
            }
        }
        let used = self.queue.used_idx(&*self.memory, Ordering::Relaxed);
        self.queue.set_next_used(used.map_err(|_| Unusable)?.0);
        self.queue.set_ready(true);
        self.is_running = true;
        Ok(())
    }

    /// The next head, if there is one, and how many follow it; `None` where the ring makes no sense
    /// at the moment.
    fn pop(&mut self, memory: &Mapped, index: usize) -> Option<Option<(u16, u16)>> {
        let size = self.queue.size();
        let available = self.queue.avail_idx(memory, Ordering::Acquire);
        let Ok(chains) = self.queue.iter(memory) else {
            // More than the ring holds. A guest that mends its index is served on.
            if !std::mem::replace(&mut self.is_suspect, true) {
                log::warn!("queue {index}: the guest offers more requests than the ring holds");
            }
            return None;
        };
        let is_suspect = &mut self.is_suspect;
        let head = chains.map(|chain| chain.head_index()).find(|head| {
            // There is no place to give any other back to.
            let is_one = *head < size;
            if !is_one && !std::mem::replace(is_suspect, true) {
                log::warn!("queue {index}: the guest offers a descriptor that there is none of");
            }
            is_one
        });
        let next = self.queue.next_avail();
        let waiting = available.map_or(0, |available| available.0.wrapping_sub(next));
        Some(head.map(|head| (head, waiting)))
    }
}
