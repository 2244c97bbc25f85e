//! Options and what they leave behind, each against the kernel's.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno};
use stratafs_overlayfs::{OverlayFs, RedirectDir};
use stratafs_passthroughfs::PassthroughFs;

use crate::host::{Flavour, Host, through};
use crate::support::on;
use crate::support::tree::{numbers_of, tree, tree_of};

#[test]
fn copy_up_between_directories_of_the_host_keeps_holes_and_times() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lower", "scratch"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let file = std::fs::File::create(dir.path().join("lower/f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"far", 32 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    let modified = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1000, 123_456_000);
    file.set_modified(modified).unwrap();
    let share = |name: &str| {
        Arc::new(PassthroughFs::builder().root_dir(dir.path().join(name)).build().unwrap())
    };
    let fs = OverlayFs::builder().layer(share("lower")).writable(share("scratch"));
    // `user.` works for everyone, on whatever filesystem the temporary directory is.
    let fs: Arc<dyn DynFileSystem> = Arc::new(fs.userxattr(true).build().unwrap());
    on(&fs, |w| w.chmod("f", 0o600).unwrap());
    let copy = std::fs::metadata(dir.path().join("scratch/upper/f")).unwrap();
    assert_eq!((copy.len(), copy.modified().unwrap()), (64 << 20, modified));
    assert!(std::os::unix::fs::MetadataExt::blocks(&copy) < 1024, "holes stay holes");
    let read = on(&fs, |w| w.stat("f").unwrap());
    assert_eq!(read.mtime.nsec, 123_456_000);
}

/// Layers with a file and a directory, if the kernel's overlayfs can be mounted on them.
fn host(flavour: Flavour) -> Option<Host> {
    let host = Host::empty(flavour);
    let base: Arc<dyn DynFileSystem> = host.share("base");
    on(&base, |w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/f", b"data").unwrap();
        w.file("a", b"both").unwrap();
        w.link("a", "b").unwrap();
    });
    host.is_mountable().then_some(host)
}

#[test]
fn volatile_one_is_refused_by_the_other_until_its_mark_is_removed() {
    let Some(host) = host(Flavour::Plain) else { return };
    let mark = host.path("work/work/incompat/volatile");
    drop(host.builder().volatile(true).build().unwrap());
    assert!(mark.join("dirty").exists());
    assert!(host.try_mount().is_err());
    std::fs::remove_dir_all(&mark).unwrap();
    drop(host.try_mount_with("volatile").unwrap());
    assert!(host.builder().build().is_err());
    std::fs::remove_dir_all(&mark).unwrap();
    host.builder().build().unwrap();
    host.try_mount().unwrap();
}

#[test]
fn redirects_with_userxattr_are_marked_as_none_of_the_kernel_s() {
    let Some(host) = host(Flavour::UserXattr) else { return };
    let extended = || host.builder().redirect_dir(RedirectDir::On).build();
    let fs: Arc<dyn DynFileSystem> = Arc::new(extended().unwrap());
    on(&fs, |w| w.rename("d", "e").unwrap());
    drop(fs);
    assert!(host.try_mount().is_err());
    let said = host.builder().build().map(drop).unwrap_err().to_string();
    assert!(said.contains("userxattr and redirect_dir=on"), "{said}");
    let fs: Arc<dyn DynFileSystem> = Arc::new(extended().unwrap());
    on(&fs, |w| assert_eq!(w.read("e/f").unwrap(), b"data"));
}

#[test]
fn directory_that_was_renamed_is_followed_or_refused_alike() {
    let Some(host) = host(Flavour::Plain) else { return };
    on(&host.ours(), |w| w.rename("d", "e").unwrap());
    for (name, option, read, rename) in [
        ("follow", RedirectDir::Follow, Ok(b"data".to_vec()), Err(Errno::EXDEV)),
        ("nofollow", RedirectDir::NoFollow, Err(Errno::EPERM), Err(Errno::EPERM)),
    ] {
        let fs: Arc<dyn DynFileSystem> =
            Arc::new(host.builder().redirect_dir(option).build().unwrap());
        let ours = on(&fs, |w| (w.read("e/f"), w.rename("e", "g")));
        drop(fs);
        let mount = host.try_mount_with(&format!("redirect_dir={name},index=off")).unwrap();
        let theirs = through(&mount.0, |w| (w.read("e/f"), w.rename("e", "g")));
        assert_eq!(ours, (read, rename), "{name}");
        assert_eq!(theirs, ours, "{name}");
    }
}

