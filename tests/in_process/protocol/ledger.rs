//! What a session was given is all that it can name, and is given back.

use std::sync::Arc;

use stratafs::protocol::null::NullFs;
use stratafs::protocol::{InitFlags, Opcode};
use stratafs_core::{Behaviours, Errno, Needs};
use stratafs_memfs::MemFs;

use super::recorder::Stage;
use super::requests::{Ids, Valid, valid_requests};
use super::wire::{Body, Client, O_RDWR, create_body, plus_entries, read_body};

/// A client with a directory and an open file of its own, and their ids.
fn furnished(stage: &Stage) -> (Client, Ids) {
    let mut client = Client::started(Arc::clone(&stage.fs));
    let ids = Ids::make(&mut client);
    stage.recorder.take();
    (client, ids)
}

#[test]
fn forged_node_on_every_opcode_is_estale_and_unseen() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    for forged in [0, 2, 99, u64::MAX, 1 << 63] {
        let forged = forged + if ids.holds(forged) { 1000 } else { 0 };
        for Valid { opcode, body, .. } in valid_requests(&ids.with_node(forged)) {
            if opcode.has_reply() {
                let told = client.ask(opcode, forged, &body);
                assert_eq!(told, Err(Errno::ESTALE), "{opcode:?} of node {forged}");
            } else {
                client.tell(opcode, forged, &body);
            }
            assert_eq!(stage.recorder.take(), <[String; 0]>::default(), "{opcode:?}");
        }
    }
}

#[test]
fn forged_second_node_is_estale_and_unseen() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    let forged = 4242;
    let copy = Body::new().u64(ids.fh).u64(0).u64(forged).u64(ids.fh).u64(0).u64(1).u64(0);
    for (opcode, node, body) in [
        (Opcode::Link, ids.dir, Body::new().u64(forged).name(b"n")),
        (Opcode::Rename, ids.dir, Body::new().u64(forged).name(b"f").name(b"g")),
        (Opcode::Rename2, ids.dir, Body::new().u64(forged).u32(0).u32(0).name(b"f").name(b"g")),
        (Opcode::CopyFileRange, ids.file, copy.clone()),
        (Opcode::CopyFileRange64, ids.file, copy),
    ] {
        assert_eq!(client.ask(opcode, node, &body), Err(Errno::ESTALE), "{opcode:?}");
    }
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

/// A client of a filesystem that opens directories too: with a file and the root, both open.
fn opened() -> (Stage, Client, Ids) {
    let stage = Stage::over(Arc::new(NullFs::new()), |features| features.needing(Needs::all()));
    let mut client = Client::started(Arc::clone(&stage.fs));
    let file = client.lookup(1, b"file").unwrap();
    let fh = client.open(Opcode::Open, file, O_RDWR).unwrap();
    let dir_fh = client.open(Opcode::Opendir, 1, 0).unwrap();
    stage.recorder.take();
    (stage, client, Ids { dir: 1, file, link: file, fh, dir_fh })
}

#[test]
fn forged_handle_on_every_opcode_is_ebadf_and_unseen() {
    let (stage, mut client, ids) = opened();
    // Handles of the same client on another node.
    let other_fh = client.open(Opcode::Open, 1, O_RDWR).unwrap();
    let other_dir = client.open(Opcode::Opendir, ids.file, 0).unwrap();
    stage.recorder.take();
    for forged in [0, 777, u64::MAX, other_fh, other_dir] {
        for Valid { opcode, node, body, uses_handle } in valid_requests(&ids.with_handle(forged)) {
            // fstat(2), locks and ioctl(2) take a handle of either kind.
            let either = matches!(
                opcode,
                Opcode::Getattr | Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw | Opcode::Ioctl
            );
            let is_real = either && node == ids.file && forged == other_dir;
            if uses_handle && !is_real {
                let told = client.ask(opcode, node, &body);
                assert_eq!(told, Err(Errno::EBADF), "{opcode:?} by handle {forged}");
                assert_eq!(stage.recorder.take(), <[String; 0]>::default(), "{opcode:?}");
            }
        }
    }
}

