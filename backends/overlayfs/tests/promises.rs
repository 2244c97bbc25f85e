//! What a user may rely on: one test for each promise, over layers in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "promises/copy_up.rs"]
mod copy_up;
#[path = "promises/cost.rs"]
mod cost;
#[path = "promises/deletions.rs"]
mod deletions;
#[path = "promises/format.rs"]
mod format;
#[path = "promises/identity.rs"]
mod identity;
#[path = "promises/links.rs"]
mod links;
#[path = "promises/metacopy.rs"]
mod metacopy;
#[path = "promises/refusals.rs"]
mod refusals;
