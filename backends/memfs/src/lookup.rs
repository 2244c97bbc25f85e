//! Finding nodes, and forgetting them.

use std::sync::Arc;

use stratafs_core::{Entry, Lookup, Name, NodeId, Result};

use crate::MemFs;
use crate::node::{Inode, Node};

impl MemFs {
    pub(crate) fn find(&self, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let dir = self.node(parent)?;
        let found = {
            let inode = dir.read_dir();
            inode.dir()?.get(self.hash(name), &name).map(|node| {
                // Under the directory's lock, while the name still keeps the node.
                node.raise();
                Arc::clone(node)
            })
        };
        Ok(match found {
            Some(node) => Lookup::Found(self.entry(&node, &node.read())),
            None => Lookup::Absent(self.cache.negative_timeout),
        })
    }

    /// What a client is told of `node`, whose locked inode is `inode`. The lookup it carries was
    /// counted before.
    pub(crate) fn entry(&self, node: &Node, inode: &Inode) -> Entry {
        Entry::new(NodeId(node.ino), node.attr(inode))
            .with_timeouts(self.cache.entry_timeout, self.cache.attr_timeout)
    }

    pub(crate) fn let_go(&self, id: NodeId, count: u64) {
        if id == NodeId::ROOT {
            return;
        }
        if let Ok(node) = self.node(id)
            && node.lower(count)
        {
            self.reap(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stratafs_core::{DynFileSystem, Errno};

    use super::*;
    use crate::test_util::{Fixture, ROOT, name, root};

    #[test]
    fn lookup_of_an_absent_name_may_be_kept_for_the_negative_timeout() {
        let fx = Fixture::with(|b| b.negative_timeout(Duration::from_secs(7)));
        let answer = fx.fs.lookup(&root(), ROOT, name("nothing")).unwrap();
        assert!(matches!(answer, Lookup::Absent(timeout) if timeout == Duration::from_secs(7)));
    }

    #[test]
    fn lookup_in_a_file_is_enotdir_and_in_an_unknown_node_estale() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        assert_eq!(fx.find(file, "x").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(fx.find(NodeId(999), "x").unwrap_err(), Errno::ESTALE);
        assert_eq!(fx.find(NodeId(0), "x").unwrap_err(), Errno::ESTALE);
    }

    #[test]
    fn lookup_raises_and_forget_lowers_the_count() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        assert_eq!(fx.find(ROOT, "f").unwrap().node, file);
        assert_eq!(fx.usage().lookups, 2);
        fx.fs.forget(file, 1);
        assert_eq!(fx.usage().lookups, 1);
        fx.fs.batch_forget(&[(file, 5), (ROOT, u64::MAX), (NodeId(77), 1)]);
        assert_eq!(fx.usage().lookups, 0);
        assert_eq!(fx.find(ROOT, "f").unwrap().node, file, "a name keeps its node");
    }

    #[test]
    fn forget_of_an_unlinked_node_gives_everything_back() {
        let fx = Fixture::new();
        let before = fx.usage();
        let file = fx.file(ROOT, "f");
        fx.write(file, 0, &[1; 100_000]).unwrap();
        fx.unlink(ROOT, "f").unwrap();
        assert_eq!(fx.read(file, 99_999, 10).unwrap(), [1]);
        assert_eq!(fx.attr(file).nlink, 0);
        fx.forget(file);
        assert_eq!(fx.usage(), before);
        assert_eq!(fx.fs.getattr(&root(), file, None).unwrap_err(), Errno::ESTALE);
        fx.forget(file);
        assert_eq!(fx.usage(), before);
    }

    #[test]
    fn inode_numbers_are_never_used_again() {
        let fx = Fixture::new();
        let first = fx.file(ROOT, "f");
        fx.unlink(ROOT, "f").unwrap();
        fx.forget(first);
        assert!(fx.file(ROOT, "f") > first);
    }
}
