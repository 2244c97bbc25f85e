//! Compositions in compositions: the conformance map and the model, with a leak check of the innermost.

use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_dualfs::{DualFs, MergeReadsBackendAPrecedence};
use stratafs_memfs::MemFs;
use stratafs_overlayfs::OverlayFs;
use stratafs_routerfs::RouterFs;
use stratafs_testkit::{Capabilities, InProcess, ModelRun, Stack, World};

fn mem() -> Arc<dyn DynFileSystem> {
    Arc::new(MemFs::builder().build().unwrap())
}

fn populated() -> Arc<dyn DynFileSystem> {
    let fs = mem();
    let client = InProcess::new(Arc::clone(&fs));
    let world = World::new(&client, "");
    world.mkdir("etc", 0o755).unwrap();
    world.file("etc/file", b"below").unwrap();
    world.link("etc/file", "etc/other").unwrap();
    fs
}

fn overlay(lower: Arc<dyn DynFileSystem>, upper: Arc<dyn DynFileSystem>) -> OverlayFs {
    let lower = stratafs_overlayfs::Layer::new(lower);
    OverlayFs::builder()
        .layer(lower)
        .writable(stratafs_overlayfs::Layer::new(upper))
        .build()
        .unwrap()
}

fn dual(a: Arc<dyn DynFileSystem>, b: Arc<dyn DynFileSystem>) -> Arc<dyn DynFileSystem> {
    let builder = DualFs::builder().backend_a(a).backend_b(b);
    Arc::new(builder.policy(MergeReadsBackendAPrecedence).build().unwrap())
}

fn passes(name: &str, fs: &Arc<dyn DynFileSystem>, below: &str) {
    let stack = || {
        Stack::in_process(name, Arc::clone(fs))
            .without(Capabilities::WHITEOUT, "a whiteout is a deletion in an overlay")
            .without(Capabilities::ACCOUNTING, "deletions leave marks behind")
    };
    let of_map = if below.is_empty() { stack() } else { stack().below(below) };
    of_map.run().assert_passed();
    ModelRun::from_env().run(&stack()).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn overlay_in_a_dual_in_a_router_passes_every_case() {
    let written: Arc<dyn DynFileSystem> = Arc::new(overlay(populated(), mem()));
    let builder =
        RouterFs::builder().mount("/", mem()).mount("/at/dual", dual(written, populated()));
    passes("router(dual(overlay))", &(Arc::new(builder.build().unwrap()) as _), "at/dual");
    let read: Arc<dyn DynFileSystem> = Arc::new(overlay(populated(), mem()));
    let builder = RouterFs::builder().mount("/", dual(mem(), read)).mount("/etc/m", mem());
    passes("router(/=dual(b=overlay))", &(Arc::new(builder.build().unwrap()) as _), "");
}

#[test]
fn dual_as_the_writable_layer_of_an_overlay_passes_every_case() {
    let fs: Arc<dyn DynFileSystem> = Arc::new(overlay(populated(), dual(mem(), mem())));
    passes("overlay(upper=dual)", &fs, "");
}

#[test]
fn router_as_a_lower_layer_of_an_overlay_passes_every_case() {
    let lower = RouterFs::builder().mount("/", populated()).mount("/etc/mounted", populated());
    let fs: Arc<dyn DynFileSystem> = Arc::new(overlay(Arc::new(lower.build().unwrap()), mem()));
    passes("overlay(lower=router)", &fs, "");
    let client = InProcess::new(Arc::clone(&fs));
    let world = World::new(&client, "");
    world.rename("etc/mounted", "moved").unwrap();
    assert_eq!(
        world.read("moved/etc/file").unwrap(),
        b"below",
        "a mount is a directory like another"
    );
}
