//! Merging the listings of both sides.
//!
//! A directory that was listed keeps the merged listing, and changes of its names change that too, so
//! a second listing asks no side. It is given back with the node; a large one with the last open handle.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use stratafs_core::{FileType, Name, NameBuf, OpKind, Result};

use crate::DualFs;
use crate::lookup::View;
use crate::node::Node;
use crate::policy::Request;

/// The cookie of `.`.
pub(crate) const DOT: u64 = 1;
/// The cookie of `..`.
pub(crate) const DOTDOT: u64 = 2;

/// A merged listing, in the order of its cookies.
#[derive(Default)]
pub(crate) struct Index {
    entries: BTreeMap<u64, Listed>,
    cookies: HashMap<NameBuf, u64>,
    last: u64,
}

/// An entry of a merged listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: NameBuf,
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
}

impl Index {
    /// Adds an entry, or changes what the one of that name leads to: its cookie stays.
    pub(crate) fn add(&mut self, entry: Listed) {
        let next = self.last.max(DOTDOT) + 1;
        let cookie = *self.cookies.entry(entry.name.clone()).or_insert(next);
        self.last = self.last.max(cookie);
        self.entries.insert(cookie, entry);
    }

    pub(crate) fn remove(&mut self, name: Name<'_>) {
        if let Some(cookie) = self.cookies.remove(name.as_bytes()) {
            self.entries.remove(&cookie);
        }
    }

    /// The object under `name` has another number now.
    pub(crate) fn renumber(&mut self, name: Name<'_>, ino: u64) {
        let cookie = self.cookies.get(name.as_bytes());
        if let Some(entry) = cookie.and_then(|cookie| self.entries.get_mut(cookie)) {
            entry.ino = ino;
        }
    }

    /// Up to `most` entries after `cookie`, with their cookies.
    pub(crate) fn after(&self, cookie: u64, most: usize) -> Vec<(u64, Listed)> {
        let Some(first) = cookie.checked_add(1) else { return Vec::new() };
        let entries = self.entries.range(first..).take(most);
        entries.map(|(cookie, entry)| (*cookie, entry.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl DualFs {
    /// Calls `each` with every entry that shows in the directory, until it answers false.
    pub(crate) fn visible(
        &self,
        dir: &View,
        mut each: impl FnMut(Listed) -> Result<bool>,
    ) -> Result<()> {
        if dir.removed {
            return Ok(());
        }
        let look = self.plan(&Request::new(OpKind::Readdir, false)).look;
        let mut seen: HashSet<NameBuf> = HashSet::new();
        for real in dir.written.iter().chain(&dir.other).filter(|real| look.includes(real.side)) {
            for item in real.list()? {
                let name = item.name.as_name();
                if self.reserves(dir, name) || !seen.insert(item.name.clone()) {
                    continue;
                }
                let (ino, kind) = match item.kind {
                    Some(kind) if !(dir.careful && real.side == self.writes()) => {
                        (self.inos.map(real.side, item.ino), kind)
                    }
                    _ => {
                        // What a lookup finds there, so that both say the same.
                        let Some(object) = self.resolve(dir, name)?.object else { continue };
                        (self.ino_of(&object, dir.careful)?, object.top()?.attr.kind())
                    }
                };
                if !each(Listed { name: item.name, ino, kind })? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether nothing shows in the directory.
    pub(crate) fn is_empty(&self, dir: &View) -> Result<bool> {
        let mut empty = true;
        self.visible(dir, |_| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// The merged listing of the directory. Its lock of names is held, shared at least.
    pub(crate) fn merge(&self, dir: &Arc<Node>) -> Result<Index> {
        let mut index = Index::default();
        self.visible(&dir.view(), |entry| {
            index.add(entry);
            Ok(true)
        })?;
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, ino: u64) -> Listed {
        let name = Name::new(name.as_bytes()).unwrap().to_owned();
        Listed { name, ino, kind: FileType::Regular }
    }

    #[test]
    fn index_keeps_the_cookie_of_a_name_that_leads_elsewhere_and_gives_none_twice() {
        let mut index = Index::default();
        for (name, ino) in [("a", 1), ("b", 2), ("c", 3), ("b", 4)] {
            index.add(listed(name, ino));
        }
        let all = index.after(DOTDOT, 9);
        let seen: Vec<_> = all.iter().map(|(cookie, entry)| (*cookie, entry.ino)).collect();
        assert_eq!(seen, [(3, 1), (4, 4), (5, 3)]);
        index.remove(listed("c", 0).name.as_name());
        index.add(listed("c", 5));
        assert_eq!(index.after(4, 9)[0].0, 6, "a new entry comes after what was seen");
        assert!(index.after(u64::MAX, 9).is_empty());
    }
}
