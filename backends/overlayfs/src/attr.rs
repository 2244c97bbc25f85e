//! Attributes.

use std::sync::Arc;

use stratafs_core::{
    Attr, Context, Errno, FileType, HandleId, NodeId, Result, SetAttr, StatFs, TimedAttr,
};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::links::Linked;
use crate::node::Node;

impl OverlayFs {
    /// What the client sees of the attributes `attr` of the topmost part of `node`.
    pub(crate) fn shown(&self, node: &Arc<Node>, mut attr: Attr) -> Attr {
        attr.ino = node.ino();
        let place = self.current(node).place();
        if let Linked::Index { more, .. } = place.linked {
            let names = (i64::from(attr.nlink) + more).clamp(0, i64::from(u32::MAX));
            attr.nlink = u32::try_from(names).unwrap_or(attr.nlink);
        }
        if !node.is_dir()
            && place.lacks_data()
            && let Ok(data) = place.data().and_then(|data| data.attr())
        {
            attr.blocks = data.blocks;
        }
        if place.removed {
            attr.nlink = 0;
        } else if node.is_dir() && place.is_merged() {
            // The sum of the parts would take a listing of each: 1 says "not counted".
            attr.nlink = 1;
        }
        attr
    }

    pub(crate) fn get_attr(&self, id: NodeId) -> Result<TimedAttr> {
        let node = self.table.get(id)?;
        let attr = node.top()?.attr()?;
        Ok(TimedAttr::new(self.shown(&node, attr), self.cache.attr_timeout))
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
        let data = set.size.map_or(Data::Hole, Data::First);
        let upper = self.copy_up(&node, data)?;
        let mut set = *set;
        set.handle = self.upper_handle(&node, set.handle)?;
        let attr = upper.fs().setattr(cx, upper.id(), &set)?.attr;
        self.tell_attr(cx, &node);
        Ok(TimedAttr::new(self.shown(&node, attr), self.cache.attr_timeout))
    }

    /// The handle of the writable layer behind a client's, for an ftruncate(2) or fchmod(2).
    fn upper_handle(&self, node: &Node, handle: Option<HandleId>) -> Result<Option<HandleId>> {
        let Some(handle) = handle else { return Ok(None) };
        let Ok(file) = self.files.get(handle) else { return Ok(None) };
        if !std::ptr::eq(&*file.node, node) {
            return Err(Errno::EBADF);
        }
        let real = self.real_file(&file)?;
        Ok(real.at.is_upper().then(|| real.handle.handle()))
    }

    pub(crate) fn stat_fs(&self, cx: &Context<'_>) -> Result<StatFs> {
        let root = self.table.get(NodeId::ROOT)?;
        let top = root.top()?;
        top.fs().statfs(cx, top.id())
    }

    pub(crate) fn sync_fs(&self, cx: &Context<'_>) -> Result<()> {
        match &self.upper {
            Some(upper) if !self.options.volatile => upper.root.fs().syncfs(cx, upper.root.id()),
            _ => Ok(()),
        }
    }
}
