//! Merging the listings of layers.
//!
//! A directory that was listed keeps the merged listing, and changes of its names change that too,
//! so a second listing asks no layer. It is given back with the node; a large one with the last
//! open handle.

use std::collections::{BTreeMap, HashMap, HashSet};

use stratafs_core::{FileType, Name, NameBuf, Result};

use crate::OverlayFs;
use crate::format::{OCI_PREFIX, Record};
use crate::layer::{Item, Real};
use crate::lookup::Probe;
use crate::node::Place;

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

    pub(crate) fn contains(&self, name: Name<'_>) -> bool {
        self.cookies.contains_key(name.as_bytes())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// An entry that shows, and where it was found.
pub(crate) struct Visible<'a> {
    pub(crate) item: Item,
    pub(crate) kind: FileType,
    pub(crate) from: &'a Real,
}

impl OverlayFs {
    /// Calls `each` with every entry that shows in the directory, until it answers false.
    pub(crate) fn visible(
        &self,
        dir: &Place,
        mut each: impl FnMut(Visible<'_>) -> Result<bool>,
    ) -> Result<()> {
        if dir.removed {
            return Ok(());
        }
        let mut seen: HashSet<NameBuf> = HashSet::new();
        let layers = dir.stack().count();
        for (number, from) in dir.stack().enumerate() {
            let is_last = number + 1 == layers;
            let mut hidden = Vec::new();
            for item in from.list()? {
                if let Some(name) = self.oci_hides(from, &item) {
                    hidden.extend(name);
                    continue;
                }
                if seen.contains(&item.name) {
                    continue;
                }
                let kind = match self.kind_of(from, &item)? {
                    Some(kind) => kind,
                    None => {
                        hidden.push(item.name);
                        continue;
                    }
                };
                if !is_last {
                    seen.insert(item.name.clone());
                }
                if !each(Visible { item, kind, from })? {
                    return Ok(());
                }
            }
            seen.extend(hidden);
        }
        Ok(())
    }

    /// For an entry of an OCI layer that is a mark and not an object: the name that it hides.
    fn oci_hides(&self, from: &Real, item: &Item) -> Option<Option<NameBuf>> {
        if !self.options.oci || from.is_upper() {
            return None;
        }
        let rest = item.name.as_bytes().strip_prefix(OCI_PREFIX)?;
        Some(Name::new(rest).ok().map(Name::to_owned))
    }

    /// The type of an entry; `None` of a whiteout.
    fn kind_of(&self, from: &Real, item: &Item) -> Result<Option<FileType>> {
        match item.kind {
            Some(FileType::Regular) if from.file_whiteouts => {}
            None | Some(FileType::CharDevice) => {}
            kind => return Ok(kind),
        }
        Ok(match self.probe(from, item.name.as_name())? {
            Probe::Object { attr, .. } => Some(attr.kind()),
            Probe::Absent | Probe::Whiteout => None,
        })
    }

    /// Whether nothing shows in the directory.
    pub(crate) fn is_empty(&self, dir: &Place) -> Result<bool> {
        let mut empty = true;
        self.visible(dir, |_| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// The merged listing of the directory. Its lock of names is held, shared at least.
    pub(crate) fn merge(&self, dir: &Place) -> Result<Index> {
        let mut index = Index::default();
        // Only in these directories can an object of the writable layer have come from below.
        let copied = match &dir.upper {
            Some(upper) => {
                dir.is_merged() || upper.xattr(self.names.name(Record::Impure))?.is_some()
            }
            None => false,
        };
        self.visible(dir, |Visible { item, kind, from }| {
            let mut ino = self.map_ino(from, item.ino);
            if copied && from.is_upper() {
                // One that can't be looked up is listed all the same, or nobody could list the others.
                let found = self
                    .resolve(dir, item.name.as_name())
                    .and_then(|found| found.object.map(|object| self.ino_of(&object)).transpose());
                if let Ok(Some(of_object)) = found {
                    ino = of_object;
                }
            }
            index.add(Listed { name: item.name, ino, kind });
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
