//! Changes: what is checked before the author is asked, and what is refused.

use super::*;

#[test]
fn without_the_optional_methods_every_change_is_erofs() {
    let fs = Simple::new("one", OneFile);
    let node = fs.find(ROOT, "file").unwrap().node;
    let (file, none, flags) = (name("file"), name("none"), OpenFlags::READ_WRITE);
    let set = SetAttr { size: Some(1), ..SetAttr::new() };
    let create = |name| fs.create(&cx(), ROOT, name, 0o644, flags, false);
    assert_eq!(fs.opened(node, flags), Err(Errno::EROFS));
    assert_eq!(fs.opened(node, OpenFlags::READ_ONLY.with_truncate()), Err(Errno::EROFS));
    assert_eq!(create(none).unwrap_err(), Errno::EROFS);
    assert_eq!(create(file).unwrap_err(), Errno::EROFS);
    assert_eq!(fs.mknod(&cx(), ROOT, none, 0o100_644, 0).unwrap_err(), Errno::EROFS);
    assert_eq!(fs.mkdir(&cx(), ROOT, none, 0o755).unwrap_err(), Errno::EROFS);
    assert_eq!(fs.symlink(&cx(), ROOT, none, b"x").unwrap_err(), Errno::EROFS);
    assert_eq!(fs.unlink(&cx(), ROOT, file), Err(Errno::EROFS));
    let rename = fs.rename(&cx(), ROOT, file, ROOT, none, RenameFlags::empty());
    assert_eq!(rename, Err(Errno::EROFS));
    assert_eq!(fs.setattr(&cx(), node, &set).unwrap_err(), Errno::EROFS);
    let kill = SetAttr { kill_priv: true, ..SetAttr::new() };
    assert_eq!(fs.setattr(&cx(), node, &kill).unwrap_err(), Errno::EROFS, "it is setuid");
    assert_eq!(fs.known_nodes(), 1, "what failed left nothing");
}

#[test]
fn create_of_a_name_that_exists_opens_and_cuts_it_unless_exclusive() {
    let fs = mem();
    let node = fs.file("a").node;
    let handle = fs.opened(node, OpenFlags::WRITE_ONLY).unwrap();
    fs.put(node, handle, WriteFlags::empty(), b"data").unwrap();
    let create = |flags| fs.create(&cx(), ROOT, name("a"), 0o600, flags, false);
    assert_eq!(create(OpenFlags::READ_WRITE.with_exclusive()).unwrap_err(), Errno::EEXIST);
    let (entry, opened) = create(OpenFlags::READ_WRITE).unwrap();
    assert_eq!((entry.node, entry.attr.size), (node, 4));
    let (entry, _) = create(OpenFlags::READ_WRITE.with_truncate()).unwrap();
    assert_eq!(entry.attr.size, 0);
    assert_eq!(fs.contents(node, opened.handle).unwrap(), b"");
}

#[test]
fn new_objects_have_owner_mode_and_the_setgid_directory_s_group() {
    let fs = mem();
    let dir = fs.mkdir(&cx(), ROOT, name("dir"), 0o777).unwrap();
    assert_eq!((dir.attr.mode, dir.attr.uid, dir.attr.gid), (0o040_755, 7, 8));
    let set = SetAttr { gid: Some(50), mode: Some(0o2775), ..SetAttr::new() };
    fs.setattr(&Context::internal(), dir.node, &set).unwrap();
    let file = fs.mknod(&cx(), dir.node, name("f"), 0o666, 0).unwrap();
    assert_eq!((file.attr.mode, file.attr.gid), (0o100_644, 50));
    let link = fs.symlink(&cx(), dir.node, name("l"), b"target").unwrap();
    assert_eq!((link.attr.mode, link.attr.size), (0o120_777, 6));
    let mut target = [0; 4];
    let read = fs.readlink(&cx(), link.node, &mut SliceSink::new(&mut target));
    assert_eq!((read, &target), (Ok(4), b"targ"));
}

#[test]
fn rename_checks_what_it_finds() {
    let fs = mem();
    fs.file("a");
    fs.file("b");
    fs.mkdir(&cx(), ROOT, name("dir"), 0o777).unwrap();
    let rename = |from, to, flags| fs.rename(&cx(), ROOT, name(from), ROOT, name(to), flags);
    let none = RenameFlags::empty();
    assert_eq!(rename("a", "b", RenameFlags::EXCHANGE), Err(Errno::EINVAL));
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(rename("none", "b", none), Err(Errno::ENOENT));
    assert_eq!(rename("a", "dir", none), Err(Errno::EISDIR));
    assert_eq!(rename("dir", "a", none), Err(Errno::ENOTDIR));
    assert_eq!(rename("a", "a", none), Ok(()));
    assert!(fs.find(ROOT, "a").is_ok());
    assert_eq!(rename("a", "b", none), Ok(()));
    assert_eq!(fs.find(ROOT, "a").unwrap_err(), Errno::ENOENT);
}

