//! Which layer shows what.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, Name};
use stratafs_overlayfs::OverlayFs;
use support::layers::{Layers, layer};
use support::on;

fn explained(fs: &OverlayFs, path: &str) -> Vec<String> {
    let names: Vec<Name<'_>> =
        path.split('/').filter(|name| !name.is_empty()).map(support::name).collect();
    fs.explain(&names).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn explain_names_what_is_shown_merged_hidden_and_deleted() {
    let base = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        for file in ["f", "g", "d/x"] {
            w.file(file, b"base").unwrap();
        }
    });
    let app = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("f", b"app").unwrap();
    });
    let fs = Arc::new(Layers::new([base, app]).builder().build().unwrap());
    let shared: Arc<dyn DynFileSystem> = Arc::<OverlayFs>::clone(&fs);
    on(&shared, |w| {
        w.unlink("g").unwrap();
        w.file("d/new", b"").unwrap();
        w.rename("d", "moved").unwrap();
    });
    let (top, below) = ("read-only layer 1 from the top", "read-only layer 2 from the top");
    let upper = "the writable layer";
    assert_eq!(
        explained(&fs, "f"),
        [format!("{top} shows a file"), format!("{below} is hidden with a file")]
    );
    assert_eq!(
        explained(&fs, "g"),
        [format!("{upper} deletes it"), format!("{below} is hidden with a file")]
    );
    assert_eq!(
        explained(&fs, "moved"),
        [
            format!("{upper} shows a directory"),
            format!("{top} is merged in with a directory"),
            format!("{below} is merged in with a directory")
        ]
    );
    assert_eq!(explained(&fs, "moved/x"), [format!("{below} shows a file")]);
    assert_eq!(explained(&fs, "absent"), Vec::<String>::new());
    assert_eq!(explained(&fs, "").len(), 3);
    assert_eq!(fs.explain(&["f", "x"].map(support::name)).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fs.explain(&["absent", "x"].map(support::name)).unwrap_err(), Errno::ENOENT);
}
