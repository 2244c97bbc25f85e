//! What a mount table promises, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Added, Behaviours, Context, DirEntry, DirSink, DynFileSystem, Entry, Errno, Features, FileType,
    HandleId, Lookup, Name, Needs, NodeId, Notifier, OpenFlags, RenameFlags, Result, SeekTo,
    SliceSink, TimedAttr, XattrMode, XattrName,
};
use stratafs_memfs::{ByteSize, Locks, MemFs};
use stratafs_routerfs::{BuildError, MountError, MountFlags, RouterFs};
use stratafs_testkit::{InProcess, World, check_tree};
use support::{cx, filled, mem, name, node, on};

/// `/` with a directory `home`, a mount at `/home/me` and one at `/srv/data`, which has no `srv`.
fn routed() -> (Arc<RouterFs>, Arc<dyn DynFileSystem>) {
    let root = filled(|w| {
        w.mkdir("home", 0o750).unwrap();
        w.file("home/file", b"of the root").unwrap();
        w.mkdir("home/me", 0o700).unwrap();
        w.file("home/me/covered", b"").unwrap();
    });
    let me = filled(|w| w.file("mine", b"mine").unwrap());
    let data = filled(|w| w.mkdir("sub", 0o755).unwrap());
    let builder = RouterFs::builder().mount("/srv/data", data).mount("/home/me", me);
    let router = Arc::new(builder.mount("/", root).build().unwrap());
    let fs: Arc<dyn DynFileSystem> = Arc::<RouterFs>::clone(&router);
    (router, fs)
}

fn names(w: &World<'_>, path: &str) -> Vec<String> {
    let mut names = w.names(path).unwrap();
    names.sort();
    names
}

#[test]
fn lookup_goes_to_the_longest_prefix() {
    let (_, fs) = routed();
    on(&fs, |w| {
        assert_eq!(w.read("home/file").unwrap(), b"of the root");
        assert_eq!(w.read("home/me/mine").unwrap(), b"mine");
        assert_eq!(w.stat("home/me/covered").unwrap_err(), Errno::ENOENT);
        assert!(w.stat("srv/data/sub").unwrap().is_dir());
        assert_eq!(w.stat("home").unwrap().mode, 0o040_750, "it is the root's own");
    });
}

#[test]
fn readdir_shows_mounts_in_every_directory_whatever_that_is() {
    let (router, fs) = routed();
    router.mount("/home/me/nested/deep", mem(), MountFlags::empty()).unwrap();
    on(&fs, |w| {
        assert_eq!(names(w, ""), ["home", "srv"], "beside what the root has");
        assert_eq!(names(w, "home"), ["file", "me"], "once, though the root has one of that name");
        assert_eq!(names(w, "home/me"), ["mine", "nested"], "in a mount's own directory");
        assert_eq!(names(w, "home/me/nested"), ["deep"], "in one that nobody has");
        assert_eq!(names(w, "srv"), ["data"]);
    });
    let client = InProcess::new(fs);
    check_tree(&client, b"").unwrap();
}

#[test]
fn readdir_in_steps_of_one_entry_lists_each_once() {
    let root = filled(|w| (0..40).for_each(|n| w.file(format!("f{n}"), b"").unwrap()));
    let builder = (0..20).fold(RouterFs::builder().mount("/", root), |builder, n| {
        builder.mount(format!("/m{n}"), mem())
    });
    let fs: Arc<dyn DynFileSystem> = Arc::new(builder.build().unwrap());
    on(&fs, |w| {
        let fd = w.opendir("").unwrap();
        for step in [1, 2, 7] {
            let mut listed: Vec<_> =
                w.list_from(fd, 0, step).unwrap().into_iter().map(|e| e.name).collect();
            assert_eq!(listed.len(), 62, "{step}");
            listed.sort();
            listed.dedup();
            assert_eq!(listed.len(), 62, "{step}");
        }
        w.close(fd).unwrap();
    });
}

