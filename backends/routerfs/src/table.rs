//! The mount table, while it is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratafs_core::{Behaviours, Context, DynFileSystem, Errno, NameBuf, NodeId};

use crate::builder::LOCKS;
use crate::ids::{FIRST, INDICES, ROOT};
use crate::member::Member;
use crate::point::{Covered, Point};
use crate::{MountFlags, RouterFs, path};

/// A mount in the table; see [`RouterFs::mounts`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Where it is, unusual bytes escaped.
    pub path: String,
    /// What kind of filesystem it is.
    pub kind: &'static str,
    /// How it is mounted.
    pub flags: MountFlags,
}

/// Why the table was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A place that is none.
    #[error(
        "{path:?} is no place in the tree (EINVAL): it must begin with / and have no . or .. in it"
    )]
    NoPlace {
        /// As it was given.
        path: PathBuf,
    },
    /// The place is a mount already, or the root, which stays what it was built with.
    #[error("mounting at {path} (EBUSY): something is mounted there; unmount it first")]
    Taken {
        /// The place.
        path: String,
    },
    /// Nothing is mounted there.
    #[error("unmounting {path} (EINVAL): nothing is mounted there")]
    NotMounted {
        /// The place.
        path: String,
    },
    /// It can't be unmounted.
    #[error("unmounting {path} (EBUSY): {why}")]
    Busy {
        /// The place.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// More filesystems than ids can tell apart.
    #[error("mounting at {path} (ENOSPC): there are as many mounts as there can be; unmount one")]
    TooMany {
        /// The place.
        path: String,
    },
    /// It is not what the router's clients were promised.
    #[error(
        "mounting a filesystem of the kind {kind} at {path} (EINVAL): {what}, which clients were \
         told before; name its features to the builder by expecting(…)"
    )]
    Unexpected {
        /// The place.
        path: String,
        /// The kind of filesystem.
        kind: &'static str,
        /// What differs.
        what: String,
    },
    /// The filesystem answered an error.
    #[error("mounting at {path}: {errno}")]
    Member {
        /// The place.
        path: String,
        /// What it answered.
        errno: Errno,
    },
}

/// Promises that a client was given for the whole tree, and acts upon.
const PROMISED: Behaviours = Behaviours::NO_OPEN
    .union(Behaviours::NO_OPENDIR)
    .union(Behaviours::WRITEBACK)
    .union(Behaviours::KILLPRIV_V2)
    .union(Behaviours::POSIX_ACL)
    .union(Behaviours::DONT_MASK)
    .union(Behaviours::PARALLEL_DIROPS)
    .union(Behaviours::CACHE_SYMLINKS)
    .union(Behaviours::ALLOW_IDMAP)
    .union(Behaviours::ATOMIC_O_TRUNC)
    .union(Behaviours::EXCLUSIVE)
    .union(Behaviours::PERSISTENT_IDS)
    .union(Behaviours::READ_ONLY);

