//! Compositions in TOML files, `@FILE.toml`.
//!
//! A file holds one composition in either of two forms. The text form is one key:
//!
//! ```toml
//! spec = "overlay(lower=/layers/app, lower=/layers/base, upper=mem(capacity=512MiB))"
//! ```
//!
//! The table form names the backend and has its keys beside it. A filesystem inside is a table of
//! the same form, or a string: one that begins with `/` or `.` is a path as it is (no quotes, no
//! escapes), one that begins with `@` is a file, any other is text of a composition. Keys that may
//! be repeated take an array. The bare value of a call has a key here (`stratafs backends NAME`
//! shows which), and the mounts of router are keys.
//!
//! ```toml
//! backend = "overlay"
//! lower = ["/layers/app", "oci(/images/base, ref=latest)"]
//!
//! [upper]
//! backend = "mem"
//! capacity = "512MiB"
//! max_inodes = 100_000
//! ```
//!
//! Relative paths, of layers and of included files, are relative to the directory of the file that
//! they are written in. Files may include files, [`MAX_FILES`] in all, and none includes itself.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs_core::Errno;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ast::{Arg, Call, Expr, Span, Value, Word};
use super::check::SpanMap;
use super::error::{Place, Report, Source, SpecError, shown_path, visible_message};
use super::parse::{self, MAX_DEPTH};
use super::tables::{self, Kind};

/// The longest file, in bytes: the text of the largest composition fits four times over.
pub const MAX_FILE_BYTES: u64 = 256 << 10;

/// How many files one composition may load, the same file twice counted twice: without it, sixteen
/// small files that each include the next one twice would be read 65,536 times.
pub const MAX_FILES: usize = 256;

/// How deep files may include files.
pub const MAX_INCLUDE_DEPTH: usize = 16;

const FORMS: &str = "spec = \"…\", or backend = \"NAME\" and its keys";

/// Loads files and knows which ones are being read.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// Device, inode and path of each file on the way from the outermost to the current one.
    open: Vec<(u64, u64, PathBuf)>,
    loaded: usize,
}

/// The composition in a file.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) source: Arc<Source>,
    pub(super) expr: Expr,
}

impl Loader {
    /// Reads the file at `path`, named at `place`. Until [`Self::leave`] it is the current one.
    pub(super) fn enter(&mut self, path: &Path, place: Place) -> Result<Loaded, SpecError> {
        let shown = shown_path(path);
        let limit = |problem: String, next: &str| {
            let report = Report::read(problem, place.clone()).next(next);
            SpecError::Limit(Box::new(report))
        };
        if self.open.len() == MAX_INCLUDE_DEPTH {
            let problem = format!("files include each other more than {MAX_INCLUDE_DEPTH} deep");
            return Err(limit(problem, "put the parts into fewer files"));
        }
        if self.loaded == MAX_FILES {
            let problem = format!("more than {MAX_FILES} files are included");
            return Err(limit(problem, "put the parts into fewer files"));
        }
        let (text, device, inode) = read(path).map_err(|(cause, next)| {
            let report = Report::new("cannot read a file of the spec", format!("{shown}: {cause}"));
            SpecError::File(Box::new(report.at(place.clone()).next(next)))
        })?;
        if let Some(at) = self.open.iter().position(|(d, i, _)| (*d, *i) == (device, inode)) {
            let way: Vec<String> = self.open[at..]
                .iter()
                .map(|(_, _, path)| shown_path(path))
                .chain([shown])
                .collect();
            let problem = format!("a file includes itself: {}", way.join(" includes "));
            return Err(limit(problem, "remove this @FILE, or the one that leads here"));
        }
        let source = Arc::new(Source::file(path, text));
        let expr = parse(&source)?;
        self.open.push((device, inode, path.to_owned()));
        self.loaded += 1;
        Ok(Loaded { source, expr })
    }

    /// Ends the reading of the current file.
    pub(super) fn leave(&mut self) {
        self.open.pop();
    }
}

