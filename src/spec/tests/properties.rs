//! What holds for every text: printing reads back, nothing panics, errors are printable.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::spec::{Composition, parse, size};

fn any_word() -> impl Strategy<Value = Word> {
    prop_oneof![
        "[a-z0-9_./@~$ ü\"'\\\\,()=]{0,8}".prop_map(|text| Word::new(text.into_bytes())),
        vec(1..=255_u8, 0..8).prop_map(Word::new),
    ]
}

fn any_path() -> impl Strategy<Value = Word> {
    (prop_oneof![Just(b'/'), Just(b'.')], any_word()).prop_map(|(first, mut word)| {
        word.bytes.insert(0, first);
        word
    })
}

fn any_key() -> impl Strategy<Value = Word> {
    prop_oneof!["[a-z][a-z0-9_]{0,6}".prop_map(|k| Word::new(k.into_bytes())), any_path()]
}

fn any_file() -> impl Strategy<Value = Word> {
    any_word().prop_filter("an include names a file", |word| !word.bytes.is_empty())
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![any_path().prop_map(Expr::Path), any_file().prop_map(Expr::Include)];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let value = prop_oneof![inner.prop_map(Value::Expr), any_word().prop_map(Value::from_word)];
        let arg = (option::of(any_key()), value).prop_map(|(key, value)| Arg { key, value });
        ("[a-z_]{1,8}", vec(arg, 0..4)).prop_map(|(name, args)| {
            Expr::Call(Call { name: Word::new(name.into_bytes()), args, span: 0..0 })
        })
    })
}

/// Bytes that look enough like a composition to reach deep into the parser.
fn any_almost_spec() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::sample::select(vec![
            "mem", "overlay", "router", "(", ")", ",", "=", "\"", "'", "\\", "\\x", "\\x4", "@",
            "/a", "./b", " ", "\n", "capacity", "1G", "lower", "cache", "never", "~", "$", "ro",
        ]).prop_map(|token| token.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// Lines that look enough like TOML of a composition to get past its parser.
fn any_almost_toml() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "backend = 'mem'",
        "backend = 'overlay'",
        "backend = \"router\"",
        "spec = 'mem()'",
        "spec = \"\"\"\nmem(\n\"\"\"",
        "spec = \"\\u0000\\t~\"",
        "capacity = '1G'",
        "capacity = 1_000",
        "capacity = 0xff",
        "ro = true",
        "lower = ['/a', 'mem()', [1], {}]",
        "lower.lower.backend = 'x'",
        "'/a' = '@'",
        "\"/\\u00e9\" = { spec = '/' }",
        "entry_timeout = inf",
        "[upper]",
        "[[lower]]",
        "x = 1979-05-27T07:32:00Z",
        "= '",
    ]);
    vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

/// No byte that a terminal would act on, and no line that runs away.
fn assert_printable(error: &crate::spec::SpecError) {
    for line in error.to_string().lines() {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        assert!(line.chars().count() < 600, "{line:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn print_then_parse_yields_an_equal_tree(expr in any_expr()) {
        let text = expr.to_string();
        let again = parse(&text).unwrap_or_else(|error| panic!("{error}"));
        prop_assert_eq!(&again, &expr, "{}", text);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn parse_almost_a_spec_never_panics(text in any_almost_spec()) {
        match Composition::parse(OsStr::from_bytes(&text)) {
            Ok(composition) => drop(composition),
            Err(error) => assert_printable(&error),
        }
    }

    #[test]
    fn parse_arbitrary_bytes_never_panics(text in vec(any::<u8>(), 0..200)) {
        if let Err(error) = Composition::parse(OsStr::from_bytes(&text)) {
            assert_printable(&error);
        }
    }

    #[test]
    fn load_almost_toml_never_panics(toml in any_almost_toml()) {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("spec.toml");
        std::fs::write(&file, toml).unwrap();
        if let Err(error) = Composition::parse(format!("@{}", file.display())) {
            assert_printable(&error);
        }
    }

    #[test]
    fn parse_accepted_text_prints_to_itself_again(text in any_almost_spec()) {
        if let Ok(expr) = parse(OsStr::from_bytes(&text)) {
            prop_assert_eq!(parse(expr.to_string()).ok(), Some(expr));
        }
    }

    #[test]
    fn parse_size_of_a_number_of_bytes_is_that_number(bytes in any::<u64>()) {
        prop_assert_eq!(size::parse_size(&bytes.to_string()), Ok(bytesize::ByteSize::b(bytes)));
    }

    #[test]
    fn parse_numbers_from_arbitrary_text_never_panics(text in ".{0,30}|[0-9.]{0,40}[a-zA-Z]{0,4}") {
        let _ = size::parse_size(&text);
        let _ = size::parse_count(&text);
        let _ = crate::spec::duration::parse_duration(&text);
    }
}
