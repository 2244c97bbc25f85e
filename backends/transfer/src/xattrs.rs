//! Extended attributes.

use std::sync::Arc;

use stratafs_core::{
    Context, Credentials, DynFileSystem, Errno, NodeId, Result, XattrMode, XattrName,
};

use crate::object::Source;

/// The longest value and the longest list: XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
const MAX: usize = 65_536;

/// How often a value that grows meanwhile is asked for again.
const TRIES: usize = 8;

/// Copies the attributes of `source` that `keep` names to `node` of `fs`.
pub(crate) fn copy(
    source: Source<'_>,
    fs: &Arc<dyn DynFileSystem>,
    node: NodeId,
    keep: &dyn Fn(XattrName<'_>) -> bool,
) -> Result<()> {
    // As a client: a filesystem's own records, of owners say, are no part of the object.
    let cx = &Context::new(0, Some(Credentials::new(0, 0)));
    for name in list(cx, &**source.fs, source.node)? {
        let Ok(name) = XattrName::new(&name) else { continue };
        if !keep(name) {
            continue;
        }
        let Some(value) = value(cx, &**source.fs, source.node, name)? else { continue };
        match fs.setxattr(cx, node, name, &value, XattrMode::Set, false) {
            Ok(()) => {}
            Err(errno @ (Errno::EOPNOTSUPP | Errno::EPERM)) => left_out(name, errno),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn left_out(name: XattrName<'_>, errno: Errno) {
    log::warn!("transfer: the copy goes without {name:?}: {errno}");
}

/// The names of all attributes of `node`, without their NULs; none where it keeps none.
///
/// # Errors
/// What listxattr answers, but `EOPNOTSUPP`.
pub fn list(cx: &Context<'_>, fs: &dyn DynFileSystem, node: NodeId) -> Result<Vec<Vec<u8>>> {
    let names = match grown(|buf| fs.listxattr(cx, node, buf)) {
        Ok(names) => names,
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let parts = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(parts.map(<[u8]>::to_vec).collect())
}

/// The value of the attribute `name` of `node`; `None` where it has none of that name.
///
/// # Errors
/// What getxattr answers, but `ENODATA` and `EOPNOTSUPP`.
pub fn value(
    cx: &Context<'_>,
    fs: &dyn DynFileSystem,
    node: NodeId,
    name: XattrName<'_>,
) -> Result<Option<Vec<u8>>> {
    match grown(|buf| fs.getxattr(cx, node, name, buf)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What `get` gives, whose size is not known before. Most values are short, so the first try is
/// with a buffer and not for the size.
fn grown(get: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buf = vec![0; 256];
    for _ in 0..TRIES {
        match get(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            Err(Errno::ERANGE) => {
                let len = get(&mut [])?;
                buf.resize(len.clamp(1, MAX), 0);
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ERANGE)
}
