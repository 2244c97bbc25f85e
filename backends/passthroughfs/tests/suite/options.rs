//! Options: what they do, and what they refuse in words.

use std::os::unix::fs::symlink;
use std::time::Duration;

use stratafs_core::{
    Behaviours, CachePolicy, DynFileSystem, Errno, Lookup, Name, Negotiated, NodeId, OpenFlags,
    OpenedFlags, RenameFlags, XattrMode,
};
use stratafs_passthroughfs::{BuildError, Builder, OpenMode, Ownership, PassthroughFs};
use stratafs_testkit::{Client, InProcess, World};

use crate::support::{RECORD, Share, root, set_host_xattr, snapshot};

fn refused(builder: Builder) -> BuildError {
    builder.build().unwrap_err()
}

fn builder(path: &std::path::Path) -> Builder {
    PassthroughFs::builder().root_dir(path).ownership(Ownership::Virtual)
}

#[test]
fn roots_that_cannot_be_shared_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(matches!(refused(PassthroughFs::builder()), BuildError::NoRoot));
    let missing = refused(builder(&at("missing")));
    assert!(matches!(missing, BuildError::Open { cause: Errno::ENOENT, .. }), "{missing}");
    assert!(missing.to_string().contains("make it"), "{missing}");
    symlink(dir.path(), at("link")).unwrap();
    for name in ["link", "link/", "link//"] {
        assert!(matches!(refused(builder(&at(name))), BuildError::Symlink(_)), "{name}");
        builder(&at(name)).follow_root(true).build().unwrap();
    }
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    assert!(matches!(refused(builder(&at("socket"))), BuildError::Type(_)));
    drop(socket);
    let proc = refused(builder("/proc".as_ref()));
    assert!(matches!(proc, BuildError::NoXattr { cause: Errno::EOPNOTSUPP, .. }), "{proc}");
    assert!(proc.to_string().contains("ownership=squash"), "{proc}");
    builder("/proc".as_ref()).ownership(Ownership::Squash).build().unwrap();
    builder("/proc".as_ref()).readonly(true).build().unwrap();
    assert!(matches!(refused(builder(dir.path()).fd_budget(7)), BuildError::Budget(7)));
    let contradiction = builder(dir.path()).writeback(true).cache_policy(CachePolicy::Never);
    assert!(matches!(refused(contradiction), BuildError::Conflict(_)));
}

/// Each refusal names what was tried, on what, the error where there is one, and what to do.
#[test]
fn refusals_name_operation_object_cause_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink(dir.path(), at("link")).unwrap();
    symlink("circle", at("circle")).unwrap();
    std::fs::write(at("file"), b"").unwrap();
    std::fs::create_dir(at("corrupt")).unwrap();
    set_host_xattr(&at("corrupt"), RECORD, b"root:root:755");
    std::fs::create_dir(at("as-file")).unwrap();
    set_host_xattr(&at("as-file"), RECORD, b"0:0:755:file");
    let share = |name: &str| builder(&at(name));
    let with_extra = |extra: &std::path::Path| builder(dir.path()).extra_root(extra);
    for (refused, object, words) in [
        (share("missing"), "missing", &["open", "ENOENT", "make it"][..]),
        (share("file/x"), "file/x", &["open", "ENOTDIR", "no directory"]),
        (share("circle").follow_root(true), "circle", &["open", "ELOOP", "in a circle"]),
        (share(&"x".repeat(300)), "xxx", &["open", "ENAMETOOLONG", "shorter path"]),
        (share("link"), "link", &["symbolic link", "give its target", "follow_root"]),
        (share("corrupt"), "corrupt", &["read", "EIO", "root:root:755", "setfattr -x"]),
        (share("as-file"), "as-file", &["read", "EIO", "0:0:755:file", "setfattr -x"]),
        (builder("/dev/null".as_ref()), "/dev/null", &["share", "a directory"]),
        (builder("/proc".as_ref()), "/proc", &["EOPNOTSUPP", "attributes", "ownership=squash"]),
        (with_extra(&at("file")), "file", &["second root", "choose"]),
        (with_extra("/proc".as_ref()), "/proc", &["EXDEV", "choose"]),
        (builder(dir.path()).fd_budget(3), "fd_budget=3", &["at least 8"]),
    ] {
        let text = refused.build().unwrap_err().to_string();
        for word in [object].iter().chain(words) {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
    }
    builder(&at("corrupt")).ownership(Ownership::Squash).build().unwrap();
}

