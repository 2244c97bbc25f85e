//! What the text of a composition means, and how its errors read.

mod building;
mod errors;
mod files;
mod grammar;
mod properties;
mod trees;
mod values;

use super::ast::{Arg, Call, Expr, Value, Word};

/// `NAME(ARGS)` as a tree.
fn call(name: &str, args: Vec<Arg>) -> Expr {
    Expr::Call(Call { name: Word::new(name), args, span: 0..0 })
}

/// A bare path as a tree.
fn path(bytes: impl Into<Vec<u8>>) -> Expr {
    Expr::Path(Word::new(bytes))
}

/// `KEY=WORD` as a tree.
fn word_arg(key: &str, bytes: impl Into<Vec<u8>>) -> Arg {
    Arg { key: Some(Word::new(key)), value: Value::Word(Word::new(bytes)) }
}

/// `KEY=EXPR` as a tree.
fn expr_arg(key: &str, expr: Expr) -> Arg {
    Arg { key: Some(Word::new(key)), value: Value::Expr(expr) }
}

/// An argument without a key as a tree.
fn bare_arg(value: Value) -> Arg {
    Arg { key: None, value }
}
