//! Overlays, through the kernel.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{Context, DynFileSystem, Intercept, Intercepted, Op, Result};
use stratafs_memfs::MemFs;
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, InProcess, ModelRun, World};
use tempfile::TempDir;

use crate::served::Served;
use crate::stage::Stage;

/// Content that a read-only layer has.
fn fill(w: &World<'_>) {
    w.mkdir("etc", 0o755).unwrap();
    w.file("etc/common", b"base").unwrap();
    w.symlink("common", "etc/link").unwrap();
    w.link("etc/common", "etc/other-name").unwrap();
}

fn filled(fs: Arc<dyn DynFileSystem>) -> Arc<dyn DynFileSystem> {
    fill(&World::new(&InProcess::new(Arc::clone(&fs)), ""));
    fs
}

fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
}

fn share(dir: &TempDir, name: &str) -> Arc<dyn DynFileSystem> {
    let path = dir.path().join(name);
    fs::create_dir(&path).unwrap();
    let share = PassthroughFs::builder().root_dir(path).ownership(Ownership::Host);
    Arc::new(share.default_owner(0, 0).build().unwrap())
}

/// An overlay that is mounted; `None` where nothing can be.
fn served(name: &str, fs: OverlayFs) -> Option<Served> {
    let served = Served::over(name, Arc::new(fs))?;
    let shared = "the host's filesystem is used by others, and deleted names leave whiteouts";
    let served = served.without(Capabilities::ACCOUNTING, shared);
    Some(served.without(Capabilities::WHITEOUT, "it would be a deletion that no client may make"))
}

#[test]
fn overlay_with_a_host_upper_passes_every_case() {
    let dir = tempfile::tempdir().unwrap();
    let builder = OverlayFs::builder().layer(filled(share(&dir, "base")));
    let fs = builder.writable(share(&dir, "scratch")).build().unwrap();
    let Some(served) = served("mounted overlay of the host", fs) else { return };
    served.stack().run().assert_passed();
    served.end();
}

#[test]
fn overlay_with_an_upper_in_memory_passes_every_case() {
    let builder = OverlayFs::builder().layer(filled(mem())).layer(filled(mem()));
    let fs = builder.writable(mem()).metacopy(true).build().unwrap();
    let Some(served) = served("mounted overlay", fs) else { return };
    served.stack().run().assert_passed();
    served.end();
}

#[test]
fn overlay_agrees_with_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let builder = OverlayFs::builder().layer(filled(mem()));
    let fs = builder.writable(share(&dir, "scratch")).build().unwrap();
    let Some(served) = served("mounted overlay", fs) else { return };
    ModelRun::from_env().run(served.stack()).unwrap_or_else(|found| panic!("{found}"));
    served.end();
}

/// Counts the reads and writes that reach the filesystem.
#[derive(Default)]
struct Counts(AtomicU64);

impl Intercept for Counts {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if matches!(op, Op::Read { .. } | Op::Write { .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn overlay_of_the_host_lends_its_files_and_a_layer_s_is_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let base = share(&dir, "base");
    let data = vec![b'.'; 200_000];
    for name in ["f", "g"] {
        fs::write(dir.path().join("base").join(name), &data).unwrap();
    }
    let fs = OverlayFs::builder().layer(base).writable(share(&dir, "scratch")).build().unwrap();
    let counted = Intercepted::new(Arc::new(fs), Counts::default());
    let counts = Arc::clone(counted.intercept());
    let Some(stage) = Stage::with(Arc::new(counted), "", 2) else { return };
    let requests = || counts.0.swap(0, Ordering::SeqCst);

    let before = File::open(stage.path("f")).unwrap();
    let mut seen = vec![0; data.len()];
    before.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == data);
    if stage.server.passed_through() == 0 {
        eprintln!("\n********** skipped: this kernel passes no file through **********\n");
        return;
    }
    assert_eq!(requests(), 0, "the kernel read it by itself");

    let both = File::options().read(true).write(true).open(stage.path("f")).unwrap();
    both.write_all_at(b"written", 0).unwrap();
    assert_eq!(requests(), 0, "and wrote the copy");
    before.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == data, "what was open keeps the layer's data, as in the kernel's overlay");
    assert!(fs::read(stage.path("f")).unwrap().starts_with(b"written."));
    assert!(fs::read(dir.path().join("base/f")).unwrap() == data);
    assert!(fs::read(dir.path().join("scratch/upper/f")).unwrap().starts_with(b"written."));
    let (old, new) = (before.metadata().unwrap(), fs::metadata(stage.path("f")).unwrap());
    assert_eq!((old.ino(), old.dev()), (new.ino(), new.dev()));

    // The other ways to a copy: cut by path, cut by an open, mode by path.
    let before = File::open(stage.path("g")).unwrap();
    File::options().write(true).open(stage.path("g")).unwrap().set_len(3).unwrap();
    fs::set_permissions(stage.path("g"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(stage.path("g"), "anew").unwrap();
    assert_eq!(fs::read(stage.path("g")).unwrap(), b"anew");
    before.read_exact_at(&mut seen[..10], 0).unwrap();
    assert!(fs::read(dir.path().join("base/g")).unwrap() == data);
    drop((before, both));
    stage.server.unmount().unwrap();
}

#[test]
fn overlay_of_the_host_is_written_by_many_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = share(&dir, "base");
    let names: Vec<String> = (0..40).map(|i| format!("f{i}")).collect();
    for name in &names {
        fs::write(dir.path().join("base").join(name), vec![b'.'; 100_000]).unwrap();
    }
    let fs = OverlayFs::builder().layer(base).writable(share(&dir, "scratch")).build().unwrap();
    let Some(stage) = Stage::with(Arc::new(fs), "", 3) else { return };
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (names, stage) = (&names, &stage);
            scope.spawn(move || {
                for name in names {
                    let path = stage.path(name);
                    let reader = File::open(&path).unwrap();
                    let mut byte = [0];
                    reader.read_exact_at(&mut byte, 50_000).unwrap();
                    let writer = File::options().write(true).open(&path).unwrap();
                    writer.write_all_at(&[b'0' + thread as u8], thread).unwrap();
                    reader.read_exact_at(&mut byte, 50_000).unwrap();
                }
            });
        }
    });
    for name in &names {
        assert!(fs::read(stage.path(name)).unwrap().starts_with(b"0123."), "{name}");
        let layer = fs::read(dir.path().join("base").join(name)).unwrap();
        assert!(layer.iter().all(|byte| *byte == b'.'), "{name} of the layer");
    }
    stage.server.unmount().unwrap();
}
