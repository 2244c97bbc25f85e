//! The tests of the parent module.

use stratafs_core::{DynFileSystem, SecurityContext, SetAttr, XattrName};

use super::*;
use crate::SizeExt;
use crate::test_util::{Fixture, ROOT, name, root, user};

fn set_mode(fx: &Fixture, node: NodeId, mode: u32, gid: u32) {
    let mut set = SetAttr::new();
    set.gid = Some(gid);
    set.mode = Some(mode);
    fx.fs.setattr(&root(), node, &set).unwrap();
}

#[test]
fn every_creation_of_a_name_that_exists_is_eexist() {
    let fx = Fixture::new();
    fx.mkdir(ROOT, "x");
    let used = fx.usage();
    let (cx, x) = (root(), name("x"));
    let file = fx.file(ROOT, "f");
    fx.unlink(ROOT, "f").unwrap();
    assert_eq!(fx.fs.mkdir(&cx, ROOT, x, 0).unwrap_err(), Errno::EEXIST);
    assert_eq!(fx.fs.mknod(&cx, ROOT, x, 0o100_644, 0).unwrap_err(), Errno::EEXIST);
    assert_eq!(fx.fs.symlink(&cx, ROOT, x, b"t").unwrap_err(), Errno::EEXIST);
    assert_eq!(fx.fs.link(&cx, file, ROOT, x).unwrap_err(), Errno::EEXIST);
    let exclusive = OpenFlags::READ_WRITE.with_exclusive();
    assert_eq!(fx.create("x", 0o644, exclusive).unwrap_err(), Errno::EEXIST);
    assert_eq!(fx.create("x", 0o644, OpenFlags::READ_WRITE).unwrap_err(), Errno::EISDIR);
    fx.forget(file);
    assert_eq!(fx.usage(), used);
}

#[test]
fn every_creation_in_a_removed_directory_is_enoent() {
    let fx = Fixture::new();
    let dir = fx.mkdir(ROOT, "d");
    let file = fx.file(ROOT, "f");
    fx.rmdir(ROOT, "d").unwrap();
    let used = fx.usage();
    let (cx, x) = (root(), name("x"));
    assert_eq!(fx.fs.mkdir(&cx, dir, x, 0).unwrap_err(), Errno::ENOENT);
    assert_eq!(fx.fs.mknod(&cx, dir, x, 0o100_644, 0).unwrap_err(), Errno::ENOENT);
    assert_eq!(fx.fs.symlink(&cx, dir, x, b"t").unwrap_err(), Errno::ENOENT);
    assert_eq!(fx.fs.link(&cx, file, dir, x).unwrap_err(), Errno::ENOENT);
    let flags = OpenFlags::READ_WRITE;
    assert_eq!(fx.fs.create(&cx, dir, x, 0, flags, false).unwrap_err(), Errno::ENOENT);
    assert_eq!(fx.fs.tmpfile(&cx, dir, 0, flags).unwrap_err(), Errno::ENOENT);
    let into = fx.rename((ROOT, "f"), (dir, "x"), Default::default());
    assert_eq!(into, Err(Errno::ENOENT));
    assert_eq!(fx.usage(), used);
}

#[test]
fn every_creation_in_a_file_is_enotdir() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    let (cx, x) = (root(), name("x"));
    assert_eq!(fx.fs.mkdir(&cx, file, x, 0).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fx.fs.mknod(&cx, file, x, 0o100_644, 0).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fx.fs.symlink(&cx, file, x, b"t").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fx.fs.link(&cx, file, file, x).unwrap_err(), Errno::ENOTDIR);
    let flags = OpenFlags::READ_WRITE;
    assert_eq!(fx.fs.create(&cx, file, x, 0, flags, false).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fx.fs.tmpfile(&cx, file, 0, flags).unwrap_err(), Errno::ENOTDIR);
    let into = fx.rename((ROOT, "f"), (file, "x"), Default::default());
    assert_eq!(into, Err(Errno::ENOTDIR));
}

