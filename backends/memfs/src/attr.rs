//! Attributes, of objects and of the whole.

use stratafs_core::{
    Context, Errno, NodeId, Result, SetAttr, SetTime, StatFs, TimedAttr, Timestamp,
};

use crate::MemFs;
use crate::chunk::PAGE_BYTES;
use crate::extent::Freed;
use crate::node::Inode;

/// The longest file, in bytes: the largest `off_t`.
pub(crate) const MAX_FILE: u64 = i64::MAX as u64;

fn moment(time: SetTime, now: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => now,
        SetTime::At(moment) => moment,
    }
}

impl MemFs {
    pub(crate) fn attributes(&self, node: NodeId) -> Result<TimedAttr> {
        let node = self.node(node)?;
        let attr = node.attr(&node.read());
        Ok(TimedAttr::new(attr, self.cache.attr_timeout))
    }

    /// Changes attributes.
    ///
    /// Of a chmod(2) the kernel decides by itself whether setgid may stay, for it alone knows all
    /// groups of the caller (`setattr_prepare`). A change of size clears file capabilities always,
    /// setuid and setgid when `kill_priv` says that the caller may not keep them.
    pub(crate) fn set_attributes(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        set: &SetAttr,
    ) -> Result<TimedAttr> {
        let node = self.node(id)?;
        let now = self.now();
        let freed;
        let attr = {
            let mut inode = node.write();
            if inode.dead {
                return Err(Errno::ESTALE);
            }
            freed = set.size.map(|size| self.resize(&mut inode, size, now)).transpose()?;
            if set.kill_priv && !node.is_dir() {
                self.kill_priv(&mut inode);
            }
            if set.uid.is_some() || set.gid.is_some() {
                inode.uid = set.uid.unwrap_or(inode.uid);
                inode.gid = set.gid.unwrap_or(inode.gid);
                if !node.is_dir() {
                    self.kill_priv(&mut inode);
                }
            }
            if let Some(mode) = set.mode {
                inode.mode = (inode.mode & !0o7777) | (mode & 0o7777);
            }
            if let Some(atime) = set.atime {
                node.set_atime(&mut inode, moment(atime, now));
            }
            if let Some(mtime) = set.mtime {
                inode.set_mtime(moment(mtime, now));
            }
            if *set != SetAttr::new() {
                inode.changed(set.ctime.unwrap_or(now));
            }
            node.attr(&inode)
        };
        drop(freed);
        match set.size {
            Some(_) => self.tell_data(cx, id, 0, 0),
            None => self.tell_attr(cx, id),
        }
        Ok(TimedAttr::new(attr, self.cache.attr_timeout))
    }

    /// Makes a regular file `size` bytes long. What it cut off is returned, to be dropped without a
    /// lock.
    pub(crate) fn resize(&self, inode: &mut Inode, size: u64, now: Timestamp) -> Result<Freed> {
        let file = inode.file_mut()?;
        if size > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        // A cut to the size it has frees what was allocated beyond.
        let cut = size <= file.size;
        file.size = size;
        let freed = if cut { file.extents.truncate(&self.account, size) } else { Freed::default() };
        inode.modified(now);
        self.clear_capability(inode);
        Ok(freed)
    }

    pub(crate) fn statistics(&self, node: NodeId) -> Result<StatFs> {
        self.node(node)?;
        let (capacity, max_inodes) = (self.account.capacity(), self.account.max_inodes());
        let mut stat = StatFs::default();
        stat.blocks = capacity / PAGE_BYTES;
        stat.bfree = (capacity - self.account.used()) / PAGE_BYTES;
        stat.bavail = stat.bfree;
        stat.files = max_inodes;
        stat.ffree = max_inodes - self.account.inodes();
        Ok(stat)
    }
}

#[cfg(test)]
mod tests {
    use stratafs_core::{DynFileSystem, XattrMode, XattrName};

    use super::*;
    use crate::SizeExt;
    use crate::test_util::{Fixture, ROOT, START, name, root};

    fn set(fx: &Fixture, node: NodeId, change: impl FnOnce(&mut SetAttr)) -> Result<()> {
        let mut set = SetAttr::new();
        change(&mut set);
        fx.fs.setattr(&root(), node, &set).map(drop)
    }

    fn capability(fx: &Fixture, node: NodeId) -> Result<usize> {
        let capability = XattrName::new(b"security.capability").unwrap();
        fx.fs.getxattr(&root(), node, capability, &mut [])
    }

    /// A file that is setuid, setgid and has a capability.
    fn privileged(fx: &Fixture) -> NodeId {
        let node = fx.file(ROOT, "f");
        set(fx, node, |s| s.mode = Some(0o6755)).unwrap();
        let capability = XattrName::new(b"security.capability").unwrap();
        fx.fs.setxattr(&root(), node, capability, b"cap", XattrMode::Set, false).unwrap();
        node
    }

