//! What each opcode becomes at the filesystem, and what its answer looks like on the wire.

use std::sync::Arc;

use stratafs::protocol::null::NullFs;
use stratafs::protocol::{InitFlags, Opcode, SessionConfig, TransportKind};
use stratafs_core::{Behaviours, CachePolicy, Errno, Features, Needs};
use stratafs_memfs::MemFs;

use super::recorder::{Hollow, Stage};
use super::requests::{Ids, Valid, ioctl_body, setattr, valid_requests};
use super::wire::{
    Body, Client, ENTRY, Fields, O_RDWR, Told, create_body, entries, read_body,
    request_with_extensions, write_body,
};

/// A client with its ids, and nothing noted yet.
fn furnished(stage: &Stage) -> (Client, Ids) {
    let mut client = Client::started(Arc::clone(&stage.fs));
    let ids = Ids::make(&mut client);
    stage.recorder.take();
    (client, ids)
}

#[test]
fn valid_request_of_every_opcode_reaches_its_method() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    let mut opcodes = Vec::new();
    for Valid { opcode, node, body, .. } in valid_requests(&ids) {
        opcodes.push(opcode);
        if opcode.has_reply() {
            let expected = match opcode {
                // MemFs keeps no flags; that it was asked is what matters.
                Opcode::Ioctl => Some(Errno::EOPNOTSUPP),
                _ => None,
            };
            assert_eq!(client.ask(opcode, node, &body).err(), expected, "{opcode:?}");
            // A directory that was never opened is not closed either.
            let seen = usize::from(opcode != Opcode::Releasedir);
            assert_eq!(stage.recorder.take().len(), seen, "{opcode:?}");
        } else {
            client.tell(opcode, node, &body);
        }
    }
    let own = [Opcode::Init, Opcode::Destroy, Opcode::Interrupt, Opcode::NotifyReply];
    for opcode in Opcode::ALL {
        assert!(own.contains(&opcode) || opcodes.contains(&opcode), "{opcode:?} has no example");
    }
}

#[test]
fn request_becomes_the_operation_with_its_operands() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    let Ids { dir, file, fh, .. } = ids;
    let flags = |raw| format!("{:?}", stratafs_core::OpenFlags::from_raw(raw));
    let cut = flags(O_RDWR | 0o1000);
    for (opcode, node, body, expected) in [
        (
            Opcode::Lookup,
            dir,
            Body::new().name(b"x"),
            format!("Lookup {{ parent: node {dir}, name: \"x\" }}"),
        ),
        (
            Opcode::Mknod,
            dir,
            Body::new().u32(0o020_640).u32(0x103).u32(0o027).u32(0).name(b"dev"),
            format!(
                "Mknod {{ parent: node {dir}, name: \"dev\", mode: {}, rdev: 259 }} umask 27",
                0o020_640
            ),
        ),
        (
            Opcode::Mkdir,
            dir,
            Body::new().u32(0o1777).u32(0o022).name(b"sub"),
            format!("Mkdir {{ parent: node {dir}, name: \"sub\", mode: {} }} umask 22", 0o1777),
        ),
        (
            Opcode::Create,
            dir,
            // O_CREAT and O_NOCTTY are the kernel's own affair, O_EXCL is not.
            Body::new()
                .u32(O_RDWR | 0o100 | 0o200 | 0o400)
                .u32(0o100_644)
                .u32(0o002)
                .u32(1)
                .name(b"c"),
            format!(
                "Create {{ parent: node {dir}, name: \"c\", mode: {}, flags: {}, kill_priv: true }} umask 2",
                0o644,
                flags(O_RDWR | 0o200)
            ),
        ),
        (
            Opcode::Open,
            file,
            Body::new().u32(O_RDWR | 0o100 | 0o200 | 0o400 | 0o1000).u32(1),
            format!("Open {{ node: node {file}, flags: {cut}, kill_priv: true }}"),
        ),
        (
            Opcode::Write,
            file,
            // O_APPEND in the flags, and kill-priv.
            Body::new()
                .u64(fh)
                .u64(3)
                .u32(2)
                .u32(4)
                .u64(0)
                .u32(O_RDWR | 0o2000)
                .u32(0)
                .bytes(b"ab"),
            format!(
                "Write {{ node: node {file}, handle: handle {fh}, offset: 3, size: 2, \
                 flags: WriteFlags(APPEND | KILL_PRIV) }}"
            ),
        ),
        (
            Opcode::Write,
            file,
            // From the page cache: neither append nor kill-priv apply.
            Body::new().u64(fh).u64(3).u32(2).u32(5).u64(0).u32(0o4_012_001).u32(0).bytes(b"ab"),
            format!(
                "Write {{ node: node {file}, handle: handle {fh}, offset: 3, size: 2, \
                 flags: WriteFlags(SYNC | CACHE) }}"
            ),
        ),
        (
            Opcode::Rename2,
            dir,
            Body::new().u64(1).u32(2).u32(0).name(b"a").name(b"b"),
            format!(
                "Rename {{ parent: node {dir}, name: \"a\", new_parent: node 1, new_name: \"b\", \
                 flags: RenameFlags(EXCHANGE) }}"
            ),
        ),
        (
            Opcode::Setxattr,
            file,
            Body::new().u32(2).u32(1).u32(1).u32(0).name(b"user.x").bytes(b"\0v"),
            format!(
                "Setxattr {{ node: node {file}, name: \"user.x\", value: [0, 118], mode: Create, \
                 clear_setgid: true }}"
            ),
        ),
        (
            Opcode::Fsync,
            file,
            Body::new().u64(fh).u32(1).u32(0),
            format!("Fsync {{ node: node {file}, handle: handle {fh}, datasync: true }}"),
        ),
        (
            Opcode::Release,
            file,
            Body::new().u64(fh).u32(0).u32(3).u64(9),
            format!(
                "Release {{ node: node {file}, handle: handle {fh}, release: \
                 Release {{ flush: Some(LockOwner(9)), flock: Some(LockOwner(9)) }} }}"
            ),
        ),
    ] {
        // Some fail at the filesystem, which is not the point.
        let _ = client.ask(opcode, node, &body);
        assert_eq!(stage.recorder.take(), [expected], "{opcode:?}");
    }
}

