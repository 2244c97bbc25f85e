//! Owners and modes: what the client sees, and what the host has.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::Arc;

use stratafs_core::{
    Context, CopyRange, DynFileSystem, Errno, FallocateMode, FileType, Name, NodeId, OpenFlags,
    RenameFlags, SetAttr,
};
use stratafs_passthroughfs::Ownership;
use stratafs_testkit::{Caller, Client};

use crate::support::{As, NOBODY, Share, in_child, is_root, root};

#[test]
fn create_leaves_a_plain_file_with_a_record_on_the_host() {
    let share = Share::plain();
    let w = share.world();
    share.ask_for(&Caller::user(1000, 100).with_umask(0o022));
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o6777).unwrap();
    w.close(fd).unwrap();
    w.mkdir("d", 0o1777).unwrap();
    share.ask_for(&Caller::ROOT);
    assert_eq!((share.host_mode("f"), share.host_mode("d")), (0o100_600, 0o040_700));
    assert_eq!(share.record("f").as_deref(), Some("1000:100:6755"));
    assert_eq!(share.record("d").as_deref(), Some("1000:100:1755"));
    let server = stratafs_sys::creds::effective();
    let meta = share.host("f").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), server);
    let attr = w.stat("f").unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 100, 0o106_755));
}

#[test]
fn special_files_are_ordinary_ones_on_the_host_and_never_opened() {
    let share = Share::plain();
    let w = share.world();
    for (name, mode, rdev) in [
        ("pipe", 0o010_644, 0),
        ("socket", 0o140_600, 0),
        ("char", 0o020_666, 0x103),
        ("block", 0o060_660, 0x0010_0801),
        ("white", 0o020_000, 0),
    ] {
        w.mknod(name, mode, rdev).unwrap();
        let attr = w.stat(name).unwrap();
        assert_eq!((attr.mode, attr.rdev), (mode, rdev), "{name}");
        assert_eq!(share.host_mode(name), 0o100_600, "{name}");
        assert_eq!(w.open(name, OpenFlags::READ_ONLY).unwrap_err(), Errno::ENXIO, "{name}");
        assert_eq!(w.truncate(name, 10).unwrap_err(), Errno::EINVAL, "{name}");
        w.chmod(name, 0o600).unwrap();
        assert_eq!(w.stat(name).unwrap().mode, (mode & 0o170_000) | 0o600, "the type stays");
    }
    assert_eq!(share.record("block").as_deref(), Some("0:0:0600:block-8-257"));
    assert_eq!(std::fs::read(share.host("pipe")).unwrap(), b"");
}

#[test]
fn whiteout_of_a_layer_is_a_real_one() {
    let share = Share::plain();
    let name = Name::new(b"gone").unwrap();
    let entry = share.fs.mknod(&Context::internal(), NodeId::ROOT, name, 0o020_000, 0).unwrap();
    assert_eq!(entry.attr.kind(), FileType::CharDevice);
    let meta = std::fs::symlink_metadata(share.host("gone")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
    share.fs.forget(entry.node, 1);
}

#[test]
fn symlink_of_the_default_owner_is_one_on_the_host_and_another_is_a_file() {
    let share = Share::plain();
    let w = share.world();
    w.symlink("to/root", "mine").unwrap();
    share.ask_for(&Caller::user(1000, 100).with_umask(0o077));
    w.symlink("to/user", "his").unwrap();
    share.ask_for(&Caller::ROOT);
    assert_eq!(std::fs::read_link(share.host("mine")).unwrap().to_str(), Some("to/root"));
    assert_eq!(std::fs::read(share.host("his")).unwrap(), b"to/user");
    assert_eq!(share.record("his").as_deref(), Some("1000:100:0777:symlink"));
    let attr = w.stat("his").unwrap();
    assert_eq!((attr.mode, attr.uid, attr.size), (0o120_777, 1000, 7));
    assert_eq!(w.readlink("his").unwrap(), b"to/user");
    assert_eq!(w.open("his", OpenFlags::READ_ONLY).unwrap_err(), Errno::ELOOP);
    let kinds: Vec<_> = w.list("").unwrap().iter().filter_map(|entry| entry.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == FileType::Symlink).count(), 2);
    w.unlink("his").unwrap();
}

