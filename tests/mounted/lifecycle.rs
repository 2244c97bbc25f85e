//! From a mount to its end.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use stratafs::transport::fuse_dev::{Mount, MountOptions};
use stratafs_core::Errno;
use stratafs_memfs::{MemFs, SizeExt as _};
use stratafs_sys::mount;

use crate::probe::Probe;
use crate::stage::{DEADLINE, Mountpoint, Stage, join, wait_until};

fn mem() -> Arc<MemFs> {
    Arc::new(MemFs::builder().capacity(256.mib()).build().unwrap())
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from(result.unwrap_err())
}

#[test]
fn mount_of_a_memfs_keeps_what_is_written() {
    let Some(stage) = Stage::new(mem()) else { return };
    let data: Vec<u8> =
        (0..8_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::create_dir(stage.path("dir")).unwrap();
    fs::write(stage.path("dir/file"), &data).unwrap();
    fs::rename(stage.path("dir/file"), stage.path("moved")).unwrap();
    assert!(fs::read(stage.path("moved")).unwrap() == data);
    let names: Vec<_> =
        fs::read_dir(stage.mountpoint.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(errno(fs::metadata(stage.path("dir/file"))), Errno::ENOENT);
}

#[test]
fn mount_twenty_times_in_one_process_leaves_nothing_mounted() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let filesystem = mem();
    for round in 0..20 {
        let server =
            Mount::builder(filesystem.clone()).threads(3).mount(mountpoint.path()).unwrap();
        let file = mountpoint.path().join("count");
        assert_eq!(fs::read(&file).map_or(0, |text| text.len()), round);
        fs::write(&file, vec![b'x'; round + 1]).unwrap();
        if round % 2 == 0 {
            server.unmount().unwrap();
        } else {
            drop(server);
        }
        assert!(!mountpoint.is_mounted());
    }
}

#[test]
fn mount_by_default_is_nosuid_nodev_and_open_to_other_users() {
    let Some(stage) = Stage::new(mem()) else { return };
    let there = mount::mount_at(stage.mountpoint.path()).unwrap().unwrap();
    assert_eq!(there.kind, "fuse.stratafs");
    assert_eq!(there.source, "stratafs:mem");
    assert_eq!(there.options, "rw,nosuid,nodev,relatime");
    let data = there.super_options.to_str().unwrap();
    for word in ["user_id=0", "default_permissions", "allow_other"] {
        assert!(data.split(',').any(|option| option == word), "{word}: {data}");
    }
}

#[test]
fn mount_with_options_shows_them_and_refuses_writes() {
    let options = r"ro,noexec,noatime,suid,dev,fsname=a\,b,subtype=x";
    let Some(stage) = Stage::with(mem(), options, 1) else { return };
    let there = mount::mount_at(stage.mountpoint.path()).unwrap().unwrap();
    assert_eq!(there.kind, "fuse.x");
    assert_eq!(there.source, "a,b");
    assert_eq!(there.options, "ro,noexec,noatime");
    assert_eq!(errno(fs::write(stage.path("file"), b"x")), Errno::EROFS);
}

#[test]
fn requests_are_as_large_as_the_kernel_allows() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    let limit = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit");
    let pages = limit.map_or(256, |text| text.trim().parse::<u64>().unwrap()).min(4096);
    fs::write(stage.path("file"), vec![1; 4 << 20]).unwrap();
    assert_eq!(probe.largest_write.load(Ordering::SeqCst), (pages * 4096).min(4 << 20));
}

#[test]
fn max_read_bounds_every_read() {
    let probe = Probe::new();
    let Some(stage) = Stage::with(probe.clone(), "max_read=8192", 1) else { return };
    probe.size.store(1 << 20, Ordering::SeqCst);
    let mut data = Vec::new();
    File::open(stage.path("file")).unwrap().read_to_end(&mut data).unwrap();
    assert_eq!(data.len(), 1 << 20);
    assert_eq!(probe.largest_read.load(Ordering::SeqCst), 8192);
}

