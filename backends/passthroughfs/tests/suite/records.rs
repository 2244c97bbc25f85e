//! The ownership record, as other tools keep it and as nobody should.

use stratafs_core::{Context, DynFileSystem, XattrMode};
use stratafs_core::{Errno, FileType, NodeId, XattrName};
use stratafs_testkit::Client;

use crate::support::{RECORD, Share, logged};

#[test]
fn stat_of_files_with_records_of_other_tools_shows_what_they_say() {
    let share = Share::plain();
    for (name, text, uid, gid, mode) in [
        ("podman", "1000:1001:0644:file", 1000, 1001, 0o100_644),
        ("overlayfs", "7:8:4755", 7, 8, 0o104_755),
        ("libkrun", "0:5:0100600", 0, 5, 0o100_600),
        ("pipe", "1:2:0666:pipe", 1, 2, 0o010_666),
        ("socket", "1:2:0700:socket", 1, 2, 0o140_700),
        ("device", "0:6:0660:block-8-1", 0, 6, 0o060_660),
    ] {
        std::fs::write(share.host(name), b"12345").unwrap();
        share.set_record(name, text);
        let attr = share.world().stat(name).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode), (uid, gid, mode), "{name}");
    }
    assert_eq!(share.world().stat("device").unwrap().rdev, 0x801);
    assert_eq!(share.world().stat("pipe").unwrap().size, 0);
    assert_eq!(share.world().stat("podman").unwrap().size, 5);
}

#[test]
fn stat_after_the_host_changed_the_record_shows_the_new_one() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"").unwrap();
    let held = share.lookup(NodeId::ROOT, "f").unwrap();
    for uid in 0..50 {
        share.set_record("f", &format!("{uid}:{uid}:0640"));
        assert_eq!(w.stat("f").unwrap().uid, uid, "at once, and while the node is known");
    }
    share.fs.forget(held.node, 1);
}

#[test]
fn corrupt_record_is_eio_logged_once_and_harms_nobody_else() {
    let lines = logged();
    let share = Share::plain();
    let w = share.world();
    w.file("good", b"data").unwrap();
    w.mkdir("dir", 0o755).unwrap();
    for (name, text) in [("a", "0:0"), ("b", "root:root:755"), ("c", "0:0:755:dir"), ("d", "")] {
        std::fs::write(share.host(name), b"precious").unwrap();
        share.set_record(name, text);
        for _ in 0..3 {
            assert_eq!(w.stat(name).unwrap_err(), Errno::EIO, "{name}");
            assert_eq!(w.chmod(name, 0o600).unwrap_err(), Errno::EIO, "{name}");
        }
        let ino = std::os::unix::fs::MetadataExt::ino(&share.host(name).metadata().unwrap());
        let about = |line: &&String| line.contains(&format!("inode {ino} "));
        assert_eq!(lines.lock().unwrap().iter().filter(about).count(), 1, "{name}");
        assert_eq!(share.record(name).as_deref(), Some(text), "never repaired by a guess");
    }
    share.set_record("dir", "0:0:755:file");
    assert_eq!(w.stat("dir").unwrap_err(), Errno::EIO);
    assert_eq!(w.read("good").unwrap(), b"data");
    assert_eq!(w.names("").unwrap(), ["a", "b", "c", "d", "dir", "good"]);
    assert_eq!(std::fs::read(share.host("a")).unwrap(), b"precious");
    share.set_record("a", "3:4:0600");
    assert_eq!(w.stat("a").unwrap().uid, 3, "repaired on the host, good again");
}

#[test]
fn record_too_long_is_eio() {
    let share = Share::plain();
    std::fs::write(share.host("f"), b"").unwrap();
    share.set_record("f", &format!("0:0:0644{}", " ".repeat(200)));
    assert_eq!(share.world().stat("f").unwrap_err(), Errno::EIO);
}

#[test]
fn record_is_hidden_from_clients_and_shown_to_layers() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"").unwrap();
    w.setxattr("f", b"user.mine", b"1", XattrMode::Set).unwrap();
    let record = RECORD.as_bytes();
    assert_eq!(w.getxattr("f", record).unwrap_err(), Errno::ENODATA);
    for mode in [XattrMode::Set, XattrMode::Create, XattrMode::Replace] {
        assert_eq!(w.setxattr("f", record, b"0:0:0777", mode).unwrap_err(), Errno::EPERM);
    }
    assert_eq!(w.removexattr("f", record).unwrap_err(), Errno::EPERM);
    assert_eq!(w.listxattr("f").unwrap(), [b"user.mine"]);
    assert_eq!(share.client.listxattr_sized(b"f", 0).unwrap(), b"user.mine\0".len());
    assert_eq!(share.client.listxattr_sized(b"f", 9).unwrap_err(), Errno::ERANGE);

    let layer = Context::internal();
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    let name = XattrName::new(record).unwrap();
    let mut value = [0; 64];
    let len = share.fs.getxattr(&layer, entry.node, name, &mut value).unwrap();
    assert_eq!(&value[..len], b"0:0:0644");
    let set = share.fs.setxattr(&layer, entry.node, name, b"5:6:0600", XattrMode::Set, false);
    assert_eq!(set, Ok(()));
    assert_eq!(w.stat("f").unwrap().uid, 5);
    share.fs.forget(entry.node, 1);
}

#[test]
fn privileged_attributes_are_kept_where_the_host_gives_them_no_power() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"").unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    w.setxattr("f", b"security.capability", &capability, XattrMode::Set).unwrap();
    w.setxattr("f", b"trusted.overlay.opaque", b"y", XattrMode::Set).unwrap();
    assert_eq!(w.getxattr("f", b"security.capability").unwrap(), capability);
    let mut names = w.listxattr("f").unwrap();
    names.sort();
    assert_eq!(names, [&b"security.capability"[..], b"trusted.overlay.opaque"]);
    let host = crate::support::host_xattr;
    let path = share.host("f");
    assert_eq!(host(&path, "security.capability"), None);
    assert_eq!(host(&path, "trusted.overlay.opaque"), None);
    assert!(host(&path, "user.stratafs.security.capability").is_some());
    assert_eq!(w.getxattr("f", b"user.stratafs.security.capability").unwrap_err(), Errno::ENODATA);
    let forged = w.setxattr("f", b"user.stratafs.trusted.x", b"", XattrMode::Set);
    assert_eq!(forged.unwrap_err(), Errno::EPERM);
    assert_eq!(
        w.setxattr("f", b"system.posix_acl_access", b"", XattrMode::Set),
        Err(Errno::EOPNOTSUPP)
    );
}

#[test]
fn listing_shows_the_type_that_the_record_says() {
    let share = Share::plain();
    let w = share.world();
    w.mknod("pipe", 0o010_644, 0).unwrap();
    w.file("file", b"").unwrap();
    w.mkdir("dir", 0o755).unwrap();
    let kind = |name: &str| {
        let list = w.list("").unwrap();
        list.into_iter().find(|entry| entry.name == name.as_bytes()).unwrap().kind
    };
    assert_eq!(kind("pipe"), Some(FileType::Fifo));
    assert_eq!(kind("file"), Some(FileType::Regular));
    assert_eq!(kind("dir"), Some(FileType::Directory));
}