#[test]
fn index_of_another_topmost_layer_is_refused_if_insisted_on_and_otherwise_right() {
    let Some(host) = host(Flavour::Index) else { return };
    on(&host.ours(), |w| w.write_at("a", 0, b"B").unwrap());
    // Another directory takes the place of the topmost layer.
    std::fs::rename(host.path("app"), host.path("was-app")).unwrap();
    std::fs::create_dir(host.path("app")).unwrap();
    assert!(host.try_mount().is_err());
    let said = host.builder().build().map(drop).unwrap_err().to_string();
    assert!(said.contains("ESTALE") && said.contains("index=off"), "{said}");
    // Unless it is insisted on: the file is the one it was made for.
    let layers = ["base", "app"].iter();
    let builder = layers.fold(OverlayFs::builder(), |b, layer| b.layer(host.share(layer)));
    let upper = PassthroughFs::builder().root_dir(host.path("upper"));
    let upper = Arc::new(upper.extra_root(host.path("work")).build().unwrap());
    let work = stratafs_overlayfs::Layer::at(Arc::clone(&upper) as _, upper.extra_root().unwrap());
    let fs: Arc<dyn DynFileSystem> =
        Arc::new(builder.writable(upper).staging(work).build().unwrap());
    on(&fs, |w| {
        assert_eq!((w.read("a").unwrap(), w.read("b").unwrap()), (b"Both".into(), b"Both".into()));
        assert_eq!(w.stat("a").unwrap().ino, w.stat("b").unwrap().ino);
        w.write_at("b", 0, b"M").unwrap();
        assert_eq!((w.read("a").unwrap(), w.stat("a").unwrap().nlink), (b"Moth".into(), 2));
        w.chmod("d/f", 0o600).unwrap();
        w.chmod("d", 0o700).unwrap();
    });
    // Numbers of listings and of objects are compared.
    tree(&fs);
}

#[test]
fn index_of_another_writable_layer_is_not_used() {
    let Some(host) = host(Flavour::Index) else { return };
    on(&host.ours(), |w| w.write_at("a", 0, b"B").unwrap());
    std::fs::rename(host.path("upper"), host.path("was-upper")).unwrap();
    std::fs::create_dir(host.path("upper")).unwrap();
    let said = host.builder().build().map(drop).unwrap_err().to_string();
    assert!(said.contains("another writable layer (ESTALE)"), "{said}");
    let fs: Arc<dyn DynFileSystem> = Arc::new(host.builder().index(false).build().unwrap());
    on(&fs, |w| {
        assert_eq!((w.read("a").unwrap(), w.read("b").unwrap()), (b"both".into(), b"both".into()));
    });
}

#[test]
fn entries_of_a_new_directory_that_came_from_below_have_their_number_in_listings_too() {
    let Some(host) = host(Flavour::Plain) else { return };
    let fs = host.ours();
    let before = on(&fs, |w| w.stat("d/f").unwrap().ino);
    on(&fs, |w| {
        w.mkdir("new", 0o755).unwrap();
        w.rename("d/f", "new/f").unwrap();
    });
    drop(fs);
    let listed = host.kernel(|w| {
        let entries = w.list("new").unwrap();
        entries.into_iter().find(|entry| entry.name == b"f").unwrap().ino
    });
    assert_eq!(listed, before, "without the mark `impure` it would be that of the copy");
}

#[test]
fn numbers_of_layers_on_two_filesystems_stay_apart_and_the_same_in_a_later_run() {
    let Some(host) = host(Flavour::Plain) else { return };
    let tmpfs = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(host.path("app"))
        .status();
    assert!(tmpfs.unwrap().success());
    let mounted = crate::host::Mount(host.path("app"));
    on(&(host.share("app") as Arc<dyn DynFileSystem>), |w| {
        w.mkdir("d", 0o755).unwrap();
        w.file("d/g", b"from tmpfs").unwrap();
    });
    let fs = host.ours();
    on(&fs, |w| {
        w.chmod("d/g", 0o600).unwrap();
        w.chmod("d/f", 0o600).unwrap();
        w.file("new", b"").unwrap();
    });
    let (seen, numbers) = (tree(&fs), on(&fs, numbers_of));
    drop(fs);
    let fs = host.ours();
    assert_eq!(on(&fs, numbers_of), numbers);
    drop(fs);
    let mut unique: Vec<u64> = numbers.values().copied().collect();
    unique.sort_unstable();
    unique.dedup();
    // `a` and `b` are one.
    assert_eq!(unique.len() + 1, numbers.len());
    let mount = host.try_mount_with("redirect_dir=on,xino=on").unwrap();
    assert_eq!(through(&mount.0, tree_of), seen);
    drop(mount);
    drop(mounted);
}
