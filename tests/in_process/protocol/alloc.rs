//! Warm requests allocate nothing.

use std::sync::Arc;

use allocation_counter::measure;
use stratafs::protocol::io::{DetachedReply, ReplySlot, Undeliverable};
use stratafs::protocol::null::NullFs;
use stratafs::protocol::{Opcode, Scratch, Session};
use stratafs_core::{DynFileSystem, Errno, ReadSink, SliceSink, SliceSource};
use stratafs_memfs::MemFs;

use super::wire::{Body, Client, read_body, request, write_body};

/// A slot over a buffer, as a transport has it.
struct Fixed<'a> {
    payload: SliceSink<'a>,
    sent: &'a mut Option<Result<usize, Errno>>,
}

impl ReplySlot for Fixed<'_> {
    fn payload(&mut self) -> &mut dyn ReadSink {
        &mut self.payload
    }
    fn clear(&mut self) {}
    fn send(self, _: u64, answer: Result<(), Errno>) -> Result<(), Undeliverable> {
        *self.sent = Some(answer.map(|()| self.payload.filled()));
        Ok(())
    }
    fn finish(self) {}
    fn detach(self) -> Box<dyn DetachedReply> {
        unreachable!("nothing waits here")
    }
}

fn serve(session: &Session, scratch: &mut Scratch, request: &[u8], reply: &mut [u8]) -> usize {
    let mut sent = None;
    let slot = Fixed { payload: SliceSink::new(reply), sent: &mut sent };
    session.handle(&mut SliceSource::new(request), slot, scratch);
    sent.unwrap().unwrap()
}

/// Asserts that 10,000 requests of each kind allocate nothing, after one that may.
fn warm_requests_allocate_nothing(fs: Arc<dyn DynFileSystem>) {
    let mut client = Client::started(fs);
    let (node, fh) = client.create(1, b"file");
    client.write(node, fh, 0, &[7; 65_536]).unwrap();
    let session = Arc::clone(&client.session);
    let mut scratch = Scratch::new(session.config());
    let mut reply = vec![0; 1 << 16];
    let lookup = Body::new().name(b"file");
    let getattr = Body::new().u32(1).u32(0).u64(fh);
    for (opcode, at, body, answer) in [
        (Opcode::Lookup, 1, lookup, 128),
        (Opcode::Getattr, node, getattr, 104),
        (Opcode::Read, node, read_body(fh, 4096, 4096), 4096),
        (Opcode::Write, node, write_body(fh, 4096, &[1; 4096]), 8),
    ] {
        let request = request(opcode.raw(), 9, at, &body.0);
        assert_eq!(serve(&session, &mut scratch, &request, &mut reply), answer);
        let allocated = measure(|| {
            for _ in 0..10_000 {
                serve(&session, &mut scratch, &request, &mut reply);
            }
        });
        assert_eq!(allocated.count_total, 0, "{opcode:?}");
    }
}

#[test]
fn warm_requests_to_nothing_allocate_nothing() {
    warm_requests_allocate_nothing(Arc::new(NullFs::new()));
}

#[test]
fn warm_requests_to_a_memfs_allocate_nothing() {
    warm_requests_allocate_nothing(Arc::new(MemFs::builder().build().unwrap()));
}

#[test]
fn lookup_and_forget_of_a_node_again_and_again_allocate_nothing() {
    let mut client = Client::started(Arc::new(NullFs::new()));
    let node = client.lookup(1, b"file").unwrap();
    let session = Arc::clone(&client.session);
    let mut scratch = Scratch::new(session.config());
    let mut reply = vec![0; 256];
    let lookup = request(Opcode::Lookup.raw(), 9, 1, b"file\0");
    let forget = request(Opcode::Forget.raw(), 10, node, &u64::MAX.to_ne_bytes());
    let allocated = measure(|| {
        for _ in 0..10_000 {
            serve(&session, &mut scratch, &lookup, &mut reply);
            let mut sent = None;
            let slot = Fixed { payload: SliceSink::new(&mut reply), sent: &mut sent };
            session.handle(&mut SliceSource::new(&forget), slot, &mut scratch);
        }
    });
    assert_eq!(allocated.count_total, 0);
}
