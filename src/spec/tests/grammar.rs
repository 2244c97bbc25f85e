//! Text → syntax tree: every production, quotes, escapes, spaces, limits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::*;
use crate::spec::{Composition, MAX_DEPTH, MAX_TEXT_BYTES, SpecError, parse};

fn parsed(text: &[u8]) -> Expr {
    parse(OsStr::from_bytes(text)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn parse_every_production_yields_its_tree() {
    let mem = || call("mem", vec![]);
    let table: Vec<(&str, Expr)> = vec![
        ("/srv/root", path("/srv/root")),
        ("/", path("/")),
        ("./rel", path("./rel")),
        ("..", path("..")),
        (".hidden", path(".hidden")),
        ("mem()", mem()),
        ("no-such_name9()", call("no-such_name9", vec![])),
        ("mem(capacity=1GiB)", call("mem", vec![word_arg("capacity", "1GiB")])),
        (
            "mem(max-inodes=1,entry-timeout=2)",
            call("mem", vec![word_arg("max_inodes", "1"), word_arg("entry_timeout", "2")]),
        ),
        (
            "passthrough(/srv/root, readonly, cache=never)",
            call(
                "passthrough",
                vec![
                    bare_arg(Value::Expr(path("/srv/root"))),
                    bare_arg(Value::Word(Word::new("readonly"))),
                    word_arg("cache", "never"),
                ],
            ),
        ),
        (
            "overlay(lower=/a, lower=oci(/i, ref=x), upper=mem())",
            call(
                "overlay",
                vec![
                    expr_arg("lower", path("/a")),
                    expr_arg(
                        "lower",
                        call("oci", vec![bare_arg(Value::Expr(path("/i"))), word_arg("ref", "x")]),
                    ),
                    expr_arg("upper", mem()),
                ],
            ),
        ),
        (
            "router(/=mem(), /my-dir=/x)",
            call("router", vec![expr_arg("/", mem()), expr_arg("/my-dir", path("/x"))]),
        ),
        ("readonly(mem())", call("readonly", vec![bare_arg(Value::Expr(mem()))])),
        ("@spec.toml", Expr::Include(Word::new("spec.toml"))),
        (
            "overlay(lower=@/a.toml)",
            call("overlay", vec![expr_arg("lower", Expr::Include(Word::new("/a.toml")))]),
        ),
        (
            "traced(@./a.toml)",
            call("traced", vec![bare_arg(Value::Expr(Expr::Include(Word::new("./a.toml"))))]),
        ),
        ("oci(/i, ref=a:b@c)", {
            let args = vec![bare_arg(Value::Expr(path("/i"))), word_arg("ref", "a:b@c")];
            call("oci", args)
        }),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn parse_word_with_quotes_or_escapes_yields_its_bytes() {
    let table: &[(&[u8], &[u8])] = &[
        (b"\"/a b\"", b"/a b"),
        (b"'/a b'", b"/a b"),
        (b"\"/it's\"", b"/it's"),
        (b"'/say \"x\"'", b"/say \"x\""),
        (b"\"/a\\\"b\"", b"/a\"b"),
        (b"'/a\\'b'", b"/a'b"),
        (b"/a\\ b", b"/a b"),
        (b"/a\\,\\(\\)\\=\\\"\\'\\\\b", b"/a,()=\"'\\b"),
        (b"/a\\x20b", b"/a b"),
        (b"/\\xff\\xFe", b"/\xff\xfe"),
        (b"\"/\\x2f\\x41\"", b"//A"),
        (b"\\x2fa", b"/a"),
        (b"\\/a", b"/a"),
        (b"/\xff\xc3", b"/\xff\xc3"),
        ("/ü/\\é".as_bytes(), "/ü/é".as_bytes()),
        (b"/a\\$b", b"/a$b"),
        (b"\"/a$b\"", b"/a$b"),
        (b"/a:b@c~d", b"/a:b@c~d"),
        (b"/a;b|c&d*e?[f]{g}<h>!#%^`", b"/a;b|c&d*e?[f]{g}<h>!#%^`"),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(text), path(*expected), "{}", text.escape_ascii());
    }
}

#[test]
fn parse_empty_quotes_is_an_empty_word() {
    assert_eq!(parsed(b"oci(/i, ref=\"\")"), {
        call("oci", vec![bare_arg(Value::Expr(path("/i"))), word_arg("ref", "")])
    });
}

#[test]
fn parse_quoted_at_sign_is_a_word_and_no_file() {
    assert_eq!(parsed(b"oci(/i, ref='@x')"), parsed(b"oci(/i, ref=\\@x)"));
    assert_eq!(parsed(b"oci(/i, ref='@x')"), {
        call("oci", vec![bare_arg(Value::Expr(path("/i"))), word_arg("ref", "@x")])
    });
}

#[test]
fn parse_spaces_around_tokens_change_nothing() {
    let plain = parsed(b"router(/=mem(),/a=overlay(lower=@x.toml,ro,upper=/u))");
    let spaced = parsed(
        b"  router ( / = mem ( ) ,\n\t/a = overlay ( lower = @x.toml ,\r\n ro , upper = /u ) ) \n",
    );
    assert_eq!(plain, spaced);
}

#[test]
fn parse_key_keeps_hyphens_of_paths_only() {
    assert_eq!(parsed(b"f(a-b=c-d, /a-b=e-f)"), {
        call("f", vec![word_arg("a_b", "c-d"), word_arg("/a-b", "e-f")])
    });
}

#[test]
fn parse_spans_point_at_the_text() {
    let Expr::Call(outer) = parsed(b" overlay(lower = \"/a b\", upper=mem( ) )") else {
        panic!("not a call");
    };
    assert_eq!(outer.span, 1..39);
    assert_eq!(outer.name.span, 1..8);
    assert_eq!(outer.args[0].key.as_ref().unwrap().span, 9..14);
    assert_eq!(outer.args[0].value.span(), 17..23);
    assert_eq!(outer.args[1].value.span(), 31..37);
}

fn nested(depth: usize) -> String {
    format!("{}/x{}", "readonly(".repeat(depth), ")".repeat(depth))
}

#[test]
fn parse_at_the_depth_limit_succeeds_and_one_deeper_is_refused() {
    assert!(Composition::parse(nested(MAX_DEPTH)).is_ok());
    let error = parse(nested(MAX_DEPTH + 1)).unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)), "{error}");
    assert!(error.to_string().contains("more than 64 calls are nested"), "{error}");
}

