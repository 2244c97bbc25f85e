//! What others of this kind get wrong, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{
    Behaviours, DynFileSystem, Errno, HandleId, Intercepted, Name, NodeId, OpKind, OpenFlags,
    RenameFlags, SeekTo, SliceSink, XattrMode,
};
use stratafs_dualfs::{BuildError, DualFs};
use stratafs_memfs::MemFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Faulty, InProcess, World, check_tree};
use support::sides::{Sides, Watch, of_both, policies, side};
use support::tree::tree;
use support::{cx, mem, name, node, on};

#[test]
fn transfers_of_64_files_by_4_threads_at_once_give_each_file_its_own_bytes() {
    const FILES: usize = 64;
    const LEN: usize = 200_000;
    let content = |file: usize| -> Vec<u8> {
        (0..LEN).map(|at| (at as u8).wrapping_mul(31) ^ file as u8).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    for file in 0..FILES {
        std::fs::write(dir.path().join(format!("f{file}")), content(file)).unwrap();
    }
    let host = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Virtual);
    let memory = side(|w| (0..FILES).for_each(|f| w.file(format!("f{f}"), &content(f)).unwrap()));
    for b in [memory, Arc::new(host.build().unwrap())] {
        let fs = Sides { a: mem(), b }.build(&policies()[0]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let fs = Arc::clone(&fs);
                scope.spawn(move || {
                    on(&fs, |w| {
                        // Each thread touches each file, from another one on.
                        for step in 0..FILES {
                            let file = (step + thread * FILES / 4) % FILES;
                            w.chmod(format!("f{file}"), 0o640).unwrap();
                        }
                    });
                });
            }
        });
        on(&fs, |w| {
            for file in 0..FILES {
                assert_eq!(w.read(format!("f{file}")).unwrap(), content(file), "f{file}");
            }
        });
    }
}

#[test]
fn transfer_keeps_xattrs_owner_mode_setuid_times_and_holes() {
    let sides = Sides::new(|w| {
        w.file("f", b"data").unwrap();
        w.write_at("f", 1 << 30, b"end").unwrap();
        w.chown("f", Some(7), Some(8)).unwrap();
        w.chmod("f", 0o6755).unwrap();
        w.setxattr("f", b"user.x", b"1", XattrMode::Set).unwrap();
        w.setxattr("f", b"security.capability", b"all", XattrMode::Set).unwrap();
    });
    let before = on(&sides.b, |w| w.stat("f").unwrap());
    for policy in of_both() {
        let sides = Sides { a: mem(), b: Arc::clone(&sides.b) };
        on(&sides.build(&policy), |w| {
            w.setxattr("f", b"user.y", b"2", XattrMode::Set).unwrap();
            let after = w.stat("f").unwrap();
            assert_eq!((after.mode, after.uid, after.gid), (0o106_755, 7, 8));
            assert_eq!((after.size, after.mtime), (before.size, before.mtime));
            assert!(after.blocks <= before.blocks + 16, "{} for {}", after.blocks, before.blocks);
            for (name, value) in [("user.x", "1"), ("user.y", "2"), ("security.capability", "all")]
            {
                assert_eq!(w.getxattr("f", name.as_bytes()).unwrap(), value.as_bytes());
            }
        });
    }
}

#[test]
fn transfer_syncs_the_file_before_it_shows() {
    let (a, watch) = Watch::over(mem());
    let sides = Sides { a, b: side(|w| w.file("f", b"data").unwrap()) };
    let fs = sides.build(&policies()[0]);
    watch.clear();
    on(&fs, |w| w.chmod("f", 0o600).unwrap());
    assert_eq!(watch.count(OpKind::Fsync), 1);
    // A file that could not be synced is not there.
    let (a, watch) = Watch::over(mem());
    watch.refuse(|op| (op.kind() == OpKind::Fsync).then_some(Errno::EIO));
    let sides = Sides { a, ..sides };
    on(&sides.build(&policies()[0]), |w| {
        assert_eq!(w.chmod("f", 0o600).unwrap_err(), Errno::EIO);
        assert_eq!(w.read("f").unwrap(), b"data");
    });
    assert_eq!(on(&sides.a, |w| w.stat("f")).unwrap_err(), Errno::ENOENT);
}

