//! What the two filesystems are given to do. Each makes its files first and removes them after; only
//! the loop between is timed, with its paths made beforehand.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// One workload, with the ratio that closes the work on it and the one aimed for.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) floor: Option<f64>,
    pub(super) goal: Option<f64>,
    /// Works in an empty directory, which the caller removes.
    pub(super) run: fn(&Path, Answers<'_>) -> Result<Measured>,
}

/// Reads how many replies the server has written, where there is one.
pub(super) type Answers<'a> = &'a dyn Fn() -> Option<u64>;

/// A timed loop.
pub(super) struct Measured {
    pub(super) operations: u64,
    elapsed: Duration,
    pub(super) answers: Option<u64>,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

const fn workload(name: &'static str, run: fn(&Path, Answers<'_>) -> Result<Measured>) -> Workload {
    Workload { name, floor: None, goal: None, run }
}

const fn bounded(workload: Workload, floor: f64, goal: f64) -> Workload {
    Workload { floor: Some(floor), goal: Some(goal), ..workload }
}

/// In the order of the table; those with a floor first.
pub(super) const WORKLOADS: [Workload; 15] = [
    bounded(workload("stat, cold", cold_stat), 0.15, 0.18),
    bounded(workload("create 4 KiB files", create), 0.12, 0.15),
    bounded(workload("read 1 MiB at a time, warm", warm_read), 0.9, 0.9),
    workload("stat, warm", warm_stat),
    workload("statx with the birth time, cold", cold_statx),
    workload("stat of an absent name, repeated", repeated_miss),
    workload("stat of an absent name, new", new_miss),
    workload("open, read 4 KiB, close, warm", small_read),
    workload("write 1 MiB at a time", sequential_write),
    workload("list 1,000 entries, warm", readdir),
    workload("unlink", unlink),
    workload("rename", rename),
    workload("mkdir", mkdir),
    workload("create 4 KiB files, 2 clients", two_clients),
    workload("stat, cold, 2 clients", cold_stat_by_two),
];

const FILES: usize = 4_000;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn timed(
    operations: usize,
    answers: Answers<'_>,
    work: impl FnOnce() -> Result<()>,
) -> Result<Measured> {
    let before = answers();
    let start = Instant::now();
    work()?;
    let elapsed = start.elapsed();
    let answers = before.zip(answers()).map(|(before, after)| after - before);
    Ok(Measured { operations: operations as u64, elapsed, answers })
}

fn paths(directory: &Path, stem: &str, count: usize) -> Vec<PathBuf> {
    (0..count).map(|index| directory.join(format!("{stem}{index}"))).collect()
}

fn made(directory: &Path, stem: &str, count: usize, bytes: usize) -> Result<Vec<PathBuf>> {
    let paths = paths(directory, stem, count);
    let data = vec![0x5a; bytes];
    for path in &paths {
        fs::write(path, &data)?;
    }
    Ok(paths)
}

/// By lstat(2), as git and most programs do.
fn stat_all(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        rustix::fs::lstat(path)?;
    }
    Ok(())
}

/// By statx(2) with the birth time, which a lookup does not carry: so Rust's standard library does.
fn statx_all(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        fs::symlink_metadata(path)?;
    }
    Ok(())
}

/// Makes the kernel forget every entry and inode that nothing uses, so each is asked for again.
///
/// tmpfs has its entries nowhere else, so there they stay and its cold stat is a warm one: that is what
/// a program is given.
fn drop_entries(directory: &Path) -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2").context("cannot drop the kernel's caches")?;
    // The forgotten nodes are told to the server, which is not what is measured.
    thread::sleep(Duration::from_millis(300));
    // Nor is the walk to the directory itself.
    fs::symlink_metadata(directory)?;
    Ok(())
}

fn cold_stat(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", FILES, 0)?;
    drop_entries(directory)?;
    timed(FILES, answers, || stat_all(&files))
}

fn cold_statx(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", FILES, 0)?;
    drop_entries(directory)?;
    timed(FILES, answers, || statx_all(&files))
}

fn cold_stat_by_two(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", FILES, 0)?;
    let (one, other) = files.split_at(FILES / 2);
    drop_entries(directory)?;
    timed(FILES, answers, || both(|| stat_all(one), || stat_all(other)))
}