    #[test]
    fn setattr_of_the_mode_keeps_the_type() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        let now = fx.tick();
        set(&fx, dir, |s| s.mode = Some(0o107_123)).unwrap();
        let attr = fx.attr(dir);
        assert_eq!((attr.mode, attr.ctime), (0o047_123, now));
        assert_eq!(attr.mtime.sec, START, "a chmod is no change of data");
    }

    #[test]
    fn setattr_of_the_owner_clears_privileges_but_of_a_directory_does_not() {
        let fx = Fixture::new();
        let file = privileged(&fx);
        set(&fx, file, |s| s.uid = Some(5)).unwrap();
        let attr = fx.attr(file);
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o100_755, 5, 0));
        assert_eq!(capability(&fx, file), Err(Errno::ENODATA));
        set(&fx, file, |s| s.mode = Some(0o2644)).unwrap();
        set(&fx, file, |s| s.gid = Some(6)).unwrap();
        assert_eq!(fx.attr(file).mode, 0o102_644, "the group may not execute");
        let dir = fx.mkdir(ROOT, "d");
        set(&fx, dir, |s| s.mode = Some(0o6755)).unwrap();
        set(&fx, dir, |s| (s.uid, s.gid) = (Some(1), Some(1))).unwrap();
        assert_eq!(fx.attr(dir).mode, 0o046_755);
    }

    #[test]
    fn setattr_of_kill_priv_alone_clears_privileges() {
        let fx = Fixture::new();
        let file = privileged(&fx);
        let now = fx.tick();
        set(&fx, file, |s| s.kill_priv = true).unwrap();
        assert_eq!((fx.attr(file).mode, fx.attr(file).ctime), (0o100_755, now));
        assert_eq!(capability(&fx, file), Err(Errno::ENODATA));
    }

    #[test]
    fn setattr_of_the_size_clears_capabilities_and_setuid_only_when_told() {
        let fx = Fixture::new();
        let file = privileged(&fx);
        set(&fx, file, |s| s.size = Some(3)).unwrap();
        assert_eq!(fx.attr(file).mode, 0o106_755, "the caller may keep them");
        assert_eq!(capability(&fx, file), Err(Errno::ENODATA));
        set(&fx, file, |s| (s.size, s.kill_priv) = (Some(4), true)).unwrap();
        assert_eq!(fx.attr(file).mode, 0o100_755);
    }

    #[test]
    fn setattr_of_the_size_cuts_and_extends_with_zeros() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let empty = fx.usage();
        fx.write(file, 0, &[7; 10_000]).unwrap();
        set(&fx, file, |s| s.size = Some(5000)).unwrap();
        let now = fx.tick();
        set(&fx, file, |s| s.size = Some(6000)).unwrap();
        let attr = fx.attr(file);
        assert_eq!((attr.size, attr.mtime, attr.ctime), (6000, now, now));
        let data = fx.read(file, 4990, 2000).unwrap();
        assert_eq!(data, [&[7; 10][..], &[0; 1000]].concat());
        set(&fx, file, |s| s.size = Some(0)).unwrap();
        assert_eq!(fx.usage(), empty);
        assert_eq!(fx.attr(file).blocks, 0);
    }

    #[test]
    fn setattr_of_the_size_of_what_has_none_is_refused() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        let fifo = fx.fs.mknod(&root(), ROOT, name("p"), 0o010_644, 0).unwrap().node;
        let file = fx.file(ROOT, "f");
        assert_eq!(set(&fx, dir, |s| s.size = Some(0)), Err(Errno::EISDIR));
        assert_eq!(set(&fx, fifo, |s| s.size = Some(0)), Err(Errno::EINVAL));
        assert_eq!(set(&fx, file, |s| s.size = Some(1 << 63)), Err(Errno::EFBIG));
        assert_eq!(set(&fx, file, |s| s.size = Some(MAX_FILE)), Ok(()));
    }

    #[test]
    fn setattr_of_times_keeps_nanoseconds_and_years_far_off() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let (past, future) = (Timestamp::new(-5, 999_999_999), Timestamp::new(1 << 40, 1));
        let now = fx.tick();
        set(&fx, file, |s| {
            s.atime = Some(SetTime::At(past));
            s.mtime = Some(SetTime::At(future));
        })
        .unwrap();
        let attr = fx.attr(file);
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (past, future, now));
        assert_eq!(attr.btime.unwrap().sec, START);
        set(&fx, file, |s| (s.mtime, s.ctime) = (Some(SetTime::Now), Some(past))).unwrap();
        assert_eq!((fx.attr(file).mtime, fx.attr(file).ctime), (now, past));
    }

    #[test]
    fn setattr_of_nothing_changes_nothing() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let before = fx.attr(file);
        fx.tick();
        set(&fx, file, |_| ()).unwrap();
        assert_eq!(fx.attr(file), before);
    }

    #[test]
    fn statfs_shows_capacity_and_inodes() {
        let fx = Fixture::with(|b| b.capacity(1.mib()).max_inodes(100));
        let before = fx.fs.statfs(&Context::internal(), ROOT).unwrap();
        assert_eq!((before.blocks, before.files, before.ffree), (256, 100, 99));
        assert_eq!((before.frsize, before.namelen), (4096, 255));
        let file = fx.file(ROOT, "f");
        fx.write(file, 0, &[1; 100_000]).unwrap();
        let after = fx.fs.statfs(&root(), file).unwrap();
        assert_eq!(after.ffree, 98);
        assert!((24..=27).contains(&(before.bfree - after.bfree)), "{after:?}");
        assert_eq!(after.bfree, after.bavail);
    }
}
