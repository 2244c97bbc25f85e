//! Two filesystems under one tree.

use std::sync::Arc;

use stratafs_core::DynFileSystem;
use stratafs_dualfs::{
    BackendAFallbackToBackendBRead, BackendAOnly, DispatchPolicy, DualFs,
    MergeReadsBackendAPrecedence, ReadBackendBWriteBackendA,
};

use super::claim::Claim;
use super::{Surroundings, cache_policy, inner, refused};
use crate::spec::error::SpecError;
use crate::spec::node::Node;

pub(super) fn dual(
    node: &Node,
    surroundings: &Surroundings,
) -> Result<Arc<dyn DynFileSystem>, SpecError> {
    let mut builder = DualFs::builder()
        .backend_a(inner(node, "a", surroundings)?)
        .backend_b(inner(node, "b", surroundings)?)
        .shared_policy(policy(node))
        .userxattr(node.flag("userxattr"));
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
    // Where nothing but `a` is looked at nothing is staged either.
    if !matches!(node.choice("policy"), Some("backend-a-only" | "a-only")) {
        builder = builder.keep(Claim::of_dual(node)?);
    }
    let filesystem = builder.build().map_err(|error| refused(node, error))?;
    Ok(super::with_readonly(node, Arc::new(filesystem)))
}

fn policy(node: &Node) -> Arc<dyn DispatchPolicy> {
    match node.choice("policy") {
        Some("backend-a-only" | "a-only") => Arc::new(BackendAOnly),
        Some("backend-a-fallback-to-backend-b-read" | "a-fallback-b-read") => {
            Arc::new(BackendAFallbackToBackendBRead)
        }
        Some("merge-reads-backend-a-precedence" | "merge-a-first") => {
            Arc::new(MergeReadsBackendAPrecedence)
        }
        _ => Arc::new(ReadBackendBWriteBackendA),
    }
}
