//! One descriptor of the connection: requests out of it, replies into it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use stratafs_core::{Errno, ReadSink};
use stratafs_sys::buffer::BufferSink;
use stratafs_sys::{fuse, poll};

use crate::protocol::Opcode;
use crate::protocol::io::{
    BackingId, BackingRegistry, DetachedReply, OUT_HEADER_LEN, ReplySlot, Undeliverable,
};

/// Where `opcode` is in `fuse_in_header`: after `len`, four bytes each.
const OPCODE: std::ops::Range<usize> = 4..8;
/// The same of `unique`, behind them.
const UNIQUE: std::ops::Range<usize> = 8..16;

/// One descriptor of the connection.
///
/// A reply must go to the descriptor that its request came from. Whoever owes a reply holds the
/// device weakly, so that a waiting lock cannot keep the connection of a server alive that is gone.
#[derive(Debug)]
pub(super) struct Device {
    descriptor: OwnedFd,
    /// Several workers read from this one.
    is_shared: bool,
}

/// Why there is no next request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// A signal or an interrupted request: ask again, after a look at whether to stop.
    Again,
    /// The filesystem is unmounted or the connection aborted.
    Unmounted,
    /// The kernel refuses to hand out requests.
    Failed(io::Error),
}

impl Device {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, is_shared: false }
    }

    /// A device that several workers are to read from.
    pub(super) fn shared(descriptor: OwnedFd) -> Self {
        Self { descriptor, is_shared: true }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Waits for a request and answers its length.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize, NoRequest> {
        fuse::read(self.as_fd(), buffer).map_err(|error| {
            match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // ENOENT: the request was interrupted before it was read.
                Errno::EINTR | Errno::EAGAIN | Errno::ENOENT => NoRequest::Again,
                // ECONNABORTED: the connection was aborted by hand.
                Errno::ENODEV | Errno::ENOTCONN | ECONNABORTED => NoRequest::Unmounted,
                _ => NoRequest::Failed(error),
            }
        })
    }

    /// Has reads answer at once, or wait; whether that could be had. Not where workers share the
    /// device: the others would not wait either.
    pub(super) fn set_nonblocking(&self, on: bool) -> bool {
        !self.is_shared && fuse::set_nonblocking(self.as_fd(), on).is_ok()
    }

    /// Whether a request waits to be read.
    pub(super) fn has_request(&self) -> bool {
        poll::readable([self.as_fd()], Some(Duration::ZERO)).is_ok_and(|[ready]| ready.readable)
    }

    /// Answers a request with an error, or with no more than that it is done.
    fn answer(&self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        let error = answer.err().map_or(0, |errno| -errno.raw());
        self.reply(unique, &out_header(unique, 0, error), error)
    }

    /// Writes a whole reply, which says `error`.
    ///
    /// In one piece, header and payload: the kernel pins the memory of each for itself.
    fn reply(&self, unique: u64, message: &[u8], error: i32) -> Result<(), Undeliverable> {
        match fuse::write(self.as_fd(), message) {
            Ok(_) => Ok(()),
            Err(cause) => {
                // ENOENT: the client was interrupted and has gone. ENODEV: everybody has.
                if !matches!(
                    Errno::from_raw(cause.raw_os_error().unwrap_or(0)),
                    Errno::ENOENT | Errno::ENODEV
                ) {
                    log::error!("request {unique}: the kernel did not take the reply: {cause}");
                    // The request may still wait; it must not do so for ever.
                    if error == 0 {
                        let _ = self.answer(unique, Err(Errno::EIO));
                    }
                }
                Err(Undeliverable)
            }
        }
    }
}

/// The kernel at the other end, as the keeper of files that it reads and writes by itself.
#[derive(Debug)]
pub(super) struct Kernel {
    device: Weak<Device>,
    /// Whether it was told that files stay with the kernel until the end of the mount.
    said: AtomicBool,
}

impl Kernel {
    /// The kernel behind `device`, for as long as that is there.
    pub(super) fn behind(device: &Arc<Device>) -> Self {
        Self { device: Arc::downgrade(device), said: AtomicBool::new(false) }
    }
}

impl BackingRegistry for Kernel {
    fn register(&self, file: BorrowedFd<'_>) -> stratafs_core::Result<BackingId> {
        let device = self.device.upgrade().ok_or(Errno::ENODEV)?;
        Ok(BackingId(fuse::open_backing(device.as_fd(), file)?))
    }

    fn unregister(&self, id: BackingId) {
        // Without a device there is no connection, and without a connection no id.
        let Some(device) = self.device.upgrade() else { return };
        if let Err(cause) = fuse::close_backing(device.as_fd(), id.0)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            // Whoever gave up CAP_SYS_ADMIN meanwhile meets it with every file.
            log::error!("the kernel keeps files that were named to it until the unmount: {cause}");
        }
    }
}

/// What a read answers after the connection was aborted through fusectl.
const ECONNABORTED: Errno = Errno::from_raw(103);

/// `struct fuse_out_header`, in the host's byte order: length of all, error, unique.
fn out_header(unique: u64, payload: usize, error: i32) -> [u8; OUT_HEADER_LEN] {
    let mut header = [0; OUT_HEADER_LEN];
    // Payloads are bounded by the reply buffer, far below 4 GiB.
    let len = u32::try_from(OUT_HEADER_LEN + payload).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&len.to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// The answer to one request, on its way through the protocol.
///
/// Dropped without an answer, which only a panic does, it answers EIO: a client must not wait for
/// ever because of a defect in a filesystem.
pub(super) struct Slot<'a> {
    device: &'a Arc<Device>,
    payload: BufferSink<'a>,
    /// The request to answer if nothing else does; `None` once its answer is settled.
    owed: Option<u64>,
}

