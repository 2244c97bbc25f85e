//! Extended attributes, within ext4's limits.
//!
//! `user.`, `trusted.` and `security.` are kept; who may touch which is the kernel's affair. POSIX
//! ACLs (`system.`) are not: an ACL that is stored but not in step with the mode would lie.

use stratafs_core::attr::S_ISGID;
use stratafs_core::{Context, Errno, FileType, NodeId, Result, XattrMode, XattrName};

use crate::MemFs;
use crate::charge::xattr_cost;
use crate::node::{Inode, copy_of};

/// The longest value, in bytes: XATTR_SIZE_MAX of linux/limits.h.
const VALUE_MAX: usize = 65_536;

/// The longest list of names, in bytes, each with its NUL: XATTR_LIST_MAX of linux/limits.h. More
/// could be set, but the kernel could list none of them.
const LIST_MAX: usize = 65_536;

/// File capabilities, which a write or a change of owner clears.
const CAPABILITY: &[u8] = b"security.capability";

struct Xattr {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

/// The attributes of an inode, ascending by name.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "most inodes have none, and pay one word for it")]
pub(crate) struct Xattrs(Option<Box<Vec<Xattr>>>);

impl Xattrs {
    fn list(&self) -> &[Xattr] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.list().binary_search_by(|xattr| (*xattr.name).cmp(name))
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).ok().map(|at| &*self.list()[at].value)
    }

    fn list_len(&self) -> usize {
        self.list().iter().map(|xattr| xattr.name.len() + 1).sum()
    }

    /// Sets `name`; the difference of cost was reserved. Nothing changes on an error.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let value = copy_of(value)?;
        match self.find(name) {
            Ok(at) => {
                if let Some(list) = &mut self.0 {
                    list[at].value = value;
                }
            }
            Err(at) => {
                let name = copy_of(name)?;
                let list = self.0.get_or_insert_default();
                if list.len() == list.capacity() {
                    let more = list.len() / 2 + 1;
                    list.try_reserve_exact(more).map_err(|_| Errno::ENOMEM)?;
                }
                list.insert(at, Xattr { name, value });
            }
        }
        Ok(())
    }

    /// Removes `name`, and gives what it cost, if it was there.
    fn remove(&mut self, name: &[u8]) -> Option<u64> {
        let at = self.find(name).ok()?;
        let list = self.0.as_deref_mut()?;
        let xattr = list.remove(at);
        if list.is_empty() {
            self.0 = None;
        } else if list.len() * 2 < list.capacity() {
            list.shrink_to(list.len() + list.len() / 2);
        }
        Some(xattr_cost(xattr.name.len(), xattr.value.len()))
    }

    /// What all of them cost.
    pub(crate) fn charged(&self) -> u64 {
        self.list().iter().map(|x| xattr_cost(x.name.len(), x.value.len())).sum()
    }
}

