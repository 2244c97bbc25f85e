//! Listing directories.

use std::sync::Arc;

use stratafs_core::{
    Added, DirEntry, DirSink, Errno, FileType, Name, NodeId, Opened, ReadSink, Result,
};

use crate::MemFs;
use crate::entries::{DOT, DOTDOT};
use crate::node::NodeArc;
use crate::rank;

/// Entries that are collected under one hold of the lock.
const BATCH: usize = 32;

/// Bytes for their names: more than 32 usual ones, and at least one of the longest.
const NAMES: usize = 1024;

/// A collected entry, whose name is in the batch's buffer.
struct Item {
    node: Option<NodeArc>,
    ino: u64,
    kind: FileType,
    cookie: u64,
    name: (usize, usize),
}

/// Some entries, without an allocation.
struct Batch {
    items: [Option<Item>; BATCH],
    len: usize,
    names: [u8; NAMES],
    names_len: usize,
}

impl Batch {
    fn new() -> Self {
        Self { items: [const { None }; BATCH], len: 0, names: [0; NAMES], names_len: 0 }
    }

    /// Adds an entry unless it does not fit.
    fn push(&mut self, cookie: u64, name: &[u8], node: &NodeArc, plus: bool) -> bool {
        let end = self.names_len + name.len();
        let (Some(place), Some(bytes)) =
            (self.items.get_mut(self.len), self.names.get_mut(self.names_len..end))
        else {
            return false;
        };
        bytes.copy_from_slice(name);
        if plus {
            // Under the directory's lock, while the name still keeps the node.
            node.raise();
        }
        *place = Some(Item {
            node: plus.then(|| Arc::clone(node)),
            ino: node.ino,
            kind: node.kind,
            cookie,
            name: (self.names_len, end),
        });
        self.names_len = end;
        self.len += 1;
        true
    }
}

impl MemFs {
    pub(crate) fn open_dir(&self, id: NodeId) -> Result<Opened> {
        if !self.node(id)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Opened::stateless(self.cache.dir_flags()))
    }

    pub(crate) fn list(&self, id: NodeId, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.emit(id, cookie, sink, false)
    }

    pub(crate) fn list_plus(&self, id: NodeId, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.emit(id, cookie, sink, true)
    }

    /// Offers the entries after `cookie`, looked up if `plus`.
    fn emit(&self, id: NodeId, mut cookie: u64, sink: &mut dyn DirSink, plus: bool) -> Result<()> {
        let dir = self.node(id)?;
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let now = self.now();
        dir.touch(&dir.read_dir(), now);
        if cookie < DOT && sink.add(&DirEntry::dot(dir.ino, DOT), None) == Added::Full {
            return Ok(());
        }
        let parent = dir.parent();
        if cookie < DOTDOT && sink.add(&DirEntry::dotdot(parent, DOTDOT), None) == Added::Full {
            return Ok(());
        }
        loop {
            let mut batch = Batch::new();
            {
                let inode = dir.read_dir();
                for (slot, node) in inode.dir()?.after(cookie.max(DOTDOT)) {
                    if !batch.push(slot.cookie, &slot.name, node, plus) {
                        break;
                    }
                }
            }
            if batch.len == 0 {
                return Ok(());
            }
            rank::assert_none();
            let mut full = false;
            for item in batch.items.into_iter().flatten() {
                cookie = item.cookie;
                let name = &batch.names[item.name.0..item.name.1];
                let taken = !full && self.offer(sink, &item, name);
                full |= !taken;
                if !taken && item.node.is_some() {
                    self.let_go(NodeId(item.ino), 1);
                }
            }
            if full {
                return Ok(());
            }
        }
    }

    /// Offers one entry, and says whether it was taken.
    fn offer(&self, sink: &mut dyn DirSink, item: &Item, name: &[u8]) -> bool {
        if !sink.fits(name.len()) {
            return false;
        }
        let Ok(name) = Name::new(name) else { return false };
        let listed = DirEntry::new(item.ino, item.kind, name, item.cookie);
        let entry = item.node.as_ref().map(|node| self.entry(node, &node.read()));
        sink.add(&listed, entry.as_ref()) == Added::Taken
    }

    pub(crate) fn target(&self, id: NodeId, sink: &mut dyn ReadSink) -> Result<usize> {
        let node = self.node(id)?;
        let mut buf = [0; 4096];
        let now = self.now();
        let target = {
            let inode = node.read();
            let target = inode.target()?;
            node.touch(&inode, now);
            // At most 4095 bytes, by `make_symlink`.
            let copy = buf.get_mut(..target.len()).ok_or(Errno::EIO)?;
            copy.copy_from_slice(target);
            copy
        };
        rank::assert_none();
        sink.write_slice(target)
    }
}

#[cfg(test)]
mod tests {
    use stratafs_core::{
        CachePolicy, DynFileSystem, HandleId, OpenFlags, OpenedFlags, RenameFlags,
    };

    use super::*;
    use crate::test_util::{Fixture, Names, ROOT, root};

    fn fill(fx: &Fixture, dir: NodeId, names: &[String]) {
        for text in names {
            fx.file(dir, text);
        }
    }

    fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|i| format!("entry-{i:05}")).collect()
    }

    #[test]
    fn readdir_in_small_steps_lists_everything_once_and_in_order() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        let names = numbers(0..500);
        fill(&fx, dir, &names);
        for step in [1, 2, 31, 32, 33, 1000] {
            let (mut listed, mut cookie) = (Vec::new(), 0);
            loop {
                let (some, next) = fx.list(dir, cookie, step);
                if some.is_empty() {
                    break;
                }
                listed.extend(some);
                cookie = next;
            }
            assert_eq!(listed[..2], [".", ".."]);
            assert_eq!(listed[2..], names, "{step}");
        }
    }

    #[test]
    fn readdir_while_others_come_and_go_lists_what_stays_once() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        let stay = numbers(0..300);
        fill(&fx, dir, &stay);
        fill(&fx, dir, &numbers(1000..1300));
        let (mut listed, mut cookie, mut round) = (Vec::new(), 0, 0);
        loop {
            let (some, next) = fx.list(dir, cookie, 10);
            if some.is_empty() {
                break;
            }
            listed.extend(some);
            cookie = next;
            if round < 300 {
                fx.unlink(dir, &format!("entry-{:05}", 1000 + round)).unwrap();
                fx.file(dir, &format!("new-{round}"));
                fx.unlink(dir, &format!("new-{round}")).unwrap();
                let (name, other) = (&stay[round], format!("entry-{:05}", 1299));
                if round < 200 {
                    // Replaced, the name is still the one that was there.
                    fx.file(ROOT, "replacement");
                    let to = (dir, name.as_str());
                    fx.rename((ROOT, "replacement"), to, RenameFlags::empty()).unwrap();
                    fx.rename((dir, &other), to, RenameFlags::EXCHANGE).unwrap();
                }
                round += 1;
            }
        }
        for name in &stay {
            assert_eq!(listed.iter().filter(|n| *n == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn readdir_from_zero_again_sees_a_fresh_listing() {
        let fx = Fixture::new();
        fx.file(ROOT, "a");
        assert_eq!(fx.list(ROOT, 0, 9).0, [".", "..", "a"]);
        fx.file(ROOT, "b");
        fx.unlink(ROOT, "a").unwrap();
        assert_eq!(fx.list(ROOT, 0, 9).0, [".", "..", "b"]);
        assert_eq!(fx.list(ROOT, u64::MAX, 9).0, Vec::<String>::new());
    }

    #[test]
    fn readdirplus_counts_exactly_the_entries_that_were_taken() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d");
        fill(&fx, dir, &numbers(0..100));
        let lookups = fx.usage().lookups;
        let mut sink = Names { max: 42, ..Names::default() };
        fx.fs.readdirplus(&root(), dir, HandleId::NONE, 0, &mut sink).unwrap();
        assert_eq!(sink.names.len(), 42);
        assert_eq!(fx.usage().lookups, lookups + 40, "not for `.` and `..`");
        for (name, entry) in sink.names.iter().zip(&sink.entries).skip(2) {
            let entry = entry.as_ref().unwrap();
            assert_eq!(fx.find(dir, name).unwrap().node, entry.node);
            assert_eq!(entry.attr.ino, entry.node.0);
        }
    }

    #[test]
    fn readdir_takes_no_reference_and_names_the_parent() {
        let fx = Fixture::new();
        let (a, b) = (fx.mkdir(ROOT, "a"), fx.mkdir(ROOT, "b"));
        fx.rename((ROOT, "b"), (a, "b"), RenameFlags::empty()).unwrap();
        struct Inos(Vec<u64>);
        impl DirSink for Inos {
            fn fits(&self, _: usize) -> bool {
                true
            }
            fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&stratafs_core::Entry>) -> Added {
                assert!(plus.is_none());
                self.0.push(entry.ino);
                Added::Taken
            }
        }
        let lookups = fx.usage().lookups;
        let mut inos = Inos(Vec::new());
        fx.fs.readdir(&root(), b, HandleId::NONE, 0, &mut inos).unwrap();
        assert_eq!(inos.0, [b.0, a.0], "`..` is right after a rename");
        assert_eq!(fx.usage().lookups, lookups);
    }

    #[test]
    fn opendir_of_a_file_is_enotdir_and_flags_follow_the_policy() {
        let fx = Fixture::new();
        let file = fx.file(ROOT, "f");
        let open = |fx: &Fixture, node| fx.fs.opendir(&root(), node, OpenFlags::READ_ONLY);
        assert_eq!(open(&fx, file).unwrap_err(), Errno::ENOTDIR);
        let mut sink = Names { max: 9, ..Names::default() };
        let listed = fx.fs.readdir(&root(), file, HandleId::NONE, 0, &mut sink);
        assert_eq!(listed, Err(Errno::ENOTDIR));
        let cached = OpenedFlags::CACHE_DIR | OpenedFlags::KEEP_CACHE;
        assert_eq!(open(&fx, ROOT).unwrap().flags, cached);
        let fx = Fixture::with(|b| b.cache_policy(CachePolicy::Auto));
        assert_eq!(open(&fx, ROOT).unwrap().flags, OpenedFlags::empty());
    }

    #[test]
    fn readdir_of_the_longest_names_lists_them_all() {
        let fx = Fixture::new();
        let names: Vec<_> = (0..50).map(|i| format!("{i:02}{}", "x".repeat(253))).collect();
        fill(&fx, ROOT, &names);
        assert_eq!(fx.list(ROOT, 0, 99).0[2..], names);
    }
}
