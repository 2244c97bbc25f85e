//! The model: a tree in plain maps, with what every operation answers.

use std::collections::BTreeMap;

use stratafs_core::{Errno, FallocateMode, RenameFlags, Timestamp, XattrMode};

use super::op::{How, Op, SLOTS};

/// Which object.
pub(crate) type Id = usize;

const ROOT: Id = 0;

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, Id>),
    Symlink(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// The owner, where it was set.
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// How many names lead to it, if it is no directory.
    pub(crate) links: u32,
    pub(crate) xattrs: BTreeMap<u8, Vec<u8>>,
    /// The time of last change, where it was set and nothing changed since.
    pub(crate) mtime: Option<Timestamp>,
    /// Came of a tmpfile and has had no name yet.
    linkable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    id: Id,
    how: How,
}

/// What a step comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It means nothing here, and is left out.
    Void,
    /// It works.
    Done,
    /// It works and gives these bytes.
    Bytes(Vec<u8>),
    /// It works and moves so many bytes.
    Count(u64),
    /// It is refused, with one of these: as many reasons as there are.
    Refused(Vec<Errno>),
}

type Outcome = Result<Expected, Vec<Errno>>;

/// The model of a tree.
#[derive(Debug)]
pub(crate) struct Tree {
    objects: Vec<Object>,
    slots: [Option<Open>; SLOTS],
}

fn refuse<T>(errno: Errno) -> Result<T, Vec<Errno>> {
    Err(vec![errno])
}

