//! The syntax tree of a composition, with the place of every piece in its text.
//!
//! The tree says what was written, not what it means: names and keys are unchecked, values are
//! undecoded words. The check gives them their meaning from the tables of the backends.
//! Printing a tree ([`fmt::Display`]) gives its canonical text, which parses back to an equal tree.

use std::fmt::{self, Write as _};
use std::ops::Range;

/// Bytes `start..end` of the text that a piece was read from.
pub type Span = Range<usize>;

/// A run of bytes: a path, a number, a choice. Quotes and escapes are already resolved.
///
/// Two words are equal if their bytes are; where and how they were written does not count.
#[derive(Debug, Clone)]
pub struct Word {
    /// The bytes meant, which need not be UTF-8 and never hold a NUL.
    pub bytes: Vec<u8>,
    /// Where the word stands, quotes included.
    pub span: Span,
    /// Where an unquoted `$` or leading `~` stands, which a shell would have expanded and a spec
    /// does not: kept, so that a path can be refused with the reason.
    pub expansion: Option<usize>,
}

impl Word {
    /// A word of these bytes that stands nowhere.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), span: 0..0, expansion: None }
    }

    /// True if the word reads as a path where a composition is expected: it begins with `/` or `.`.
    pub fn is_path(&self) -> bool {
        matches!(self.bytes.first(), Some(b'/' | b'.'))
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Word {}

/// One composition or a part of one that is a filesystem by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A bare path, which is `passthrough(PATH)`.
    Path(Word),
    /// `NAME(ARG, …)`.
    Call(Call),
    /// `@FILE.toml`: the composition that the file holds. The word is the file's path.
    Include(Word),
}

impl Expr {
    /// Where the expression stands.
    pub fn span(&self) -> Span {
        match self {
            Self::Path(word) | Self::Include(word) => word.span.clone(),
            Self::Call(call) => call.span.clone(),
        }
    }
}

/// `NAME(ARG, …)`.
///
/// Equality ignores where the call stands.
#[derive(Debug, Clone)]
pub struct Call {
    /// The backend's or wrapper's name, as written.
    pub name: Word,
    /// The arguments, in the order written.
    pub args: Vec<Arg>,
    /// From the first byte of the name to the closing parenthesis.
    pub span: Span,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.args == other.args
    }
}

impl Eq for Call {}

/// One argument, `[KEY=]VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The key, with `-` already read as `_`; a path for router's mounts; `None` for a bare value.
    pub key: Option<Word>,
    /// What the key is set to.
    pub value: Value,
}

/// The value of an argument. Which of the two a word beginning with `/` is meant as depends on the
/// key, so it parses as [`Expr::Path`] and the check takes its bytes where a plain word is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A filesystem.
    Expr(Expr),
    /// A plain word that does not begin with `/` or `.`.
    Word(Word),
}

impl Value {
    /// Where the value stands.
    pub fn span(&self) -> Span {
        match self {
            Self::Expr(expr) => expr.span(),
            Self::Word(word) => word.span.clone(),
        }
    }

    /// A value that is one word: a path if it begins as one.
    pub fn from_word(word: Word) -> Self {
        if word.is_path() { Self::Expr(Expr::Path(word)) } else { Self::Word(word) }
    }
}

/// True for the bytes that end a bare word.
pub(super) fn ends_bare_word(byte: u8) -> bool {
    matches!(byte, b',' | b'(' | b')' | b'=' | b'"' | b'\'' | b'\\' | 0) || is_space(byte)
}

/// True for the bytes that may stand between tokens. Newlines are among them, since a spec in a
/// TOML file may run over several lines.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Writes `bytes` as text that shows every byte: printable characters as they are, all other bytes
/// as `\xNN`. `escaped` are characters to put a backslash before.
pub(super) fn write_visible(out: &mut impl fmt::Write, bytes: &[u8], escaped: &str) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_visible_char(out, c, escaped)?;
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Writes one character as [`write_visible`] does.
pub(super) fn write_visible_char(out: &mut impl fmt::Write, c: char, escaped: &str) -> fmt::Result {
    if escaped.contains(c) {
        out.write_char('\\')?;
        return out.write_char(c);
    }
    // `escape_debug` is the standard library's notion of "printable"; the three it escapes for a
    // Rust literal are printable all the same.
    if matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1 {
        return out.write_char(c);
    }
    let mut utf8 = [0; 4];
    for byte in c.encode_utf8(&mut utf8).bytes() {
        write!(out, "\\x{byte:02x}")?;
    }
    Ok(())
}

impl fmt::Display for Word {
    /// Writes the word bare where that reads back as itself, else in double quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs_quotes = self.bytes.is_empty()
            || matches!(self.bytes.first(), Some(b'@' | b'~'))
            || self.bytes.iter().any(|&b| ends_bare_word(b) || b == b'$' || !b.is_ascii_graphic());
        if !needs_quotes {
            return write_visible(f, &self.bytes, "");
        }
        f.write_char('"')?;
        write_visible(f, &self.bytes, "\"\\")?;
        f.write_char('"')
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(word) => write!(f, "{word}"),
            Self::Call(call) => write!(f, "{call}"),
            Self::Include(word) => write!(f, "@{word}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{arg}")?;
        }
        f.write_char(')')
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}=")?;
        }
        write!(f, "{}", self.value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expr(expr) => write!(f, "{expr}"),
            Self::Word(word) => write!(f, "{word}"),
        }
    }
}
