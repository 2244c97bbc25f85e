//! Telling the kernel what changed behind its back.
//!
//! The kernel takes a directory's lock to act on a notice of an entry. If that directory is just
//! being changed by a client, it holds the lock and waits for its reply; a worker that wrote the
//! notice from inside the handler would wait for the client it is to answer. So notices are only
//! queued, and a thread that serves no requests writes them.
//!
//! The kernel's wait for the lock cannot be interrupted, not even by SIGKILL. A server that is
//! killed while a notice waits so, and the lock's holder for a reply, does not die until its
//! connection is aborted (`umount -f`, or `abort` of the control filesystem): the thread keeps the
//! descriptors open whose closing would end the holder's wait. A table of descriptors of its own
//! was tried and is worse: making it closes copies of files, and closing a file of a mount that
//! the process serves itself asks the server.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use stratafs_core::{Errno, Name, NameBuf, NodeId, Notifier, SessionId};
use stratafs_sys::fuse;

use super::device::Device;
use crate::protocol::notice::Notice;

/// How many notices wait at most. Beyond, one notice that drops every entry takes the place of
/// all: by then the kernel's cache is mostly wrong anyway.
pub(super) const CAPACITY: usize = 4096;

/// A notice that waits, with a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Waiting {
    Inode { node: NodeId, offset: i64, len: i64 },
    Entry { parent: NodeId, name: NameBuf },
    Delete { parent: NodeId, child: NodeId, name: NameBuf },
    AllEntries,
}

impl Waiting {
    fn notice(&self) -> Notice<'_> {
        match self {
            Self::Inode { node, offset, len } => {
                Notice::InvalInode { node: *node, offset: *offset, len: *len }
            }
            Self::Entry { parent, name } => {
                Notice::InvalEntry { parent: *parent, name: name.as_name() }
            }
            Self::Delete { parent, child, name } => {
                Notice::Delete { parent: *parent, child: *child, name: name.as_name() }
            }
            Self::AllEntries => Notice::IncEpoch,
        }
    }
}

/// Notices on their way.
#[derive(Debug)]
pub(super) struct Queue {
    /// Whose client this is: what came from it, it need not be told.
    session: SessionId,
    state: Mutex<State>,
    ready: Condvar,
    capacity: usize,
    /// The kernel knows NOTIFY_INC_EPOCH; learned from INIT, before which there is nothing to drop.
    can_drop_all: AtomicBool,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(session: SessionId, capacity: usize) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), closed: false });
        let can_drop_all = AtomicBool::new(false);
        Self { session, state, ready: Condvar::new(), capacity, can_drop_all }
    }

    pub(super) fn set_can_drop_all(&self, can: bool) {
        self.can_drop_all.store(can, Ordering::Relaxed);
    }

    /// Queues a notice; never waits for the kernel.
    fn push(&self, notice: Waiting) {
        let mut state = self.state.lock();
        // A burst of changes of one file is one notice.
        if state.closed || state.waiting.back() == Some(&notice) {
            return;
        }
        if notice == Waiting::AllEntries && !self.can_drop_all.load(Ordering::Relaxed) {
            log::warn!("this kernel cannot drop all names at once; timeouts bound their age");
            return;
        }
        if state.waiting.len() < self.capacity {
            state.waiting.push_back(notice);
        } else {
            state.waiting.clear();
            if self.can_drop_all.load(Ordering::Relaxed) {
                log::debug!("too many notices wait; the kernel drops all names instead");
                state.waiting.push_back(Waiting::AllEntries);
            } else {
                log::warn!("too many notices wait and were dropped; timeouts bound their age");
                state.waiting.push_back(notice);
            }
        }
        self.ready.notify_one();
    }

    /// Takes everything that waits, once something does; `false` at the end.
    fn take(&self, into: &mut VecDeque<Waiting>) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        std::mem::swap(&mut state.waiting, into);
        !into.is_empty()
    }

    /// Takes no more notices; what waits is still written.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Writes notices to `device` until the queue is closed and empty or the connection is gone.
    pub(super) fn drain(&self, device: &Device) {
        let mut batch = VecDeque::new();
        let mut message = Vec::with_capacity(Notice::MAX_SIZE);
        while self.take(&mut batch) {
            for notice in batch.drain(..) {
                notice.notice().encode(&mut message);
                if let Err(error) = fuse::writev(device.as_fd(), &[IoSlice::new(&message)]) {
                    match Errno::from(error) {
                        Errno::ENODEV => {
                            self.close();
                            return;
                        }
                        // The kernel never knew it or has let go of it already: all is well.
                        Errno::ENOENT | Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EBUSY => {}
                        errno => log::error!("the kernel did not take {notice:?}: {errno}"),
                    }
                }
            }
        }
    }
}

