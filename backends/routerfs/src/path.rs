//! Places in the tree as text.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use stratafs_core::{Name, NameBuf};

/// The names that lead from the root to `path`: none to `/` itself.
///
/// `None` if it does not begin with a slash, or holds `.`, `..` or a name that is none. Slashes that
/// follow each other count as one, and one at the end as none.
pub(crate) fn parse(path: &Path) -> Option<Vec<NameBuf>> {
    let rest = path.as_os_str().as_bytes().strip_prefix(b"/")?;
    let parts = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(|part| Name::new(part).ok().map(Name::to_owned)).collect()
}

/// `names` as text, with unusual bytes escaped.
pub(crate) fn show<'a>(names: impl IntoIterator<Item = &'a NameBuf>) -> String {
    let text: String =
        names.into_iter().map(|name| format!("/{}", name.as_bytes().escape_ascii())).collect();
    if text.is_empty() { "/".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_absolute_paths_alone_and_show_is_its_inverse() {
        for (path, shown) in [("/", "/"), ("//", "/"), ("/a", "/a"), ("//a//b/", "/a/b")] {
            assert_eq!(parse(Path::new(path)).map(|names| show(&names)).as_deref(), Some(shown));
        }
        for path in ["", "a", "./a", "/a/../b", "/./a", "/a\0"] {
            assert_eq!(parse(Path::new(path)), None, "{path:?}");
        }
    }
}
