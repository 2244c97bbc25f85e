//! The arrows between the rooms, as absences: every source file is parsed, every path it names is
//! resolved, and the table in `rules` says what each room must not name.
//!
//! Each rule has a test that plants a breach, so that a rule that has stopped to bite is seen.

mod rules;
mod source;

use rules::{ABSENCES, Breach, FORBID, UNSAFE, breaches, manifest_breaches};
use source::Sources;

use crate::tree::files;

#[test]
fn sources_of_the_workspace_break_no_arrow() {
    let texts: Vec<(String, String)> = files("rs");
    assert!(texts.len() > 20, "only {} source files were found", texts.len());
    let sources = Sources::parse(texts.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let found = breaches(&sources);
    assert!(found.is_empty(), "{}", listed(&found));
}

#[test]
fn manifests_of_the_workspace_break_no_arrow() {
    let manifests = files("toml").into_iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    let own = manifests.filter(|(path, _)| !path.starts_with("fuzz/"));
    let found: Vec<Breach> = own.flat_map(|(_, text)| manifest_breaches(&text)).collect();
    assert!(found.is_empty(), "{}", listed(&found));
}

fn listed(found: &[Breach]) -> String {
    let lines = found.iter().map(|breach| format!("{}\n    {}", breach.rule, breach.what));
    let first: Vec<String> = lines.take(40).collect();
    format!("{} breaches:\n{}", found.len(), first.join("\n"))
}

/// The rules that these files break.
fn rules_broken_by(files: &[(&str, &str)]) -> Vec<String> {
    let mut rules: Vec<String> =
        breaches(&Sources::parse(files.iter().copied())).into_iter().map(|b| b.rule).collect();
    rules.dedup();
    rules
}

/// One test for each rule: a text at a path that breaks this rule and no other.
macro_rules! planted {
    ($($test:ident: $rule:expr, $path:literal, $text:literal;)*) => {
        $(
            #[test]
            fn $test() {
                assert_eq!(rules_broken_by(&[($path, $text)]), [$rule]);
            }
        )*

        #[test]
        fn every_rule_has_a_planted_breach() {
            let planted = [$($rule),*];
            let rules = ABSENCES.iter().map(|absence| absence.name).chain([UNSAFE, FORBID]);
            let without: Vec<&str> = rules.filter(|rule| !planted.contains(rule)).collect();
            assert!(without.is_empty(), "no breach is planted for {without:?}");
        }
    };
}

planted! {
    core_that_names_sys_is_a_breach:
        "core names no crate of ours",
        "backends/core/src/node.rs", "use stratafs_sys::stat;";
    core_that_reads_a_file_is_a_breach:
        "core makes no system call and starts no thread",
        "backends/core/src/node.rs", "fn f() { let _ = std::fs::read(\"x\"); }";
    memfs_that_names_rustix_is_a_breach:
        "raw system calls are in sys alone",
        "backends/memfs/src/file.rs", "use rustix::fs::openat;";
    protocol_that_owns_a_descriptor_is_a_breach:
        "protocol owns no descriptor and does no input or output",
        "src/protocol/reply.rs", "struct Reply { to: std::os::fd::OwnedFd }";
    protocol_that_names_spec_is_a_breach:
        "protocol names core alone",
        "src/protocol/init.rs", "use crate::spec::Spec;";
    transport_that_names_a_backend_is_a_breach:
        "a transport names protocol, core and sys alone",
        "src/transport/fuse_dev/mount.rs", "fn f(fs: &stratafs_memfs::MemFs) {}";
    backend_that_names_another_is_a_breach:
        "a backend names core, sys and transfer alone",
        "backends/overlayfs/src/lookup.rs", "use stratafs_passthroughfs as lower;";
    transfer_that_names_a_backend_is_a_breach:
        "transfer names core and sys alone",
        "backends/transfer/src/extents.rs", "use stratafs_memfs::MemFs;";
    sys_that_names_a_backend_is_a_breach:
        "sys names core alone",
        "backends/sys/src/mount.rs", "use stratafs_memfs::MemFs;";
    testkit_that_names_a_backend_is_a_breach:
        "testkit names core and sys alone",
        "backends/testkit/src/model.rs", "use stratafs_memfs::MemFs;";
    command_that_names_testkit_is_a_breach:
        "only tests name testkit",
        "src/record/replay.rs", "use stratafs_testkit::Faulty;";
    cli_that_names_protocol_is_a_breach:
        "the command's arguments name workspace, spec, oci, sandbox and transport alone",
        "src/cli/mount.rs", "use crate::protocol::Session;";
    sandbox_that_names_spec_is_a_breach:
        "the sandbox names core and sys alone",
        "src/sandbox/root.rs", "use crate::spec::Composition;";
    main_that_names_transport_is_a_breach:
        "main names cli alone",
        "src/main.rs", "#![forbid(unsafe_code)] fn main() { stratafs::transport::serve() }";
    client_that_names_cli_is_a_breach:
        "only main names cli",
        "src/client/walk.rs", "use super::super::cli::mount;";
    spec_that_names_transport_is_a_breach:
        "spec names the backends, oci and core alone",
        "src/spec/build.rs", "use crate::transport::fuse_dev;";
    workspace_that_names_protocol_is_a_breach:
        "workspace names spec, oci, client, transport and core alone",
        "src/workspace/run.rs", "use crate::protocol::Session;";
    unsafe_outside_of_sys_is_a_breach:
        UNSAFE,
        "backends/memfs/src/file.rs", "fn f() { unsafe { g() } }";
    crate_that_permits_unsafe_is_a_breach:
        FORBID,
        "backends/memfs/src/lib.rs", "#![warn(missing_docs)]";
}

#[test]
fn names_within_a_room_and_of_what_it_may_are_no_breach() {
    let files = [
        ("src/lib.rs", "#![forbid(unsafe_code)] pub mod protocol; pub use stratafs_core as core;"),
        ("src/protocol/mod.rs", "mod init; use init::Init; use crate::core::Errno; use std::io;"),
        ("src/protocol/init.rs", "use super::Header; use stratafs_core::*; use std::mem::size_of;"),
        ("src/cli/mount.rs", "use crate::{spec::Spec, transport::fuse_dev, cli::Exit};"),
        ("backends/memfs/src/file.rs", "mod fs {} use crate::fs; use stratafs_core::fs as other;"),
    ];
    assert_eq!(rules_broken_by(&files), [""; 0]);
}

#[test]
fn tests_may_name_testkit_and_another_backend() {
    let files = [
        ("tests/in_process/main.rs", "#![forbid(unsafe_code)] use stratafs_testkit::cases;"),
        ("backends/memfs/src/lib.rs", "#![forbid(unsafe_code)] #[cfg(test)] mod tests;"),
        ("backends/memfs/src/tests.rs", "use stratafs_testkit::cases; use std::thread;"),
        ("backends/core/src/node.rs", "#[cfg(test)] mod tests { use std::thread; }"),
    ];
    assert_eq!(rules_broken_by(&files), [""; 0]);
}

/// Ways to hide a name; each is `core` reading a file, or `protocol` naming a transport.
macro_rules! found_out {
    ($($test:ident: $($path:literal, $text:literal),+;)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(rules_broken_by(&[$(($path, $text)),+]).len(), 1);
        }
    )*};
}

