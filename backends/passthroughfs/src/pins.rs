//! The budget of descriptors that nodes are pinned by.
//!
//! A pin is an O_PATH descriptor (or, of a file that was open when its last name went, the file
//! itself). Within the budget every node that was used stays pinned. Beyond it the clock's hand goes
//! round over the pinned nodes: one that was used since it last passed is spared once, the others
//! give up their descriptors and are found again by their names when they are needed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use stratafs_core::NodeId;

use crate::node::{DataFile, Node, Place};
use crate::table::Table;

/// The pinned nodes. Its lock is a leaf, never held together with another.
pub(crate) struct Pins {
    budget: usize,
    held: AtomicUsize,
    /// Nodes in the order of the clock's hand; it may name some that are no longer pinned.
    clock: Mutex<VecDeque<NodeId>>,
}

/// How many nodes one eviction looks at beyond those that it takes, so that a table of nodes that
/// must all stay pinned does not make every operation walk all of it.
const PATIENCE: usize = 256;

/// How many nodes that were used lately one eviction spares before it takes any.
const MERCY: usize = 64;

impl Pins {
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, held: AtomicUsize::new(0), clock: Mutex::default() }
    }

    /// How many descriptors are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Keeps `fd` as the pin of `node`, if there is room or room can be made, and says whether the
    /// node is pinned now, or in no need of it any more.
    pub(crate) fn keep(&self, table: &Table, node: &Arc<Node>, fd: &Arc<OwnedFd>) -> bool {
        if !self.make_room(table) {
            return node.state.lock().pin.is_some();
        }
        {
            let mut state = node.state.lock();
            if state.dead || state.pin.is_some() {
                return true;
            }
            state.pin = Some(Arc::clone(fd));
        }
        self.enlist(table, node);
        true
    }

    /// Keeps `file` for reads and writes without a handle, if there is room.
    pub(crate) fn keep_data(&self, table: &Table, node: &Arc<Node>, file: &DataFile) {
        if !self.make_room(table) {
            return;
        }
        let replaced = {
            let mut state = node.state.lock();
            if state.dead {
                return;
            }
            state.data.replace(file.clone())
        };
        if replaced.is_none() {
            self.enlist(table, node);
        }
    }

    fn enlist(&self, table: &Table, node: &Arc<Node>) {
        node.touched.store(true, Ordering::Relaxed);
        let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
        let crowded = {
            let mut clock = self.clock.lock();
            clock.push_back(node.id);
            clock.len() > 4 * held.max(64)
        };
        if crowded {
            self.sweep(table);
        }
    }

    /// Takes out of the clock what is no longer pinned: where the hand never has to go round,
    /// forgotten nodes would stay in it.
    fn sweep(&self, table: &Table) {
        let all = std::mem::take(&mut *self.clock.lock());
        let pinned = |id: &NodeId| {
            table.get(*id).is_some_and(|node| {
                let state = node.state.lock();
                state.pin.is_some() || state.data.is_some()
            })
        };
        let kept: VecDeque<_> = all.into_iter().filter(pinned).collect();
        let mut clock = self.clock.lock();
        // What came in between is younger.
        let younger = std::mem::replace(&mut *clock, kept);
        clock.extend(younger);
        clock.shrink_to_fit();
    }

    fn make_room(&self, table: &Table) -> bool {
        let held = self.held();
        held < self.budget || self.evict(table, held + 1 - self.budget) > 0
    }

    /// Closes up to `wanted` descriptors of nodes that can be found again, and says how many.
    pub(crate) fn evict(&self, table: &Table, wanted: usize) -> usize {
        let mut closed = 0;
        let mut spared = 0;
        let mut steps = wanted.saturating_mul(2).saturating_add(PATIENCE);
        while closed < wanted && steps > 0 {
            steps -= 1;
            let Some(id) = self.clock.lock().pop_front() else { break };
            let Some(node) = table.get(id) else { continue };
            if node.touched.swap(false, Ordering::Relaxed) && spared < MERCY {
                spared += 1;
                self.clock.lock().push_back(id);
                continue;
            }
            let (pin, data, kept) = {
                let mut state = node.state.lock();
                let stays = state.busy > 0 || state.places.is_empty();
                let pin = if stays { None } else { state.pin.take() };
                (pin, state.data.take(), state.pin.is_some())
            };
            let freed = usize::from(pin.is_some()) + usize::from(data.is_some());
            self.held.fetch_sub(freed, Ordering::Relaxed);
            closed += freed;
            if kept {
                self.clock.lock().push_back(id);
            }
        }
        closed
    }

    /// Takes from a node that left the table all that it held.
    pub(crate) fn bury(&self, node: &Node) -> Vec<Place> {
        let (pin, data, places) = {
            let mut state = node.state.lock();
            state.dead = true;
            (state.pin.take(), state.data.take(), std::mem::take(&mut state.places))
        };
        let freed = usize::from(pin.is_some()) + usize::from(data.is_some());
        self.held.fetch_sub(freed, Ordering::Relaxed);
        places
    }
}
