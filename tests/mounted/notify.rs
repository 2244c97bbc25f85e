//! What the kernel is told of changes that it did not make.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stratafs_core::intercept::{Intercept, Intercepted, Op};
use stratafs_core::{Context, Name, NodeId, Result};
use stratafs_memfs::MemFs;

use crate::probe::{FILE, Probe};
use crate::stage::{Stage, wait_until};

#[test]
fn inval_inode_makes_a_cached_size_be_asked_for_again() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    let size = || fs::metadata(stage.path("file")).unwrap().size();
    assert_eq!(size(), 0);
    probe.size.store(7, Ordering::SeqCst);
    assert_eq!(size(), 0, "cached for an hour");
    probe.notifier().inval_inode(FILE, 0, 0);
    wait_until("the new size is seen", || size() == 7);
}

#[test]
fn inval_entry_makes_a_cached_name_be_looked_up_again() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    let lookups = |name: &str| {
        let _ = fs::metadata(stage.path(name));
        probe.lookups.load(Ordering::SeqCst)
    };
    for name in ["file", "missing"] {
        let before = lookups(name);
        assert_eq!(lookups(name), before, "cached for an hour");
        probe.notifier().inval_entry(NodeId::ROOT, Name::new(name.as_bytes()).unwrap());
        wait_until("it is looked up again", || lookups(name) > before);
    }
}

#[test]
fn delete_makes_a_cached_name_be_looked_up_again() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    fs::metadata(stage.path("file")).unwrap();
    let before = probe.lookups.load(Ordering::SeqCst);
    probe.notifier().delete(NodeId::ROOT, FILE, Name::new(b"file").unwrap());
    wait_until("it is looked up again", || {
        fs::metadata(stage.path("file")).unwrap();
        probe.lookups.load(Ordering::SeqCst) > before
    });
}

#[test]
fn notices_beyond_the_queue_do_not_block_and_names_are_looked_up_again() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    fs::metadata(stage.path("file")).unwrap();
    let before = probe.lookups.load(Ordering::SeqCst);
    let notifier = probe.notifier();
    // Of objects that the kernel does not know, so that none of these has an effect by itself.
    for node in 0..100_000 {
        notifier.inval_inode(NodeId(1000 + node), 0, 0);
    }
    notifier.inval_all_entries();
    wait_until("names are looked up again", || {
        fs::metadata(stage.path("file")).unwrap();
        probe.lookups.load(Ordering::SeqCst) > before || !knows_inc_epoch()
    });
}

/// NOTIFY_INC_EPOCH came with FUSE 7.44 in Linux 6.16.
fn knows_inc_epoch() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
fn notice_from_inside_a_mkdir_hangs_nobody() {
    let probe = Probe::new();
    let Some(stage) = Stage::with(probe.clone(), "", 1) else { return };
    for round in 0..50 {
        fs::create_dir(stage.path(&format!("new-{round}"))).unwrap();
    }
    fs::metadata(stage.path("file")).unwrap();
}

#[test]
fn notifier_of_an_unmounted_filesystem_is_closed() {
    let probe = Probe::new();
    let Some(stage) = Stage::new(probe.clone()) else { return };
    let notifier = probe.notifier();
    assert!(notifier.reaches_kernel() && !notifier.is_closed());
    stage.server.unmount().unwrap();
    assert!(notifier.is_closed());
    notifier.inval_inode(FILE, 0, 0);
}

/// Counts the lookups that reach a filesystem.
#[derive(Default)]
struct Lookups(AtomicUsize);

impl Intercept for Lookups {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if matches!(op, Op::Lookup { .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn client_is_not_told_of_its_own_changes_and_keeps_what_it_made() {
    const COUNT: usize = 200;
    let memfs = Arc::new(MemFs::builder().build().unwrap());
    let counted = Arc::new(Intercepted::new(memfs, Lookups::default()));
    let Some(stage) = Stage::new(counted.clone()) else { return };
    let path = |index: usize| stage.path(&format!("made-{index}"));
    for index in 0..COUNT {
        fs::create_dir(path(index)).unwrap();
    }
    let before = counted.intercept().0.load(Ordering::SeqCst);
    for index in 0..COUNT {
        fs::metadata(path(index)).unwrap();
    }
    let again = counted.intercept().0.load(Ordering::SeqCst) - before;
    // The machine may drop some of its caches of its own accord.
    assert!(again < COUNT / 4, "{again} of {COUNT} names were looked up again");
}
