//! Random changes of an overlay over random layers, which is built anew after every step, against
//! one plain filesystem that holds what the layers merged show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use stratafs_core::{
    Added, DirEntry, DirSink, DynFileSystem, Entry, FileType, HandleId, Name, NodeId, XattrMode,
};
use stratafs_overlayfs::{Builder, OverlayFs, Repair};
use stratafs_transfer::{Data, Options, Source, Target, copy};
use support::tree::{Random, Tree, XATTR, agree, apply, tree, uncounted};
use support::{cx, mem, node, on};

/// Seeds that are tried; `STRATAFS_MODEL_LISTS` may say more.
fn seeds() -> u64 {
    let more = std::env::var("STRATAFS_MODEL_LISTS").ok().and_then(|text| text.parse().ok());
    more.unwrap_or(60)
}

/// The layers of an overlay, that outlive it.
struct Layers {
    /// The bottom first.
    lowers: Vec<Arc<dyn DynFileSystem>>,
    scratch: Arc<dyn DynFileSystem>,
    metacopy: bool,
}

impl Layers {
    fn build(&self) -> Arc<dyn DynFileSystem> {
        Arc::new(self.builder().build().unwrap())
    }

    fn builder(&self) -> Builder {
        let builder = self
            .lowers
            .iter()
            .fold(OverlayFs::builder(), |builder, lower| builder.layer(Arc::clone(lower)));
        builder.writable(Arc::clone(&self.scratch)).metacopy(self.metacopy)
    }
}

/// Read-only layers that were made by writing through overlays: with whiteouts, opaque directories
/// and redirects where those leave them.
fn random_lowers(random: &mut Random, metacopy: bool) -> Vec<Arc<dyn DynFileSystem>> {
    let mut lowers = Vec::new();
    for _ in 0..=random.below(3) {
        let scratch = mem();
        let scratch_too = Arc::clone(&scratch);
        let layers = Layers { lowers: lowers.clone(), scratch: scratch_too, metacopy };
        let fs = layers.build();
        for _ in 0..12 {
            let _ = apply(&fs, &random.change());
        }
        drop(fs);
        lowers.push(upper_of(&scratch));
    }
    lowers
}

/// What an overlay left in the `upper` of `scratch`, by itself, marks included.
fn upper_of(scratch: &Arc<dyn DynFileSystem>) -> Arc<dyn DynFileSystem> {
    let to = mem();
    let upper = node(scratch, "upper");
    copy_dir(scratch, upper, &to, NodeId::ROOT, &mut HashMap::new());
    scratch.forget(upper, 1);
    to
}

fn copy_dir(
    from: &Arc<dyn DynFileSystem>,
    dir: NodeId,
    to: &Arc<dyn DynFileSystem>,
    to_dir: NodeId,
    copies: &mut HashMap<u64, NodeId>,
) {
    let mut names = Names(Vec::new());
    from.readdir(&cx(), dir, HandleId::NONE, 0, &mut names).unwrap();
    for text in names.0 {
        let name = Name::new(&text).unwrap();
        let entry = from.lookup(&cx(), dir, name).unwrap().found().unwrap();
        if let Some(copy) = copies.get(&entry.attr.ino) {
            to.link(&cx(), *copy, to_dir, name).unwrap();
            from.forget(entry.node, 1);
            continue;
        }
        let source = Source { fs: from, node: entry.node, attr: &entry.attr };
        let target = Target { fs: to, dir: to_dir, name };
        let options = Options { data: Data::All, keep: &|_| true, durable: false };
        let copied = copy(source, target, &options).unwrap();
        if entry.attr.is_dir() {
            copy_dir(from, entry.node, to, copied.node(), copies);
        } else if entry.attr.nlink > 1 {
            copies.insert(entry.attr.ino, copied.into_node());
        }
        from.forget(entry.node, 1);
    }
}

struct Names(Vec<Vec<u8>>);

