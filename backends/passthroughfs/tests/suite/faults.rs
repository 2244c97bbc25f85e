//! A host that fails: full, gone, somebody else's.

use std::ffi::CString;
use std::path::Path;
use std::process::{Command, Stdio};

use stratafs_core::{DynFileSystem, Errno, NodeId, OpenFlags, XattrMode};
use stratafs_passthroughfs::{BuildError, Ownership, PassthroughFs};
use stratafs_sys::mount::{MountFlags, detach, mount};

use crate::support::{As, Share, in_child, is_root, logged, root};

/// A filesystem on a directory, taken away again at the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(kind: &str, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (kind, options) = (CString::new(kind).unwrap(), CString::new(options).unwrap());
        match mount(c"stratafs-test", dir.path(), &kind, MountFlags::empty(), &options) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("SKIPPED: mount {}: {error}", kind.to_string_lossy());
                None
            }
        }
    }

    /// A new filesystem of `kind` of 8 MiB, in a file.
    fn image(kind: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(8 << 20).unwrap();
        let run = |program: &str, arguments: &[&str], last: &[&Path]| {
            let mut command = Command::new(program);
            command.args(arguments).args(last).stdin(Stdio::null());
            command.output().is_ok_and(|output| output.status.success())
        };
        let made = run(&format!("mkfs.{kind}"), &["-q", "-N", "64"], &[image.path()]);
        // The device lives on after the file's name is gone, until the last unmount.
        if made && run("mount", &["-o", "loop"], &[image.path(), dir.path()]) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: an image of {kind}");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        detach(self.path()).unwrap();
    }
}

/// Fills the filesystem of `mounted`, and looks at what there is all the while.
fn fill(mounted: &Mounted, ownership: Ownership) {
    let dir = tempfile::tempdir_in(mounted.path()).unwrap();
    let share = Share::over(dir, |b| b.ownership(ownership));
    let w = share.world();
    w.file("kept", b"precious").unwrap();
    w.chown("kept", Some(5), Some(6)).unwrap();
    w.mkdir("dir", 0o750).unwrap();
    let mut made = Vec::new();
    let refused = loop {
        let name = format!("f{}", made.len());
        match w.file(&name, &[7; 4096]) {
            Ok(()) => made.push(name),
            Err(errno) => break errno,
        }
        assert!(made.len() < 4000);
    };
    assert_eq!(refused, Errno::ENOSPC);
    let fd = w.open("kept", OpenFlags::READ_WRITE).unwrap();
    let mut end = 4096;
    let full = loop {
        match w.pwrite(fd, end, &[1; 65_536]) {
            Ok(written) => end += written as u64,
            Err(errno) => break errno,
        }
        assert!(end < 1 << 26);
    };
    assert_eq!(full, Errno::ENOSPC);
    w.close(fd).unwrap();
    assert_eq!(&w.read("kept").unwrap()[..8], b"precious");
    let before = w.names("").unwrap();
    let mut refusals = 0;
    for number in 0..80 {
        for outcome in [
            w.mkdir(format!("d{number}"), 0o755),
            w.symlink("t".repeat(900), format!("l{number}")),
            w.mknod(format!("p{number}"), 0o010_644, 0),
        ] {
            match outcome {
                Ok(()) => {}
                Err(errno) => {
                    assert_eq!(errno, Errno::ENOSPC);
                    refusals += 1;
                }
            }
        }
    }
    assert!(refusals > 0 && w.names("").unwrap().len() <= before.len() + 240 - refusals);
    // A record that there is no room for leaves the one before it.
    match w.chown("dir", Some(4_000_000_000), Some(4_000_000_000)) {
        Ok(()) => assert_eq!(w.stat("dir").unwrap().uid, 4_000_000_000),
        Err(errno) => assert_eq!((errno, w.stat("dir").unwrap().uid), (Errno::ENOSPC, 0)),
    }
    // Whatever came into being has its record, and is whole.
    for name in w.names("").unwrap() {
        let attr = w.stat(&name).unwrap();
        let owner = if name == "kept" { 5 } else { 0 };
        assert!(attr.uid == owner || name == "dir", "{name}: {}", attr.uid);
        if name.starts_with('l') {
            assert_eq!(w.readlink(&name).unwrap().len(), 900);
        }
    }
    for name in made {
        w.unlink(name).unwrap();
    }
    w.file("after", b"room again").unwrap();
    assert_eq!(w.read("after").unwrap(), b"room again");
}

