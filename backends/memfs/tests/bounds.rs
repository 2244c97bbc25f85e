//! The account against the process: what is in use never exceeds the capacity, the memory behind it
//! is bounded by it, and all of it comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs_core::{
    CopyRange, DynFileSystem, Errno, FallocateMode, HandleId, Name, NodeId, OpenFlags, Release,
    RenameFlags, SetAttr, SliceSink, SliceSource, WriteFlags, XattrMode, XattrName,
};
use stratafs_memfs::{ByteSize, MemFs, SizeExt};
use support::{Random, alone, cx, name, peak_rss, remove_tree, rss, watchdog};

/// What the process may hold beside 5/4 of the capacity: the program, its threads' buffers.
const SLACK: u64 = 32 << 20;

fn assert_rss_within(capacity: ByteSize) {
    let (peak, most) = (peak_rss(), capacity.as_u64() / 4 * 5 + SLACK);
    assert!(peak <= most, "{} resident at the peak, of {}", ByteSize(peak), ByteSize(most));
}

fn write(fs: &MemFs, node: NodeId, offset: u64, data: &[u8]) -> Result<usize, Errno> {
    let mut source = SliceSource::new(data);
    let flags = WriteFlags::empty();
    fs.write(&cx(), node, HandleId::NONE, offset, data.len(), flags, &mut source)
}

/// One thread's operations: at random, on a handful of directories and names, so that they meet.
struct Actor<'a> {
    fs: &'a MemFs,
    dirs: &'a [NodeId],
    random: Random,
    /// What was looked up, and how often.
    lookups: HashMap<NodeId, u64>,
    handles: Vec<(NodeId, HandleId)>,
    data: Vec<u8>,
}

impl Actor<'_> {
    fn dir(&mut self) -> NodeId {
        self.dirs[self.random.below(self.dirs.len())]
    }

    fn text(&mut self) -> String {
        let i = self.random.below(60);
        format!("{}-{i}", "n".repeat(i * 4))
    }

    fn node(&mut self) -> Option<NodeId> {
        let (dir, text) = (self.dir(), self.text());
        let found = self.fs.lookup(&cx(), dir, name(&text)).ok()?.found().ok()?;
        self.keep(found.node);
        Some(found.node)
    }

    fn keep(&mut self, node: NodeId) {
        *self.lookups.entry(node).or_default() += 1;
    }

    fn forget_some(&mut self) {
        let some: Vec<_> = self.lookups.drain().collect();
        self.fs.batch_forget(&some);
    }

    fn release(&mut self) {
        if let Some((node, handle)) = self.handles.pop() {
            self.fs.release(&cx(), node, handle, Release::default()).unwrap();
        }
    }

    fn make(&mut self) {
        let (dir, text, kind) = (self.dir(), self.text(), self.random.below(5));
        let made = match kind {
            0 => self.fs.mkdir(&cx(), dir, name(&text), 0o755),
            1 => self.fs.symlink(&cx(), dir, name(&text), &self.data[..1 + text.len() * 10]),
            2 => {
                let flags = OpenFlags::READ_WRITE;
                let made = self.fs.create(&cx(), dir, name(&text), 0o644, flags, false);
                made.map(|(entry, opened)| {
                    self.handles.push((entry.node, opened.handle));
                    entry
                })
            }
            3 => {
                let flags = OpenFlags::READ_WRITE;
                self.fs.tmpfile(&cx(), dir, 0o644, flags).map(|(entry, opened)| {
                    self.handles.push((entry.node, opened.handle));
                    entry
                })
            }
            _ => self.fs.mknod(&cx(), dir, name(&text), 0o100_644, 0),
        };
        if let Ok(entry) = made {
            self.keep(entry.node);
        }
    }

    fn change(&mut self) {
        let Some(node) = self.node() else { return };
        let offset = (self.random.below(8 << 20)) as u64;
        let len = self.random.below(200_000);
        let handle = HandleId::NONE;
        match self.random.below(9) {
            0..=3 => drop(write(self.fs, node, offset, &self.data[..len])),
            4 => {
                let mut set = SetAttr::new();
                set.size = Some(offset);
                drop(self.fs.setattr(&cx(), node, &set));
            }
            5 => {
                let modes = [
                    FallocateMode::empty(),
                    FallocateMode::KEEP_SIZE,
                    FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE,
                    FallocateMode::ZERO_RANGE,
                    FallocateMode::COLLAPSE_RANGE,
                    FallocateMode::INSERT_RANGE,
                    FallocateMode::UNSHARE_RANGE,
                ];
                let mode = modes[self.random.below(modes.len())];
                let (offset, len) = (offset & !4095, (len as u64 & !4095) + 4096);
                let _ = self.fs.fallocate(&cx(), node, handle, mode, offset, len);
            }
            6 => {
                let Some(other) = self.node() else { return };
                let at = |node, offset| CopyRange::new(node, handle, offset);
                let to = (self.random.below(1 << 20) as u64) & !4095;
                let from = at(node, offset & !4095);
                let _ = self.fs.copy_file_range(&cx(), from, at(other, to), 300_000);
            }
            7 => {
                let text = format!("user.{}", self.random.below(5));
                let xattr = XattrName::new(text.as_bytes()).unwrap();
                let value = &self.data[..len / 8];
                let _ = self.fs.setxattr(&cx(), node, xattr, value, XattrMode::Set, false);
            }
            _ => {
                let mut buf = vec![0; len];
                let mut sink = SliceSink::new(&mut buf);
                let _ = self.fs.read(&cx(), node, handle, offset, len, &mut sink);
            }
        }
    }

    fn step(&mut self) {
        let (dir, text) = (self.dir(), self.text());
        match self.random.below(20) {
            0..=4 => self.make(),
            5..=11 => self.change(),
            12 | 13 => drop(self.fs.unlink(&cx(), dir, name(&text))),
            14 => drop(self.fs.rmdir(&cx(), dir, name(&text))),
            15 | 16 => {
                let flags = [RenameFlags::empty(), RenameFlags::EXCHANGE, RenameFlags::WHITEOUT];
                let flags = flags[self.random.below(3)];
                let (to, new) = (self.dir(), self.text());
                let _ = self.fs.rename(&cx(), dir, name(&text), to, name(&new), flags);
            }
            17 => {
                if let Some(node) = self.node()
                    && let Ok(entry) = self.fs.link(&cx(), node, dir, name(&text))
                {
                    self.keep(entry.node);
                }
            }
            18 => {
                if let Some(node) = self.node()
                    && let Ok(opened) = self.fs.open(&cx(), node, OpenFlags::READ_WRITE, false)
                {
                    self.handles.push((node, opened.handle));
                }
            }
            _ => {
                self.release();
                if self.random.below(8) == 0 {
                    self.forget_some();
                }
            }
        }
    }
}