#[test]
fn setattr_carries_each_field_by_its_bit() {
    let stage = Stage::default();
    let (mut client, Ids { file, fh, .. }) = furnished(&stage);
    let nothing = "mode: None, uid: None, gid: None, size: None, atime: None, mtime: None, \
                   ctime: None, handle: None, lock_owner: None, kill_priv: false";
    for (valid, field, value) in [
        (1 << 0, "mode: None", "mode: Some(448)".to_owned()),
        (1 << 1, "uid: None", "uid: Some(0)".into()),
        (1 << 2, "gid: None", "gid: Some(0)".into()),
        (1 << 3, "size: None", "size: Some(5)".into()),
        (1 << 4, "atime: None", "atime: Some(At(Timestamp { sec: 0, nsec: 0 }))".into()),
        (1 << 4 | 1 << 7, "atime: None", "atime: Some(Now)".into()),
        (1 << 5, "mtime: None", "mtime: Some(At(Timestamp { sec: 0, nsec: 0 }))".into()),
        (1 << 5 | 1 << 8, "mtime: None", "mtime: Some(Now)".into()),
        (1 << 10, "ctime: None", "ctime: Some(Timestamp { sec: 0, nsec: 0 })".into()),
        (1 | 1 << 6, "handle: None", format!("handle: Some(handle {fh})")),
        (1 | 1 << 9, "lock_owner: None", "lock_owner: Some(LockOwner(0))".into()),
        (1 | 1 << 11, "kill_priv: false", "kill_priv: true".into()),
        // Nothing at all is a kill-priv request.
        (0, "kill_priv: false", "kill_priv: true".into()),
    ] {
        client.ask(Opcode::Setattr, file, &setattr(valid, fh, 5, 0o100_700)).unwrap();
        let mut fields = nothing.replace(field, &value);
        if valid & 1 != 0 {
            fields = fields.replace("mode: None", "mode: Some(448)");
        }
        let expected = format!("Setattr {{ node: node {file}, set: SetAttr {{ {fields} }} }}");
        assert_eq!(stage.recorder.take(), [expected], "{valid:#b}");
    }
}

#[test]
fn open_keeps_o_trunc_only_where_it_was_agreed_on() {
    for (flags, kept) in
        [(InitFlags::all(), true), (InitFlags::all().difference(InitFlags::ATOMIC_O_TRUNC), false)]
    {
        let stage = Stage::default();
        let mut client = Client::new(Arc::clone(&stage.fs));
        client.init(45, flags);
        let (node, _) = client.create(1, b"f");
        stage.recorder.take();
        client.open(Opcode::Open, node, O_RDWR | 0o1000).unwrap();
        assert_eq!(stage.recorder.take()[0].contains("truncate"), kept);
    }
}

