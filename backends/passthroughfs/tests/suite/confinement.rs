//! Nothing outside the share is read, changed or waited for.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stratafs_core::{DynFileSystem, Errno, Name, NodeId, OpenFlags, SetAttr, XattrMode};
use stratafs_passthroughfs::{OpenMode, Ownership};
use stratafs_sys::at::{Place, Rename, rename};
use stratafs_sys::openat::pin_path;
use stratafs_testkit::{Client, InProcess, World};

use crate::support::{Share, is_root, root, snapshot, within_deadline};

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

/// All that a guest can do below `a`, which is a directory or a link to the canary by turns.
fn attack(w: &World<'_>, client: &InProcess, round: u32) -> Result<(), Errno> {
    let new = format!("a/new{}", round % 7);
    let new = new.as_str();
    let fail_well = |errno: Errno| match errno {
        Errno::ENOTDIR | Errno::ENOENT | Errno::ESTALE | Errno::EEXIST | Errno::EISDIR => Ok(()),
        Errno::ENOTEMPTY | Errno::EPERM | Errno::EINVAL | Errno::ELOOP | Errno::ENODATA => Ok(()),
        Errno::EXDEV => Ok(()),
        errno => Err(errno),
    };
    let tries: [&dyn Fn() -> Result<(), Errno>; 16] = [
        &|| {
            let data = w.read("a/f")?;
            assert_ne!(data, SECRET, "read from outside");
            Ok(())
        },
        &|| w.write_at("a/f", 0, b"overwritten"),
        &|| w.truncate("a/f", 1),
        &|| w.chmod("a/f", 0o777),
        &|| w.chown("a/f", Some(1), Some(1)),
        &|| w.chmod("a/sub", 0o777),
        &|| w.setxattr("a/f", b"user.x", b"1", XattrMode::Set),
        &|| w.mkdir(new, 0o755),
        &|| w.file(new, b"made"),
        &|| w.symlink("x", new),
        &|| w.mknod(new, 0o100_644, 0),
        &|| w.rename("a/f", "a/g"),
        &|| w.rename("a/g", "a/f"),
        &|| w.link("a/f", new),
        &|| w.unlink(new),
        &|| w.rmdir(new),
    ];
    for attempt in tries {
        attempt().or_else(fail_well)?;
    }
    let listed = client.opendir(b"a").and_then(|fd| {
        let names = client.readdir(fd, 0, 1000);
        client.close(fd)?;
        names
    });
    if let Ok(names) = listed {
        assert!(names.iter().any(|entry| entry.name == b"inside"), "listed the outside");
    }
    Ok(())
}

fn race(ownership: Ownership, open: OpenMode) {
    let canary = canary();
    let before = snapshot(canary.path());
    // The smallest budget: nodes are resolved again and again, which is where the race is.
    let share = Share::new(|b| b.ownership(ownership).open(open).fd_budget(8));
    std::fs::create_dir(share.host("a")).unwrap();
    std::fs::create_dir(share.host("a/sub")).unwrap();
    std::fs::write(share.host("a/f"), b"inside").unwrap();
    std::fs::write(share.host("a/inside"), b"").unwrap();
    symlink(canary.path(), share.host("b")).unwrap();
    let stop = AtomicBool::new(false);
    let (swaps, rounds) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_until(share.dir.path(), &stop));
        let attackers = [0, 1].map(|_| {
            scope.spawn(|| {
                let client = InProcess::new(Arc::clone(&share.fs) as _);
                let w = World::new(&client as &dyn Client, b"".as_slice());
                let start = Instant::now();
                let mut rounds = 0;
                let mut outcome = Ok(());
                while start.elapsed() < race_time() && outcome.is_ok() {
                    outcome = attack(&w, &client, rounds);
                    rounds += 1;
                }
                outcome.map(|()| rounds)
            })
        });
        let rounds = attackers.map(|attacker| attacker.join());
        stop.store(true, Ordering::Relaxed);
        (swapper.join().unwrap(), rounds.map(|rounds| rounds.unwrap().unwrap()))
    });
    println!("{swaps} swaps, {rounds:?} rounds");
    assert_eq!(snapshot(canary.path()), before, "the outside was changed");
}

#[test]
fn racer_with_links_under_virtual_ownership_gets_nothing_outside() {
    race(Ownership::Virtual, OpenMode::Handles);
}

#[test]
fn racer_with_links_under_host_ownership_gets_nothing_outside() {
    race(Ownership::Host, OpenMode::Stateless);
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
    let (opened, refused) = within_deadline(move || {
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
