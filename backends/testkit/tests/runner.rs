//! What a run does with a case that misbehaves, and what its report says.

#![forbid(unsafe_code)]

use stratafs_core::{Errno, OpenFlags};
use stratafs_testkit::{
    Caller, Capabilities, Case, Family, Report, Stack, Verdict, World, equal, refused,
};

fn passes(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    equal(w.read("f")?, b"data", "the data")
}

fn fails(w: &World<'_>) -> Verdict {
    refused(w.mkdir("d", 0o755), Errno::EEXIST)
}

fn panics(_: &World<'_>) -> Verdict {
    panic!("something broke")
}

fn leaves_a_file_open(w: &World<'_>) -> Verdict {
    w.create("f", OpenFlags::READ_WRITE, 0o644)?;
    Ok(())
}

fn leaves_a_tree_behind(w: &World<'_>) -> Verdict {
    w.mkdir("d", 0o700)?;
    w.mkdir("d/e", 0o700)?;
    w.file("d/e/f", b"data")?;
    Ok(())
}

fn asks_for_another(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o077))?;
    w.mkdir("d", 0o777)?;
    equal(w.stat("d")?.mode, 0o040_700, "mode")
}

fn stack() -> (Stack, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let stack = Stack::mounted("here", dir.path()).expect("it can be opened");
    (stack.without(Capabilities::ACCOUNTING, "others use this filesystem too"), dir)
}

fn run(run: fn(&World<'_>) -> Verdict) -> Report {
    let (stack, dir) = stack();
    let report = stack.run_cases([&Case::new("one_case", Family::File, run)]);
    let left = std::fs::read_dir(dir.path()).expect("it can be listed").count();
    assert_eq!(left, 0, "a case leaves nothing behind, whatever it does");
    report
}

#[test]
fn case_that_passes_is_counted() {
    let report = run(passes);
    assert_eq!(report.passed, ["one_case"]);
    assert!(report.to_string().ends_with("here: 1 passed, 0 failed, 0 skipped"));
    report.assert_passed();
}

#[test]
fn case_that_fails_is_told_with_its_place() {
    let report = run(fails);
    assert!(report.has_failed("one_case"));
    let text = report.to_string();
    assert!(text.contains("EEXIST") && text.contains("runner.rs:"), "{text}");
    assert!(text.ends_with("here: 0 passed, 1 failed, 0 skipped"), "{text}");
}

#[test]
fn case_that_panics_fails() {
    assert!(run(panics).to_string().contains("a panic: something broke"));
}

#[test]
fn case_that_leaves_a_file_open_fails() {
    assert!(run(leaves_a_file_open).to_string().contains("left 1 files open"));
}

#[test]
fn case_that_leaves_a_tree_behind_passes() {
    run(leaves_a_tree_behind).assert_passed();
}

#[test]
fn umask_of_a_case_is_not_that_of_the_process() {
    use std::os::unix::fs::PermissionsExt;
    let (stack, dir) = stack();
    let mode_of_a_new = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("it can be made");
        std::fs::metadata(path).expect("it is there").permissions().mode()
    };
    let before = mode_of_a_new("before");
    let case = Case::new("one_case", Family::File, asks_for_another);
    stack.run_cases([&case]).assert_passed();
    assert_eq!(mode_of_a_new("after"), before);
}

#[test]
fn case_that_needs_a_gap_is_skipped_with_its_reason() {
    let (stack, _dir) = stack();
    let stack = stack.without(Capabilities::HARD_LINKS, "the medium has none");
    let case = Case::new("one_case", Family::Link, passes).needing(Capabilities::HARD_LINKS);
    let report = stack.run_cases([&case]);
    assert_eq!(report.skipped, [("one_case", "the medium has none".to_owned())]);
    assert!(report.to_string().contains("1 skipped, the medium has none: one_case"));
}

#[test]
fn case_of_another_place_is_skipped_with_its_reason() {
    let (stack, _dir) = stack();
    let case = Case::new("one_case", Family::Lookup, passes).in_process("nodes are hidden");
    let report = stack.run_cases([&case]);
    assert_eq!(report.skipped, [("one_case", "nodes are hidden".to_owned())]);
}

#[test]
fn excuse_skips_its_case_and_an_excuse_for_none_fails() {
    let (stack, _dir) = stack();
    let real = stratafs_testkit::cases()[0].name;
    let stack = stack.excuse(real, "known").excuse("no_such_case", "forgotten");
    let report = stack.run_cases(&stratafs_testkit::cases()[..1]);
    assert_eq!(report.skipped, [(real, "known".to_owned())]);
    assert!(report.has_failed("no_such_case"));
}
