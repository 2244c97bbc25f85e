//! What `Simple` owns: ids, lookup counts, handles and timeouts.

mod change;
mod listing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::attr::{S_IFMT, S_ISGID, S_ISUID};
use crate::{
    Added, CachePolicy, Context, Credentials, DirEntry, DirSink, DynFileSystem, HandleId, Lookup,
    Notifier, OpenFlags, OpenedFlags, Release, SliceSink, SliceSource, WriteFlags,
};

/// An object in memory. Its address tells it from others.
#[derive(Clone)]
struct File(Arc<Object>);

struct Object {
    number: u64,
    kind: FileType,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mode: u32,
    uid: u32,
    gid: u32,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, File>,
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

/// A filesystem in memory, with every optional method.
struct Mem {
    root: File,
    next: AtomicU64,
    syncs: AtomicU64,
}

impl Mem {
    fn new() -> Self {
        let state = State { mode: 0o755, ..State::default() };
        let root = Object { number: 1, kind: FileType::Directory, state: Mutex::new(state) };
        Self { root: File(Arc::new(root)), next: AtomicU64::new(2), syncs: AtomicU64::new(0) }
    }
}

impl SimpleFs for Mem {
    type File = File;

    fn root(&self) -> File {
        self.root.clone()
    }

    fn attr(&self, file: &File) -> Result<Attr> {
        let state = file.0.state.lock();
        let mut attr = Attr::new(0, file.0.kind.mode_bits() | state.mode);
        (attr.uid, attr.gid, attr.size) = (state.uid, state.gid, state.data.len() as u64);
        Ok(attr)
    }

    fn child(&self, dir: &File, name: Name<'_>) -> Result<File> {
        dir.0.state.lock().children.get(name.as_bytes()).cloned().ok_or(Errno::ENOENT)
    }

    fn list(&self, dir: &File) -> Result<Vec<NameBuf>> {
        let state = dir.0.state.lock();
        state.children.keys().map(|name| Ok(Name::new(name)?.to_owned())).collect()
    }

    fn read(&self, file: &File, offset: u64, sink: &mut dyn ReadSink) -> Result<usize> {
        let data = file.0.state.lock().data.clone();
        sink.write_slice(data.get(offset as usize..).unwrap_or_default())
    }

    fn readlink(&self, link: &File, target: &mut dyn ReadSink) -> Result<usize> {
        self.read(link, 0, target)
    }

    fn write(&self, file: &File, at: WriteAt, source: &mut dyn WriteSource) -> Result<usize> {
        let mut new = vec![0; source.remaining()];
        let len = source.read_slice(&mut new)?;
        let data = &mut file.0.state.lock().data;
        let start = match at {
            WriteAt::Offset(offset) => offset as usize,
            WriteAt::End => data.len(),
        };
        if len > 0 {
            let end = data.len().max(start + len);
            data.resize(end, 0);
            data[start..start + len].copy_from_slice(&new[..len]);
        }
        Ok(len)
    }

    fn create(&self, dir: &File, name: Name<'_>, new: &NewObject<'_>) -> Result<File> {
        let mut state = dir.0.state.lock();
        if state.children.contains_key(name.as_bytes()) {
            return Err(Errno::EEXIST);
        }
        let (mode, uid, gid, data) = (new.mode, new.uid, new.gid, new.target.to_vec());
        let file = File(Arc::new(Object {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            kind: new.kind,
            state: Mutex::new(State { mode, uid, gid, data, children: BTreeMap::new() }),
        }));
        state.children.insert(name.as_bytes().to_vec(), file.clone());
        Ok(file)
    }

    fn remove(&self, dir: &File, name: Name<'_>) -> Result<()> {
        let gone = dir.0.state.lock().children.remove(name.as_bytes());
        gone.map(|_| ()).ok_or(Errno::ENOENT)
    }

    fn rename(
        &self,
        dir: &File,
        name: Name<'_>,
        new_dir: &File,
        new_name: Name<'_>,
        _: RenameFlags,
    ) -> Result<()> {
        let file = dir.0.state.lock().children.remove(name.as_bytes()).ok_or(Errno::ENOENT)?;
        new_dir.0.state.lock().children.insert(new_name.as_bytes().to_vec(), file);
        Ok(())
    }

