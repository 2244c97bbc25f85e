//! Overlays, through the kernel.

use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_memfs::MemFs;
use stratafs_overlayfs::OverlayFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, InProcess, ModelRun, World};
use tempfile::TempDir;

use crate::served::Served;

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
    std::fs::create_dir(&path).unwrap();
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
