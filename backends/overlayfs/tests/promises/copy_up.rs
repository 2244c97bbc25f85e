//! What a copy-up keeps, and what it spares.

use std::sync::{Arc, Barrier};

use stratafs_core::{
    DynFileSystem, Errno, FileType, Op, OpKind, OpenFlags, SeekTo, SetAttr, SetTime, Timestamp,
    XattrMode,
};

use crate::support::layers::{Layers, Watch, layer, nothing};
use crate::support::{cx, mem, on};

const WRITE: OpenFlags = OpenFlags::WRITE_ONLY;

#[test]
fn copy_up_keeps_mode_owner_times_and_attributes() {
    let past = |sec| Some(SetTime::At(Timestamp::new(sec, 123_456_789)));
    let layers = Layers::new([layer(|w| {
        w.mkdir("d", 0o750).unwrap();
        w.file("d/f", b"data").unwrap();
        w.symlink("f", "d/link").unwrap();
        for path in ["d/f", "d/link", "d"] {
            w.chown(path, Some(1234), Some(4321)).unwrap();
        }
        w.chmod("d/f", 0o6751).unwrap();
        w.setxattr("d/f", b"user.a", b"1", XattrMode::Set).unwrap();
        w.setxattr("d/f", b"security.capability", b"cap", XattrMode::Set).unwrap();
        for path in ["d/f", "d"] {
            w.utimens(path, past(1000), past(2000)).unwrap();
        }
    })]);
    on(&layers.build(), |w| {
        let before = w.stat("d/f").unwrap();
        let dir = w.stat("d").unwrap();
        w.setxattr("d/f", b"user.b", b"2", XattrMode::Set).unwrap();
        let after = w.stat("d/f").unwrap();
        let shown = |attr: &stratafs_core::Attr| {
            (attr.ino, attr.mode, attr.uid, attr.gid, attr.atime, attr.mtime)
        };
        assert_eq!((shown(&after), after.size), (shown(&before), 4));
        assert_eq!(shown(&w.stat("d").unwrap()), shown(&dir), "nor does the directory change");
        assert_eq!(w.getxattr("d/f", b"user.a").unwrap(), b"1");
        assert_eq!(w.getxattr("d/f", b"security.capability").unwrap(), b"cap");
        assert_eq!(w.read("d/f").unwrap(), b"data");
        w.chown("d/link", Some(9), None).unwrap();
        assert_eq!(w.readlink("d/link").unwrap(), b"f");
        assert_eq!(w.stat("d/link").unwrap().gid, 4321);
    });
}

#[test]
fn copy_up_without_the_right_to_security_attributes_goes_on() {
    fn no_security(op: &Op<'_>) -> Option<Errno> {
        match op {
            Op::Setxattr { name, .. } if name.namespace() == b"security" => Some(Errno::EPERM),
            _ => None,
        }
    }
    let mut layers = Layers::new([layer(|w| {
        w.file("f", b"data").unwrap();
        w.setxattr("f", b"security.selinux", b"label", XattrMode::Set).unwrap();
    })]);
    layers.scratch = Watch::over(mem(), no_security).0;
    on(&layers.build(), |w| {
        w.write_at("f", 0, b"D").unwrap();
        assert_eq!(w.read("f").unwrap(), b"Data");
    });
}

#[test]
fn copy_up_keeps_holes() {
    const FAR: u64 = 64 << 20;
    let layers = Layers::new([layer(|w| {
        w.file("f", b"start").unwrap();
        w.write_at("f", FAR, b"end").unwrap();
        w.truncate("f", 2 * FAR).unwrap();
    })]);
    on(&layers.build(), |w| {
        w.write_at("f", 0, b"S").unwrap();
        let attr = w.stat("f").unwrap();
        assert_eq!(attr.size, 2 * FAR);
        assert!(attr.blocks < 1024, "{} blocks", attr.blocks);
        let fd = w.open("f", OpenFlags::READ_ONLY).unwrap();
        assert_eq!(w.pread(fd, FAR, 4).unwrap(), b"end\0");
        assert!(w.seek(fd, 0, SeekTo::Hole).unwrap() < FAR);
        w.close(fd).unwrap();
    });
}

#[test]
fn copy_up_of_special_files_keeps_their_type() {
    let layers = Layers::new([layer(|w| {
        w.mknod("fifo", FileType::Fifo.mode_bits() | 0o600, 0).unwrap();
        w.mknod("socket", FileType::Socket.mode_bits() | 0o600, 0).unwrap();
        w.mknod("null", FileType::CharDevice.mode_bits() | 0o600, 0x103).unwrap();
    })]);
    on(&layers.build(), |w| {
        for name in ["fifo", "socket", "null"] {
            let before = w.stat(name).unwrap();
            w.chmod(name, 0o644).unwrap();
            let after = w.stat(name).unwrap();
            assert_eq!((after.kind(), after.rdev), (before.kind(), before.rdev));
            assert_eq!(after.mode & 0o7777, 0o644);
        }
    });
}