#[test]
fn bare_setattr_without_killpriv_v2_changes_nothing() {
    let stage = Stage::default();
    let mut client = Client::new(Arc::clone(&stage.fs));
    client.init(45, InitFlags::all().difference(InitFlags::HANDLE_KILLPRIV_V2));
    client.ask(Opcode::Setattr, 1, &setattr(0, 0, 0, 0)).unwrap();
    let seen = stage.recorder.take();
    assert!(seen[0].contains("kill_priv: false"), "{seen:?}");
}

#[test]
fn creation_carries_label_and_group_since_7_38() {
    let label = {
        let body = Body::new().u32(5).u32(0).name(b"security.selinux").bytes(b"label");
        let size = 8 + body.0.len();
        let padded = size.next_multiple_of(8);
        let bytes = Body::new().u32(u32::try_from(size).unwrap()).u32(1).bytes(&body.0);
        bytes.bytes(&vec![0; padded - size]).0
    };
    let group = Body::new().u32(16).u32(32).u32(1).u32(555).0;
    let extensions = [label, group].concat();
    for (opcode, head) in [
        (Opcode::Mkdir, Body::new().u32(0o755).u32(0).name(b"a")),
        (Opcode::Mknod, Body::new().u32(0o100_644).u32(0).u32(0).u32(0).name(b"b")),
        (Opcode::Symlink, Body::new().name(b"c").name(b"target")),
        (Opcode::Create, create_body(O_RDWR, 0o644, b"d")),
        (Opcode::Tmpfile, create_body(O_RDWR, 0o644, b"/")),
    ] {
        let stage = Stage::default();
        let mut client = Client::started(Arc::clone(&stage.fs));
        let bytes = request_with_extensions(
            opcode.raw(),
            90,
            1,
            &head.bytes(&extensions).0,
            extensions.len(),
        );
        let told = client.send_raw(&bytes);
        assert!(matches!(told[..], [Told::Replied(90, Ok(_))]), "{opcode:?}: {told:?}");
        let seen = stage.recorder.take();
        assert!(seen[0].ends_with(" group 555 \"security.selinux\"=label"), "{seen:?}");
    }
}

#[test]
fn umask_is_the_kernels_unless_agreed_on() {
    for (flags, umask) in
        [(InitFlags::all(), " umask 22"), (InitFlags::all().difference(InitFlags::DONT_MASK), "")]
    {
        let stage = Stage::default();
        let mut client = Client::new(Arc::clone(&stage.fs));
        client.init(45, flags);
        client.ask(Opcode::Mkdir, 1, &Body::new().u32(0o755).u32(0o022).name(b"d")).unwrap();
        let seen = stage.recorder.take();
        assert!(seen[0].ends_with(&format!("}}{umask}")), "{seen:?}");
    }
}

#[test]
fn caller_without_ids_is_anonymous() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let mut bytes = super::wire::request(Opcode::Statfs.raw(), 9, 1, b"");
    bytes[24..32].fill(0xff);
    client.send_raw(&bytes);
    assert_eq!(stage.recorder.take(), ["Statfs { node: node 1 } anonymous"]);
}

#[test]
fn writeback_widens_opens_and_places_its_own_data() {
    let stage = Stage::new(MemFs::builder().writeback(true).cache_policy(CachePolicy::Auto));
    let mut client = Client::started(Arc::clone(&stage.fs));
    let made = client.ask(Opcode::Create, 1, &create_body(1 | 0o2000, 0o644, b"f")).unwrap();
    let (node, fh) = (Fields::of(&made).u64(), Fields::of(&made[ENTRY..]).u64());
    client.open(Opcode::Open, node, 1 | 0o2000).unwrap();
    let append = Body::new().u64(fh).u64(0).u32(1).u32(0).u64(0).u32(1 | 0o2000).u32(0).bytes(b"x");
    client.ask(Opcode::Write, node, &append).unwrap();
    let seen = stage.recorder.take();
    assert!(seen[0].contains("flags: OpenFlags(ReadWrite)"), "{}", seen[0]);
    assert!(seen[1].contains("flags: OpenFlags(ReadWrite)"), "{}", seen[1]);
    assert!(seen[2].contains("flags: WriteFlags(0x0)"), "{}", seen[2]);
}