#[test]
fn transfer_survives_short_reads_and_writes() {
    let data: Vec<u8> = (0..50_000u32).map(|at| at as u8).collect();
    for most in [1000, 4096, 4097] {
        let b = side(|w| w.file("f", &data).unwrap());
        let short =
            |fs| -> Arc<dyn DynFileSystem> { Arc::new(Intercepted::new(fs, Faulty::short(most))) };
        let sides = Sides { a: short(mem()), b: short(b) };
        on(&sides.build(&policies()[0]), |w| {
            w.chmod("f", 0o600).unwrap();
            assert_eq!(w.read("f").unwrap(), data, "{most} at a time");
        });
    }
}

#[test]
fn failure_of_a_transfer_at_any_step_leaves_both_sides_as_they_were() {
    let b = side(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/f", b"data").unwrap();
        w.setxattr("d/f", b"user.x", b"1", XattrMode::Set).unwrap();
        w.link("d/f", "d/other").unwrap();
        w.file("d/alone", b"data").unwrap();
    });
    type Change = fn(&World<'_>) -> stratafs_core::Result<()>;
    let changes: [(Change, &str); 4] = [
        (|w| w.chmod("d/alone", 0o600), "chmod"),
        (|w| w.truncate("d/f", 2), "truncate of a file with two names"),
        (|w| w.unlink("d/alone"), "unlink"),
        (|w| w.rename("d/alone", "d/f"), "rename over another"),
    ];
    for policy in [0, 3].map(|at: usize| Arc::clone(&policies()[at])) {
        for (change, what) in changes {
            let before = tree(&Sides { a: mem(), b: Arc::clone(&b) }.build(&policy));
            for step in 1.. {
                let faulty = Faulty::nth(step, Errno::EIO);
                faulty.arm(false);
                let inner = mem();
                let a = Arc::new(Intercepted::new(Arc::clone(&inner), faulty.clone()));
                let fs = Sides { a, b: Arc::clone(&b) }.build(&policy);
                faulty.arm(true);
                let outcome = on(&fs, change);
                faulty.arm(false);
                let fired = faulty.fired();
                drop(fs);
                let after = tree(&Sides { a: inner, b: Arc::clone(&b) }.build(&policy));
                if outcome.is_err() {
                    assert_eq!(after, before, "{what}: {fired:?} failed at request {step}");
                }
                if fired.is_none() {
                    assert!(outcome.is_ok() && step > 3, "{what}");
                    break;
                }
            }
        }
    }
}

#[test]
fn link_of_a_file_of_b_ends_and_both_names_are_one_file() {
    for policy in of_both() {
        let sides = Sides::new(|w| w.file("f", b"data").unwrap());
        let fs = sides.build(&policy);
        on(&fs, |w| {
            w.link("f", "g").unwrap();
            w.write_at("g", 0, b"DATA").unwrap();
            assert_eq!(w.read("f").unwrap(), b"DATA");
            assert_eq!((w.stat("f").unwrap().nlink, w.stat("g").unwrap().nlink), (2, 2));
            assert_eq!(w.stat("f").unwrap().ino, w.stat("g").unwrap().ino);
        });
        drop(fs);
        on(&sides.build(&policy), |w| {
            assert_eq!(w.stat("f").unwrap().ino, w.stat("g").unwrap().ino)
        });
    }
}

