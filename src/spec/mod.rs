//! A composition of filesystems as text: read, checked, built.
//!
//! ```text
//! expr  = path | NAME "(" [arg {"," arg}] ")" | "@" word     spaces allowed around tokens
//! arg   = [key "="] (expr | word)                            key: snake_case; in router a path
//! path  = word beginning with / or .                         is passthrough(path)
//! word  = bytes other than space , ( ) = " ' \ or "…" or '…'; escapes \c and \xNN
//! ```
//!
//! * In a key `-` reads as `_`. A flag is given by its name alone, or as `NAME=true|false`.
//! * Words are bytes, not UTF-8. Escapes work in bare words and in both kinds of quotes: `\xNN` is
//!   the byte with that hexadecimal number, `\` before any character that is no letter or digit is
//!   that character.
//! * `~` and `$` are not expanded: a path that has them unquoted is refused with the reason.
//! * `@FILE.toml` stands for the composition in a file, wherever a filesystem can stand; see
//!   [`mod@file`] for what the file looks like.
//! * The text is at most [`MAX_TEXT_BYTES`] long and nests at most [`MAX_DEPTH`] deep.
//!
//! What each backend takes is in [`tables`]; `stratafs backends` prints it. Every error is a
//! [`SpecError`] that shows the line, a caret under the character concerned, what is allowed there
//! and what to do next:
//!
//! ```
//! use stratafs::spec::Composition;
//!
//! let error = Composition::parse("mem(capcity=1GiB)").unwrap_err().to_string();
//! assert!(error.starts_with(
//!     "cannot read the spec: mem has no key `capcity`\n  mem(capcity=1GiB)\n      ^\n"
//! ));
//! assert!(error.ends_with("did you mean `capacity`?"));
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`ast`] | the syntax tree and its printing |
//! | `parse` | text → syntax tree |
//! | `check` | syntax tree → backends with decoded settings |
//! | [`node`] | backends with decoded settings |
//! | [`mod@file`] | TOML → syntax tree, includes and their limits |
//! | `build` | backends with settings → the filesystem |
//! | [`inspect`] | looking at an overlay |
//! | [`tables`] | names, keys, kinds and help of every backend |
//! | [`error`] | errors and how they are shown |
//!
//! It knows every backend by name, and no transport.

pub mod ast;
mod build;
mod check;
mod duration;
pub mod error;
pub mod file;
pub mod inspect;
pub mod node;
mod parse;
mod size;
pub mod tables;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

pub use ast::Expr;
pub use error::{Report, Source, SpecError};
pub use inspect::{InspectError, Inspection};
pub use node::Node;
pub use parse::{MAX_DEPTH, MAX_TEXT_BYTES};

use build::Surroundings;
use check::SpanMap;
use stratafs_core::DynFileSystem;

/// Parses the text of a composition by the grammar alone: no name or value is checked and no file
/// is read.
///
/// # Errors
/// [`SpecError::Syntax`], and [`SpecError::Limit`] for text that is too long or too deep.
pub fn parse(text: impl AsRef<OsStr>) -> Result<Expr, SpecError> {
    parse_source(&Arc::new(Source::inline(text.as_ref().as_bytes())))
}

fn parse_source(source: &Arc<Source>) -> Result<Expr, SpecError> {
    parse::parse_bytes(source.text())
        .map_err(|error| error.into_spec_error(source, &SpanMap::Shift(0)))
}

/// A composition that has been read and checked, and can be built.
#[derive(Debug)]
pub struct Composition {
    expr: Expr,
    root: Node,
}

impl fmt::Display for Composition {
    /// Writes the composition as canonical text of one line, which reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)
    }
}

impl Composition {
    /// Reads and checks a composition. Files that it includes are read now, once.
    ///
    /// # Errors
    /// Any [`SpecError`] but [`SpecError::NotBuilt`] and [`SpecError::Build`].
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, SpecError> {
        let source = Arc::new(Source::inline(text.as_ref().as_bytes()));
        let expr = parse_source(&source)?;
        let root = check::check(&expr, &source)?;
        Ok(Self { expr, root })
    }

    /// The outermost filesystem.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Builds the filesystem. Each call builds another one, which shares nothing with the first.
    ///
    /// # Errors
    /// * [`SpecError::NotBuilt`]: this version cannot build a backend that the composition names.
    /// * [`SpecError::Build`]: a backend refused its settings or could not be brought up.
    pub fn build(&self) -> Result<Arc<dyn DynFileSystem>, SpecError> {
        build::build(&self.root, &Surroundings { root_owner: (0, 0), server: None })
    }

    /// Builds the filesystem like [`Self::build`], for a user and group that will serve it and shall
    /// own the root directories that backends make, unless the text names others. A guest's
    /// filesystem belongs to its root; a mount on this host to whoever mounts it.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_for(&self, uid: u32, gid: u32) -> Result<Arc<dyn DynFileSystem>, SpecError> {
        let (root_owner, server) = ((uid, gid), Some((uid, gid)));
        build::build(&self.root, &Surroundings { root_owner, server })
    }

    /// Builds the overlay that this composition is, to be looked at: its layers are not changed, and
    /// may be in use meanwhile. What only watches or guards an overlay is looked through.
    ///
    /// # Errors
    /// * [`SpecError::Arguments`]: it is no overlay.
    /// * Others as of [`Self::build`].
    pub fn inspect(&self) -> Result<Inspection, SpecError> {
        self.inspected(false)
    }

    /// Builds the overlay as [`Self::inspect`] does, to be mended: nobody else uses its writable layer
    /// until the answer is dropped.
    ///
    /// # Errors
    /// As [`Self::inspect`], and [`SpecError::Build`]: it is in use.
    pub fn inspect_alone(&self) -> Result<Inspection, SpecError> {
        self.inspected(true)
    }

    fn inspected(&self, alone: bool) -> Result<Inspection, SpecError> {
        let surroundings = Surroundings { root_owner: (0, 0), server: None };
        build::overlay::inspect(&self.root, &surroundings, alone)
    }
}
