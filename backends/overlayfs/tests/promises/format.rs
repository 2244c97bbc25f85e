//! Marks in layers that others wrote, and marks that stay out of sight.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, XattrMode};
use stratafs_overlayfs::{OverlayFs, RedirectDir, Whiteouts};

use crate::support::layers::{Layers, layer};
use crate::support::{mem, on};

#[test]
fn records_are_out_of_sight_and_a_client_s_own_are_escaped() {
    for (prefix, user) in [("trusted", false), ("user", true)] {
        let layers = Layers::new([layer(|w| {
            w.file("f", b"").unwrap();
            w.mkdir("d", 0o755).unwrap();
        })]);
        let fs: Arc<dyn DynFileSystem> =
            Arc::new(layers.builder().userxattr(user).build().unwrap());
        let record = format!("{prefix}.overlay.opaque");
        on(&fs, |w| {
            w.chmod("f", 0o600).unwrap();
            assert_eq!(w.listxattr("f").unwrap(), Vec::<Vec<u8>>::new());
            assert_eq!(w.getxattr("f", record.as_bytes()).unwrap_err(), Errno::ENODATA);
            w.setxattr("d", record.as_bytes(), b"y", XattrMode::Create).unwrap();
            assert_eq!(w.getxattr("d", record.as_bytes()).unwrap(), b"y");
            assert_eq!(w.listxattr("d").unwrap(), [record.as_bytes()]);
        });
        on(&layers.scratch, |w| {
            let escaped = format!("{prefix}.overlay.overlay.opaque");
            assert_eq!(w.getxattr("upper/d", escaped.as_bytes()).unwrap(), b"y");
            assert_eq!(w.getxattr("upper/d", record.as_bytes()).unwrap_err(), Errno::ENODATA);
        });
    }
}

#[test]
fn records_of_a_nested_overlay_come_through_a_copy_up() {
    let escaped = b"trusted.overlay.overlay.redirect";
    let layers = Layers::new([layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.setxattr("d", escaped, b"/x", XattrMode::Set).unwrap();
    })]);
    on(&layers.build(), |w| {
        w.chmod("d", 0o700).unwrap();
        assert_eq!(w.getxattr("d", b"trusted.overlay.redirect").unwrap(), b"/x");
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new(), "it is none of this overlay's");
    });
}

#[test]
fn whiteouts_that_are_files_hide_where_their_directory_says_so() {
    let bottom = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/gone", b"x").unwrap();
        w.file("d/stays", b"x").unwrap();
    });
    let marked = |opaque: &'static [u8]| {
        layer(move |w| {
            w.mkdir("d", 0o755).unwrap();
            w.file("d/gone", b"").unwrap();
            w.setxattr("d/gone", b"trusted.overlay.whiteout", b"", XattrMode::Set).unwrap();
            if !opaque.is_empty() {
                w.setxattr("d", b"trusted.overlay.opaque", opaque, XattrMode::Set).unwrap();
            }
        })
    };
    on(&Layers::new([Arc::clone(&bottom), marked(b"x")]).build(), |w| {
        assert_eq!(w.names("d").unwrap(), ["stays"]);
        assert_eq!(w.stat("d/gone").unwrap_err(), Errno::ENOENT);
    });
    on(&Layers::new([bottom, marked(b"")]).build(), |w| {
        assert_eq!(w.names("d").unwrap(), ["gone", "stays"]);
    });
}

#[test]
fn marks_of_oci_layers_hide_and_are_not_shown() {
    let bottom = || {
        layer(|w| {
            for dir in ["d", "e"] {
                w.mkdir(dir, 0o755).unwrap();
                w.file(format!("{dir}/old"), b"").unwrap();
            }
            w.file("gone", b"").unwrap();
        })
    };
    let top = || {
        layer(|w| {
            w.file(".wh.gone", b"").unwrap();
            w.mkdir("d", 0o755).unwrap();
            w.file("d/.wh..wh..opq", b"").unwrap();
            w.file("d/new", b"").unwrap();
            w.mkdir("e", 0o755).unwrap();
            w.file("e/.wh.old", b"").unwrap();
        })
    };
    let layers = Layers::new([bottom(), top()]);
    let fs: Arc<dyn DynFileSystem> =
        Arc::new(layers.builder().whiteouts(Whiteouts::Oci).build().unwrap());
    on(&fs, |w| {
        assert_eq!(w.names("").unwrap(), ["d", "e"]);
        assert_eq!(w.names("d").unwrap(), ["new"]);
        assert_eq!(w.names("e").unwrap(), Vec::<String>::new());
        for path in ["gone", "d/old", "e/old", ".wh.gone", "d/.wh..wh..opq"] {
            assert_eq!(w.stat(path).unwrap_err(), Errno::ENOENT, "{path}");
        }
        w.file("gone", b"again").unwrap();
        assert_eq!(w.read("gone").unwrap(), b"again");
    });
    on(&Layers::new([bottom(), top()]).build(), |w| {
        assert!(w.exists("gone").unwrap(), "only where it is asked for");
    });
}

