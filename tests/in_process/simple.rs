//! The conformance map on a filesystem that is written the short way, with every optional method:
//! what `Simple` owns for it (ids, counts, handles, cookies, mode bits) is right.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use stratafs_core::{
    Attr, CachePolicy, Errno, FileType, Name, NameBuf, NewObject, ReadSink, RenameFlags, Result,
    SetAttr, SetTime, Simple, SimpleFs, Timestamp, WriteAt, WriteSource,
};
use stratafs_testkit::{Capabilities, Stack};

/// An object; its number tells it from others, and never returns.
#[derive(Clone)]
struct File(Arc<Object>);

struct Object {
    number: u64,
    kind: FileType,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    attr: Attr,
    data: Vec<u8>,
    children: BTreeMap<NameBuf, File>,
    removed: bool,
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for File {}

impl Hash for File {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

impl File {
    fn new(number: u64, kind: FileType, mode: u32, data: &[u8]) -> Self {
        let mut attr = Attr::new(number, kind.mode_bits() | mode);
        let born = now();
        (attr.atime, attr.mtime, attr.ctime, attr.btime) = (born, born, born, Some(born));
        let state = State { attr, data: data.into(), children: BTreeMap::new(), removed: false };
        Self(Arc::new(Object { number, kind, state: Mutex::new(state) }))
    }

    fn is_dir(&self) -> bool {
        self.0.kind == FileType::Directory
    }
}

impl State {
    fn changed(&mut self) {
        self.attr.mtime = now();
        self.attr.ctime = self.attr.mtime;
    }

    fn emptied(&mut self) -> Result<()> {
        if !self.children.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.attr.ctime = now();
        self.removed = true;
        Ok(())
    }
}

/// A filesystem in memory. One lock serializes what changes the tree.
struct Mem {
    root: File,
    tree: Mutex<()>,
    next: AtomicU64,
}

impl SimpleFs for Mem {
    type File = File;

    fn root(&self) -> File {
        self.root.clone()
    }

    fn attr(&self, file: &File) -> Result<Attr> {
        let state = file.0.state.lock();
        let mut attr = state.attr.clone();
        let subdirectories = state.children.values().filter(|child| child.is_dir()).count();
        attr.nlink = match (state.removed, file.is_dir()) {
            (true, _) => 0,
            (false, true) => 2 + u32::try_from(subdirectories).unwrap(),
            (false, false) => 1,
        };
        attr.size = state.data.len() as u64;
        attr.blocks = attr.size.div_ceil(512);
        Ok(attr)
    }

    fn child(&self, dir: &File, name: Name<'_>) -> Result<File> {
        let state = dir.0.state.lock();
        state.children.get(name.as_bytes()).cloned().ok_or(Errno::ENOENT)
    }

    fn list(&self, dir: &File) -> Result<Vec<NameBuf>> {
        Ok(dir.0.state.lock().children.keys().cloned().collect())
    }

    fn read(&self, file: &File, offset: u64, sink: &mut dyn ReadSink) -> Result<usize> {
        let data = file.0.state.lock().data.clone();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        sink.write_slice(data.get(start..).unwrap_or_default())
    }

    fn readlink(&self, link: &File, target: &mut dyn ReadSink) -> Result<usize> {
        self.read(link, 0, target)
    }

    fn write(&self, file: &File, at: WriteAt, source: &mut dyn WriteSource) -> Result<usize> {
        let mut new = vec![0; source.remaining()];
        let len = source.read_slice(&mut new)?;
        if len == 0 {
            return Ok(0);
        }
        let state = &mut *file.0.state.lock();
        let start = match at {
            WriteAt::Offset(offset) => usize::try_from(offset).map_err(|_| Errno::EFBIG)?,
            WriteAt::End => state.data.len(),
        };
        let end = start.checked_add(len).filter(|end| *end <= 1 << 28).ok_or(Errno::EFBIG)?;
        state.data.resize(end.max(state.data.len()), 0);
        state.data[start..end].copy_from_slice(&new[..len]);
        state.changed();
        Ok(len)
    }