#[test]
fn readonly_share_refuses_every_change_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"data").unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    let before = snapshot(dir.path());
    let share = Share::over(dir, |b| b.readonly(true));
    let w = share.world();
    let rofs = |outcome: Result<(), Errno>| assert_eq!(outcome, Err(Errno::EROFS));
    rofs(w.mkdir("new", 0o755));
    rofs(w.mknod("new", 0o100_644, 0));
    rofs(w.symlink("x", "new"));
    rofs(w.link("f", "new"));
    rofs(w.unlink("f"));
    rofs(w.rmdir("d"));
    rofs(w.rename("f", "g"));
    rofs(share.client.rename(b"f", b"l", RenameFlags::EXCHANGE));
    rofs(w.chmod("f", 0o777));
    rofs(w.chown("f", Some(1), None));
    rofs(w.truncate("f", 0));
    rofs(w.utimens("f", Some(stratafs_core::SetTime::Now), None));
    rofs(w.setxattr("f", b"user.x", b"1", XattrMode::Set));
    rofs(w.removexattr("f", b"user.x"));
    rofs(w.create("new", OpenFlags::READ_WRITE, 0o644).map(drop));
    rofs(w.tmpfile("", OpenFlags::READ_WRITE, 0o644).map(drop));
    rofs(w.open("f", OpenFlags::WRITE_ONLY).map(drop));
    rofs(w.open("f", OpenFlags::READ_WRITE).map(drop));
    rofs(w.open("f", OpenFlags::READ_ONLY.with_truncate()).map(drop));
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    rofs(share.fs.set_inode_flags(&root(), entry.node, 0));
    share.fs.forget(entry.node, 1);
    // What is there is readable, by O_CREAT too.
    let fd = w.create("f", OpenFlags::READ_ONLY, 0o644).unwrap();
    assert_eq!(w.read_fd(fd).unwrap(), b"data");
    w.close(fd).unwrap();
    assert_eq!(w.read("f").unwrap(), b"data");
    assert_eq!(snapshot(share.dir.path()), before);
    assert!(share.fs.features().bears(Behaviours::READ_ONLY));
}

#[test]
fn single_file_is_all_there_is_and_an_editor_that_renames_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shared");
    std::fs::write(&path, b"one").unwrap();
    std::fs::write(dir.path().join("secret"), b"no").unwrap();
    let fs = std::sync::Arc::new(builder(&path).build().unwrap());
    let client = InProcess::new(std::sync::Arc::clone(&fs) as _);
    let w = World::new(&client as &dyn Client, b"".as_slice());
    assert_eq!(w.names("").unwrap(), ["shared"]);
    let list: Vec<_> = w.list("").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(list, [&b"."[..], b"..", b"shared"]);
    assert_eq!(w.read("shared").unwrap(), b"one");
    assert_eq!(w.stat("secret").unwrap_err(), Errno::ENOENT);
    let eperm = |outcome: Result<(), Errno>| assert_eq!(outcome, Err(Errno::EPERM));
    eperm(w.mkdir("new", 0o755));
    eperm(w.create("new", OpenFlags::READ_WRITE, 0o644).map(drop));
    eperm(w.create("secret", OpenFlags::READ_WRITE, 0o644).map(drop));
    eperm(w.tmpfile("", OpenFlags::READ_WRITE, 0o644).map(drop));
    eperm(w.unlink("shared"));
    eperm(w.rename("secret", "shared"));
    eperm(w.link("shared", "more"));
    eperm(w.chmod("", 0o777));
    eperm(w.setxattr("", b"user.x", b"", XattrMode::Set));
    w.write_at("shared", 0, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    let fd = w.create("shared", OpenFlags::READ_WRITE.with_truncate(), 0o644).unwrap();
    w.close(fd).unwrap();
    std::fs::write(dir.path().join("aside"), b"three").unwrap();
    std::fs::rename(dir.path().join("aside"), &path).unwrap();
    assert_eq!(w.read("shared").unwrap(), b"three");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(w.stat("shared").unwrap_err(), Errno::ENOENT);
    assert_eq!(w.names("").unwrap(), [""; 0]);
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    assert!(matches!(refused(builder(&dir.path().join("link"))), BuildError::Symlink(_)));
    let followed = builder(&dir.path().join("link")).follow_root(true);
    assert!(matches!(refused(followed), BuildError::Symlink(_)), "its directory is elsewhere");
}