impl RouterFs {
    /// What is mounted, in the order of the tree.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        fn walk(point: &Arc<Point>, names: &mut Vec<NameBuf>, all: &mut Vec<Mount>) {
            if let Some(member) = point.mount() {
                let kind = member.given.features().kind;
                all.push(Mount { path: path::show(&*names), kind, flags: member.flags });
            }
            let mut children = point.children();
            children.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (name, child) in children {
                names.push(name);
                walk(&child, names, all);
                names.pop();
            }
        }
        let mut all = Vec::new();
        walk(&self.root, &mut Vec::new(), &mut all);
        all
    }

    /// Mounts `fs` at `at`, over whatever the tree has there, while it is served. Mounts below stay
    /// where they are.
    ///
    /// # Errors
    /// [`MountError`] says why not; then nothing changed.
    ///
    /// # Concurrency
    /// Another thread sees all of it or nothing.
    pub fn mount(
        &self,
        at: impl AsRef<Path>,
        fs: Arc<dyn DynFileSystem>,
        flags: MountFlags,
    ) -> Result<(), MountError> {
        let names = place(at.as_ref())?;
        let path = || path::show(&names);
        self.check_expected(&fs, flags).map_err(|what| MountError::Unexpected {
            path: path(),
            kind: fs.features().kind,
            what,
        })?;
        match fs.getattr(&Context::internal(), NodeId::ROOT, None) {
            Ok(root) if root.attr.is_dir() => {}
            Ok(_) => return Err(MountError::Member { path: path(), errno: Errno::ENOTDIR }),
            Err(errno) => return Err(MountError::Member { path: path(), errno }),
        }
        self.introduce(&fs).map_err(|errno| MountError::Member { path: path(), errno })?;
        let changes = self.changes.lock();
        if names.is_empty() || self.find(&names).is_some_and(|point| point.mount().is_some()) {
            return Err(MountError::Taken { path: path() });
        }
        let Some(index) = self.free_slot() else {
            return Err(MountError::TooMany { path: path() });
        };
        let (member, points) = self.enter_at(index, &names, &fs, flags);
        drop(changes);
        self.attach_all(&member);
        self.settle(&points, points.len());
        Ok(())
    }

    /// Detaches what is mounted at `at`, while it is served: the name leads to what was there before,
    /// what is open goes on, and the last client to forget it lets go of it.
    ///
    /// # Errors
    /// [`MountError`] says why not; then nothing changed.
    pub fn unmount(&self, at: impl AsRef<Path>) -> Result<(), MountError> {
        let names = place(at.as_ref())?;
        let path = || path::show(&names);
        let busy = |why| MountError::Busy { path: path(), why };
        let changes = self.changes.lock();
        let point = self.find(&names);
        let mounted = point.and_then(|point| point.mount().map(|member| (point, member)));
        let Some((point, member)) = mounted else {
            return Err(MountError::NotMounted { path: path() });
        };
        if names.is_empty() {
            return Err(busy("the root stays for as long as the router does"));
        }
        if !point.is_leaf() {
            return Err(busy("something is mounted below it; unmount that first"));
        }
        let points = self.chain(&names);
        member.detach();
        let gone = point.set_mount(None);
        let pruned = prune(&points);
        drop(changes);
        self.let_go(&member);
        drop((gone, member));
        pruned.iter().for_each(|point| drop(point.set_real(None)));
        self.settle(&points, points.len() - pruned.len());
        Ok(())
    }

    /// Enters what the builder was given. It is checked, and nobody is served.
    pub(crate) fn enter_mount(
        &self,
        names: &[NameBuf],
        fs: &Arc<dyn DynFileSystem>,
        flags: MountFlags,
    ) {
        let index = if names.is_empty() { Some(ROOT) } else { self.free_slot() };
        // The builder counted them.
        let Some(index) = index else { return };
        let (_, points) = self.enter_at(index, names, fs, flags);
        self.settle(&points, points.len());
    }

    fn enter_at(
        &self,
        index: usize,
        names: &[NameBuf],
        fs: &Arc<dyn DynFileSystem>,
        flags: MountFlags,
    ) -> (Arc<Member>, Vec<Arc<Point>>) {
        let mut points = vec![Arc::clone(&self.root)];
        let mut at = Arc::clone(&self.root);
        for name in names {
            at = at.child_or_new(name, || self.points.fetch_add(1, Ordering::Relaxed));
            points.push(Arc::clone(&at));
        }
        let member = Arc::new(Member::new(index, Arc::clone(fs), flags, &at));
        if let Some(slot) = self.slots.get(index) {
            *slot.write() = Some(Arc::clone(&member));
        }
        let none = at.set_mount(Some(Arc::clone(&member)));
        debug_assert!(none.is_none(), "a mount was looked for before");
        (member, points)
    }

    fn free_slot(&self) -> Option<usize> {
        (FIRST..INDICES)
            .find(|index| self.slots.get(*index).is_some_and(|slot| slot.read().is_none()))
    }

    fn find(&self, names: &[NameBuf]) -> Option<Arc<Point>> {
        let start = Arc::clone(&self.root);
        names.iter().try_fold(start, |point, name| point.child(name.as_name()))
    }

    /// The points on the way to `names`, the root first.
    fn chain(&self, names: &[NameBuf]) -> Vec<Arc<Point>> {
        let mut points = vec![Arc::clone(&self.root)];
        for name in names {
            match points.last().and_then(|point| point.child(name.as_name())) {
                Some(child) => points.push(child),
                None => break,
            }
        }
        points
    }

    /// Finds out anew what the points on the way to a changed one are, of which `left` are left, and
    /// what those below are; and tells clients.
    fn settle(&self, points: &[Arc<Point>], left: usize) {
        let left = points.get(..left).unwrap_or_default();
        left.iter().for_each(|point| self.settle_one(point));
        if let Some(changed) = left.last() {
            self.settle_below(changed);
        }
        for point in points {
            let Some((parent, name)) = point.parent() else { continue };
            let id = match parent.view() {
                Some(real) => self.ids.known(real.member.index, real.node),
                None => Some(self.made_up_id(&parent)),
            };
            if let Some(id) = id {
                self.tell_entry(id, name.as_name());
            }
        }
    }

    fn settle_one(&self, point: &Arc<Point>) {
        let mounted: Option<Covered> = if point.mount().is_some() {
            // What it covers is not looked at while it is covered.
            point.set_real(None)
        } else {
            match self.resolve(&Context::internal(), point) {
                Ok(Some((pin, entry))) => pin.member.fs.forget(entry.node, 1),
                Ok(None) => {}
                // A lookup of it meets the error again.
                Err(errno) => log::debug!("router: a directory on the way to a mount: {errno}"),
            }
            None
        };
        drop(mounted);
    }

    fn settle_below(&self, point: &Arc<Point>) {
        for (_, child) in point.children() {
            if child.mount().is_none() {
                self.settle_one(&child);
                self.settle_below(&child);
            }
        }
    }

    /// Whether what clients were told holds for `fs` too; otherwise what does not.
    fn check_expected(&self, fs: &Arc<dyn DynFileSystem>, flags: MountFlags) -> Result<(), String> {
        let (own, mut its) = (self.own_features(), fs.features());
        if flags.contains(MountFlags::READ_ONLY) {
            its.behaviours |= Behaviours::READ_ONLY;
        }
        let lacking = (own.behaviours & PROMISED) - its.behaviours;
        if !lacking.is_empty() {
            return Err(format!("it does not promise {lacking:?}"));
        }
        let more = its.needs - own.needs;
        if !more.is_empty() {
            return Err(format!("it needs {more:?}"));
        }
        let locks = (own.needs & LOCKS) - its.needs;
        if !locks.is_empty() {
            return Err(format!("it does not keep {locks:?}"));
        }
        Ok(())
    }
}

fn place(path: &Path) -> Result<Vec<NameBuf>, MountError> {
    path::parse(path).ok_or_else(|| MountError::NoPlace { path: path.to_owned() })
}

/// Takes points out that are no mounts and lead to none, from the last of `points` up. They come back
/// to be dropped when no lock is held.
fn prune(points: &[Arc<Point>]) -> Vec<Arc<Point>> {
    let mut pruned = Vec::new();
    for point in points.iter().rev() {
        if !point.is_leaf() || point.mount().is_some() {
            break;
        }
        let Some((parent, name)) = point.parent() else { break };
        pruned.extend(parent.remove(name));
    }
    pruned
}