#[test]
fn parse_hostile_nesting_is_refused_without_deep_recursion() {
    for open in ["a(", "a(b=", "router(/=", "readonly(readonly("] {
        let text = open.repeat(MAX_TEXT_BYTES / open.len());
        assert!(matches!(parse(&text), Err(SpecError::Limit(_))), "{open}");
    }
}

#[test]
fn parse_at_the_length_limit_succeeds_and_one_longer_is_refused() {
    let longest = format!("/{}", "a".repeat(MAX_TEXT_BYTES - 1));
    assert!(parse(&longest).is_ok());
    let error = parse(longest + "a").unwrap_err();
    assert!(matches!(error, SpecError::Limit(_)), "{error}");
}

#[test]
fn print_tree_is_canonical() {
    let table: &[(&[u8], &str)] = &[
        (b" mem ( size = 1G,ro ) ", "mem(size=1G, ro)"),
        (b"'/plain'", "/plain"),
        (b"'/a b'", "\"/a b\""),
        (b"/\\xff\\x0a", "\"/\\xff\\x0a\""),
        ("/ü".as_bytes(), "\"/ü\""),
        (b"f(a='', b=\\@x, c=\\~, d='$')", "f(a=\"\", b=\"@x\", c=\"~\", d=\"$\")"),
        (b"@'a b.toml'", "@\"a b.toml\""),
        (b"router(\"/a b\"=mem())", "router(\"/a b\"=mem())"),
        (b"'/a\"\\\\b'", "\"/a\\\"\\\\b\""),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(text).to_string(), *expected);
    }
}