#[test]
fn file_with_several_names_on_b_stays_one_file_when_it_is_written_in_later_runs_too() {
    for policy in of_both() {
        let sides = Sides::new(|w| {
            w.mkdir("d", 0o755).unwrap();
            w.file("f", b"data").unwrap();
            w.link("f", "d/g").unwrap();
            w.link("f", "h").unwrap();
        });
        let fs = sides.build(&policy);
        on(&fs, |w| {
            w.write_at("d/g", 0, b"DATA").unwrap();
            assert_eq!(w.read("f").unwrap(), b"DATA");
            w.unlink("h").unwrap();
            assert_eq!(w.stat("f").unwrap().nlink, 2);
        });
        drop(fs);
        let fs = sides.build(&policy);
        on(&fs, |w| {
            assert_eq!(
                (w.read("f").unwrap(), w.read("d/g").unwrap()),
                (b"DATA".into(), b"DATA".into())
            );
            assert_eq!(w.stat("d/g").unwrap().nlink, 2);
            assert_eq!(w.stat("h").unwrap_err(), Errno::ENOENT);
            w.write_at("f", 0, b"twice").unwrap();
            assert_eq!(w.read("d/g").unwrap(), b"twice");
            w.unlink("f").unwrap();
            w.unlink("d/g").unwrap();
        });
        check_tree(&InProcess::new(fs), b"").unwrap();
        let index = on(&sides.a, |w| w.names(".stratafs-dual/index").unwrap());
        assert_eq!(index, [""; 0], "nothing is kept of what is gone");
    }
}

#[test]
fn open_of_a_file_that_b_alone_has_works_with_every_policy_that_reads_b() {
    for policy in of_both() {
        let sides = Sides::new(|w| w.file("f", b"data").unwrap());
        on(&sides.build(&policy), |w| {
            let fd = w.open("f", OpenFlags::READ_WRITE).unwrap();
            w.write_all(fd, 0, b"DATA").unwrap();
            assert_eq!(w.read_fd(fd).unwrap(), b"DATA", "{}", policy.name());
            w.close(fd).unwrap();
        });
    }
}

#[test]
fn readdir_gives_the_numbers_that_stat_gives_before_and_after_a_transfer_and_in_later_runs() {
    for policy in of_both() {
        let a = side(|w| w.file("of-a", b"").unwrap());
        let b = side(|w| {
            w.file("f", b"").unwrap();
            w.symlink("f", "link").unwrap();
            w.mkdir("d", 0o755).unwrap();
        });
        let sides = Sides { a, b };
        let numbers = |fs: &Arc<dyn DynFileSystem>| {
            check_tree(&InProcess::new(Arc::clone(fs)), b"").unwrap();
            on(fs, |w| ["of-a", "f", "link", "d"].map(|path| w.stat(path).unwrap().ino))
        };
        let fs = sides.build(&policy);
        let before = numbers(&fs);
        on(&fs, |w| {
            w.chmod("f", 0o600).unwrap();
            w.chown("link", Some(7), None).unwrap();
            w.file("d/new", b"").unwrap();
        });
        assert_eq!(numbers(&fs), before, "{}", policy.name());
        drop(fs);
        assert_eq!(numbers(&sides.build(&policy)), before, "in a later run, {}", policy.name());
    }
}

#[test]
fn readdir_goes_on_where_it_was_when_entries_are_transferred_and_deleted_meanwhile() {
    let sides = Sides::new(|w| (0..50).for_each(|n| w.file(format!("f{n:02}"), b"").unwrap()));
    let fs = sides.build(&policies()[3]);
    on(&fs, |w| {
        let fd = w.opendir("").unwrap();
        let first = w.readdir(fd, 0, 20).unwrap();
        let cookie = first.last().unwrap().cookie;
        let seen: Vec<_> = first.iter().map(|e| e.name.clone()).collect();
        for name in seen.iter().filter(|name| name.starts_with(b"f")) {
            w.unlink(name).unwrap();
        }
        let mut rest = w.list_from(fd, cookie, 7).unwrap();
        assert_eq!(first.len() + rest.len(), 52, "each once");
        rest.iter().for_each(|entry| w.chmod(&entry.name, 0o600).unwrap());
        rest = w.list_from(fd, cookie, 7).unwrap();
        assert_eq!(first.len() + rest.len(), 52, "and again");
        w.close(fd).unwrap();
    });
}