#[test]
fn chown_of_a_host_symlink_turns_it_into_a_file_in_one_step() {
    let share = Share::plain();
    let w = share.world();
    w.symlink("target", "link").unwrap();
    let before = w.stat("link").unwrap();
    let held = share.lookup(NodeId::ROOT, "link").unwrap();
    let mut set = SetAttr::new();
    (set.uid, set.gid) = (Some(7), Some(8));
    let after = share.fs.setattr(&root(), held.node, &set).unwrap().attr;
    assert_eq!((after.uid, after.gid, after.mode, after.size), (7, 8, 0o120_777, 6));
    assert_eq!(after.mtime, before.mtime);
    let again = share.lookup(NodeId::ROOT, "link").unwrap();
    assert_eq!(again.node, held.node, "the same node");
    assert_eq!((again.attr.ino, after.ino), (before.ino, before.ino), "as long as it is known");
    let listed = |w: &stratafs_testkit::World<'_>| w.list("").unwrap()[2].ino;
    assert_eq!(listed(&w), before.ino);
    assert_eq!(w.readlink("link").unwrap(), b"target");
    assert_eq!(share.record("link").as_deref(), Some("7:8:0777:symlink"));
    assert_eq!(w.names("").unwrap(), ["link"], "nothing is left aside");
    w.chown("link", Some(9), None).unwrap();
    assert_eq!(w.stat("link").unwrap().uid, 9);
    share.fs.forget(held.node, 2);
    assert_eq!(share.fs.usage().nodes, 1);
    assert_eq!(listed(&w), w.stat("link").unwrap().ino);
}

#[test]
fn chown_of_a_symlink_with_two_names_is_refused() {
    let share = Share::plain();
    let w = share.world();
    w.symlink("target", "a").unwrap();
    w.link("a", "b").unwrap();
    assert_eq!(w.chown("a", Some(7), None).unwrap_err(), Errno::EPERM);
    assert_eq!(w.readlink("b").unwrap(), b"target");
    w.chown("a", Some(0), Some(0)).unwrap();
}

#[test]
fn changes_of_one_record_by_many_threads_are_never_lost() {
    let share = Share::plain();
    share.world().file("f", b"").unwrap();
    let entry = share.lookup(NodeId::ROOT, "f").unwrap();
    let fs = Arc::clone(&share.fs);
    let set = |change: fn(&mut SetAttr, u32)| {
        let fs = Arc::clone(&fs);
        move || {
            for value in 0..=200 {
                let mut set = SetAttr::new();
                change(&mut set, value);
                fs.setattr(&root(), entry.node, &set).unwrap();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(set(|set, value| set.uid = Some(value)));
        scope.spawn(set(|set, value| set.gid = Some(value + 1000)));
        scope.spawn(set(|set, value| set.mode = Some(value & 0o777)));
    });
    let attr = share.world().stat("f").unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode & 0o777), (200, 1200, 200 & 0o777));
    share.fs.forget(entry.node, 1);
}

#[test]
fn file_without_a_record_shows_the_default_owner_or_the_mapped_one() {
    let (uid, gid) = stratafs_sys::creds::effective();
    let show = |share: &Share| {
        std::fs::write(share.host("f"), b"").unwrap();
        std::fs::set_permissions(share.host("f"), PermissionsExt::from_mode(0o640)).unwrap();
        let attr = share.world().stat("f").unwrap();
        (attr.uid, attr.gid, attr.mode & 0o777)
    };
    assert_eq!(show(&Share::new(|b| b.default_owner(12, 34))), (12, 34, 0o640));
    let rule = |id: u32, to: u32| format!("host:{id}:{to}:1").parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let fs = stratafs_passthroughfs::PassthroughFs::builder()
        .root_dir(dir.path())
        .ownership(Ownership::Virtual)
        .uid_map(rule(uid, 501))
        .gid_map(rule(gid, 502))
        .build()
        .unwrap();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let entry = fs.lookup(&root(), NodeId::ROOT, Name::new(b"f").unwrap()).unwrap();
    let attr = entry.found().unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (501, 502));
}

