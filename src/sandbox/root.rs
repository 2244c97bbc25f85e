//! A root directory with what is served, each tree where it is on the host, and nothing else.
//!
//! Copies of the trees' mounts are put into an empty filesystem in memory. The directories that lead
//! to them are made, and symbolic links on the way are made anew, so that every path that led to a
//! tree still does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use stratafs_sys::tree::{self, Restrictions};
use stratafs_sys::{mount, namespace};

use super::{SandboxError, Tree};

/// The most symbolic links on the way to a tree; the kernel's limit.
const MAX_LINKS: usize = 40;

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failed {
    operation: &'static str,
    error: io::Error,
    /// Whether the root may be half changed.
    pub(super) is_fatal: bool,
}

impl From<Failed> for SandboxError {
    fn from(failed: Failed) -> Self {
        Self::failed(failed.operation, failed.error)
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed { operation, error, is_fatal: false }
}

/// Changes the root of this mount namespace, which nobody else is in; what it is then.
pub(super) fn change(trees: &[Tree]) -> Result<&'static str, Failed> {
    mount::keep_changes_here().map_err(failed("keep mounts to a namespace"))?;
    let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut plan = Plan::new(directory.clone());
    plan.add_directories(&directory);
    plan.add_all(trees).map_err(failed("find what is served"))?;
    let copies = plan.copies().map_err(failed("copy the mounts of what is served"))?;
    let (proc, is_own) = proc().map_err(failed("mount a /proc"))?;
    let is_whole = plan.is_whole();
    let root = if is_whole {
        copy_restricted(Path::new("/"), false)
    } else {
        tree::new(c"tmpfs", &[(c"size", c"1m"), (c"mode", c"0755")])
    }
    .map_err(failed("make a root directory"))?;
    let old = File::open("/").map_err(failed("open the root directory"))?;
    tree::attach(root.as_fd(), old.as_fd(), Path::new("/"))
        .map_err(failed("mount a root directory"))?;
    fill(&plan, &copies, &proc, root).map_err(|failed| Failed { is_fatal: true, ..failed })?;
    // Where it is not there it was not needed.
    let _ = env::set_current_dir(&directory);
    Ok(match (is_whole, is_own) {
        (true, _) => "a copy of the host's",
        (false, true) => "what is served",
        (false, false) => "what is served, and the host's /proc",
    })
}

fn fill(
    plan: &Plan,
    copies: &[(PathBuf, OwnedFd)],
    proc: &OwnedFd,
    root: OwnedFd,
) -> Result<(), Failed> {
    namespace::change_directory(root.as_fd()).map_err(failed("enter the root directory"))?;
    if !plan.is_whole() {
        plan.make().map_err(failed("make the directories of the root"))?;
        for (path, copy) in copies {
            tree::attach(copy.as_fd(), root.as_fd(), within(path))
                .map_err(failed("mount what is served"))?;
        }
    }
    tree::attach(proc.as_fd(), root.as_fd(), Path::new("proc")).map_err(failed("mount a /proc"))?;
    if !plan.is_whole() {
        let nothing = restrictions() | Restrictions::READ_ONLY;
        tree::restrict(root.as_fd(), nothing, false).map_err(failed("restrict the root"))?;
    }
    namespace::pivot_root_here().map_err(failed("change the root"))?;
    mount::detach(Path::new(".")).map_err(failed("let go of the old root"))?;
    env::set_current_dir("/").map_err(failed("enter the root directory"))
}

/// For every mount: nothing here is run.
fn restrictions() -> Restrictions {
    Restrictions::NO_SUID | Restrictions::NO_DEV | Restrictions::NO_EXEC
}