found_out! {
    name_behind_an_alias_is_found:
        "backends/core/src/a.rs", "use std as s; fn f() { s::fs::read(\"x\"); }";
    name_behind_two_imports_is_found:
        "backends/core/src/a.rs", "use std::io; fn f() { use io::stdin; }";
    name_behind_a_glob_of_its_parent_is_found:
        "backends/core/src/a.rs", "use std::*;";
    name_in_a_group_is_found:
        "backends/core/src/a.rs", "use std::{mem, net::{self as n}};";
    name_in_a_macro_is_found:
        "backends/core/src/a.rs", "fn f() { assert!(matches!(1, 1) && std::fs::exists(\"x\")); }";
    name_in_an_attribute_is_found:
        "backends/core/src/a.rs", "#[derive(libc::Thing)] struct S;";
    name_in_a_generic_argument_is_found:
        "backends/core/src/a.rs", "fn f(x: Option<Vec<std::fs::File>>) {}";
    name_in_a_qualified_path_is_found:
        "backends/core/src/a.rs", "fn f() { <std::fs::File as Clone>::clone; }";
    name_behind_extern_crate_is_found:
        "backends/core/src/a.rs", "extern crate libc as c; fn f() { c::getpid(); }";
    name_behind_a_reexport_is_found:
        "src/lib.rs", "#![forbid(unsafe_code)] mod transport; pub use transport::fuse_dev as dev;",
        "src/protocol/a.rs", "fn f() { crate::dev::mount(); }";
    name_behind_a_globbed_reexport_is_found:
        "src/lib.rs", "#![forbid(unsafe_code)] pub use transport::*; pub mod transport;",
        "src/transport/mod.rs", "pub struct Mount;",
        "src/protocol/a.rs", "use crate::Mount;";
    name_by_super_is_found:
        "src/protocol/family/a.rs", "use super::super::super::transport::Mount;";
    name_in_an_inline_module_is_found:
        "backends/core/src/a.rs", "mod inner { use std::process::Command; }";
    unsafe_in_a_macro_is_found:
        "backends/memfs/src/a.rs", "macro_rules! m { () => { unsafe { f() } }; }";
    unsafe_implementation_is_found:
        "src/protocol/a.rs", "unsafe impl Send for S {}";
    unsafe_in_a_test_is_found:
        "backends/memfs/src/a.rs", "#[cfg(test)] mod tests { unsafe fn f() {} }";
}

#[test]
fn manifest_of_core_that_depends_on_ours_is_a_breach() {
    let text = "[package]\nname = \"stratafs-core\"\n[dependencies]\nstratafs-sys = \"0.1\"\n";
    assert_eq!(manifest_breaches(text).len(), 1);
}

#[test]
fn manifest_of_core_that_depends_on_libc_for_one_target_is_a_breach() {
    let text = "[package]\nname = \"stratafs-core\"\n\
                [target.'cfg(unix)'.dependencies]\nc = { package = \"libc\", version = \"0.2\" }\n";
    assert_eq!(manifest_breaches(text).len(), 1);
}

#[test]
fn manifest_of_a_backend_that_depends_on_testkit_is_a_breach_only_outside_of_tests() {
    let of = |kind: &str| {
        format!("[package]\nname = \"stratafs-memfs\"\n[{kind}]\nstratafs-testkit = \"0.1\"\n")
    };
    assert_eq!(manifest_breaches(&of("dependencies")).len(), 1);
    assert_eq!(manifest_breaches(&of("dev-dependencies")).len(), 0);
}

#[test]
fn manifest_of_an_unknown_package_is_a_breach() {
    assert_eq!(manifest_breaches("[package]\nname = \"stratafs-new\"\n").len(), 1);
}
