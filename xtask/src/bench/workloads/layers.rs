//! What an overlay is given to do. Its layers are made once; the directory that a workload gets is the
//! top of a new overlay of them, with nothing written yet.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{KIB, MIB, Measured, Place, paths, programs};

/// Lower layers.
pub(in crate::bench) const LAYERS: usize = 10;

const DEPTH: usize = 20;
const DEEP_PATHS: usize = 25;
const FILES: usize = 1_000;
const LISTED: usize = 10;
/// Of one listed directory in one layer: some are its own, some are in every layer.
const OWN_ENTRIES: usize = 35;
const COMMON_ENTRIES: usize = 50;
const DIRECTORIES: usize = 50;

/// Fills the layers, from the bottom, with all that the workloads use.
///
/// Each layer has each directory, so that every one is merged of all; files are spread over the layers.
pub(in crate::bench) fn fill(layers: &[PathBuf], large_mib: usize) -> Result<()> {
    let small = [0x5a; 4 * KIB];
    for (index, layer) in layers.iter().enumerate() {
        for path in deep_directories(layer) {
            fs::create_dir_all(path)?;
        }
        for listed in listed_directories(layer) {
            fs::create_dir(&listed)?;
            for entry in 0..OWN_ENTRIES {
                File::create_new(listed.join(format!("layer{index}-{entry}")))?;
            }
            for entry in 0..COMMON_ENTRIES {
                File::create_new(listed.join(format!("common{entry}")))?;
            }
        }
        let (files, tree) = (layer.join("files"), layer.join("tree"));
        fs::create_dir(&files)?;
        fs::create_dir(&tree)?;
        for directory in paths(&tree, "directory", DIRECTORIES) {
            fs::create_dir(directory)?;
        }
        for file in (index..FILES).step_by(LAYERS) {
            fs::write(files.join(format!("file{file}")), small)?;
            let directory = tree.join(format!("directory{}", file % DIRECTORIES));
            fs::write(directory.join(format!("file{file}")), small)?;
        }
    }
    let bottom = &layers[0];
    for path in deep_directories(bottom) {
        fs::write(path.join("leaf"), "leaf")?;
    }
    let mut large = File::create_new(bottom.join("large"))?;
    let data = vec![0x5a; MIB];
    for _ in 0..large_mib {
        large.write_all(&data)?;
    }
    Ok(())
}

fn deep_directories(top: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| (1..DEPTH).fold(path, |path, depth| path.join(format!("d{depth}")));
    paths(&top.join("deep"), "path", DEEP_PATHS).into_iter().map(below).collect()
}

fn listed_directories(top: &Path) -> Vec<PathBuf> {
    paths(top, "listed", LISTED)
}

fn files(place: &Place<'_>) -> Vec<PathBuf> {
    paths(&place.path("files"), "file", FILES)
}

fn each(place: &Place<'_>, paths: &[PathBuf], work: fn(&Path) -> Result<()>) -> Result<Measured> {
    place.timed(paths.len(), || paths.iter().try_for_each(|path| work(path)))
}

fn look(path: &Path) -> Result<()> {
    rustix::fs::lstat(path)?;
    Ok(())
}

pub(in crate::bench) fn deep(place: &Place<'_>) -> Result<Measured> {
    let leaves: Vec<_> =
        deep_directories(place.directory).into_iter().map(|path| path.join("leaf")).collect();
    place.make_cold()?;
    each(place, &leaves, look)
}

pub(in crate::bench) fn cold_stat(place: &Place<'_>) -> Result<Measured> {
    place.make_cold()?;
    each(place, &files(place), look)
}

pub(in crate::bench) fn new_miss(place: &Place<'_>) -> Result<Measured> {
    let absent = paths(&place.path("files"), "absent", 4 * FILES);
    look(&place.path("files"))?;
    each(place, &absent, |path| {
        ensure!(rustix::fs::lstat(path).is_err(), "{} exists", path.display());
        Ok(())
    })
}

fn list(directory: &Path) -> Result<()> {
    let listed = fs::read_dir(directory)?.filter(Result::is_ok).count();
    let all = LAYERS * OWN_ENTRIES + COMMON_ENTRIES;
    ensure!(listed == all, "{listed} entries of {all} are listed");
    Ok(())
}

pub(in crate::bench) fn cold_readdir(place: &Place<'_>) -> Result<Measured> {
    place.make_cold()?;
    each(place, &listed_directories(place.directory), list)
}

pub(in crate::bench) fn warm_readdir(place: &Place<'_>) -> Result<Measured> {
    let directories = listed_directories(place.directory);
    directories.iter().try_for_each(|directory| list(directory))?;
    place.timed(20 * LISTED, || {
        (0..20).try_for_each(|_| directories.iter().try_for_each(|directory| list(directory)))
    })
}

/// One byte is enough for the kernel and for everyone else to copy all of a file.
fn touch_data(path: &Path) -> Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(b"!")?;
    Ok(())
}

pub(in crate::bench) fn copy_up_small(place: &Place<'_>) -> Result<Measured> {
    each(place, &files(place), touch_data)
}

pub(in crate::bench) fn copy_up_large(place: &Place<'_>) -> Result<Measured> {
    // What is read is cold for all of them, as most of it is in practice.
    place.make_cold()?;
    each(place, &[place.path("large")], touch_data)
}

pub(in crate::bench) fn unlink(place: &Place<'_>) -> Result<Measured> {
    each(place, &files(place), |path| Ok(fs::remove_file(path)?))
}

pub(in crate::bench) fn create(place: &Place<'_>) -> Result<Measured> {
    let new = paths(&place.path("files"), "new", 2 * FILES);
    each(place, &new, |path| Ok(fs::write(path, [0x5a; 4 * KIB])?))
}

pub(in crate::bench) fn rename(place: &Place<'_>) -> Result<Measured> {
    each(place, &files(place), |path| Ok(fs::rename(path, path.with_extension("renamed"))?))
}

pub(in crate::bench) fn chmod(place: &Place<'_>) -> Result<Measured> {
    each(place, &files(place), |path| {
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    })
}

pub(in crate::bench) fn small_read(place: &Place<'_>) -> Result<Measured> {
    let files = files(place);
    let mut buffer = [0; 4 * KIB];
    let mut pass = || -> Result<()> {
        for path in &files {
            File::open(path)?.read_exact(&mut buffer)?;
        }
        Ok(())
    };
    pass()?;
    place.timed(4 * FILES, || (0..4).try_for_each(|_| pass()))
}

pub(in crate::bench) fn cold_read(place: &Place<'_>) -> Result<Measured> {
    const READS: usize = 64;
    let mut buffer = vec![0; MIB];
    place.make_cold()?;
    place.timed(READS, || {
        let mut file = File::open(place.path("large"))?;
        (0..READS).try_for_each(|_| Ok(file.read_exact(&mut buffer)?))
    })
}

pub(in crate::bench) fn find(place: &Place<'_>) -> Result<Measured> {
    place.make_cold()?;
    place.timed(FILES, || programs::find(&place.path("tree")))
}

pub(in crate::bench) fn remove(place: &Place<'_>) -> Result<Measured> {
    place.timed(FILES, || programs::remove_tree(place.directory))
}