#[test]
fn readdirplus_gives_mounts_and_takes_back_what_is_hidden() {
    let (root, ledger) = stratafs_testkit::Ledger::keep(filled(|w| w.mkdir("m", 0o755).unwrap()));
    let fs = RouterFs::builder().mount("/", root).mount("/m", mem()).build().unwrap();
    let mut seen = Seen::default();
    fs.readdirplus(&cx(), NodeId::ROOT, HandleId::NONE, 0, &mut seen).unwrap();
    let (listed, submount, id) = seen.0.last().cloned().unwrap();
    assert_eq!((listed.as_slice(), submount), (&b"m"[..], true));
    fs.forget(id, 1);
    drop(fs);
    ledger.check().unwrap();
}

/// Names, whether they are mounts, and nodes.
#[derive(Default)]
struct Seen(Vec<(Vec<u8>, bool, NodeId)>);

impl DirSink for Seen {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if let Some(plus) = plus {
            self.0.push((entry.name.to_vec(), plus.submount, plus.node));
        }
        Added::Taken
    }
}

#[test]
fn root_without_a_mount_shows_mounts_alone_and_takes_nothing() {
    let fs: Arc<dyn DynFileSystem> =
        Arc::new(RouterFs::builder().mount("/a/b", mem()).build().unwrap());
    on(&fs, |w| {
        assert_eq!(names(w, ""), ["a"]);
        assert!(w.stat("").unwrap().is_dir());
        for path in ["x", "a/x"] {
            assert_eq!(w.mkdir(path, 0o755).unwrap_err(), Errno::EROFS, "{path}");
            assert_eq!(w.file(path, b"").unwrap_err(), Errno::EROFS, "{path}");
            assert_eq!(w.unlink(path).unwrap_err(), Errno::ENOENT, "{path}");
        }
        assert_eq!(w.chmod("a", 0o700).unwrap_err(), Errno::EROFS);
        assert_eq!(w.mkdir("a", 0o755).unwrap_err(), Errno::EEXIST);
        w.file("a/b/file", b"in the mount").unwrap();
    });
    check_tree(&InProcess::new(fs), b"").unwrap();
}

#[test]
fn rename_and_link_across_mounts_are_exdev() {
    let (_, fs) = routed();
    on(&fs, |w| {
        assert_eq!(w.rename("home/file", "home/me/x").unwrap_err(), Errno::EXDEV);
        assert_eq!(w.rename("srv/data/sub", "home/x").unwrap_err(), Errno::EXDEV);
        assert_eq!(w.rename("home/file", "srv/x").unwrap_err(), Errno::EXDEV);
        assert_eq!(w.link("home/me/mine", "home/x").unwrap_err(), Errno::EXDEV);
        w.rename("home/file", "moved").unwrap();
    });
}

#[test]
fn change_of_a_mountpoint_or_of_what_is_above_one_is_ebusy() {
    let (_, fs) = routed();
    on(&fs, |w| {
        for path in ["home", "home/me", "srv", "srv/data"] {
            assert_eq!(w.rmdir(path).unwrap_err(), Errno::EBUSY, "{path}");
            assert_eq!(w.unlink(path).unwrap_err(), Errno::EISDIR, "{path}");
            assert_eq!(w.mkdir(path, 0o755).unwrap_err(), Errno::EEXIST, "{path}");
            assert_eq!(w.symlink("x", path).unwrap_err(), Errno::EEXIST, "{path}");
        }
        w.mkdir("other", 0o755).unwrap();
        assert_eq!(w.rename("home", "elsewhere").unwrap_err(), Errno::EBUSY);
        assert_eq!(w.rename("other", "home").unwrap_err(), Errno::EBUSY);
        assert_eq!(w.rename("other", "home/me").unwrap_err(), Errno::EBUSY);
        assert_eq!(w.rename("other", "srv").unwrap_err(), Errno::EBUSY);
        let exchange = w.rename2("other", "home", RenameFlags::EXCHANGE);
        assert_eq!(exchange.unwrap_err(), Errno::EBUSY);
        let noreplace = w.rename2("other", "home", RenameFlags::NOREPLACE);
        assert_eq!(noreplace.unwrap_err(), Errno::EEXIST);
        let open = w.create("home/me", OpenFlags::READ_WRITE, 0o644);
        assert_eq!(open.unwrap_err(), Errno::EISDIR);
    });
}