#[test]
fn deletion_of_what_b_has_is_remembered_and_nothing_of_it_comes_back() {
    for policy in of_both() {
        let sides = Sides::new(|w| {
            w.mkdir("d", 0o755).unwrap();
            w.file("d/f", b"old").unwrap();
            w.file("g", b"old").unwrap();
        });
        on(&sides.build(&policy), |w| {
            w.unlink("g").unwrap();
            w.unlink("d/f").unwrap();
            w.rmdir("d").unwrap();
        });
        on(&sides.build(&policy), |w| {
            assert_eq!(w.names("").unwrap(), [""; 0], "{}", policy.name());
            w.mkdir("d", 0o700).unwrap();
            assert_eq!(w.names("d").unwrap(), [""; 0], "what was in it stays gone");
            w.symlink("x", "g").unwrap();
        });
        on(&sides.build(&policy), |w| {
            assert_eq!(w.names("d").unwrap(), [""; 0]);
            assert_eq!(w.readlink("g").unwrap(), b"x");
            w.unlink("g").unwrap();
        });
        on(&sides.build(&policy), |w| assert_eq!(w.names("").unwrap(), ["d"]));
    }
}

#[test]
fn node_keeps_its_id_and_open_handles_read_what_is_written_after_a_transfer() {
    let sides = Sides::new(|w| w.file("f", b"old").unwrap());
    let fs = sides.build(&policies()[0]);
    let file = node(&fs, "f");
    let opened = fs.open(&cx(), file, OpenFlags::READ_ONLY, false).unwrap();
    on(&fs, |w| w.file("f", b"new").unwrap_or_else(|_| w.write_at("f", 0, b"new").unwrap()));
    let again = fs.lookup(&cx(), NodeId::ROOT, name("f")).unwrap().found().unwrap();
    assert_eq!(again.node, file);
    let mut buf = [0; 8];
    let mut sink = SliceSink::new(&mut buf);
    assert_eq!(fs.read(&cx(), file, opened.handle, 0, 8, &mut sink), Ok(3));
    assert_eq!(&buf[..3], b"new", "one page cache, one content");
    assert_eq!(fs.lseek(&cx(), file, opened.handle, 0, SeekTo::Hole), Ok(3));
    fs.release(&cx(), file, opened.handle, Default::default()).unwrap();
    fs.forget(file, 2);
}

#[test]
fn whiteout_of_a_layering_filesystem_is_an_object_here_and_stays() {
    let sides = Sides::new(|w| w.file("f", b"old").unwrap());
    let policy = &policies()[3];
    let fs = sides.build(policy);
    assert!(fs.features().bears(Behaviours::WHITEOUT));
    on(&fs, |w| {
        w.rename2("f", "moved", RenameFlags::WHITEOUT).unwrap();
        assert_eq!(
            (w.stat("f").unwrap().mode & 0o170_000, w.stat("f").unwrap().rdev),
            (0o020_000, 0)
        );
    });
    drop(fs);
    on(&sides.build(policy), |w| {
        assert_eq!(w.stat("f").unwrap().rdev, 0);
        assert_eq!(w.read("moved").unwrap(), b"old");
        let mut names = w.names("").unwrap();
        names.sort();
        assert_eq!(names, ["f", "moved"]);
    });
}