#[test]
fn needless_operation_is_enosys_and_unseen() {
    let ids = Ids { dir: 1, file: 1, link: 1, fh: 0, dir_fh: 0 };
    for (needs, opcodes) in [
        (Needs::FLUSH, &[Opcode::Flush][..]),
        (Needs::FSYNC, &[Opcode::Fsync]),
        (Needs::FSYNCDIR, &[Opcode::Fsyncdir]),
        (Needs::XATTR, &[Opcode::Getxattr, Opcode::Listxattr]),
        (Needs::SETXATTR, &[Opcode::Setxattr, Opcode::Removexattr]),
        (Needs::ACCESS, &[Opcode::Access]),
        (Needs::POSIX_LOCKS, &[Opcode::Getlk, Opcode::Setlk, Opcode::Setlkw]),
        (Needs::FALLOCATE, &[Opcode::Fallocate]),
        (Needs::LSEEK, &[Opcode::Lseek]),
        (Needs::COPY_FILE_RANGE, &[Opcode::CopyFileRange, Opcode::CopyFileRange64]),
        (Needs::READDIRPLUS, &[Opcode::Readdirplus]),
        (Needs::SYNCFS, &[Opcode::Syncfs]),
        (Needs::STATX, &[Opcode::Statx]),
        (Needs::RENAME2, &[Opcode::Rename2]),
        (Needs::TMPFILE, &[Opcode::Tmpfile]),
    ] {
        let plain = Features::new("x").promising(Behaviours::NO_OPEN | Behaviours::NO_OPENDIR);
        let mut without = Client::stateless(Hollow::new(plain));
        let mut with = Client::stateless(Hollow::new(plain.needing(needs)));
        for Valid { opcode, node, body, .. } in valid_requests(&ids) {
            if opcodes.contains(&opcode) {
                assert_eq!(without.ask(opcode, node, &body), Err(Errno::ENOSYS), "{opcode:?}");
                assert_ne!(with.ask(opcode, node, &body), Err(Errno::ENOSYS), "{opcode:?}");
            }
        }
    }
}

#[test]
fn flush_reaches_a_filesystem_that_keeps_posix_locks() {
    let features = Features::new("x").promising(Behaviours::NO_OPEN).needing(Needs::POSIX_LOCKS);
    let mut client = Client::stateless(Hollow::new(features));
    assert_eq!(client.ask(Opcode::Flush, 1, &Body::new().u64(0).u64(0).u64(1)), Ok(vec![]));
}

#[test]
fn rename2_without_flags_is_a_rename_for_everybody() {
    let mut client = Client::started(Hollow::new(Features::new("x")));
    let body = Body::new().u64(1).u32(0).u32(0).name(b"a").name(b"b");
    assert_eq!(client.ask(Opcode::Rename2, 1, &body), Err(Errno::EOPNOTSUPP));
}

#[test]
fn enosys_of_a_filesystem_becomes_eopnotsupp() {
    let stage = Stage::default();
    let (mut client, ids) = furnished(&stage);
    stage.recorder.fail(Some(Errno::ENOSYS));
    for Valid { opcode, node, body, .. } in valid_requests(&ids) {
        if opcode.has_reply() && !matches!(opcode, Opcode::Setlkw | Opcode::Releasedir) {
            assert_eq!(client.ask(opcode, node, &body), Err(Errno::EOPNOTSUPP), "{opcode:?}");
        }
    }
}

#[test]
fn unknown_opcode_is_enosys() {
    let mut client = Client::started(Arc::new(NullFs::new()));
    for opcode in [0, 7, 19, 37, 40, 48, 49, 54, 4096, u32::MAX] {
        let unique = client.next_unique();
        let told = client.send(opcode, 1, &Body::new());
        assert_eq!(told, [Told::Replied(unique, Err(Errno::ENOSYS))], "{opcode}");
    }
}