fn warm_stat(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", 100, 0)?;
    stat_all(&files)?;
    timed(200 * files.len(), answers, || {
        for _ in 0..200 {
            stat_all(&files)?;
        }
        Ok(())
    })
}

fn miss_all(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        ensure!(rustix::fs::lstat(path).is_err(), "{} exists", path.display());
    }
    Ok(())
}

fn repeated_miss(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let absent = paths(directory, "absent", 100);
    miss_all(&absent)?;
    timed(200 * absent.len(), answers, || {
        for _ in 0..200 {
            miss_all(&absent)?;
        }
        Ok(())
    })
}

fn new_miss(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let absent = paths(directory, "absent", FILES);
    timed(FILES, answers, || miss_all(&absent))
}

fn create(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = paths(directory, "file", FILES);
    timed(FILES, answers, || create_all(&files))
}

fn create_all(paths: &[PathBuf]) -> Result<()> {
    let data = [0x5a; 4 * KIB];
    for path in paths {
        // open(O_CREAT), write, close.
        fs::write(path, data)?;
    }
    Ok(())
}

fn two_clients(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let (one, other) = (directory.join("one"), directory.join("two"));
    fs::create_dir(&one)?;
    fs::create_dir(&other)?;
    let (one, other) = (paths(&one, "file", FILES / 2), paths(&other, "file", FILES / 2));
    timed(FILES, answers, || both(|| create_all(&one), || create_all(&other)))
}

/// Two client threads at once.
fn both(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    thread::scope(|scope| {
        let (one, other) = (scope.spawn(one), scope.spawn(other));
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        };
        joined(one).and(joined(other))
    })
}

fn warm_read(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    const SIZE: usize = 64 * MIB;
    const PASSES: usize = 8;
    let path = directory.join("large");
    fs::write(&path, vec![0x5a; SIZE])?;
    let mut file = File::open(&path)?;
    let mut buffer = vec![0; MIB];
    let mut pass = || -> Result<()> {
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..SIZE / MIB {
            file.read_exact(&mut buffer)?;
        }
        Ok(())
    };
    pass()?;
    timed(PASSES * SIZE / MIB, answers, || (0..PASSES).try_for_each(|_| pass()))
}

fn small_read(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", 500, 4 * KIB)?;
    let mut buffer = [0; 4 * KIB];
    let mut pass = || -> Result<()> {
        for path in &files {
            File::open(path)?.read_exact(&mut buffer)?;
        }
        Ok(())
    };
    pass()?;
    timed(8 * files.len(), answers, || (0..8).try_for_each(|_| pass()))
}

fn sequential_write(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    use std::io::Write;
    const PASSES: usize = 128;
    let data = vec![0x5a; MIB];
    let mut file = File::create_new(directory.join("large"))?;
    timed(PASSES, answers, || {
        for _ in 0..PASSES {
            file.write_all(&data)?;
        }
        Ok(())
    })
}

fn readdir(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    const ENTRIES: usize = 1_000;
    made(directory, "file", ENTRIES, 0)?;
    let list = || -> Result<()> {
        let listed = fs::read_dir(directory)?.filter(Result::is_ok).count();
        ensure!(listed == ENTRIES, "{listed} entries are listed");
        Ok(())
    };
    list()?;
    timed(50, answers, || (0..50).try_for_each(|_| list()))
}

fn unlink(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", FILES, 0)?;
    timed(FILES, answers, || {
        for path in &files {
            fs::remove_file(path)?;
        }
        Ok(())
    })
}

fn rename(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let files = made(directory, "file", FILES, 0)?;
    let renamed = paths(directory, "renamed", FILES);
    timed(FILES, answers, || {
        for (from, to) in files.iter().zip(&renamed) {
            fs::rename(from, to)?;
        }
        Ok(())
    })
}

fn mkdir(directory: &Path, answers: Answers<'_>) -> Result<Measured> {
    let directories = paths(directory, "directory", FILES);
    timed(FILES, answers, || {
        for path in &directories {
            fs::create_dir(path)?;
        }
        Ok(())
    })
}
