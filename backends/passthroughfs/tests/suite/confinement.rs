//! Nothing outside the share is read, changed or waited for.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stratafs_core::{DynFileSystem, Errno, Name, NodeId, OpenFlags, SetAttr};
use stratafs_passthroughfs::Ownership;
use stratafs_sys::at::{Place, Rename, rename};
use stratafs_sys::openat::pin_path;
use stratafs_testkit::{Client, InProcess};

use crate::support::{Share, is_root, root, within_deadline};

const SECRET: &[u8] = b"outside the share";

/// How long two racers run at each other; the soak sets it longer.
fn race_time() -> Duration {
    let seconds = std::env::var("STRATAFS_RACE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(2))
}

/// A directory outside with a file, a directory and a way in that a guest must not find.
fn canary() -> tempfile::TempDir {
    let canary = tempfile::tempdir().unwrap();
    std::fs::write(canary.path().join("f"), SECRET).unwrap();
    std::fs::create_dir(canary.path().join("sub")).unwrap();
    std::fs::write(canary.path().join("sub/f"), SECRET).unwrap();
    canary
}

/// Swaps `a` and `b` in `dir` until it is told to stop.
fn swap_until(dir: &std::path::Path, stop: &AtomicBool) -> u64 {
    use std::os::fd::AsFd;
    let dir = pin_path(dir, false).unwrap();
    let place = |name: &'static [u8]| Place { dir: dir.as_fd(), name: Name::new(name).unwrap() };
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        rename(place(b"a"), place(b"b"), Rename::EXCHANGE).unwrap();
        swaps += 1;
    }
    swaps
}

#[test]
fn symlink_to_the_outside_is_shown_and_never_followed() {
    let canary = canary();
    let share = Share::plain();
    let w = share.world();
    symlink(canary.path(), share.host("out")).unwrap();
    symlink("/etc/passwd", share.host("passwd")).unwrap();
    assert_eq!(w.readlink("passwd").unwrap(), b"/etc/passwd");
    assert_eq!(w.stat("out/f").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(w.mkdir("out/new", 0o755).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(w.unlink("out/f").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(w.open("passwd", OpenFlags::READ_ONLY).unwrap_err(), Errno::ELOOP);
    assert_eq!(w.truncate("passwd", 0).unwrap_err(), Errno::EINVAL);
    assert_eq!(w.names("out").unwrap_err(), Errno::ENOTDIR);
}

#[test]
fn directory_moved_out_of_the_share_is_no_way_to_its_new_surroundings() {
    let outside = canary();
    let share = Share::plain();
    std::fs::create_dir(share.host("d")).unwrap();
    let entry = share.lookup(NodeId::ROOT, "d").unwrap();
    let moved = outside.path().join("d");
    if std::fs::rename(share.host("d"), &moved).is_err() {
        eprintln!("SKIPPED: the temporary directories are on different filesystems");
        return;
    }
    // What was moved stays what it is; what is around it is out of reach.
    let mut names = Vec::new();
    let opened = share.fs.opendir(&root(), entry.node, OpenFlags::READ_ONLY).unwrap();
    let mut sink = Names(&mut names);
    share.fs.readdir(&root(), entry.node, opened.handle, 0, &mut sink).unwrap();
    share.fs.releasedir(&root(), entry.node, opened.handle).unwrap();
    assert_eq!(names, [b".".to_vec(), b"..".to_vec()]);
    share.fs.forget(entry.node, 1);
}

struct Names<'a>(&'a mut Vec<Vec<u8>>);

impl stratafs_core::DirSink for Names<'_> {
    fn fits(&self, _: usize) -> bool {
        true
    }
    fn add(
        &mut self,
        entry: &stratafs_core::DirEntry<'_>,
        _: Option<&stratafs_core::Entry>,
    ) -> stratafs_core::Added {
        self.0.push(entry.name.to_vec());
        stratafs_core::Added::Taken
    }
}

#[test]
fn fifo_swapped_in_does_not_block_an_open() {
    let share = Share::new(|builder| builder.ownership(Ownership::Host).fd_budget(8));
    if !is_root("host ownership") {
        return;
    }
    std::fs::write(share.host("a"), b"inside").unwrap();
    share.world().mknod("b", 0o010_644, 0).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let path = share.dir.path().to_owned();
    let stopped = Arc::clone(&stop);
    let swapper = std::thread::spawn(move || swap_until(&path, &stopped));
    let fs = Arc::clone(&share.fs);
    let (opened, refused) = within_deadline(race_time(), move || {
        let client = InProcess::new(fs as _);
        let (mut opened, mut refused) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < race_time() {
            for flags in [OpenFlags::READ_ONLY, OpenFlags::WRITE_ONLY, OpenFlags::READ_WRITE] {
                match client.open(b"a", flags) {
                    Ok(fd) => {
                        client.close(fd).unwrap();
                        opened += 1;
                    }
                    Err(Errno::ENXIO | Errno::ESTALE) => refused += 1,
                    Err(errno) => panic!("{errno}"),
                }
                match client.create(b"a", flags, 0o644) {
                    Ok(fd) => client.close(fd).unwrap(),
                    Err(Errno::ENXIO | Errno::ESTALE) => {}
                    Err(errno) => panic!("{errno}"),
                }
            }
        }
        (opened, refused)
    });
    stop.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 0 && opened > 0 && refused > 0, "{opened} {refused}");
}

