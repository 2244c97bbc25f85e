//! Removing names.

use stratafs_core::{Context, Errno, Name, NodeId, Result};

use crate::MemFs;
use crate::charge::entry_cost;

impl MemFs {
    pub(crate) fn remove_name(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<()> {
        let dir = self.node(parent)?;
        let hash = self.hash(name);
        let now = self.now();
        let node = {
            let mut dir_inode = dir.write_dir();
            let entries = dir_inode.live_dir_mut()?;
            if entries.get(hash, &name).ok_or(Errno::ENOENT)?.is_dir() {
                return Err(Errno::EISDIR);
            }
            let node = entries.remove(hash, &name).ok_or(Errno::ENOENT)?;
            dir_inode.modified(now);
            let mut inode = node.write();
            inode.nlink -= 1;
            inode.changed(now);
            drop(inode);
            node
        };
        self.account.give_back(entry_cost(name.len()));
        self.tell_gone(cx, parent, name, NodeId(node.ino));
        self.reap(&node);
        Ok(())
    }

    /// Removes an empty directory. Every entry counts: what a whiteout hides is a layer's affair.
    pub(crate) fn remove_dir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
    ) -> Result<()> {
        let dir = self.node(parent)?;
        let hash = self.hash(name);
        let now = self.now();
        let node = {
            let mut dir_inode = dir.write_dir();
            let entries = dir_inode.live_dir_mut()?;
            let node = entries.get(hash, &name).ok_or(Errno::ENOENT)?;
            if !node.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            let node = std::sync::Arc::clone(node);
            let mut inode = node.write();
            if inode.dir()?.len() != 0 {
                return Err(Errno::ENOTEMPTY);
            }
            // From here on nothing can be made in it.
            inode.nlink = 0;
            inode.changed(now);
            drop(inode);
            let removed = entries.remove(hash, &name);
            debug_assert!(removed.is_some());
            dir_inode.nlink -= 1;
            dir_inode.modified(now);
            node
        };
        self.account.give_back(entry_cost(name.len()));
        self.tell_gone(cx, parent, name, NodeId(node.ino));
        self.reap(&node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stratafs_core::{DynFileSystem, OpenFlags};

    use super::*;
    use crate::test_util::{Fixture, ROOT, name, root};

    #[test]
    fn unlink_of_what_it_does_not_remove_is_refused() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        fx.mkdir(ROOT, "d");
        assert_eq!(fx.unlink(ROOT, "x"), Err(Errno::ENOENT));
        assert_eq!(fx.unlink(ROOT, "d"), Err(Errno::EISDIR));
        assert_eq!(fx.unlink(file, "x"), Err(Errno::ENOTDIR));
        assert_eq!(fx.rmdir(ROOT, "x"), Err(Errno::ENOENT));
        assert_eq!(fx.rmdir(ROOT, "f"), Err(Errno::ENOTDIR));
        assert_eq!(fx.rmdir(file, "x"), Err(Errno::ENOTDIR));
    }

    #[test]
    fn unlink_of_one_of_two_names_sets_ctime_and_keeps_the_other() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        fx.fs.link(&root(), file, ROOT, name("g")).unwrap();
        let now = fx.tick();
        fx.unlink(ROOT, "f").unwrap();
        let attr = fx.attr(file);
        assert_eq!((attr.nlink, attr.ctime), (1, now));
        assert_eq!(fx.attr(ROOT).mtime, now);
        assert_eq!(fx.find(ROOT, "f").unwrap_err(), Errno::ENOENT);
        assert_eq!(fx.find(ROOT, "g").unwrap().node, file);
    }

    #[test]
    fn unlinked_file_works_until_its_last_handle_is_released() {
        let fx = Fixture::new();
        let before = fx.usage();
        let file = fx.file(ROOT, "f");
        let handle = fx.open(file, OpenFlags::READ_WRITE);
        fx.unlink(ROOT, "f").unwrap();
        fx.forget(file);
        let flags = stratafs_core::WriteFlags::empty();
        assert_eq!(fx.write_by(file, handle, 0, &[3; 9000], flags), Ok(9000));
        assert_eq!(fx.read(file, 8999, 9).unwrap(), [3]);
        assert!(fx.usage().bytes > before.bytes + 9000);
        fx.close(file, handle).unwrap();
        assert_eq!(fx.usage(), before);
        assert_eq!(fx.close(file, handle), Err(Errno::EBADF));
    }

    #[test]
    fn rmdir_of_a_directory_with_any_entry_is_enotempty() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        fx.fs.mknod(&root(), dir, name("whiteout"), 0o020_000, 0).unwrap();
        assert_eq!(fx.rmdir(ROOT, "d"), Err(Errno::ENOTEMPTY));
        fx.unlink(dir, "whiteout").unwrap();
        let now = fx.tick();
        fx.rmdir(ROOT, "d").unwrap();
        assert_eq!((fx.attr(ROOT).nlink, fx.attr(ROOT).mtime), (2, now));
        assert_eq!(fx.attr(dir).nlink, 0);
        assert_eq!(fx.list(dir, 0, 9).0, [".", ".."]);
    }

    #[test]
    fn every_byte_of_a_removed_tree_is_given_back() {
        let fx = Fixture::new();
        let before = fx.usage();
        let dir = fx.mkdir(ROOT, "d");
        let names: Vec<_> = (0..500).map(|i| format!("{}-{i}", "n".repeat(i % 200))).collect();
        for text in &names {
            let file = fx.file(dir, text);
            fx.write(file, 5000, &[1; 100]).unwrap();
            fx.forget(file);
        }
        for text in &names {
            fx.unlink(dir, text).unwrap();
        }
        fx.rmdir(ROOT, "d").unwrap();
        fx.forget(dir);
        assert_eq!(fx.usage(), before);
    }
}
