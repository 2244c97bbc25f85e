//! How many system calls a request costs, counted by strace(1).

use std::process::Command;

use stratafs_core::{
    Behaviours, Context, Credentials, DynFileSystem, HandleId, Name, Negotiated, NodeId, OpenFlags,
    Release, RenameFlags, SetAttr, WriteFlags,
};
use stratafs_passthroughfs::Ownership;
use stratafs_sys::buffer::{BufferSink, BufferSource};

use crate::support::Share;

const TEST: &str = "syscalls::requests_cost_no_more_system_calls_than_promised";
const CHILD: &str = "STRATAFS_PASSTHROUGH_TEST_STRACE";

/// A request under each ownership, and what it may cost: `(name, virtual, host)`.
const TABLE: [(&str, usize, usize); 25] = [
    ("lookup, absent", 1, 1),
    // statx; and under virtual ownership a descriptor, its attributes and its record.
    ("lookup, cold", 4, 1),
    ("lookup, warm", 1, 1),
    ("getattr", 1, 1),
    ("getattr, by handle", 1, 1),
    // The object is pinned the first time under host ownership.
    ("open, cold", 1, 3),
    ("open, warm", 1, 1),
    // Whether the kernel may write by itself: mode and capabilities; for a second it is known.
    ("open to write, cold", 3, 3),
    ("open to write", 1, 1),
    ("read", 1, 1),
    ("write", 1, 1),
    ("release", 1, 1),
    // openat2, the record, statx; a file of root's needs no chown.
    ("create", 3, 2),
    ("create to write", 3, 2),
    // What a client knows must stay usable, so it is looked at before its name goes.
    ("unlink", 2, 2),
    ("unlink, unknown", 2, 2),
    ("rename", 3, 3),
    // The file that loses its name is pinned first.
    ("rename over a file", 5, 5),
    // mkdirat gives no descriptor of what it made.
    ("mkdir", 4, 3),
    ("rmdir", 2, 2),
    ("symlink", 3, 3),
    ("link", 3, 2),
    // The record is read anew, for the link has moved ctime.
    ("chmod", 4, 2),
    // Two reads of the directory; under virtual ownership a file may be a device by its record.
    ("readdir of 100", 102, 2),
    ("readdirplus of 100, warm", 102, 102),
];

/// What strace sees between two requests.
fn mark(name: &str) {
    let _ = std::fs::symlink_metadata(format!("/no-such-mark/{name}"));
}

struct Count(usize);

impl stratafs_core::DirSink for Count {
    fn fits(&self, _: usize) -> bool {
        true
    }
    fn add(
        &mut self,
        _: &stratafs_core::DirEntry<'_>,
        _: Option<&stratafs_core::Entry>,
    ) -> stratafs_core::Added {
        self.0 += 1;
        stratafs_core::Added::Taken
    }
}

