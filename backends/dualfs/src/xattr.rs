//! Extended attributes.
//!
//! The records of this filesystem are not seen by the client. What the client keeps under such a name,
//! as another of this kind that is nested in this one does, a side holds under an escaped one.

use std::sync::Arc;

use stratafs_core::{Context, Errno, NodeId, OpKind, Result, XattrMode, XattrName};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::node::Node;
use crate::policy::Request;
use crate::record::Shown;
use crate::side::Real;

impl DualFs {
    /// Calls `with` with the name that a side has for what the client calls `name`.
    fn as_kept<T>(
        &self,
        name: XattrName<'_>,
        with: impl FnOnce(XattrName<'_>) -> Result<T>,
    ) -> Result<T> {
        match self.names.escape(name.as_bytes()) {
            None => with(name),
            // Longer than a name may be: it is not there, and can't be made.
            Some(escaped) => with(XattrName::new(&escaped).map_err(|_| Errno::EOPNOTSUPP)?),
        }
    }

    fn xattrs_of(&self, op: OpKind, node: &Arc<Node>) -> Result<Real> {
        self.to_read(Request::new(op, false), node)
    }

    pub(crate) fn get_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        let top = self.xattrs_of(OpKind::Getxattr, &self.table.get(id)?)?;
        self.as_kept(name, |name| top.fs().getxattr(cx, top.id(), name, value))
    }

    pub(crate) fn set_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
        clear_setgid: bool,
    ) -> Result<()> {
        let node = self.table.get(id)?;
        self.as_kept(name, |name| {
            if mode != XattrMode::Set && node.written().is_none() {
                // A refusal should not cost a copy.
                let top = node.top()?;
                let there = top.fs().getxattr(cx, top.id(), name, &mut []).is_ok();
                match mode {
                    XattrMode::Create if there => return Err(Errno::EEXIST),
                    XattrMode::Replace if !there => return Err(Errno::ENODATA),
                    _ => {}
                }
            }
            let request = Request::new(OpKind::Setxattr, true);
            let real = self.to_write(request, &node, Data::All)?;
            real.fs().setxattr(cx, real.id(), name, value, mode, clear_setgid)
        })?;
        self.tell_attr(cx, &node);
        Ok(())
    }

    pub(crate) fn remove_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
    ) -> Result<()> {
        let node = self.table.get(id)?;
        self.as_kept(name, |name| {
            if node.written().is_none() {
                let top = node.top()?;
                top.fs().getxattr(cx, top.id(), name, &mut [])?;
            }
            let request = Request::new(OpKind::Removexattr, true);
            let real = self.to_write(request, &node, Data::All)?;
            real.fs().removexattr(cx, real.id(), name)
        })?;
        self.tell_attr(cx, &node);
        Ok(())
    }

    pub(crate) fn list_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        names: &mut [u8],
    ) -> Result<usize> {
        let top = self.xattrs_of(OpKind::Listxattr, &self.table.get(id)?)?;
        let mut shown = Vec::new();
        for name in stratafs_transfer::list(cx, &**top.fs(), top.id())? {
            let name = match self.names.show(&name) {
                Shown::AsIs => name,
                Shown::As(name) => name,
                Shown::Hidden => continue,
            };
            shown.extend(name);
            shown.push(0);
        }
        if names.is_empty() {
            return Ok(shown.len());
        }
        let place = names.get_mut(..shown.len()).ok_or(Errno::ERANGE)?;
        place.copy_from_slice(&shown);
        Ok(shown.len())
    }
}