#[test]
fn umount_by_somebody_else_ends_the_wait() {
    let Some(stage) = Stage::new(mem()) else { return };
    assert!(!stage.server.wait_timeout(std::time::Duration::from_millis(50)));
    assert!(Command::new("umount").arg(stage.mountpoint.path()).status().unwrap().success());
    assert!(stage.server.wait_timeout(DEADLINE));
    stage.server.unmount().unwrap();
    assert!(!stage.mountpoint.is_mounted());
}

#[test]
fn abort_by_somebody_else_leaves_no_dead_mount() {
    let Some(stage) = Stage::new(mem()) else { return };
    // Without -l a mount that is in use stays, but its connection is gone.
    let _open = File::create(stage.path("file")).unwrap();
    let _ = Command::new("umount").arg("-f").arg(stage.mountpoint.path()).status().unwrap();
    assert!(stage.server.wait_timeout(DEADLINE));
    stage.server.unmount().unwrap();
    assert!(!stage.mountpoint.is_mounted());
}

#[test]
fn unmount_with_an_open_file_leaves_it_unusable_and_nothing_mounted() {
    let Some(stage) = Stage::new(mem()) else { return };
    let mut file = File::create(stage.path("file")).unwrap();
    file.write_all(b"x").unwrap();
    stage.server.unmount().unwrap();
    assert!(!stage.mountpoint.is_mounted());
    // The connection goes with the last descriptor, which the last thread closed.
    wait_until("the connection is gone", || file.sync_all().is_err());
    assert_eq!(errno(file.metadata()), Errno::ENOTCONN);
}

#[test]
fn unmount_under_load_ends_every_client_with_an_error() {
    let Some(stage) = Stage::new(mem()) else { return };
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let mut file = File::create(stage.path(&format!("{client}"))).unwrap();
            thread::spawn(move || {
                // Only an error ends it.
                loop {
                    let again = file.rewind().and_then(|()| file.write_all(&[b'x'; 10_000]));
                    if let Err(error) = again.and_then(|()| file.sync_all()) {
                        return Errno::from(error);
                    }
                }
            })
        })
        .collect();
    stage.server.unmount().unwrap();
    assert!(!stage.mountpoint.is_mounted());
    for client in clients {
        let errno = join(client);
        // ECONNABORTED is what a request that was under way is told.
        assert!([Errno::ENOTCONN, Errno::from_raw(103)].contains(&errno), "{errno}");
    }
}

#[test]
fn panic_in_the_filesystem_is_eio_and_the_next_request_is_served() {
    let Some(stage) = Stage::with(Probe::new(), "", 1) else { return };
    for _ in 0..3 {
        assert_eq!(errno(fs::metadata(stage.path("panic"))), Errno::EIO);
        assert_eq!(fs::metadata(stage.path("file")).unwrap().ino(), 2);
    }
}

#[test]
fn clients_in_parallel_are_all_served_by_a_crew_that_grows() {
    let Some(stage) = Stage::with(mem(), "", 4) else { return };
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let dir = stage.path(&format!("client-{client}"));
            thread::spawn(move || {
                fs::create_dir(&dir).unwrap();
                for i in 0..200 {
                    let file = dir.join(format!("{i}"));
                    fs::write(&file, i.to_string()).unwrap();
                    assert_eq!(fs::read_to_string(&file).unwrap(), i.to_string());
                    fs::remove_file(&file).unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        join(client);
    }
    assert_eq!(fs::read_dir(stage.mountpoint.path()).unwrap().count(), 8);
}

#[test]
fn mount_through_a_symbolic_link_serves_the_directory_behind_it() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let link = mountpoint.beside().join("link");
    std::os::unix::fs::symlink(mountpoint.path(), &link).unwrap();
    let options = MountOptions::default();
    let server = Mount::builder(mem()).options(options).mount(&link).unwrap();
    assert_eq!(server.mountpoint(), mountpoint.path());
    fs::write(link.join("file"), b"x").unwrap();
    server.unmount().unwrap();
    assert!(!mountpoint.is_mounted());
}