#[test]
fn kill_priv_comes_with_the_empty_setattr_allocation_and_copy() {
    for ownership in [Ownership::Virtual, Ownership::Host] {
        let share = Share::new(|builder| builder.ownership(ownership));
        let w = share.world();
        w.file("source", b"data").unwrap();
        w.file("f", b"data").unwrap();
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        let from = w.open("source", OpenFlags::READ_ONLY).unwrap();
        let fd = w.open("f", OpenFlags::READ_WRITE).unwrap();
        let set_again = || w.chmod("f", 0o6775).unwrap();
        let is_clean = || w.stat("f").unwrap().mode & 0o7777 == 0o775;

        set_again();
        let mut empty = SetAttr::new();
        empty.kill_priv = true;
        share.fs.setattr(&root(), entry.node, &empty).unwrap();
        assert!(is_clean(), "the empty setattr, {ownership:?}");

        set_again();
        w.fallocate(fd, FallocateMode::empty(), 0, 100).unwrap();
        assert!(is_clean(), "an allocation, {ownership:?}");

        set_again();
        let at = |fd| {
            let (node, handle) = share.client.ids(fd).unwrap();
            CopyRange::new(node, handle, 0)
        };
        share.fs.copy_file_range(&root(), at(from), at(fd), 4).unwrap();
        assert!(is_clean(), "a copy, {ownership:?}");

        // The client's kernel does not ask for it on root's behalf.
        set_again();
        w.write_all(fd, 0, b"x").unwrap();
        assert!(!is_clean(), "a write of root's, {ownership:?}");
        w.close(fd).unwrap();
        w.close(from).unwrap();
        share.fs.forget(entry.node, 1);
    }
}

#[test]
fn host_ownership_applies_mapped_ids_for_real() {
    if !is_root("giving files away") {
        return;
    }
    let share = Share::new(|builder| {
        let map = "map:0:100000:65536".parse().unwrap();
        let forbid = "forbid-guest:65536:1000".parse().unwrap();
        builder.ownership(Ownership::Host).uid_map(map).uid_map(forbid).gid_map(map)
    });
    let w = share.world();
    share.ask_for(&Caller::user(5, 6));
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o4711).unwrap();
    w.close(fd).unwrap();
    w.mkdir("d", 0o755).unwrap();
    w.symlink("x", "l").unwrap();
    w.mknod("p", 0o010_600, 0).unwrap();
    share.ask_for(&Caller::ROOT);
    for name in ["f", "d", "l", "p"] {
        let meta = std::fs::symlink_metadata(share.host(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (100_005, 100_006), "{name}");
        let attr = w.stat(name).unwrap();
        assert_eq!((attr.uid, attr.gid), (5, 6), "{name}");
    }
    assert_eq!(share.host_mode("f"), 0o104_711, "setuid survives the chown");
    assert_eq!(w.chown("f", Some(65_536), None).unwrap_err(), Errno::EPERM);
    share.ask_for(&Caller::user(65_536, 0));
    assert_eq!(w.mkdir("no", 0o755).unwrap_err(), Errno::EPERM);
    assert!(!share.host("no").exists());
}

#[test]
fn squash_shows_one_owner_and_gives_no_power() {
    let share = Share::new(|b| b.ownership(Ownership::Squash).default_owner(42, 43));
    let w = share.world();
    share.ask_for(&Caller::user(1000, 1000));
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o6755).unwrap();
    w.close(fd).unwrap();
    let attr = w.stat("f").unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (42, 43, 0o100_755));
    assert_eq!(share.host_mode("f"), 0o100_755);
    assert_eq!(share.record("f"), None);
    w.chown("f", Some(42), Some(43)).unwrap();
    assert_eq!(w.chown("f", Some(0), None).unwrap_err(), Errno::EPERM);
    assert_eq!(w.chmod("f", 0o4755).unwrap_err(), Errno::EPERM);
    w.chmod("f", 0o640).unwrap();
    assert_eq!(share.host_mode("f"), 0o100_640);
    assert_eq!(w.mknod("dev", 0o020_666, 0x103).unwrap_err(), Errno::EPERM);
}

#[test]
fn server_without_privilege_gives_its_guest_all_of_roots_powers() {
    if !is_root("becoming nobody")
        || !in_child(
            "ownership::server_without_privilege_gives_its_guest_all_of_roots_powers",
            As::Nobody,
        )
    {
        return;
    }
    let share = Share::plain();
    let w = share.world();
    assert_eq!(stratafs_sys::creds::effective().0, NOBODY);
    w.file("f", b"data").unwrap();
    w.chown("f", Some(1), Some(2)).unwrap();
    w.chmod("f", 0o4000).unwrap();
    assert_eq!(w.read("f").unwrap(), b"data", "whatever the client's mode says");
    w.mkdir("d", 0o000).unwrap();
    w.chown("d", Some(3), Some(4)).unwrap();
    w.file("d/inner", b"").unwrap();
    w.mknod("dev", 0o020_600, 0x501).unwrap();
    w.symlink("t", "l").unwrap();
    w.chown("l", Some(5), Some(6)).unwrap();
    w.rename("d/inner", "moved").unwrap();
    let mut plain = 0;
    for (path, text) in crate::support::snapshot(share.dir.path()) {
        let mode = text.split(' ').next().unwrap();
        let owner = text.split(' ').nth(1).unwrap();
        assert!(["40700", "100600"].contains(&mode), "{} is {mode}", path.display());
        assert_eq!(owner, format!("{NOBODY}:{NOBODY}"));
        plain += 1;
    }
    assert_eq!(plain, 6, "the root and what was made");
}