#[test]
fn extra_root_is_one_filesystem_with_the_root_and_not_in_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("f"), b"data").unwrap();
    let fs = builder(&upper).extra_root(&work).build().unwrap();
    let extra = fs.extra_root().unwrap();
    let name = Name::new(b"f").unwrap();
    let entry = fs.lookup(&root(), extra, name).unwrap().found().unwrap();
    let none = RenameFlags::empty();
    fs.rename(&root(), extra, name, NodeId::ROOT, name, none).unwrap();
    let moved = fs.lookup(&root(), NodeId::ROOT, name).unwrap().found().unwrap();
    assert_eq!(moved.node, entry.node);
    fs.link(&root(), entry.node, extra, name).unwrap();
    assert!(upper.join("f").exists() && work.join("f").exists());
    fs.forget(extra, u64::MAX);
    assert!(fs.getattr(&root(), extra, None).is_ok(), "it is never forgotten");
    assert!(matches!(
        fs.lookup(&root(), NodeId::ROOT, Name::new(b"work").unwrap()).unwrap(),
        Lookup::Absent(_)
    ));
    let elsewhere = builder(&upper).extra_root("/proc");
    assert!(matches!(refused(elsewhere), BuildError::ExtraMount(_)));
    let file = builder(&upper).extra_root(upper.join("f"));
    assert!(matches!(refused(file), BuildError::ExtraType(_)));
    assert!(matches!(refused(builder(&upper).extra_root(&upper)), BuildError::Conflict(_)));
}

#[test]
fn cache_options_come_out_in_entries_and_opens() {
    let second = Duration::from_secs(1);
    let show = |share: &Share| {
        std::fs::write(share.host("f"), b"").unwrap();
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        let absent = Name::new(b"absent").unwrap();
        let Ok(Lookup::Absent(negative)) = share.fs.lookup(&root(), NodeId::ROOT, absent) else {
            panic!("it is absent");
        };
        let opened = share.fs.open(&root(), entry.node, OpenFlags::READ_ONLY, false).unwrap();
        (entry.entry_timeout, entry.attr_timeout, negative, opened.flags)
    };
    let none = OpenedFlags::empty();
    assert_eq!(show(&Share::plain()), (second, second, Duration::ZERO, none));
    let never = show(&Share::new(|b| b.cache_policy(CachePolicy::Never)));
    assert_eq!((never.0, never.1, never.2), (Duration::ZERO, Duration::ZERO, Duration::ZERO));
    assert!(never.3.contains(OpenedFlags::DIRECT_IO));
    let exclusive = show(&Share::new(|b| b.exclusive(true)));
    assert!(exclusive.0 > 60 * second && exclusive.2 > 60 * second);
    assert_eq!(exclusive.3, OpenedFlags::KEEP_CACHE);
    let set = show(&Share::new(|b| {
        b.entry_timeout(2 * second).attr_timeout(3 * second).negative_timeout(4 * second)
    }));
    assert_eq!(set, (2 * second, 3 * second, 4 * second, none));
}