#[test]
fn privileges_are_cleared_by_chown_and_on_request_alone() {
    let fs = mem();
    let node = fs.file("a").node;
    let handle = fs.opened(node, OpenFlags::READ_WRITE).unwrap();
    let chown = SetAttr { uid: Some(9), ..SetAttr::new() };
    let truncate = SetAttr { size: Some(0), ..SetAttr::new() };
    let kill = SetAttr { kill_priv: true, ..SetAttr::new() };
    for set in [chown, SetAttr { kill_priv: true, ..truncate }, kill] {
        fs.set_mode(node, 0o6755);
        fs.setattr(&cx(), node, &set).unwrap();
        assert_eq!(fs.mode(node), 0o755, "{set:?}");
    }
    fs.set_mode(node, 0o6755);
    fs.setattr(&cx(), node, &truncate).unwrap();
    assert_eq!(fs.mode(node), 0o6755, "whoever may keep them truncates without kill_priv");
    fs.set_mode(node, 0o6745);
    fs.setattr(&cx(), node, &kill).unwrap();
    assert_eq!(fs.mode(node), 0o2745, "setgid without group execute is no privilege");
    fs.set_mode(node, 0o4755);
    fs.put(node, handle, WriteFlags::empty(), b"x").unwrap();
    assert_eq!(fs.mode(node), 0o755 | S_ISUID);
    fs.put(node, handle, WriteFlags::KILL_PRIV, b"x").unwrap();
    assert_eq!(fs.mode(node), 0o755);
    fs.set_mode(node, 0o4755);
    fs.open(&cx(), node, OpenFlags::READ_WRITE, true).unwrap();
    assert_eq!(fs.mode(node), 0o755);
}

#[test]
fn chmod_from_outside_the_group_clears_setgid() {
    let fs = mem();
    let node = fs.file("a").node;
    let set = SetAttr { mode: Some(0o2755), ..SetAttr::new() };
    let stranger = Context::new(1, Some(Credentials::new(7, 99)));
    fs.setattr(&stranger, node, &set).unwrap();
    assert_eq!(fs.mode(node), 0o755);
    fs.setattr(&cx(), node, &set).unwrap();
    assert_eq!(fs.mode(node), 0o755 | S_ISGID, "in the group");
}

#[test]
fn write_appends_clips_and_syncs_as_its_flags_say() {
    let fs = mem();
    let node = fs.file("a").node;
    let handle = fs.opened(node, OpenFlags::READ_WRITE).unwrap();
    assert_eq!(fs.put(node, handle, WriteFlags::empty(), b"12345"), Ok(5));
    assert_eq!(fs.put(node, handle, WriteFlags::APPEND, b"67"), Ok(2));
    assert_eq!(fs.contents(node, handle).unwrap(), b"1234567");
    let cached = WriteFlags::APPEND | WriteFlags::CACHE;
    assert_eq!(fs.put(node, HandleId(99), cached, b"ab"), Ok(2), "the handle is a guess");
    assert_eq!(fs.contents(node, handle).unwrap(), b"ab34567");
    let mut source = SliceSource::new(b"xyz");
    let written = fs.write(&cx(), node, handle, 0, 1, WriteFlags::empty(), &mut source);
    assert_eq!((written, source.remaining()), (Ok(1), 2), "no more than asked for");
    let synced = fs.backend().syncs.load(Ordering::Relaxed);
    fs.put(node, handle, WriteFlags::SYNC, b"s").unwrap();
    fs.fsync(&cx(), node, handle, false).unwrap();
    assert_eq!(fs.backend().syncs.load(Ordering::Relaxed), synced + 2);
}

#[test]
fn read_gives_no_more_than_asked_for() {
    let fs = mem();
    let node = fs.file("a").node;
    let handle = fs.opened(node, OpenFlags::READ_WRITE).unwrap();
    fs.put(node, handle, WriteFlags::empty(), b"0123456789").unwrap();
    let mut buf = [0xff; 8];
    let read = fs.read(&cx(), node, handle, 2, 3, &mut SliceSink::new(&mut buf));
    assert_eq!((read, &buf[..4]), (Ok(3), &b"234\xff"[..]));
    assert_eq!(fs.read(&cx(), node, handle, 99, 3, &mut SliceSink::new(&mut buf)), Ok(0));
}
