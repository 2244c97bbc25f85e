//! The command as a program: exit codes and what it prints.

use std::process::{Command, Output};

fn stratafs(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stratafs")).args(args).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the command and checks its exit code and that nothing is on the other stream.
fn fails_with(args: &[&str], code: i32) -> String {
    let output = stratafs(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    text(&output.stderr)
}

fn prints(args: &[&str]) -> String {
    let output = stratafs(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    assert_eq!(text(&output.stderr), "", "{args:?}");
    text(&output.stdout)
}

#[test]
fn mount_of_a_bad_spec_says_where_and_exits_2() {
    let error = fails_with(&["mount", "mem(capcity=1GiB)", "/nonexistent"], 2);
    assert_eq!(
        error,
        "stratafs: cannot read the spec: mem has no key `capcity`\n\
         \u{20} mem(capcity=1GiB)\n\
         \u{20}     ^\n\
         \u{20} allowed here: capacity=SIZE, max_inodes=COUNT, max_handles=COUNT, root_mode=MODE, \
         root_uid=ID, root_gid=ID, locks=local|remote, writeback, \
         cache=never|auto|always, entry_timeout=TIME, attr_timeout=TIME, negative_timeout=TIME, \
         readonly\n\
         \u{20} did you mean `capacity`?\n"
    );
}

#[test]
fn mount_of_a_bad_spec_in_the_background_says_the_same() {
    let spec = "mem(capacity=1Q)";
    let foreground = fails_with(&["mount", spec, "/nonexistent"], 2);
    let background = fails_with(&["mount", "--background", spec, "/nonexistent"], 2);
    assert_eq!(background, foreground);
}

#[test]
fn mount_of_a_backend_of_a_later_version_exits_2() {
    let error = fails_with(&["mount", "oci(/image)", "/nonexistent"], 2);
    assert!(
        error.starts_with(
            "stratafs: cannot build the filesystem: oci is not yet built into this version\n\
             \u{20} oci(/image)\n\
             \u{20} ^\n\
             \u{20} allowed here: "
        ),
        "{error}"
    );
    assert!(error.ends_with("\n  use one of these, or a later version\n"), "{error}");
}

#[test]
fn mount_of_a_missing_spec_file_exits_2() {
    let error = fails_with(&["mount", "@/nonexistent.toml", "/nonexistent"], 2);
    assert!(
        error.starts_with(
            "stratafs: cannot read a file of the spec: /nonexistent.toml: ENOENT (no such file \
             or directory)\n"
        ),
        "{error}"
    );
}

#[test]
fn mount_on_a_missing_directory_exits_1_in_both_forms() {
    for args in [
        &["mount", "mem()", "/nonexistent"][..],
        &["mount", "--background", "mem()", "/nonexistent"],
    ] {
        let error = fails_with(args, 1);
        assert!(error.starts_with("stratafs: cannot mount on /nonexistent: ENOENT"), "{error}");
        assert!(error.ends_with("\n  mkdir -p /nonexistent\n"), "{error}");
    }
}

#[test]
fn mount_with_options_that_contradict_exits_2() {
    let error = fails_with(&["mount", "-o", "ro,rw", "mem()", "/nonexistent"], 2);
    assert!(error.starts_with("stratafs: cannot use the mount option `rw`: "), "{error}");
}

#[test]
fn mount_of_what_a_backend_refuses_exits_1() {
    let error = fails_with(&["mount", "mem(capacity=1)", "/nonexistent"], 1);
    assert!(error.starts_with("stratafs: cannot build the filesystem: "), "{error}");
}

#[test]
fn helper_for_mount_has_the_exit_codes_of_mount() {
    let links = tempfile::TempDir::new().unwrap();
    let helper = links.path().join("mount.stratafs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stratafs"), &helper).unwrap();
    let run = |args: &[&str]| Command::new(&helper).args(args).output().unwrap();
    for (args, code, said) in [
        (&["mem(", "/nonexistent"][..], 1, "cannot read the spec"),
        (&["mem()", "/nonexistent", "-o", "ro,rw"], 1, "cannot use the mount option"),
        (&["mem()", "/nonexistent", "-f", "-o", "ro,rw"], 1, "cannot use the mount option"),
        (&["mem()"], 1, "Usage: mount.stratafs"),
        (&["mem()", "/nonexistent"], 32, "cannot mount on /nonexistent"),
        (&["mem()", "/nonexistent", "-sfnv"], 0, ""),
    ] {
        let output = run(args);
        let text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(said) && text.is_empty() == said.is_empty(), "{args:?}: {text}");
    }
}

#[test]
fn unknown_option_is_refused_with_usage_and_exits_2() {
    let error = fails_with(&["mount", "--backgroud", "mem()", "/mnt"], 2);
    assert!(error.contains("unexpected argument '--backgroud'"), "{error}");
    assert!(error.contains("'--background'"), "{error}");
    assert!(error.contains("Usage: stratafs mount"), "{error}");
}

#[test]
fn missing_arguments_are_refused_with_usage_and_exit_2() {
    for args in [&["mount"][..], &["mount", "mem()"], &["moutn"], &[]] {
        let error = fails_with(args, 2);
        assert!(error.contains("Usage: "), "{args:?}: {error}");
    }
}

#[test]
fn bad_option_value_is_refused_and_exits_2() {
    for args in [
        &["mount", "--threads", "0", "mem()", "/mnt"][..],
        &["mount", "--threads", "many", "mem()", "/mnt"],
        &["mount", "--log-level", "loud", "mem()", "/mnt"],
    ] {
        let error = fails_with(args, 2);
        assert!(error.contains("invalid value"), "{args:?}: {error}");
    }
}

#[test]
fn help_shows_examples_and_hides_internals() {
    let help = prints(&["--help"]);
    assert!(help.contains("stratafs mount 'mem(capacity=1GiB)' /mnt/x"), "{help}");
    let help = prints(&["mount", "--help"]);
    for part in ["--background", "--threads", "--log-level", "-o <OPTIONS>", "Examples:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("--background-server"), "{help}");
}

#[test]
fn version_prints_name_and_version() {
    assert_eq!(prints(&["--version"]), format!("stratafs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn backends_lists_every_name() {
    let list = prints(&["backends"]);
    for backend in stratafs::spec::tables::BACKENDS {
        assert!(list.lines().any(|line| line.starts_with(backend.name)), "{list}");
    }
}

#[test]
fn backends_of_one_explains_every_key() {
    for backend in stratafs::spec::tables::BACKENDS {
        let help = prints(&["backends", backend.name]);
        for key in backend.all_keys() {
            assert!(help.contains(key.help), "{}: {help}", key.name);
        }
    }
}

#[test]
fn backends_of_an_unknown_name_suggests_and_exits_2() {
    assert_eq!(
        fails_with(&["backends", "overlai"], 2),
        "stratafs: cannot explain `overlai`: nothing is called so\n\
         \u{20} known: mem, passthrough, overlay, dual, router, oci, readonly, traced\n\
         \u{20} did you mean `overlay`?\n"
    );
}
