//! From text to the syntax tree.
//!
//! The parser decides nothing about meaning and opens no file. It never recurses deeper than
//! [`MAX_DEPTH`] and its work is linear in the text, so hostile text costs no more than its length.

use winnow::combinator::{opt, peek};
use winnow::error::ParserError;
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _};
use winnow::token::{any, take, take_till, take_while};

use super::ast::{Arg, Call, Expr, Span, Value, Word, ends_bare_word, is_space};
use super::error::quoted;

/// The longest text of a composition, in bytes. A command line argument is at most 128 KiB on Linux
/// (MAX_ARG_STRLEN); half of it holds an overlay of 500 layers with long paths.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// How deep calls may nest. Real compositions nest four or five deep; the bound keeps the recursion
/// of the parser, the check and the build (and of requests passing down the built stack) small.
pub const MAX_DEPTH: usize = 64;

type Input<'s> = LocatingSlice<&'s [u8]>;

/// What the parser found wrong, before it is known which text this was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// The byte concerned.
    pub(super) at: usize,
    pub(super) problem: String,
    pub(super) allowed: &'static str,
    pub(super) next: String,
    /// True if the text may be right but is more than is accepted.
    pub(super) is_limit: bool,
}

impl SyntaxError {
    fn new(at: usize, problem: impl Into<String>, allowed: &'static str) -> Self {
        let next = "correct it and try again".to_owned();
        Self { at, problem: problem.into(), allowed, next, is_limit: false }
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    fn limit(mut self) -> Self {
        self.is_limit = true;
        self
    }
}

impl ParserError<Input<'_>> for SyntaxError {
    type Inner = Self;

    /// Called by the combinators only where this parser has already looked at the next byte, so the
    /// text is a fallback.
    fn from_input(input: &Input<'_>) -> Self {
        Self::new(input.current_token_start(), "this cannot be read", EXPR)
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

type Parsed<T> = Result<T, SyntaxError>;

const EXPR: &str = "a path beginning with / or ., NAME(…), or @FILE.toml";
const ARG: &str = "KEY=VALUE, a path, NAME(…), @FILE.toml, or a word";
const VALUE: &str = "a word, a path, NAME(…), or @FILE.toml";
const AFTER_ARG: &str = ", or )";
const ESCAPES: &str =
    "\\xNN with two hexadecimal digits, or \\ before a character that is no letter or digit";

/// Parses the text of one composition.
pub(super) fn parse_bytes(text: &[u8]) -> Parsed<Expr> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SyntaxError::new(
            MAX_TEXT_BYTES,
            format!("the text has {} bytes, more than {MAX_TEXT_BYTES}", text.len()),
            "the end of the text",
        )
        .next("move parts of it into files and name them with @FILE.toml")
        .limit());
    }
    if text.iter().all(|&b| is_space(b)) {
        return Err(SyntaxError::new(0, "it is empty", EXPR)
            .next("a filesystem to begin with is `mem(capacity=1GiB)`"));
    }
    let mut input = Input::new(text);
    let expr = match value(&mut input, 0, EXPR)? {
        Value::Expr(expr) => expr,
        Value::Word(word) => return Err(not_an_expr(&word)),
    };
    skip_space(&mut input)?;
    match next_byte(&mut input)? {
        None => Ok(expr),
        Some(_) => {
            let problem = "the composition has ended, and more follows";
            Err(SyntaxError::new(position(&input), problem, "the end of the text")
                .next("remove the rest; a path with spaces or one of , ( ) = in it goes in quotes"))
        }
    }
}

/// Why `word` is no composition by itself.
pub(super) fn not_an_expr(word: &Word) -> SyntaxError {
    let at = word.span.start;
    let text = quoted(&word.bytes);
    if let Some(at) = word.expansion {
        return expansion_error(word, at);
    }
    if super::tables::find(&word.bytes).is_some() {
        let problem = format!("{text} has no parentheses");
        let name = String::from_utf8_lossy(&word.bytes);
        return SyntaxError::new(at, problem, EXPR).next(format!("write `{name}()`"));
    }
    let problem = if word.bytes.is_empty() {
        "an empty word is not a path".to_owned()
    } else {
        format!("{text} is neither a path nor NAME(…)")
    };
    SyntaxError::new(at, problem, EXPR)
        .next("a path begins with / or ., so a relative one is written ./PATH")
}

/// Why a word with an unquoted `$` or leading `~` is not taken as a path.
pub(super) fn expansion_error(word: &Word, at: usize) -> SyntaxError {
    let what = if word.bytes.first() == Some(&b'~') && at == word.span.start { "~" } else { "$" };
    SyntaxError::new(
        at,
        format!("`{what}` is not expanded in a spec"),
        "a path as it is, beginning with / or .",
    )
    .next(format!(
        "write the path in full; for a name that really has it, write `\\{what}` or quote the path"
    ))
}

fn position(input: &Input<'_>) -> usize {
    input.current_token_start()
}