#[test]
fn open_of_a_fifo_does_not_wait_for_the_other_end() {
    let fifo = |w: &stratafs_testkit::World<'_>| {
        w.mknod("fifo", FileType::Fifo.mode_bits() | 0o600, 0).unwrap();
    };
    on(&Layers::new([layer(fifo)]).build(), |w| {
        assert_eq!(w.open("fifo", OpenFlags::READ_ONLY).unwrap_err(), Errno::ENXIO);
        assert_eq!(w.open("fifo", WRITE).unwrap_err(), Errno::ENXIO);
    });
}

#[test]
fn truncating_open_copies_no_data() {
    let (base, watch) = Watch::over(layer(|w| w.file("f", &[1; 100_000]).unwrap()), nothing);
    let layers = Layers::new([base]);
    let fs = layers.build();
    let node = crate::support::node(&fs, "f");
    let opened = fs.open(&cx(), node, WRITE.with_truncate(), false).unwrap();
    assert_eq!(watch.count(OpKind::Read) + watch.count(OpKind::CopyFileRange), 0);
    assert_eq!(fs.getattr(&cx(), node, None).unwrap().attr.size, 0);
    fs.release(&cx(), node, opened.handle, stratafs_core::Release::default()).unwrap();
    fs.forget(node, 1);
}

#[test]
fn truncate_copies_no_more_than_stays() {
    let (base, watch) = Watch::over(layer(|w| w.file("f", &[1; 100_000]).unwrap()), nothing);
    let layers = Layers::new([base]);
    on(&layers.build(), |w| {
        w.truncate("f", 0).unwrap();
        assert_eq!(watch.count(OpKind::Read) + watch.count(OpKind::CopyFileRange), 0);
        assert_eq!(w.read("f").unwrap(), b"");
    });
}

#[test]
fn handles_that_were_open_before_a_copy_up_see_what_is_written_after_it() {
    let layers = Layers::new([layer(|w| w.file("f", b"lower").unwrap())]);
    on(&layers.build(), |w| {
        let before = w.open("f", OpenFlags::READ_ONLY).unwrap();
        assert_eq!(w.read_fd(before).unwrap(), b"lower");
        w.write_at("f", 0, b"UPPER").unwrap();
        assert_eq!(w.read_fd(before).unwrap(), b"UPPER");
        assert_eq!(w.fstat(before).unwrap().size, 5);
        w.close(before).unwrap();
    });
}

#[test]
fn copy_up_of_an_unlinked_file_touches_no_name() {
    let layers = Layers::new([layer(|w| w.file("f", b"old").unwrap())]);
    let fs = layers.build();
    on(&fs, |w| {
        let fd = w.open("f", OpenFlags::READ_ONLY).unwrap();
        w.unlink("f").unwrap();
        w.file("f", b"new").unwrap();
        let client = w.client().in_process().unwrap();
        let (node, handle) = client.ids(fd).unwrap();
        let mut set = SetAttr::new();
        (set.mode, set.handle) = (Some(0o600), Some(handle));
        client.fs().setattr(&cx(), node, &set).unwrap();
        assert_eq!(w.fstat(fd).unwrap().mode & 0o7777, 0o600);
        assert_eq!(w.fstat(fd).unwrap().nlink, 0);
        assert_eq!(w.read_fd(fd).unwrap(), b"old");
        assert_eq!(w.read("f").unwrap(), b"new");
        assert_eq!(w.stat("f").unwrap().mode & 0o7777, 0o644);
        w.close(fd).unwrap();
    });
    on(&layers.scratch, |w| {
        assert_eq!(w.names("work/work").unwrap(), Vec::<String>::new());
    });
}

#[test]
fn copy_up_by_many_threads_is_one() {
    const THREADS: usize = 8;
    let mut layers = Layers::new([layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/f", &[b'.'; 50_000]).unwrap();
    })]);
    let (watched, watch) = Watch::over(mem(), nothing);
    layers.scratch = watched;
    let fs = layers.build();
    watch.clear();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (fs, start) = (&fs, &start);
            scope.spawn(move || {
                start.wait();
                on(fs, |w| w.write_at("d/f", thread as u64, &[b'0' + thread as u8]).unwrap());
            });
        }
    });
    on(&fs, |w| {
        let data = w.read("d/f").unwrap();
        assert_eq!(&data[..THREADS], b"01234567");
        assert!(data[THREADS..].iter().all(|byte| *byte == b'.'));
    });
    assert_eq!(watch.count(OpKind::Create), 1, "one copy of the file");
    assert_eq!(watch.count(OpKind::Mkdir), 1, "one of its directory");
}

#[test]
fn a_deep_file_is_copied_up_after_its_directories() {
    let path = (0..20).map(|i| format!("d{i}")).collect::<Vec<_>>();
    let layers = Layers::new([layer(|w| {
        for depth in 1..=path.len() {
            w.mkdir(path[..depth].join("/"), 0o700 + depth as u32).unwrap();
        }
        w.file(format!("{}/f", path.join("/")), b"deep").unwrap();
    })]);
    let fs: Arc<dyn DynFileSystem> = layers.build();
    on(&fs, |w| {
        let file = format!("{}/f", path.join("/"));
        w.chmod(&file, 0o600).unwrap();
        for depth in 1..=path.len() {
            let mode = w.stat(path[..depth].join("/")).unwrap().mode & 0o7777;
            assert_eq!(mode, 0o700 + depth as u32);
        }
        assert_eq!(w.read(&file).unwrap(), b"deep");
    });
}
