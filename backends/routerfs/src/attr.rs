//! Attributes, of objects and of mounts.

use stratafs_core::{Context, Errno, HandleId, Needs, NodeId, Result, SetAttr, StatFs, TimedAttr};

use crate::RouterFs;
use crate::lookup::Place;

impl RouterFs {
    pub(crate) fn get_attr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: Option<HandleId>,
    ) -> Result<TimedAttr> {
        let real = match self.place(id)? {
            Place::Real(real) => real,
            Place::MadeUp(point) => {
                return Ok(TimedAttr::new(self.made_up_attr(&point), self.cache.attr_timeout));
            }
        };
        let handle = handle.map(|handle| self.ids.handle(real.member.index, handle)).transpose()?;
        let mut found = real.member.fs.getattr(cx, real.node, handle)?;
        self.shown(&real.member, real.node, &mut found.attr);
        Ok(found)
    }

    pub(crate) fn set_attr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        set: &SetAttr,
    ) -> Result<TimedAttr> {
        let real = self.real(id, Errno::EROFS)?;
        let mut set = *set;
        let own = |handle| self.ids.handle(real.member.index, handle);
        set.handle = set.handle.map(own).transpose()?;
        let mut found = real.member.fs.setattr(cx, real.node, &set)?;
        self.shown(&real.member, real.node, &mut found.attr);
        Ok(found)
    }

    pub(crate) fn check_access(&self, cx: &Context<'_>, id: NodeId, mask: u32) -> Result<()> {
        match self.place(id)? {
            Place::Real(real) if real.member.needs.contains(Needs::ACCESS) => {
                real.member.fs.access(cx, real.node, mask)
            }
            Place::Real(_) | Place::MadeUp(_) => Ok(()),
        }
    }

    /// Of the mount that the node is in; of a directory that is made up, of the mount around it.
    pub(crate) fn stat_fs(&self, cx: &Context<'_>, id: NodeId) -> Result<StatFs> {
        let mut point = match self.place(id)? {
            Place::Real(real) => return real.member.fs.statfs(cx, real.node),
            Place::MadeUp(point) => point,
        };
        loop {
            if let Some(real) = point.view() {
                return real.member.fs.statfs(cx, real.node);
            }
            point = match point.parent() {
                Some((parent, _)) => parent,
                None => return Ok(StatFs::default()),
            };
        }
    }

    /// Of the root: everything. Otherwise the mount that the node is in, which the client shows as a
    /// filesystem of its own.
    pub(crate) fn sync_fs(&self, cx: &Context<'_>, id: NodeId) -> Result<()> {
        if id != NodeId::ROOT {
            return match self.place(id)? {
                Place::Real(real) if real.member.needs.contains(Needs::SYNCFS) => {
                    real.member.fs.syncfs(cx, real.node)
                }
                Place::Real(_) | Place::MadeUp(_) => Ok(()),
            };
        }
        let mut outcome = Ok(());
        for member in self.members() {
            if member.needs.contains(Needs::SYNCFS) {
                outcome = outcome.and(member.fs.syncfs(cx, NodeId::ROOT));
            }
        }
        outcome
    }
}