#[test]
fn device_of_the_host_is_shown_and_never_opened() {
    if !is_root("making a device") {
        return;
    }
    let share = Share::plain();
    let status = std::process::Command::new("mknod")
        .arg(share.host("null"))
        .args(["c", "1", "3"])
        .status()
        .unwrap();
    assert!(status.success());
    let w = share.world();
    let attr = w.stat("null").unwrap();
    assert_eq!((attr.mode & 0o170_000, attr.rdev), (0o020_000, 0x103));
    assert_eq!(w.open("null", OpenFlags::READ_WRITE).unwrap_err(), Errno::ENXIO);
    assert_eq!(w.chown("null", Some(1), None).unwrap_err(), Errno::EPERM, "no place for a record");
    let entry = share.lookup(NodeId::ROOT, "null").unwrap();
    let mut set = SetAttr::new();
    set.size = Some(0);
    assert_eq!(share.fs.setattr(&root(), entry.node, &set).unwrap_err(), Errno::EINVAL);
    share.fs.forget(entry.node, 1);
}

#[test]
fn parent_of_the_root_is_the_root_itself_in_listings() {
    let share = Share::plain();
    let w = share.world();
    w.mkdir("d", 0o755).unwrap();
    let root = w.stat("").unwrap().ino;
    let dots = |path: &str| -> Vec<u64> {
        w.list(path).unwrap().iter().filter(|e| e.name.starts_with(b".")).map(|e| e.ino).collect()
    };
    assert_eq!(dots(""), [root, root]);
    assert_eq!(dots("d"), [w.stat("d").unwrap().ino, root]);
}

/// Names that mean something to shells, to other systems, to overlays and to this filesystem, and
/// nothing to a directory.
const PECULIAR: [&[u8]; 18] = [
    b"...",
    b" ",
    b"-rf",
    b"~",
    b"$HOME",
    b"*",
    b"a\nb",
    b"\xff\xfe",
    b"\\..\\x",
    b"%2e%2e",
    b"C:",
    b".stratafs-1-0",
    b".wh.x",
    b".wh..wh..opq",
    b"user.containers.override_stat",
    b"self",
    b"fd",
    &[b'n'; 255],
];

/// Every operation that takes a name, with `name`: the host has an entry of that very name, and then
/// none.
fn names_work(share: &Share, name: &[u8]) -> Result<(), Errno> {
    use std::os::unix::ffi::OsStrExt;
    let w = share.world();
    let host = share.dir.path().join(std::ffi::OsStr::from_bytes(name));
    let is_there = || std::fs::symlink_metadata(&host).is_ok();
    let made_and_gone = |made: Result<(), Errno>, remove: &dyn Fn() -> Result<(), Errno>| {
        made?;
        assert!(is_there(), "{}", name.escape_ascii());
        w.stat(name)?;
        assert!(w.list("")?.iter().any(|listed| listed.name == name));
        remove()?;
        assert!(!is_there(), "{}", name.escape_ascii());
        Ok::<_, Errno>(())
    };
    let unlink = || w.unlink(name);
    made_and_gone(w.mkdir(name, 0o755), &|| w.rmdir(name))?;
    made_and_gone(w.file(name, b"data"), &unlink)?;
    made_and_gone(w.mknod(name, 0o100_644, 0), &unlink)?;
    made_and_gone(w.mknod(name, 0o010_644, 0), &unlink)?;
    made_and_gone(w.symlink("../../x", name), &unlink)?;
    w.file("other", b"data")?;
    made_and_gone(w.link("other", name), &unlink)?;
    made_and_gone(w.rename("other", name), &|| w.rename(name, "other"))?;
    w.unlink("other")
}

#[test]
fn peculiar_names_are_names_for_every_operation() {
    for ownership in [Ownership::Virtual, Ownership::Squash] {
        let share = Share::new(|builder| builder.ownership(ownership));
        for name in PECULIAR {
            let outcome = names_work(&share, name);
            assert_eq!(outcome, Ok(()), "{ownership:?} {}", name.escape_ascii());
        }
        assert_eq!(std::fs::read_dir(share.dir.path()).unwrap().count(), 0);
        share.fs.forget(NodeId::ROOT, u64::MAX);
        assert_eq!(share.fs.usage().nodes, 1);
    }
}