#[test]
fn statfs_is_that_of_the_mount_a_node_is_in() {
    let small: Arc<dyn DynFileSystem> =
        Arc::new(MemFs::builder().capacity(ByteSize::mib(1)).build().unwrap());
    let large: Arc<dyn DynFileSystem> =
        Arc::new(MemFs::builder().capacity(ByteSize::gib(1)).build().unwrap());
    let fs = RouterFs::builder().mount("/", large).mount("/a/b", small).build().unwrap();
    let blocks = |path| {
        let node = node(&fs, path);
        let stat = fs.statfs(&cx(), node).unwrap();
        fs.forget(node, 1);
        stat.blocks * u64::from(stat.frsize)
    };
    assert_eq!(blocks("a/b"), 1 << 20);
    assert_eq!(blocks("a"), 1 << 30, "of the mount around it");
}

#[test]
fn inode_numbers_of_two_mounts_differ_and_those_in_listings_are_the_same() {
    let (_, fs) = routed();
    on(&fs, |w| {
        let mut seen = std::collections::HashSet::new();
        for path in ["", "home", "home/file", "home/me", "home/me/mine", "srv", "srv/data"] {
            assert!(seen.insert(w.stat(path).unwrap().ino), "{path}");
        }
        let listed = w.list("home/me").unwrap();
        let up = listed.iter().find(|e| e.name == b"..").unwrap();
        assert_eq!(up.ino, w.stat("home").unwrap().ino);
    });
}

#[test]
fn node_of_a_mounts_root_is_marked_as_one() {
    let (_, fs) = routed();
    let home = fs.lookup(&cx(), NodeId::ROOT, name("home")).unwrap().found().unwrap();
    let me = fs.lookup(&cx(), home.node, name("me")).unwrap().found().unwrap();
    assert!(!home.submount && me.submount);
}

#[test]
fn flags_hide_what_a_mount_may_not_have() {
    let inner = filled(|w| {
        w.file("tool", b"#!").unwrap();
        w.chmod("tool", 0o6755).unwrap();
        w.setxattr("tool", b"security.capability", b"all", XattrMode::Set).unwrap();
        w.setxattr("tool", b"user.kept", b"yes", XattrMode::Set).unwrap();
        w.mknod("disk", FileType::BlockDevice.mode_bits() | 0o660, 0x801).unwrap();
        w.mkdir("dir", 0o2775).unwrap();
    });
    let with = |flags| -> Arc<dyn DynFileSystem> {
        let builder = RouterFs::builder().mount("/", mem());
        Arc::new(builder.mount_with("/m", Arc::clone(&inner), flags).build().unwrap())
    };
    on(&with(MountFlags::empty()), |w| {
        assert_eq!(w.stat("m/tool").unwrap().mode, 0o106_755);
        assert_eq!(w.stat("m/disk").unwrap().rdev, 0x801);
    });
    on(&with(MountFlags::NOSUID), |w| {
        assert_eq!(w.stat("m/tool").unwrap().mode, 0o100_755);
        assert_eq!(
            w.stat("m/dir").unwrap().mode,
            0o042_775,
            "of directories it means something else"
        );
        assert_eq!(w.getxattr("m/tool", b"security.capability").unwrap_err(), Errno::ENODATA);
        assert_eq!(w.listxattr("m/tool").unwrap(), [b"user.kept"]);
    });
    on(&with(MountFlags::NODEV), |w| {
        let disk = w.stat("m/disk").unwrap();
        assert_eq!((disk.kind(), disk.rdev), (FileType::BlockDevice, 1));
        let mode = FileType::CharDevice.mode_bits() | 0o600;
        assert_eq!(w.mknod("m/null", mode, 0x103).unwrap_err(), Errno::EPERM);
        w.mknod("m/fifo", FileType::Fifo.mode_bits() | 0o600, 0).unwrap();
        w.mknod("null", mode, 0x103).unwrap();
    });
    on(&with(MountFlags::NOEXEC), |w| {
        assert_eq!(w.stat("m/tool").unwrap().mode, 0o106_644);
        assert_eq!(w.stat("m/dir").unwrap().mode, 0o042_775);
    });
}

