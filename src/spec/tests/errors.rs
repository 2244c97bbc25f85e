//! How errors read: the whole text, since it is what users meet.

use crate::spec::error::near_miss;
use crate::spec::{Composition, SpecError};

fn error_of(text: &str) -> SpecError {
    match Composition::parse(text) {
        Ok(composition) => panic!("{text} is accepted: {composition:?}"),
        Err(error) => error,
    }
}

/// The lines of an error.
fn lines(text: &str) -> Vec<String> {
    error_of(text).to_string().lines().map(str::to_owned).collect()
}

const EXPR: &str = "  allowed here: a path beginning with / or ., NAME(…), or @FILE.toml";
const ARG: &str = "  allowed here: KEY=VALUE, a path, NAME(…), @FILE.toml, or a word";
const MEM: &str = "  allowed here: capacity=SIZE, max_inodes=COUNT, max_handles=COUNT, \
                   root_mode=MODE, root_uid=ID, root_gid=ID, locks=local|remote, writeback, \
                   cache=never|auto|always, entry_timeout=TIME, attr_timeout=TIME, \
                   negative_timeout=TIME, readonly";
const SIZE: &str = "  allowed here: a size: bytes, K M G T (powers of 1024), KB MB GB TB (powers \
                    of 1000), or KiB MiB GiB TiB (powers of 1024)";
const NAMES: &str =
    "  allowed here: mem, passthrough, overlay, dual, router, oci, readonly, traced";
const QUOTE: &str = "  a value with spaces or one of , ( ) = in it goes in quotes";
const ESCAPES: &str = "  allowed here: \\xNN with two hexadecimal digits, or \\ before a character \
                       that is no letter or digit";

