//! Files of the host that layers lend to the client's kernel, which reads and writes them by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, DynFileSystem, Errno, Features, HandleId, Intercept, Intercepted, Name, Negotiated,
    NodeId, Notifier, OpenFlags, Opened, Release, SetAttr, SliceSink,
};
use stratafs_overlayfs::{Builder, OverlayFs};
use stratafs_passthroughfs::PassthroughFs;
use support::{RW, cx, name, node, on};

const READ: OpenFlags = OpenFlags::READ_ONLY;

/// An overlay of two directories of the host, in a session that passes files through.
struct Host {
    dir: tempfile::TempDir,
    fs: Arc<dyn DynFileSystem>,
}

impl Host {
    fn new(options: impl FnOnce(Builder) -> Builder) -> Self {
        let host = Self::without_session(options);
        let negotiated = Negotiated::new(45, 1 << 20, Behaviours::PASSTHROUGH);
        host.fs.init(&negotiated).unwrap();
        host
    }

    fn without_session(options: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let share = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            Arc::new(PassthroughFs::builder().root_dir(path).build().unwrap())
        };
        let (base, scratch) = (share("base"), share("scratch"));
        for file in ["f", "g"] {
            fs::write(dir.path().join("base").join(file), b"lower").unwrap();
        }
        fs::hard_link(dir.path().join("base/g"), dir.path().join("base/h")).unwrap();
        // `user.` works for everyone, on whatever filesystem the temporary directory is.
        let builder = OverlayFs::builder().layer(base).writable(scratch).userxattr(true);
        Self { fs: Arc::new(options(builder).build().unwrap()), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn node(&self, path: &str) -> NodeId {
        node(&self.fs, path)
    }

    fn open(&self, node: NodeId, flags: OpenFlags) -> Result<Opened, Errno> {
        self.fs.open(&cx(), node, flags, false)
    }

    fn read(&self, node: NodeId, handle: HandleId) -> Vec<u8> {
        let mut data = [0; 64];
        let mut sink = SliceSink::new(&mut data);
        let len = self.fs.read(&cx(), node, handle, 0, 64, &mut sink).unwrap();
        data[..len].to_vec()
    }

    fn close(&self, node: NodeId, opened: &Opened) {
        self.fs.release(&cx(), node, opened.handle, Release::default()).unwrap();
    }

    fn ino(&self, node: NodeId) -> u64 {
        self.fs.getattr(&cx(), node, None).unwrap().attr.ino
    }
}

/// Which file of the host is lent.
fn lent(opened: &Opened) -> Option<u64> {
    let fd = opened.backing.as_ref()?.as_fd().try_clone_to_owned().unwrap();
    Some(File::from(fd).metadata().unwrap().ino())
}

fn host_ino(path: PathBuf) -> Option<u64> {
    Some(fs::metadata(path).unwrap().ino())
}

#[test]
fn open_for_reading_lends_the_file_of_its_layer() {
    let host = Host::new(|b| b);
    let f = host.node("f");
    let opened = host.open(f, READ).unwrap();
    assert_eq!(lent(&opened), host_ino(host.path("base/f")));
    host.close(f, &opened);
    host.fs.forget(f, 1);
}

#[test]
fn nothing_is_lent_where_no_session_asks() {
    let host = Host::without_session(|b| b);
    let f = host.node("f");
    let before = host.open(f, READ).unwrap();
    assert_eq!(lent(&before), None);
    let after = host.open(f, RW).unwrap();
    assert_eq!(lent(&after), None);
    assert_eq!(host.node("f"), f, "one node goes on");
    on(&host.fs, |w| w.write_at("f", 0, b"UPPER").unwrap());
    assert_eq!(host.read(f, before.handle), b"UPPER");
}

#[test]
fn copy_up_of_what_was_lent_makes_another_node_of_the_same_number() {
    let host = Host::new(|b| b);
    let old = host.node("f");
    let ino = host.ino(old);
    let reader = host.open(old, READ).unwrap();
    // The kernel would write by the file that it was lent for this node: the layer's.
    assert_eq!(host.open(old, RW).unwrap_err(), Errno::ESTALE);
    let new = host.node("f");
    assert_ne!(new, old);
    assert_eq!(host.ino(new), ino);
    let writer = host.open(new, RW).unwrap();
    assert_eq!(lent(&writer), host_ino(host.path("scratch/upper/f")));
    on(&host.fs, |w| w.write_at("f", 0, b"UPPER").unwrap());
    assert_eq!(host.read(old, reader.handle), b"lower", "as in the kernel's overlay");
    assert_eq!(host.read(new, writer.handle), b"UPPER");
    assert_eq!(fs::read(host.path("base/f")).unwrap(), b"lower");
    assert_eq!(host.open(old, READ).unwrap_err(), Errno::ESTALE);
    // Whoever comes by the old node changes and sees the same object.
    let mut mode = SetAttr::new();
    mode.mode = Some(0o600);
    host.fs.setattr(&cx(), old, &mode).unwrap();
    let attr = host.fs.getattr(&cx(), new, None).unwrap().attr;
    assert_eq!((attr.mode & 0o7777, attr.size), (0o600, 5));
    host.close(old, &reader);
    host.close(new, &writer);
}

#[test]
fn node_that_was_ever_lent_is_never_written_by() {
    // The release is known here before the kernel's own end of it is.
    let host = Host::new(|b| b);
    let old = host.node("f");
    let reader = host.open(old, READ).unwrap();
    host.close(old, &reader);
    assert_eq!(host.open(old, OpenFlags::WRITE_ONLY.with_truncate()).unwrap_err(), Errno::ESTALE);
    let new = host.node("f");
    let writer = host.open(new, OpenFlags::WRITE_ONLY.with_truncate()).unwrap();
    assert_eq!(lent(&writer), host_ino(host.path("scratch/upper/f")));
}

#[test]
fn copy_up_by_a_change_of_attributes_supersedes_what_was_lent_too() {
    let host = Host::new(|b| b);
    let old = host.node("f");
    let reader = host.open(old, READ).unwrap();
    on(&host.fs, |w| w.chmod("f", 0o600).unwrap());
    assert_eq!(host.open(old, RW).unwrap_err(), Errno::ESTALE);
    assert_ne!(host.node("f"), old);
    assert_eq!(host.fs.getattr(&cx(), old, None).unwrap().attr.mode & 0o7777, 0o600);
    host.close(old, &reader);
}

#[test]
fn names_of_one_file_lead_to_the_new_node_after_a_copy_up_of_what_was_lent() {
    let host = Host::new(|b| b);
    let old = host.node("g");
    assert_eq!(host.node("h"), old);
    let reader = host.open(old, READ).unwrap();
    assert_eq!(host.open(old, RW).unwrap_err(), Errno::ESTALE);
    let new = host.node("h");
    assert_eq!((new == old, host.node("g")), (false, new));
    on(&host.fs, |w| w.link("g", "i").unwrap());
    for node in [old, new] {
        assert_eq!(host.fs.getattr(&cx(), node, None).unwrap().attr.nlink, 3);
    }
    host.close(old, &reader);
}

#[test]
fn unlinked_file_that_was_lent_is_written_without_lending() {
    let host = Host::new(|b| b);
    let old = host.node("f");
    let reader = host.open(old, READ).unwrap();
    on(&host.fs, |w| w.unlink("f").unwrap());
    // By /proc/self/fd: no name is left to be looked up again.
    let writer = host.open(old, RW).unwrap();
    assert_eq!(lent(&writer), None);
    assert_eq!(host.read(old, writer.handle), b"lower");
    host.close(old, &reader);
    host.close(old, &writer);
}

#[test]
fn new_files_are_lent_as_they_are_made() {
    let host = Host::new(|b| b);
    let (root, flags) = (NodeId::ROOT, RW);
    let made = host.fs.create(&cx(), root, name("new"), 0o644, flags, false).unwrap();
    assert_eq!(lent(&made.1), host_ino(host.path("scratch/upper/new")));
    on(&host.fs, |w| w.unlink("f").unwrap());
    let made = host.fs.create(&cx(), root, name("f"), 0o644, flags, false).unwrap();
    assert_eq!(lent(&made.1), host_ino(host.path("scratch/upper/f")), "over a whiteout");
}

#[test]
fn clients_are_told_to_look_the_name_up_again() {
    /// Notes the names that it is told of.
    #[derive(Default)]
    struct Notes(Mutex<Vec<Vec<u8>>>);

    impl Notifier for Notes {
        fn inval_inode(&self, _: NodeId, _: i64, _: i64) {}
        fn inval_entry(&self, dir: NodeId, name: Name<'_>) {
            assert_eq!(dir, NodeId::ROOT);
            self.0.lock().push(name.as_bytes().to_vec());
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

    let host = Host::new(|b| b);
    let notes = Arc::new(Notes::default());
    host.fs.attach(Arc::<Notes>::clone(&notes));
    let old = host.node("f");
    let reader = host.open(old, READ).unwrap();
    host.open(old, RW).unwrap_err();
    assert!(notes.0.lock().contains(&b"f".to_vec()));
    host.close(old, &reader);
}

#[test]
fn features_promise_lending_if_any_layer_does() {
    /// Withholds its filesystem's files.
    struct Sees;

    impl Intercept for Sees {
        type Mark = ();

        fn sees_data(&self) -> bool {
            true
        }
    }

    let bears = |features: Features| features.bears(Behaviours::PASSTHROUGH);
    let host = Host::without_session(|b| b);
    let base = PassthroughFs::builder().root_dir(host.path("base")).build().unwrap();
    if !bears(base.features()) {
        return;
    }
    assert!(bears(host.fs.features()));
    let seen = Arc::new(Intercepted::new(Arc::new(base), Sees));
    let blind = OverlayFs::builder().layer(seen).writable(support::mem()).build().unwrap();
    assert!(!bears(blind.features()));
}

#[test]
fn data_below_a_metacopy_is_lent_until_it_is_copied() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("not run: it takes root");
        return;
    }
    let host = Host::new(|b| b.userxattr(false).metacopy(true));
    on(&host.fs, |w| w.chmod("f", 0o600).unwrap());
    let f = host.node("f");
    let reader = host.open(f, READ).unwrap();
    assert_eq!(lent(&reader), host_ino(host.path("base/f")));
    on(&host.fs, |w| w.chmod("f", 0o640).unwrap());
    assert_eq!(host.node("f"), f, "its data did not move");
    assert_eq!(host.open(f, RW).unwrap_err(), Errno::ESTALE);
    let new = host.node("f");
    let writer = host.open(new, RW).unwrap();
    assert_eq!(lent(&writer), host_ino(host.path("scratch/upper/f")));
    assert_eq!(host.read(new, writer.handle), b"lower");
    let file = File::options().write(true).open(host.path("scratch/upper/f")).unwrap();
    file.write_all_at(b"by the kernel", 0).unwrap();
    assert_eq!(host.read(f, reader.handle), b"lower");
    host.close(f, &reader);
}
