//! Compositions in TOML files: both forms, includes, limits, errors with file and line.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::spec::file::{MAX_FILE_BYTES, MAX_FILES, MAX_INCLUDE_DEPTH};
use crate::spec::node::{Checked, Node, Target};
use crate::spec::{Composition, SpecError};

fn dir_with(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn load(dir: &TempDir, name: &str) -> Result<Composition, SpecError> {
    Composition::parse(format!("@{}", dir.path().join(name).display()))
}

fn load_text(toml: &str) -> Composition {
    let dir = dir_with(&[("spec.toml", toml)]);
    load(&dir, "spec.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// The error of loading `toml`, with the directory's path cut out.
fn error_of(toml: &str) -> String {
    let dir = dir_with(&[("spec.toml", toml)]);
    let error = load(&dir, "spec.toml").unwrap_err().to_string();
    error.replace(dir.path().to_str().unwrap(), "DIR")
}

/// A node and all below it as one line, places left out.
fn shown(node: &Node) -> String {
    let settings: Vec<String> = node
        .settings
        .iter()
        .map(|setting| {
            let target = match &setting.target {
                Target::Key(key) => key.name.to_owned(),
                Target::Mount(path) => path.display().to_string(),
            };
            match &setting.value {
                Checked::Filesystem(node) => format!("{target}={}", shown(node)),
                value => format!("{target}={value:?}"),
            }
        })
        .collect();
    format!("{}({})", node.backend.name, settings.join(", "))
}

#[test]
fn load_text_form_equals_the_text() {
    let file = load_text("spec = \"overlay(lower=/a, upper=mem(size=1G))\"\n");
    let text = Composition::parse("overlay(lower=/a, upper=mem(size=1G))").unwrap();
    assert_eq!(shown(file.root()), shown(text.root()));
}

#[test]
fn load_text_form_over_several_lines_equals_the_text() {
    let file = load_text(
        "spec = '''\noverlay(\n  lower=/a,\n  upper='/b c',\n)'''\n"
            .replace(",\n)", "\n)")
            .as_str(),
    );
    let text = Composition::parse("overlay(lower=/a, upper='/b c')").unwrap();
    assert_eq!(shown(file.root()), shown(text.root()));
}

#[test]
fn load_table_form_equals_the_text() {
    let table: &[(&str, &str)] = &[
        ("backend = 'mem'", "mem()"),
        (
            "backend = 'mem'\ncapacity = '1GiB'\nmax-inodes = 100_000\nreadonly = true\n\
             entry_timeout = 1.5\ncache = 'never'",
            "mem(capacity=1GiB, max_inodes=100000, readonly=true, entry_timeout=1.5, cache=never)",
        ),
        ("backend = 'passthrough'\nroot_dir = '/a b$c'", "passthrough('/a b$c')"),
        (
            "backend = 'overlay'\nlower = ['/layers/app', 'oci(/images/base, ref=x)']\n\
             [upper]\nbackend = 'mem'\ncapacity = 4096",
            "overlay(lower=/layers/app, lower=oci(/images/base, ref=x), upper=mem(capacity=4096))",
        ),
        (
            "backend = 'overlay'\n[[lower]]\nbackend = 'oci'\nlayout = '/i'\n\
             [[lower]]\nspec = '/b'",
            "overlay(lower=oci(/i), lower=/b)",
        ),
        (
            "backend = 'router'\n'/' = 'mem()'\n'/home/me' = '/home/me'\n\
             '/tmp' = { backend = 'mem', size = '1G' }",
            "router(/=mem(), /home/me=/home/me, /tmp=mem(size=1G))",
        ),
        (
            "backend = 'readonly'\ninner = { backend = 'traced', inner = { spec = 'mem()' } }",
            "readonly(traced(mem()))",
        ),
    ];
    for (toml, text) in table {
        let text = Composition::parse(text).unwrap();
        assert_eq!(shown(load_text(toml).root()), shown(text.root()), "{toml}");
    }
}

#[test]
fn load_table_keeps_the_order_written() {
    let file = load_text("backend = 'router'\n'/z' = 'mem()'\n'/a' = 'mem()'\n'/m' = 'mem()'\n");
    assert_eq!(shown(file.root()), "router(/z=mem(), /a=mem(), /m=mem())");
}

#[test]
fn load_file_inside_an_argument_stands_for_its_composition() {
    let dir = dir_with(&[("base.toml", "spec = '/layers/base'")]);
    let text = format!(
        "overlay(lower=@{0}/base.toml, upper=traced(@{0}/base.toml))",
        dir.path().display()
    );
    let expected =
        Composition::parse("overlay(lower=/layers/base, upper=traced(/layers/base))").unwrap();
    assert_eq!(shown(Composition::parse(text).unwrap().root()), shown(expected.root()));
}

#[test]
fn load_relative_names_start_at_the_file_that_has_them() {
    let dir = dir_with(&[
        ("top.toml", "backend = 'overlay'\nlower = ['@sub/base.toml', './here']"),
        ("sub/base.toml", "spec = './layer'"),
    ]);
    let composition = load(&dir, "top.toml").unwrap();
    let paths: Vec<PathBuf> = composition
        .root()
        .get_all("lower")
        .map(|setting| match &setting.value {
            Checked::Filesystem(node) => match &node.settings[0].value {
                Checked::Path(path) => path.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, [dir.path().join("sub/./layer"), dir.path().join("./here")]);
}

#[test]
fn load_file_that_includes_itself_is_refused() {
    let dir = dir_with(&[
        ("a.toml", "backend = 'readonly'\ninner = '@b.toml'"),
        ("b.toml", "spec = 'traced(@./a.toml)'"),
    ]);
    let error = load(&dir, "a.toml").unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)));
    let expected = "cannot read the spec in DIR/b.toml, line 1: a file includes itself: \
                    DIR/a.toml includes DIR/b.toml includes DIR/./a.toml\n\
                    \u{20} spec = 'traced(@./a.toml)'\n\
                    \u{20}                ^\n\
                    \u{20} remove this @FILE, or the one that leads here";
    assert_eq!(error.to_string().replace(dir.path().to_str().unwrap(), "DIR"), expected);
}

#[test]
fn load_file_twice_side_by_side_is_allowed() {
    let dir = dir_with(&[
        ("a.toml", "backend = 'overlay'\nlower = ['@b.toml', '@b.toml']"),
        ("b.toml", "spec = 'mem()'"),
    ]);
    assert_eq!(shown(load(&dir, "a.toml").unwrap().root()), "overlay(lower=mem(), lower=mem())");
}

fn chain(length: usize) -> TempDir {
    let dir = dir_with(&[("0.toml", "spec = 'mem()'")]);
    for i in 1..length {
        let content = format!("spec = '@{}.toml'", i - 1);
        fs::write(dir.path().join(format!("{i}.toml")), content).unwrap();
    }
    dir
}

#[test]
fn load_at_the_include_depth_succeeds_and_one_deeper_is_refused() {
    let dir = chain(MAX_INCLUDE_DEPTH + 1);
    assert!(load(&dir, &format!("{}.toml", MAX_INCLUDE_DEPTH - 1)).is_ok());
    let error = load(&dir, &format!("{MAX_INCLUDE_DEPTH}.toml")).unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)), "{error}");
    assert!(error.to_string().contains("include each other more than 16 deep"), "{error}");
}

