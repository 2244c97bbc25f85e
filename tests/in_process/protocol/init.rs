//! INIT: versions, flags, limits, and the session's states.

use std::sync::Arc;

use stratafs::protocol::{InitFlags, Opcode, Rejected, SessionConfig, SessionState, TransportKind};
use stratafs_core::{Behaviours, Errno, Features, Name, Needs, NodeId, Notifier};

use super::recorder::Hollow;
use super::wire::{Body, Client, init_body};

fn hollow() -> Arc<Hollow> {
    Hollow::new(Features::new("hollow"))
}

/// The flags that a filesystem of these features answers a client of 7.45 that offers all.
fn flags_of(features: Features) -> InitFlags {
    Client::new(Hollow::new(features)).init(45, InitFlags::all()).flags
}

#[test]
fn init_of_every_spoken_version_answers_the_lower_minor() {
    for (offered, agreed) in (31..=45).map(|minor| (minor, minor)).chain([(46, 45), (u32::MAX, 45)])
    {
        let mut client = Client::new(hollow());
        let reply = client.init(offered, InitFlags::all());
        assert_eq!((reply.major, reply.minor), (7, agreed));
        assert_eq!(client.session.negotiated().unwrap().minor, agreed);
    }
}

#[test]
fn init_of_an_unspoken_version_is_rejected_in_words() {
    for (major, minor) in [(7, 30), (7, 0), (6, 45), (0, 0)] {
        let mut client = Client::new(hollow());
        let body = init_body(major, minor, InitFlags::all());
        assert_eq!(client.ask(Opcode::Init, 0, &body), Err(Errno::EPROTO), "{major}.{minor}");
        let SessionState::Rejected(rejected) = client.session.state() else { panic!() };
        assert_eq!(rejected, Rejected::Version { major, minor });
        assert!(rejected.to_string().contains(&format!("{major}.{minor}")), "{rejected}");
    }
}

#[test]
fn init_of_a_larger_major_answers_ours_and_waits_for_another() {
    let mut client = Client::new(hollow());
    let reply = client.ask(Opcode::Init, 0, &init_body(8, 1, InitFlags::all())).unwrap();
    assert_eq!(reply[..8], Body::new().u32(7).u32(45).0);
    assert_eq!(
        client.session.state(),
        SessionState::Rejected(Rejected::Version { major: 8, minor: 1 })
    );
    client.init(45, InitFlags::all());
    assert!(client.session.negotiated().is_some());
}

#[test]
fn init_whose_filesystem_does_not_begin_is_rejected_with_its_error() {
    let fs = Arc::new(Hollow { begins: Err(Errno::ENOSPC), ..Arc::into_inner(hollow()).unwrap() });
    let mut client = Client::new(fs);
    let answer = client.ask(Opcode::Init, 0, &init_body(7, 45, InitFlags::all()));
    assert_eq!(answer, Err(Errno::ENOSPC));
    assert_eq!(client.session.state(), SessionState::Rejected(Rejected::FileSystem(Errno::ENOSPC)));
    assert_eq!(client.ask(Opcode::Statfs, 1, &Body::new()), Err(Errno::EIO));
}

#[test]
fn init_answers_no_flag_that_was_not_offered() {
    let everything = Features::new("all").needing(Needs::all()).promising(Behaviours::all());
    for flag in InitFlags::all().iter() {
        let offered = flag | InitFlags::INIT_EXT;
        let reply = Client::new(Hollow::new(everything)).init(45, offered);
        assert!(offered.contains(reply.flags), "{flag:?}: {:?}", reply.flags);
    }
}

#[test]
fn init_takes_each_flag_from_the_feature_that_it_stands_for() {
    let plain = Features::new("plain");
    for (features, flag) in [
        (plain.promising(Behaviours::NO_OPEN), InitFlags::NO_OPEN_SUPPORT),
        (plain.promising(Behaviours::NO_OPENDIR), InitFlags::NO_OPENDIR_SUPPORT),
        (plain.promising(Behaviours::WRITEBACK), InitFlags::WRITEBACK_CACHE),
        (plain.promising(Behaviours::KILLPRIV_V2), InitFlags::HANDLE_KILLPRIV_V2),
        (plain.promising(Behaviours::POSIX_ACL), InitFlags::POSIX_ACL),
        (plain.promising(Behaviours::DONT_MASK), InitFlags::DONT_MASK),
        (plain.promising(Behaviours::PARALLEL_DIROPS), InitFlags::PARALLEL_DIROPS),
        (plain.promising(Behaviours::CACHE_SYMLINKS), InitFlags::CACHE_SYMLINKS),
        (plain.promising(Behaviours::ALLOW_IDMAP), InitFlags::ALLOW_IDMAP),
        (plain.promising(Behaviours::ATOMIC_O_TRUNC), InitFlags::ATOMIC_O_TRUNC),
        (plain.promising(Behaviours::XATTR_SECURITY), InitFlags::SECURITY_CTX),
        (plain.promising(Behaviours::EXCLUSIVE), InitFlags::EXPLICIT_INVAL_DATA),
        (plain.needing(Needs::POSIX_LOCKS), InitFlags::POSIX_LOCKS),
        (plain.needing(Needs::FLOCK), InitFlags::FLOCK_LOCKS),
        (plain.needing(Needs::READDIRPLUS), InitFlags::DO_READDIRPLUS),
        (plain.needing(Needs::READDIRPLUS), InitFlags::READDIRPLUS_AUTO),
    ] {
        assert!(flags_of(features).contains(flag), "{flag:?} with its feature");
        assert!(!flags_of(plain).contains(flag), "{flag:?} without");
    }
    assert!(flags_of(plain).contains(InitFlags::AUTO_INVAL_DATA));
    assert!(!flags_of(plain.promising(Behaviours::EXCLUSIVE)).contains(InitFlags::AUTO_INVAL_DATA));
}