    fn set_attr(&self, file: &File, set: &SetAttr) -> Result<()> {
        let state = &mut *file.0.state.lock();
        state.mode = set.mode.unwrap_or(state.mode);
        state.uid = set.uid.unwrap_or(state.uid);
        state.gid = set.gid.unwrap_or(state.gid);
        let size = set.size.map_or(state.data.len(), |size| size as usize);
        state.data.resize(size, 0);
        Ok(())
    }

    fn sync(&self, _: &File) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A filesystem of one file, with no optional method.
struct OneFile;

impl SimpleFs for OneFile {
    type File = bool;

    fn root(&self) -> bool {
        true
    }

    fn attr(&self, is_root: &bool) -> Result<Attr> {
        Ok(Attr::new(0, if *is_root { 0o040_755 } else { 0o104_644 }))
    }

    fn child(&self, _: &bool, name: Name<'_>) -> Result<bool> {
        if name.as_bytes() == b"file" { Ok(false) } else { Err(Errno::ENOENT) }
    }

    fn list(&self, _: &bool) -> Result<Vec<NameBuf>> {
        Ok(vec![name("file").to_owned()])
    }

    fn read(&self, _: &bool, _: u64, sink: &mut dyn ReadSink) -> Result<usize> {
        sink.write_slice(b"")
    }
}

fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

fn cx() -> Context<'static> {
    Context::new(1, Some(Credentials::new(7, 8))).with_umask(0o022)
}

fn mem() -> Simple<Mem> {
    Simple::new("mem", Mem::new())
}

const ROOT: NodeId = NodeId::ROOT;

impl<T: SimpleFs> Simple<T> {
    fn find(&self, parent: NodeId, entry: &str) -> Result<Entry> {
        self.lookup(&cx(), parent, name(entry))?.found()
    }

    fn file(&self, entry: &str) -> Entry {
        self.mknod(&cx(), ROOT, name(entry), 0o100_666, 0).unwrap()
    }

    fn opened(&self, node: NodeId, flags: OpenFlags) -> Result<HandleId> {
        self.open(&cx(), node, flags, false).map(|opened| opened.handle)
    }

    fn closed(&self, node: NodeId, handle: HandleId) -> Result<()> {
        self.release(&cx(), node, handle, Release::default())
    }

    fn contents(&self, node: NodeId, handle: HandleId) -> Result<Vec<u8>> {
        let mut buf = [0; 64];
        let len = self.read(&cx(), node, handle, 0, 64, &mut SliceSink::new(&mut buf))?;
        Ok(buf[..len].to_vec())
    }

    fn put(&self, node: NodeId, handle: HandleId, flags: WriteFlags, data: &[u8]) -> Result<usize> {
        let mut source = SliceSource::new(data);
        self.write(&cx(), node, handle, 0, data.len(), flags, &mut source)
    }

    fn mode(&self, node: NodeId) -> u32 {
        self.getattr(&cx(), node, None).unwrap().attr.mode & !S_IFMT
    }

    fn set_mode(&self, node: NodeId, mode: u32) {
        let set = SetAttr { mode: Some(mode), ..SetAttr::new() };
        self.setattr(&Context::internal(), node, &set).unwrap();
    }
}

/// A sink that takes so many entries a call.
#[derive(Default)]
struct Page {
    room: usize,
    taken: Vec<(String, u64, u64, Option<NodeId>)>,
}

impl DirSink for Page {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if self.taken.len() == self.room {
            return Added::Full;
        }
        let name = entry.name.escape_ascii().to_string();
        self.taken.push((name, entry.ino, entry.cookie, plus.map(|entry| entry.node)));
        Added::Taken
    }
}

