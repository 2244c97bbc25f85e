//! What `cargo xtask bench guest` runs inside a guest: what a program does with a directory.
//!
//! `guest-bench DIRECTORY` prints a line `BENCH NAME OPERATIONS-PER-SECOND` for each workload. The host
//! has made what is there: `many` with files of 4 KiB, and `large`. Linked statically, for a guest has
//! no libraries.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a workload that panics is missing in the table")]

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::lstat;

/// How long a workload runs, at least: thousands of round trips, in spite of emulation.
const TIME: Duration = Duration::from_millis(1500);
const PAGE: usize = 4096;

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap());
    let names: Vec<PathBuf> =
        fs::read_dir(directory.join("many")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for (name, workload) in WORKLOADS {
        // The first pass fills caches; what is measured cold empties them itself.
        workload(&directory, &names);
        let (mut operations, mut took) = (0.0, Duration::ZERO);
        while took < TIME {
            let (more, time) = workload(&directory, &names);
            operations += more as f64;
            took += time;
        }
        println!("BENCH {name} {:.1}", operations / took.as_secs_f64());
    }
}

/// Does something some times; how often, and how long it took without what prepares it.
type Workload = fn(&Path, &[PathBuf]) -> (usize, Duration);

const WORKLOADS: [(&str, Workload); 12] = [
    ("repeated_misses", misses),
    ("readdir_warm", readdir),
    ("ls_l_warm", list),
    ("ls_l_cold", list_cold),
    ("stat_cold", stat_cold),
    ("stat_birth_cold", stat_birth_cold),
    ("open_read_4k", open_read),
    ("create_4k", create),
    ("unlink", unlink),
    ("random_write_4k", random_write),
    ("sequential_read_cold", read_cold),
    ("sequential_read_warm", read_warm),
];

fn timed(count: usize, work: impl FnOnce()) -> (usize, Duration) {
    let begin = Instant::now();
    work();
    (count, begin.elapsed())
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn misses(directory: &Path, _: &[PathBuf]) -> (usize, Duration) {
    let names: Vec<_> = (0..50).map(|index| directory.join(format!("missing{index}"))).collect();
    timed(names.len() * 20, || {
        for _ in 0..20 {
            assert!(names.iter().all(|name| fs::symlink_metadata(name).is_err()));
        }
    })
}

fn readdir(directory: &Path, names: &[PathBuf]) -> (usize, Duration) {
    timed(1, || {
        assert_eq!(fs::read_dir(directory.join("many")).unwrap().count(), names.len());
    })
}

fn list(directory: &Path, names: &[PathBuf]) -> (usize, Duration) {
    timed(1, || {
        let entries = fs::read_dir(directory.join("many")).unwrap();
        let sizes: i64 = entries.map(|entry| lstat(entry.unwrap().path()).unwrap().st_size).sum();
        assert_eq!(sizes, (names.len() * PAGE) as i64);
    })
}

fn list_cold(directory: &Path, names: &[PathBuf]) -> (usize, Duration) {
    drop_caches();
    list(directory, names)
}

fn stat_cold(_: &Path, names: &[PathBuf]) -> (usize, Duration) {
    drop_caches();
    timed(names.len(), || {
        assert!(names.iter().all(|name| lstat(name).is_ok()));
    })
}

/// With the birth time, which the standard library asks for: a server that has it is asked for it,
/// one that has not tells so once.
fn stat_birth_cold(_: &Path, names: &[PathBuf]) -> (usize, Duration) {
    drop_caches();
    timed(names.len(), || {
        assert!(names.iter().all(|name| fs::symlink_metadata(name).is_ok()));
    })
}

fn open_read(_: &Path, names: &[PathBuf]) -> (usize, Duration) {
    timed(names.len(), || {
        let mut page = [0; PAGE];
        for name in names {
            File::open(name).unwrap().read_exact(&mut page).unwrap();
        }
    })
}

fn new_names(directory: &Path) -> Vec<PathBuf> {
    let parent = directory.join("new");
    fs::create_dir_all(&parent).unwrap();
    (0..100).map(|index| parent.join(format!("new{index}"))).collect()
}

fn create(directory: &Path, _: &[PathBuf]) -> (usize, Duration) {
    let names = new_names(directory);
    let done = timed(names.len(), || {
        names.iter().for_each(|name| fs::write(name, [7; PAGE]).unwrap());
    });
    names.iter().for_each(|name| fs::remove_file(name).unwrap());
    done
}

fn unlink(directory: &Path, _: &[PathBuf]) -> (usize, Duration) {
    let names = new_names(directory);
    names.iter().for_each(|name| drop(File::create(name).unwrap()));
    timed(names.len(), || names.iter().for_each(|name| fs::remove_file(name).unwrap()))
}

fn random_write(directory: &Path, _: &[PathBuf]) -> (usize, Duration) {
    let file = OpenOptions::new().write(true).open(directory.join("large")).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE as u64;
    let mut at = 0x5eed_u64;
    timed(500, || {
        for _ in 0..500 {
            // A linear congruential generator: every run writes the same pages.
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            file.write_all_at(&[9; PAGE], (at >> 33) % pages * PAGE as u64).unwrap();
        }
    })
}

/// In MiB.
fn read_warm(directory: &Path, _: &[PathBuf]) -> (usize, Duration) {
    let mut file = File::open(directory.join("large")).unwrap();
    let mut buffer = vec![0; 128 << 10];
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    timed(len >> 20, || while file.read(&mut buffer).unwrap() > 0 {})
}

fn read_cold(directory: &Path, names: &[PathBuf]) -> (usize, Duration) {
    drop_caches();
    read_warm(directory, names)
}