#[test]
fn records_show_to_no_client_and_those_of_another_are_kept() {
    let sides = Sides::new(|w| w.file("f", b"").unwrap());
    let fs = sides.build(&policies()[0]);
    on(&fs, |w| {
        w.chmod("f", 0o600).unwrap();
        assert_eq!(w.listxattr("f").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(w.getxattr("f", b"trusted.dual.written").unwrap_err(), Errno::ENODATA);
        w.setxattr("f", b"trusted.dual.whiteout", b"y", XattrMode::Set).unwrap();
        assert_eq!(w.listxattr("f").unwrap(), [b"trusted.dual.whiteout"]);
        assert!(w.stat("f").is_ok(), "a client's attribute deletes nothing");
        assert_eq!(w.names("").unwrap(), ["f"], "the staging directory shows to none");
        assert_eq!(w.stat(".stratafs-dual").unwrap_err(), Errno::ENOENT);
    });
}

#[test]
fn tree_that_is_deeper_than_a_stack_is_transferred_and_let_go_of_from_the_top() {
    const DEEP: usize = 4_000;
    let b = mem();
    let mut at = NodeId::ROOT;
    for _ in 0..DEEP {
        at = b.mkdir(&cx(), at, name("d"), 0o755).unwrap().node;
    }
    b.symlink(&cx(), at, name("link"), b"x").unwrap();
    let work = move || {
        let fs = Sides { a: mem(), b }.build(&policies()[0]);
        let mut nodes = vec![NodeId::ROOT];
        for _ in 0..DEEP {
            let at = *nodes.last().unwrap();
            nodes.push(fs.lookup(&cx(), at, name("d")).unwrap().found().unwrap().node);
        }
        let deepest = *nodes.last().unwrap();
        let made = fs.mkdir(&cx(), deepest, name("new"), 0o755).unwrap();
        // A client's kernel lets go of the deepest first; a hostile one does not.
        nodes.into_iter().for_each(|node| fs.forget(node, 1));
        fs.forget(made.node, 1);
        assert_eq!(fs.getattr(&cx(), made.node, None).unwrap_err(), Errno::ESTALE);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(work).unwrap().join().unwrap();
}

#[test]
fn build_refuses_what_does_not_fit() {
    let one = mem();
    let build = |a, b| DualFs::builder().backend_a(a).backend_b(b).build().unwrap_err();
    assert!(matches!(build(Arc::clone(&one), one), BuildError::Twice));
    let missing = DualFs::builder().backend_a(mem()).build().unwrap_err();
    assert!(matches!(missing, BuildError::Missing { .. }), "{missing}");
    let readonly = Arc::new(Intercepted::new(mem(), stratafs_core::ReadOnly::new()));
    let unfit = build(readonly, mem());
    assert!(matches!(unfit, BuildError::Unfit { lacks: "write access", .. }), "{unfit}");
}

#[test]
fn backends_are_asked_by_a_thread_that_holds_no_handle_of_theirs_afterwards() {
    let (a, of_a) = stratafs_testkit::Ledger::keep(mem());
    let (b, of_b) = stratafs_testkit::Ledger::keep(side(|w| w.file("f", b"x").unwrap()));
    let fs = Sides { a, b }.build(&policies()[0]);
    on(&fs, |w| w.write_at("f", 0, b"y").unwrap());
    let missing = fs.open(&cx(), NodeId(99), OpenFlags::READ_ONLY, false);
    assert_eq!(missing.unwrap_err(), Errno::ESTALE);
    let bad = fs.release(&cx(), NodeId::ROOT, HandleId(99), Default::default());
    assert_eq!(bad.unwrap_err(), Errno::EBADF);
    drop(fs);
    of_a.check().unwrap();
    of_b.check().unwrap();
}

#[test]
fn transfer_to_a_full_side_is_enospc_and_changes_nothing() {
    let small = MemFs::builder().capacity(stratafs_memfs::ByteSize::mib(1)).build().unwrap();
    let data = vec![7; 4 << 20];
    let sides = Sides { a: Arc::new(small), b: side(|w| w.file("f", &data).unwrap()) };
    let fs = sides.build(&policies()[0]);
    on(&fs, |w| {
        assert_eq!(w.chmod("f", 0o600).unwrap_err(), Errno::ENOSPC);
        assert_eq!(w.read("f").unwrap(), data);
        assert_eq!(w.stat("f").unwrap().mode & 0o777, 0o644);
        w.unlink("f").unwrap();
    });
    let _ = Name::new(b"f").unwrap();
}