impl Notifier for Queue {
    fn inval_inode(&self, node: NodeId, offset: i64, len: i64) {
        self.push(Waiting::Inode { node, offset, len });
    }

    fn inval_entry(&self, parent: NodeId, name: Name<'_>) {
        self.push(Waiting::Entry { parent, name: name.into() });
    }

    fn delete(&self, parent: NodeId, child: NodeId, name: Name<'_>) {
        self.push(Waiting::Delete { parent, child, name: name.into() });
    }

    fn inval_all_entries(&self) {
        self.push(Waiting::AllEntries);
    }

    fn session(&self) -> Option<SessionId> {
        Some(self.session)
    }

    fn reaches_kernel(&self) -> bool {
        true
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn queue(capacity: usize, can_drop_all: bool) -> Queue {
        let queue = Queue::new(SessionId(1), capacity);
        queue.set_can_drop_all(can_drop_all);
        queue
    }

    fn waiting(queue: &Queue) -> Vec<Waiting> {
        queue.state.lock().waiting.iter().cloned().collect()
    }

    fn inode(node: u64) -> Waiting {
        Waiting::Inode { node: NodeId(node), offset: 0, len: 0 }
    }

    #[test]
    fn push_beyond_the_capacity_leaves_one_notice_that_drops_all() {
        let queue = queue(2, true);
        for node in 1..=3 {
            queue.inval_inode(NodeId(node), 0, 0);
        }
        assert_eq!(waiting(&queue), [Waiting::AllEntries]);
        queue.inval_inode(NodeId(4), 0, 0);
        assert_eq!(waiting(&queue), [Waiting::AllEntries, inode(4)]);
    }

    #[test]
    fn push_beyond_the_capacity_of_an_old_kernel_keeps_the_newest() {
        let queue = queue(2, false);
        for node in 1..=3 {
            queue.inval_inode(NodeId(node), 0, 0);
        }
        queue.inval_all_entries();
        assert_eq!(waiting(&queue), [inode(3)]);
    }

    #[test]
    fn push_of_the_same_twice_in_a_row_is_one() {
        let queue = queue(9, true);
        for node in [1, 1, 2, 1] {
            queue.inval_inode(NodeId(node), 0, 0);
        }
        assert_eq!(waiting(&queue), [inode(1), inode(2), inode(1)]);
    }

    #[test]
    fn drain_of_a_closed_queue_writes_what_waits_and_ends() {
        let queue = queue(9, true);
        let name = Name::new(b"gone").unwrap();
        queue.delete(NodeId(1), NodeId(2), name);
        queue.inval_entry(NodeId(1), name);
        queue.close();
        queue.inval_all_entries();
        assert!(queue.is_closed());

        let (ours, mut kernel) = UnixStream::pair().unwrap();
        queue.drain(&Device::new(ours.into()));
        let (mut written, mut expected, mut one) = (Vec::new(), Vec::new(), Vec::new());
        kernel.read_to_end(&mut written).unwrap();
        let (parent, child) = (NodeId(1), NodeId(2));
        for notice in [Notice::Delete { parent, child, name }, Notice::InvalEntry { parent, name }]
        {
            notice.encode(&mut one);
            expected.extend_from_slice(&one);
        }
        assert_eq!(written, expected);
    }
}
