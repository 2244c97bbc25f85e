//! Directories of the host, as layers of ours and of the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stratafs_core::DynFileSystem;
use stratafs_overlayfs::{Builder, Layer, OverlayFs, RedirectDir};
use stratafs_passthroughfs::PassthroughFs;
use stratafs_testkit::{Client, Mounted, World};

use crate::support::tree::{Change, Random, apply};

/// Directories on the host: two read-only layers, a writable one and its staging directory.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub(crate) flavour: Flavour,
}

/// The names of the read-only layers, the bottom first.
pub(crate) const LOWERS: [&str; 2] = ["base", "app"];

/// Options that both are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Copied files part with their other names.
    Plain,
    /// They do not.
    Index,
    /// A change of attributes copies no data.
    Metacopy,
    /// Both.
    IndexAndMetacopy,
    /// Directories with lower parts are not renamed.
    NoRedirects,
    /// Records in `user.`.
    UserXattr,
}

pub(crate) const FLAVOURS: [Flavour; 6] = [
    Flavour::Plain,
    Flavour::Index,
    Flavour::Metacopy,
    Flavour::IndexAndMetacopy,
    Flavour::NoRedirects,
    Flavour::UserXattr,
];

impl Flavour {
    pub(crate) fn mount_options(self) -> &'static str {
        match self {
            Self::Plain => "redirect_dir=on,index=off,metacopy=off",
            Self::Index => "redirect_dir=on,index=on,metacopy=off",
            Self::Metacopy => "redirect_dir=on,index=off,metacopy=on",
            Self::IndexAndMetacopy => "redirect_dir=on,index=on,metacopy=on",
            Self::NoRedirects => "redirect_dir=off,index=on,metacopy=off",
            Self::UserXattr => "userxattr,index=off",
        }
    }

    pub(crate) fn options(self, builder: Builder) -> Builder {
        let builder = builder.index(self.has_index());
        match self {
            Self::Plain | Self::Index => builder,
            Self::Metacopy | Self::IndexAndMetacopy => builder.metacopy(true),
            Self::NoRedirects => builder.redirect_dir(RedirectDir::Off),
            Self::UserXattr => builder.userxattr(true),
        }
    }

    pub(crate) fn has_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexAndMetacopy | Self::NoRedirects)
    }
}

/// A mount that ends when it is dropped.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Not lazily if it can be helped: the layers stay in use until the mount has ended.
        let unmount = |args: &[&str]| {
            let done = Command::new("umount").args(args).arg(&self.0).output();
            done.is_ok_and(|done| done.status.success())
        };
        assert!(unmount(&[]) || unmount(&["--lazy"]), "{} stays mounted", self.0.display());
    }
}

impl Host {
    /// `None` where the kernel's overlayfs cannot be mounted by this process; it is said why.
    pub(crate) fn new(seed: u64, flavour: Flavour) -> Option<Self> {
        let host = Self::empty(flavour);
        let mut random = Random::new(seed);
        for lower in LOWERS {
            let fs: Arc<dyn DynFileSystem> = host.share(lower);
            for _ in 0..20 {
                let change = random.change();
                // Without an index, which name of several stays the file that is copied up is
                // nobody's promise.
                if flavour.has_index() || !matches!(change, Change::Link(..)) {
                    let _ = apply(&fs, &change);
                }
            }
        }
        host.is_mountable().then_some(host)
    }

    /// Directories without content.
    pub(crate) fn empty(flavour: Flavour) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base", "app", "upper", "work", "mnt"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, flavour }
    }

    /// Whether the kernel's overlayfs can be mounted on it; if not, it is said why.
    pub(crate) fn is_mountable(&self) -> bool {
        match self.try_mount() {
            Ok(mount) => {
                drop(mount);
                true
            }
            Err(why) => {
                eprintln!(
                    "not compared with the kernel's overlayfs, which can't be mounted: {why}"
                );
                false
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn share(&self, name: &str) -> Arc<PassthroughFs> {
        Arc::new(PassthroughFs::builder().root_dir(self.path(name)).build().unwrap())
    }

    /// Our overlay of the directories.
    pub(crate) fn builder(&self) -> Builder {
        let upper = PassthroughFs::builder().root_dir(self.path("upper"));
        let upper = Arc::new(upper.extra_root(self.path("work")).build().unwrap());
        let work = upper.extra_root().unwrap();
        let builder = LOWERS
            .iter()
            .fold(OverlayFs::builder(), |builder, lower| builder.layer(self.share(lower)));
        let shared: Arc<dyn DynFileSystem> = Arc::<PassthroughFs>::clone(&upper);
        let builder = builder.writable(upper).staging(Layer::at(shared, work));
        self.flavour.options(builder)
    }

    pub(crate) fn ours(&self) -> Arc<dyn DynFileSystem> {
        Arc::new(self.builder().build().unwrap())
    }

    pub(crate) fn try_mount(&self) -> Result<Mount, String> {
        self.try_mount_with(self.flavour.mount_options())
    }

    pub(crate) fn try_mount_with(&self, options: &str) -> Result<Mount, String> {
        let at = |name: &str| self.path(name).display().to_string();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={},{options}",
            at("app"),
            at("base"),
            at("upper"),
            at("work"),
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(self.path("mnt"));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let done = mount.output().map_err(|error| error.to_string())?;
            if done.status.success() {
                return Ok(Mount(self.path("mnt")));
            }
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            // The mount before this one may not have ended yet.
            if !said.contains("already mounted") || Instant::now() > deadline {
                return Err(said);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does `work` on the kernel's overlay of the directories.
    pub(crate) fn kernel<T>(&self, work: impl FnOnce(&World<'_>) -> T) -> T {
        let mount = self.try_mount().unwrap();
        let done = through(&mount.0, work);
        drop(mount);
        done
    }
}

pub(crate) fn through<T>(path: &Path, work: impl FnOnce(&World<'_>) -> T) -> T {
    let client = Mounted::new(path).unwrap();
    client.begin().unwrap();
    let done = work(&World::new(&client, ""));
    client.end().unwrap();
    done
}

/// Whether both have the same under every path.
#[track_caller]
pub(crate) fn assert_same<T: PartialEq + Debug>(
    ours: &BTreeMap<String, T>,
    theirs: &BTreeMap<String, T>,
    what: &str,
) {
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differing = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    let found: Vec<String> = differing
        .map(|path| {
            format!("{path:?}: ours {:?}, the kernel's {:?}", ours.get(path), theirs.get(path))
        })
        .collect();
    assert!(found.is_empty(), "{}\n{what}", found.join("\n"));
}