/// Whether attributes of this name are kept at all.
fn check_name(name: XattrName<'_>) -> Result<()> {
    let namespace = name.namespace();
    if !matches!(namespace, b"user" | b"trusted" | b"security") {
        return Err(Errno::EOPNOTSUPP);
    }
    if name.as_bytes().len() == namespace.len() + 1 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Whether `name` may be on an object of `kind`: `user.` belongs to files and directories only, for
/// elsewhere the permission bits say nothing about who may store data.
fn allowed_on(name: XattrName<'_>, kind: FileType) -> bool {
    name.namespace() != b"user" || matches!(kind, FileType::Regular | FileType::Directory)
}

/// Copies `from` into `to`, unless `to` is empty and only asks for the length.
fn answer(from: &[u8], to: &mut [u8]) -> Result<usize> {
    if !to.is_empty() {
        to.get_mut(..from.len()).ok_or(Errno::ERANGE)?.copy_from_slice(from);
    }
    Ok(from.len())
}

impl MemFs {
    pub(crate) fn xattr_get(
        &self,
        node: NodeId,
        name: XattrName<'_>,
        value: &mut [u8],
    ) -> Result<usize> {
        let node = self.node(node)?;
        check_name(name)?;
        let inode = node.read();
        answer(inode.xattrs.get(name.as_bytes()).ok_or(Errno::ENODATA)?, value)
    }

    pub(crate) fn xattr_set(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
        clear_setgid: bool,
    ) -> Result<()> {
        let node = self.node(id)?;
        check_name(name)?;
        if !allowed_on(name, node.kind) {
            return Err(Errno::EPERM);
        }
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let now = self.now();
        let mut inode = node.write();
        if inode.dead {
            return Err(Errno::ESTALE);
        }
        let old = inode.xattrs.get(name.as_bytes()).map(<[u8]>::len);
        match (mode, old) {
            (XattrMode::Create, Some(_)) => return Err(Errno::EEXIST),
            (XattrMode::Replace, None) => return Err(Errno::ENODATA),
            _ => {}
        }
        let name = name.as_bytes();
        if old.is_none() && inode.xattrs.list_len() + name.len() + 1 > LIST_MAX {
            return Err(Errno::ENOSPC);
        }
        let new_cost = xattr_cost(name.len(), value.len());
        let old_cost = old.map_or(0, |len| xattr_cost(name.len(), len));
        let hold = self.account.hold(new_cost.saturating_sub(old_cost), 0)?;
        inode.xattrs.set(name, value)?;
        hold.keep();
        self.account.give_back(old_cost.saturating_sub(new_cost));
        if clear_setgid {
            inode.mode &= !S_ISGID;
        }
        inode.changed(now);
        drop(inode);
        self.tell_attr(cx, id);
        Ok(())
    }

    pub(crate) fn xattr_list(&self, node: NodeId, names: &mut [u8]) -> Result<usize> {
        let node = self.node(node)?;
        let inode = node.read();
        let len = inode.xattrs.list_len();
        if names.is_empty() {
            return Ok(len);
        }
        let mut rest = names.get_mut(..len).ok_or(Errno::ERANGE)?;
        for xattr in inode.xattrs.list() {
            let (place, after) = rest.split_at_mut(xattr.name.len() + 1);
            place[..xattr.name.len()].copy_from_slice(&xattr.name);
            place[xattr.name.len()] = 0;
            rest = after;
        }
        Ok(len)
    }

    pub(crate) fn xattr_remove(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        name: XattrName<'_>,
    ) -> Result<()> {
        let node = self.node(id)?;
        check_name(name)?;
        if !allowed_on(name, node.kind) {
            return Err(Errno::EPERM);
        }
        let now = self.now();
        let mut inode = node.write();
        let cost = inode.xattrs.remove(name.as_bytes()).ok_or(Errno::ENODATA)?;
        self.account.give_back(cost);
        inode.changed(now);
        drop(inode);
        self.tell_attr(cx, id);
        Ok(())
    }

    /// The label that `cx` wants on a new object, as attributes, and their cost.
    pub(crate) fn label(&self, cx: &Context<'_>) -> Result<(Xattrs, u64)> {
        let mut xattrs = Xattrs::default();
        if let Some(label) = cx.security {
            check_name(label.name)?;
            if label.value.len() > VALUE_MAX {
                return Err(Errno::E2BIG);
            }
            xattrs.set(label.name.as_bytes(), label.value)?;
        }
        let cost = xattrs.charged();
        Ok((xattrs, cost))
    }

    /// Clears file capabilities.
    pub(crate) fn clear_capability(&self, inode: &mut Inode) {
        if let Some(cost) = inode.xattrs.remove(CAPABILITY) {
            self.account.give_back(cost);
        }
    }

    /// Clears setuid, setgid and file capabilities.
    pub(crate) fn kill_priv(&self, inode: &mut Inode) {
        inode.clear_suid_sgid();
        self.clear_capability(inode);
    }
}

#[cfg(test)]
mod tests {
    use stratafs_core::DynFileSystem;

    use super::*;
    use crate::test_util::{Fixture, ROOT, name, root};

    fn xname(text: &str) -> XattrName<'_> {
        XattrName::new(text.as_bytes()).unwrap()
    }

    fn set(fx: &Fixture, node: NodeId, text: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        fx.fs.setxattr(&root(), node, xname(text), value, mode, false)
    }

    fn get(fx: &Fixture, node: NodeId, text: &str) -> Result<Vec<u8>> {
        let mut value = vec![0; 70_000];
        let len = fx.fs.getxattr(&root(), node, xname(text), &mut value)?;
        value.truncate(len);
        Ok(value)
    }

    fn remove(fx: &Fixture, node: NodeId, text: &str) -> Result<()> {
        fx.fs.removexattr(&root(), node, xname(text))
    }

    #[test]
    fn setxattr_makes_and_replaces_as_the_mode_says() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let before = fx.usage();
        assert_eq!(set(&fx, file, "user.a", b"1", XattrMode::Replace), Err(Errno::ENODATA));
        assert_eq!(set(&fx, file, "user.a", b"1", XattrMode::Create), Ok(()));
        assert_eq!(set(&fx, file, "user.a", b"2", XattrMode::Create), Err(Errno::EEXIST));
        assert_eq!(get(&fx, file, "user.a").unwrap(), b"1");
        let now = fx.tick();
        assert_eq!(set(&fx, file, "user.a", b"", XattrMode::Replace), Ok(()));
        assert_eq!(get(&fx, file, "user.a").unwrap(), b"");
        assert_eq!(fx.attr(file).ctime, now);
        assert_eq!(remove(&fx, file, "user.a"), Ok(()));
        assert_eq!(remove(&fx, file, "user.a"), Err(Errno::ENODATA));
        assert_eq!(get(&fx, file, "user.a"), Err(Errno::ENODATA));
        assert_eq!(fx.usage(), before);
    }

    #[test]
    fn xattr_namespaces_are_those_that_are_kept() {
        let fx = Fixture::new();
        for (text, answer) in [
            ("user.x", Ok(())),
            ("trusted.overlay.opaque", Ok(())),
            ("security.capability", Ok(())),
            ("system.posix_acl_access", Err(Errno::EOPNOTSUPP)),
            ("other.x", Err(Errno::EOPNOTSUPP)),
            ("user", Err(Errno::EOPNOTSUPP)),
            ("user.", Err(Errno::EINVAL)),
        ] {
            assert_eq!(set(&fx, ROOT, text, b"v", XattrMode::Set), answer, "{text}");
        }
        assert_eq!(get(&fx, ROOT, "system.posix_acl_access"), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn user_xattrs_belong_to_files_and_directories_only() {
        let fx = Fixture::new();
        let link = fx.fs.symlink(&root(), ROOT, name("l"), b"t").unwrap().node;
        let fifo = fx.fs.mknod(&root(), ROOT, name("p"), 0o010_644, 0).unwrap().node;
        for node in [link, fifo] {
            assert_eq!(set(&fx, node, "user.x", b"v", XattrMode::Set), Err(Errno::EPERM));
            assert_eq!(remove(&fx, node, "user.x"), Err(Errno::EPERM));
            assert_eq!(get(&fx, node, "user.x"), Err(Errno::ENODATA));
            assert_eq!(set(&fx, node, "trusted.x", b"v", XattrMode::Set), Ok(()));
        }
    }

    #[test]
    fn xattr_sizes_are_asked_for_and_checked() {
        let fx = Fixture::new();
        set(&fx, ROOT, "user.bb", b"value", XattrMode::Set).unwrap();
        set(&fx, ROOT, "user.a", b"v", XattrMode::Set).unwrap();
        let read = |value: &mut [u8]| fx.fs.getxattr(&root(), ROOT, xname("user.bb"), value);
        assert_eq!(read(&mut []), Ok(5));
        assert_eq!(read(&mut [0; 4]), Err(Errno::ERANGE));
        assert_eq!(read(&mut [0; 5]), Ok(5));
        let list = |names: &mut [u8]| fx.fs.listxattr(&root(), ROOT, names);
        assert_eq!(list(&mut []), Ok(15));
        assert_eq!(list(&mut [0; 14]), Err(Errno::ERANGE));
        let mut names = [9; 16];
        assert_eq!(list(&mut names), Ok(15));
        assert_eq!(&names, b"user.a\0user.bb\0\x09");
    }

    #[test]
    fn xattr_limits_are_e2big_and_enospc() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let value = vec![1; VALUE_MAX + 1];
        assert_eq!(set(&fx, file, "user.x", &value, XattrMode::Set), Err(Errno::E2BIG));
        assert_eq!(set(&fx, file, "user.x", &value[1..], XattrMode::Set), Ok(()));
        assert_eq!(get(&fx, file, "user.x").unwrap().len(), VALUE_MAX);
        let many = |i: usize| format!("user.{i:0250}");
        let full = (0..).find(|i| set(&fx, ROOT, &many(*i), b"", XattrMode::Set).is_err());
        assert_eq!(full, Some(LIST_MAX / 256));
        assert_eq!(set(&fx, ROOT, &many(1), b"again", XattrMode::Set), Ok(()));
        assert_eq!(set(&fx, ROOT, "user.x", b"", XattrMode::Set), Err(Errno::ENOSPC));
    }

    #[test]
    fn xattrs_are_charged_and_given_back_with_their_file() {
        let fx = Fixture::with(|b| b.capacity(bytesize::ByteSize(200_000)));
        let before = fx.usage();
        let file = fx.file(ROOT, "f");
        let value = vec![1; 50_000];
        let mut i = 0;
        while set(&fx, file, &format!("user.{i}"), &value, XattrMode::Set).is_ok() {
            i += 1;
        }
        assert_eq!(i, 3);
        assert!(fx.usage().bytes > before.bytes + 150_000);
        assert_eq!(set(&fx, file, "user.0", b"short", XattrMode::Set), Ok(()));
        assert_eq!(set(&fx, file, "user.9", &value, XattrMode::Set), Ok(()));
        fx.unlink(ROOT, "f").unwrap();
        fx.forget(file);
        assert_eq!(fx.usage(), before);
    }

    #[test]
    fn setxattr_with_clear_setgid_clears_it() {
        let fx = Fixture::new();
        let file = fx.fs.mknod(&root(), ROOT, name("f"), 0o102_755, 0).unwrap().node;
        let security = xname("security.x");
        fx.fs.setxattr(&root(), file, security, b"", XattrMode::Set, true).unwrap();
        assert_eq!(fx.attr(file).mode, 0o100_755);
    }
}
