//! Mounted dual filesystems and routers, compared with tmpfs.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::Tally;
use super::pjdfstest::{self, Comparison};
use crate::target::{Scratch, Target};

pub(super) const FSX_CASES: usize = 2;

pub(super) fn pjdfstest(program: &Path, scratch: &Scratch) -> Result<Tally> {
    let [dual, router] = specs(scratch)?.map(|spec| Target::stratafs(program, spec));
    pjdfstest::run(
        &Comparison {
            reference: (&Target::Tmpfs, pjdfstest::TESTS - 10),
            targets: vec![("dual", &dual), ("router", &router)],
            skipped: &[],
        },
        scratch,
    )
}

/// One run on each.
pub(super) fn fsx(program: &Path, scratch: &Scratch, first: u64, operations: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    for (seed, spec) in (first..).zip(specs(scratch)?) {
        let target = Target::stratafs(program, spec);
        tally += super::exercise(&target, scratch, seed, operations)?;
    }
    Ok(tally)
}

/// Memory that takes the changes of a host directory with something in it; and memory with mounts in it.
fn specs(scratch: &Scratch) -> Result<[String; 2]> {
    let tree = scratch.directory("tree")?;
    fs::write(tree.join("file"), "of backend B")?;
    let tree = tree.display();
    Ok([
        format!("dual(a=mem(capacity=1GiB), b={tree}, policy=read-backend-b-write-backend-a)"),
        format!("router(/=mem(capacity=1GiB), /host={tree}, /made/up=mem())"),
    ])
}