#[test]
fn mknod_makes_each_type_and_refuses_what_is_none() {
    let fx = Fixture::new();
    for (i, (mode, rdev)) in [
        (0o020_600, 0x501),
        (0o020_000, 0),
        (0o060_640, 0x802),
        (0o010_644, 0),
        (0o140_755, 0),
        (0o100_600, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let attr = fx.fs.mknod(&root(), ROOT, name(&format!("n{i}")), mode, rdev).unwrap().attr;
        assert_eq!((attr.mode, attr.rdev, attr.nlink), (mode, rdev, 1));
    }
    let plain = fx.fs.mknod(&root(), ROOT, name("plain"), 0o644, 9).unwrap().attr;
    assert_eq!((plain.mode, plain.rdev), (0o100_644, 0), "no type means a file");
    for mode in [0o040_755, 0o120_777, 0o030_000, 0o170_000] {
        let made = fx.fs.mknod(&root(), ROOT, name("bad"), mode, 0);
        assert_eq!(made.unwrap_err(), Errno::EINVAL, "{mode:o}");
    }
}

#[test]
fn creation_applies_umask_owner_and_setgid_rules() {
    let fx = Fixture::new();
    let dir = fx.mkdir(ROOT, "d");
    let cx = user(7).with_umask(0o027);
    let made = fx.fs.mkdir(&cx, dir, name("plain"), 0o1777).unwrap().attr;
    assert_eq!((made.mode, made.uid, made.gid), (0o041_750, 7, 7));
    set_mode(&fx, dir, 0o2777, 50);
    let sub = fx.fs.mkdir(&cx, dir, name("sub"), 0o777).unwrap().attr;
    assert_eq!((sub.mode, sub.gid), (0o042_750, 50));
    let file = fx.fs.mknod(&cx, dir, name("file"), 0o102_775, 0).unwrap().attr;
    assert_eq!((file.mode, file.gid), (0o100_750, 50));
    let link = fx.fs.symlink(&cx, dir, name("link"), b"t").unwrap().attr;
    assert_eq!((link.mode, link.gid), (0o120_777, 50));
}

#[test]
fn creation_counts_names_and_sets_times() {
    let fx = Fixture::new();
    let now = fx.tick();
    let dir = fx.mkdir(ROOT, "d");
    let root_attr = fx.attr(ROOT);
    assert_eq!((root_attr.nlink, root_attr.mtime, root_attr.ctime), (3, now, now));
    let attr = fx.attr(dir);
    assert_eq!((attr.nlink, attr.atime, attr.btime), (2, now, Some(now)));
    let later = fx.tick();
    fx.file(dir, "f");
    assert_eq!((fx.attr(dir).nlink, fx.attr(dir).mtime), (2, later));
}

#[test]
fn symlink_targets_are_bounded_and_read_back() {
    let fx = Fixture::new();
    let target = [b'x'; TARGET_MAX + 1];
    let make = |n: &str, len: usize| fx.fs.symlink(&root(), ROOT, name(n), &target[..len]);
    assert_eq!(make("a", 0).unwrap_err(), Errno::ENOENT);
    assert_eq!(make("a", TARGET_MAX + 1).unwrap_err(), Errno::ENAMETOOLONG);
    let entry = make("a", TARGET_MAX).unwrap();
    assert_eq!(entry.attr.size, TARGET_MAX as u64);
    let mut buf = [0; 5000];
    let mut sink = stratafs_core::SliceSink::new(&mut buf);
    assert_eq!(fx.fs.readlink(&root(), entry.node, &mut sink), Ok(TARGET_MAX));
    assert_eq!(&buf[..TARGET_MAX], &target[..TARGET_MAX]);
    let mut sink = stratafs_core::SliceSink::new(&mut buf);
    assert_eq!(fx.fs.readlink(&root(), ROOT, &mut sink), Err(Errno::EINVAL));
}

#[test]
fn create_of_a_name_that_exists_opens_it_and_cuts_when_told() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.write(file, 0, b"hello").unwrap();
    let (entry, opened) = fx.create("f", 0o600, OpenFlags::READ_ONLY).unwrap();
    assert_eq!((entry.node, entry.attr.size, entry.attr.mode), (file, 5, 0o100_644));
    let cut = OpenFlags::READ_WRITE.with_truncate();
    let (entry, again) = fx.create("f", 0o600, cut).unwrap();
    assert_eq!(entry.attr.size, 0);
    assert_eq!((fx.usage().lookups, fx.usage().handles), (3, 2));
    fx.close(file, opened.handle).unwrap();
    fx.close(file, again.handle).unwrap();
    assert_eq!(fx.usage().handles, 0);
}