#[test]
fn readonly_session_refuses_every_change() {
    let stage = Stage::default();
    drop(furnished(&stage));
    let mut config = SessionConfig::new(TransportKind::Dev);
    config.readonly = true;
    let mut client = Client::with_config(Arc::clone(&stage.fs), config);
    client.init(45, InitFlags::all().difference(InitFlags::NO_OPENDIR_SUPPORT));
    let dir = client.lookup(1, b"dir").unwrap();
    let file = client.lookup(dir, b"file").unwrap();
    let link = client.lookup(dir, b"link").unwrap();
    let fh = client.open(Opcode::Open, file, 0).unwrap();
    let dir_fh = client.open(Opcode::Opendir, dir, 0).unwrap();
    let changes = [
        Opcode::Setattr,
        Opcode::Symlink,
        Opcode::Mknod,
        Opcode::Mkdir,
        Opcode::Rmdir,
        Opcode::Unlink,
        Opcode::Rename,
        Opcode::Rename2,
        Opcode::Link,
        Opcode::Open,
        Opcode::Create,
        Opcode::Tmpfile,
        Opcode::Setxattr,
        Opcode::Removexattr,
        Opcode::Write,
        Opcode::Fallocate,
        Opcode::CopyFileRange,
        Opcode::CopyFileRange64,
    ];
    for Valid { opcode, node, body, .. } in valid_requests(&Ids { dir, file, link, fh, dir_fh }) {
        if opcode.has_reply() {
            let refused = client.ask(opcode, node, &body) == Err(Errno::EROFS);
            assert_eq!(refused, changes.contains(&opcode), "{opcode:?}");
        }
    }
}

#[test]
fn lookup_of_an_absent_name_is_node_0_where_it_may_be_kept() {
    let kept = Stage::new(MemFs::builder().cache_policy(CachePolicy::Always));
    let reply =
        Client::started(Arc::clone(&kept.fs)).ask(Opcode::Lookup, 1, &Body::new().name(b"n"));
    let reply = reply.unwrap();
    let mut fields = Fields::of(&reply);
    assert_eq!((reply.len(), fields.u64()), (ENTRY, 0));
    assert!(fields.skip(8).u64() > 0, "it may be kept for a while");
    let fresh = Stage::new(MemFs::builder().cache_policy(CachePolicy::Never));
    assert_eq!(Client::started(Arc::clone(&fresh.fs)).lookup(1, b"n"), Err(Errno::ENOENT));
}

#[test]
fn read_gives_what_was_asked_and_what_fits() {
    let stage = Stage::default();
    let (mut client, Ids { file, fh, .. }) = furnished(&stage);
    assert_eq!(client.read(file, fh, 0, 4096).unwrap(), b"data");
    assert_eq!(client.read(file, fh, 1, 2).unwrap(), b"at");
    assert_eq!(client.read(file, fh, 0, u32::MAX).unwrap(), b"data");
    assert_eq!(client.read(file, fh, i64::MAX.cast_unsigned() + 1, 1), Err(Errno::EINVAL));
    client.room = 3;
    assert_eq!(client.read(file, fh, 0, 4096).unwrap(), b"dat");
}

#[test]
fn write_that_claims_another_size_than_it_has_is_einval() {
    let stage = Stage::default();
    let (mut client, Ids { file, fh, .. }) = furnished(&stage);
    for lie in [0_u32, 3, 5, 1 << 31, u32::MAX] {
        let mut body = write_body(fh, 0, b"DATA");
        body.0[16..20].copy_from_slice(&lie.to_ne_bytes());
        assert_eq!(client.ask(Opcode::Write, file, &body), Err(Errno::EINVAL), "{lie}");
    }
    let large = vec![7; (1 << 20) + 1];
    assert_eq!(client.write(file, fh, 0, &large), Err(Errno::EINVAL));
    assert_eq!(client.write(file, fh, 0, &large[1..]), Ok(1 << 20));
}

#[test]
fn readdir_lists_every_entry_once_whatever_the_size() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let mut expected = vec![b".".to_vec(), b"..".to_vec()];
    for index in 0..50_usize {
        let name = vec![b'a' + u8::try_from(index % 26).unwrap(); 1 + index * 5];
        client.mkdir(1, &name);
        expected.push(name);
    }
    let fh = client.open(Opcode::Opendir, 1, 0).unwrap();
    expected.sort();
    for (opcode, size) in
        [(Opcode::Readdir, 300), (Opcode::Readdir, 4096), (Opcode::Readdir, 65_536)]
    {
        let (mut cookie, mut found) = (0, Vec::new());
        loop {
            let reply = client.ask(opcode, 1, &read_body(fh, cookie, size)).unwrap();
            assert!(reply.len() <= size as usize && reply.len().is_multiple_of(8));
            let Some((_, last, _, _)) = entries(&reply).last().cloned() else { break };
            cookie = last;
            found.extend(entries(&reply).into_iter().map(|(.., name)| name));
        }
        found.sort();
        assert_eq!(found, expected, "by {size}");
    }
}

