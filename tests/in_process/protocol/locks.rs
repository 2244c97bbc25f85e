//! Waits for locks, and the INTERRUPTs that end them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stratafs::protocol::{InitFlags, Opcode, SessionConfig, TransportKind};
use stratafs_core::{
    Behaviours, Cancel, Context, DirSink, DynFileSystem, Errno, Features, FileLock, HandleId,
    LockFlavour, LockOwner, Lookup, Name, Needs, NodeId, Pending, Reply, Result, TimedAttr,
};
use stratafs_memfs::{Locks, MemFs};

use super::recorder::Stage;
use super::requests::lock_body;
use super::wire::{Body, Client, Record, Told, request};

const WRITE: u32 = 1;
const NONE: u32 = 2;

/// A client, and a file of it that owner 1 has locked.
fn locked(stage: &Stage, transport: TransportKind) -> (Client, u64, u64) {
    let mut client = Client::with_config(Arc::clone(&stage.fs), SessionConfig::new(transport));
    client.init(45, InitFlags::all());
    let (node, fh) = client.create(1, b"file");
    client.ask(Opcode::Setlk, node, &lock_body(fh, 1, WRITE)).unwrap();
    (client, node, fh)
}

fn stage() -> Stage {
    Stage::new(MemFs::builder().locks(Locks::Remote))
}

/// Waits until a reply to `unique` came, and gives it.
fn await_reply(record: &Record, unique: u64) -> Result<Vec<u8>, Errno> {
    let begun = Instant::now();
    loop {
        let found = record.lock().iter().find_map(|told| match told {
            Told::Replied(to, answer) if *to == unique => Some(answer.clone()),
            _ => None,
        });
        if let Some(answer) = found {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no reply to {unique}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn setlkw_waits_without_its_worker_until_the_lock_is_free() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let mut waiters = Vec::new();
    for owner in 2..66 {
        waiters.push(client.next_unique());
        assert_eq!(client.send(Opcode::Setlkw.raw(), node, &lock_body(fh, owner, WRITE)), []);
    }
    assert_eq!(client.session.waiting(), 64);
    client.ask(Opcode::Getattr, node, &Body::new().u32(0).u32(0).u64(0)).unwrap();
    // Each that gets it gives it up again, whoever is next.
    let record = Arc::clone(&client.record);
    let mut owner_of = waiters.iter().copied().zip(2..66).collect::<Vec<_>>();
    let body = lock_body(fh, 1, NONE);
    client.keep_record(|client| client.send(Opcode::Setlk.raw(), node, &body));
    while !owner_of.is_empty() {
        let served = owner_of.iter().position(|(unique, _)| {
            record.lock().iter().any(|told| *told == Told::Replied(*unique, Ok(vec![])))
        });
        let (_, owner) = owner_of.remove(served.expect("the lock is free, so somebody got it"));
        let body = lock_body(fh, owner, NONE);
        client.keep_record(|client| client.send(Opcode::Setlk.raw(), node, &body));
    }
    assert_eq!(client.session.waiting(), 0);
}

#[test]
fn interrupt_ends_each_wait_with_eintr() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let mut waiters = Vec::new();
    for owner in 2..66 {
        waiters.push(client.next_unique());
        assert_eq!(client.send(Opcode::Setlkw.raw(), node, &lock_body(fh, owner, WRITE)), []);
    }
    let record = Arc::clone(&client.record);
    for unique in waiters {
        client.keep_record(|client| {
            client.send(Opcode::Interrupt.raw(), 0, &Body::new().u64(unique))
        });
        assert_eq!(await_reply(&record, unique), Err(Errno::EINTR));
    }
    assert_eq!(client.session.waiting(), 0);
}

#[test]
fn interrupt_that_comes_before_its_request_ends_it() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let unique = client.next_unique() + 1;
    client.tell(Opcode::Interrupt, 0, &Body::new().u64(unique));
    let told = client.send(Opcode::Setlkw.raw(), node, &lock_body(fh, 2, WRITE));
    assert_eq!(told, [Told::Replied(unique, Err(Errno::EINTR))]);
    assert_eq!(client.session.waiting(), 0);
}

#[test]
fn interrupt_of_what_does_not_wait_changes_nothing() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    for unique in 0..1000 {
        client.tell(Opcode::Interrupt, 0, &Body::new().u64(unique));
    }
    client.ask(Opcode::Setlk, node, &lock_body(fh, 1, NONE)).unwrap();
    client.ask(Opcode::Setlkw, node, &lock_body(fh, 2, WRITE)).unwrap();
}

#[test]
fn destroy_ends_all_waits() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let unique = client.next_unique();
    assert_eq!(client.send(Opcode::Setlkw.raw(), node, &lock_body(fh, 2, WRITE)), []);
    let record = Arc::clone(&client.record);
    client.keep_record(|client| client.send(Opcode::Destroy.raw(), 0, &Body::new()));
    assert_eq!(await_reply(&record, unique), Err(Errno::EINTR));
    assert_eq!(client.session.waiting(), 0);
}

