//! From a checked composition to the filesystem.

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Intercepted, ReadOnly};

use super::error::{Report, SpecError};
use super::node::Node;
use super::tables::Backend;

/// Builds the filesystem that a node describes.
type Builder = fn(&Node) -> Result<Arc<dyn DynFileSystem>, SpecError>;

/// The backends that this version can build, by the names of their tables.
const BUILDERS: &[(&str, Builder)] = &[("readonly", read_only)];

fn builder(backend: &Backend) -> Option<Builder> {
    BUILDERS.iter().find(|(name, _)| *name == backend.name).map(|(_, build)| *build)
}

impl Backend {
    /// True if this version can build it; one that it cannot build is still read and checked.
    pub fn is_built(&self) -> bool {
        builder(self).is_some()
    }
}

/// Builds the filesystem that `node` describes, innermost first.
///
/// # Errors
/// [`SpecError::NotBuilt`] and [`SpecError::Build`].
pub(super) fn build(node: &Node) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    match builder(node.backend) {
        Some(build) => build(node),
        None => Err(not_built(node)),
    }
}

/// The filesystem that the key `name` of `node` is set to, built. The check lets no node without
/// its needed keys pass, so a missing one here is one that the table forgot to need.
fn inner(node: &Node, name: &str) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    match node.filesystem(name) {
        Some(inner) => build(inner),
        None => {
            let report = Report::new("cannot build the filesystem", format!("`{name}` is not set"));
            Err(SpecError::Arguments(Box::new(report.at(node.place.clone()))))
        }
    }
}

fn read_only(node: &Node) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    Ok(Arc::new(Intercepted::new(inner(node, "inner")?, ReadOnly::new())))
}

fn not_built(node: &Node) -> SpecError {
    let known: Vec<&str> = BUILDERS.iter().map(|(name, _)| *name).collect();
    let problem = format!("{} is not yet built into this version", node.backend.name);
    let report = Report::new("cannot build the filesystem", problem)
        .at(node.place.clone())
        .allowed(known.join(", "))
        .next("use one of these, or a later version");
    SpecError::NotBuilt(Box::new(report))
}