#[test]
fn forged_second_handle_of_a_copy_is_ebadf_and_unseen() {
    let (stage, mut client, ids) = opened();
    for forged in [0, 777, ids.dir_fh] {
        let head = Body::new().u64(ids.fh).u64(0).u64(ids.file).u64(forged);
        let copy = head.u64(0).u64(1).u64(0);
        for opcode in [Opcode::CopyFileRange, Opcode::CopyFileRange64] {
            assert_eq!(client.ask(opcode, ids.file, &copy), Err(Errno::EBADF), "by {forged}");
        }
    }
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

#[test]
fn handle_of_a_file_is_no_directory_handle_nor_the_reverse() {
    let (stage, mut client, ids) = opened();
    let listing = read_body(ids.fh, 0, 4096);
    assert_eq!(client.ask(Opcode::Readdir, ids.file, &listing), Err(Errno::EBADF));
    assert_eq!(client.read(ids.dir, ids.dir_fh, 0, 16), Err(Errno::EBADF));
    assert_eq!(client.release(Opcode::Release, ids.dir, ids.dir_fh), Err(Errno::EBADF));
    assert_eq!(client.release(Opcode::Releasedir, ids.file, ids.fh), Err(Errno::EBADF));
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

#[test]
fn two_sessions_on_one_filesystem_cannot_name_each_others_objects() {
    let stage = Stage::default();
    let (_mine, ids) = furnished(&stage);
    let mut stranger = Client::started(Arc::clone(&stage.fs));
    for Valid { opcode, node, body, .. } in valid_requests(&ids) {
        if node == 1 || !opcode.has_reply() {
            continue;
        }
        assert_eq!(stranger.ask(opcode, node, &body), Err(Errno::ESTALE), "{opcode:?}");
    }
    stranger.forget(ids.file, 1);
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
    // Looked up, the node is the stranger's too; its handle is not.
    let dir = stranger.lookup(1, b"dir").unwrap();
    assert_eq!(stranger.lookup(dir, b"file"), Ok(ids.file));
    assert_eq!(stranger.read(ids.file, ids.fh, 0, 1), Err(Errno::EBADF));
}

#[test]
fn forget_gives_back_what_was_given_and_no_more() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let dir = client.mkdir(1, b"dir");
    assert_eq!(client.lookup(1, b"dir"), Ok(dir));
    client.forget(dir, u64::MAX);
    client.forget(dir, 1);
    client.forget(1, 7);
    assert_eq!(client.session.held(), (0, 0));
    assert_eq!(client.ask(Opcode::Statfs, dir, &Body::new()), Err(Errno::ESTALE));
    stage.assert_balanced();
}

#[test]
fn batch_forget_gives_back_each_and_one_that_lies_none() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let mut nodes: Vec<u64> = Vec::new();
    for index in 0..600 {
        nodes.push(client.mkdir(1, format!("d{index}").as_bytes()));
    }
    let list = |count: u32| {
        let head = Body::new().u32(count).u32(0);
        nodes.iter().fold(head, |body, node| body.u64(*node).u64(3))
    };
    for lie in [0, 599, 601, u32::MAX] {
        client.tell(Opcode::BatchForget, 0, &list(lie));
        assert_eq!(client.session.held(), (600, 0), "a count of {lie}");
    }
    client.tell(Opcode::BatchForget, 0, &list(600));
    assert_eq!(client.session.held(), (0, 0));
    stage.assert_balanced();
}

#[test]
fn release_twice_is_ebadf() {
    let (_stage, mut client, ids) = opened();
    for (opcode, node, handle) in
        [(Opcode::Release, ids.file, ids.fh), (Opcode::Releasedir, ids.dir, ids.dir_fh)]
    {
        client.release(opcode, node, handle).unwrap();
        assert_eq!(client.release(opcode, node, handle), Err(Errno::EBADF));
    }
    assert_eq!(client.session.held(), (1, 0));
}

