//! Several filesystems, each at its own path.

use std::path::Path;
use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_routerfs::{MountFlags, RouterFs};

use super::{Surroundings, build, cache_policy, refused};
use crate::spec::error::{Report, SpecError};
use crate::spec::node::{Checked, Node, Target};

/// The keys that name mounts, with what they say of them.
const FLAGS: [(&str, MountFlags); 3] =
    [("nosuid", MountFlags::NOSUID), ("nodev", MountFlags::NODEV), ("noexec", MountFlags::NOEXEC)];

pub(super) fn router(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    check_flags(node)?;
    let mut builder = RouterFs::builder();
    for (path, mount) in mounts(node) {
        builder = builder.mount_with(path, build(mount, surroundings)?, flags(node, path));
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
    let filesystem = builder.build().map_err(|error| refused(node, error))?;
    Ok(super::with_readonly(node, Arc::new(filesystem)))
}

fn mounts(node: &Node) -> impl Iterator<Item = (&Path, &Node)> {
    node.settings.iter().filter_map(|setting| match (&setting.target, &setting.value) {
        (Target::Mount(path), Checked::Filesystem(mount)) => Some((path.as_path(), &**mount)),
        _ => None,
    })
}

fn flags(node: &Node, path: &Path) -> MountFlags {
    let named = |name| {
        node.get_all(name).any(|setting| matches!(&setting.value, Checked::Path(at) if at == path))
    };
    FLAGS.into_iter().filter(|(name, _)| named(name)).map(|(_, flag)| flag).collect()
}

/// Refuses a flag of a path where nothing is mounted: it would say nothing.
fn check_flags(node: &Node) -> Result<(), SpecError> {
    for (name, _) in FLAGS {
        for setting in node.get_all(name) {
            let Checked::Path(at) = &setting.value else { continue };
            if mounts(node).any(|(path, _)| path == at) {
                continue;
            }
            let known: Vec<String> =
                mounts(node).map(|(path, _)| path.display().to_string()).collect();
            let problem = format!("`{name}` is set for {}, where nothing is mounted", at.display());
            let report = Report::new("cannot build the filesystem", problem)
                .at(setting.place.clone())
                .allowed(known.join(", "))
                .next("give the path of a mount, as it is written there");
            return Err(SpecError::Arguments(Box::new(report)));
        }
    }
    Ok(())
}