/// Runs each request of the table once, with a mark before and after.
fn requests(which: &str) {
    let ownership = if which == "host" { Ownership::Host } else { Ownership::Virtual };
    let exclusive = which == "exclusive";
    let share =
        Share::new(|builder| builder.ownership(ownership).default_owner(0, 0).exclusive(exclusive));
    std::fs::create_dir(share.host("dir")).unwrap();
    for number in 0..100 {
        std::fs::write(share.host(&format!("dir/{number}")), b"").unwrap();
    }
    std::fs::write(share.host("file"), [0; 4096]).unwrap();
    std::fs::write(share.host("never"), b"").unwrap();
    // Records that were changed a moment ago are read twice.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (fs, user) = (&share.fs, Credentials::new(0, 0));
    let cx = Context::new(1, Some(user));
    fs.init(&Negotiated::new(45, 1 << 20, Behaviours::PASSTHROUGH)).unwrap();
    let name = |text: &'static str| Name::new(text.as_bytes()).unwrap();
    let request = |what: &str, work: &mut dyn FnMut()| {
        mark(what);
        work();
        mark("end");
    };
    // The root's own mode is looked at now and then when something is made in it.
    let (warm_up, opened) =
        fs.create(&cx, NodeId::ROOT, name("warm"), 0o644, OpenFlags::READ_WRITE, false).unwrap();
    fs.release(&cx, warm_up.node, opened.handle, Release::default()).unwrap();

    request("lookup, absent", &mut || {
        fs.lookup(&cx, NodeId::ROOT, name("none")).unwrap();
    });
    let mut node = NodeId::ROOT;
    for what in ["lookup, cold", "lookup, warm"] {
        request(what, &mut || {
            let found = fs.lookup(&cx, NodeId::ROOT, name("file")).unwrap();
            node = found.found().unwrap().node;
        });
    }
    request("getattr", &mut || {
        fs.getattr(&cx, node, None).unwrap();
    });
    let mut handle = HandleId::NONE;
    let (reading, both) = (OpenFlags::READ_ONLY, OpenFlags::READ_WRITE);
    for (what, flags) in [
        ("open, cold", reading),
        ("open, warm", reading),
        ("open to write, cold", both),
        ("open to write", both),
    ] {
        request(what, &mut || handle = fs.open(&cx, node, flags, false).unwrap().handle);
    }
    request("getattr, by handle", &mut || {
        fs.getattr(&cx, node, Some(handle)).unwrap();
    });
    let mut buffer = [1; 4096];
    request("read", &mut || {
        let mut sink = BufferSink::new(&mut buffer);
        fs.read(&cx, node, handle, 0, 4096, &mut sink).unwrap();
    });
    request("write", &mut || {
        let mut source = BufferSource::new(&[1; 4096]);
        fs.write(&cx, node, handle, 0, 4096, WriteFlags::empty(), &mut source).unwrap();
    });
    request("release", &mut || fs.release(&cx, node, handle, Release::default()).unwrap());
    let writing = OpenFlags::WRITE_ONLY;
    for (what, new, flags) in [("create", "new", reading), ("create to write", "written", writing)]
    {
        request(what, &mut || {
            drop(fs.create(&cx, NodeId::ROOT, name(new), 0o644, flags, false).unwrap());
        });
    }
    request("unlink", &mut || fs.unlink(&cx, NodeId::ROOT, name("file")).unwrap());
    request("unlink, unknown", &mut || fs.unlink(&cx, NodeId::ROOT, name("never")).unwrap());
    request("mkdir", &mut || {
        fs.mkdir(&cx, NodeId::ROOT, name("made"), 0o755).unwrap();
    });
    let none = RenameFlags::empty();
    let (from, to) = (name("new"), name("moved"));
    request("rename", &mut || fs.rename(&cx, NodeId::ROOT, from, NodeId::ROOT, to, none).unwrap());
    let over = name("warm");
    request("rename over a file", &mut || {
        fs.rename(&cx, NodeId::ROOT, to, NodeId::ROOT, over, none).unwrap();
    });
    request("rmdir", &mut || fs.rmdir(&cx, NodeId::ROOT, name("made")).unwrap());
    request("symlink", &mut || {
        fs.symlink(&cx, NodeId::ROOT, name("link"), b"t").unwrap();
    });
    let held = share.lookup(NodeId::ROOT, "warm").unwrap().node;
    request("link", &mut || {
        fs.link(&cx, held, NodeId::ROOT, name("second")).unwrap();
    });
    let mut set = SetAttr::new();
    set.mode = Some(0o600);
    request("chmod", &mut || {
        fs.setattr(&cx, held, &set).unwrap();
    });
    let dir = share.lookup(NodeId::ROOT, "dir").unwrap().node;
    let list = |plus: bool| {
        let handle = fs.opendir(&cx, dir, OpenFlags::READ_ONLY).unwrap().handle;
        let mut listed = Count(0);
        let what = if plus { "readdirplus of 100, warm" } else { "readdir of 100" };
        request(what, &mut || {
            if plus {
                fs.readdirplus(&cx, dir, handle, 0, &mut listed).unwrap();
            } else {
                fs.readdir(&cx, dir, handle, 0, &mut listed).unwrap();
            }
        });
        assert_eq!(listed.0, 102);
        fs.releasedir(&cx, dir, handle).unwrap();
    };
    list(false);
    for number in 0..100 {
        share.lookup(dir, &number.to_string()).unwrap();
    }
    list(true);
}

/// The calls between each mark and the next, in order.
fn counts(trace: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in trace.lines() {
        // `PID name(operands) = answer`; the end of a call that was interrupted counts no more.
        let call = line.split_once(' ').map_or(line, |(_, call)| call).trim_start();
        if let Some((_, rest)) = call.split_once("/no-such-mark/") {
            let name = rest.split('"').next().unwrap_or_default();
            open = name != "end";
            if open {
                found.push((name.to_owned(), Vec::new()));
            }
            continue;
        }
        let is_call = call.starts_with(|first: char| first.is_ascii_lowercase());
        // The last is what a debug build asks of a descriptor before it closes it.
        let noise = ["futex(", "sched_yield(", "clock_gettime(", "madvise(", "munmap(", "mmap("];
        let is_noise = noise.iter().any(|name| call.starts_with(name)) || call.contains("F_GETFD");
        if open && is_call && !is_noise {
            found.last_mut().unwrap().1.push(call.to_owned());
        }
    }
    found
}

#[test]
fn requests_cost_no_more_system_calls_than_promised() {
    if let Ok(which) = std::env::var(CHILD) {
        requests(&which);
        return;
    }
    // An exclusive share has virtual ownership here, and costs no more.
    for which in ["virtual", "host", "exclusive"] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("trace");
        let traced = Command::new("strace")
            .args(["-f", "-qq", "-s", "64", "-o"])
            .arg(&log)
            .arg(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, which)
            .output();
        let Ok(traced) = traced else {
            eprintln!("SKIPPED: strace is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&traced.stderr);
        if text.contains("ptrace") && text.contains("not permitted") {
            eprintln!("SKIPPED: strace may not trace here");
            return;
        }
        assert!(traced.status.success(), "{text}{}", String::from_utf8_lossy(&traced.stdout));
        let counts = counts(&std::fs::read_to_string(&log).unwrap());
        for (name, private, host) in TABLE {
            let (_, calls) = counts.iter().find(|(found, _)| found == name).unwrap();
            let most = if which == "host" { host } else { private };
            assert!(calls.len() <= most, "{which}, {name}: {} of {most}: {calls:#?}", calls.len());
        }
    }
}