#[test]
fn load_files_that_multiply_are_refused_at_the_limit() {
    let dir = dir_with(&[("0.toml", "spec = 'mem()'")]);
    for i in 1..MAX_INCLUDE_DEPTH {
        let content = format!("backend = 'overlay'\nlower = ['@{0}.toml', '@{0}.toml']", i - 1);
        fs::write(dir.path().join(format!("{i}.toml")), content).unwrap();
    }
    let error = load(&dir, &format!("{}.toml", MAX_INCLUDE_DEPTH - 1)).unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)), "{error}");
    assert!(error.to_string().contains(&format!("more than {MAX_FILES} files")), "{error}");
}

#[test]
fn load_nesting_through_files_is_bounded_as_in_text() {
    let deep = format!("{}@next.toml{}", "readonly(".repeat(40), ")".repeat(40));
    let dir = dir_with(&[
        ("top.toml", &format!("spec = '{deep}'")),
        ("next.toml", &format!("spec = '{}'", deep.replace("@next.toml", "mem()"))),
    ]);
    let error = load(&dir, "top.toml").unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)), "{error}");
}

#[test]
fn load_hostile_toml_is_refused_without_deep_recursion() {
    let size = MAX_FILE_BYTES as usize - 100;
    let hostile = [
        format!("backend = 'mem'\n{}x = 1", "a.".repeat(size / 2 - 20)),
        format!("[{}x]\nbackend = 'mem'", "a.".repeat(size / 2 - 20)),
        format!("lower = {}", "[".repeat(size)),
        format!("lower = {}", "{a=".repeat(size / 3)),
        format!("backend = 'readonly'\ninner{} = 'mem()'", ".inner".repeat(70)),
    ];
    for toml in hostile {
        let error = error_of(&toml);
        assert!(error.len() < 2000, "{error}");
    }
}

