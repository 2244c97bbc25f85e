//! Mounted overlays, with an upper of the host and one in memory, compared with the kernel's overlayfs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::pjdfstest::{self, Comparison};
use super::{Tally, private_ext4};
use crate::target::{Ext4, Scratch, Target};

/// Of pjdfstest's tests so many make a character device 0:0, which is a whiteout and refused.
const REFUSED_BY_THE_KERNEL: usize = 41;

pub(super) const FSX_CASES: usize = 2;

pub(super) fn pjdfstest(program: &Path, scratch: &Scratch) -> Result<Tally> {
    let Some(ext4) = private_ext4(scratch, "host") else {
        return Ok(Tally { skipped: 2 * pjdfstest::TESTS, ..Tally::default() });
    };
    let layers = Layers::new(&ext4, "kernel")?;
    let kernel =
        Target::Kernel { label: "the kernel's overlayfs", arguments: layers.mount_words() };
    let host = Target::stratafs(program, Layers::new(&ext4, "ours")?.spec());
    let memory = Target::stratafs(program, Layers::new(&ext4, "memory")?.spec_in_memory());
    pjdfstest::run(
        &Comparison {
            reference: (&kernel, pjdfstest::TESTS - REFUSED_BY_THE_KERNEL - 10),
            targets: vec![("host", &host), ("memory", &memory)],
            skipped: &[],
        },
        scratch,
    )
}

/// One run with each kind of upper.
pub(super) fn fsx(program: &Path, scratch: &Scratch, first: u64, operations: u64) -> Result<Tally> {
    let Some(ext4) = private_ext4(scratch, "host") else {
        return Ok(Tally { skipped: FSX_CASES, ..Tally::default() });
    };
    let specs =
        [Layers::new(&ext4, "ours")?.spec(), Layers::new(&ext4, "memory")?.spec_in_memory()];
    let mut tally = Tally::default();
    for (seed, spec) in (first..).zip(specs) {
        let target = Target::stratafs(program, spec);
        tally += super::exercise(&target, scratch, seed, operations)?;
    }
    Ok(tally)
}

/// The directories of one overlay, all empty.
struct Layers {
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn new(ext4: &Ext4, name: &str) -> Result<Self> {
        let directory = |of: &str| ext4.directory(&format!("{name}-{of}"));
        Ok(Self {
            lower: directory("lower")?,
            upper: directory("upper")?,
            work: directory("work")?,
        })
    }

    fn spec(&self) -> String {
        let Self { lower, upper, work } = self;
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        format!("overlay(lower={lower}, upper={upper}, work={work})")
    }

    fn spec_in_memory(&self) -> String {
        format!("overlay(lower={}, upper=mem(capacity=1GiB))", self.lower.display())
    }

    fn mount_words(&self) -> Vec<OsString> {
        let Self { lower, upper, work } = self;
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        ["-t", "overlay", "-o", &options, "stratafs-xtask"].map(Into::into).into()
    }
}