#[test]
fn random_operations_of_four_threads_stay_within_the_capacity_and_give_all_back() {
    if !alone("random_operations_of_four_threads_stay_within_the_capacity_and_give_all_back") {
        return;
    }
    let _watchdog = watchdog();
    let capacity = 16.mib();
    let fs = MemFs::builder().capacity(capacity).max_inodes(150).build().unwrap();
    let empty = fs.usage();
    let dirs: Vec<_> = (0..4)
        .map(|i| fs.mkdir(&cx(), NodeId::ROOT, name(&format!("d{i}")), 0o755).unwrap().node)
        .collect();
    let done = AtomicBool::new(false);
    let (most, full) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut most, mut full) = (0, false);
            while !done.load(Ordering::Relaxed) {
                let usage = fs.usage();
                assert!(usage.bytes <= capacity.as_u64() && usage.inodes <= 150, "{usage:?}");
                most = most.max(usage.bytes);
                full |= usage.inodes == 150;
                std::thread::yield_now();
            }
            (most, full)
        });
        let actors: Vec<_> = (0..4)
            .map(|seed| {
                let (fs, dirs) = (&fs, &dirs[..]);
                scope.spawn(move || {
                    let random = Random::new(seed);
                    let (lookups, handles) = Default::default();
                    let data = vec![seed as u8 + 1; 200_000];
                    let mut actor = Actor { fs, dirs, random, lookups, handles, data };
                    for _ in 0..40_000 {
                        actor.step();
                    }
                    while !actor.handles.is_empty() {
                        actor.release();
                    }
                    actor.forget_some();
                })
            })
            .collect();
        let ended: Vec<_> = actors.into_iter().map(|actor| actor.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|actor| actor.unwrap());
        sampler.join().unwrap()
    });
    assert!(most > capacity.as_u64() / 10 * 9, "it was nearly full: {}", ByteSize(most));
    assert!(full, "inodes ran out");
    assert_rss_within(capacity);
    remove_tree(&fs, NodeId::ROOT);
    for dir in dirs {
        fs.forget(dir, 1);
    }
    assert_eq!(fs.usage(), empty);
}

