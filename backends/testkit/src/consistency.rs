//! Whether a tree that nobody changes makes sense by itself.

use std::collections::{BTreeMap, BTreeSet};

use stratafs_core::FileType;

use crate::client::Client;
use crate::{Failure, Verdict, World, equal};

/// What is known of an object by the names that led to it.
struct Object {
    /// How many names were found.
    names: u32,
    nlink: u32,
    first: String,
}

/// Walks the whole tree below `path`, which nobody changes meanwhile, and checks that
///
/// * every name that is listed can be looked up, is listed once, and has the inode number and the
///   type that it is listed with; `.` and `..` too;
/// * as many names lead to an object as its link count says (no file here has a name elsewhere, and
///   of a directory 1 stands for "not counted");
/// * as much can be read of a file and of a symlink as its size says.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn check_tree(client: &dyn Client, path: &[u8]) -> Verdict {
    let world = World::new(client, path);
    let mut objects = BTreeMap::new();
    check_dir(&world, b"", None, &mut objects)?;
    match objects.values().find(|object| object.names != object.nlink) {
        None => Ok(()),
        Some(wrong) => Err(Failure::nowhere(format!(
            "nlink of \"{}\" is {}, and {} names lead to it",
            wrong.first, wrong.nlink, wrong.names
        ))),
    }
}

fn check_dir(
    world: &World<'_>,
    dir: &[u8],
    parent: Option<u64>,
    objects: &mut BTreeMap<u64, Object>,
) -> Verdict {
    let at = |what: &str, name: &[u8]| {
        format!("{what} of \"{}/{}\"", dir.escape_ascii(), name.escape_ascii())
    };
    let own = world.stat(dir)?;
    let mut seen = BTreeSet::new();
    let mut subdirs = 0;
    for entry in world.list(dir)? {
        let name = &entry.name[..];
        equal(seen.insert(entry.name.clone()), true, &at("being listed once", name))?;
        match (name, parent) {
            (b".", _) => equal(entry.ino, own.ino, &at("ino", name))?,
            (b"..", Some(parent)) => equal(entry.ino, parent, &at("ino", name))?,
            (b"..", None) => {}
            _ => {
                let path = [dir, if dir.is_empty() { b"" } else { b"/" }, name].concat();
                let attr = world.stat(&path).map_err(|errno| {
                    Failure::nowhere(format!("{errno:?} is {}", at("the stat", name)))
                })?;
                // A type that is not told cannot be wrong.
                let kind = entry.kind.unwrap_or(attr.kind());
                equal((attr.ino, attr.kind()), (entry.ino, kind), &at("ino and type", name))?;
                if attr.kind() == FileType::Directory {
                    subdirs += 1;
                    check_dir(world, &path, Some(own.ino), objects)?;
                    continue;
                }
                let first = path.escape_ascii().to_string();
                let object = objects.entry(attr.ino).or_insert(Object {
                    names: 0,
                    nlink: attr.nlink,
                    first,
                });
                object.names += 1;
                let len = match attr.kind() {
                    FileType::Regular => world.read(&path)?.len() as u64,
                    FileType::Symlink => world.readlink(&path)?.len() as u64,
                    _ => attr.size,
                };
                equal(len, attr.size, &at("what can be read", name))?;
            }
        }
    }
    let dots = [seen.contains(&b"."[..]), seen.contains(&b".."[..])];
    equal(dots, [true, true], &at("dot and dotdot", b""))?;
    let counted = if own.nlink == 1 { 1 } else { 2 + subdirs };
    equal(own.nlink, counted, &at("nlink", b""))
}
