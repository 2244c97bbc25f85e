//! `stratafs changes`, `explain` and `check` as programs, on layers of the host.

use std::fs;
use std::process::{Command, Output};

use stratafs::spec::Composition;
use stratafs_testkit::{InProcess, World};

/// Two layers of the host, a writable one, and the spec of their overlay.
struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base/d", "app", "up", "work"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for (path, content) in [("base/a", "base"), ("base/d/x", "x"), ("app/a", "app's")] {
            fs::write(dir.path().join(path), content).unwrap();
        }
        Self { dir }
    }

    fn spec(&self) -> String {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let (app, base, up, work) = (at("app"), at("base"), at("up"), at("work"));
        format!("overlay(lower={app}, lower={base}, upper={up}, work={work}, userxattr)")
    }

    /// Does `work` on the overlay.
    fn on(&self, work: impl FnOnce(&World<'_>)) {
        let client = InProcess::new(Composition::parse(self.spec()).unwrap().build().unwrap());
        work(&World::new(&client, ""));
    }

    fn run(&self, args: &[&str]) -> Output {
        let (command, rest) = args.split_first().unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        program.arg(command).arg(self.spec()).args(rest).env_remove("RUST_LOG").output().unwrap()
    }

    /// What the command prints, when it ends with this code and says nothing else.
    #[track_caller]
    fn prints(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace(&self.dir.path().display().to_string(), "/tmp")
    }
}

fn change(w: &World<'_>) {
    w.unlink("a").unwrap();
    w.file("d/new", b"12345").unwrap();
    w.write_at("d/x", 0, b"y").unwrap();
    w.symlink("new", "d/link").unwrap();
}

#[test]
fn changes_are_listed_with_types_and_sizes_and_all_deletions() {
    let layers = Layers::new();
    assert_eq!(layers.prints(&["changes"], 0), "");
    layers.on(change);
    assert_eq!(layers.prints(&["changes"], 0), "D - 5 a\nA l 0 d/link\nA - 5 d/new\nC - 1 d/x\n");
    let json = layers.prints(&["changes", "--json"], 0);
    let first = "{\"kind\":\"D\",\"type\":\"file\",\"size\":5,\"path\":\"a\"}";
    assert_eq!(json.lines().next(), Some(first));
    assert_eq!(json.lines().count(), 4);
}

#[test]
fn explain_names_layers_and_entries() {
    let layers = Layers::new();
    layers.on(|w| w.file("d/new", b"").unwrap());
    assert_eq!(
        layers.prints(&["explain", "/a"], 0),
        "read-only layer 1 from the top shows a file: /tmp/app\n\
         read-only layer 2 from the top is hidden with a file: /tmp/base\n"
    );
    assert_eq!(
        layers.prints(&["explain", "d"], 0),
        "the writable layer shows a directory: /tmp/up\n\
         read-only layer 2 from the top is merged in with a directory: /tmp/base\n\
         \u{20} new: /tmp/up\n\
         \u{20} x: /tmp/base\n"
    );
    layers.on(|w| w.unlink("a").unwrap());
    let json = layers.prints(&["explain", "--json", "./a"], 0);
    let first = "{\"layer\":0,\"name\":\"/tmp/up\",\"role\":\"whiteout\"}";
    assert_eq!(json.lines().next(), Some(first));
}

#[test]
fn explain_of_what_is_not_there_exits_1_and_of_no_path_2() {
    let layers = Layers::new();
    for (path, code, says) in [
        ("absent", 1, "no layer has anything there"),
        ("a/b", 1, "ENOTDIR"),
        ("a/../b", 2, "`..` is no name"),
    ] {
        let output = layers.run(&["explain", path]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{output:?}");
    }
}

#[test]
fn check_exits_1_while_something_is_wrong_and_repairs_it() {
    let layers = Layers::new();
    assert_eq!(layers.prints(&["check"], 0), "", "one that was never used");
    layers.on(change);
    assert_eq!(layers.prints(&["check"], 0), "");
    fs::write(layers.dir.path().join("work/work/#5"), "half").unwrap();
    let line = "leftover: work/work/#5 was left by a crash";
    assert_eq!(layers.prints(&["check"], 1), format!("{line}\n"));
    let json =
        "{\"problem\":\"leftover\",\"area\":\"work\",\"path\":\"work/#5\",\"repaired\":false}\n";
    assert_eq!(layers.prints(&["check", "--json"], 1), json);
    assert_eq!(layers.prints(&["check", "--repair"], 0), format!("{line} (repaired)\n"));
    assert_eq!(layers.prints(&["check"], 0), "");
}

#[test]
fn tools_leave_an_overlay_alone_that_is_in_use() {
    let layers = Layers::new();
    layers.on(|w| {
        w.file("f", b"").unwrap();
        fs::write(layers.dir.path().join("work/work/#9"), "being staged").unwrap();
        layers.prints(&["changes"], 0);
        layers.prints(&["explain", "f"], 0);
        layers.prints(&["check"], 1);
    });
    assert!(layers.dir.path().join("work/work/#9").exists());
}

#[test]
fn tools_for_what_is_no_overlay_exit_2() {
    for args in [&["changes", "mem()"][..], &["explain", "mem()", "a"], &["check", "mem()"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        let output = program.args(args).env_remove("RUST_LOG").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("mem has no layers to be told apart"), "{said}");
    }
    let looked_through = Composition::parse("readonly(traced(overlay(lower=mem())))").unwrap();
    assert_eq!(looked_through.inspect().unwrap().layers, ["", "mem"]);
}