#[test]
fn handle_outlives_the_forgetting_of_its_node() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    client.forget(ids.file, u64::MAX);
    assert_eq!(client.read(ids.file, ids.fh, 0, 4).unwrap(), b"data");
    client.release(Opcode::Release, ids.file, ids.fh).unwrap();
    assert_eq!(client.read(ids.file, ids.fh, 0, 4), Err(Errno::ESTALE));
}

#[test]
fn destroy_init_and_drop_give_everything_back() {
    type End = fn(Client) -> Option<Client>;
    let ends: [End; 3] = [
        |mut client| {
            client.ask(Opcode::Destroy, 0, &Body::new()).unwrap();
            Some(client)
        },
        |mut client| {
            client.init(45, InitFlags::all());
            Some(client)
        },
        |client| {
            drop(client);
            None
        },
    ];
    for end in ends {
        let stage = Stage::default();
        let (client, ids) = furnished(&stage);
        let after = end(client);
        assert_eq!(stage.counts.held(), (0, 0));
        stage.assert_balanced();
        if let Some(mut client) = after {
            assert_eq!(client.session.held(), (0, 0));
            client.init(45, InitFlags::all());
            assert_eq!(client.read(ids.file, ids.fh, 0, 1), Err(Errno::ESTALE));
        }
    }
}

#[test]
fn reply_that_does_not_arrive_is_undone() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let ids = Ids::make(&mut client);
    let held = (client.session.held(), stage.counts.held());
    client.delivers = false;
    for Valid { opcode, node, body, .. } in valid_requests(&ids) {
        if matches!(opcode, Opcode::Release | Opcode::Releasedir | Opcode::Forget)
            || matches!(opcode, Opcode::BatchForget)
        {
            continue;
        }
        client.send(opcode.raw(), node, &body);
        assert_eq!((client.session.held(), stage.counts.held()), held, "{opcode:?}");
    }
    drop(client);
    stage.assert_balanced();
}

#[test]
fn readdirplus_lends_each_entry_once_and_takes_back_what_did_not_arrive() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    for index in 0..200 {
        let node = client.mkdir(1, format!("d{index:03}").as_bytes());
        client.forget(node, 1);
    }
    let fh = client.open(Opcode::Opendir, 1, 0).unwrap();
    let before = client.session.held();
    client.delivers = false;
    client.send(Opcode::Readdirplus.raw(), 1, &read_body(fh, 0, 8192));
    assert_eq!(client.session.held(), before);
    client.delivers = true;
    let reply = client.ask(Opcode::Readdirplus, 1, &read_body(fh, 0, 8192)).unwrap();
    let entries = plus_entries(&reply);
    assert!(reply.len() <= 8192 && entries.len() > 30, "{} entries", entries.len());
    let lent = entries.iter().filter(|(node, _)| *node != 0).count();
    assert_eq!(client.session.held(), (lent, before.1));
    assert_eq!(lent, entries.iter().filter(|(_, name)| name.starts_with(b"d")).count());
    drop(client);
    stage.assert_balanced();
}

#[test]
fn lookups_and_forgets_of_one_node_on_many_threads_add_up() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    client.mkdir(1, b"dir");
    let session = Arc::clone(&client.session);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let session = Arc::clone(&session);
            scope.spawn(move || {
                let mut client = Client::of(session);
                for round in 0..2000_u64 {
                    client.delivers = round % 7 != 0;
                    let told = client.send(1, 1, &Body::new().name(b"dir"));
                    assert_eq!(told.len(), 1);
                    client.delivers = true;
                    let node = 2;
                    client.forget(node, (worker + round) % 3);
                }
            });
        }
    });
    let (nodes, _) = client.session.held();
    assert!(nodes <= 1);
    drop((client, session));
    stage.assert_balanced();
}