#[test]
fn error_of_a_bad_spec_reads_exactly_so() {
    let table: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "cannot read the spec: it is empty",
                "  ",
                "  ^",
                EXPR,
                "  a filesystem to begin with is `mem(capacity=1GiB)`",
            ],
        ),
        (
            "mem",
            &[
                "cannot read the spec: `mem` has no parentheses",
                "  mem",
                "  ^",
                EXPR,
                "  write `mem()`",
            ],
        ),
        (
            "foo/bar",
            &[
                "cannot read the spec: `foo/bar` is neither a path nor NAME(…)",
                "  foo/bar",
                "  ^",
                EXPR,
                "  a path begins with / or ., so a relative one is written ./PATH",
            ],
        ),
        (
            "traced(mem(size=1G)",
            &[
                "cannot read the spec: the ( of `traced` is never closed",
                "  traced(mem(size=1G)",
                "        ^",
                "  allowed here: a ) after the arguments",
                "  add the missing )",
            ],
        ),
        (
            "mem(size=1G ro)",
            &[
                "cannot read the spec: there is no comma between two arguments",
                "  mem(size=1G ro)",
                "              ^",
                "  allowed here: , or )",
                QUOTE,
            ],
        ),
        (
            "mem(size=1G=2)",
            &[
                "cannot read the spec: `=` cannot follow an argument",
                "  mem(size=1G=2)",
                "             ^",
                "  allowed here: , or )",
                QUOTE,
            ],
        ),
        (
            "mem(ro,)",
            &[
                "cannot read the spec: there is no argument after this comma",
                "  mem(ro,)",
                "        ^",
                ARG,
                "  remove the comma, or add what should follow it",
            ],
        ),
        (
            "mem(=1)",
            &[
                "cannot read the spec: there is no key before `=`",
                "  mem(=1)",
                "      ^",
                ARG,
                "  correct it and try again",
            ],
        ),
        (
            "mem() mem()",
            &[
                "cannot read the spec: the composition has ended, and more follows",
                "  mem() mem()",
                "        ^",
                "  allowed here: the end of the text",
                "  remove the rest; a path with spaces or one of , ( ) = in it goes in quotes",
            ],
        ),
        (
            "/srv/a(ro)",
            &[
                "cannot read the spec: the path `/srv/a` takes no arguments",
                "  /srv/a(ro)",
                "        ^",
                "  allowed here: the end of the path",
                "  options go into passthrough(PATH, …); a ( in a path is written \\(",
            ],
        ),
        (
            "'/srv",
            &[
                "cannot read the spec: the quote `'` is never closed",
                "  '/srv",
                "  ^",
                "  allowed here: a word in quotes",
                "  add the missing quote",
            ],
        ),
        (
            "/srv/\"a b\"",
            &[
                "cannot read the spec: a quote inside a word",
                "  /srv/\"a b\"",
                "       ^",
                "  allowed here: the rest of the word",
                "  put the quotes around the whole word, or write \\ before this one",
            ],
        ),
        (
            "/my\\040dir",
            &[
                "cannot read the spec: `\\0` is no escape in a spec",
                "  /my\\040dir",
                "     ^",
                ESCAPES,
                "  write a byte as \\xNN (a space is \\x20) and a backslash as \\\\",
            ],
        ),
        (
            "/a\\x4",
            &[
                "cannot read the spec: `\\x` needs two hexadecimal digits",
                "  /a\\x4",
                "    ^",
                ESCAPES,
                "  for a space, write \\x20; for a backslash, write \\\\",
            ],
        ),
        (
            "~/layers",
            &[
                "cannot read the spec: `~` is not expanded in a spec",
                "  ~/layers",
                "  ^",
                "  allowed here: a path as it is, beginning with / or .",
                "  write the path in full; for a name that really has it, write `\\~` or quote the path",
            ],
        ),
        (
            "overlay(lower=/home/$USER/l)",
            &[
                "cannot read the spec: `$` is not expanded in a spec",
                "  overlay(lower=/home/$USER/l)",
                "                      ^",
                "  allowed here: a path as it is, beginning with / or .",
                "  write the path in full; for a name that really has it, write `\\$` or quote the path",
            ],
        ),
        (
            "tmpfs(size=1G)",
            &[
                "cannot read the spec: nothing is called `tmpfs`",
                "  tmpfs(size=1G)",
                "  ^",
                NAMES,
                "  did you mean `mem`?",
            ],
        ),
        (
            "overlay(lower=zzz(/a))",
            &[
                "cannot read the spec: nothing is called `zzz`",
                "  overlay(lower=zzz(/a))",
                "                ^",
                NAMES,
                "  `stratafs backends` says what each of them is",
            ],
        ),
        (
            "mem(max-inode=1)",
            &[
                "cannot read the spec: mem has no key `max_inode`",
                "  mem(max-inode=1)",
                "      ^",
                MEM,
                "  did you mean `max_inodes`?",
            ],
        ),
        (
            "mem(/srv)",
            &[
                "cannot read the spec: mem takes no value without a key",
                "  mem(/srv)",
                "      ^",
                MEM,
                "  write KEY= before it",
            ],
        ),
        (
            "mem(capacity)",
            &[
                "cannot read the spec: `capacity` has no value",
                "  mem(capacity)",
                "      ^",
                "  allowed here: capacity=SIZE",
                "  write `capacity=` and its value",
            ],
        ),
        (
            "mem(capacity=1G, size=2G)",
            &[
                "cannot read the spec: `capacity` is given twice",
                "  mem(capacity=1G, size=2G)",
                "                   ^",
                "  remove one of the two; `size` is the same key",
            ],
        ),
        (
            "mem(capacity=1Q)",
            &[
                "cannot read the spec: `1Q` is no value of `capacity`: `Q` is no unit of size",
                "  mem(capacity=1Q)",
                "               ^",
                SIZE,
                "  correct it and try again",
            ],
        ),
        (
            "mem(capacity=mem())",
            &[
                "cannot read the spec: `capacity` takes no filesystem",
                "  mem(capacity=mem())",
                "               ^",
                SIZE,
                "  write a plain value, or move the filesystem to another key",
            ],
        ),
        (
            "mem(cache=alway)",
            &[
                "cannot read the spec: `alway` is no value of `cache`",
                "  mem(cache=alway)",
                "            ^",
                "  allowed here: never, auto, always",
                "  did you mean `always`?",
            ],
        ),
        (
            "readonly()",
            &[
                "cannot read the spec: readonly needs inner=FILESYSTEM",
                "  readonly()",
                "           ^",
                "  allowed here: inner=FILESYSTEM (or a bare FILESYSTEM)",
                "  add it, as in `readonly(mem())`",
            ],
        ),
        (
            "mem(/a=mem())",
            &[
                "cannot read the spec: mem takes no path as a key",
                "  mem(/a=mem())",
                "      ^",
                MEM,
                "  only router has paths as keys; a value with = in it goes in quotes",
            ],
        ),
        (
            "router(/a=mem(), /a/=mem())",
            &[
                "cannot read the spec: `/a/` is mounted twice",
                "  router(/a=mem(), /a/=mem())",
                "                   ^",
                "  remove one of the two",
            ],
        ),
        (
            "router(/a/../b=mem())",
            &[
                "cannot read the spec: `/a/../b` is no place in the tree",
                "  router(/a/../b=mem())",
                "         ^",
                "  allowed here: a path beginning with /, without . and .. in it",
                "  write the path as the guest sees it",
            ],
        ),
        (
            "@/nonexistent.toml",
            &[
                "cannot read a file of the spec: /nonexistent.toml: ENOENT (no such file or \
                 directory)",
                "  @/nonexistent.toml",
                "  ^",
                "  check the path; a relative one starts at the working directory, or at the \
                 directory of the file that names it",
            ],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(lines(text), *expected, "{text}");
    }
}