#[test]
fn a_million_files_cost_what_they_are_charged() {
    if !alone("a_million_files_cost_what_they_are_charged") {
        return;
    }
    let _watchdog = watchdog();
    const FILES: u64 = 1_000_000;
    let fs = MemFs::builder().max_inodes(FILES + 2).build().unwrap();
    let dir = fs.mkdir(&cx(), NodeId::ROOT, name("d"), 0o755).unwrap().node;
    let (before, resident) = (fs.usage(), rss());
    for i in 0..FILES {
        let text = format!("file-{i:09}");
        let node = fs.mknod(&cx(), dir, name(&text), 0o100_644, 0).unwrap().node;
        fs.forget(node, 1);
    }
    let charged = (fs.usage().bytes - before.bytes) / FILES;
    let real = (rss() - resident) / FILES;
    println!("an empty file is charged {charged} bytes and takes {real}");
    assert!(charged <= 400, "{charged} bytes are charged");
    assert!(real <= charged, "{real} bytes are taken, {charged} charged");
    for i in (0..FILES).step_by(997) {
        let text = format!("file-{i:09}");
        let found = fs.lookup(&cx(), dir, name(&text)).unwrap().found().unwrap();
        fs.forget(found.node, 1);
    }
    for i in 0..FILES {
        fs.unlink(&cx(), dir, name(&format!("file-{i:09}"))).unwrap();
    }
    assert_eq!(fs.usage(), before);
}

/// Fills a filesystem in one way until it is full, and checks the process. `bomb` gets the number
/// of its round, and says whether that worked.
fn explode(test: &str, bomb: impl Fn(&MemFs, u64) -> Result<(), Errno>) {
    if !alone(test) {
        return;
    }
    let _watchdog = watchdog();
    let capacity = 64.mib();
    let fs = MemFs::builder().capacity(capacity).max_inodes(u64::MAX).build().unwrap();
    let rounds = (0..10_000_000).find(|round| bomb(&fs, *round).is_err());
    assert!(rounds.is_some(), "it is full some day");
    let left = capacity.as_u64().checked_sub(fs.usage().bytes);
    assert!(left.is_some_and(|left| left < 100_000), "{left:?} bytes left");
    assert_rss_within(capacity);
    remove_tree(&fs, NodeId::ROOT);
}

#[test]
fn bomb_of_long_names_is_charged() {
    explode("bomb_of_long_names_is_charged", |fs, i| {
        let text = format!("{i:0>255}");
        let node = fs.mknod(&cx(), NodeId::ROOT, name(&text), 0o100_644, 0)?.node;
        fs.forget(node, 1);
        Ok(())
    });
}

#[test]
fn bomb_of_hard_links_is_charged() {
    explode("bomb_of_hard_links_is_charged", |fs, i| {
        let text = format!("{i:x}");
        let first = match fs.lookup(&cx(), NodeId::ROOT, name("0"))?.found() {
            Ok(first) => first.node,
            Err(_) => return fs.mknod(&cx(), NodeId::ROOT, name("0"), 0, 0).map(drop),
        };
        let linked = fs.link(&cx(), first, NodeId::ROOT, name(&text));
        fs.forget(first, 2);
        linked.map(drop)
    });
}

#[test]
fn bomb_of_symlinks_is_charged() {
    explode("bomb_of_symlinks_is_charged", |fs, i| {
        let text = format!("{i}");
        let target = vec![b'x'; 1 + (i as usize * 37) % 4095];
        let node = fs.symlink(&cx(), NodeId::ROOT, name(&text), &target)?.node;
        fs.forget(node, 1);
        Ok(())
    });
}

#[test]
fn bomb_of_nested_directories_is_charged_and_taken_apart() {
    if !alone("bomb_of_nested_directories_is_charged_and_taken_apart") {
        return;
    }
    let _watchdog = watchdog();
    let capacity = 64.mib();
    let fs = MemFs::builder().capacity(capacity).max_inodes(u64::MAX).build().unwrap();
    let mut dir = NodeId::ROOT;
    let mut depth = 0;
    while let Ok(entry) = fs.mkdir(&cx(), dir, name("d"), 0o755) {
        dir = entry.node;
        depth += 1;
    }
    assert!(depth > 50_000, "{depth}");
    assert_rss_within(capacity);
    drop(fs);
}

#[test]
fn bomb_of_xattrs_is_charged() {
    explode("bomb_of_xattrs_is_charged", |fs, i| {
        let text = format!("{}", i / 250);
        let node = match fs.lookup(&cx(), NodeId::ROOT, name(&text))?.found() {
            Ok(found) => found.node,
            Err(_) => fs.mknod(&cx(), NodeId::ROOT, name(&text), 0, 0)?.node,
        };
        let xattr = format!("user.{:0>250}", i % 250);
        let xattr = XattrName::new(xattr.as_bytes()).unwrap();
        let value = vec![1; (i as usize * 13) % 3000];
        let set = fs.setxattr(&cx(), node, xattr, &value, XattrMode::Set, false);
        fs.forget(node, 1);
        set
    });
}

