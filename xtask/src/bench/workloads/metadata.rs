//! Names, attributes, directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::fs::XattrFlags;

use super::{KIB, Measured, Place, both, made, paths};

const FILES: usize = 4_000;
/// Of those that nothing knows yet more, for a loop of a tenth of a second: for some milliseconds the
/// scheduler looks for places for a client and a server that were idle before.
const COLD_FILES: usize = 10_000;

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

pub(in crate::bench) fn cold_stat(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", COLD_FILES, 0)?;
    place.make_cold()?;
    place.timed(COLD_FILES, || stat_all(&files))
}

pub(in crate::bench) fn cold_statx(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", COLD_FILES, 0)?;
    place.make_cold()?;
    place.timed(COLD_FILES, || statx_all(&files))
}

pub(in crate::bench) fn cold_stat_by_two(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", COLD_FILES, 0)?;
    let (one, other) = files.split_at(COLD_FILES / 2);
    place.make_cold()?;
    place.timed(COLD_FILES, || both(|| stat_all(one), || stat_all(other)))
}

pub(in crate::bench) fn warm_stat(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", 100, 0)?;
    stat_all(&files)?;
    place.timed(1_000 * files.len(), || {
        for _ in 0..1_000 {
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

pub(in crate::bench) fn repeated_miss(place: &Place<'_>) -> Result<Measured> {
    let absent = paths(place.directory, "absent", 100);
    miss_all(&absent)?;
    place.timed(200 * absent.len(), || {
        for _ in 0..200 {
            miss_all(&absent)?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn new_miss(place: &Place<'_>) -> Result<Measured> {
    let absent = paths(place.directory, "absent", FILES);
    place.timed(FILES, || miss_all(&absent))
}

pub(in crate::bench) fn create(place: &Place<'_>) -> Result<Measured> {
    let files = paths(place.directory, "file", FILES);
    place.timed(FILES, || create_all(&files))
}

fn create_all(paths: &[PathBuf]) -> Result<()> {
    let data = [0x5a; 4 * KIB];
    for path in paths {
        // open(O_CREAT), write, close.
        fs::write(path, data)?;
    }
    Ok(())
}

pub(in crate::bench) fn create_by_two(place: &Place<'_>) -> Result<Measured> {
    let (one, other) = (place.path("one"), place.path("two"));
    fs::create_dir(&one)?;
    fs::create_dir(&other)?;
    let (one, other) = (paths(&one, "file", FILES / 2), paths(&other, "file", FILES / 2));
    place.timed(FILES, || both(|| create_all(&one), || create_all(&other)))
}

fn list(directory: &Path, entries: usize) -> Result<()> {
    let listed = fs::read_dir(directory)?.filter(Result::is_ok).count();
    ensure!(listed == entries, "{listed} entries are listed");
    Ok(())
}

pub(in crate::bench) fn warm_readdir(place: &Place<'_>) -> Result<Measured> {
    const ENTRIES: usize = 1_000;
    made(place.directory, "file", ENTRIES, 0)?;
    list(place.directory, ENTRIES)?;
    place.timed(50, || (0..50).try_for_each(|_| list(place.directory, ENTRIES)))
}

pub(in crate::bench) fn cold_readdir(place: &Place<'_>) -> Result<Measured> {
    const ENTRIES: usize = 400;
    let directories = paths(place.directory, "directory", 10);
    for directory in &directories {
        fs::create_dir(directory)?;
        made(directory, "file", ENTRIES, 0)?;
    }
    place.make_cold()?;
    place.timed(directories.len(), || {
        directories.iter().try_for_each(|directory| list(directory, ENTRIES))
    })
}

pub(in crate::bench) fn unlink(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", FILES, 0)?;
    place.timed(FILES, || {
        for path in &files {
            fs::remove_file(path)?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn rename(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", FILES, 0)?;
    let renamed = paths(place.directory, "renamed", FILES);
    place.timed(FILES, || {
        for (from, to) in files.iter().zip(&renamed) {
            fs::rename(from, to)?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn mkdir(place: &Place<'_>) -> Result<Measured> {
    let directories = paths(place.directory, "directory", FILES);
    place.timed(FILES, || {
        for path in &directories {
            fs::create_dir(path)?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn getxattr(place: &Place<'_>) -> Result<Measured> {
    let files = made(place.directory, "file", 100, 0)?;
    for path in &files {
        rustix::fs::setxattr(path, "user.colour", b"green", XattrFlags::empty())?;
    }
    place.timed(40 * files.len(), || {
        let mut value = [0; 16];
        for _ in 0..40 {
            for path in &files {
                rustix::fs::getxattr(path, "user.colour", &mut value)?;
            }
        }
        Ok(())
    })
}