#[test]
fn destroy_calls_off_what_a_filesystem_would_let_wait_for_ever() {
    let mut client = Client::stateless(Arc::new(Patient));
    let unique = client.next_unique();
    assert_eq!(client.send(Opcode::Setlkw.raw(), 1, &lock_body(0, 2, WRITE)), []);
    assert_eq!(client.session.waiting(), 1);
    let record = Arc::clone(&client.record);
    client.keep_record(|client| client.send(Opcode::Destroy.raw(), 0, &Body::new()));
    assert_eq!(await_reply(&record, unique), Err(Errno::EINTR));
}

/// A filesystem in which no lock is ever free.
struct Patient;

/// A wait that only its end ends.
struct Endless(Mutex<Option<Reply<()>>>);

impl Cancel for Endless {
    fn cancel(&self) {
        let reply = self.0.lock().take();
        if let Some(reply) = reply {
            reply.send(Err(Errno::EINTR));
        }
    }
}

impl DynFileSystem for Patient {
    fn features(&self) -> Features {
        Features::new("patient").needing(Needs::POSIX_LOCKS).promising(Behaviours::NO_OPEN)
    }
    fn lookup(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<Lookup> {
        Err(Errno::ENOENT)
    }
    fn forget(&self, _: NodeId, _: u64) {}
    fn getattr(&self, _: &Context<'_>, _: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Err(Errno::EIO)
    }
    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        _: &mut dyn DirSink,
    ) -> Result<()> {
        Ok(())
    }
    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
    fn setlkw(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: LockOwner,
        _: FileLock,
        _: LockFlavour,
        reply: Reply<()>,
    ) -> Option<Pending> {
        Some(Pending::new(Arc::new(Endless(Mutex::new(Some(reply))))))
    }
}

#[test]
fn setlkw_over_virtio_never_waits() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Virtio);
    let asked = client.ask(Opcode::Setlkw, node, &lock_body(fh, 2, WRITE));
    assert_eq!(asked, Err(Errno::EAGAIN));
    client.ask(Opcode::Setlk, node, &lock_body(fh, 1, NONE)).unwrap();
    client.ask(Opcode::Setlkw, node, &lock_body(fh, 2, WRITE)).unwrap();
}

#[test]
fn getlk_tells_the_lock_in_the_way_in_the_kernels_words() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let end = i64::MAX.cast_unsigned();
    let reply = client.ask(Opcode::Getlk, node, &lock_body(fh, 2, WRITE)).unwrap();
    assert_eq!(reply, Body::new().u64(0).u64(end).u32(WRITE).u32(77).0);
    let reply = client.ask(Opcode::Getlk, node, &lock_body(fh, 1, WRITE)).unwrap();
    assert_eq!(reply[16..20], NONE.to_ne_bytes());
}

#[test]
fn lock_that_makes_no_sense_is_einval() {
    let stage = stage();
    let (mut client, node, fh) = locked(&stage, TransportKind::Dev);
    let body = |start: u64, end: u64, kind: u32| {
        Body::new().u64(fh).u64(1).u64(start).u64(end).u32(kind).u32(0).u32(0).u32(0)
    };
    for (start, end, kind) in [(0, 0, 3), (0, 0, u32::MAX), (5, 4, 0), (1 << 63, u64::MAX, 0)] {
        for opcode in [Opcode::Getlk, Opcode::Setlk, Opcode::Setlkw] {
            let asked = client.ask(opcode, node, &body(start, end, kind));
            assert_eq!(asked, Err(Errno::EINVAL), "{opcode:?} {start} {end} {kind}");
        }
    }
}

#[test]
fn interrupt_beside_its_request_on_another_worker_ends_it_once() {
    let stage = stage();
    let (client, node, fh) = locked(&stage, TransportKind::Dev);
    let session = Arc::clone(&client.session);
    let meet = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let (session, meet) = (&session, &meet);
        scope.spawn(move || {
            let mut other = Client::of(Arc::clone(session));
            for round in 0..2000_u64 {
                meet.wait();
                let body = Body::new().u64(1_000_000 + round);
                other.tell(Opcode::Interrupt, 0, &body);
                meet.wait();
            }
        });
        let mut waiter = Client::of(Arc::clone(session));
        let record = Arc::clone(&waiter.record);
        for round in 0..2000_u64 {
            let unique = 1_000_000 + round;
            let body = lock_body(fh, 2, WRITE);
            let bytes = request(Opcode::Setlkw.raw(), unique, node, &body.0);
            meet.wait();
            waiter.send_and_leave(&bytes);
            meet.wait();
            assert_eq!(await_reply(&record, unique), Err(Errno::EINTR));
            assert_eq!(std::mem::take(&mut *record.lock()).len(), 1);
        }
    });
    assert_eq!(session.waiting(), 0);
    drop(client);
}