#[test]
fn getxattr_asks_for_the_size_gives_the_value_and_is_capped() {
    let stage = Stage::default();
    let (mut client, Ids { file, .. }) = furnished(&stage);
    let get = |client: &mut Client, size: u32| {
        client.ask(Opcode::Getxattr, file, &Body::new().u32(size).u32(0).name(b"user.big"))
    };
    assert_eq!(get(&mut client, 0), Err(Errno::ENODATA));
    let value = vec![b'v'; 2000];
    let set = Body::new().u32(2000).u32(0).u32(0).u32(0).name(b"user.big").bytes(&value);
    client.ask(Opcode::Setxattr, file, &set).unwrap();
    assert_eq!(get(&mut client, 0), Ok(Body::new().u32(2000).u32(0).0));
    assert_eq!(get(&mut client, 1999), Err(Errno::ERANGE));
    assert_eq!(get(&mut client, 2000), Ok(value.clone()));
    assert_eq!(get(&mut client, u32::MAX), Ok(value));
    client.room = 0;
    assert_eq!(get(&mut client, 2000), Err(Errno::ERANGE), "no room is not a question");
}

#[test]
fn setxattr_is_shorter_for_an_old_client() {
    let stage = Stage::default();
    let mut client = Client::new(Arc::clone(&stage.fs));
    client.init(31, InitFlags::all().difference(InitFlags::SETXATTR_EXT | InitFlags::INIT_EXT));
    let set = Body::new().u32(1).u32(0).name(b"user.a").bytes(b"v");
    client.ask(Opcode::Setxattr, 1, &set).unwrap();
    assert!(stage.recorder.take()[0].contains("value: [118]"));
}

#[test]
fn setxattr_of_more_than_64_kib_is_e2big() {
    let stage = Stage::default();
    let mut client = Client::started(Arc::clone(&stage.fs));
    let set = |len: u32| {
        let value = vec![0; len as usize];
        Body::new().u32(len).u32(0).u32(0).u32(0).name(b"user.a").bytes(&value)
    };
    assert_eq!(client.ask(Opcode::Setxattr, 1, &set(65_537)), Err(Errno::E2BIG));
    assert_eq!(client.ask(Opcode::Setxattr, 1, &set(1 << 20)), Err(Errno::E2BIG));
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

#[test]
fn names_that_name_nothing_are_refused_unseen() {
    let stage = Stage::default();
    let (mut client, Ids { dir, .. }) = furnished(&stage);
    let long = [b'n'; 256];
    for (name, errno) in [
        (&b""[..], Errno::EINVAL),
        (b".", Errno::EINVAL),
        (b"..", Errno::EINVAL),
        (b"a/b", Errno::EINVAL),
        (b"../x", Errno::EINVAL),
        (b"x/", Errno::EINVAL),
        (&long, Errno::ENAMETOOLONG),
    ] {
        for (opcode, body) in [
            (Opcode::Lookup, Body::new().name(name)),
            (Opcode::Symlink, Body::new().name(name).name(b"t")),
            (Opcode::Mknod, Body::new().u32(0o100_644).u32(0).u32(0).u32(0).name(name)),
            (Opcode::Mkdir, Body::new().u32(0o755).u32(0).name(name)),
            (Opcode::Unlink, Body::new().name(name)),
            (Opcode::Rmdir, Body::new().name(name)),
            (Opcode::Rename, Body::new().u64(dir).name(name).name(b"n")),
            (Opcode::Rename, Body::new().u64(dir).name(b"n").name(name)),
            (Opcode::Rename2, Body::new().u64(dir).u32(0).u32(0).name(b"n").name(name)),
            (Opcode::Link, Body::new().u64(dir).name(name)),
            (Opcode::Create, create_body(O_RDWR, 0o644, name)),
        ] {
            assert_eq!(client.ask(opcode, dir, &body), Err(errno), "{opcode:?} {name:?}");
        }
    }
    assert_eq!(stage.recorder.take(), <[String; 0]>::default());
}

#[test]
fn ioctl_of_anything_but_inode_flags_is_enotty() {
    let stage = Stage::new(MemFs::builder().cache_policy(CachePolicy::Auto));
    let mut client = Client::started(Arc::clone(&stage.fs));
    let (node, fh) = client.create(1, b"f");
    for cmd in [0x8008_6601, 0x4008_6602, 0x5401, 0] {
        let asked = client.ask(Opcode::Ioctl, node, &ioctl_body(fh, cmd, b"", 8));
        assert_eq!(asked, Err(Errno::ENOTTY), "{cmd:#x}");
    }
}
