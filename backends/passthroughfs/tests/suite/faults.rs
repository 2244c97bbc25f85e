//! A host that fails: full, gone, somebody else's.

use std::ffi::CString;
use std::path::Path;

use stratafs_core::{DynFileSystem, Errno, NodeId, OpenFlags};
use stratafs_passthroughfs::{BuildError, Ownership, PassthroughFs};
use stratafs_sys::mount::{MountFlags, detach, mount};

use crate::support::{As, Share, in_child, is_root, root};

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

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        detach(self.path()).unwrap();
    }
}

#[test]
fn full_disk_is_enospc_and_leaves_nothing_half_made() {
    let Some(mounted) = Mounted::new("tmpfs", "size=64k,nr_inodes=20") else { return };
    let share = Share::over(tempfile::tempdir_in(mounted.path()).unwrap(), |b| b);
    let w = share.world();
    w.file("kept", b"precious").unwrap();
    let mut made = Vec::new();
    let refused = loop {
        let name = format!("f{}", made.len());
        match w.file(&name, &[7; 4096]) {
            Ok(()) => made.push(name),
            Err(errno) => break errno,
        }
        assert!(made.len() < 100);
    };
    assert_eq!(refused, Errno::ENOSPC);
    let fd = w.open("kept", OpenFlags::READ_WRITE).unwrap();
    let mut end = 4096;
    let full = loop {
        match w.pwrite(fd, end, &[1; 65_536]) {
            Ok(written) => end += written as u64,
            Err(errno) => break errno,
        }
        assert!(end < 1 << 20);
    };
    assert_eq!(full, Errno::ENOSPC);
    w.close(fd).unwrap();
    assert_eq!(&w.read("kept").unwrap()[..8], b"precious");
    for number in 0..40 {
        let _ = w.mkdir(format!("d{number}"), 0o755);
        let _ = w.symlink("t", format!("l{number}"));
    }
    // Whatever came into being has its record; nothing has lost it.
    for name in w.names("").unwrap() {
        assert_eq!(w.stat(&name).unwrap().uid, 0, "{name}");
    }
    for name in made {
        w.unlink(name).unwrap();
    }
    w.file("after", b"room again").unwrap();
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
    let remounted =
        std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(mounted.path()).status();
    if !remounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a remount");
        return;
    }
    let fs = PassthroughFs::builder()
        .root_dir(mounted.path())
        .ownership(Ownership::Virtual)
        .build()
        .unwrap();
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
    // Readable by all and written by root alone, on every Linux.
    let fs = PassthroughFs::builder().root_dir("/etc").build();
    let fs = match fs {
        Ok(fs) => fs,
        Err(error) => panic!("{error}"),
    };
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
