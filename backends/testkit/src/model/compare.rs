//! Comparing the model's tree with the filesystem's.

use std::collections::BTreeMap;

use stratafs_core::{Attr, FileType};

use super::tree::{Id, Kind};
use super::{Machine, xattr};
use crate::client::Fd;
use crate::{Failure, Verdict, equal};

/// Which inode number stands for which object of the model.
type Seen = BTreeMap<Id, u64>;

impl Machine<'_> {
    /// Compares everything that can be seen.
    pub(super) fn compare(&self) -> Verdict {
        let mut seen = Seen::new();
        self.compare_dir(self.tree.root(), b"", &mut seen)?;
        for (slot, fd) in self.slots.iter().enumerate() {
            match (self.tree.opened(slot), fd) {
                (Some(id), Some(fd)) => self.compare_open(id, *fd, &mut seen)?,
                (None, None) => {}
                (id, fd) => {
                    let what = format!("slot {slot} holds {fd:?} where {id:?} is right");
                    return Err(Failure::nowhere(what));
                }
            }
        }
        let mut inos: Vec<_> = seen.values().collect();
        inos.sort_unstable();
        inos.dedup();
        equal(inos.len(), seen.len(), "how many inode numbers all objects have")
    }

    fn compare_dir(&self, dir: Id, path: &[u8], seen: &mut Seen) -> Verdict {
        let Kind::Dir(entries) = &self.tree.object(dir).kind else { return Ok(()) };
        let at = |what: &str| format!("{what} of \"{}\"", path.escape_ascii());
        let mut listed = BTreeMap::new();
        for entry in self.world.list(path)? {
            let twice = listed.insert(entry.name.clone(), entry).is_some();
            equal(twice, false, &at("a name listed twice"))?;
        }
        let dots = [listed.remove(&b"."[..]).is_some(), listed.remove(&b".."[..]).is_some()];
        equal(dots, [true, true], &at("dot and dotdot"))?;
        let names: Vec<_> = listed.keys().collect();
        equal(names, entries.keys().collect::<Vec<_>>(), &at("the names"))?;
        for (name, id) in entries {
            let child = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
            let attr = self.world.stat(&child)?;
            let what = |what: &str| format!("{what} of \"{}\"", child.escape_ascii());
            let entry = &listed[name];
            let kind = entry.kind.unwrap_or(attr.kind());
            equal((entry.ino, kind), (attr.ino, attr.kind()), &what("ino and type listed"))?;
            self.compare_attr(*id, &attr, &what, seen)?;
            self.compare_content(*id, &child, &what)?;
            self.compare_dir(*id, &child, seen)?;
        }
        Ok(())
    }

    fn compare_attr(
        &self,
        id: Id,
        attr: &Attr,
        what: &dyn Fn(&str) -> String,
        seen: &mut Seen,
    ) -> Verdict {
        let object = self.tree.object(id);
        let first = *seen.entry(id).or_insert(attr.ino);
        equal(attr.ino, first, &what("the inode number"))?;
        let (kind, size, nlink) = match &object.kind {
            Kind::File(data) => (FileType::Regular, data.len() as u64, object.links),
            Kind::Symlink(target) => (FileType::Symlink, target.len() as u64, object.links),
            Kind::Dir(entries) => {
                let dirs = entries
                    .values()
                    .filter(|id| matches!(self.tree.object(**id).kind, Kind::Dir(_)))
                    .count();
                // 1 says that subdirectories are not counted; sizes of directories mean nothing.
                let counted = 2 + u32::try_from(dirs).unwrap_or(u32::MAX);
                let nlink = if attr.nlink == 1 { 1 } else { counted };
                (FileType::Directory, attr.size, nlink)
            }
        };
        equal(attr.kind(), kind, &what("the type"))?;
        equal(attr.size, size, &what("the size"))?;
        equal(attr.nlink, nlink, &what("nlink"))?;
        equal(attr.mode & 0o7777, object.mode, &what("the mode"))?;
        let owner = self.owner;
        let owner = (object.uid.unwrap_or(owner.0), object.gid.unwrap_or(owner.1));
        equal((attr.uid, attr.gid), owner, &what("the owner"))?;
        if let Some(mtime) = object.mtime {
            equal(attr.mtime, mtime, &what("mtime"))?;
        }
        Ok(())
    }

    fn compare_content(&self, id: Id, path: &[u8], what: &dyn Fn(&str) -> String) -> Verdict {
        let object = self.tree.object(id);
        match &object.kind {
            Kind::File(data) => same_data(&self.world.read(path)?, data, what)?,
            Kind::Symlink(target) => {
                return equal(&self.world.readlink(path)?, target, &what("the target"));
            }
            Kind::Dir(_) => {}
        }
        for name in 0..3 {
            let value = self.world.getxattr(path, &xattr(name)).ok();
            equal(value.as_ref(), object.xattrs.get(&name), &what("an xattr"))?;
        }
        Ok(())
    }

    fn compare_open(&self, id: Id, fd: Fd, seen: &mut Seen) -> Verdict {
        let what = |what: &str| format!("{what} of {fd:?}");
        self.compare_attr(id, &self.world.fstat(fd)?, &what, seen)?;
        let (Kind::File(data), Ok(read)) = (&self.tree.object(id).kind, self.world.read_fd(fd))
        else {
            return Ok(());
        };
        same_data(&read, data, &what)
    }
}

/// Compares data, and tells of a difference by where it is.
fn same_data(got: &[u8], want: &[u8], what: &dyn Fn(&str) -> String) -> Verdict {
    equal(got.len(), want.len(), &what("the length read"))?;
    match got.iter().zip(want).position(|(got, want)| got != want) {
        None => Ok(()),
        Some(at) => equal(got[at], want[at], &what(&format!("byte {at}"))),
    }
}
