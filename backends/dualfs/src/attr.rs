//! Attributes.

use stratafs_core::{
    Attr, Context, Errno, FileType, HandleId, NodeId, OpKind, Result, SetAttr, StatFs, TimedAttr,
};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::node::Node;
use crate::policy::{Look, Request};

impl DualFs {
    /// What the client sees of the attributes `attr` of the object of `node`.
    pub(crate) fn shown(&self, node: &Node, mut attr: Attr) -> Attr {
        attr.ino = node.ino();
        let (removed, merged) = node.with_place(|place| (place.removed, place.is_merged()));
        if removed {
            attr.nlink = 0;
        } else if node.is_dir() {
            if merged || node.id == NodeId::ROOT {
                // The sum of the parts would take a listing of each, and the staging directory does
                // not show: 1 says "not counted".
                attr.nlink = 1;
            }
        } else if let Some(links) = *node.links().lock() {
            let all = i64::from(attr.nlink).saturating_add(links.more);
            attr.nlink = u32::try_from(all).unwrap_or(0);
        }
        attr
    }

    pub(crate) fn get_attr(&self, id: NodeId) -> Result<TimedAttr> {
        let node = self.table.get(id)?;
        let real = self.to_read(Request::new(OpKind::Getattr, false), &node)?;
        Ok(TimedAttr::new(self.shown(&node, real.attr()?), self.cache.attr_timeout))
    }

    pub(crate) fn set_attr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        set: &SetAttr,
    ) -> Result<TimedAttr> {
        let node = self.table.get(id)?;
        if set.size.is_some() && node.kind != FileType::Regular {
            return Err(if node.is_dir() { Errno::EISDIR } else { Errno::EINVAL });
        }
        let mut nothing = SetAttr::new();
        (nothing.handle, nothing.lock_owner) = (set.handle, set.lock_owner);
        if *set == nothing {
            return self.get_attr(id);
        }
        let data = set.size.map_or(Data::All, Data::First);
        let request = Request::new(OpKind::Setattr, true);
        let mut first = *set;
        first.handle = None;
        let (real, now) = self.to_write_set(request, &node, data, Some((cx, &first)))?;
        let attr = match now {
            Some(attr) => attr,
            None => {
                let mut set = *set;
                set.handle = self.written_handle(&node, set.handle)?;
                real.fs().setattr(cx, real.id(), &set)?.attr
            }
        };
        self.tell_attr(cx, &node);
        Ok(TimedAttr::new(self.shown(&node, attr), self.cache.attr_timeout))
    }

    /// The handle on the written side behind a client's, for an ftruncate(2) or fchmod(2).
    fn written_handle(&self, node: &Node, handle: Option<HandleId>) -> Result<Option<HandleId>> {
        let Some(handle) = handle else { return Ok(None) };
        let Ok(file) = self.files.get(handle) else { return Ok(None) };
        if !std::ptr::eq(&*file.node, node) {
            return Err(Errno::EBADF);
        }
        let real = self.real_file(&file)?;
        Ok((real.at.side == self.writes()).then(|| real.handle.handle()))
    }

    /// Of one side, or the room of the written one beside what both hold.
    pub(crate) fn stat_fs(&self, cx: &Context<'_>) -> Result<StatFs> {
        let of = |side| self.side(side).statfs(cx, NodeId::ROOT);
        match self.plan(&Request::new(OpKind::Statfs, false)).look {
            Look::Only(side) => of(side),
            Look::Both(_) => {
                let (mut all, other) = (of(self.writes())?, of(self.writes().other())?);
                let used = other.blocks.saturating_sub(other.bfree);
                let bytes = used.saturating_mul(u64::from(other.frsize));
                let blocks = bytes.div_ceil(u64::from(all.frsize.max(1)));
                all.blocks = all.blocks.saturating_add(blocks);
                all.files = all.files.saturating_add(other.files.saturating_sub(other.ffree));
                Ok(all)
            }
        }
    }

    pub(crate) fn sync_fs(&self, cx: &Context<'_>) -> Result<()> {
        match self.side(self.writes()).syncfs(cx, NodeId::ROOT) {
            // It has nothing that could be lost.
            Err(Errno::EOPNOTSUPP) => Ok(()),
            done => done,
        }
    }
}