#[test]
fn host_mode_that_keeps_the_server_out_is_opened_up_and_still_shown() {
    if !is_root("becoming nobody")
        || !in_child(
            "ownership::host_mode_that_keeps_the_server_out_is_opened_up_and_still_shown",
            As::Nobody,
        )
    {
        return;
    }
    let share = Share::plain();
    let w = share.world();
    std::fs::write(share.host("f"), b"data").unwrap();
    std::fs::set_permissions(share.host("f"), PermissionsExt::from_mode(0o444)).unwrap();
    w.write_at("f", 0, b"DATA").unwrap();
    assert_eq!(w.stat("f").unwrap().mode, 0o100_444, "as the host made it");
    assert_eq!(share.record("f").as_deref(), Some("0:0:0444"));
    assert_eq!(std::fs::read(share.host("f")).unwrap(), b"DATA");
    std::fs::create_dir(share.host("d")).unwrap();
    std::fs::set_permissions(share.host("d"), PermissionsExt::from_mode(0o300)).unwrap();
    assert_eq!(w.names("d").unwrap(), [""; 0]);
    assert_eq!(w.stat("d").unwrap().mode, 0o040_300);
    std::fs::create_dir(share.host("ro")).unwrap();
    std::fs::write(share.host("ro/f"), b"data").unwrap();
    let shut = || std::fs::set_permissions(share.host("ro"), PermissionsExt::from_mode(0o000));
    let made: [&dyn Fn() -> Result<(), Errno>; 9] = [
        &|| w.stat("ro/f").map(drop),
        &|| w.mkdir("ro/d", 0o755),
        &|| w.file("ro/new", b""),
        &|| w.symlink("t", "ro/l"),
        &|| w.mknod("ro/p", 0o010_644, 0),
        &|| w.link("ro/f", "ro/g"),
        &|| w.rename("ro/g", "ro/h"),
        &|| w.unlink("ro/h"),
        &|| w.rmdir("ro/d"),
    ];
    for (number, make) in made.iter().enumerate() {
        shut().unwrap();
        assert_eq!(make(), Ok(()), "step {number}");
    }
    assert_eq!(w.stat("ro").unwrap().mode, 0o040_000, "as it was shut");
}

#[test]
fn exchange_with_records_swaps_owners_with_names() {
    let share = Share::plain();
    let w = share.world();
    w.file("a", b"a").unwrap();
    w.file("b", b"b").unwrap();
    w.chown("a", Some(1), Some(1)).unwrap();
    share.client.rename(b"a", b"b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((w.stat("a").unwrap().uid, w.stat("b").unwrap().uid), (0, 1));
    assert_eq!(w.read("b").unwrap(), b"a");
}

#[test]
fn setuid_file_of_the_host_is_plain_there_once_the_client_changes_it() {
    let share = Share::plain();
    let w = share.world();
    std::fs::write(share.host("f"), b"").unwrap();
    std::fs::set_permissions(share.host("f"), PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(w.stat("f").unwrap().mode, 0o104_755, "it is shown as it is");
    w.chmod("f", 0o4711).unwrap();
    assert_eq!(w.stat("f").unwrap().mode, 0o104_711);
    assert_eq!(share.host_mode("f"), 0o100_755);
}

#[test]
fn create_without_o_excl_of_an_existing_file_opens_it_and_changes_no_owner() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"data").unwrap();
    w.chown("f", Some(1000), Some(100)).unwrap();
    w.chmod("f", 0o640).unwrap();
    let record = share.record("f");
    let inode = share.host("f").metadata().unwrap().ino();
    share.ask_for(&Caller::user(7, 8));
    let fd = w.create("f", OpenFlags::READ_WRITE, 0o777).unwrap();
    assert_eq!(w.read_fd(fd).unwrap(), b"data");
    w.close(fd).unwrap();
    let exclusive = OpenFlags::READ_WRITE.with_exclusive();
    assert_eq!(w.create("f", exclusive, 0o777).unwrap_err(), Errno::EEXIST);
    w.mkdir("d", 0o755).unwrap();
    assert_eq!(w.create("d", OpenFlags::READ_WRITE, 0o777).unwrap_err(), Errno::EISDIR);
    assert_eq!((share.record("f"), share.host("f").metadata().unwrap().ino()), (record, inode));
}
