//! From a checked composition to the filesystem.

mod claim;
mod dual;
pub(super) mod overlay;
mod router;

use std::sync::Arc;

use stratafs_core::{CachePolicy, DynFileSystem, Intercepted, ReadOnly, Traced};
use stratafs_memfs::{Locks, MemFs};
use stratafs_passthroughfs::{
    Builder as PassthroughBuilder, IdRule, IdRuleError, OpenMode, Ownership, PassthroughFs,
};

use super::error::{Report, SpecError};
use super::node::Node;
use super::tables::Backend;

/// What the surroundings decide where the text does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// Owner and group of a root directory that a backend makes.
    pub(super) root_owner: (u32, u32),
    /// The user and group that will serve it, where they are not those of this process.
    pub(super) server: Option<(u32, u32)>,
}

/// Builds the filesystem that a node describes.
type Builder = fn(&Node, &Surroundings) -> Result<Arc<dyn DynFileSystem>, SpecError>;

/// The backends that this version can build, by the names of their tables.
const BUILDERS: &[(&str, Builder)] = &[
    ("mem", mem),
    ("passthrough", passthrough),
    ("overlay", overlay::overlay),
    ("dual", dual::dual),
    ("router", router::router),
    ("readonly", read_only),
    ("traced", traced),
];

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
pub(super) fn build(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    match builder(node.backend) {
        Some(build) => build(node, surroundings),
        None => Err(not_built(node)),
    }
}

fn not_built(node: &Node) -> SpecError {
    let known: Vec<&str> = BUILDERS.iter().map(|(name, _)| *name).collect();
    let report = report(node, format!("{} is not yet built into this version", node.backend.name))
        .allowed(known.join(", "))
        .next("use one of these, or a later version");
    SpecError::NotBuilt(Box::new(report))
}

fn report(node: &Node, problem: String) -> Report {
    Report::new("cannot build the filesystem", problem).at(node.place.clone())
}

/// The filesystem that the key `name` of `node` is set to, built. The check lets no node without
/// its needed keys pass, so a missing one here is one that the table forgot to need.
fn inner(
    node: &Node,
    name: &str,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    match node.filesystem(name) {
        Some(inner) => build(inner, surroundings),
        None => Err(SpecError::Arguments(Box::new(report(node, format!("`{name}` is not set"))))),
    }
}

/// `filesystem`, refusing changes if `node` has the flag `readonly`.
fn with_readonly(node: &Node, filesystem: Arc<dyn DynFileSystem>) -> Arc<dyn DynFileSystem> {
    if node.flag("readonly") {
        Arc::new(Intercepted::new(filesystem, ReadOnly::new()))
    } else {
        filesystem
    }
}

/// The policy of the key `cache`; `None` leaves it to the backend.
fn cache_policy(node: &Node) -> Option<CachePolicy> {
    match node.choice("cache")? {
        "never" => Some(CachePolicy::Never),
        "always" => Some(CachePolicy::Always),
        _ => Some(CachePolicy::Auto),
    }
}

fn mem(node: &Node, surroundings: &Surroundings) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    let (uid, gid) = surroundings.root_owner;
    let id = |name: &str, or: u32| node.id(name).unwrap_or(or);
    let mut builder = MemFs::builder().root_owner(id("root_uid", uid), id("root_gid", gid));
    if let Some(mode) = node.mode("root_mode") {
        builder = builder.root_mode(mode);
    }
    if let Some(capacity) = node.size("capacity") {
        builder = builder.capacity(capacity);
    }
    if let Some(count) = node.count("max_inodes") {
        builder = builder.max_inodes(count);
    }
    if let Some(count) = node.count("max_handles") {
        builder = builder.max_handles(count);
    }
    if node.choice("locks") == Some("remote") {
        builder = builder.locks(Locks::Remote);
    }
    // The policy sets all timeouts, so it comes before them.
    if let Some(policy) = cache_policy(node) {
        builder = builder.cache_policy(policy);
    }
    if let Some(timeout) = node.time("entry_timeout") {
        builder = builder.entry_timeout(timeout);
    }
    if let Some(timeout) = node.time("attr_timeout") {
        builder = builder.attr_timeout(timeout);
    }
    if let Some(timeout) = node.time("negative_timeout") {
        builder = builder.negative_timeout(timeout);
    }
    let filesystem = builder.writeback(node.flag("writeback")).build();
    let filesystem = filesystem.map_err(|error| refused(node, error))?;
    Ok(with_readonly(node, Arc::new(filesystem)))
}