#[test]
fn full_disk_is_enospc_and_leaves_nothing_half_made() {
    let tmpfs = || Mounted::new("tmpfs", "size=64k,nr_inodes=20");
    for ownership in [Ownership::Virtual, Ownership::Host] {
        let (Some(memory), Some(image)) = (tmpfs(), Mounted::image("ext4")) else { return };
        fill(&memory, ownership);
        fill(&image, ownership);
    }
}

#[test]
fn filesystem_without_user_attributes_is_refused_under_virtual_ownership_alone() {
    let Some(mounted) = Mounted::new("ramfs", "") else { return };
    let build =
        |ownership| PassthroughFs::builder().root_dir(mounted.path()).ownership(ownership).build();
    let error = build(Ownership::Virtual).unwrap_err();
    assert!(matches!(error, BuildError::NoXattr { .. }), "{error}");
    let fs = build(Ownership::Squash).unwrap();
    let name = stratafs_core::Name::new(b"d").unwrap();
    fs.mkdir(&root(), NodeId::ROOT, name, 0o755).unwrap();
    let readonly = PassthroughFs::builder().root_dir(mounted.path()).readonly(true);
    let fs = readonly.ownership(Ownership::Virtual).default_owner(8, 9).build().unwrap();
    let found = fs.lookup(&root(), NodeId::ROOT, name).unwrap().found().unwrap();
    assert_eq!((found.attr.uid, found.attr.gid), (8, 9), "what has no record shows the default");
}

#[test]
fn filesystem_without_user_attributes_works_under_host_ownership_but_for_them() {
    let Some(mounted) = Mounted::new("ramfs", "") else { return };
    let dir = tempfile::tempdir_in(mounted.path()).unwrap();
    let share = Share::over(dir, |b| b.ownership(Ownership::Host));
    let w = share.world();
    w.file("f", b"data").unwrap();
    let set = w.setxattr("f", b"user.a", b"1", XattrMode::Set);
    assert_eq!(set.unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(w.getxattr("f", b"user.a").unwrap_err(), Errno::EOPNOTSUPP);
    w.chown("f", Some(3), Some(4)).unwrap();
    w.chmod("f", 0o4755).unwrap();
    w.rename("f", "g").unwrap();
    let attr = w.stat("g").unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode & 0o7777), (3, 4, 0o4755));
    assert_eq!(w.read("g").unwrap(), b"data");
}

#[test]
fn filesystem_without_creation_times_keeps_nodes_apart_and_finds_them_again() {
    let Some(mounted) = Mounted::new("ramfs", "") else { return };
    let dir = tempfile::tempdir_in(mounted.path()).unwrap();
    let share = Share::over(dir, |b| b.ownership(Ownership::Squash).fd_budget(8));
    let w = share.world();
    w.mkdir("d", 0o755).unwrap();
    w.file("d/f", b"data").unwrap();
    let stat = w.stat("d/f").unwrap();
    assert_eq!(stat.btime, None, "or this is no test of it");
    let dir = share.lookup(NodeId::ROOT, "d").unwrap();
    let file = share.lookup(dir.node, "f").unwrap();
    assert_eq!(share.lookup(dir.node, "f").unwrap().node, file.node);
    let read = || {
        let opened = share.fs.open(&root(), file.node, OpenFlags::READ_ONLY, false)?;
        let mut data = [0; 8];
        let mut sink = stratafs_core::SliceSink::new(&mut data);
        let read = share.fs.read(&root(), file.node, opened.handle, 0, 8, &mut sink);
        share.fs.release(&root(), file.node, opened.handle, Default::default())?;
        Ok::<_, Errno>(data[..read?].to_vec())
    };
    share.push_out();
    assert_eq!(read().unwrap(), b"data");
    w.rename("d", "e").unwrap();
    w.link("e/f", "g").unwrap();
    share.push_out();
    assert_eq!(read().unwrap(), b"data");
    w.unlink("e/f").unwrap();
    w.unlink("g").unwrap();
    share.push_out();
    assert_eq!(read().unwrap(), b"data");
    share.fs.forget(file.node, 2);
    share.fs.forget(dir.node, 1);
    assert_eq!(share.fs.usage().nodes, 1);
}

