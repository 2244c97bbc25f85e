//! From the syntax tree to what it means.
//!
//! The check looks every name and key up in the tables, decodes every value to its kind, loads
//! included files, and so yields a tree of [`Node`]s that the build only has to walk.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ast::{Arg, Call, Expr, Span, Value, Word};
use super::duration::parse_duration;
use super::error::{Place, Report, Source, SpecError, near_miss, quoted};
use super::file::Loader;
use super::node::{Checked, Node, Setting, Target};
use super::parse::{self, MAX_DEPTH, SyntaxError};
use super::size::{parse_count, parse_size};
use super::tables::{self, Backend, Key, Kind};

impl SyntaxError {
    /// The error for users, now that it is known where the text stands: `base` is the offset of the
    /// text in `source`, or the span of the whole text if offsets inside it cannot be mapped.
    pub(super) fn into_spec_error(self, source: &Arc<Source>, map: &SpanMap) -> SpecError {
        let place = Place::new(source, map.span(self.at..self.at));
        let report = Report::read(self.problem, place).allowed(self.allowed).next(self.next);
        let report = Box::new(report);
        if self.is_limit { SpecError::Limit(report) } else { SpecError::Syntax(report) }
    }
}

/// How the spans of a parsed text become spans of the source that the text stands in.
#[derive(Debug, Clone)]
pub(super) enum SpanMap {
    /// The text begins at this offset.
    Shift(usize),
    /// The text is written with escapes there, so everything in it is at this span.
    Whole(Span),
}

impl SpanMap {
    pub(super) fn span(&self, span: Span) -> Span {
        match self {
            Self::Shift(by) => span.start + by..span.end + by,
            Self::Whole(whole) => whole.clone(),
        }
    }
}

/// Checks `expr`, which is written in `source`; relative paths in it are relative to `dir`.
pub(super) fn check(expr: &Expr, source: &Arc<Source>) -> Result<Node, SpecError> {
    let mut loader = Loader::default();
    Checker { source, dir: None, loader: &mut loader, depth: 0 }.expr(expr)
}

/// The check of one source.
struct Checker<'a> {
    source: &'a Arc<Source>,
    /// What relative paths are relative to; the working directory if `None`.
    dir: Option<&'a Path>,
    loader: &'a mut Loader,
    depth: usize,
}

