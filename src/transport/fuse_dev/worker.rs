//! A thread that reads requests and has them answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use stratafs_sys::buffer::BufferSource;
use stratafs_sys::eventfd::EventFd;

use super::crew::{Crew, Pace, Step};
use super::device::{Device, NoRequest, Slot};
use super::linger::Reader;

/// What the workers of one server share.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) crew: Crew,
    /// End after the current request.
    stop: AtomicBool,
    running: AtomicUsize,
    /// Readable once the last worker has ended.
    pub(super) ended: EventFd,
}

impl Workers {
    pub(super) fn new(crew: Crew, workers: usize, ended: EventFd) -> Self {
        Self { crew, stop: AtomicBool::new(false), running: AtomicUsize::new(workers), ended }
    }

    /// Has every worker end after its current request; those asleep in the kernel must be
    /// interrupted as well.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.crew.close();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// One of the announced workers has ended, or never began.
    pub(super) fn leave(&self) {
        if self.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ended.signal();
        }
    }
}

/// Buffers of one worker, allocated once; their pages are touched as far as requests reach.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) request: Box<[u8]>,
    pub(super) reply: Box<[u8]>,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Self {
        Self { request: vec![0; size].into(), reply: vec![0; size].into() }
    }
}

/// Serves requests until the filesystem is unmounted or the workers are stopped.
///
/// `handle` is given each request and the slot for its answer.
pub(super) fn run<H>(workers: &Workers, device: &Arc<Device>, buffers: &mut Buffers, mut handle: H)
where
    H: FnMut(&mut BufferSource<'_>, Slot<'_>),
{
    while workers.crew.enter() {
        if !read_until_rest(workers, device, buffers, &mut handle) {
            break;
        }
    }
    // The first to learn of the end tells those that rest.
    workers.crew.close();
    workers.leave();
}

/// Reads and serves; `true` when this worker is not needed any more, `false` at the end.
fn read_until_rest<H>(
    workers: &Workers,
    device: &Arc<Device>,
    buffers: &mut Buffers,
    handle: &mut H,
) -> bool
where
    H: FnMut(&mut BufferSource<'_>, Slot<'_>),
{
    let mut pace = Pace::default();
    let mut reader = Reader::new(device);
    while !workers.is_stopped() {
        workers.crew.listen();
        let request = reader.read(&mut buffers.request);
        workers.crew.heard(request.is_ok());
        match request {
            Ok((len, was_waiting)) => {
                let step = pace.after_read(was_waiting);
                if step == Step::Probe && device.has_request() {
                    workers.crew.call();
                }
                serve(device, buffers, len, handle);
                if step == Step::Rest && workers.crew.rest() {
                    return true;
                }
            }
            Err(NoRequest::Again) => {}
            Err(NoRequest::Unmounted) => return false,
            Err(NoRequest::Failed(error)) => {
                log::error!("the kernel hands out no more requests: {error}");
                return false;
            }
        }
    }
    false
}

/// Has one request answered, whatever the filesystem does.
///
/// A panic in it is a defect of the filesystem, but one of a single request: the slot answers EIO
/// as it is dropped, the defect is logged with its place by the panic hook, and everybody else is
/// served on. The locks of this project do not poison; a filesystem that must not go on after a
/// panic inside it has to abort by itself.
pub(super) fn serve<H>(device: &Arc<Device>, buffers: &mut Buffers, len: usize, handle: &mut H)
where
    H: FnMut(&mut BufferSource<'_>, Slot<'_>),
{
    let request = buffers.request.get(..len).unwrap_or_default();
    let slot = Slot::new(device, request, &mut buffers.reply);
    let mut source = BufferSource::new(request);
    if catch_unwind(AssertUnwindSafe(|| handle(&mut source, slot))).is_err() {
        log::error!("a request made the filesystem panic; it is answered with EIO");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::io::ReplySlot as _;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn serve_of_a_panic_answers_eio_and_the_next_request_is_served() {
        let (ours, mut kernel) = UnixStream::pair().unwrap();
        let device = Arc::new(Device::new(ours.into()));
        let mut buffers = Buffers::new(4096);
        let mut request = [0; 40];
        request[4] = 1;
        for (unique, panics) in [(5, true), (6, false)] {
            request[8] = unique;
            kernel.write_all(&request).unwrap();
            let len = device.read(&mut buffers.request).unwrap();
            serve(&device, &mut buffers, len, &mut |_: &mut BufferSource<'_>, slot: Slot<'_>| {
                assert!(!panics, "this panic is meant");
                slot.send(u64::from(unique), Ok(())).unwrap();
            });
            let mut reply = [0; 16];
            kernel.read_exact(&mut reply).unwrap();
            let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
            assert_eq!((reply[8], error), (unique, if panics { -5 } else { 0 }));
        }
    }

    #[test]
    fn leave_of_the_last_worker_signals_the_end() {
        let workers = Workers::new(Crew::new(2, true), 2, EventFd::new().unwrap());
        workers.leave();
        assert!(!workers.ended.drain());
        workers.leave();
        assert!(workers.ended.drain());
    }
}