fn passthrough(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    let share = passthrough_builder(node, surroundings)?.build();
    Ok(Arc::new(share.map_err(|error| refused(node, error))?))
}

/// What a backend said when it refused the settings of `node`.
fn refused(node: &Node, error: impl std::error::Error + Send + Sync + 'static) -> SpecError {
    let report = report(node, error.to_string());
    SpecError::Build { report: Box::new(report), cause: Box::new(error) }
}

fn passthrough_builder(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<PassthroughBuilder, SpecError> {
    let (uid, gid) = surroundings.root_owner;
    let mut builder = PassthroughFs::builder()
        .readonly(node.flag("readonly"))
        .exclusive(node.flag("exclusive"))
        .posix_acl(node.flag("posix_acl"))
        .follow_root(node.flag("follow_root"))
        .writeback(node.flag("writeback"));
    if let Some((uid, gid)) = surroundings.server {
        builder = builder.serve_as(uid, gid);
    }
    if let Some(path) = node.path("root_dir") {
        builder = builder.root_dir(path);
    }
    if let Some(path) = node.path("extra_root") {
        builder = builder.extra_root(path);
    }
    if node.get("xattr").is_some() {
        builder = builder.xattr(node.flag("xattr"));
    }
    match node.choice("ownership") {
        Some("virtual") => builder = builder.ownership(Ownership::Virtual),
        Some("host") => builder = builder.ownership(Ownership::Host),
        Some("squash") => builder = builder.ownership(Ownership::Squash),
        _ => {}
    }
    let owner = (node.id("default_uid"), node.id("default_gid"));
    if owner != (None, None) {
        builder = builder.default_owner(owner.0.unwrap_or(uid), owner.1.unwrap_or(gid));
    }
    for rule in id_rules(node, "uid_map") {
        builder = builder.uid_map(rule?);
    }
    for rule in id_rules(node, "gid_map") {
        builder = builder.gid_map(rule?);
    }
    let count = |name| node.count(name).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    if let Some(count) = count("fd_budget") {
        builder = builder.fd_budget(count);
    }
    if let Some(count) = count("max_handles") {
        builder = builder.max_handles(count);
    }
    if node.choice("open") == Some("stateless") {
        builder = builder.open(OpenMode::Stateless);
    }
    if let Some(policy) = cache_policy(node) {
        builder = builder.cache_policy(policy);
    }
    if let Some(timeout) = node.time("entry_timeout") {
        builder = builder.entry_timeout(timeout);
    }
    if let Some(timeout) = node.time("attr_timeout") {
        builder = builder.attr_timeout(timeout);
    }
    if let Some(timeout) = node.time("negative_timeout") {
        builder = builder.negative_timeout(timeout);
    }
    Ok(builder)
}

/// The rules that the key `name` of `node` was given.
fn id_rules<'n>(
    node: &'n Node,
    name: &'n str,
) -> impl Iterator<Item = Result<IdRule, SpecError>> + 'n {
    node.texts(name).map(|(text, place)| {
        text.to_string_lossy().parse().map_err(|error: IdRuleError| {
            let report = Report::new("cannot build the filesystem", error.to_string());
            SpecError::Build { report: Box::new(report.at(place.clone())), cause: Box::new(error) }
        })
    })
}

fn read_only(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    Ok(Arc::new(Intercepted::new(inner(node, "inner", surroundings)?, ReadOnly::new())))
}

/// The lines are labelled with the name of what is traced.
fn traced(node: &Node, surroundings: &Surroundings) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    let label = node.filesystem("inner").map_or("", |inner| inner.backend.name);
    Ok(Arc::new(Intercepted::new(inner(node, "inner", surroundings)?, Traced::new(label))))
}
