//! What a client can name on a host directory: nothing that is not in it.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs::protocol::Opcode;
use stratafs_core::{DynFileSystem, Errno};
use stratafs_passthroughfs::{Ownership, PassthroughFs};

use super::wire::{Body, Client, O_RDWR, create_body};

/// What each object of a tree is, its times of change and its content included.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let (sec, nsec) = (meta.ctime(), meta.ctime_nsec());
        let text = format!("{:o} {} {sec}.{nsec} {content:?}", meta.mode(), meta.nlink());
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, text);
    }
    found
}

/// Every request that takes the name of an entry, with `name` in each place of one. `dir` and `file`
/// are nodes, `n` is nothing, and `there` a file in `dir`.
fn requests(name: &[u8], dir: u64, file: u64) -> Vec<(Opcode, Body)> {
    let new = Body::new;
    vec![
        (Opcode::Lookup, new().name(name)),
        (Opcode::Symlink, new().name(name).name(b"target")),
        (Opcode::Mknod, new().u32(0o100_644).u32(0).u32(0).u32(0).name(name)),
        (Opcode::Mknod, new().u32(0o010_644).u32(0).u32(0).u32(0).name(name)),
        (Opcode::Mkdir, new().u32(0o755).u32(0).name(name)),
        (Opcode::Unlink, new().name(name)),
        (Opcode::Rmdir, new().name(name)),
        (Opcode::Rename, new().u64(dir).name(name).name(b"n")),
        (Opcode::Rename, new().u64(dir).name(b"there").name(name)),
        (Opcode::Rename2, new().u64(dir).u32(1).u32(0).name(b"there").name(name)),
        (Opcode::Rename2, new().u64(dir).u32(2).u32(0).name(name).name(b"there")),
        (Opcode::Link, new().u64(file).name(name)),
        (Opcode::Create, create_body(O_RDWR, 0o644, name)),
    ]
}

fn names_lead_nowhere(ownership: Ownership) {
    let above = tempfile::tempdir().unwrap();
    let at = |path: &str| above.path().join(path);
    for dir in ["share", "share/dir", "canary", "canary/sub"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    for file in ["share/dir/there", "canary/f", "canary/sub/f"] {
        std::fs::write(at(file), file).unwrap();
    }
    symlink(at("canary"), at("share/dir/out")).unwrap();
    let builder = PassthroughFs::builder().root_dir(at("share")).ownership(ownership);
    let fs: Arc<dyn DynFileSystem> = Arc::new(builder.build().unwrap());
    let mut client = Client::started(fs);
    let dir = client.lookup(1, b"dir").unwrap();
    let file = client.lookup(dir, b"there").unwrap();
    let link = client.lookup(dir, b"out").unwrap();
    let before = tree(above.path());

    let absolute = [at("canary/f").into_os_string().into_encoded_bytes(), b"/".to_vec()].concat();
    let long = [b'n'; 256];
    let hostile: [&[u8]; 16] = [
        b"",
        b".",
        b"..",
        b"/",
        b"//",
        b"../",
        b"./there",
        b"there/",
        b"there/.",
        b"../dir",
        b"../../canary",
        b"../../canary/f",
        b"out/f",
        b"/etc/passwd",
        &absolute,
        &long,
    ];
    for name in hostile {
        for (opcode, body) in requests(name, dir, file) {
            let refusal = if name.len() > 255 { Errno::ENAMETOOLONG } else { Errno::EINVAL };
            assert_eq!(client.ask(opcode, dir, &body), Err(refusal), "{opcode:?} {name:?}");
        }
    }
    // A name that is one, in what is no directory: a link to one, and a file.
    for (opcode, body) in requests(b"f", dir, file) {
        for parent in [link, file] {
            // The parent of a rename's new name is that of the old one.
            let refused = client.ask(opcode, parent, &body);
            assert_eq!(refused, Err(Errno::ENOTDIR), "{opcode:?}");
        }
    }
    // A name that ends before its bytes do is no name.
    let hidden = Body::new().u32(0o755).u32(0).bytes(b"made\0/../../canary/made\0");
    assert_eq!(client.ask(Opcode::Mkdir, dir, &hidden), Err(Errno::EINVAL));
    assert_eq!(tree(above.path()), before);
}

#[test]
fn names_that_lead_out_of_a_share_reach_nothing_under_virtual_ownership() {
    names_lead_nowhere(Ownership::Virtual);
}

#[test]
fn names_that_lead_out_of_a_share_reach_nothing_under_host_ownership() {
    names_lead_nowhere(Ownership::Host);
}