/// A path from the root on, relative to it.
fn within(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// A /proc that shows this process namespace and nothing of the kernel's; where a container
/// allows none, the one that is there. Whether it is the former.
fn proc() -> io::Result<(OwnedFd, bool)> {
    let own = tree::new(c"proc", &[(c"subset", c"pid")]);
    let (proc, is_own) = match own {
        Ok(proc) => (proc, true),
        Err(error) => {
            log::info!("sandbox: a /proc of its own: {error}");
            (tree::copy(Path::new("/proc"))?, false)
        }
    };
    tree::restrict(proc.as_fd(), restrictions() | Restrictions::READ_ONLY, false)?;
    Ok((proc, is_own))
}

fn copy_restricted(path: &Path, is_readonly: bool) -> io::Result<OwnedFd> {
    let copy = tree::copy(path)?;
    let readonly = if is_readonly { Restrictions::READ_ONLY } else { Restrictions::empty() };
    tree::restrict(copy.as_fd(), restrictions() | readonly, true)?;
    Ok(copy)
}

/// What the root will hold.
#[derive(Debug)]
struct Plan {
    working: PathBuf,
    directories: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// Whether each is only read.
    mounts: BTreeMap<PathBuf, bool>,
}

impl Plan {
    fn new(working: PathBuf) -> Self {
        let directories = BTreeSet::from([PathBuf::from("/proc")]);
        Self { working, directories, links: BTreeMap::new(), mounts: BTreeMap::new() }
    }

    fn add_all(&mut self, trees: &[Tree]) -> io::Result<()> {
        for tree in trees {
            let mut found = Vec::new();
            for path in &tree.directories {
                found.push(self.walk(path)?);
            }
            let mut devices = found.iter().map(|path| fs::metadata(path).map(|of| of.dev()));
            let first = devices.next().transpose()?;
            let is_one = devices.all(|device| device.ok() == first);
            let roots = match (common(&found), is_one) {
                (Some(root), true) => vec![root],
                _ => found,
            };
            for root in roots {
                self.add_directories(&root);
                let is_readonly = self.mounts.entry(root).or_insert(true);
                *is_readonly &= tree.is_readonly;
            }
        }
        self.reduce();
        Ok(())
    }

    /// Of a tree within another the other is enough.
    fn reduce(&mut self) {
        let mut kept: Option<(PathBuf, bool)> = None;
        let mut all = BTreeMap::new();
        // In their order, as paths, what is within a tree follows it.
        for (path, is_readonly) in std::mem::take(&mut self.mounts) {
            match &mut kept {
                Some((root, readonly)) if path.starts_with(&root) => *readonly &= is_readonly,
                _ => all.extend(kept.replace((path, is_readonly))),
            }
        }
        all.extend(kept);
        self.mounts = all;
    }

    fn is_whole(&self) -> bool {
        self.mounts.contains_key(Path::new("/"))
    }

    fn add_directories(&mut self, path: &Path) {
        self.directories.extend(path.ancestors().map(Path::to_path_buf));
    }

    /// Follows `path` on the host, remembers what leads to its end, and answers the directory that
    /// it leads to, or the one of the file.
    fn walk(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut at = self.working.clone();
        let mut rest: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => at = PathBuf::from("/"),
                Some(Component::ParentDir) => drop(at.pop()),
                Some(Component::Normal(name)) => {
                    let next = at.join(name);
                    let kind = fs::symlink_metadata(&next)?.file_type();
                    if kind.is_symlink() {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(io::Error::from_raw_os_error(ELOOP));
                        }
                        let target = fs::read_link(&next)?;
                        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                            rest.push_front(part);
                        }
                        self.add_directories(&at);
                        self.links.insert(next, target);
                    } else if kind.is_dir() || !rest.is_empty() {
                        at = next;
                        self.add_directories(&at);
                    }
                }
                _ => {}
            }
        }
        Ok(at)
    }

    fn copies(&self) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
        if self.is_whole() {
            return Ok(Vec::new());
        }
        let copy = |(path, is_readonly): (&PathBuf, &bool)| {
            copy_restricted(path, *is_readonly).map(|copy| (path.clone(), copy))
        };
        self.mounts.iter().map(copy).collect()
    }

    /// Makes directories and links, in the working directory for the root.
    fn make(&self) -> io::Result<()> {
        for directory in &self.directories {
            let path = within(directory);
            if !path.as_os_str().is_empty() {
                fs::create_dir(path)?;
            }
        }
        for (path, target) in &self.links {
            symlink(target, within(path))?;
        }
        Ok(())
    }
}

const ELOOP: i32 = 40;

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().map(|part| part.as_os_str().to_owned())
}

/// The longest path that all begin with.
fn common(paths: &[PathBuf]) -> Option<PathBuf> {
    let (first, others) = paths.split_first()?;
    let is_above = |root: &&Path| others.iter().all(|path| path.starts_with(root));
    first.ancestors().find(is_above).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(trees: &[Tree]) -> Plan {
        let mut plan = Plan::new(PathBuf::from("/"));
        plan.add_all(trees).unwrap();
        plan
    }

    /// A directory with `a/b`, `a/c`, a file `f`, and links `l` to `a` and `deep` to `l/b`.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::create_dir(path.join("a/c")).unwrap();
        fs::write(path.join("f"), "").unwrap();
        symlink("a", path.join("l")).unwrap();
        symlink(path.join("l/b"), path.join("deep")).unwrap();
        (directory, path)
    }

    #[test]
    fn plan_of_a_path_through_links_has_the_links_and_the_directory() {
        let (_directory, path) = place();
        let plan = plan_of(&[Tree::new([path.join("deep/../c/.")])]);
        assert_eq!(plan.mounts, BTreeMap::from([(path.join("a/c"), false)]));
        let links: Vec<_> = plan.links.into_iter().collect();
        assert_eq!(
            links,
            [(path.join("deep"), path.join("l/b")), (path.join("l"), PathBuf::from("a"))]
        );
        assert!(plan.directories.contains(&path.join("a/b")));
    }

    #[test]
    fn plan_of_a_file_has_its_directory() {
        let (_directory, path) = place();
        let plan = plan_of(&[Tree::new([path.join("f")]).readonly(true)]);
        assert_eq!(plan.mounts, BTreeMap::from([(path, true)]));
    }

    #[test]
    fn plan_of_directories_that_belong_together_has_what_they_are_in() {
        let (_directory, path) = place();
        let plan = plan_of(&[Tree::new([path.join("a/b"), path.join("a/c")])]);
        assert_eq!(plan.mounts, BTreeMap::from([(path.join("a"), false)]));
    }

    #[test]
    fn plan_of_a_tree_within_another_has_the_other_and_is_readonly_if_both_are() {
        let (_directory, path) = place();
        for (outer, inner, both) in [(true, true, true), (true, false, false), (false, true, false)]
        {
            let plan = plan_of(&[
                Tree::new([path.join("a/b")]).readonly(inner),
                Tree::new([path.join("l")]).readonly(outer),
            ]);
            assert_eq!(plan.mounts, BTreeMap::from([(path.join("a"), both)]));
        }
    }

    #[test]
    fn plan_of_a_circle_of_links_is_eloop() {
        let (_directory, path) = place();
        symlink("round", path.join("round")).unwrap();
        let error = Plan::new(PathBuf::from("/")).add_all(&[Tree::new([path.join("round")])]);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(ELOOP));
    }
}