#[test]
fn create_without_a_free_handle_is_enfile_and_makes_nothing() {
    let fx = Fixture::with(|b| b.max_handles(1));
    let (entry, opened) = fx.create("a", 0o644, OpenFlags::READ_WRITE).unwrap();
    let used = fx.usage();
    assert_eq!(fx.create("b", 0o644, OpenFlags::READ_WRITE).unwrap_err(), Errno::ENFILE);
    let open = fx.fs.open(&root(), entry.node, OpenFlags::READ_ONLY, false);
    assert_eq!(open.unwrap_err(), Errno::ENFILE);
    assert_eq!(fx.usage(), used);
    assert_eq!(fx.find(ROOT, "b").unwrap_err(), Errno::ENOENT);
    fx.close(entry.node, opened.handle).unwrap();
    fx.create("b", 0o644, OpenFlags::READ_WRITE).unwrap();
}

#[test]
fn creation_in_a_full_filesystem_is_enospc_and_changes_nothing() {
    let fx = Fixture::with(|b| b.capacity(64.kib()));
    let file = fx.file(ROOT, "f");
    while fx.write(file, fx.attr(file).size, &[1; 16]).is_ok() {}
    let mut i = 0;
    while fx.fs.mknod(&root(), ROOT, name(&format!("{i}")), 0o100_644, 0).is_ok() {
        i += 1;
    }
    let before = (fx.usage(), fx.attr(ROOT));
    let long = "n".repeat(255);
    let (cx, x) = (root(), name(&long));
    assert_eq!(fx.fs.mkdir(&cx, ROOT, x, 0).unwrap_err(), Errno::ENOSPC);
    assert_eq!(fx.fs.symlink(&cx, ROOT, x, &[1; 4000]).unwrap_err(), Errno::ENOSPC);
    assert_eq!(fx.fs.link(&cx, file, ROOT, x).unwrap_err(), Errno::ENOSPC);
    let flags = OpenFlags::READ_WRITE;
    assert_eq!(fx.create(&long, 0, flags).unwrap_err(), Errno::ENOSPC);
    assert_eq!(fx.fs.tmpfile(&cx, ROOT, 0, flags).unwrap_err(), Errno::ENOSPC);
    assert_eq!((fx.usage(), fx.attr(ROOT)), before);
    fx.unlink(ROOT, "f").expect("removing always works");
}

#[test]
fn creation_beyond_max_inodes_is_enospc() {
    let fx = Fixture::with(|b| b.max_inodes(3));
    let a = fx.file(ROOT, "a");
    fx.mkdir(ROOT, "b");
    let third = fx.fs.mknod(&root(), ROOT, name("c"), 0o100_644, 0);
    assert_eq!(third.unwrap_err(), Errno::ENOSPC);
    fx.fs.link(&root(), a, ROOT, name("a2")).expect("a name is no inode");
    fx.unlink(ROOT, "a").unwrap();
    fx.unlink(ROOT, "a2").unwrap();
    assert_eq!(fx.usage().inodes, 3, "looked up, it still counts");
    fx.forget(a);
    fx.file(ROOT, "c");
}

