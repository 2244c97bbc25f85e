//! The conformance map: every promise that any filesystem makes, one case each.
//!
//! A file for each family. The text of a case's name says operation, condition and outcome.

mod attr;
mod concurrency;
mod create;
mod dir;
mod file;
mod limits;
mod link;
mod lock;
mod lookup;
mod privilege;
mod remove;
mod rename;
mod sparse;
mod special;
mod times;
mod tmpfile;
mod xattr;

use std::sync::LazyLock;

use crate::Case;

/// The conformance map, in the order of its families.
#[must_use]
pub fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| FAMILIES.concat());
    &CASES
}

const FAMILIES: &[&[Case]] = &[
    lookup::CASES,
    attr::CASES,
    create::CASES,
    remove::CASES,
    rename::CASES,
    link::CASES,
    file::CASES,
    sparse::CASES,
    dir::CASES,
    xattr::CASES,
    special::CASES,
    tmpfile::CASES,
    privilege::CASES,
    times::CASES,
    limits::CASES,
    lock::CASES,
    concurrency::CASES,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_distinct_names_that_are_directory_names() {
        let mut names: Vec<_> = cases().iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases().len());
        assert!(names.iter().all(|name| name.len() <= 255 && !name.contains('/')));
    }
}
