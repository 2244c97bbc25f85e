//! `tests/peers.md` says what users may rely on and which test holds each promise; here the map is
//! checked: every promise names a test, and every test that it names exists.

use std::collections::BTreeSet;
use std::fs;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::tree::files;

/// The macro that enters a function in the conformance map, which runs on every backend.
const CASE: &str = "case";

#[test]
fn promises_of_the_map_name_tests_that_exist() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers.md");
    let map = fs::read_to_string(path).unwrap();
    let sources = files("rs");
    let tests = tests_in(sources.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let (rows, wrong) = checked(&map, &tests);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows > 0, "the map has no row");
}

#[test]
fn map_that_names_a_missing_test_is_refused() {
    let tests = tests_in([("tests/a.rs", "#[test] fn there_is_one() {}")]);
    let map = "| promise | tests |\n|---|---|\n| It holds. | `there_is_one`, `there_is_none` |\n";
    assert_eq!(checked(map, &tests), (1, vec!["no test there_is_none: It holds.".to_owned()]));
}

#[test]
fn promise_without_a_test_is_refused() {
    let map = "| promise | tests |\n|---|---|\n| It holds. | later |\n";
    assert_eq!(checked(map, &BTreeSet::new()), (1, vec!["no test is named: It holds.".to_owned()]));
}

#[test]
fn tests_are_found_by_attribute_in_macros_and_among_cases() {
    let tests = tests_in([
        ("tests/a.rs", "#[test] fn plain() {} fn helper() {} mod m { #[test] fn inner() {} }"),
        ("tests/b.rs", "proptest! { #[test] fn generated(x in 0..9u8) { f(x); } }"),
        ("backends/testkit/src/a.rs", "const C: &[Case] = &[case!(a_case, XATTR)]; fn a_case() {}"),
        ("backends/testkit/src/b.rs", "fn no_case() {}"),
    ]);
    let expected = ["plain", "inner", "generated", "a_case"];
    assert_eq!(tests, expected.map(str::to_owned).into());
}

/// The number of promises in a map, and what is wrong with them.
fn checked(map: &str, tests: &BTreeSet<String>) -> (usize, Vec<String>) {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in map.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [promise, names] = cells[..] else {
            wrong.push(format!("not a promise and its tests: {line}"));
            continue;
        };
        if promise == "promise" || promise.starts_with("---") {
            continue;
        }
        rows += 1;
        let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("no test is named: {promise}"));
        }
        for name in names.iter().filter(|name| !tests.contains(**name)) {
            wrong.push(format!("no test {name}: {promise}"));
        }
    }
    (rows, wrong)
}

/// The names of all tests in these files.
fn tests_in<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let mut finder = Finder::default();
    for (path, text) in files {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        finder.visit_file(&file);
    }
    finder.found
}

#[derive(Default)]
struct Finder {
    found: BTreeSet<String>,
}

impl Finder {
    /// `fn NAME` after a `test` in the tokens of a macro, which are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut attributed = false;
        let mut after_fn = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if after_fn => {
                    if attributed {
                        self.found.insert(ident.to_string());
                    }
                    (attributed, after_fn) = (false, false);
                }
                TokenTree::Ident(ident) => after_fn = ident == "fn",
                TokenTree::Group(group) => {
                    attributed |= group.stream().to_string() == "test";
                    self.tokens(group.stream());
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("test")) {
            self.found.insert(item.sig.ident.to_string());
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_macro(&mut self, makro: &'ast syn::Macro) {
        if let Some(TokenTree::Ident(name)) = makro.tokens.clone().into_iter().next()
            && makro.path.is_ident(CASE)
        {
            self.found.insert(name.to_string());
        }
        self.tokens(makro.tokens.clone());
    }
}
