//! What is wrong with a composition, told so that it can be mended at once.
//!
//! Every error prints as one paragraph: the operation and its object, the cause, the line of text
//! with a caret under the character concerned, what is allowed there, and what to do next.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use unicode_width::UnicodeWidthStr as _;

use super::ast::{Span, write_visible, write_visible_char};

/// The widest line shown, in columns. What lies further away from the caret is cut, so that a spec
/// of 64 KiB does not fill the terminal.
const EXCERPT_COLUMNS: usize = 96;

/// Why a composition could not be read, checked or built.
///
/// The variants are what a program may want to tell apart; the text is in the [`Report`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The text does not follow the grammar.
    #[error("{0}")]
    Syntax(Box<Report>),
    /// No backend or wrapper has this name.
    #[error("{0}")]
    UnknownName(Box<Report>),
    /// The backend has no such key.
    #[error("{0}")]
    UnknownKey(Box<Report>),
    /// A key is given twice, a needed one is missing, or there is one bare value too many.
    #[error("{0}")]
    Arguments(Box<Report>),
    /// The value is not of the kind that its key takes.
    #[error("{0}")]
    Value(Box<Report>),
    /// The text is longer, deeper or includes more than the limits allow.
    #[error("{0}")]
    Limit(Box<Report>),
    /// An included file cannot be read.
    #[error("{0}")]
    File(Box<Report>),
    /// The composition is right, but this version cannot build a backend that it names.
    #[error("{0}")]
    NotBuilt(Box<Report>),
    /// A backend refused its settings or could not be brought up.
    #[error("{report}")]
    Build {
        /// The text of the error.
        report: Box<Report>,
        /// What the backend said, which the text contains.
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl SpecError {
    /// True if the text is at fault, so that it cannot succeed on any host with this version.
    pub fn is_misuse(&self) -> bool {
        !matches!(self, Self::Build { .. })
    }

    /// The text of the error in its parts.
    pub fn report(&self) -> &Report {
        match self {
            Self::Syntax(report)
            | Self::UnknownName(report)
            | Self::UnknownKey(report)
            | Self::Arguments(report)
            | Self::Value(report)
            | Self::Limit(report)
            | Self::File(report)
            | Self::NotBuilt(report)
            | Self::Build { report, .. } => report,
        }
    }
}

/// A text that compositions are read from: the command line, or a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    file: Option<PathBuf>,
    text: Vec<u8>,
}

impl Source {
    /// Text that came from no file.
    pub fn inline(text: impl Into<Vec<u8>>) -> Self {
        Self { file: None, text: text.into() }
    }

    /// The content of `file`.
    pub fn file(file: impl Into<PathBuf>, text: impl Into<Vec<u8>>) -> Self {
        Self { file: Some(file.into()), text: text.into() }
    }

    /// The file that the text is from, if any.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The line and the column, both from 1, of byte `offset`. Columns count bytes.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        (before.iter().filter(|&&b| b == b'\n').count() + 1, before.len() - line_start + 1)
    }

    /// The line around byte `offset` as printable text, and the column of the caret from 0.
    fn excerpt(&self, offset: usize) -> (String, usize) {
        let offset = offset.min(self.text.len());
        let start = self.text[..offset].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let end = self.text[offset..]
            .iter()
            .position(|&b| b == b'\n')
            .map_or(self.text.len(), |at| offset + at);
        let before = visible(&self.text[start..offset]);
        let after = visible(&self.text[offset..end]);
        let kept_before = tail(&before, EXCERPT_COLUMNS * 2 / 3);
        let kept_after = head(&after, EXCERPT_COLUMNS - kept_before.width());
        let mut line = String::new();
        if kept_before.len() < before.len() {
            line.push('…');
        }
        line.push_str(kept_before);
        let caret = line.width();
        line.push_str(kept_after);
        if kept_after.len() < after.len() {
            line.push('…');
        }
        (line, caret)
    }
}

