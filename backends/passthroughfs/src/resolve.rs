//! From a node to a descriptor of its object, and to no other's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use stratafs_core::{Errno, Name, NodeId, Result};
use stratafs_sys::stat::{self, Stat};
use stratafs_sys::{handle, openat};

use crate::PassthroughFs;
use crate::node::{Identity, Node, Place};

/// How often a node's names are tried again when they changed meanwhile.
const ATTEMPTS: usize = 3;

/// How many directories above a node are gone through. Deeper trees work; only the way from a node
/// to an ancestor that is pinned is bounded, against names that lead in a circle since the host
/// moved them.
const MAX_DEPTH: usize = 65_536;

impl PassthroughFs {
    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE`: there is none.
    pub(crate) fn node(&self, id: NodeId) -> Result<Arc<Node>> {
        self.table.get(id).ok_or(Errno::ESTALE)
    }

    /// The directory node `id`.
    pub(crate) fn dir_node(&self, id: NodeId) -> Result<Arc<Node>> {
        let node = self.node(id)?;
        if node.is_dir() { Ok(node) } else { Err(Errno::ENOTDIR) }
    }

    /// Runs `call`, which makes a descriptor. Where none is left, pins are given up and it is run
    /// again; a name never seems to be absent for that.
    pub(crate) fn with_room<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> Result<T> {
        let mut wanted = 8;
        loop {
            let error = match call() {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {}
                Some(libc::EINTR) => continue,
                _ => return Err(error.into()),
            }
            if wanted > 4096 || self.pins.evict(&self.table, wanted) == 0 {
                return Err(Errno::ENFILE);
            }
            wanted *= 4;
        }
    }

    /// A descriptor of the object of `node`: O_PATH, or a file that a handle has open.
    ///
    /// # Errors
    /// * `ESTALE`: no known name leads to it any more.
    /// * `ENFILE`: no descriptor is left.
    pub(crate) fn pin(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = node.pinned() {
            return Ok(fd);
        }
        let mut outcome = Err(Errno::ESTALE);
        for _ in 0..ATTEMPTS {
            let places = node.places();
            for place in &places {
                outcome = self.pin_dir(&place.parent).and_then(|dir| self.step(node, place, &dir));
                match outcome {
                    Err(Errno::ESTALE) => {}
                    _ => return outcome,
                }
            }
            // A rename may have come between: then it is pinned, or has another name.
            if let Some(fd) = node.pinned() {
                return Ok(fd);
            }
            let now = node.places();
            let same =
                |(a, b): (&Place, &Place)| Arc::ptr_eq(&a.parent, &b.parent) && a.name == b.name;
            if now.len() == places.len() && now.iter().zip(&places).all(same) {
                break;
            }
        }
        outcome
    }

    /// [`pin`](Self::pin) of a directory, from the nearest ancestor that is pinned; without
    /// recursion, for a tree may be deeper than a stack.
    pub(crate) fn pin_dir(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        let mut above: Vec<(Arc<Node>, Place)> = Vec::new();
        let mut at = Arc::clone(node);
        let mut fd = loop {
            if let Some(fd) = at.pinned() {
                break fd;
            }
            let place = at.places().pop().ok_or(Errno::ESTALE)?;
            if above.len() >= MAX_DEPTH {
                return Err(Errno::ESTALE);
            }
            let parent = Arc::clone(&place.parent);
            above.push((at, place));
            at = parent;
        };
        while let Some((node, place)) = above.pop() {
            fd = self.step(&node, &place, &fd)?;
        }
        Ok(fd)
    }

    /// Opens `place`, whose directory is `dir`, and makes sure that `node` is there.
    fn step(&self, node: &Arc<Node>, place: &Place, dir: &OwnedFd) -> Result<Arc<OwnedFd>> {
        let fd = self.open_same(node, dir, place.name.as_name())?;
        self.pins.keep(&self.table, node, &fd);
        Ok(fd)
    }

    /// Opens `name` in `dir`, if `node` is there.
    fn open_same(&self, node: &Arc<Node>, dir: &OwnedFd, name: Name<'_>) -> Result<Arc<OwnedFd>> {
        let fd = match self.with_room(|| openat::pin_child(dir.as_fd(), name)) {
            Ok(fd) => Arc::new(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Err(Errno::ESTALE),
            Err(errno) => return Err(errno),
        };
        let stat = stat::of(fd.as_fd())?;
        if self.identity(&stat, &fd) == node.identity() { Ok(fd) } else { Err(Errno::ESTALE) }
    }

    /// Pins `node`, to which `name` in `dir` leads, so that it stays usable without a name, for as
    /// long as something needs it.
    ///
    /// # Errors
    /// `ESTALE`: the name leads to another object. `ENFILE`: the budget is full of nodes without a
    /// name.
    pub(crate) fn pin_fast(&self, node: &Arc<Node>, dir: &OwnedFd, name: Name<'_>) -> Result<()> {
        let fd = match node.pinned() {
            Some(fd) => fd,
            None => self.open_same(node, dir, name)?,
        };
        if self.pins.keep(&self.table, node, &fd) { Ok(()) } else { Err(Errno::ENFILE) }
    }

    /// The identity of the object that `fd` holds and `stat` describes.
    pub(crate) fn identity(&self, stat: &Stat, fd: &OwnedFd) -> Identity {
        Identity::of(stat).unwrap_or_else(|| {
            let digest = handle::of(fd.as_fd()).map_or(0, |handle| {
                handle.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                })
            });
            Identity::new(stat, digest)
        })
    }

    /// The attributes of the object of `node`, with one system call where it is pinned or its
    /// directory is.
    ///
    /// # Errors
    /// As [`pin`](Self::pin).
    pub(crate) fn stat(&self, node: &Arc<Node>) -> Result<Stat> {
        if let Some(fd) = node.pinned() {
            return Ok(stat::of(fd.as_fd())?);
        }
        if let Some((parent, name)) = node.last_place()
            && let Some(dir) = parent.pinned()
            && let Ok(stat) = stat::of_child(dir.as_fd(), name.as_name()?)
            && Identity::of(&stat) == Some(node.identity())
        {
            return Ok(stat);
        }
        let fd = self.pin(node)?;
        Ok(stat::of(fd.as_fd())?)
    }
}