#[test]
fn tmpfile_has_no_name_until_it_is_linked() {
    let fx = Fixture::new();
    let before = fx.usage();
    let flags = OpenFlags::READ_WRITE;
    let (entry, opened) = fx.fs.tmpfile(&root(), ROOT, 0o600, flags).unwrap();
    assert_eq!((entry.attr.nlink, entry.attr.mode), (0, 0o100_600));
    fx.write(entry.node, 0, b"data").unwrap();
    let linked = fx.fs.link(&root(), entry.node, ROOT, name("t")).unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (entry.node, 1));
    fx.unlink(ROOT, "t").unwrap();
    let again = fx.fs.link(&root(), entry.node, ROOT, name("t"));
    assert_eq!(again.unwrap_err(), Errno::ENOENT, "only the first name comes from nothing");
    fx.close(entry.node, opened.handle).unwrap();
    fx.forget(entry.node);
    assert_eq!(fx.usage(), before);
}

#[test]
fn tmpfile_with_o_excl_can_never_be_linked() {
    let fx = Fixture::new();
    let before = fx.usage();
    let flags = OpenFlags::READ_WRITE.with_exclusive();
    let (entry, opened) = fx.fs.tmpfile(&root(), ROOT, 0o600, flags).unwrap();
    let linked = fx.fs.link(&root(), entry.node, ROOT, name("t"));
    assert_eq!(linked.unwrap_err(), Errno::ENOENT);
    fx.forget(entry.node);
    assert_eq!(fx.read(entry.node, 0, 1).unwrap(), [], "its handle keeps it");
    fx.close(entry.node, opened.handle).unwrap();
    assert_eq!(fx.usage(), before);
}

#[test]
fn link_shares_the_inode_and_refuses_directories() {
    let fx = Fixture::new();
    let dir = fx.mkdir(ROOT, "d");
    let file = fx.file(ROOT, "f");
    let now = fx.tick();
    let entry = fx.fs.link(&root(), file, dir, name("g")).unwrap();
    assert_eq!((entry.node, entry.attr.nlink, entry.attr.ctime), (file, 2, now));
    assert_eq!(fx.attr(dir).mtime, now);
    for parent in [ROOT, dir] {
        let linked = fx.fs.link(&root(), dir, parent, name("e"));
        assert_eq!(linked.unwrap_err(), Errno::EPERM);
    }
    fx.unlink(ROOT, "f").unwrap();
    assert_eq!(fx.attr(file).nlink, 1);
    assert_eq!(fx.find(dir, "g").unwrap().node, file);
}

#[test]
fn link_and_mkdir_beyond_the_most_names_are_emlink() {
    let fx = Fixture::new();
    let file = fx.file(ROOT, "f");
    fx.fs.node(file).unwrap().write().nlink = LINK_MAX;
    let linked = fx.fs.link(&root(), file, ROOT, name("g"));
    assert_eq!(linked.unwrap_err(), Errno::EMLINK);
    fx.fs.node(ROOT).unwrap().write().nlink = LINK_MAX;
    assert_eq!(fx.fs.mkdir(&root(), ROOT, name("d"), 0).unwrap_err(), Errno::EMLINK);
}

#[test]
fn creation_with_a_label_sets_it_and_charges_it() {
    let fx = Fixture::new();
    let label = XattrName::new(b"security.selinux").unwrap();
    let cx = root().with_security(Some(SecurityContext::new(label, b"a:b:c")));
    let node = fx.fs.mknod(&cx, ROOT, name("f"), 0o100_644, 0).unwrap().node;
    let mut value = [0; 16];
    assert_eq!(fx.fs.getxattr(&root(), node, label, &mut value), Ok(5));
    assert_eq!(&value[..5], b"a:b:c");
    let unlabelled = fx.usage().bytes;
    fx.fs.removexattr(&root(), node, label).unwrap();
    assert!(fx.usage().bytes < unlabelled);
}
