//! What goes in comes out.

use std::sync::Arc;

use stratafs::transport::vhost_user::client::{Setup, fuse};
use stratafs_core::DynFileSystem;
use stratafs_memfs::MemFs;
use stratafs_passthroughfs::{Ownership, PassthroughFs};
use tempfile::TempDir;

use super::Served;

/// A host directory, and a filesystem over it.
pub(super) fn passthrough() -> (TempDir, Arc<dyn DynFileSystem>) {
    let directory = tempfile::tempdir().unwrap();
    let filesystem = PassthroughFs::builder()
        .root_dir(directory.path())
        .ownership(Ownership::Virtual)
        .build()
        .unwrap();
    (directory, Arc::new(filesystem))
}

/// Writes a file in pieces of several sizes and reads it back.
fn write_and_read(served: &Served, setup: &Setup) {
    let mut guest = served.connect_as(setup);
    let queue = guest.queue();
    fuse::init(queue).unwrap();
    let (node, handle) = fuse::create(queue, fuse::ROOT, "file").unwrap();
    let data: Vec<u8> = (0..150_000_u32).map(|i| (i % 251) as u8).collect();
    let mut offset = 0;
    for len in [1, 4096, 40_000, 65_536, 40_367] {
        let piece = &data[offset..offset + len];
        let written = fuse::write(queue, node, handle, offset as u64, piece).unwrap();
        assert_eq!(written as usize, len);
        offset += len;
    }
    assert_eq!(offset, data.len());
    assert_eq!(fuse::getattr(queue, node).unwrap().size, 150_000);
    let mut back = Vec::new();
    while back.len() < data.len() {
        let piece = fuse::read(queue, node, handle, back.len() as u64, 50_001).unwrap();
        assert!(!piece.is_empty());
        back.extend(piece);
    }
    assert!(back == data, "what was read is not what was written");
    assert_eq!(fuse::read(queue, node, handle, 150_000, 10).unwrap(), b"");
    fuse::release(queue, node, handle).unwrap();
    fuse::forget(queue, node, 1).unwrap();
    let again = fuse::lookup(queue, fuse::ROOT, "file").unwrap();
    fuse::forget(&mut guest.high, again, 1).unwrap();
    assert_eq!(served.server.session().held().1, 0);
}

#[test]
fn file_written_over_memfs_reads_back_with_and_without_event_idx() {
    for event_idx in [true, false] {
        write_and_read(&Served::mem(), &Setup::default().with_event_idx(event_idx));
    }
}

#[test]
fn file_written_over_passthrough_is_on_the_host_and_reads_back() {
    let (directory, filesystem) = passthrough();
    write_and_read(&Served::new(filesystem), &Setup::default());
    assert_eq!(std::fs::metadata(directory.path().join("file")).unwrap().len(), 150_000);
}

#[test]
fn fsync_and_syncfs_reach_a_host_directory() {
    let (_directory, filesystem) = passthrough();
    let served = Served::new(filesystem);
    let mut guest = served.begin();
    let (node, handle) = fuse::create(guest.queue(), fuse::ROOT, "file").unwrap();
    fuse::fsync(guest.queue(), node, handle).unwrap();
    fuse::syncfs(guest.queue()).unwrap();
}

#[test]
fn ring_of_eight_entries_comes_round_many_times() {
    let served = Served::mem();
    let mut guest = served.connect_as(&Setup::default().with_queue_size(8));
    fuse::init(guest.queue()).unwrap();
    for _ in 0..70_000 {
        let attributes = fuse::getattr(guest.queue(), fuse::ROOT).unwrap();
        assert_eq!(attributes.mode & 0o170_000, 0o040_000);
    }
}

#[test]
fn two_queues_see_one_filesystem() {
    let served = Served::new(Arc::new(MemFs::builder().build().unwrap()));
    let mut guest = served.connect_as(&Setup::default().with_request_queues(2));
    fuse::init(&mut guest.queues[0]).unwrap();
    let node = fuse::mkdir(&mut guest.queues[0], fuse::ROOT, "a").unwrap();
    assert_eq!(fuse::lookup(&mut guest.queues[1], fuse::ROOT, "a").unwrap(), node);
    assert_eq!(guest.vmm.queues(), 3);
}
