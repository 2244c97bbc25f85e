//! Extended attributes.

use stratafs_core::{Context, Errno, NodeId, Result, XattrName};

use crate::RouterFs;
use crate::lookup::Place;

impl RouterFs {
    pub(crate) fn get_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        match self.place(id)? {
            Place::Real(real) if real.member.hides_xattr(name) => Err(Errno::ENODATA),
            Place::Real(real) => real.member.fs.getxattr(cx, real.node, name, value),
            Place::MadeUp(_) => Err(Errno::ENODATA),
        }
    }

    /// A name that is hidden is taken out of the list; the size that is told without a buffer counts
    /// it, so that it is enough.
    pub(crate) fn list_xattr(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        names: &mut [u8],
    ) -> Result<usize> {
        let real = match self.place(id)? {
            Place::Real(real) => real,
            Place::MadeUp(_) => return Ok(0),
        };
        let len = real.member.fs.listxattr(cx, real.node, names)?;
        if names.is_empty() || real.member.flags.is_empty() {
            return Ok(len);
        }
        let mut at = 0;
        let mut kept = 0;
        while let Some(rest) = names.get(at..len).filter(|rest| !rest.is_empty()) {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let hidden = real.member.hides(&rest[..end]);
            let next = (at + end + 1).min(len);
            if !hidden {
                names.copy_within(at..next, kept);
                kept += next - at;
            }
            at = next;
        }
        Ok(kept)
    }
}
