//! The overlay.

use std::path::PathBuf;
use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_overlayfs::{Builder, Layer, OverlayFs, RedirectDir, Whiteouts};

use super::claim::Claim;
use super::{Surroundings, build, cache_policy, passthrough_builder, refused, report};
use crate::spec::Inspection;
use crate::spec::error::SpecError;
use crate::spec::node::{Checked, Node};

pub(super) fn overlay(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    let builder = builder(node, surroundings)?.keep(Claim::of_overlay(node)?);
    let filesystem = builder.build().map_err(|error| refused(node, error))?;
    Ok(Arc::new(filesystem))
}

/// The overlay that `node` is, or that is inside of what only watches or guards it, to be looked at.
///
/// `alone` claims what it writes to, so that nobody else uses it meanwhile.
pub(in crate::spec) fn inspect(
    node: &Node,
    surroundings: &Surroundings,
    alone: bool,
) -> Result<Inspection, SpecError> {
    let mut at = node;
    while at.backend.name != "overlay" {
        at = match at.filesystem("inner") {
            Some(inner) => inner,
            None => {
                let problem = format!("{} has no layers to be told apart", node.backend.name);
                let report = report(node, problem).allowed("overlay(…)");
                return Err(SpecError::Arguments(Box::new(report)));
            }
        };
    }
    let mut builder = builder(at, surroundings)?;
    if alone {
        builder = builder.keep(Claim::of_overlay(at)?);
    }
    let overlay = builder.inspect().map_err(|error| refused(at, error))?;
    let mut layers = vec![at.filesystem("upper").map_or_else(String::new, label)];
    layers.extend(at.get_all("lower").filter_map(|setting| match &setting.value {
        Checked::Filesystem(lower) => Some(label(lower)),
        _ => None,
    }));
    Ok(Inspection { overlay, layers })
}

/// What a layer is called: its path, or what kind of filesystem it is.
fn label(layer: &Node) -> String {
    match layer.path("root_dir") {
        Some(path) => path.as_os_str().as_encoded_bytes().escape_ascii().to_string(),
        None => layer.backend.name.to_owned(),
    }
}

/// The layers are listed with the topmost first, as the kernel's `lowerdir=` lists them.
fn builder(node: &Node, surroundings: &Surroundings) -> Result<Builder, SpecError> {
    refuse_nested(node)?;
    let mut builder = OverlayFs::builder();
    let lowers: Vec<_> = node.get_all("lower").collect();
    for setting in lowers.into_iter().rev() {
        if let Checked::Filesystem(lower) = &setting.value {
            builder = builder.layer(build(lower, surroundings)?);
        }
    }
    if let Some(upper) = node.filesystem("upper") {
        builder = writable(builder, node, upper, surroundings)?;
    } else if node.path("work").is_some() {
        let problem = "`work` is set, and `upper` is not".to_owned();
        let report = report(node, problem).next("add upper=…, or drop work=…");
        return Err(SpecError::Arguments(Box::new(report)));
    }
    builder = match node.choice("redirect_dir") {
        Some("on") => builder.redirect_dir(RedirectDir::On),
        Some("off") => builder.redirect_dir(RedirectDir::Off),
        Some("follow") => builder.redirect_dir(RedirectDir::Follow),
        Some("nofollow") => builder.redirect_dir(RedirectDir::NoFollow),
        _ => builder,
    };
    if node.choice("whiteout") == Some("oci") {
        builder = builder.whiteouts(Whiteouts::Oci);
    }
    if node.get("xino").is_some() {
        builder = builder.xino(node.flag("xino"));
    }
    if node.get("index").is_some() {
        builder = builder.index(node.flag("index"));
    }
    builder = builder.metacopy(node.flag("metacopy"));
    builder = builder.userxattr(node.flag("userxattr")).volatile(node.flag("volatile"));
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
    Ok(builder)
}

/// The directory of the host that a layer shows, whoever watches or guards it.
fn host_path(layer: &Node) -> Option<PathBuf> {
    let mut at = layer;
    while let Some(inner) = at.filesystem("inner") {
        at = inner;
    }
    // What is not there its builder complains of.
    at.path("root_dir")?.canonicalize().ok()
}

/// Refuses directories of the host in one another, where what is written would change what is read,
/// or what is staged would be cleared away.
fn refuse_nested(node: &Node) -> Result<(), SpecError> {
    let upper = node.filesystem("upper").and_then(host_path);
    let beside = || node.filesystem("upper").and_then(|upper| upper.path("extra_root"));
    let work = node.path("work").or_else(beside).and_then(|path| path.canonicalize().ok());
    let refuse = |inner: &str, outer: &str| {
        let problem = format!("{inner} lies in {outer} (ELOOP)");
        let next = "use directories beside each other";
        Err(SpecError::Arguments(Box::new(report(node, problem).next(next))))
    };
    if let (Some(upper), Some(work)) = (&upper, &work)
        && upper != work
    {
        if work.starts_with(upper) {
            return refuse("`work`", "`upper`");
        }
        if upper.starts_with(work) {
            return refuse("`upper`", "`work`");
        }
    }
    for setting in node.get_all("lower") {
        let Checked::Filesystem(lower) = &setting.value else { continue };
        let Some(path) = host_path(lower) else { continue };
        let named = format!("the layer {}", label(lower));
        for (name, written) in [("`upper`", &upper), ("`work`", &work)] {
            let Some(written) = written else { continue };
            if path.starts_with(written) && path != *written {
                return refuse(&named, name);
            }
            if written.starts_with(&path) && path != *written {
                log::warn!("overlay: {name} lies in {named}, so it shows there, and changes");
            }
        }
    }
    Ok(())
}

/// A directory of the host has its staging directory beside it, as one filesystem with two roots;
/// anything else is divided by the overlay.
fn writable(
    builder: Builder,
    node: &Node,
    upper: &Node,
    surroundings: &Surroundings,
) -> Result<Builder, SpecError> {
    let wrong = |problem: &str, next: &str| {
        let report = report(node, problem.to_owned()).next(next);
        SpecError::Arguments(Box::new(report))
    };
    let is_host = upper.backend.name == "passthrough";
    let beside = if is_host { upper.path("extra_root") } else { None };
    if node.path("work").is_some() && beside.is_some() {
        let problem = "`work` is set, and `extra_root` of `upper`, which means the same";
        return Err(wrong(problem, "keep one of the two"));
    }
    let Some(work) = node.path("work").or(beside) else {
        if is_host {
            let problem = "`upper` is a directory of the host, and `work` is not set";
            let next = "add work=DIR, an empty directory beside it, on the same filesystem";
            return Err(wrong(problem, next));
        }
        return Ok(builder.writable(build(upper, surroundings)?));
    };
    if !is_host {
        let problem = "`work` is set, and `upper` is no directory of the host";
        return Err(wrong(problem, "drop work=…: this overlay makes its own staging directory"));
    }
    let share = passthrough_builder(upper, surroundings)?.extra_root(work).build();
    let share = Arc::new(share.map_err(|error| refused(upper, error))?);
    let Some(staging) = share.extra_root() else {
        return Err(wrong("the staging directory is not there", "report this"));
    };
    let fs: Arc<dyn DynFileSystem> = share;
    Ok(builder.writable(Arc::clone(&fs)).staging(Layer::at(fs, staging)))
}
