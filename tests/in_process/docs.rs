//! What the pages in the tree say that a test can hold them to.

use std::path::Path;

use crate::tree::files;

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands of a page: the lines of its `sh` blocks.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).collect()
}

#[test]
fn readme_has_one_command_to_mount_and_one_to_test() {
    let readme = page("README.md");
    assert_eq!(
        commands(&readme),
        [
            "mkdir -p /mnt/x && cargo run --release -- mount 'mem(capacity=1GiB)' /mnt/x",
            "cargo xtask test",
        ]
    );
}

#[test]
fn continuous_integration_runs_the_test_command_of_the_readme() {
    let script = page(".ci/run");
    let last = script.trim_end().lines().last().unwrap();
    let test = commands(&page("README.md"))[1].to_owned();
    assert_eq!(last, format!("exec {test} </dev/null"));
}

#[test]
fn links_between_pages_lead_to_files() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (path, text) in files("md") {
        let from = top.join(&path);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            links += 1;
            let file = target.split('#').next().unwrap();
            assert!(from.parent().unwrap().join(file).exists(), "{path} links to {target}");
        }
    }
    assert!(links > 0, "no link was found");
}