#[test]
fn load_long_file_is_refused() {
    let error = error_of(&format!("# {}\nspec = 'mem()'", "x".repeat(MAX_FILE_BYTES as usize)));
    assert!(error.contains("DIR/spec.toml: it is longer than 256 KiB"), "{error}");
}

#[test]
fn load_what_is_no_regular_file_is_refused_without_waiting() {
    for path in ["/dev/null", "/"] {
        let error = Composition::parse(format!("@{path}")).unwrap_err();
        assert!(matches!(error, SpecError::File(_)));
        assert!(error.to_string().contains("it is not a regular file"), "{error}");
    }
    assert!(!Path::new("/nonexistent.toml").exists());
}

#[test]
fn load_bad_file_names_file_and_line() {
    let table: &[(&str, &str)] = &[
        (
            "backend = 'mem'\ncapacty = 1\n",
            "cannot read the spec in DIR/spec.toml, line 2: mem has no key `capacty`\n\
             \u{20} capacty = 1\n\
             \u{20} ^\n",
        ),
        (
            "\nbackend = 'mem'\ncapacity = '1Q'\n",
            "cannot read the spec in DIR/spec.toml, line 3: `1Q` is no value of `capacity`: `Q` is \
             no unit of size\n\
             \u{20} capacity = '1Q'\n\
             \u{20}            ^\n",
        ),
        (
            "# text form\nspec = 'overlay(lower=mem)'\n",
            "cannot read the spec in DIR/spec.toml, line 2: `lower`: `mem` has no parentheses\n\
             \u{20} spec = 'overlay(lower=mem)'\n\
             \u{20}                       ^\n",
        ),
        (
            "spec = '''\n\nrouter(\n  /a=mem(),\n  /b=meem()\n)'''\n",
            "cannot read the spec in DIR/spec.toml, line 5: nothing is called `meem`\n\
             \u{20}   /b=meem()\n\
             \u{20}      ^\n",
        ),
        (
            "spec = \"passthrough(\\u002fa, /b)\"\n",
            "cannot read the spec in DIR/spec.toml, line 1: `root_dir` is given twice\n\
             \u{20} spec = \"passthrough(\\u002fa, /b)\"\n\
             \u{20}        ^\n",
        ),
        (
            "backend = 'mem'\nspec = 'mem()'\n",
            "cannot read the spec in DIR/spec.toml, line 2: there are both `spec` and `backend`\n",
        ),
        (
            "capacity = 1\n",
            "cannot read the spec in DIR/spec.toml, line 1: there is neither `spec` nor `backend`\n",
        ),
        (
            "spec = 'mem()'\nro = true\n",
            "cannot read the spec in DIR/spec.toml, line 2: `spec` is a whole composition and has \
             no keys beside it\n",
        ),
        (
            "backend = 7\n",
            "cannot read the spec in DIR/spec.toml, line 1: `backend` is a string, not a value of \
             type integer\n",
        ),
        (
            "backend = 'mem'\ncapacity = 1979-05-27\n",
            "cannot read the spec in DIR/spec.toml, line 2: a value of type datetime means nothing \
             here\n",
        ),
        (
            "backend = 'mem'\ncapacity = ['1', '2']\n",
            "cannot read the spec in DIR/spec.toml, line 2: `capacity` is given twice\n",
        ),
        (
            "backend = 'overlay'\nlower = 'mem('\n",
            "cannot read the spec in DIR/spec.toml, line 2: the ( of `mem` is never closed\n\
             \u{20} lower = 'mem('\n\
             \u{20}             ^\n",
        ),
        (
            "backend = 'dual'\na = 'mem()'\n",
            "cannot read the spec in DIR/spec.toml, line 1: dual needs b=FILESYSTEM\n\
             \u{20} backend = 'dual'\n\
             \u{20}           ^\n",
        ),
        ("backend = 'mem\n", "cannot read the spec in DIR/spec.toml, line 1: this is no TOML: "),
        (
            "",
            "cannot read the spec in DIR/spec.toml, line 1: there is neither `spec` nor `backend`",
        ),
    ];
    for (toml, expected) in table {
        let error = error_of(toml);
        assert!(error.starts_with(expected), "{toml}\n{error}\n{expected}");
    }
}

#[test]
fn load_file_that_is_not_utf8_says_where() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spec.toml"), b"# \n# \xff\n").unwrap();
    let error = load(&dir, "spec.toml").unwrap_err().to_string();
    assert!(
        error.contains("spec.toml, line 2: a TOML file is UTF-8, this is not\n  # \\xff\n    ^")
    );
}
