//! Any bytes as the text of a composition.
//!
//! # Invariants
//! 1. Reading returns: no panic, no endless loop, no stack overflow, whatever the bytes.
//! 2. What parses prints as text that parses to the same tree.
//! 3. An error says something, in characters that a terminal shows as they are, and at a length that
//!    does not grow with the text.
//! 4. Checking a tree that includes no file reads none and holds invariants 1 and 3.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use stratafs::spec::{self, Composition, MAX_TEXT_BYTES, SpecError};

/// Reads the text and checks the invariants.
pub(crate) fn run(text: &[u8]) {
    match spec::parse(OsStr::from_bytes(text)) {
        Err(error) => well_said(&error),
        Ok(tree) => {
            let printed = tree.to_string();
            // Escapes make the printed text up to four times as long as the text that was read.
            if printed.len() <= MAX_TEXT_BYTES {
                let again = spec::parse(&printed);
                assert!(again.as_ref().is_ok_and(|again| *again == tree), "{printed}: {again:?}");
            }
            // A file that is included is the machine's and not the input's.
            if !text.contains(&b'@')
                && let Err(error) = Composition::parse(OsStr::from_bytes(text))
            {
                well_said(&error);
            }
        }
    }
}

fn well_said(error: &SpecError) {
    let text = error.to_string();
    assert!(!text.trim().is_empty());
    assert!(text.len() < 64 * 1024, "an error of {} bytes", text.len());
    let shown = |c: char| c == '\n' || !c.is_control();
    assert!(text.chars().all(shown), "an error with control characters: {text:?}");
}