/// The content, device and inode of the file at `path`, or what is wrong and what to do about it.
fn read(path: &Path) -> Result<(Vec<u8>, u64, u64), (String, &'static str)> {
    let failed = |error: io::Error| {
        let next = match error.kind() {
            io::ErrorKind::NotFound => {
                "check the path; a relative one starts at the working \
                                        directory, or at the directory of the file that names it"
            }
            io::ErrorKind::PermissionDenied => "make it readable for this user",
            _ => "make it readable and try again",
        };
        (cause(&error), next)
    };
    // Opening a FIFO would wait for a writer, so the type is looked at first.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let next = "name a file that holds a composition as TOML";
        return Err(("it is not a regular file".to_owned(), next));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let cause = format!("it is longer than {} KiB", MAX_FILE_BYTES >> 10);
        return Err((cause, "check that it is the right file, or split it"));
    }
    Ok((text, metadata.dev(), metadata.ino()))
}

/// An I/O error as cause, with the kernel's name for it.
fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(raw) => Errno::from_raw(raw).to_string(),
        None => visible_message(&error.to_string()),
    }
}

/// Parses the content of a file.
fn parse(source: &Arc<Source>) -> Result<Expr, SpecError> {
    let text = str::from_utf8(source.text()).map_err(|error| {
        let at = error.valid_up_to();
        let report = Report::read("a TOML file is UTF-8, this is not", Place::new(source, at..at))
            .next("write other bytes of a path as \\xNN in spec = '…'");
        SpecError::Syntax(Box::new(report))
    })?;
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let problem = format!("this is no TOML: {}", visible_message(error.message()));
        let report = Report::read(problem, Place::new(source, span)).allowed(FORMS);
        SpecError::Syntax(Box::new(report.next("correct it and try again")))
    })?;
    Converter { source, text }.table(table.get_ref(), &table.span(), 0)
}

/// From TOML to the syntax tree; all spans are of the file.
struct Converter<'a> {
    source: &'a Arc<Source>,
    text: &'a str,
}

impl<'a> Converter<'a> {
    fn error(&self, span: &Span, problem: impl Into<String>, allowed: &str) -> SpecError {
        let report = Report::read(problem, Place::new(self.source, span.clone())).allowed(allowed);
        SpecError::Syntax(Box::new(report.next("correct it and try again")))
    }