fn refuse_if_any(errors: Vec<Errno>) -> Result<(), Vec<Errno>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// `path` as its directory and its name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn index(offset: u64) -> usize {
    // The model's files are short: the strategies see to that.
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Object::new(Kind::Dir(BTreeMap::new()), 0o777);
        Self { objects: vec![root], slots: [None; SLOTS] }
    }

    pub(crate) fn object(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    pub(crate) fn root(&self) -> Id {
        ROOT
    }

    /// What is open in `slot`.
    pub(crate) fn opened(&self, slot: usize) -> Option<Id> {
        self.slots[slot].map(|open| open.id)
    }

    /// Does `op`, and says what it answers.
    pub(crate) fn apply(&mut self, op: &Op) -> Expected {
        self.try_apply(op).unwrap_or_else(Expected::Refused)
    }

    fn try_apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Create { path, slot, how, exclusive, mode } => {
                self.create(path, *slot, *how, *exclusive, *mode)
            }
            Op::Open { path, slot, how } => {
                let id = self.resolve(path)?;
                self.open(id, *slot, *how)
            }
            Op::Tmpfile { slot } => {
                let mut object = Object::new(Kind::File(Vec::new()), 0o600);
                (object.links, object.linkable) = (0, true);
                let how = How { read: true, write: true, append: false, truncate: false };
                let id = self.add(object);
                self.open(id, *slot, how)
            }
            Op::Close { slot } => Ok(match self.slots[*slot].take() {
                Some(_) => Expected::Done,
                None => Expected::Void,
            }),
            Op::Read { slot, offset, len } => self.read(*slot, *offset, *len),
            Op::Write { slot, offset, len, fill } => self.write(*slot, *offset, *len, *fill),
            Op::Ftruncate { slot, size } => self.with_writable(*slot, Errno::EINVAL, |data| {
                data.resize(index(*size), 0);
                Expected::Done
            }),
            Op::Fallocate { slot, mode, offset, len } => {
                self.with_writable(*slot, Errno::EBADF, |data| {
                    fallocate(data, *mode, index(*offset), index(*len));
                    Expected::Done
                })
            }
            Op::CopyRange { from, from_offset, to, to_offset, len } => {
                self.copy_range((*from, index(*from_offset)), (*to, index(*to_offset)), index(*len))
            }
            Op::LinkFd { slot, path } => match self.slots[*slot] {
                None => Ok(Expected::Void),
                Some(open) => self.link(open.id, path),
            },
            Op::Truncate { path, size } => self.truncate(path, *size),
            Op::Mkdir { path, mode } => {
                let dir = Object::new(Kind::Dir(BTreeMap::new()), *mode);
                self.make(path, dir)
            }
            Op::Symlink { path, target } => {
                self.make(path, Object::new(Kind::Symlink(target.clone()), 0o777))
            }
            Op::Rmdir { path } => self.rmdir(path),
            Op::Unlink { path } => self.unlink(path),
            Op::Rename { from, to, flags } => self.rename(from, to, *flags),
            Op::Link { from, to } => {
                let id = self.resolve(from)?;
                self.link(id, to)
            }
            _ => self.change_attributes(op),
        }
    }

    fn change_attributes(&mut self, op: &Op) -> Outcome {
        let (Op::Chmod { path, .. }
        | Op::Chown { path, .. }
        | Op::Utimens { path, .. }
        | Op::Setxattr { path, .. }
        | Op::Removexattr { path, .. }) = op
        else {
            return Ok(Expected::Void);
        };
        let id = self.resolve(path)?;
        let object = &mut self.objects[id];
        let is_link = matches!(object.kind, Kind::Symlink(_));
        match op {
            // The calls on a link itself are refused by the kernel, and not by a filesystem.
            Op::Chmod { .. } | Op::Setxattr { .. } | Op::Removexattr { .. } if is_link => {
                return Ok(Expected::Void);
            }
            Op::Chmod { mode, .. } => object.mode = *mode,
            Op::Chown { uid, gid, .. } => {
                object.uid = uid.or(object.uid);
                object.gid = gid.or(object.gid);
            }
            Op::Utimens { sec, nsec, .. } => object.mtime = Some(Timestamp::new(*sec, *nsec)),
            Op::Setxattr { name, value, mode, .. } => {
                match (mode, object.xattrs.contains_key(name)) {
                    (XattrMode::Create, true) => return refuse(Errno::EEXIST),
                    (XattrMode::Replace, false) => return refuse(Errno::ENODATA),
                    _ => object.xattrs.insert(*name, value.clone()),
                };
            }
            Op::Removexattr { name, .. } if object.xattrs.remove(name).is_none() => {
                return refuse(Errno::ENODATA);
            }
            _ => {}
        }
        Ok(Expected::Done)
    }

    fn add(&mut self, object: Object) -> Id {
        self.objects.push(object);
        self.objects.len() - 1
    }

    fn entries(&self, dir: Id) -> Option<&BTreeMap<Vec<u8>, Id>> {
        match &self.objects[dir].kind {
            Kind::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.entries(dir)?.get(name).copied()
    }

    /// Changes the entries of `dir`, and with them its times.
    fn change_dir<T>(
        &mut self,
        dir: Id,
        change: impl FnOnce(&mut BTreeMap<Vec<u8>, Id>) -> T,
    ) -> Option<T> {
        let object = &mut self.objects[dir];
        object.mtime = None;
        match &mut object.kind {
            Kind::Dir(entries) => Some(change(entries)),
            _ => None,
        }
    }

    fn resolve(&self, path: &[u8]) -> Result<Id, Vec<Errno>> {
        let mut at = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at = match &self.objects[at].kind {
                Kind::Dir(entries) => *entries.get(name).ok_or(vec![Errno::ENOENT])?,
                Kind::File(_) => return refuse(Errno::ENOTDIR),
                // A kernel follows it and finds nothing; a client without one does not follow.
                Kind::Symlink(_) => return Err(vec![Errno::ENOENT, Errno::ENOTDIR]),
            };
        }
        Ok(at)
    }

    /// The directory in which `path` is or would be, and its name there.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(Id, &'p [u8]), Vec<Errno>> {
        let (dir, name) = split(path);
        let id = self.resolve(dir)?;
        match &self.objects[id].kind {
            Kind::Dir(_) => Ok((id, name)),
            Kind::File(_) => refuse(Errno::ENOTDIR),
            Kind::Symlink(_) => Err(vec![Errno::ENOENT, Errno::ENOTDIR]),
        }
    }

    fn make(&mut self, path: &[u8], object: Object) -> Outcome {
        let (dir, name) = self.parent(path)?;
        if self.child(dir, name).is_some() {
            return refuse(Errno::EEXIST);
        }
        let id = self.add(object);
        self.change_dir(dir, |entries| entries.insert(name.to_vec(), id));
        Ok(Expected::Done)
    }

    fn create(
        &mut self,
        path: &[u8],
        slot: usize,
        how: How,
        exclusive: bool,
        mode: u32,
    ) -> Outcome {
        let (dir, name) = self.parent(path)?;
        match self.child(dir, name) {
            Some(_) if exclusive => refuse(Errno::EEXIST),
            Some(id) if matches!(self.objects[id].kind, Kind::Dir(_)) => refuse(Errno::EISDIR),
            Some(id) => self.open(id, slot, how),
            None => {
                self.make(path, Object::new(Kind::File(Vec::new()), mode))?;
                let id = self.resolve(path)?;
                self.slots[slot] = Some(Open { id, how });
                Ok(Expected::Done)
            }
        }
    }

    fn open(&mut self, id: Id, slot: usize, how: How) -> Outcome {
        match &mut self.objects[id].kind {
            Kind::Dir(_) if how.write => return refuse(Errno::EISDIR),
            // A directory opens as one, which the model does not hold open.
            Kind::Dir(_) => return Ok(Expected::Void),
            // O_NOFOLLOW through a kernel; without one no regular file, or something that a kernel
            // would look up again.
            Kind::Symlink(_) => {
                return Err(vec![Errno::ELOOP, Errno::EINVAL, Errno::ENXIO, Errno::ESTALE]);
            }
            Kind::File(data) if how.truncate => {
                data.clear();
                self.objects[id].mtime = None;
            }
            Kind::File(_) => {}
        }
        self.slots[slot] = Some(Open { id, how });
        Ok(Expected::Done)
    }

    fn read(&self, slot: usize, offset: u64, len: usize) -> Outcome {
        let Some(open) = self.slots[slot] else { return Ok(Expected::Void) };
        let Kind::File(data) = &self.objects[open.id].kind else { return Ok(Expected::Void) };
        if !open.how.read {
            return refuse(Errno::EBADF);
        }
        let start = index(offset).min(data.len());
        let end = (start + len).min(data.len());
        Ok(Expected::Bytes(data[start..end].to_vec()))
    }

    /// Changes the data of what is open in `slot` for writing; otherwise `errno` or EBADF.
    fn with_writable(
        &mut self,
        slot: usize,
        errno: Errno,
        change: impl FnOnce(&mut Vec<u8>) -> Expected,
    ) -> Outcome {
        let Some(open) = self.slots[slot] else { return Ok(Expected::Void) };
        if !open.how.write {
            return Err(vec![errno, Errno::EBADF]);
        }
        let object = &mut self.objects[open.id];
        let Kind::File(data) = &mut object.kind else { return Ok(Expected::Void) };
        object.mtime = None;
        Ok(change(data))
    }

    fn write(&mut self, slot: usize, offset: u64, len: usize, fill: u8) -> Outcome {
        let Some(open) = self.slots[slot] else { return Ok(Expected::Void) };
        if len == 0 {
            let count = Expected::Count(0);
            return if open.how.write { Ok(count) } else { refuse(Errno::EBADF) };
        }
        self.with_writable(slot, Errno::EBADF, |data| {
            let start = if open.how.append { data.len() } else { index(offset) };
            put(data, start, &vec![fill; len]);
            Expected::Count(len as u64)
        })
    }

    fn copy_range(&mut self, from: (usize, usize), to: (usize, usize), len: usize) -> Outcome {
        let (Some(source), Some(target)) = (self.slots[from.0], self.slots[to.0]) else {
            return Ok(Expected::Void);
        };
        if !source.how.read || !target.how.write {
            return refuse(Errno::EBADF);
        }
        let overlap = source.id == target.id && from.1 < to.1 + len && to.1 < from.1 + len;
        // Whether an overlap counts that the end of the file cuts off is anyone's choice; that
        // nothing is copied to a file open with O_APPEND is the kernel's.
        if overlap || target.how.append {
            return Ok(Expected::Void);
        }
        let Kind::File(data) = &self.objects[source.id].kind else { return Ok(Expected::Void) };
        let start = from.1.min(data.len());
        let copied = data[start..(start + len).min(data.len())].to_vec();
        if source.id == target.id && copied.len() < len {
            // The copy would go on with what it appended itself.
            return Ok(Expected::Void);
        }
        if copied.is_empty() {
            return Ok(Expected::Count(0));
        }
        self.with_writable(to.0, Errno::EBADF, |data| {
            put(data, to.1, &copied);
            Expected::Count(copied.len() as u64)
        })
    }

    fn truncate(&mut self, path: &[u8], size: u64) -> Outcome {
        let id = self.resolve(path)?;
        let object = &mut self.objects[id];
        match &mut object.kind {
            Kind::Dir(_) => refuse(Errno::EISDIR),
            Kind::Symlink(_) => Err(vec![Errno::ELOOP, Errno::EINVAL]),
            Kind::File(data) => {
                data.resize(index(size), 0);
                object.mtime = None;
                Ok(Expected::Done)
            }
        }
    }

    fn rmdir(&mut self, path: &[u8]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = self.child(dir, name).ok_or(vec![Errno::ENOENT])?;
        match self.entries(id) {
            None => refuse(Errno::ENOTDIR),
            Some(entries) if !entries.is_empty() => refuse(Errno::ENOTEMPTY),
            Some(_) => {
                self.change_dir(dir, |entries| entries.remove(name));
                Ok(Expected::Done)
            }
        }
    }

    fn unlink(&mut self, path: &[u8]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = self.child(dir, name).ok_or(vec![Errno::ENOENT])?;
        if self.entries(id).is_some() {
            return refuse(Errno::EISDIR);
        }
        self.change_dir(dir, |entries| entries.remove(name));
        self.objects[id].links -= 1;
        Ok(Expected::Done)
    }

    fn link(&mut self, id: Id, to: &[u8]) -> Outcome {
        let (dir, name) = self.parent(to)?;
        let object = &self.objects[id];
        let mut errors = Vec::new();
        if self.child(dir, name).is_some() {
            errors.push(Errno::EEXIST);
        }
        if matches!(object.kind, Kind::Dir(_)) {
            errors.push(Errno::EPERM);
        } else if object.links == 0 && !object.linkable {
            errors.push(Errno::ENOENT);
        }
        refuse_if_any(errors)?;
        self.change_dir(dir, |entries| entries.insert(name.to_vec(), id));
        let object = &mut self.objects[id];
        (object.links, object.linkable) = (object.links + 1, false);
        Ok(Expected::Done)
    }

    /// Whether `id` is `ancestor`, or somewhere in it.
    fn is_within(&self, id: Id, ancestor: Id) -> bool {
        id == ancestor
            || self
                .entries(ancestor)
                .is_some_and(|all| all.values().any(|child| self.is_within(id, *child)))
    }

    fn rename(&mut self, from: &[u8], to: &[u8], flags: RenameFlags) -> Outcome {
        // Which of two wrong paths is found first is anyone's choice.
        let ((dir, name), (new_dir, new_name)) = match (self.parent(from), self.parent(to)) {
            (Ok(from), Ok(to)) => (from, to),
            (from, to) => {
                return Err([from.err(), to.err()].into_iter().flatten().flatten().collect());
            }
        };
        let old = self.child(dir, name);
        let new = self.child(new_dir, new_name);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let mut errors = Vec::new();
        if old.is_none() || (exchange && new.is_none()) {
            errors.push(Errno::ENOENT);
        }
        if flags.contains(RenameFlags::NOREPLACE) && new.is_some() {
            errors.push(Errno::EEXIST);
        }
        if old.is_some_and(|old| self.entries(old).is_some() && self.is_within(new_dir, old)) {
            errors.push(Errno::EINVAL);
        }
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            errors.extend(self.replace_errors(old, new, dir, exchange));
        }
        refuse_if_any(errors)?;
        let (Some(old), same) = (old, old == new) else { return Ok(Expected::Void) };
        if same {
            return Ok(Expected::Done);
        }
        if exchange {
            self.change_dir(dir, |entries| new.and_then(|new| entries.insert(name.to_vec(), new)));
        } else {
            self.change_dir(dir, |entries| entries.remove(name));
            if let Some(new) = new {
                self.objects[new].links = self.objects[new].links.saturating_sub(1);
            }
        }
        self.change_dir(new_dir, |entries| entries.insert(new_name.to_vec(), old));
        Ok(Expected::Done)
    }

    /// Why `old` of the directory `dir` may not take the place of `new`.
    fn replace_errors(&self, old: Id, new: Id, dir: Id, exchange: bool) -> Vec<Errno> {
        let mut errors = Vec::new();
        let into_itself = self.entries(new).is_some() && self.is_within(dir, new);
        if exchange {
            if into_itself {
                errors.push(Errno::EINVAL);
            }
            return errors;
        }
        match (self.entries(old), self.entries(new)) {
            (Some(_), None) => errors.push(Errno::ENOTDIR),
            (None, Some(_)) => errors.push(Errno::EISDIR),
            _ => {}
        }
        if self.entries(new).is_some_and(|entries| !entries.is_empty()) {
            errors.push(Errno::ENOTEMPTY);
        }
        errors
    }
}

impl Object {
    fn new(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            uid: None,
            gid: None,
            links: 1,
            xattrs: BTreeMap::new(),
            mtime: None,
            linkable: false,
        }
    }
}

fn put(data: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    if data.len() < start + bytes.len() {
        data.resize(start + bytes.len(), 0);
    }
    data[start..start + bytes.len()].copy_from_slice(bytes);
}

fn fallocate(data: &mut Vec<u8>, mode: FallocateMode, offset: usize, len: usize) {
    let zeros = mode.intersects(FallocateMode::PUNCH_HOLE | FallocateMode::ZERO_RANGE);
    if !mode.contains(FallocateMode::KEEP_SIZE) && data.len() < offset + len {
        data.resize(offset + len, 0);
    }
    if zeros {
        let start = offset.min(data.len());
        let end = (offset + len).min(data.len());
        data[start..end].fill(0);
    }
}
