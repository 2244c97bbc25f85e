//! Removing names.

use stratafs_core::{Context, Errno, Name, NodeId, Result};

use crate::RouterFs;
use crate::lookup::Place;

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    File,
    Dir,
}

impl RouterFs {
    pub(crate) fn remove(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        what: Removed,
    ) -> Result<()> {
        // A mount, and what is on the way to one, is a directory in use.
        let busy = if what == Removed::Dir { Errno::EBUSY } else { Errno::EISDIR };
        let real = match self.place(parent)? {
            Place::Real(real) if self.point_in(&real, name).is_some() => return Err(busy),
            Place::Real(real) => real,
            Place::MadeUp(point) if point.has(name.as_bytes()) => return Err(busy),
            Place::MadeUp(_) => return Err(Errno::ENOENT),
        };
        match what {
            Removed::File => real.member.fs.unlink(cx, real.node, name),
            Removed::Dir => real.member.fs.rmdir(cx, real.node, name),
        }
    }
}