#[test]
fn readonly_mount_refuses_changes_and_its_neighbour_takes_them() {
    let builder = RouterFs::builder().mount("/", mem());
    let inner = filled(|w| w.file("file", b"data").unwrap());
    let fs: Arc<dyn DynFileSystem> =
        Arc::new(builder.mount_with("/ro", inner, MountFlags::READ_ONLY).build().unwrap());
    assert!(!fs.features().bears(Behaviours::READ_ONLY), "the root is not");
    on(&fs, |w| {
        assert_eq!(w.file("ro/new", b"").unwrap_err(), Errno::EROFS);
        assert_eq!(w.unlink("ro/file").unwrap_err(), Errno::EROFS);
        assert_eq!(w.read("ro/file").unwrap(), b"data");
        w.file("new", b"").unwrap();
    });
    let alone = RouterFs::builder().mount_with("/", mem(), MountFlags::READ_ONLY).build().unwrap();
    assert!(alone.features().bears(Behaviours::READ_ONLY));
}

#[test]
fn build_refuses_what_is_no_table() {
    let build = |builder: stratafs_routerfs::Builder| builder.build().unwrap_err();
    let none = build(RouterFs::builder());
    assert!(matches!(none, BuildError::NoMounts), "{none}");
    for path in ["relative", "/a/../b", "/./a"] {
        let error = build(RouterFs::builder().mount(path, mem()));
        assert!(matches!(error, BuildError::NoPlace { .. }), "{error}");
    }
    let twice = build(RouterFs::builder().mount("/a", mem()).mount("//a/", mem()));
    assert!(matches!(&twice, BuildError::Twice { path } if path == "/a"), "{twice}");
    let keeps = Arc::new(MemFs::builder().locks(Locks::Remote).build().unwrap());
    let mixed = build(RouterFs::builder().mount("/", mem()).mount("/locks", keeps));
    assert!(
        matches!(&mixed, BuildError::MixedLocks { keeps, leaves } if keeps == "/locks" && leaves == "/"),
        "{mixed}"
    );
    let many = (0..254).fold(RouterFs::builder(), |b, n| b.mount(format!("/{n}"), mem()));
    let many = build(many);
    assert!(matches!(many, BuildError::TooMany { most: 253 }), "{many}");
}

#[test]
fn mount_while_served_shows_everywhere_and_unmount_gives_back_what_was_there() {
    let (router, fs) = routed();
    let home = fs.lookup(&cx(), NodeId::ROOT, name("home")).unwrap().found().unwrap();
    let extra = filled(|w| w.file("x", b"").unwrap());
    router.mount("/home/file", Arc::clone(&extra), MountFlags::empty()).unwrap();
    on(&fs, |w| {
        assert_eq!(names(w, "home/file"), ["x"], "it covers a file, too");
        assert_eq!(w.rename("home/file", "f").unwrap_err(), Errno::EBUSY);
    });
    // By an id from before, too.
    assert!(fs.lookup(&cx(), home.node, name("file")).unwrap().found().unwrap().submount);
    router.mount("/new/place", extra, MountFlags::empty()).unwrap();
    on(&fs, |w| assert_eq!(names(w, ""), ["home", "new", "srv"]));
    router.unmount("/home/file").unwrap();
    router.unmount("/new/place").unwrap();
    on(&fs, |w| {
        assert_eq!(w.read("home/file").unwrap(), b"of the root");
        assert_eq!(names(w, ""), ["home", "srv"]);
        w.rename("home/file", "f").unwrap();
    });
    fs.forget(home.node, 1);
}

