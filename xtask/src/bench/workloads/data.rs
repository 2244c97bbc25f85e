//! The bytes of files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{KIB, MIB, Measured, Place, both, made, spread};

/// Of a large file, in bytes.
const SIZE: usize = 64 * MIB;

fn large(place: &Place<'_>, name: &str) -> Result<PathBuf> {
    let path = place.path(name);
    fs::write(&path, vec![0x5a; SIZE])?;
    Ok(path)
}

/// Where one of the large file's blocks of 4 KiB begins.
fn block_at(index: usize) -> u64 {
    (spread(index) % (SIZE / (4 * KIB)) * 4 * KIB) as u64
}

fn read_through(file: &mut File, buffer: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(0))?;
    for _ in 0..SIZE / buffer.len() {
        file.read_exact(buffer)?;
    }
    Ok(())
}

pub(in crate::bench) fn warm_read(place: &Place<'_>) -> Result<Measured> {
    const PASSES: usize = 8;
    let mut file = File::open(large(place, "large")?)?;
    let mut buffer = vec![0; MIB];
    read_through(&mut file, &mut buffer)?;
    place.timed(PASSES * SIZE / MIB, || {
        (0..PASSES).try_for_each(|_| read_through(&mut file, &mut buffer))
    })
}

pub(in crate::bench) fn cold_read(place: &Place<'_>) -> Result<Measured> {
    let path = large(place, "large")?;
    let mut buffer = vec![0; MIB];
    place.make_cold()?;
    place.timed(SIZE / MIB, || read_through(&mut File::open(&path)?, &mut buffer))
}

pub(in crate::bench) fn cold_read_by_two(place: &Place<'_>) -> Result<Measured> {
    let (one, other) = (large(place, "one")?, large(place, "other")?);
    place.make_cold()?;
    let read = |path: &Path| read_through(&mut File::open(path)?, &mut vec![0; MIB]);
    place.timed(2 * SIZE / MIB, || both(|| read(&one), || read(&other)))
}

pub(in crate::bench) fn cold_random_read(place: &Place<'_>) -> Result<Measured> {
    const READS: usize = 2_000;
    let path = large(place, "large")?;
    let mut buffer = [0; 4 * KIB];
    place.make_cold()?;
    place.timed(READS, || {
        let file = File::open(&path)?;
        for index in 0..READS {
            file.read_exact_at(&mut buffer, block_at(index))?;
        }
        Ok(())
    })
}

fn small_files(place: &Place<'_>, stem: &str, count: usize) -> Result<Vec<PathBuf>> {
    let files = made(place.directory, stem, count, 4 * KIB)?;
    read_small(&files)?;
    Ok(files)
}

fn read_small(files: &[PathBuf]) -> Result<()> {
    let mut buffer = [0; 4 * KIB];
    for path in files {
        File::open(path)?.read_exact(&mut buffer)?;
    }
    Ok(())
}

const PASSES: usize = 8;

pub(in crate::bench) fn small_read(place: &Place<'_>) -> Result<Measured> {
    let files = small_files(place, "file", 500)?;
    place.timed(PASSES * files.len(), || (0..PASSES).try_for_each(|_| read_small(&files)))
}

pub(in crate::bench) fn small_read_by_two(place: &Place<'_>) -> Result<Measured> {
    let (one, other) = (small_files(place, "one", 250)?, small_files(place, "other", 250)?);
    let passes = |files: &[PathBuf]| (0..PASSES).try_for_each(|_| read_small(files));
    place.timed(PASSES * 500, || both(|| passes(&one), || passes(&other)))
}

pub(in crate::bench) fn sequential_write(place: &Place<'_>) -> Result<Measured> {
    const WRITES: usize = 128;
    let data = vec![0x5a; MIB];
    let mut file = File::create_new(place.path("large"))?;
    place.timed(WRITES, || {
        for _ in 0..WRITES {
            file.write_all(&data)?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn random_write(place: &Place<'_>) -> Result<Measured> {
    const WRITES: usize = 4_000;
    let path = large(place, "large")?;
    let data = [0xa5; 4 * KIB];
    let file = OpenOptions::new().write(true).open(path)?;
    place.timed(WRITES, || {
        for index in 0..WRITES {
            file.write_all_at(&data, block_at(index))?;
        }
        Ok(())
    })
}

pub(in crate::bench) fn append(place: &Place<'_>) -> Result<Measured> {
    const APPENDS: usize = 200;
    let data = [0xa5; 4 * KIB];
    let mut file = OpenOptions::new().create(true).append(true).open(place.path("log"))?;
    place.timed(APPENDS, || {
        for _ in 0..APPENDS {
            file.write_all(&data)?;
            file.sync_all()?;
        }
        Ok(())
    })
}
