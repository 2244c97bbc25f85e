//! What runs inside a guest: the conformance map on a directory, and shared mappings of a file.
//!
//! `guest-checks map LABEL DIRECTORY`, `map-host` for a directory of the host, and `guest-checks mmap
//! LABEL DIRECTORY` print a line for each check: `CHECK passed LABEL/NAME`, `CHECK failed LABEL/NAME: WHY` or `CHECK skipped LABEL/NAME: WHY`.
//! Linked statically, for a guest has no libraries.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a check that panics is seen by whoever counts them")]

use std::fs::OpenOptions;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use stratafs_testkit::{Capabilities, Stack, cases};
use vm_memory::{Bytes as _, FileOffset, MmapRegion, VolatileMemory as _};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["map", label, directory] => map(label, Path::new(directory), Capabilities::empty()),
        ["map-host", label, directory] => {
            map(label, Path::new(directory), Capabilities::XATTR_ON_SYMLINK);
        }
        ["mmap", label, directory] => mmap(label, Path::new(directory)),
        _ => {
            eprintln!("usage: guest-checks map|map-host|mmap LABEL DIRECTORY");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The conformance map, case by case, so that a hang is seen where it is.
fn map(label: &str, directory: &Path, host_lacks: Capabilities) {
    let stack = Stack::mounted(label, directory)
        .unwrap()
        .without(
            Capabilities::COLLAPSE_RANGE | Capabilities::INSERT_RANGE,
            "the kernel's FUSE client passes no such fallocate on",
        )
        .without(
            Capabilities::RACING_LINKS,
            "the kernel's FUSE client counts links wrongly where an unlink meets a getattr",
        )
        .without(Capabilities::ACCOUNTING, "others use the filesystem at the same time")
        .without(host_lacks, "symlinks of the host have no user attributes");
    for case in cases() {
        let begin = Instant::now();
        let report = stack.run_cases([case]);
        for name in &report.passed {
            println!("CHECK passed {label}/{name} {} ms", begin.elapsed().as_millis());
        }
        for (name, failure) in &report.failed {
            println!("CHECK failed {label}/{name}: {}", one_line(&failure.to_string()));
        }
        for (name, reason) in &report.skipped {
            println!("CHECK skipped {label}/{name}: {}", one_line(reason));
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is written through a shared mapping is read by read(2), and the other way round.
fn mmap(label: &str, directory: &Path) {
    let path = directory.join("mapped");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.unwrap();
    file.set_len(8192).unwrap();
    let mapping = MmapRegion::<()>::from_file(FileOffset::new(file, 0), 8192);
    let mapping = match mapping {
        Ok(mapping) => mapping,
        Err(error) => return println!("CHECK failed {label}/mmap_shared: {error}"),
    };
    let slice = mapping.as_volatile_slice();
    slice.write_slice(b"through the mapping", 4090).unwrap();
    let content = std::fs::read(&path).unwrap();
    let is_read = &content[4090..4109] == b"through the mapping";
    std::fs::write(&path, [b'w'; 8192]).unwrap();
    let mut byte = [0];
    slice.read_slice(&mut byte, 5000).unwrap();
    match (is_read, byte) {
        (true, [b'w']) => println!("CHECK passed {label}/mmap_shared"),
        seen => println!("CHECK failed {label}/mmap_shared: read and mapping differ: {seen:?}"),
    }
}