#[test]
fn features_follow_the_options() {
    let bears = |share: &Share, what| share.fs.features().bears(what);
    let plain = Share::plain();
    assert!(bears(&plain, Behaviours::PASSTHROUGH | Behaviours::ATOMIC_O_TRUNC));
    assert!(!plain.fs.features().behaviours.intersects(
        Behaviours::NO_OPEN | Behaviours::WRITEBACK | Behaviours::EXCLUSIVE | Behaviours::READ_ONLY
    ));
    let stateless = Share::new(|b| b.open(OpenMode::Stateless));
    assert!(bears(&stateless, Behaviours::NO_OPEN));
    // O_TRUNC of an open that is never sent would be lost.
    assert!(
        !stateless.fs.features().behaviours.intersects(
            Behaviours::ATOMIC_O_TRUNC | Behaviours::PASSTHROUGH | Behaviours::NO_OPENDIR
        )
    );
    let writeback = Share::new(|b| b.writeback(true));
    assert!(
        bears(&writeback, Behaviours::WRITEBACK) && !bears(&writeback, Behaviours::PASSTHROUGH)
    );
    let no_xattr = Share::new(|b| b.xattr(false));
    assert!(!bears(&no_xattr, Behaviours::XATTR_USER));
    no_xattr.world().file("f", b"").unwrap();
    assert_eq!(no_xattr.world().getxattr("f", b"user.x").unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(no_xattr.world().stat("f").unwrap().uid, 0, "the record is kept all the same");
}

#[test]
fn backing_is_offered_and_never_for_writing_a_file_with_privileges() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"data").unwrap();
    w.file("suid", b"data").unwrap();
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    let opened = share.fs.open(&root(), entry.node, OpenFlags::READ_ONLY, false).unwrap();
    assert!(opened.backing.is_none(), "no session has any use for it");
    share.fs.release(&root(), entry.node, opened.handle, Default::default()).unwrap();
    share.fs.init(&Negotiated::new(45, 4096, Behaviours::PASSTHROUGH)).unwrap();
    w.chmod("suid", 0o4755).unwrap();
    let offered = |name: &str, flags| {
        let entry = share.lookup(NodeId::ROOT, name).unwrap();
        let opened = share.fs.open(&root(), entry.node, flags, false).unwrap();
        share.fs.release(&root(), entry.node, opened.handle, Default::default()).unwrap();
        share.fs.forget(entry.node, 1);
        opened.backing.is_some()
    };
    assert!(offered("f", OpenFlags::READ_ONLY) && offered("f", OpenFlags::READ_WRITE));
    assert!(offered("suid", OpenFlags::READ_ONLY));
    assert!(!offered("suid", OpenFlags::WRITE_ONLY) && !offered("suid", OpenFlags::READ_WRITE));
    w.setxattr("f", b"security.capability", b"x", XattrMode::Set).unwrap();
    assert!(!offered("f", OpenFlags::READ_WRITE));
    let writeback = Share::new(|b| b.writeback(true));
    writeback.fs.init(&Negotiated::new(45, 4096, Behaviours::PASSTHROUGH)).unwrap();
    let fd = writeback.world().create("f", OpenFlags::READ_WRITE, 0o644).unwrap();
    let (node, _) = writeback.client.ids(fd).unwrap();
    let opened = writeback.fs.open(&root(), node, OpenFlags::READ_ONLY, false).unwrap();
    assert!(opened.backing.is_none(), "they exclude each other");
    writeback.fs.release(&root(), node, opened.handle, Default::default()).unwrap();
    writeback.world().close(fd).unwrap();
}

#[test]
fn backing_tells_its_size_where_the_client_keeps_what_it_read() {
    for (policy, size) in [(CachePolicy::Auto, None), (CachePolicy::Always, Some(4))] {
        let share = Share::new(|b| b.cache_policy(policy));
        share.fs.init(&Negotiated::new(45, 4096, Behaviours::PASSTHROUGH)).unwrap();
        share.world().file("f", b"data").unwrap();
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        let opens = |flags, size: Option<u64>| {
            let opened = share.fs.open(&root(), entry.node, flags, false).unwrap();
            assert_eq!(opened.backing.unwrap().size(), size, "{policy:?}, {flags:?}");
            opened.handle
        };
        let closes = |handle| {
            share.fs.release(&root(), entry.node, handle, Default::default()).unwrap();
        };
        closes(opens(OpenFlags::READ_ONLY, size));
        // Written to past the server, as the client's kernel does.
        let writer = opens(OpenFlags::READ_WRITE, None);
        std::fs::write(share.host("f"), b"more data").unwrap();
        closes(writer);
        for _ in 0..2 {
            closes(opens(OpenFlags::READ_ONLY, size.map(|_| 9)));
        }
        share.fs.forget(entry.node, 1);
    }
}