#[test]
fn creation_under_no_open_leaves_no_handle_behind() {
    // A filesystem that opens at creation, but can do without: the client will send no RELEASE.
    let stage = Stage::with_features(MemFs::builder(), |mut features| {
        features.needs.remove(Needs::OPEN);
        features.promising(Behaviours::NO_OPEN)
    });
    let mut client = Client::stateless(Arc::clone(&stage.fs));
    let (node, fh) = client.create(1, b"file");
    assert_eq!(fh, 0);
    assert_eq!(client.session.held(), (1, 0));
    assert_eq!(stage.counts.held(), (1, 0));
    assert_eq!(client.open(Opcode::Open, node, O_RDWR), Err(Errno::ENOSYS));
    assert_eq!(client.release(Opcode::Release, node, 0), Ok(()));
    drop(client);
    stage.assert_balanced();
}

#[test]
fn reply_without_room_changes_nothing() {
    for room in [0, 7, 15] {
        let stage = Stage::default();
        let (mut client, ids) = furnished(&stage);
        let held = client.session.held();
        client.room = room;
        for Valid { opcode, node, body, .. } in valid_requests(&ids) {
            let gives = matches!(
                opcode,
                Opcode::Lookup
                    | Opcode::Symlink
                    | Opcode::Mknod
                    | Opcode::Mkdir
                    | Opcode::Link
                    | Opcode::Open
                    | Opcode::Create
                    | Opcode::Tmpfile
                    | Opcode::Opendir
                    | Opcode::Getattr
                    | Opcode::Setattr
                    | Opcode::Statx
                    | Opcode::Statfs
            );
            if gives {
                assert_eq!(client.ask(opcode, node, &body), Err(Errno::EINVAL), "{opcode:?}");
                assert_eq!(stage.recorder.take(), <[String; 0]>::default(), "{opcode:?}");
            } else if matches!(opcode, Opcode::Read | Opcode::Readdir | Opcode::Readdirplus) {
                let reply = client.ask(opcode, node, &body).unwrap();
                assert!(reply.len() <= room, "{opcode:?}");
            }
            assert_eq!(client.session.held(), held, "{opcode:?}");
            if opcode == Opcode::Ioctl {
                break;
            }
            stage.recorder.take();
        }
        drop(client);
        stage.assert_balanced();
    }
}

#[test]
fn undelivered_creation_under_no_open_is_undone() {
    let stage = Stage::new(MemFs::builder());
    let mut client = Client::stateless(Arc::clone(&stage.fs));
    client.delivers = false;
    client.send(Opcode::Create.raw(), 1, &create_body(O_RDWR, 0o644, b"file"));
    assert_eq!((client.session.held(), stage.counts.held()), ((0, 0), (0, 0)));
}

#[test]
fn request_without_a_handle_passes_where_files_need_none() {
    let stage = Stage::new(MemFs::builder());
    let mut client = Client::stateless(Arc::clone(&stage.fs));
    let (node, fh) = client.create(1, b"file");
    client.write(node, fh, 0, b"data").unwrap();
    assert_eq!(client.read(node, 0, 0, 9).unwrap(), b"data");
    client.ask(Opcode::Getattr, node, &Body::new().u32(1).u32(0).u64(0)).unwrap();
    assert!(stage.recorder.take().last().unwrap().contains("handle: None"));
    assert_eq!(client.read(node, 5, 0, 9), Err(Errno::EBADF));
}

#[test]
fn reply_whose_buffer_turns_out_unusable_is_efault_and_undone() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    let held = (client.session.held(), stage.counts.held());
    client.faulty = true;
    for Valid { opcode, node, body, .. } in valid_requests(&ids) {
        let gives = matches!(
            opcode,
            Opcode::Lookup
                | Opcode::Symlink
                | Opcode::Mknod
                | Opcode::Mkdir
                | Opcode::Link
                | Opcode::Open
                | Opcode::Create
                | Opcode::Tmpfile
                | Opcode::Opendir
                | Opcode::Readdir
                | Opcode::Readdirplus
        );
        if gives {
            assert_eq!(client.ask(opcode, node, &body), Err(Errno::EFAULT), "{opcode:?}");
            assert_eq!((client.session.held(), stage.counts.held()), held, "{opcode:?}");
        }
    }
    drop(client);
    stage.assert_balanced();
}
