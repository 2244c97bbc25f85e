//! Renames.

use std::sync::Arc;

use stratafs_core::{Context, Errno, Name, Needs, NodeId, RenameFlags, Result};

use crate::RouterFs;
use crate::lookup::Place;

impl RouterFs {
    pub(crate) fn rename_name(
        &self,
        cx: &Context<'_>,
        (parent, name): (NodeId, Name<'_>),
        (new_parent, new_name): (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = match (self.place(parent)?, self.place(new_parent)?) {
            (Place::Real(from), Place::Real(to)) => (from, to),
            (Place::MadeUp(point), Place::MadeUp(to)) => {
                let busy = point.has(name.as_bytes()) || to.has(new_name.as_bytes());
                return Err(if busy { Errno::EBUSY } else { Errno::ENOENT });
            }
            _ => return Err(Errno::EXDEV),
        };
        if !Arc::ptr_eq(&from.member, &to.member) {
            return Err(Errno::EXDEV);
        }
        if self.point_in(&to, new_name).is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if self.point_in(&from, name).is_some() || self.point_in(&to, new_name).is_some() {
            return Err(Errno::EBUSY);
        }
        if !flags.is_empty() && !from.member.needs.contains(Needs::RENAME2) {
            // It does not look at flags, so it would do something else.
            return Err(Errno::EINVAL);
        }
        from.member.fs.rename(cx, from.node, name, to.node, new_name, flags)
    }
}