#[test]
fn error_kind_tells_what_is_wrong() {
    assert!(matches!(error_of("mem("), SpecError::Syntax(_)));
    assert!(matches!(error_of("meem()"), SpecError::UnknownName(_)));
    assert!(matches!(error_of("mem(x=1)"), SpecError::UnknownKey(_)));
    assert!(matches!(error_of("mem(ro, ro)"), SpecError::Arguments(_)));
    assert!(matches!(error_of("mem(size=x)"), SpecError::Value(_)));
    assert!(matches!(error_of("@/nonexistent"), SpecError::File(_)));
}

#[test]
fn error_after_wide_or_unprintable_characters_points_at_the_right_column() {
    let table: &[(&str, &str, &str)] = &[
        ("/日本 x", "  /日本 x", "        ^"),
        ("/\u{1b}[31m x", "  /\\x1b[31m x", "            ^"),
        ("/é x", "  /é x", "     ^"),
        ("/\u{202e}b x", "  /\\xe2\\x80\\xaeb x", "                 ^"),
    ];
    for (text, line, caret) in table {
        assert_eq!(lines(text)[1..3], [*line, *caret], "{text:?}");
    }
}

#[test]
fn error_in_a_long_line_shows_the_part_around_the_caret() {
    let text = format!("overlay(lower=/{}, uper=/{})", "a".repeat(500), "b".repeat(500));
    let lines = lines(&text);
    let expected = format!("  …{}, uper=/{}…", "a".repeat(62), "b".repeat(26));
    assert_eq!(lines[1], expected);
    assert_eq!(lines[2].find('^'), Some(2 + 1 + 62 + 2));
}

#[test]
fn error_in_several_lines_shows_the_line_concerned() {
    let lines = lines("overlay(\n  lower=/a,\n  uper=/b\n)");
    assert_eq!(lines[1..3], ["    uper=/b", "    ^"]);
}

#[test]
fn error_about_a_long_word_quotes_its_beginning() {
    let error = error_of(&format!("mem(size={})", "9".repeat(5000))).to_string();
    let quote = format!("`{}…` is no value", "9".repeat(40));
    assert!(error.contains(&quote), "{error}");
    assert!(error.len() < 600, "{error}");
}

#[test]
fn error_of_hostile_text_is_short() {
    let long = "9".repeat(20_000);
    for text in [
        format!("mem(size={long})"),
        format!("mem(size=1{}9)", ".9".repeat(9_000)),
        format!("mem(size=1{})", "x".repeat(20_000)),
        format!("mem(max-inodes=1{})", "x".repeat(20_000)),
        format!("mem(entry-timeout=1{})", "x".repeat(20_000)),
        format!("mem(entry-timeout=1{}9)", ".9".repeat(9_000)),
        format!("mem({long}=1)"),
        format!("{}()", "x".repeat(20_000)),
        format!("@/{}", "x".repeat(20_000)),
        format!("router(/../{long}=mem())"),
        format!("/{long}()"),
        format!("{long}(/a"),
        long.clone(),
    ] {
        let error = error_of(&text).to_string();
        assert!(error.len() < 1000, "{error}");
    }
}

#[test]
fn near_miss_is_near() {
    let names = ["mem", "overlay", "passthrough", "max_inodes"];
    let table: &[(&str, Option<&str>)] = &[
        ("men", Some("mem")),
        ("MEM", Some("mem")),
        ("ovelray", Some("overlay")),
        ("passthru", Some("passthrough")),
        ("passthrouhg", Some("passthrough")),
        ("max-inodes", Some("max_inodes")),
        ("maxinodes", Some("max_inodes")),
        ("xyz", None),
        ("", None),
    ];
    for (word, expected) in table {
        assert_eq!(near_miss(word.as_bytes(), names), *expected, "{word}");
    }
    assert_eq!(near_miss(b"\xff", names), None);
}
