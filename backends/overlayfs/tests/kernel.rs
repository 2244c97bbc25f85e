//! Against the kernel's overlayfs: what we leave it mounts and shows the same, what it leaves we
//! show the same, and the same changes come to the same.
//!
//! It takes root, for a mount; without, each test says so and ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use stratafs_core::{DynFileSystem, FileType};
use stratafs_overlayfs::{Layer, OverlayFs};
use stratafs_passthroughfs::PassthroughFs;
use stratafs_testkit::{Client, Mounted, World};
use support::on;
use support::tree::{Change, Random, Tree, agree, apply, apply_to, tree, tree_of};

/// Directories on the host: two read-only layers, a writable one and its staging directory.
struct Host {
    dir: tempfile::TempDir,
}

/// The names of the read-only layers, the bottom first.
const LOWERS: [&str; 2] = ["base", "app"];

/// A mount that ends when it is dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

impl Host {
    /// `None` where the kernel's overlayfs cannot be mounted by this process; it is said why.
    fn new(seed: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base", "app", "upper", "work", "mnt"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let host = Self { dir };
        let mut random = Random::new(seed);
        for lower in LOWERS {
            let fs: Arc<dyn DynFileSystem> = host.share(lower);
            for _ in 0..15 {
                let change = random.change();
                // Which name of several stays the file that is copied up is nobody's promise.
                if !matches!(change, Change::Link(..)) {
                    let _ = apply(&fs, &change);
                }
            }
        }
        match host.try_mount() {
            Ok(mount) => drop(mount),
            Err(why) => {
                eprintln!(
                    "not compared with the kernel's overlayfs, which can't be mounted: {why}"
                );
                return None;
            }
        }
        Some(host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn share(&self, name: &str) -> Arc<PassthroughFs> {
        Arc::new(PassthroughFs::builder().root_dir(self.path(name)).build().unwrap())
    }

    /// Our overlay of the directories.
    fn ours(&self) -> Arc<dyn DynFileSystem> {
        let upper = PassthroughFs::builder().root_dir(self.path("upper"));
        let upper = Arc::new(upper.extra_root(self.path("work")).build().unwrap());
        let work = upper.extra_root().unwrap();
        let builder = LOWERS
            .iter()
            .fold(OverlayFs::builder(), |builder, lower| builder.layer(self.share(lower)));
        let shared: Arc<dyn DynFileSystem> = Arc::<PassthroughFs>::clone(&upper);
        let builder = builder.writable(upper).staging(Layer::at(shared, work));
        Arc::new(builder.build().unwrap())
    }

    fn try_mount(&self) -> Result<Mount, String> {
        let at = |name: &str| self.path(name).display().to_string();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={},redirect_dir=on,index=off,metacopy=off",
            at("app"),
            at("base"),
            at("upper"),
            at("work")
        );
        let mount = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(self.path("mnt"))
            .output()
            .map_err(|error| error.to_string())?;
        if mount.status.success() {
            Ok(Mount(self.path("mnt")))
        } else {
            Err(String::from_utf8_lossy(&mount.stderr).into_owned())
        }
    }

    /// Does `work` on the kernel's overlay of the directories.
    fn kernel<T>(&self, work: impl FnOnce(&World<'_>) -> T) -> T {
        let mount = self.try_mount().unwrap();
        let done = through(&mount.0, work);
        drop(mount);
        done
    }
}

fn through<T>(path: &Path, work: impl FnOnce(&World<'_>) -> T) -> T {
    let client = Mounted::new(path).unwrap();
    client.begin().unwrap();
    let done = work(&World::new(&client, ""));
    client.end().unwrap();
    done
}

/// The trees differ here, in words.
fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let mut found: Vec<String> = ours
        .keys()
        .chain(theirs.keys())
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            format!("{path:?}: ours {:?}, the kernel's {:?}", ours.get(path), theirs.get(path))
        })
        .collect();
    found.dedup();
    found
}

#[track_caller]
fn assert_same(ours: &Tree, theirs: &Tree, what: &str) {
    let found = differences(ours, theirs);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Whether `change` is about a symlink of `tree`.
fn is_symlink(tree: &Tree, change: &Change) -> bool {
    let link = FileType::Symlink.mode_bits();
    change.paths().iter().any(|path| {
        tree.get(*path).is_some_and(|seen| seen.mode & stratafs_core::attr::S_IFMT == link)
    })
}

const SEEDS: std::ops::Range<u64> = 0..12;

#[test]
fn kernel_shows_what_our_overlay_left() {
    for seed in SEEDS {
        let Some(host) = Host::new(seed) else { return };
        let fs = host.ours();
        let mut random = Random::new(seed + 100);
        let changes: Vec<Change> = (0..40).map(|_| random.change()).collect();
        for change in &changes {
            let _ = apply(&fs, change);
        }
        let ours = tree(&fs);
        drop(fs);
        let theirs = host.kernel(tree_of);
        assert_same(&ours, &theirs, &format!("seed {seed} after {changes:#?}"));
    }
}

#[test]
fn our_overlay_shows_what_the_kernel_left() {
    for seed in SEEDS {
        let Some(host) = Host::new(seed) else { return };
        let mut random = Random::new(seed + 200);
        let changes: Vec<Change> = (0..40).map(|_| random.change()).collect();
        let theirs = host.kernel(|w| {
            for change in &changes {
                let _ = apply_to(w, change);
            }
            tree_of(w)
        });
        let ours = tree(&host.ours());
        assert_same(&ours, &theirs, &format!("seed {seed} after {changes:#?}"));
    }
}

#[test]
fn same_changes_on_ours_and_the_kernel_s_come_to_the_same() {
    for seed in SEEDS {
        let (Some(host), Some(other)) = (Host::new(seed), Host::new(seed)) else { return };
        let fs = host.ours();
        let mut random = Random::new(seed + 300);
        let mut done = Vec::new();
        let theirs = other.kernel(|w| {
            for _ in 0..60 {
                let change = random.change();
                done.push(change.clone());
                // Which error it is that a symlink gets is the client's affair.
                let through_link = is_symlink(&tree(&fs), &change);
                let (ours, theirs) = (apply(&fs, &change), apply_to(w, &change));
                let both_fail = ours.is_err() && theirs.is_err();
                assert!(
                    agree(ours, theirs) || (through_link && both_fail),
                    "seed {seed}: ours {ours:?}, the kernel's {theirs:?} after {done:#?}"
                );
                assert_same(&tree(&fs), &tree_of(w), &format!("seed {seed} after {done:#?}"));
            }
            tree_of(w)
        });
        assert_same(&tree(&fs), &theirs, &format!("seed {seed}"));
    }
}

#[test]
fn both_in_turns_on_one_writable_layer_agree_with_each_other() {
    for seed in SEEDS {
        let Some(host) = Host::new(seed) else { return };
        let mut random = Random::new(seed + 400);
        for turn in 0..4 {
            let changes: Vec<Change> = (0..10).map(|_| random.change()).collect();
            let what = format!("seed {seed}, turn {turn}, after {changes:#?}");
            if turn % 2 == 0 {
                let fs = host.ours();
                for change in &changes {
                    let _ = apply(&fs, change);
                }
                let ours = tree(&fs);
                drop(fs);
                assert_same(&ours, &host.kernel(tree_of), &what);
            } else {
                let theirs = host.kernel(|w| {
                    for change in &changes {
                        let _ = apply_to(w, change);
                    }
                    tree_of(w)
                });
                assert_same(&tree(&host.ours()), &theirs, &what);
            }
        }
    }
}

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