impl Checker<'_> {
    fn place(&self, span: &Span) -> Place {
        Place::new(self.source, span.clone())
    }

    fn report(&self, span: &Span, problem: impl Into<String>) -> Report {
        Report::read(problem, self.place(span))
    }

    fn syntax(&self, error: SyntaxError) -> SpecError {
        error.into_spec_error(self.source, &SpanMap::Shift(0))
    }

    /// Checks one filesystem. The text bounds its own depth; files in files could add to it.
    fn expr(&mut self, expr: &Expr) -> Result<Node, SpecError> {
        if self.depth > MAX_DEPTH {
            let problem = format!("more than {MAX_DEPTH} filesystems are nested in each other");
            let report = self.report(&expr.span(), problem).next("nest fewer wrappers and layers");
            return Err(SpecError::Limit(Box::new(report)));
        }
        self.depth += 1;
        let node = match expr {
            Expr::Path(word) => self.bare_path(word),
            Expr::Call(call) => self.call(call),
            Expr::Include(word) => self.include(word),
        };
        self.depth -= 1;
        node
    }

    /// A bare path is `passthrough(PATH)`.
    fn bare_path(&self, word: &Word) -> Result<Node, SpecError> {
        self.passthrough(self.path(word)?, &word.span)
    }

    fn passthrough(&self, path: PathBuf, span: &Span) -> Result<Node, SpecError> {
        let place = self.place(span);
        let table = tables::find(b"passthrough")
            .and_then(|backend| Some((backend, backend.key(backend.positional?.as_bytes())?)));
        let Some((backend, key)) = table else {
            let report = self.report(span, "there is no backend for bare paths");
            return Err(SpecError::UnknownName(Box::new(report.allowed(tables::names()))));
        };
        let target = Target::Key(key);
        let setting = Setting { target, value: Checked::Path(path), place: place.clone() };
        Ok(Node { backend, settings: vec![setting], place })
    }

    fn include(&mut self, word: &Word) -> Result<Node, SpecError> {
        if let Some(at) = word.expansion {
            return Err(self.syntax(parse::expansion_error(word, at)));
        }
        let path = self.resolve(&word.bytes);
        let file = self.loader.enter(&path, self.place(&word.span))?;
        let node = Checker {
            source: &file.source,
            dir: path.parent(),
            loader: self.loader,
            depth: self.depth,
        }
        .expr(&file.expr);
        self.loader.leave();
        node
    }

    fn call(&mut self, call: &Call) -> Result<Node, SpecError> {
        let Some(backend) = tables::find(&call.name.bytes) else {
            let problem = format!("nothing is called {}", quoted(&call.name.bytes));
            let next = match tables::suggest(&call.name.bytes) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "`stratafs backends` says what each of them is".to_owned(),
            };
            let report = self.report(&call.name.span, problem).allowed(tables::names()).next(next);
            return Err(SpecError::UnknownName(Box::new(report)));
        };
        let mut settings = Vec::new();
        for arg in &call.args {
            self.arg(backend, arg, &mut settings)?;
        }
        let node = Node { backend, settings, place: self.place(&call.span) };
        if let Some(key) = backend.all_keys().find(|k| k.required && node.get(k.name).is_none()) {
            let problem = format!("{} needs {key}", backend.name);
            let span = self.end_of(call);
            let report = self.report(&span, problem).allowed(backend.allowed()).next(format!(
                "add it, as in `{}`",
                backend.examples.last().copied().unwrap_or(backend.name)
            ));
            return Err(SpecError::Arguments(Box::new(report)));
        }
        Ok(node)
    }

    /// Where a missing argument could be added: the closing parenthesis, or in a table the name.
    fn end_of(&self, call: &Call) -> Span {
        let close = call.span.end.saturating_sub(1)..call.span.end;
        let is_text = self.source.text().get(close.clone()) == Some(b")");
        if is_text { close } else { call.name.span.clone() }
    }

    fn arg(
        &mut self,
        backend: &'static Backend,
        arg: &Arg,
        settings: &mut Vec<Setting>,
    ) -> Result<(), SpecError> {
        let Some(name) = &arg.key else {
            return self.bare_arg(backend, &arg.value, settings);
        };
        if name.is_path() {
            return self.mount(backend, name, &arg.value, settings);
        }
        let Some(key) = backend.key(&name.bytes) else {
            return Err(self.unknown_key(backend, name));
        };
        self.set(backend, key, &arg.value, &name.span, settings)
    }

    /// A value without a key: a flag's name, or the value of the positional key.
    fn bare_arg(
        &mut self,
        backend: &'static Backend,
        value: &Value,
        settings: &mut Vec<Setting>,
    ) -> Result<(), SpecError> {
        let span = value.span();
        if let Value::Word(word) = value {
            let name = parse::key(word.clone());
            match backend.key(&name.bytes) {
                Some(key) if key.kind == Kind::Flag => {
                    self.refuse_second(key, &span, settings)?;
                    let target = Target::Key(key);
                    let value = Checked::Flag(true);
                    settings.push(Setting { target, value, place: self.place(&span) });
                    return Ok(());
                }
                Some(key) => {
                    let problem = format!("`{}` has no value", key.name);
                    let report = self.report(&span, problem).allowed(key.to_string());
                    let next = format!("write `{}=` and its value", key.name);
                    return Err(SpecError::Arguments(Box::new(report.next(next))));
                }
                None => {}
            }
        }
        let positional = backend.positional.and_then(|name| backend.key(name.as_bytes()));
        match (positional, value) {
            (Some(key), Value::Expr(_)) => self.set(backend, key, value, &span, settings),
            (Some(key), Value::Word(word))
                if self.near_key(backend, word).is_none() && !is_set(key, settings) =>
            {
                self.set(backend, key, value, &span, settings)
            }
            (_, Value::Word(word)) => Err(self.unknown_key(backend, word)),
            (None, Value::Expr(_)) => {
                let problem = format!("{} takes no value without a key", backend.name);
                let report = self.report(&span, problem).allowed(backend.allowed());
                let next = "write KEY= before it";
                Err(SpecError::Arguments(Box::new(report.next(next))))
            }
        }
    }

    fn near_key(&self, backend: &Backend, word: &Word) -> Option<&'static str> {
        near_miss(&word.bytes, backend.key_names())
    }

    fn unknown_key(&self, backend: &Backend, word: &Word) -> SpecError {
        let problem = format!("{} has no key {}", backend.name, quoted(&word.bytes));
        let next = match self.near_key(backend, word) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("`stratafs backends {}` explains each key", backend.name),
        };
        let report = self.report(&word.span, problem).allowed(backend.allowed()).next(next);
        SpecError::UnknownKey(Box::new(report))
    }

    /// A path as a key: a mount of router.
    fn mount(
        &mut self,
        backend: &'static Backend,
        name: &Word,
        value: &Value,
        settings: &mut Vec<Setting>,
    ) -> Result<(), SpecError> {
        if !backend.has_mounts {
            let problem = format!("{} takes no path as a key", backend.name);
            let report = self.report(&name.span, problem).allowed(backend.allowed());
            let next = "only router has paths as keys; a value with = in it goes in quotes";
            return Err(SpecError::UnknownKey(Box::new(report.next(next))));
        }
        let target = Target::Mount(self.mount_point(name)?);
        if settings.iter().any(|setting| setting.target == target) {
            let problem = format!("{} is mounted twice", quoted(&name.bytes));
            let report = self.report(&name.span, problem).next("remove one of the two");
            return Err(SpecError::Arguments(Box::new(report)));
        }
        let value = Checked::Filesystem(Box::new(self.filesystem(value, None)?));
        settings.push(Setting { target, value, place: self.place(&name.span) });
        Ok(())
    }

    /// The place of a mount: absolute, without `.` and `..`, repeated and trailing slashes dropped.
    fn mount_point(&self, name: &Word) -> Result<PathBuf, SpecError> {
        if let Some(at) = name.expansion {
            return Err(self.syntax(parse::expansion_error(name, at)));
        }
        let parts = name.bytes.split(|&b| b == b'/').filter(|part| !part.is_empty());
        let is_plain = |part: &[u8]| part != b"." && part != b"..";
        if name.bytes.first() != Some(&b'/') || !parts.clone().all(is_plain) {
            let problem = format!("{} is no place in the tree", quoted(&name.bytes));
            let report = self
                .report(&name.span, problem)
                .allowed("a path beginning with /, without . and .. in it")
                .next("write the path as the guest sees it");
            return Err(SpecError::Value(Box::new(report)));
        }
        let mut path = PathBuf::from("/");
        path.extend(parts.map(|part| OsString::from_vec(part.to_vec())));
        Ok(path)
    }

    fn refuse_second(
        &self,
        key: &'static Key,
        span: &Span,
        settings: &[Setting],
    ) -> Result<(), SpecError> {
        if key.repeats || !is_set(key, settings) {
            return Ok(());
        }
        let problem = format!("`{}` is given twice", key.name);
        let mut report = self.report(span, problem).next("remove one of the two");
        if !key.aliases.is_empty() {
            report.next.push_str(&format!("; `{}` is the same key", key.aliases.join("`, `")));
        }
        Err(SpecError::Arguments(Box::new(report)))
    }

    /// Sets `key`, written at `span`, to `value`.
    fn set(
        &mut self,
        backend: &'static Backend,
        key: &'static Key,
        value: &Value,
        span: &Span,
        settings: &mut Vec<Setting>,
    ) -> Result<(), SpecError> {
        self.refuse_second(key, span, settings)?;
        let place = self.place(span);
        let value = match (key.kind, value) {
            (Kind::Filesystem, value) => {
                Checked::Filesystem(Box::new(self.filesystem(value, Some(key))?))
            }
            (_, Value::Word(word) | Value::Expr(Expr::Path(word))) => {
                if let Kind::PathList(into) = key.kind {
                    let into = backend.key(into.as_bytes()).unwrap_or(key);
                    return self.path_list(into, word, settings);
                }
                self.scalar(key, word)?
            }
            (kind, Value::Expr(expr)) => {
                let problem = format!("`{}` takes no filesystem", key.name);
                let report = self.report(&expr.span(), problem).allowed(kind.allowed());
                let next = "write a plain value, or move the filesystem to another key";
                return Err(SpecError::Value(Box::new(report.next(next))));
            }
        };
        settings.push(Setting { target: Target::Key(key), value, place });
        Ok(())
    }

    fn filesystem(&mut self, value: &Value, key: Option<&Key>) -> Result<Node, SpecError> {
        match value {
            Value::Expr(expr) => self.expr(expr),
            Value::Word(word) => {
                let mut error = parse::not_an_expr(word);
                if let Some(key) = key {
                    error.problem = format!("`{}`: {}", key.name, error.problem);
                }
                Err(self.syntax(error))
            }
        }
    }

    /// The parts of `lowerdir=A:B`, added to the settings of `into`.
    fn path_list(
        &self,
        into: &'static Key,
        word: &Word,
        settings: &mut Vec<Setting>,
    ) -> Result<(), SpecError> {
        for part in word.bytes.split(|&b| b == b':') {
            let part = Word { bytes: part.to_vec(), ..word.clone() };
            let node = self.passthrough(self.path(&part)?, &word.span)?;
            let value = Checked::Filesystem(Box::new(node));
            settings.push(Setting {
                target: Target::Key(into),
                value,
                place: self.place(&word.span),
            });
        }
        Ok(())
    }

    fn scalar(&self, key: &'static Key, word: &Word) -> Result<Checked, SpecError> {
        let bad = |reason: String| {
            let colon = if reason.is_empty() { "" } else { ": " };
            let value = quoted(&word.bytes);
            let problem = format!("{value} is no value of `{}`{colon}{reason}", key.name);
            let next = match key.kind {
                Kind::Choice(words) => near_miss(&word.bytes, words.iter().copied())
                    .map(|near| format!("did you mean `{near}`?")),
                _ => None,
            };
            let report = self.report(&word.span, problem).allowed(key.kind.allowed());
            let next = next.unwrap_or_else(|| "correct it and try again".into());
            SpecError::Value(Box::new(report.next(next)))
        };
        let text = || str::from_utf8(&word.bytes).map_err(|_| bad("it is not UTF-8".into()));
        Ok(match key.kind {
            Kind::Size => Checked::Size(parse_size(text()?).map_err(bad)?),
            Kind::Count => Checked::Count(parse_count(text()?).map_err(bad)?),
            Kind::Time => Checked::Time(parse_duration(text()?).map_err(bad)?),
            // −1 means "leave it" to chown(2), so it is nobody's.
            Kind::Id => match text()?.parse() {
                Ok(id) if id != u32::MAX => Checked::Id(id),
                _ => return Err(bad(String::new())),
            },
            Kind::Mode => match u32::from_str_radix(text()?, 8) {
                Ok(mode) if mode <= 0o7777 => Checked::Mode(mode),
                _ => return Err(bad(String::new())),
            },
            Kind::Choice(words) => {
                let text = text()?.replace('_', "-");
                let known = words.iter().find(|known| **known == text);
                Checked::Choice(known.ok_or_else(|| bad(String::new()))?)
            }
            Kind::Flag => match text()? {
                "true" | "yes" | "on" => Checked::Flag(true),
                "false" | "no" | "off" => Checked::Flag(false),
                _ => return Err(bad(String::new())),
            },
            Kind::Path => Checked::Path(self.path(word)?),
            Kind::Text => Checked::Text(OsString::from_vec(word.bytes.clone())),
            Kind::Filesystem | Kind::PathList(_) => return Err(bad(String::new())),
        })
    }

    fn path(&self, word: &Word) -> Result<PathBuf, SpecError> {
        if let Some(at) = word.expansion {
            return Err(self.syntax(parse::expansion_error(word, at)));
        }
        if !word.is_path() {
            return Err(self.syntax(parse::not_an_expr(word)));
        }
        Ok(self.resolve(&word.bytes))
    }

    fn resolve(&self, bytes: &[u8]) -> PathBuf {
        let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
        match self.dir {
            Some(dir) if path.is_relative() => dir.join(path),
            _ => path,
        }
    }
}

fn is_set(key: &'static Key, settings: &[Setting]) -> bool {
    settings.iter().any(|setting| setting.target == Target::Key(key))
}