#[test]
fn unmount_leaves_what_is_open_working_and_the_last_forget_lets_go() {
    let (router, fs) = routed();
    let inner = filled(|w| w.file("x", b"still there").unwrap());
    router.mount("/m", Arc::clone(&inner), MountFlags::empty()).unwrap();
    let file = node(&*fs, "m/x");
    let opened = fs.open(&cx(), file, OpenFlags::READ_ONLY, false).unwrap();
    let before = Arc::strong_count(&inner);
    router.unmount("/m").unwrap();
    let mut buf = [0; 32];
    let mut sink = SliceSink::new(&mut buf);
    assert_eq!(fs.read(&cx(), file, opened.handle, 0, 32, &mut sink), Ok(11));
    fs.release(&cx(), file, opened.handle, Default::default()).unwrap();
    assert_eq!(fs.getattr(&cx(), file, None).unwrap().attr.size, 11);
    fs.forget(file, 1);
    assert_eq!(fs.getattr(&cx(), file, None).unwrap_err(), Errno::ESTALE);
    assert!(Arc::strong_count(&inner) < before, "the router has let go of it");
}

#[test]
fn mount_and_unmount_refuse_what_cannot_be() {
    let (router, _) = routed();
    let taken = router.mount("/home/me", mem(), MountFlags::empty()).unwrap_err();
    assert!(matches!(taken, MountError::Taken { .. }), "{taken}");
    let root = router.unmount("/").unwrap_err();
    assert!(matches!(root, MountError::Busy { .. }), "{root}");
    router.mount("/home/me/in", mem(), MountFlags::empty()).unwrap();
    let below = router.unmount("/home/me").unwrap_err();
    assert!(matches!(below, MountError::Busy { .. }), "{below}");
    for path in ["/home", "/nowhere"] {
        let none = router.unmount(path).unwrap_err();
        assert!(matches!(none, MountError::NotMounted { .. }), "{none}");
    }
    let plain = router.mount("/plain", Arc::new(Plain), MountFlags::empty()).unwrap_err();
    assert!(matches!(plain, MountError::Unexpected { .. }), "{plain}");
}

#[test]
fn mount_of_what_was_expected_works() {
    let builder = RouterFs::builder().mount("/", mem()).expecting(Plain.features());
    let router = builder.build().unwrap();
    router.mount("/plain", Arc::new(Plain), MountFlags::empty()).unwrap();
    let paths: Vec<_> = router.mounts().into_iter().map(|m| (m.path, m.kind)).collect();
    assert_eq!(paths, [("/".into(), "mem"), ("/plain".into(), "plain")]);
}

/// What a client is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Notifier for Told {
    fn inval_inode(&self, node: NodeId, _: i64, _: i64) {
        self.0.lock().push(format!("inode {}", node.0));
    }
    fn inval_entry(&self, parent: NodeId, name: Name<'_>) {
        self.0.lock().push(format!("entry {} {name}", parent.0));
    }
    fn delete(&self, parent: NodeId, _: NodeId, name: Name<'_>) {
        self.0.lock().push(format!("delete {} {name}", parent.0));
    }
    fn inval_all_entries(&self) {}
    fn reaches_kernel(&self) -> bool {
        true
    }
    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn clients_are_told_of_mounts_and_of_what_members_change_in_the_routers_ids() {
    let (router, fs) = routed();
    let told = Arc::new(Told::default());
    fs.attach(Arc::<Told>::clone(&told));
    router.mount("/late", mem(), MountFlags::empty()).unwrap();
    assert_eq!(*told.0.lock(), ["entry 1 late", "inode 1"]);
    told.0.lock().clear();
    let late = node(&*fs, "late");
    let made = fs.mkdir(&Context::new(1, None), late, name("d"), 0o755).unwrap();
    let expected = format!("entry {} d", late.0);
    assert!(told.0.lock().contains(&expected), "{:?}", told.0.lock());
    fs.forget(made.node, 1);
    fs.forget(late, 1);
}

/// A filesystem of one file that has neither open, nor xattrs, nor fsync, nor anything else.
struct Plain;

impl DynFileSystem for Plain {
    fn features(&self) -> Features {
        Features::new("plain").with_node_id_bits(8)
    }

    fn lookup(&self, _: &Context<'_>, _: NodeId, name: Name<'_>) -> Result<Lookup> {
        if name.as_bytes() != b"file" {
            return Ok(Lookup::Absent(std::time::Duration::ZERO));
        }
        Ok(Lookup::Found(Entry::new(NodeId(2), self.attr(NodeId(2)))))
    }