#[test]
fn bomb_of_sparse_writes_is_charged() {
    explode("bomb_of_sparse_writes_is_charged", |fs, i| {
        let node = match fs.lookup(&cx(), NodeId::ROOT, name("f"))?.found() {
            Ok(found) => found.node,
            Err(_) => fs.mknod(&cx(), NodeId::ROOT, name("f"), 0, 0)?.node,
        };
        // Backwards and far apart, so that no page is beside the one before.
        let written = write(fs, node, (1 << 62) - (i % (1 << 30)) * (1 << 30), b"x");
        fs.forget(node, 1);
        written.map(drop)
    });
}

#[test]
fn bomb_of_one_byte_files_is_charged() {
    explode("bomb_of_one_byte_files_is_charged", |fs, i| {
        let text = format!("{i}");
        let node = fs.mknod(&cx(), NodeId::ROOT, name(&text), 0, 0)?.node;
        let written = write(fs, node, 4095 * (i % 2), b"x");
        fs.forget(node, 1);
        written.map(drop)
    });
}

#[test]
fn bomb_of_handles_is_bounded() {
    if !alone("bomb_of_handles_is_bounded") {
        return;
    }
    let _watchdog = watchdog();
    let capacity = 1.mib();
    let fs = MemFs::builder().capacity(capacity).build().unwrap();
    let node = fs.mknod(&cx(), NodeId::ROOT, name("f"), 0, 0).unwrap().node;
    let open = || fs.open(&cx(), node, OpenFlags::READ_ONLY, false);
    let last = (0..).map(|_| open()).find_map(Result::err);
    assert_eq!(last, Some(Errno::ENFILE));
    assert_rss_within(capacity);
}

#[test]
fn memory_of_removed_data_serves_names_and_the_other_way_round() {
    if !alone("memory_of_removed_data_serves_names_and_the_other_way_round") {
        return;
    }
    let _watchdog = watchdog();
    let capacity = 128.mib();
    let fs = MemFs::builder().capacity(capacity).max_inodes(u64::MAX).build().unwrap();
    let empty = fs.usage();
    // Each round on a thread of its own, for allocators keep freed memory by thread.
    for round in 0..6_u64 {
        let fs = &fs;
        std::thread::scope(|scope| {
            let fill = move || {
                if round % 2 == 0 {
                    let node = fs.mknod(&cx(), NodeId::ROOT, name("f"), 0, 0).unwrap().node;
                    let data = vec![1; 1 << 20];
                    let mut at = 0;
                    while let Ok(n) = write(fs, node, at, &data) {
                        at += n as u64;
                    }
                    fs.forget(node, 1);
                } else {
                    for i in 0.. {
                        let text = format!("{i}");
                        match fs.mknod(&cx(), NodeId::ROOT, name(&text), 0, 0) {
                            Ok(entry) => fs.forget(entry.node, 1),
                            Err(_) => break,
                        }
                    }
                }
            };
            scope.spawn(fill).join().unwrap();
            scope.spawn(move || remove_tree(fs, NodeId::ROOT)).join().unwrap();
        });
        assert_eq!(fs.usage(), empty);
    }
    assert_rss_within(capacity);
}

#[test]
fn name_of_any_bytes_is_kept() {
    let fs = MemFs::builder().build().unwrap();
    let odd = Name::new(b"\xff\x01 \n").unwrap();
    let node = fs.mknod(&cx(), NodeId::ROOT, odd, 0, 0).unwrap().node;
    let found = fs.lookup(&cx(), NodeId::ROOT, odd).unwrap().found().unwrap();
    assert_eq!(found.node, node);
}

#[test]
fn a_thinned_out_directory_holds_no_more_than_it_is_charged() {
    if !alone("a_thinned_out_directory_holds_no_more_than_it_is_charged") {
        return;
    }
    let _watchdog = watchdog();
    let fs = MemFs::builder().build().unwrap();
    let node = fs.mknod(&cx(), NodeId::ROOT, name("f"), 0, 0).unwrap().node;
    let dir = fs.mkdir(&cx(), NodeId::ROOT, name("d"), 0o755).unwrap().node;
    let (before, resident) = (fs.usage().bytes, rss());
    // Names of one inode: of these alone the entries are the cost. Just past a growth, then thinned
    // to just before a sweep.
    const NAMES: u64 = 700_000;
    for i in 0..NAMES {
        fs.link(&cx(), node, dir, name(&format!("{i}"))).unwrap();
    }
    for i in (0..NAMES).step_by(5) {
        fs.unlink(&cx(), dir, name(&format!("{i}"))).unwrap();
    }
    let (charged, real) = (fs.usage().bytes - before, rss() - resident);
    println!("{charged} bytes are charged and {real} taken");
    assert!(real <= charged, "{real} bytes are taken, {charged} charged");
}