/// `bytes` as printable text.
fn visible(bytes: &[u8]) -> String {
    let mut text = String::new();
    // Writing to a `String` does not fail.
    let _ = write_visible(&mut text, bytes, "");
    text
}

/// `bytes` as printable text of at most 40 columns, to quote inside a sentence.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let text = visible(bytes);
    let kept = head(&text, 40);
    if kept.len() < text.len() { format!("`{kept}…`") } else { format!("`{text}`") }
}

/// `path` as printable text of at most 200 columns, of which the end says most.
pub(super) fn shown_path(path: &Path) -> String {
    let text = visible(path.as_os_str().as_encoded_bytes());
    let kept = tail(&text, 200);
    if kept.len() < text.len() { format!("…{kept}") } else { text }
}

/// `text` with its unprintable characters made visible and its line breaks kept: for messages that
/// other libraries made of what they were given.
pub(super) fn visible_message(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim_end().chars() {
        if c == '\n' {
            out.push_str("; ");
        } else {
            // Writing to a `String` does not fail.
            let _ = write_visible_char(&mut out, c, "");
        }
    }
    out
}

/// The longest prefix of `text` that is at most `columns` wide.
fn head(text: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, c) in text.char_indices() {
        width += c.encode_utf8(&mut [0; 4]).width();
        if width > columns {
            return &text[..at];
        }
    }
    text
}

/// The longest suffix of `text` that is at most `columns` wide.
fn tail(text: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, c) in text.char_indices().rev() {
        width += c.encode_utf8(&mut [0; 4]).width();
        if width > columns {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

/// A span of a source: where something stands.
#[derive(Debug, Clone)]
pub struct Place {
    /// The text that it stands in.
    pub source: Arc<Source>,
    /// The bytes of the text.
    pub span: Span,
}

impl Place {
    /// The bytes `span` of `source`.
    pub fn new(source: &Arc<Source>, span: Span) -> Self {
        Self { source: Arc::clone(source), span }
    }
}

/// The text of an error in its parts, for programs that show it in their own way.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What failed, such as `cannot read the spec`.
    pub operation: &'static str,
    /// What is wrong.
    pub problem: String,
    /// Where it is wrong; `None` where no text is at fault.
    pub place: Option<Place>,
    /// What is allowed there.
    pub allowed: Option<String>,
    /// What to do next: a full sentence without its full stop.
    pub next: String,
}

impl Report {
    pub(super) fn new(operation: &'static str, problem: impl Into<String>) -> Self {
        let next = String::new();
        Self { operation, problem: problem.into(), place: None, allowed: None, next }
    }

    /// The report of a spec that cannot be read, the most usual operation.
    pub(super) fn read(problem: impl Into<String>, place: Place) -> Self {
        Self::new("cannot read the spec", problem).at(place)
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        let place = self.place.as_ref();
        if let Some((file, source, span)) =
            place.and_then(|p| p.source.path().map(|file| (file, &p.source, &p.span)))
        {
            let file = shown_path(file);
            write!(f, " in {file}, line {}", source.line_column(span.start).0)?;
        }
        write!(f, ": {}", self.problem)?;
        if let Some(place) = place {
            let (line, caret) = place.source.excerpt(place.span.start);
            write!(f, "\n  {line}\n  {:caret$}^", "")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "\n  allowed here: {allowed}")?;
        }
        if !self.next.is_empty() {
            write!(f, "\n  {}", self.next)?;
        }
        Ok(())
    }
}

/// The candidate that `word` was probably meant to be, if one is near enough.
///
/// A third of the letters may differ, and one letter in a short word; a swap of two neighbours
/// counts as one difference. Case and the choice between `-` and `_` do not count.
pub(super) fn near_miss<'a>(
    word: &[u8],
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = str::from_utf8(word).ok()?.to_ascii_lowercase().replace('-', "_");
    // No name is near this long, and the distance costs the product of both lengths.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.replace('-', "_")), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
