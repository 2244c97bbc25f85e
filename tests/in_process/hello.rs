//! The example of a filesystem written the short way.

use stratafs_core::{
    Added, Context, DirEntry, DirSink, Entry, Errno, Name, NodeId, OpenFlags, SliceSink,
};

#[path = "../../examples/hello.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod example;

/// How long the example may be: what it takes to write a filesystem is a promise.
const LINES: usize = 60;

#[test]
fn example_is_a_filesystem_in_sixty_lines() {
    let lines = include_str!("../../examples/hello.rs").lines().count();
    assert!(lines <= LINES, "{lines} lines");
}

struct Names(Vec<String>);

impl DirSink for Names {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
        self.0.push(entry.name.escape_ascii().to_string());
        Added::Taken
    }
}

#[test]
fn example_lists_reads_and_refuses_to_be_changed() {
    let (fs, cx) = (example::hello(), Context::new(1, None));
    let root = fs.opendir(&cx, NodeId::ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    let mut names = Names(Vec::new());
    fs.readdir(&cx, NodeId::ROOT, root, 0, &mut names).unwrap();
    names.0.sort_unstable();
    assert_eq!(names.0, [".", "..", "hello.txt", "more.txt"]);

    let name = Name::new(b"hello.txt").unwrap();
    let found = fs.lookup(&cx, NodeId::ROOT, name).unwrap().found().unwrap();
    let handle = fs.open(&cx, found.node, OpenFlags::READ_ONLY, false).unwrap().handle;
    let mut buf = [0; 64];
    let read = fs.read(&cx, found.node, handle, 7, 64, &mut SliceSink::new(&mut buf));
    assert_eq!((read, &buf[..7]), (Ok(7), &b"world!\n"[..]));
    let past_the_end = u64::MAX;
    let read = fs.read(&cx, found.node, handle, past_the_end, 64, &mut SliceSink::new(&mut buf));
    assert_eq!(read, Ok(0));

    let open = fs.open(&cx, found.node, OpenFlags::WRITE_ONLY, false);
    assert_eq!(open.unwrap_err(), Errno::EROFS);
    assert_eq!(fs.unlink(&cx, NodeId::ROOT, name), Err(Errno::EROFS));
}
