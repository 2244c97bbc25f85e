//! What is refused when an overlay is built, in words that say what to do.

use std::sync::Arc;

use stratafs_core::{
    Behaviours, DynFileSystem, Features, Intercept, Intercepted, NodeId, ReadOnly,
};
use stratafs_overlayfs::{Builder, Layer, OverlayFs};

use crate::support::layers::{Layers, layer};
use crate::support::{mem, node, on};

/// Takes promises from a filesystem.
struct Without(Behaviours);

impl Intercept for Without {
    type Mark = ();

    fn features(&self, mut inner: Features) -> Features {
        inner.behaviours -= self.0;
        inner
    }
}

fn refused(builder: Builder) -> String {
    builder.build().map(drop).unwrap_err().to_string()
}

#[test]
fn build_with_a_writable_layer_that_lacks_what_is_needed_says_so() {
    for (lacking, word) in [
        (Behaviours::EXCHANGE, "RENAME_EXCHANGE"),
        (Behaviours::WHITEOUT, "whiteouts"),
        (Behaviours::STAGING_RENAME, "renames between"),
        (Behaviours::XATTR_TRUSTED, "attributes in trusted."),
    ] {
        let unfit = Arc::new(Intercepted::new(mem(), Without(lacking)));
        let said = refused(OverlayFs::builder().layer(mem()).writable(unfit));
        assert!(said.contains(word) && said.contains("EOPNOTSUPP"), "{said}");
    }
    let unfit = Arc::new(Intercepted::new(mem(), Without(Behaviours::XATTR_TRUSTED)));
    OverlayFs::builder().layer(mem()).writable(unfit).userxattr(true).build().unwrap();
}

#[test]
fn build_on_a_read_only_writable_layer_is_refused() {
    let fs = Arc::new(Intercepted::new(mem(), ReadOnly::new()));
    let said = refused(OverlayFs::builder().layer(mem()).writable(fs));
    assert!(said.contains("write access"), "{said}");
}

#[test]
fn build_with_staging_elsewhere_is_exdev() {
    let said = refused(OverlayFs::builder().layer(mem()).writable(mem()).staging(mem()));
    assert!(said.contains("EXDEV"), "{said}");
    let said = refused(OverlayFs::builder().layer(mem()).staging(mem()));
    assert!(said.contains("drop staging"), "{said}");
}

#[test]
fn build_that_uses_one_directory_twice_is_refused() {
    let scratch = layer(|w| {
        w.mkdir("up", 0o755).unwrap();
        w.mkdir("work", 0o755).unwrap();
    });
    let at = |path| Layer::at(Arc::clone(&scratch), node(&scratch, path));
    let said = refused(OverlayFs::builder().layer(at("up")).writable(at("up")).staging(at("work")));
    assert!(said.contains("ELOOP"), "{said}");
    let said = refused(OverlayFs::builder().layer(mem()).writable(at("up")).staging(at("up")));
    assert!(said.contains("ELOOP"), "{said}");
    OverlayFs::builder().layer(mem()).writable(at("up")).staging(at("work")).build().unwrap();
}

#[test]
fn build_without_layers_or_with_a_file_for_one_is_refused() {
    assert!(refused(OverlayFs::builder()).contains("at least one"));
    let fs = layer(|w| w.file("f", b"").unwrap());
    let said = refused(OverlayFs::builder().layer(Layer::at(Arc::clone(&fs), node(&fs, "f"))));
    assert!(said.contains("ENOTDIR"), "{said}");
}

#[test]
fn build_after_a_volatile_one_is_refused_until_its_mark_is_removed() {
    let layers = Layers::new([mem()]);
    drop(layers.builder().volatile(true).build().unwrap());
    let said = refused(layers.builder());
    assert!(said.contains("work/incompat/volatile"), "{said}");
    on(&layers.scratch, |w| {
        w.unlink("work/work/incompat/volatile/dirty").unwrap();
        w.rmdir("work/work/incompat/volatile").unwrap();
    });
    layers.builder().build().unwrap();
}

#[test]
fn features_of_an_overlay_are_those_of_its_layers() {
    let dim: Arc<dyn DynFileSystem> =
        Arc::new(Intercepted::new(mem(), Without(Behaviours::XATTR_SECURITY)));
    let fs = OverlayFs::builder().layer(dim).writable(mem()).build().unwrap();
    let features = fs.features();
    assert!(!features.bears(Behaviours::XATTR_SECURITY) && features.bears(Behaviours::EXCHANGE));
    assert!(!features.bears(Behaviours::WHITEOUT), "no overlay can be put on it to be written to");
    let read_only = OverlayFs::builder().layer(mem()).build().unwrap();
    assert!(read_only.features().bears(Behaviours::READ_ONLY));
    assert_ne!(fs.getattr(&crate::support::cx(), NodeId::ROOT, None).unwrap().attr.ino, 0);
}