    fn forget(&self, _: NodeId, _: u64) {}

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Ok(TimedAttr::new(self.attr(node), std::time::Duration::ZERO))
    }

    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        if cookie < 3 {
            let _ = sink.add(&DirEntry::new(2, FileType::Regular, name("file"), 3), None);
        }
        Ok(())
    }

    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
}

impl Plain {
    fn attr(&self, node: NodeId) -> stratafs_core::Attr {
        let mode = if node == NodeId::ROOT { 0o040_755 } else { 0o100_644 };
        let mut attr = stratafs_core::Attr::new(node.0, mode);
        attr.size = 10;
        attr
    }
}

#[test]
fn member_that_lacks_operations_takes_them_from_no_other() {
    let fs = RouterFs::builder().mount("/", mem()).mount("/plain", Arc::new(Plain));
    let fs: Arc<dyn DynFileSystem> = Arc::new(fs.build().unwrap());
    let all = Needs::XATTR | Needs::SETXATTR | Needs::LSEEK | Needs::READDIRPLUS;
    assert!(fs.features().needs(all), "the union");
    on(&fs, |w| {
        w.file("file", b"data").unwrap();
        w.setxattr("file", b"user.x", b"1", XattrMode::Set).unwrap();
        assert_eq!(w.getxattr("file", b"user.x").unwrap(), b"1");
        let fd = w.open("file", OpenFlags::READ_WRITE).unwrap();
        w.fsync(fd, false).unwrap();
        w.close(fd).unwrap();
        assert_eq!(w.getxattr("plain/file", b"user.x").unwrap_err(), Errno::EOPNOTSUPP);
        assert_eq!(
            w.rename2("plain/file", "plain/x", RenameFlags::NOREPLACE).unwrap_err(),
            Errno::EINVAL
        );
        let fd = w.open("plain/file", OpenFlags::READ_ONLY).unwrap();
        assert_eq!(w.seek(fd, 4, SeekTo::Data), Ok(4), "what the kernel would do");
        assert_eq!(w.seek(fd, 4, SeekTo::Hole), Ok(10));
        assert_eq!(w.seek(fd, 10, SeekTo::Data), Err(Errno::ENXIO));
        w.close(fd).unwrap();
    });
    let plain = node(&*fs, "plain");
    let mut seen = Listed(Vec::new());
    fs.readdirplus(&cx(), plain, HandleId::NONE, 0, &mut seen).unwrap();
    assert_eq!(seen.0, [(b"file".to_vec(), false)], "listed, without its object");
    assert_eq!(fs.syncfs(&cx(), NodeId::ROOT), Ok(()));
    let none = XattrName::new(b"user.x").unwrap();
    assert_eq!(fs.getxattr(&cx(), plain, none, &mut []), Err(Errno::EOPNOTSUPP));
}

struct Listed(Vec<(Vec<u8>, bool)>);

impl DirSink for Listed {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        self.0.push((entry.name.to_vec(), plus.is_some()));
        Added::Taken
    }
}

#[test]
fn mounts_that_come_and_go_under_four_busy_threads_leave_a_tree_that_makes_sense() {
    let (router, fs) = routed();
    let inner = filled(|w| w.mkdir("d", 0o755).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let fs = Arc::clone(&fs);
            scope.spawn(move || {
                on(&fs, |w| {
                    for round in 0..500 {
                        let path = format!("t/m/d/{thread}-{round}");
                        // It is mounted or not: anything but these would be a mix of both.
                        match w.file(&path, b"x") {
                            Ok(()) => {}
                            Err(Errno::ENOENT | Errno::ESTALE | Errno::EROFS) => {}
                            Err(errno) => panic!("{errno}"),
                        }
                        let _ = w.list("t");
                        let _ = w.list("");
                    }
                });
            });
        }
        for _ in 0..200 {
            router.mount("/t/m", Arc::clone(&inner), MountFlags::empty()).unwrap();
            router.unmount("/t/m").unwrap();
        }
    });
    on(&fs, |w| assert_eq!(names(w, ""), ["home", "srv"]));
    check_tree(&InProcess::new(fs), b"").unwrap();
    drop(router);
    assert_eq!(Arc::strong_count(&inner), 1, "everything was let go of");
}