impl DirSink for Names {
    fn fits(&self, _: usize) -> bool {
        true
    }

    fn add(&mut self, entry: &DirEntry<'_>, _: Option<&Entry>) -> Added {
        if entry.entry_name().is_some() {
            self.0.push(entry.name.to_vec());
        }
        Added::Taken
    }
}

/// A plain filesystem that holds `all`.
fn plain(all: &Tree) -> Arc<dyn DynFileSystem> {
    let fs = mem();
    on(&fs, |w| {
        for (path, seen) in all {
            if let Some(first) = seen.first_name.as_ref().filter(|first| *first != path) {
                w.link(first, path).unwrap();
                continue;
            }
            let kind = FileType::from_mode(seen.mode).unwrap();
            match kind {
                _ if path.is_empty() => {}
                FileType::Directory => w.mkdir(path, 0o700).unwrap(),
                FileType::Regular => w.file(path, &seen.content).unwrap(),
                FileType::Symlink => {
                    let target = std::str::from_utf8(&seen.content).unwrap();
                    w.symlink(target, path).unwrap();
                }
                _ => w.mknod(path, seen.mode, 0).unwrap(),
            }
            w.chown(path, Some(seen.owner.0), Some(seen.owner.1)).unwrap();
            if kind != FileType::Symlink {
                w.chmod(path, seen.mode & 0o7777).unwrap();
            }
            if let Some(value) = &seen.xattr {
                w.setxattr(path, XATTR.as_bytes(), value, XattrMode::Set).unwrap();
            }
        }
    });
    fs
}

#[test]
fn random_changes_with_a_rebuild_after_each_agree_with_a_plain_filesystem() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed);
        let metacopy = seed % 2 == 1;
        let lowers = random_lowers(&mut random, metacopy);
        let layers = Layers { lowers, scratch: mem(), metacopy };
        let mut fs = layers.build();
        let model = plain(&tree(&fs));
        let mut done = Vec::new();
        for _ in 0..25 {
            let change = random.change();
            done.push(change.clone());
            let (got, want) = (apply(&fs, &change), apply(&model, &change));
            assert!(agree(got, want), "seed {seed}: {got:?} for {want:?} after {done:#?}");
            let (shown, expected) = (uncounted(tree(&fs)), uncounted(tree(&model)));
            assert_eq!(shown, expected, "seed {seed} before a rebuild, after {done:#?}");
            drop(fs);
            fs = layers.build();
            assert_eq!(
                uncounted(tree(&fs)),
                expected,
                "seed {seed} after a rebuild, after {done:#?}"
            );
        }
    }
}

#[test]
fn random_changes_of_one_overlay_agree_with_a_plain_filesystem() {
    for seed in 1000..1000 + seeds() {
        let mut random = Random::new(seed);
        let metacopy = seed % 2 == 1;
        let lowers = random_lowers(&mut random, metacopy);
        let layers = Layers { lowers, scratch: mem(), metacopy };
        let fs = layers.build();
        let model = plain(&tree(&fs));
        let mut done = Vec::new();
        for _ in 0..60 {
            let change = random.change();
            done.push(change.clone());
            let (got, want) = (apply(&fs, &change), apply(&model, &change));
            assert!(agree(got, want), "seed {seed}: {got:?} for {want:?} after {done:#?}");
            let (shown, expected) = (uncounted(tree(&fs)), uncounted(tree(&model)));
            assert_eq!(shown, expected, "seed {seed} after {done:#?}");
        }
        let left = tree(&fs);
        drop(fs);
        let mut found = Vec::new();
        let inspected = layers.builder().inspect().unwrap();
        inspected.check(Repair::No, |finding| found.push(finding.to_string())).unwrap();
        assert!(found.is_empty(), "seed {seed}: {found:?} after {done:#?}");
        assert_eq!(tree(&layers.build()), left, "seed {seed} after a rebuild, after {done:#?}");
    }
}
