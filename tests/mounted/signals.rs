//! The end of a server by signals, kind and unkind.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use stratafs_core::Errno;
use stratafs_sys::creds;

use crate::child;
use crate::stage::{Mountpoint, join, wait_until};

fn is_clean_after(signal: &str) {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let server = child::start(mountpoint.path(), "");
    // Somebody is in it, as somebody always is.
    let _open = File::create(mountpoint.path().join("file")).unwrap();
    server.signal(signal);
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("signal"), "{said}");
    assert!(!mountpoint.is_mounted());
}

#[test]
fn sigterm_unmounts_and_exits_0() {
    is_clean_after("TERM");
}

#[test]
fn sigint_unmounts_and_exits_0() {
    is_clean_after("INT");
}

#[test]
fn sighup_unmounts_and_exits_0() {
    is_clean_after("HUP");
}

#[test]
fn umount_by_somebody_else_exits_0() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let server = child::start(mountpoint.path(), "");
    assert!(Command::new("umount").arg(mountpoint.path()).status().unwrap().success());
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("unmounted"), "{said}");
}

#[test]
fn sigkill_lets_the_connection_die_and_the_next_mount_takes_the_dead_one_away() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let server = child::start(mountpoint.path(), "");
    server.signal("KILL");
    server.wait();
    let error = fs::metadata(mountpoint.path().join("file")).unwrap_err();
    assert_eq!(Errno::from(error), Errno::ENOTCONN);
    assert!(mountpoint.is_mounted());

    let server = child::start(mountpoint.path(), "fsname=again");
    fs::write(mountpoint.path().join("file"), b"x").unwrap();
    server.signal("TERM");
    assert!(server.wait().0.success());
    assert!(!mountpoint.is_mounted());
}

#[test]
fn sigkill_under_load_ends_every_client_with_an_error() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let server = child::start(mountpoint.path(), "");
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let file = mountpoint.path().join(format!("{client}"));
            thread::spawn(move || {
                // Only an error ends it.
                loop {
                    let done = fs::write(&file, [b'x'; 10_000])
                        .and_then(|()| fs::read(&file))
                        .and_then(|_| fs::remove_file(&file));
                    if let Err(error) = done {
                        return Errno::from(error);
                    }
                }
            })
        })
        .collect();
    wait_until("all of them are at work", || fs::read_dir(mountpoint.path()).unwrap().count() >= 2);
    server.signal("KILL");
    server.wait();
    for client in clients {
        let errno = join(client);
        // ECONNABORTED is what a request that was under way is told, and EIO what becomes of it
        // where a page was to be read.
        let told = [Errno::ENOTCONN, Errno::from_raw(103), Errno::EIO];
        assert!(told.contains(&errno), "{errno}");
    }
}

#[test]
fn sigkill_with_auto_unmount_leaves_nothing_mounted() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let server = child::start(mountpoint.path(), "auto_unmount");
    server.signal("KILL");
    server.wait();
    wait_until("it is unmounted", || !mountpoint.is_mounted());
}

#[test]
fn setuid_serves_as_that_user_for_good_and_still_unmounts() {
    let Some(mountpoint) = Mountpoint::new() else { return };
    let nobody = creds::user("nobody").unwrap();
    // The server's own directories are on the way to the mountpoint.
    open_to_all(mountpoint.beside());
    for signal in ["TERM", "KILL"] {
        let server = child::start(mountpoint.path(), "setuid=nobody,allow_other");
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("Uid:"), vec![nobody.uid.to_string(); 4]);
        assert_eq!(line("Gid:"), vec![nobody.gid.to_string(); 4]);
        assert!(!line("Groups:").contains(&"0".to_owned()));
        assert_eq!(line("CapPrm:"), ["0000000000000000"]);
        assert_eq!(line("CapEff:"), ["0000000000000000"]);
        fs::metadata(mountpoint.path()).unwrap();

        server.signal(signal);
        server.wait();
        wait_until("it is unmounted", || !mountpoint.is_mounted());
    }
}

/// Lets other users through a temporary directory.
pub(crate) fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}