#[test]
fn lookup_of_one_object_gives_one_node_until_it_is_forgotten() {
    let fs = mem();
    let made = fs.file("a");
    assert_eq!(fs.find(ROOT, "a").unwrap().node, made.node);
    fs.forget(made.node, 1);
    assert_eq!(fs.find(ROOT, "a").unwrap().node, made.node, "one of three was given back");
    assert_eq!(fs.known_nodes(), 1);
    fs.forget(made.node, 2);
    assert_eq!(fs.known_nodes(), 0);
    assert_eq!(fs.getattr(&cx(), made.node, None).unwrap_err(), Errno::ESTALE);
    let again = fs.find(ROOT, "a").unwrap();
    assert_ne!(again.node, made.node, "ids are not used again");
    assert_eq!(again.attr.ino, made.attr.ino, "the inode number stays");
}

#[test]
fn forget_of_more_than_was_looked_up_and_of_the_root_does_no_harm() {
    let fs = mem();
    let made = fs.file("a");
    fs.forget(made.node, u64::MAX);
    fs.forget(made.node, 1);
    fs.forget(ROOT, u64::MAX);
    fs.batch_forget(&[(ROOT, 1), (NodeId(77), 1)]);
    assert_eq!(fs.known_nodes(), 0);
    assert!(fs.find(ROOT, "a").is_ok());
}

#[test]
fn unlinked_file_is_usable_until_it_is_forgotten_and_released_then_dropped() {
    let fs = mem();
    let made = fs.file("a");
    let object: Weak<Object> = {
        let root = fs.backend().root.0.state.lock();
        Arc::downgrade(&root.children[&b"a"[..]].0)
    };
    let handle = fs.opened(made.node, OpenFlags::READ_WRITE).unwrap();
    fs.unlink(&cx(), ROOT, name("a")).unwrap();
    assert_eq!(fs.put(made.node, handle, WriteFlags::empty(), b"still"), Ok(5));
    fs.forget(made.node, 1);
    assert_eq!(fs.contents(made.node, handle).unwrap(), b"still", "it is open");
    fs.closed(made.node, handle).unwrap();
    assert_eq!((fs.known_nodes(), fs.open_handles()), (0, 0));
    assert_eq!(object.strong_count(), 0, "the author's file is let go of");
}

#[test]
fn unknown_nodes_are_estale_and_unfit_handles_ebadf() {
    let fs = mem();
    let (a, b) = (fs.file("a").node, fs.file("b").node);
    let read = fs.opened(a, OpenFlags::READ_ONLY).unwrap();
    let write = fs.opened(a, OpenFlags::WRITE_ONLY).unwrap();
    let dir = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    let none = WriteFlags::empty();
    assert_eq!(fs.find(NodeId(99), "a").unwrap_err(), Errno::ESTALE);
    assert_eq!(fs.opened(NodeId(99), OpenFlags::READ_ONLY), Err(Errno::ESTALE));
    assert_eq!(fs.contents(NodeId(99), read), Err(Errno::ESTALE));
    assert_eq!(fs.contents(b, read), Err(Errno::EBADF), "another node's handle");
    assert_eq!(fs.contents(a, write), Err(Errno::EBADF), "open for writing only");
    assert_eq!(fs.put(a, read, none, b"x"), Err(Errno::EBADF), "open for reading only");
    assert_eq!(fs.contents(ROOT, dir), Err(Errno::EBADF), "a directory's handle");
    assert_eq!(fs.closed(a, HandleId(99)), Err(Errno::EBADF));
    assert_eq!(fs.closed(b, read), Err(Errno::EBADF));
    assert_eq!(fs.releasedir(&cx(), a, read), Err(Errno::EBADF));
    let mut page = Page::default();
    assert_eq!(fs.readdir(&cx(), a, read, 0, &mut page), Err(Errno::EBADF));
    let set = SetAttr { size: Some(0), handle: Some(read), ..SetAttr::new() };
    assert_eq!(fs.setattr(&cx(), a, &set).unwrap_err(), Errno::EBADF);
    assert_eq!(fs.closed(a, read), Ok(()));
    assert_eq!(fs.closed(a, read), Err(Errno::EBADF), "released twice");
}

