//! Changes of attributes that leave the data in its layer.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, OpKind, OpenFlags, XattrMode};
use stratafs_overlayfs::RedirectDir;

use crate::support::layers::{Layers, Watch, layer, nothing};
use crate::support::tree::tree;
use crate::support::{mem, on};

const RECORD: &[u8] = b"trusted.overlay.metacopy";

/// A file `d/f` in a layer that is watched.
fn watched() -> (Layers, Arc<Watch>) {
    let (base, watch) = Watch::over(
        layer(|w| {
            w.mkdir("d", 0o755).unwrap();
            w.file("d/f", b"the data").unwrap();
        }),
        nothing,
    );
    (Layers::new([base]), watch)
}

fn build(layers: &Layers) -> Arc<dyn DynFileSystem> {
    Arc::new(layers.builder().metacopy(true).build().unwrap())
}

fn data_calls(watch: &Watch) -> usize {
    watch.count(OpKind::Read) + watch.count(OpKind::CopyFileRange)
}

/// Whether `path` of the writable layer has its data below.
fn is_meta(layers: &Layers, path: &str) -> bool {
    on(&layers.scratch, |w| w.getxattr(format!("upper/{path}"), RECORD).is_ok())
}

#[test]
fn changes_of_attributes_copy_no_data_and_the_first_open_for_writing_does() {
    let (layers, watch) = watched();
    let fs = build(&layers);
    on(&fs, |w| {
        let before = w.stat("d/f").unwrap();
        w.chmod("d/f", 0o600).unwrap();
        w.chown("d/f", Some(5), Some(6)).unwrap();
        w.setxattr("d/f", b"user.x", b"1", XattrMode::Set).unwrap();
        assert_eq!(data_calls(&watch), 0);
        assert!(is_meta(&layers, "d/f"));
        assert_eq!(w.read("d/f").unwrap(), b"the data");
        let after = w.stat("d/f").unwrap();
        assert_eq!((after.ino, after.size, after.mtime), (before.ino, 8, before.mtime));
        assert_eq!((after.mode & 0o7777, after.uid, after.gid), (0o600, 5, 6));
        assert_eq!(after.blocks, before.blocks, "those of the data");

        let fd = w.open("d/f", OpenFlags::READ_WRITE).unwrap();
        assert!(!is_meta(&layers, "d/f"));
        assert_eq!(w.stat("d/f").unwrap().mtime, before.mtime, "an open is no change");
        w.write_all(fd, 0, b"THE").unwrap();
        w.close(fd).unwrap();
        assert_eq!(w.read("d/f").unwrap(), b"THE data");
        assert_eq!(w.stat("d/f").unwrap().mode & 0o7777, 0o600);
    });
    let seen = tree(&fs);
    drop(fs);
    assert_eq!(tree(&build(&layers)), seen);
}

#[test]
fn file_without_data_is_found_again_and_read_after_a_rename() {
    let (layers, watch) = watched();
    let fs = build(&layers);
    on(&fs, |w| {
        w.rename("d/f", "d/g").unwrap();
        w.mkdir("e", 0o755).unwrap();
        w.rename("d/g", "e/h").unwrap();
        w.rename("d", "moved").unwrap();
        assert_eq!(data_calls(&watch), 0);
        assert_eq!(w.read("e/h").unwrap(), b"the data");
    });
    assert!(is_meta(&layers, "e/h"));
    let seen = tree(&fs);
    drop(fs);
    let fs = build(&layers);
    assert_eq!(tree(&fs), seen);
    on(&fs, |w| {
        w.link("e/h", "second").unwrap();
        assert!(!is_meta(&layers, "e/h"), "two names can't each say where the data is");
        assert_eq!(w.read("second").unwrap(), b"the data");
    });
}

#[test]
fn truncation_of_a_file_without_data_copies_no_more_than_stays() {
    let (layers, watch) = watched();
    let fs = build(&layers);
    on(&fs, |w| {
        w.chmod("d/f", 0o600).unwrap();
        let fd = w.open("d/f", OpenFlags::WRITE_ONLY.with_truncate()).unwrap();
        w.close(fd).unwrap();
        assert_eq!(data_calls(&watch), 0);
        assert_eq!(w.read("d/f").unwrap(), b"");
    });
    assert!(!is_meta(&layers, "d/f"));
}

#[test]
fn handle_on_data_below_sees_what_is_written_after_it_was_copied() {
    let (layers, _) = watched();
    on(&build(&layers), |w| {
        w.chmod("d/f", 0o600).unwrap();
        let before = w.open("d/f", OpenFlags::READ_ONLY).unwrap();
        assert_eq!(w.read_fd(before).unwrap(), b"the data");
        w.write_at("d/f", 0, b"NEW").unwrap();
        assert_eq!(w.read_fd(before).unwrap(), b"NEW data");
        w.close(before).unwrap();
    });
}

#[test]
fn data_is_found_through_several_layers_without() {
    let bottom = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.file("a/f", b"deep").unwrap();
    });
    let meta = |path: &'static str, redirect: &'static [u8]| {
        layer(move |w| {
            w.mkdir("a", 0o755).unwrap();
            w.file(path, &[0; 4]).unwrap();
            w.chmod(path, 0o600).unwrap();
            w.setxattr(path, RECORD, b"", XattrMode::Set).unwrap();
            if !redirect.is_empty() {
                w.setxattr(path, b"trusted.overlay.redirect", redirect, XattrMode::Set).unwrap();
            }
        })
    };
    let layers = Layers::new([bottom, meta("a/g", b"f"), meta("h", b"/a/g")]);
    let fs = build(&layers);
    on(&fs, |w| {
        assert_eq!(w.read("h").unwrap(), b"deep");
        w.chown("h", Some(3), None).unwrap();
        assert_eq!(w.read("h").unwrap(), b"deep");
        w.write_at("h", 0, b"D").unwrap();
        assert_eq!(
            (w.read("h").unwrap(), w.read("a/g").unwrap()),
            (b"Deep".into(), b"deep".into())
        );
    });
}

#[test]
fn data_that_is_nowhere_or_must_not_be_followed_is_refused() {
    let meta = || {
        layer(|w| {
            w.file("f", &[0; 4]).unwrap();
            w.setxattr("f", RECORD, b"", XattrMode::Set).unwrap();
        })
    };
    on(&build(&Layers::new([meta()])), |w| assert_eq!(w.stat("f").unwrap_err(), Errno::EIO));
    let of_a_directory = layer(|w| w.mkdir("f", 0o755).unwrap());
    on(&build(&Layers::new([of_a_directory, meta()])), |w| {
        assert_eq!(w.stat("f").unwrap_err(), Errno::EIO);
    });
    let data = layer(|w| w.file("f", b"data").unwrap());
    on(&Layers::new([data, meta()]).build(), |w| assert_eq!(w.read("f").unwrap_err(), Errno::EIO));
}

#[test]
fn build_with_metacopy_and_what_excludes_it_says_so() {
    let layers = Layers::new([mem()]);
    let refused = |builder: stratafs_overlayfs::Builder| {
        builder.metacopy(true).build().map(drop).unwrap_err().to_string()
    };
    assert!(refused(layers.builder().userxattr(true)).contains("userxattr"));
    assert!(refused(layers.builder().redirect_dir(RedirectDir::Follow)).contains("redirect_dir"));
}