impl<'a> Slot<'a> {
    /// The slot for `request`, with `buffer` for the payload.
    pub(super) fn new(device: &'a Arc<Device>, request: &[u8], buffer: &'a mut [u8]) -> Self {
        Self { device, payload: BufferSink::behind(buffer, OUT_HEADER_LEN), owed: owed(request) }
    }
}

/// The number of a request that has a reply.
fn owed(request: &[u8]) -> Option<u64> {
    let opcode = u32::from_ne_bytes(request.get(OPCODE)?.try_into().ok()?);
    let unique = u64::from_ne_bytes(request.get(UNIQUE)?.try_into().ok()?);
    Opcode::from_raw(opcode).is_none_or(Opcode::has_reply).then_some(unique)
}

impl ReplySlot for Slot<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }

    fn clear(&mut self) {
        self.payload.clear();
    }

    fn send(mut self, unique: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        self.owed = None;
        if answer.is_err() {
            return self.device.answer(unique, answer);
        }
        let header = out_header(unique, self.payload.filled().len(), 0);
        self.device.reply(unique, self.payload.with_header(&header), 0)
    }

    fn finish(mut self) {
        self.owed = None;
    }

    fn detach(mut self) -> Box<dyn DetachedReply> {
        self.owed = None;
        Box::new(Detached(Arc::downgrade(self.device)))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(unique) = self.owed {
            let _ = self.device.answer(unique, Err(Errno::EIO));
        }
    }
}

impl std::fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("payload", &self.payload).field("owed", &self.owed).finish()
    }
}

/// A reply that comes later.
#[derive(Debug)]
struct Detached(Weak<Device>);

impl DetachedReply for Detached {
    fn send(self: Box<Self>, unique: u64, answer: Result<(), Errno>) {
        if let Some(device) = self.0.upgrade() {
            let _ = device.answer(unique, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    /// A device that is really a socket, and the other end.
    fn device() -> (Arc<Device>, UnixStream) {
        let (ours, kernel) = UnixStream::pair().unwrap();
        kernel.set_nonblocking(true).unwrap();
        (Arc::new(Device::new(ours.into())), kernel)
    }

    fn request(opcode: Opcode, unique: u64) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[OPCODE].copy_from_slice(&opcode.raw().to_ne_bytes());
        bytes[UNIQUE].copy_from_slice(&unique.to_ne_bytes());
        bytes
    }

    fn received(mut kernel: UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        let n = kernel.read(&mut bytes).unwrap_or(0);
        bytes.truncate(n);
        bytes
    }

    #[test]
    fn set_nonblocking_of_a_shared_device_is_refused() {
        let (ours, _kernel) = UnixStream::pair().unwrap();
        assert!(!Device::shared(ours.into()).set_nonblocking(true));
    }

    #[test]
    fn send_with_a_payload_writes_header_and_payload_at_once() {
        let (device, kernel) = device();
        let mut buffer = [0; 64];
        let mut slot = Slot::new(&device, &request(Opcode::Lookup, 7), &mut buffer);
        slot.payload().write_slice(b"gone").unwrap();
        slot.clear();
        slot.payload().write_slice(b"data").unwrap();
        slot.send(7, Ok(())).unwrap();
        let mut expected = out_header(7, 4, 0).to_vec();
        expected.extend_from_slice(b"data");
        assert_eq!(received(kernel), expected);
    }

    #[test]
    fn send_of_an_error_leaves_the_payload_out() {
        let (device, kernel) = device();
        let mut buffer = [0; 64];
        let mut slot = Slot::new(&device, &request(Opcode::Lookup, 7), &mut buffer);
        slot.payload().write_slice(b"data").unwrap();
        slot.send(7, Err(Errno::ENOENT)).unwrap();
        assert_eq!(received(kernel), out_header(7, 0, -2));
    }

    #[test]
    fn slot_dropped_unanswered_answers_eio_where_a_reply_is_due() {
        let (device, kernel) = device();
        drop(Slot::new(&device, &request(Opcode::Lookup, 9), &mut []));
        assert_eq!(received(kernel), out_header(9, 0, -5));

        let (device, kernel) = self::device();
        drop(Slot::new(&device, &request(Opcode::Forget, 9), &mut []));
        drop(Slot::new(&device, b"short", &mut []));
        Slot::new(&device, &request(Opcode::Lookup, 9), &mut []).finish();
        assert_eq!(received(kernel), b"");
    }

    #[test]
    fn detached_reply_is_sent_once_and_keeps_no_device_alive() {
        let (device, kernel) = device();
        let reply = Slot::new(&device, &request(Opcode::Lookup, 3), &mut []).detach();
        reply.send(3, Ok(()));
        assert_eq!(received(kernel), out_header(3, 0, 0));

        let reply = Slot::new(&device, &request(Opcode::Lookup, 4), &mut []).detach();
        assert_eq!(Arc::strong_count(&device), 1);
        drop(device);
        reply.send(4, Ok(()));
    }
}
