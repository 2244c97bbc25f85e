//! A whole tree as a value, and random changes of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, FileType, OpenFlags, RenameFlags, Result, XattrMode};
use stratafs_testkit::World;

use super::on;

/// What can be seen of an object, but times and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) nlink: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) xattr: Option<Vec<u8>>,
}

/// Everything by path.
pub(crate) type Tree = BTreeMap<String, Seen>;

/// The attribute that is looked at.
pub(crate) const XATTR: &str = "user.x";

/// All that shows in `fs`. Listings, lookups and numbers are compared on the way.
pub(crate) fn tree(fs: &Arc<dyn DynFileSystem>) -> Tree {
    on(fs, tree_of)
}

/// All that shows to the client of `w`.
pub(crate) fn tree_of(w: &World<'_>) -> Tree {
    let mut all = Tree::new();
    walk(w, "", &mut all);
    all
}

fn walk(w: &World<'_>, path: &str, all: &mut Tree) {
    let attr = w.stat(path).unwrap_or_else(|errno| panic!("stat of {path:?}: {errno}"));
    let kind = attr.kind();
    let content = match kind {
        FileType::Regular => w.read(path).unwrap_or_else(|e| panic!("read of {path:?}: {e}")),
        FileType::Symlink => w.readlink(path).unwrap(),
        _ => Vec::new(),
    };
    let xattr = w.getxattr(path, XATTR.as_bytes()).ok();
    // Of directories it is not counted.
    let nlink = if attr.is_dir() { 1 } else { attr.nlink };
    let owner = (attr.uid, attr.gid);
    all.insert(path.to_owned(), Seen { mode: attr.mode, owner, nlink, content, xattr });
    if kind != FileType::Directory {
        return;
    }
    let mut names = Vec::new();
    for entry in w.list(path).unwrap_or_else(|e| panic!("listing of {path:?}: {e}")) {
        let name = String::from_utf8(entry.name).unwrap();
        if name == "." || name == ".." {
            continue;
        }
        let child = if path.is_empty() { name } else { format!("{path}/{name}") };
        let attr = w.stat(&child).unwrap_or_else(|e| panic!("stat of listed {child:?}: {e}"));
        // The kernel's overlay keeps that only where its layers let it.
        let promised = w.client().in_process().is_some();
        assert!(!promised || attr.ino == entry.ino, "the number of {child:?}");
        assert_eq!(Some(attr.kind()), entry.kind, "the type of {child:?}");
        assert!(!names.contains(&child), "{child:?} is listed twice");
        names.push(child);
    }
    for child in names {
        walk(w, &child, all);
    }
}

/// A change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(String, u8),
    Append(String, u8),
    CutOpen(String),
    Truncate(String, u64),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String, RenameFlags),
    Link(String, String),
    Symlink(String),
    Chmod(String, u32),
    Chown(String, u32),
    Setxattr(String, u8),
    Socket(String),
}

impl Change {
    /// The paths that it names.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Self::Rename(from, to, _) | Self::Link(from, to) => vec![from, to],
            Self::Write(path, _)
            | Self::Append(path, _)
            | Self::CutOpen(path)
            | Self::Truncate(path, _)
            | Self::Mkdir(path)
            | Self::Rmdir(path)
            | Self::Unlink(path)
            | Self::Symlink(path)
            | Self::Chmod(path, _)
            | Self::Chown(path, _)
            | Self::Setxattr(path, _)
            | Self::Socket(path) => vec![path],
        }
    }
}

/// Does `change`.
pub(crate) fn apply(fs: &Arc<dyn DynFileSystem>, change: &Change) -> Result<()> {
    on(fs, |w| apply_to(w, change))
}

/// Does `change` as the client of `w`.
pub(crate) fn apply_to(w: &World<'_>, change: &Change) -> Result<()> {
    let kept = |w: &World<'_>, path: &str, flags: OpenFlags, data: &[u8]| {
        let fd = w.create(path, flags, 0o640)?;
        let written = w.write_all(fd, 0, data);
        w.close(fd)?;
        written
    };
    let wo = OpenFlags::WRITE_ONLY;
    match change {
        Change::Write(path, fill) => kept(w, path, wo, &[*fill; 10]),
        Change::Append(path, fill) => kept(w, path, wo.with_append(), &[*fill; 3]),
        Change::CutOpen(path) => kept(w, path, wo.with_truncate(), b"cut"),
        Change::Truncate(path, size) => w.truncate(path, *size),
        Change::Mkdir(path) => w.mkdir(path, 0o750),
        Change::Rmdir(path) => w.rmdir(path),
        Change::Unlink(path) => w.unlink(path),
        Change::Rename(from, to, flags) => w.rename2(from, to, *flags),
        Change::Link(from, to) => w.link(from, to),
        Change::Symlink(path) => w.symlink("nowhere", path),
        Change::Chmod(path, mode) => w.chmod(path, *mode),
        Change::Chown(path, uid) => w.chown(path, Some(*uid), None),
        Change::Setxattr(path, value) => {
            w.setxattr(path, XATTR.as_bytes(), &[*value], XattrMode::Set)
        }
        Change::Socket(path) => w.mknod(path, FileType::Socket.mode_bits() | 0o600, 0),
    }
}

/// Whether a change that two filesystems answered came to the same. Where several errors apply,
/// which one comes first is a filesystem's own affair.
pub(crate) fn agree(a: Result<()>, b: Result<()>) -> bool {
    let class = |answer: Result<()>| match answer {
        Err(Errno::EINVAL | Errno::ENOTEMPTY | Errno::EEXIST) => Err(Errno::EEXIST),
        // A kernel meets a symlink or a socket before the filesystem is asked.
        Err(Errno::ELOOP | Errno::ESTALE | Errno::ENXIO) => Err(Errno::EEXIST),
        Err(Errno::EISDIR | Errno::ENOTDIR | Errno::ENOENT) => Err(Errno::ENOENT),
        other => other,
    };
    class(a) == class(b)
}

/// Random numbers that are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.0 >> 33) as usize % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// One of few paths, so that changes meet.
    pub(crate) fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let names: Vec<&str> = (0..depth).map(|_| self.pick(&["a", "b", "c"])).collect();
        names.join("/")
    }

    pub(crate) fn change(&mut self) -> Change {
        let fill = b'0' + self.below(10) as u8;
        let (path, other) = (self.path(), self.path());
        match self.below(20) {
            0 => Change::Write(path, fill),
            1 => Change::Append(path, fill),
            2 => Change::CutOpen(path),
            3 => Change::Truncate(path, self.below(20) as u64),
            4..=6 => Change::Mkdir(path),
            7 | 8 => Change::Rmdir(path),
            9 | 10 => Change::Unlink(path),
            11..=13 => Change::Rename(path, other, RenameFlags::empty()),
            14 => Change::Rename(path, other, RenameFlags::EXCHANGE),
            15 => Change::Link(path, other),
            16 => Change::Symlink(path),
            17 => Change::Chmod(path, 0o600 + self.below(64) as u32),
            18 => Change::Chown(path, self.below(9) as u32),
            19 if self.below(3) == 0 => Change::Socket(path),
            _ => Change::Setxattr(path, fill),
        }
    }
}
