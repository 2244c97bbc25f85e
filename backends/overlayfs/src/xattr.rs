//! Extended attributes.
//!
//! The overlay's own records are not seen by the client. What the client keeps under such a name, as
//! an overlay that is nested in this one does, a layer holds under an escaped one.

use stratafs_core::{Context, Errno, NodeId, Result, XattrMode, XattrName};
use stratafs_transfer::Data;

use crate::OverlayFs;
use crate::format::Shown;

impl OverlayFs {
    /// Calls `with` with the name that a layer has for what the client calls `name`.
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

    pub(crate) fn get_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        let top = self.table.get(id)?.top()?;
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
            if mode != XattrMode::Set && node.upper().is_none() {
                // A refusal should not cost a copy.
                let top = node.top()?;
                let there = top.fs().getxattr(cx, top.id(), name, &mut []).is_ok();
                match mode {
                    XattrMode::Create if there => return Err(Errno::EEXIST),
                    XattrMode::Replace if !there => return Err(Errno::ENODATA),
                    _ => {}
                }
            }
            let upper = self.copy_up(&node, Data::Hole)?;
            upper.fs().setxattr(cx, upper.id(), name, value, mode, clear_setgid)
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
            if node.upper().is_none() {
                self.writable()?;
                let top = node.top()?;
                top.fs().getxattr(cx, top.id(), name, &mut [])?;
            }
            let upper = self.copy_up(&node, Data::Hole)?;
            upper.fs().removexattr(cx, upper.id(), name)
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
        let top = self.table.get(id)?.top()?;
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
