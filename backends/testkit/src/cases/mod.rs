//! The conformance map: every promise that any filesystem makes, one case each.
//!
//! A file for each family. The text of a case's name says operation, condition and outcome.

mod attr;
mod create;
mod remove;
mod rename;

use std::sync::LazyLock;

use crate::Case;

/// The conformance map, in the order of its families.
#[must_use]
pub fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> =
        LazyLock::new(|| [attr::CASES, create::CASES, remove::CASES, rename::CASES].concat());
    &CASES
}