#[test]
fn wrong_types_get_their_errors() {
    let fs = mem();
    let file = fs.file("file").node;
    let dir = fs.mkdir(&cx(), ROOT, name("dir"), 0o777).unwrap().node;
    let fifo = fs.mknod(&cx(), ROOT, name("fifo"), 0o010_600, 0).unwrap().node;
    let read = OpenFlags::READ_ONLY;
    assert_eq!(fs.find(file, "x").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fs.opened(dir, read), Err(Errno::EISDIR));
    assert_eq!(fs.opened(fifo, read), Err(Errno::ENXIO));
    assert_eq!(fs.opendir(&cx(), file, read).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fs.unlink(&cx(), ROOT, name("dir")), Err(Errno::EISDIR));
    assert_eq!(fs.rmdir(&cx(), ROOT, name("file")), Err(Errno::ENOTDIR));
    assert_eq!(fs.mkdir(&cx(), file, name("x"), 0o777).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(fs.link(&cx(), file, dir, name("x")).unwrap_err(), Errno::EPERM);
    let set = SetAttr { size: Some(1), ..SetAttr::new() };
    assert_eq!(fs.setattr(&cx(), dir, &set).unwrap_err(), Errno::EISDIR);
    assert_eq!(fs.setattr(&cx(), fifo, &set).unwrap_err(), Errno::EINVAL);
    let mut target = [0; 8];
    let mut target = SliceSink::new(&mut target);
    assert_eq!(fs.readlink(&cx(), file, &mut target), Err(Errno::EINVAL));
    assert_eq!(fs.rmdir(&cx(), ROOT, name("dir")), Ok(()));
}

#[test]
fn lookup_of_an_absent_name_may_be_kept_as_the_cache_says() {
    let absent = |fs: Simple<Mem>| match fs.lookup(&cx(), ROOT, name("none")).unwrap() {
        Lookup::Absent(timeout) => timeout,
        Lookup::Found(entry) => panic!("{entry:?}"),
    };
    assert_eq!(absent(mem()), Duration::ZERO);
    let always = Cache::from(CachePolicy::Always);
    assert_eq!(absent(mem().with_cache(always)), always.negative_timeout);
}

#[test]
fn cache_policy_gives_timeouts_and_open_flags() {
    for policy in [CachePolicy::Never, CachePolicy::Auto, CachePolicy::Always] {
        let cache = Cache::from(policy);
        let fs = mem().with_cache(policy);
        let made = fs.file("a");
        assert_eq!(made.entry_timeout, cache.entry_timeout);
        assert_eq!(made.attr_timeout, cache.attr_timeout);
        assert_eq!(fs.getattr(&cx(), made.node, None).unwrap().timeout, cache.attr_timeout);
        let opened = fs.open(&cx(), made.node, OpenFlags::READ_ONLY, false).unwrap();
        assert_eq!(opened.flags, cache.file_flags());
        let opened = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap();
        assert_eq!(opened.flags, cache.dir_flags());
    }
    assert!(Cache::from(CachePolicy::Never).file_flags().contains(OpenedFlags::DIRECT_IO));
}

#[test]
fn handles_beyond_the_limit_are_enfile_and_nothing_is_made() {
    let fs = mem().with_max_handles(2);
    let node = fs.file("a").node;
    let first = fs.opened(node, OpenFlags::READ_ONLY).unwrap();
    fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap();
    assert_eq!(fs.opened(node, OpenFlags::READ_ONLY), Err(Errno::ENFILE));
    let created = fs.create(&cx(), ROOT, name("b"), 0o644, OpenFlags::READ_WRITE, false);
    assert_eq!(created.unwrap_err(), Errno::ENFILE);
    assert_eq!(fs.find(ROOT, "b").unwrap_err(), Errno::ENOENT);
    fs.closed(node, first).unwrap();
    assert!(fs.opened(node, OpenFlags::READ_ONLY).is_ok(), "a slot is free again");
}

#[test]
fn open_that_fails_gives_its_slot_back() {
    let fs = Simple::new("one", OneFile).with_max_handles(1);
    let node = fs.find(ROOT, "file").unwrap().node;
    assert_eq!(fs.opened(node, OpenFlags::WRITE_ONLY), Err(Errno::EROFS));
    assert!(fs.opened(node, OpenFlags::READ_ONLY).is_ok());
}

/// Remembers which nodes it was told of.
#[derive(Default)]
struct Told(Mutex<Vec<(NodeId, Option<String>)>>);

impl Notifier for Told {
    fn inval_inode(&self, node: NodeId, _: i64, _: i64) {
        self.0.lock().push((node, None));
    }
    fn inval_entry(&self, parent: NodeId, name: Name<'_>) {
        self.0.lock().push((parent, Some(name.to_string())));
    }
    fn delete(&self, _: NodeId, _: NodeId, _: Name<'_>) {}
    fn inval_all_entries(&self) {}
    fn reaches_kernel(&self) -> bool {
        true
    }
    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn invalidate_tells_of_nodes_that_are_known() {
    let fs = mem();
    let told = Arc::new(Told::default());
    fs.attach(Arc::<Told>::clone(&told));
    let node = fs.file("a").node;
    let file = fs.backend().child(&fs.backend().root, name("a")).unwrap();
    fs.invalidate(&file);
    fs.invalidate_entry(&fs.backend().root.clone(), name("a"));
    fs.forget(node, 1);
    fs.invalidate(&file);
    assert_eq!(*told.0.lock(), [(node, None), (ROOT, Some("a".to_owned()))]);
}

/// What one of several clients does: finds, makes, opens, lists and removes, and gives all back.
fn busy_client(fs: &dyn DynFileSystem, seed: usize) {
    let cx = cx();
    for round in 0..400 {
        let entry = format!("f{}", (seed * 7 + round * 13) % 5);
        let entry = name(&entry);
        let flags = OpenFlags::READ_WRITE;
        if let Ok((made, opened)) = fs.create(&cx, ROOT, entry, 0o644, flags, false) {
            let mut data = SliceSource::new(b"data");
            let (node, handle) = (made.node, opened.handle);
            fs.write(&cx, node, handle, 0, 4, WriteFlags::APPEND, &mut data).unwrap();
            fs.forget(node, 1);
            fs.getattr(&cx, node, Some(handle)).expect("it is open");
            fs.release(&cx, node, handle, Release::default()).unwrap();
        }
        if let Lookup::Found(found) = fs.lookup(&cx, ROOT, entry).unwrap() {
            let again = fs.lookup(&cx, ROOT, entry).unwrap();
            fs.getattr(&cx, found.node, None).expect("it is looked up");
            if let Lookup::Found(again) = again {
                fs.batch_forget(&[(again.node, 1)]);
            }
            fs.forget(found.node, 1);
        }
        let handle = fs.opendir(&cx, ROOT, OpenFlags::READ_ONLY).unwrap().handle;
        let mut page = Page { room: 2 + round % 5, ..Page::default() };
        fs.readdirplus(&cx, ROOT, handle, 0, &mut page).unwrap();
        for node in page.taken.iter().filter_map(|(.., node)| *node) {
            fs.forget(node, 1);
        }
        fs.releasedir(&cx, ROOT, handle).unwrap();
        if round % 3 == 0 {
            let _ = fs.unlink(&cx, ROOT, entry);
        }
    }
}

#[test]
fn four_busy_clients_leave_no_node_handle_or_listing_behind() {
    let fs = mem();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let fs = &fs;
            scope.spawn(move || busy_client(fs, seed));
        }
    });
    assert_eq!((fs.known_nodes(), fs.open_handles(), fs.handles.kept_names()), (0, 0, 0));
}

#[test]
fn one_object_found_by_many_threads_is_one_node() {
    let fs = mem();
    fs.forget(fs.file("a").node, 1);
    for _ in 0..100 {
        let nodes: Vec<_> = std::thread::scope(|scope| {
            let find = || fs.find(ROOT, "a").unwrap().node;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(find)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(nodes.windows(2).all(|two| two[0] == two[1]), "{nodes:?}");
        fs.forget(nodes[0], 4);
        assert_eq!(fs.known_nodes(), 0);
    }
}
