//! Faults on purpose: what they do to a filesystem, and that a sweep sees a layer that does not bear
//! them.

use std::sync::Arc;

use stratafs_core::intercept::OpKind;
use stratafs_core::{DynFileSystem, Errno, Intercepted, OpenFlags, Result};
use stratafs_memfs::MemFs;
use stratafs_testkit::{Client, Faulty, InProcess, World, sweep};

use crate::conformance::CAPACITY;
use crate::planted::{Bug, Planted};

fn memfs(faulty: Faulty) -> Arc<dyn DynFileSystem> {
    let fs = MemFs::builder().capacity(CAPACITY).build().unwrap();
    Arc::new(Intercepted::new(Arc::new(fs), faulty))
}

/// A little of everything that makes and changes objects.
fn work(w: &World<'_>) -> Result<()> {
    w.mkdir("d", 0o755)?;
    w.file("d/f", b"some data")?;
    w.link("d/f", "g")?;
    w.symlink("d/f", "l")?;
    w.rename("g", "d/g")?;
    w.truncate("d/f", 3)?;
    w.read("d/g").map(drop)?;
    w.list("d").map(drop)?;
    w.unlink("d/f")?;
    w.mkdir("d/e", 0o755)?;
    w.rmdir("d/e")
}

#[test]
fn sweep_over_memfs_finds_it_consistent_after_each_fault() {
    let faults = sweep(Errno::EIO, memfs, work, |_| Ok(())).unwrap_or_else(|f| panic!("{f}"));
    assert!(faults > 30, "so many requests at least: {faults}");
}

/// Its mkdir is two steps, and keeps the new directory's lookup if the second fails.
#[test]
fn sweep_sees_a_layer_that_keeps_a_lookup_after_a_fault() {
    let build = |faulty| -> Arc<dyn DynFileSystem> {
        Arc::new(Planted::new(memfs(faulty), Bug::SetgidDirectoryIgnored))
    };
    let found = sweep(Errno::ENOSPC, build, work, |_| Ok(())).unwrap_err().to_string();
    assert!(found.contains("ENOSPC") && found.contains("setattr"), "{found}");
}

#[test]
fn sweep_sees_a_check_that_does_not_hold() {
    let whole = |w: &World<'_>| {
        let size = w.stat("d/g").map_or(3, |attr| attr.size);
        stratafs_testkit::equal(size, 3, "the size after the truncate")
    };
    let found = sweep(Errno::EIO, memfs, work, whole).unwrap_err().to_string();
    assert!(found.contains("the size after the truncate"), "{found}");
}

#[test]
fn faulty_fails_the_nth_request_of_a_kind_alone() {
    let faulty = Faulty::nth(2, Errno::EDQUOT).of(&[OpKind::Mkdir]);
    let client = InProcess::new(memfs(faulty.clone()));
    assert_eq!(client.mkdir(b"a", 0o755), Ok(()));
    assert_eq!(faulty.fired(), None);
    assert_eq!(client.mkdir(b"b", 0o755), Err(Errno::EDQUOT));
    assert_eq!((faulty.fired(), faulty.calls()), (Some(OpKind::Mkdir), 2));
    assert_eq!(client.mkdir(b"b", 0o755), Ok(()));
}

#[test]
fn faulty_that_is_not_armed_counts_and_fails_nothing() {
    let faulty = Faulty::nth(1, Errno::EIO);
    faulty.arm(false);
    let client = InProcess::new(memfs(faulty.clone()));
    assert_eq!(client.mkdir(b"a", 0o755), Ok(()));
    assert_eq!((faulty.fired(), faulty.calls()), (None, 0));
    faulty.arm(true);
    assert_eq!(client.mkdir(b"b", 0o755), Err(Errno::EIO));
}

#[test]
fn faulty_that_fails_a_release_releases_nevertheless() {
    let faulty = Faulty::nth(1, Errno::EIO).of(&[OpKind::Release]);
    let (client, ledger) = InProcess::counted(memfs(faulty.clone()));
    let fd = client.create(b"f", OpenFlags::READ_WRITE, 0o644).unwrap();
    client.close(fd).unwrap();
    assert_eq!(faulty.fired(), Some(OpKind::Release));
    ledger.check().unwrap();
}

#[test]
fn faulty_that_is_short_moves_so_many_bytes_at_the_most() {
    let client = InProcess::new(memfs(Faulty::short(1000)));
    let fd = client.create(b"f", OpenFlags::READ_WRITE, 0o644).unwrap();
    assert_eq!(client.pwrite(fd, 0, &[b'x'; 5000]), Ok(1000));
    assert_eq!(client.pwrite(fd, 1000, &[b'y'; 500]), Ok(500));
    assert_eq!(client.pread(fd, 500, 5000).unwrap().len(), 1000);
    assert_eq!(client.copy_range((fd, 0), (fd, 5000), 1500), Ok(1000));
    client.close(fd).unwrap();
}