#[test]
fn opaque_directories_of_fuse_overlayfs_are_read() {
    let bottom = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/old", b"").unwrap();
    });
    let top = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.setxattr("d", b"user.fuseoverlayfs.opaque", b"y", XattrMode::Set).unwrap();
    });
    on(&Layers::new([bottom, top]).build(), |w| {
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
    });
}

/// A layer whose author made `d` show what another layer has at `value`.
fn redirected(value: &'static [u8]) -> Layers {
    let bottom = layer(|w| {
        w.mkdir("a", 0o755).unwrap();
        w.mkdir("a/b", 0o755).unwrap();
        w.file("a/b/f", b"").unwrap();
    });
    let top = layer(|w| {
        w.mkdir("d", 0o755).unwrap();
        w.setxattr("d", b"trusted.overlay.redirect", value, XattrMode::Set).unwrap();
    });
    Layers::new([bottom, top])
}

#[test]
fn redirect_is_followed_unless_that_is_turned_off() {
    let layers = redirected(b"/a/b");
    on(&layers.build(), |w| assert_eq!(w.names("d").unwrap(), ["f"]));
    for (mode, found) in
        [(RedirectDir::Follow, true), (RedirectDir::Off, true), (RedirectDir::NoFollow, false)]
    {
        let fs: Arc<dyn DynFileSystem> =
            Arc::new(layers.builder().redirect_dir(mode).build().unwrap());
        let answer = on(&fs, |w| w.names("d"));
        let right = if found { Ok(vec!["f".to_owned()]) } else { Err(Errno::EPERM) };
        assert_eq!(answer, right, "{mode:?}");
    }
}

#[test]
fn redirect_that_leads_nowhere_or_out_is_refused() {
    for value in [&b"/a/../b"[..], b"..", b"/", b"a/b", b""] {
        on(&redirected(value).build(), |w| {
            assert_eq!(w.names("d").unwrap_err(), Errno::EIO, "{}", value.escape_ascii());
        });
    }
    on(&redirected(b"/not/there").build(), |w| {
        assert_eq!(w.names("d").unwrap(), Vec::<String>::new());
    });
}

#[test]
fn rename_of_a_directory_with_lower_parts_is_exdev_without_redirects() {
    let layers = Layers::new([layer(|w| w.mkdir("d", 0o755).unwrap())]);
    let built = [
        layers.builder().redirect_dir(RedirectDir::Off).build().unwrap(),
        layers.builder().userxattr(true).build().unwrap(),
    ];
    for fs in built {
        let fs: Arc<dyn DynFileSystem> = Arc::new(fs);
        on(&fs, |w| {
            assert_eq!(w.rename("d", "e").unwrap_err(), Errno::EXDEV);
            if !w.exists("new").unwrap() {
                w.mkdir("new", 0o755).unwrap();
            }
            w.rename("new", "newer").unwrap();
            w.rename("newer", "new").unwrap();
        });
    }
}

#[test]
fn data_that_is_below_a_metacopy_is_refused_and_not_read_as_zeros() {
    let base = layer(|w| {
        w.file("f", &[0; 100]).unwrap();
        w.setxattr("f", b"trusted.overlay.metacopy", b"", XattrMode::Set).unwrap();
    });
    on(&Layers::new([base]).build(), |w| {
        assert_eq!(w.stat("f").unwrap().size, 100);
        assert_eq!(w.read("f").unwrap_err(), Errno::EIO);
        assert_eq!(w.chmod("f", 0o600).unwrap_err(), Errno::EIO);
    });
}

#[test]
fn five_hundred_layers_are_one_tree() {
    let layers = Layers::new((0..500).map(|i| {
        layer(|w| {
            w.mkdir("d", 0o755).unwrap();
            w.file(format!("d/f{i:03}"), b"").unwrap();
        })
    }));
    on(&layers.build(), |w| {
        assert_eq!(w.names("d").unwrap().len(), 500);
        w.unlink("d/f250").unwrap();
        assert_eq!(w.names("d").unwrap().len(), 499);
    });
}

#[test]
fn overlay_without_a_writable_layer_refuses_every_change() {
    let base = layer(|w| w.file("f", b"data").unwrap());
    let fs: Arc<dyn DynFileSystem> =
        Arc::new(OverlayFs::builder().layer(base).layer(mem()).build().unwrap());
    on(&fs, |w| {
        assert_eq!(w.read("f").unwrap(), b"data");
        assert_eq!(w.file("g", b"").unwrap_err(), Errno::EROFS);
        assert_eq!(w.unlink("f").unwrap_err(), Errno::EROFS);
        assert_eq!(w.mkdir("d", 0o755).unwrap_err(), Errno::EROFS);
        assert_eq!(w.rename("f", "g").unwrap_err(), Errno::EROFS);
        assert_eq!(w.chmod("f", 0o600).unwrap_err(), Errno::EROFS);
        assert_eq!(w.link("f", "g").unwrap_err(), Errno::EROFS);
        let write = stratafs_core::OpenFlags::WRITE_ONLY;
        assert_eq!(w.open("f", write).unwrap_err(), Errno::EROFS);
        assert_eq!(w.setxattr("f", b"user.a", b"", XattrMode::Set).unwrap_err(), Errno::EROFS);
    });
}