    /// A table as a filesystem. `span` is where to point if nothing in the table is at fault.
    fn table(&self, table: &DeTable<'_>, span: &Span, depth: usize) -> Result<Expr, SpecError> {
        if depth > MAX_DEPTH {
            let problem = format!("more than {MAX_DEPTH} tables are nested in each other");
            let report = Report::read(problem, Place::new(self.source, span.clone()));
            return Err(SpecError::Limit(Box::new(report.next("nest fewer of them"))));
        }
        // The map is sorted by key; the order written is what counts, for layers as for errors.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        match (table.get("spec"), table.get("backend")) {
            (Some(spec), None) => {
                if let Some((key, _)) = entries.iter().find(|(key, _)| key.get_ref() != "spec") {
                    let problem = "`spec` is a whole composition and has no keys beside it";
                    return Err(self.error(&key.span(), problem, "spec = \"…\" alone"));
                }
                self.inline(self.string(spec, "spec")?, &spec.span())
            }
            (None, Some(name)) => self.call(name, &entries, span, depth),
            (Some(spec), Some(_)) => {
                let problem = "there are both `spec` and `backend`";
                Err(self.error(&spec.span(), problem, FORMS))
            }
            (None, None) => {
                let problem = "there is neither `spec` nor `backend`";
                Err(self.error(span, problem, FORMS))
            }
        }
    }

    fn string<'t>(&self, value: &'t Spanned<DeValue<'_>>, key: &str) -> Result<&'t str, SpecError> {
        value.get_ref().as_str().ok_or_else(|| {
            let kind = value.get_ref().type_str();
            let problem = format!("`{key}` is a string, not a value of type {kind}");
            self.error(&value.span(), problem, &format!("{key} = \"…\""))
        })
    }

    fn call(
        &self,
        name: &Spanned<DeValue<'_>>,
        entries: &[(&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)],
        span: &Span,
        depth: usize,
    ) -> Result<Expr, SpecError> {
        let text = self.string(name, "backend")?;
        let name = self.word(text, &name.span())?;
        let mut args = Vec::new();
        for (key, value) in entries.iter().filter(|(key, _)| key.get_ref() != "backend") {
            let key = parse::key(self.word(key.get_ref(), &key.span())?);
            // What a string means depends on the key. Where the name or key is unknown, the check
            // will refuse it whatever the value is.
            let kind = tables::find(&name.bytes).and_then(|b| b.key(&key.bytes)).map(|k| k.kind);
            let takes_filesystem = key.is_path() || kind == Some(Kind::Filesystem);
            let values = match value.get_ref() {
                DeValue::Array(array) => array.iter().collect(),
                _ => vec![*value],
            };
            for value in values {
                let value = self.value(value, takes_filesystem, depth)?;
                args.push(Arg { key: Some(key.clone()), value });
            }
        }
        Ok(Expr::Call(Call { name, args, span: span.clone() }))
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        takes_filesystem: bool,
        depth: usize,
    ) -> Result<Value, SpecError> {
        let span = value.span();
        let text = match value.get_ref() {
            DeValue::Table(table) => return self.table(table, &span, depth + 1).map(Value::Expr),
            DeValue::String(text) if takes_filesystem => {
                return self.filesystem(text, &span).map(Value::Expr);
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            other => {
                let problem = format!("a value of type {} means nothing here", other.type_str());
                return Err(self.error(&span, problem, "a string, a decimal number, or a table"));
            }
        };
        let word = self.word(&text, &span)?;
        Ok(Value::from_word(word))
    }

    /// A string where a filesystem is due.
    fn filesystem(&self, text: &str, span: &Span) -> Result<Expr, SpecError> {
        let word = self.word(text, span)?;
        if word.is_path() {
            return Ok(Expr::Path(word));
        }
        match text.strip_prefix('@').filter(|file| !file.is_empty()) {
            Some(file) => Ok(Expr::Include(self.word(file, span)?)),
            None => self.inline(text, span),
        }
    }

    /// A string that holds the text of a composition.
    fn inline(&self, text: &str, span: &Span) -> Result<Expr, SpecError> {
        let map = self.span_map(text, span);
        let mut expr = parse::parse_bytes(text.as_bytes())
            .map_err(|error| error.into_spec_error(self.source, &map))?;
        map_expr(&mut expr, &map);
        Ok(expr)
    }

    /// How offsets in `text`, the value of the string at `span`, become offsets in the file: they
    /// are only shifted if the string is written without TOML escapes.
    fn span_map(&self, text: &str, span: &Span) -> SpanMap {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let shift = ["\"\"\"", "'''", "\"", "'"].into_iter().find_map(|quote| {
            let inside = raw.strip_prefix(quote)?.strip_suffix(quote)?;
            // TOML drops the one newline right after a triple quote.
            let newline = |body: &'a str| body.strip_prefix("\r\n").or(body.strip_prefix('\n'));
            let body = if quote.len() == 3 { newline(inside).unwrap_or(inside) } else { inside };
            (body == text).then(|| span.start + quote.len() + inside.len() - body.len())
        });
        shift.map_or_else(|| SpanMap::Whole(span.clone()), SpanMap::Shift)
    }

    fn word(&self, text: &str, span: &Span) -> Result<Word, SpecError> {
        if text.contains('\0') {
            let problem = "a NUL character cannot be in a spec";
            return Err(self.error(span, problem, "text without \\u0000"));
        }
        Ok(Word { bytes: text.into(), span: span.clone(), expansion: None })
    }
}

/// Moves every span in `expr` by `map`.
fn map_expr(expr: &mut Expr, map: &SpanMap) {
    match expr {
        Expr::Path(word) | Expr::Include(word) => map_word(word, map),
        Expr::Call(call) => {
            map_word(&mut call.name, map);
            call.span = map.span(call.span.clone());
            for arg in &mut call.args {
                if let Some(key) = &mut arg.key {
                    map_word(key, map);
                }
                match &mut arg.value {
                    Value::Expr(expr) => map_expr(expr, map),
                    Value::Word(word) => map_word(word, map),
                }
            }
        }
    }
}

fn map_word(word: &mut Word, map: &SpanMap) {
    word.expansion = word.expansion.map(|at| map.span(at..at).start);
    word.span = map.span(word.span.clone());
}