#[test]
fn read_only_host_is_erofs() {
    let Some(mounted) = Mounted::new("tmpfs", "size=1m") else { return };
    std::fs::write(mounted.path().join("f"), b"data").unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(mounted.path()).status();
    if !remounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a remount");
        return;
    }
    let lines = logged();
    let builder =
        || PassthroughFs::builder().root_dir(mounted.path()).ownership(Ownership::Virtual);
    let is_told = || {
        let path = mounted.path().display().to_string();
        lines.lock().unwrap().iter().any(|line| line.contains(&path) && line.contains("EROFS"))
    };
    builder().readonly(true).build().unwrap();
    assert!(!is_told(), "who says so knows it");
    let fs = builder().build().unwrap();
    assert!(is_told(), "{:?}", lines.lock().unwrap());
    let name = stratafs_core::Name::new(b"new").unwrap();
    assert_eq!(fs.mkdir(&root(), NodeId::ROOT, name, 0o755).unwrap_err(), Errno::EROFS);
    let file = stratafs_core::Name::new(b"f").unwrap();
    let entry = fs.lookup(&root(), NodeId::ROOT, file).unwrap().found().unwrap();
    let write = fs.open(&root(), entry.node, OpenFlags::READ_WRITE, false);
    assert_eq!(write.unwrap_err(), Errno::EROFS);
    assert!(fs.open(&root(), entry.node, OpenFlags::READ_ONLY, false).is_ok());
}

#[test]
fn vanished_root_answers_enoent_and_survives() {
    let share = Share::plain();
    let w = share.world();
    w.file("f", b"data").unwrap();
    let fd = w.open("f", OpenFlags::READ_ONLY).unwrap();
    std::fs::remove_dir_all(share.dir.path()).unwrap();
    assert_eq!(w.stat("f").unwrap_err(), Errno::ENOENT);
    assert_eq!(w.mkdir("d", 0o755).unwrap_err(), Errno::ENOENT);
    assert_eq!(w.create("g", OpenFlags::READ_WRITE, 0o644).unwrap_err(), Errno::ENOENT);
    assert_eq!(w.names("").unwrap(), [""; 0]);
    assert_eq!(w.stat("").unwrap().nlink, 0);
    assert_eq!(w.read_fd(fd).unwrap(), b"data", "what is open stays so");
    w.close(fd).unwrap();
    // Another directory by the same name is not what is shared.
    std::fs::create_dir(share.dir.path()).unwrap();
    std::fs::write(share.host("f"), b"other").unwrap();
    assert_eq!(w.stat("f").unwrap_err(), Errno::ENOENT);
}

#[test]
fn directory_of_somebody_else_is_eacces() {
    if !is_root("becoming nobody") {
        return;
    }
    if !in_child("faults::directory_of_somebody_else_is_eacces", As::Nobody) {
        return;
    }
    let lines = logged();
    // Readable by all and written by root alone, on every Linux.
    let fs = PassthroughFs::builder().root_dir("/etc").build().unwrap();
    let told = lines.lock().unwrap().clone();
    let about = |line: &String| line.contains("/etc: EACCES") && line.contains("its owner");
    assert!(told.iter().any(about), "{told:?}");
    let name = |text: &'static str| stratafs_core::Name::new(text.as_bytes()).unwrap();
    assert_eq!(fs.mkdir(&root(), NodeId::ROOT, name("new"), 0o755).unwrap_err(), Errno::EACCES);
    let entry = fs.lookup(&root(), NodeId::ROOT, name("passwd")).unwrap().found().unwrap();
    let write = fs.open(&root(), entry.node, OpenFlags::READ_WRITE, false);
    assert_eq!(write.unwrap_err(), Errno::EACCES);
    assert!(fs.open(&root(), entry.node, OpenFlags::READ_ONLY, false).is_ok());
    let mut set = stratafs_core::SetAttr::new();
    set.mode = Some(0o777);
    let chmod = fs.setattr(&root(), entry.node, &set).unwrap_err();
    assert!(matches!(chmod, Errno::EACCES | Errno::EPERM), "{chmod}");
    let unreadable = PassthroughFs::builder().root_dir("/root").build();
    if let Err(error) = unreadable {
        assert!(matches!(error, BuildError::Open { cause: Errno::EACCES, .. }), "{error}");
    }
}