    fn create(&self, dir: &File, name: Name<'_>, new: &NewObject<'_>) -> Result<File> {
        let _tree = self.tree.lock();
        let state = &mut *dir.0.state.lock();
        if state.removed {
            return Err(Errno::ENOENT);
        }
        if state.children.contains_key(name.as_bytes()) {
            return Err(Errno::EEXIST);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = File::new(number, new.kind, new.mode, new.target);
        let attr = &mut file.0.state.lock().attr;
        (attr.uid, attr.gid, attr.rdev) = (new.uid, new.gid, new.rdev);
        state.children.insert(name.to_owned(), file.clone());
        state.changed();
        Ok(file.clone())
    }

    fn remove(&self, dir: &File, name: Name<'_>) -> Result<()> {
        let _tree = self.tree.lock();
        let file = self.child(dir, name)?;
        file.0.state.lock().emptied()?;
        let state = &mut *dir.0.state.lock();
        state.children.remove(name.as_bytes());
        state.changed();
        Ok(())
    }

    fn rename(
        &self,
        dir: &File,
        name: Name<'_>,
        new_dir: &File,
        new_name: Name<'_>,
        _: RenameFlags,
    ) -> Result<()> {
        let _tree = self.tree.lock();
        let file = self.child(dir, name)?;
        if new_dir.0.state.lock().removed {
            return Err(Errno::ENOENT);
        }
        if holds(&file, new_dir) {
            return Err(Errno::EINVAL);
        }
        if let Ok(replaced) = self.child(new_dir, new_name) {
            replaced.0.state.lock().emptied()?;
        }
        for (dir, name, put) in [(dir, name, None), (new_dir, new_name, Some(file.clone()))] {
            let state = &mut *dir.0.state.lock();
            match put {
                Some(file) => state.children.insert(name.to_owned(), file),
                None => state.children.remove(name.as_bytes()),
            };
            state.changed();
        }
        file.0.state.lock().attr.ctime = now();
        Ok(())
    }

    fn set_attr(&self, file: &File, set: &SetAttr) -> Result<()> {
        let state = &mut *file.0.state.lock();
        if let Some(size) = set.size {
            let size = usize::try_from(size).ok().filter(|size| *size <= 1 << 28);
            state.data.resize(size.ok_or(Errno::EFBIG)?, 0);
            state.changed();
        }
        let moment = |time| match time {
            SetTime::Now => now(),
            SetTime::At(moment) => moment,
        };
        let attr = &mut state.attr;
        attr.mode = set.mode.map_or(attr.mode, |mode| file.0.kind.mode_bits() | mode);
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.map_or(attr.atime, moment);
        attr.mtime = set.mtime.map_or(attr.mtime, moment);
        attr.ctime = set.ctime.unwrap_or_else(now);
        Ok(())
    }
}

/// Whether `dir` is `above` or is somewhere in it.
fn holds(above: &File, dir: &File) -> bool {
    let children = above.0.state.lock().children.clone();
    above == dir || children.values().any(|child| child.is_dir() && holds(child, dir))
}

#[test]
fn simple_over_a_complete_backend_passes_the_conformance_map() {
    let root = File::new(1, FileType::Directory, 0o755, &[]);
    let backend = Mem { root, tree: Mutex::new(()), next: AtomicU64::new(2) };
    let fs = Arc::new(Simple::new("simple", backend).with_cache(CachePolicy::Always));
    let report = Stack::in_process("simple", Arc::<Simple<Mem>>::clone(&fs) as _)
        .without(Capabilities::HARD_LINKS, "a SimpleFs has one name for each object")
        .without(Capabilities::WHITEOUT, "no flags of rename but NOREPLACE")
        .without(Capabilities::EXCHANGE, "no flags of rename but NOREPLACE")
        .without(Capabilities::SPARSE | Capabilities::ACCOUNTING, "the backend keeps vectors")
        .run();
    report.assert_passed();
    assert_eq!((fs.known_nodes(), fs.open_handles()), (0, 0));
}