#[test]
fn init_never_drops_o_trunc_or_a_flock_by_working_without_open() {
    let no_open = Features::new("x").promising(Behaviours::NO_OPEN);
    let both = flags_of(no_open.promising(Behaviours::ATOMIC_O_TRUNC));
    assert!(both.contains(InitFlags::NO_OPEN_SUPPORT));
    assert!(!both.contains(InitFlags::ATOMIC_O_TRUNC));
    for needs in [Needs::FLOCK, Needs::OPEN] {
        assert!(!flags_of(no_open.needing(needs)).contains(InitFlags::NO_OPEN_SUPPORT));
    }
    let dirs = Features::new("x").promising(Behaviours::NO_OPENDIR).needing(Needs::OPENDIR);
    assert!(!flags_of(dirs).contains(InitFlags::NO_OPENDIR_SUPPORT));
}

#[test]
fn init_without_a_behaviour_leaves_its_flag_out() {
    let mut config = SessionConfig::new(TransportKind::Dev);
    config.without = Behaviours::WRITEBACK;
    let features = Features::new("x").promising(Behaviours::WRITEBACK | Behaviours::PROMPT);
    let mut client = Client::with_config(Hollow::new(features), config);
    let reply = client.init(45, InitFlags::all());
    assert!(!reply.flags.contains(InitFlags::WRITEBACK_CACHE));
    assert_eq!(client.session.negotiated().unwrap().behaviours, Behaviours::PROMPT);
}

#[test]
fn init_before_the_label_was_an_extension_asks_for_none() {
    let features = Features::new("x").promising(Behaviours::XATTR_SECURITY);
    for (minor, expected) in [(36, false), (37, false), (38, true), (45, true)] {
        let reply = Client::new(Hollow::new(features)).init(minor, InitFlags::all());
        assert_eq!(reply.flags.contains(InitFlags::SECURITY_CTX), expected, "7.{minor}");
    }
}

#[test]
fn init_of_16_bytes_has_no_second_word_of_flags() {
    let offered = InitFlags::all().difference(InitFlags::INIT_EXT);
    let mut client = Client::new(hollow());
    let reply = client.init(31, offered);
    assert_eq!(reply.flags.bits() >> 31, 0);
    assert!(reply.flags.contains(InitFlags::ASYNC_READ | InitFlags::MAX_PAGES));
}

#[test]
fn init_bounds_requests_by_the_pages_that_the_client_can_count() {
    let mut config = SessionConfig::new(TransportKind::Dev);
    config.max_readahead = 65_536;
    config.max_pages = 512;
    config.max_write = 2 << 20;
    for (flags, max_pages, max_write) in
        [(InitFlags::all(), 512, 2 << 20), (InitFlags::INIT_EXT, 0, 128 << 10)]
    {
        let mut client = Client::with_config(hollow(), config);
        let reply = client.init(45, flags);
        assert_eq!((reply.max_pages, reply.max_write), (max_pages, max_write));
        assert_eq!(reply.max_readahead, 65_536);
        assert_eq!((reply.max_background, reply.congestion_threshold), (64, 48));
        assert_eq!(client.session.negotiated().unwrap().max_write, max_write);
    }
}

#[test]
fn init_tells_the_granularity_of_times() {
    let mut features = Features::new("x");
    features.time_granularity_ns = 100;
    assert_eq!(Client::new(Hollow::new(features)).init(45, InitFlags::all()).time_gran, 100);
}

#[test]
fn request_before_init_and_after_destroy_is_eio() {
    let fs = hollow();
    let mut client = Client::new(Arc::<Hollow>::clone(&fs));
    assert_eq!(client.session.state(), SessionState::Waiting);
    assert_eq!(client.ask(Opcode::Statfs, 1, &Body::new()), Err(Errno::EIO));
    client.forget(5, 1);
    client.init(45, InitFlags::all());
    client.ask(Opcode::Statfs, 1, &Body::new()).unwrap();
    client.ask(Opcode::Destroy, 0, &Body::new()).unwrap();
    assert!(client.session.is_ended());
    assert_eq!(client.ask(Opcode::Statfs, 1, &Body::new()), Err(Errno::EIO));
    assert_eq!(*fs.life.lock(), ["init", "destroy"]);
}

#[test]
fn init_again_ends_one_life_and_begins_another() {
    let fs = hollow();
    let mut client = Client::new(Arc::<Hollow>::clone(&fs));
    client.session.set_notifier(Arc::new(Deaf));
    client.init(45, InitFlags::all());
    client.init(45, InitFlags::all());
    drop(client);
    assert_eq!(*fs.life.lock(), ["init", "attach", "destroy", "init", "destroy"]);
}

#[test]
fn init_without_room_for_its_answer_begins_nothing() {
    let fs = hollow();
    let mut client = Client::new(Arc::<Hollow>::clone(&fs));
    client.room = 63;
    let answer = client.ask(Opcode::Init, 0, &init_body(7, 45, InitFlags::all()));
    assert_eq!(answer, Err(Errno::EINVAL));
    assert!(fs.life.lock().is_empty());
}

struct Deaf;

impl Notifier for Deaf {
    fn inval_inode(&self, _: NodeId, _: i64, _: i64) {}
    fn inval_entry(&self, _: NodeId, _: Name<'_>) {}
    fn delete(&self, _: NodeId, _: NodeId, _: Name<'_>) {}
    fn inval_all_entries(&self) {}
    fn reaches_kernel(&self) -> bool {
        false
    }
    fn is_closed(&self) -> bool {
        false
    }
}