fn next_byte(input: &mut Input<'_>) -> Parsed<Option<u8>> {
    opt(peek(any)).parse_next(input)
}

fn skip_space(input: &mut Input<'_>) -> Parsed<()> {
    take_while(0.., is_space).void().parse_next(input)
}

/// Consumes `byte` if it is next.
fn accept(input: &mut Input<'_>, byte: u8) -> Parsed<bool> {
    opt(byte).map(|found| found.is_some()).parse_next(input)
}

/// `expr | word`, and the space before and after it.
fn value(input: &mut Input<'_>, depth: usize, allowed: &'static str) -> Parsed<Value> {
    skip_space(input)?;
    if next_byte(input)? == Some(b'@') {
        return include(input).map(|file| Value::Expr(Expr::Include(file)));
    }
    let word = word(input, allowed)?;
    after_word(input, word, depth)
}

/// `@FILE`, and the space after it.
fn include(input: &mut Input<'_>) -> Parsed<Word> {
    let start = position(input);
    let mut file = (take(1_usize), |i: &mut Input<'_>| word(i, "the path of a TOML file"))
        .map(|(_, file)| file)
        .parse_next(input)?;
    if file.bytes.is_empty() {
        return Err(SyntaxError::new(start, "`@` names no file", "@FILE.toml"));
    }
    file.span.start = start;
    skip_space(input)?;
    Ok(file)
}

/// Decides what a word is by what follows it.
fn after_word(input: &mut Input<'_>, word: Word, depth: usize) -> Parsed<Value> {
    skip_space(input)?;
    if next_byte(input)? != Some(b'(') {
        return Ok(Value::from_word(word));
    }
    if word.is_path() {
        let problem = format!("the path {} takes no arguments", quoted(&word.bytes));
        return Err(SyntaxError::new(position(input), problem, "the end of the path")
            .next("options go into passthrough(PATH, …); a ( in a path is written \\("));
    }
    call(input, word, depth).map(|call| Value::Expr(Expr::Call(call)))
}

/// `"(" [arg {"," arg}] ")"` after a name, and the space after it.
fn call(input: &mut Input<'_>, name: Word, depth: usize) -> Parsed<Call> {
    let open = position(input);
    if depth == MAX_DEPTH {
        let problem = format!("more than {MAX_DEPTH} calls are nested in each other");
        return Err(SyntaxError::new(open, problem, "a path or a word")
            .next("nest fewer wrappers and layers")
            .limit());
    }
    accept(input, b'(')?;
    skip_space(input)?;
    let mut args = Vec::new();
    while !accept(input, b')')? {
        if !args.is_empty() {
            separator(input, open, &name)?;
        }
        if next_byte(input)?.is_none() {
            return Err(unclosed(open, &name));
        }
        args.push(arg(input, depth + 1)?);
    }
    let span = name.span.start..position(input);
    skip_space(input)?;
    Ok(Call { name, args, span })
}

/// The comma between two arguments. The caller has seen that `)` is not next.
fn separator(input: &mut Input<'_>, open: usize, name: &Word) -> Parsed<()> {
    let at = position(input);
    let problem = match next_byte(input)? {
        Some(b',') => {
            accept(input, b',')?;
            skip_space(input)?;
            if next_byte(input)? != Some(b')') {
                return Ok(());
            }
            return Err(SyntaxError::new(at, "there is no argument after this comma", ARG)
                .next("remove the comma, or add what should follow it"));
        }
        None => return Err(unclosed(open, name)),
        Some(byte @ (b'(' | b'=' | b'"' | b'\'' | 0)) => {
            format!("{} cannot follow an argument", quoted(&[byte]))
        }
        Some(_) => "there is no comma between two arguments".to_owned(),
    };
    Err(SyntaxError::new(at, problem, AFTER_ARG)
        .next("a value with spaces or one of , ( ) = in it goes in quotes"))
}

fn unclosed(open: usize, name: &Word) -> SyntaxError {
    let problem = format!("the ( of {} is never closed", quoted(&name.bytes));
    SyntaxError::new(open, problem, "a ) after the arguments").next("add the missing )")
}

/// `[key "="] (expr | word)`, and the space around it.
fn arg(input: &mut Input<'_>, depth: usize) -> Parsed<Arg> {
    if next_byte(input)? == Some(b'@') {
        let value = Value::Expr(Expr::Include(include(input)?));
        return Ok(Arg { key: None, value });
    }
    let first = word(input, ARG)?;
    skip_space(input)?;
    if !accept(input, b'=')? {
        return Ok(Arg { key: None, value: after_word(input, first, depth)? });
    }
    Ok(Arg { key: Some(key(first)), value: value(input, depth, VALUE)? })
}

/// A word before `=`: a path stays as it is, in any other key `-` is read as `_`.
pub(super) fn key(mut word: Word) -> Word {
    if !word.is_path() {
        word.bytes.iter_mut().filter(|b| **b == b'-').for_each(|b| *b = b'_');
    }
    word
}

/// A bare or quoted word. `allowed` describes the place if there is none.
fn word(input: &mut Input<'_>, allowed: &'static str) -> Parsed<Word> {
    match next_byte(input)? {
        None => Err(SyntaxError::new(position(input), "the text ends here", allowed)),
        Some(quote @ (b'"' | b'\'')) => quoted_word(input, quote),
        Some(byte) if byte != b'\\' && ends_bare_word(byte) => {
            let problem = match byte {
                b',' | b')' => format!("there is nothing before {}", quoted(&[byte])),
                b'=' => "there is no key before `=`".to_owned(),
                b'(' => "there is no name before `(`".to_owned(),
                _ => "a NUL byte cannot be in a spec".to_owned(),
            };
            Err(SyntaxError::new(position(input), problem, allowed))
        }
        Some(_) => bare_word(input),
    }
}

fn bare_word(input: &mut Input<'_>) -> Parsed<Word> {
    let start = position(input);
    let mut bytes = Vec::new();
    let mut expansion = (next_byte(input)? == Some(b'~')).then_some(start);
    loop {
        let at = position(input);
        let run = take_till(0.., ends_bare_word).parse_next(input)?;
        if let Some(dollar) = run.iter().position(|&b| b == b'$') {
            expansion = expansion.or(Some(at + dollar));
        }
        bytes.extend_from_slice(run);
        match next_byte(input)? {
            Some(b'\\') => bytes.push(escape(input)?),
            Some(b'"' | b'\'') => {
                let problem = "a quote inside a word";
                return Err(SyntaxError::new(position(input), problem, "the rest of the word")
                    .next("put the quotes around the whole word, or write \\ before this one"));
            }
            _ => break,
        }
    }
    Ok(Word { bytes, span: span_from(start, input), expansion })
}

fn quoted_word(input: &mut Input<'_>, quote: u8) -> Parsed<Word> {
    let start = position(input);
    accept(input, quote)?;
    let mut bytes = Vec::new();
    loop {
        let run = take_till(0.., (quote, b'\\', 0)).parse_next(input)?;
        bytes.extend_from_slice(run);
        match next_byte(input)? {
            Some(b'\\') => bytes.push(escape(input)?),
            Some(0) => {
                let problem = "a NUL byte cannot be in a spec";
                return Err(SyntaxError::new(position(input), problem, "the rest of the word"));
            }
            Some(_) => break,
            None => {
                let problem = format!("the quote {} is never closed", quoted(&[quote]));
                return Err(SyntaxError::new(start, problem, "a word in quotes")
                    .next("add the missing quote"));
            }
        }
    }
    accept(input, quote)?;
    let span = span_from(start, input);
    match next_byte(input)? {
        Some(byte) if matches!(byte, b'"' | b'\'' | b'\\') || !ends_bare_word(byte) => {
            let problem = "a quoted word ends at its closing quote";
            Err(SyntaxError::new(position(input), problem, AFTER_ARG)
                .next("put the quotes around the whole word"))
        }
        _ => Ok(Word { bytes, span, expansion: None }),
    }
}

fn span_from(start: usize, input: &Input<'_>) -> Span {
    start..position(input)
}

/// `\c` or `\xNN`, with the backslash next.
///
/// A letter or a digit after the backslash means itself nowhere else: C reads `\n` as a newline and
/// fstab reads `\040` as a space, so taking `\n` for `n` would silently name another file.
fn escape(input: &mut Input<'_>) -> Parsed<u8> {
    let at = position(input);
    accept(input, b'\\')?;
    let Some(c) = next_byte(input)? else {
        return Err(SyntaxError::new(at, "a backslash at the end of the text", ESCAPES));
    };
    any.void().parse_next(input)?;
    match c {
        b'x' => {
            let digits = take_while(0..=2, |b: u8| b.is_ascii_hexdigit()).parse_next(input)?;
            let value = str::from_utf8(digits).ok().filter(|d| d.len() == 2);
            match value.and_then(|d| u8::from_str_radix(d, 16).ok()) {
                Some(0) => Err(SyntaxError::new(at, "a NUL byte cannot be in a spec", ESCAPES)),
                Some(byte) => Ok(byte),
                None => Err(SyntaxError::new(at, "`\\x` needs two hexadecimal digits", ESCAPES)
                    .next("for a space, write \\x20; for a backslash, write \\\\")),
            }
        }
        0 => Err(SyntaxError::new(at, "a NUL byte cannot be in a spec", ESCAPES)),
        c if c.is_ascii_alphanumeric() => {
            let problem = format!("`\\{}` is no escape in a spec", char::from(c));
            Err(SyntaxError::new(at, problem, ESCAPES)
                .next("write a byte as \\xNN (a space is \\x20) and a backslash as \\\\"))
        }
        c => Ok(c),
    }
}
