//! Listings: order, cookies, references and inode numbers.

use super::*;

fn page(fs: &dyn DynFileSystem, handle: HandleId, cookie: u64, room: usize) -> Page {
    let mut page = Page { room, ..Page::default() };
    fs.readdir(&cx(), ROOT, handle, cookie, &mut page).unwrap();
    page
}

/// The names that follow `cookie`, a page of three at a time, `between` done after each page.
fn names(
    fs: &dyn DynFileSystem,
    handle: HandleId,
    mut cookie: u64,
    mut between: impl FnMut(usize),
) -> Vec<String> {
    let mut names = Vec::new();
    for turn in 0.. {
        let page = page(fs, handle, cookie, 3);
        let Some(last) = page.taken.last() else { break };
        cookie = last.2;
        names.extend(page.taken.into_iter().map(|(name, ..)| name));
        between(turn);
    }
    names
}

#[test]
fn listing_gives_each_entry_once_while_others_come_and_go() {
    for kept in [usize::MAX, 0] {
        let mut fs = mem();
        fs.handles.set_max_kept_names(kept);
        for number in 0..50 {
            fs.file(&format!("stay{number}"));
            fs.file(&format!("go{number}"));
        }
        let handle = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap().handle;
        let mut listed = names(&fs, handle, 0, |turn| {
            let _ = fs.unlink(&cx(), ROOT, name(&format!("go{turn}")));
            let _ = fs.mknod(&cx(), ROOT, name(&format!("new{}", turn % 50)), 0o644, 0);
        });
        listed.retain(|name| name.starts_with("stay") || name.starts_with('.'));
        listed.sort_unstable();
        let mut expected: Vec<_> = (0..50).map(|number| format!("stay{number}")).collect();
        expected.extend([".".to_owned(), "..".to_owned()]);
        expected.sort_unstable();
        assert_eq!(listed, expected, "with {kept} names kept");
    }
}

#[test]
fn rewinddir_shows_the_directory_as_it_is_then() {
    let fs = mem();
    fs.file("old");
    let handle = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    assert_eq!(names(&fs, handle, 0, |_| ()), [".", "..", "old"]);
    fs.unlink(&cx(), ROOT, name("old")).unwrap();
    fs.file("new");
    assert_eq!(names(&fs, handle, 0, |_| ()), [".", "..", "new"]);
}

#[test]
fn cookie_of_before_a_rewind_leads_to_the_same_place() {
    let fs = mem();
    for number in 0..9 {
        fs.file(&format!("f{number}"));
    }
    let handle = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    let all = page(&fs, handle, 0, usize::MAX).taken;
    let (before, at, after) = (&all[3], &all[5], &all[6..]);
    fs.unlink(&cx(), ROOT, name(&before.0)).unwrap();
    fs.unlink(&cx(), ROOT, name(&at.0)).unwrap();
    page(&fs, handle, 0, 2);
    assert_eq!(page(&fs, handle, at.2, usize::MAX).taken, after);
}

#[test]
fn readdirplus_counts_only_what_the_sink_took() {
    let fs = mem();
    let nodes: Vec<_> = ["a", "b", "c"].iter().map(|name| fs.file(name).node).collect();
    nodes.iter().for_each(|node| fs.forget(*node, 1));
    let handle = fs.opendir(&cx(), ROOT, OpenFlags::READ_ONLY).unwrap().handle;
    let mut page = Page { room: 4, ..Page::default() };
    fs.readdirplus(&cx(), ROOT, handle, 0, &mut page).unwrap();
    let taken: Vec<_> = page.taken.iter().filter_map(|(.., node)| *node).collect();
    assert_eq!((taken.len(), fs.known_nodes()), (2, 2), "the dots are no lookups");
    taken.iter().for_each(|node| fs.forget(*node, 1));
    assert_eq!(fs.known_nodes(), 0);
}

#[test]
fn listed_inode_numbers_are_those_of_stat() {
    let fs = mem();
    let dir = fs.mkdir(&cx(), ROOT, name("dir"), 0o777).unwrap();
    let inner = fs.mkdir(&cx(), dir.node, name("inner"), 0o777).unwrap();
    let list = |node| {
        let handle = fs.opendir(&cx(), node, OpenFlags::READ_ONLY).unwrap().handle;
        let mut page = Page { room: 9, ..Page::default() };
        fs.readdir(&cx(), node, handle, 0, &mut page).unwrap();
        page.taken.into_iter().map(|(name, ino, ..)| (name, ino)).collect::<Vec<_>>()
    };
    let listed = |name: &str, ino| (name.to_owned(), ino);
    let root = fs.getattr(&cx(), ROOT, None).unwrap().attr.ino;
    let (dir_ino, inner_ino) = (dir.attr.ino, inner.attr.ino);
    assert_eq!(list(ROOT), [listed(".", root), listed("..", root), listed("dir", dir_ino)]);
    assert_eq!(
        list(dir.node),
        [listed(".", dir_ino), listed("..", root), listed("inner", inner_ino)]
    );
    let none = RenameFlags::empty();
    fs.rename(&cx(), dir.node, name("inner"), ROOT, name("inner"), none).unwrap();
    assert_eq!(list(inner.node), [listed(".", inner_ino), listed("..", root)], "it moved");
}
