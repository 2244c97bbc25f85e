//! Looking at an overlay: what it changes, which layer shows what, whether it is well-formed.
//!
//! What is told comes as [`Line`]s: one text for people, and the same by its fields for programs.

use stratafs_core::{Errno, FileType, Name};
use stratafs_overlayfs::{Area, Change, ChangeKind, Finding, OverlayFs, Part, Repair, Role};

/// An overlay to be looked at, and what its layers are called; see
/// [`Composition::inspect`](super::Composition::inspect).
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The overlay, which refuses every change.
    pub overlay: OverlayFs,
    /// What each layer is called, by its number: 0 is the writable one, and its name is empty where
    /// there is none; read-only ones count from 1 at the top.
    pub layers: Vec<String>,
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// For people: one line, with unusual bytes escaped.
    pub text: String,
    /// For programs: names and values.
    pub fields: Vec<(&'static str, Field)>,
}

/// A value of a [`Line`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A word or a text.
    Text(String),
    /// A path or a name, which may be no UTF-8.
    Bytes(Vec<u8>),
    /// A number.
    Number(u64),
    /// True or false.
    Flag(bool),
}

/// Why something could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The path has a part that cannot be a name.
    #[error("cannot explain {path}: `{part}` is no name in a directory")]
    Path {
        /// The path.
        path: String,
        /// Its part.
        part: String,
    },
    /// No layer has anything under the path.
    #[error("cannot explain {path}: no layer has anything there")]
    Absent {
        /// The path.
        path: String,
    },
    /// A layer answered an error.
    #[error("cannot {what}: {errno}")]
    Layer {
        /// What was tried.
        what: String,
        /// What the layer answered.
        #[source]
        errno: Errno,
    },
}

impl InspectError {
    /// True if it was asked for wrongly, whatever the layers are like.
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::Path { .. })
    }
}

impl Inspection {
    /// Tells every change that the writable layer makes; see [`OverlayFs::changes`].
    ///
    /// # Errors
    /// [`InspectError::Layer`].
    pub fn changes(&self, mut each: impl FnMut(Line)) -> Result<(), InspectError> {
        let told = self.overlay.changes(|change| each(of_change(change)));
        told.map_err(failed("tell all changes"))
    }

    /// Tells what is wrong with the writable layer, and mends it if `repair`; see
    /// [`OverlayFs::check`]. Says whether nothing is wrong any more.
    ///
    /// # Errors
    /// [`InspectError::Layer`].
    pub fn check(&self, repair: bool, mut each: impl FnMut(Line)) -> Result<bool, InspectError> {
        let repair = if repair { Repair::Yes } else { Repair::No };
        let mut left = false;
        let told = self.overlay.check(repair, |finding| {
            left |= !finding.repaired;
            each(of_finding(finding));
        });
        told.map_err(failed("check all of it"))?;
        Ok(!left)
    }

    /// Tells what each layer has under `path`, and of a directory which layer each entry is of; see
    /// [`OverlayFs::explain`].
    ///
    /// # Errors
    /// Any [`InspectError`].
    pub fn explain(&self, path: &[u8], mut each: impl FnMut(Line)) -> Result<(), InspectError> {
        let names = names(path)?;
        let shown = path.escape_ascii().to_string();
        let what = format!("explain {shown}");
        let parts = self.overlay.explain(&names).map_err(failed(&what))?;
        if parts.is_empty() {
            return Err(InspectError::Absent { path: shown });
        }
        let is_shown = |part: &&Part| part.role == Role::Shown;
        let kind = parts.iter().find(is_shown).and_then(|part| part.file_type);
        parts.iter().for_each(|part| each(self.of_part(part)));
        if kind != Some(FileType::Directory) {
            return Ok(());
        }
        let told = self.overlay.explain_entries(&names, |name, kind, layer| {
            each(self.of_entry(name, kind, layer));
        });
        told.map_err(failed(&what))
    }

    fn label(&self, layer: usize) -> &str {
        self.layers.get(layer).map_or("", String::as_str)
    }

    fn named(&self, layer: usize) -> Vec<(&'static str, Field)> {
        let number = u64::try_from(layer).unwrap_or(u64::MAX);
        vec![("layer", Field::Number(number)), ("name", word(self.label(layer)))]
    }

    fn of_part(&self, part: &Part) -> Line {
        let role = match part.role {
            Role::Shown => "shown",
            Role::Merged => "merged",
            Role::Data => "data",
            Role::Linked => "linked",
            Role::Hidden => "hidden",
            Role::Whiteout => "whiteout",
        };
        let mut fields = self.named(part.layer);
        fields.push(("role", word(role)));
        fields.extend(part.file_type.map(|kind| ("type", word(file_type(kind)))));
        Line { text: format!("{part}: {}", self.label(part.layer)), fields }
    }

    fn of_entry(&self, name: Name<'_>, kind: FileType, layer: usize) -> Line {
        let mut fields = self.named(layer);
        fields.push(("entry", Field::Bytes(name.as_bytes().to_vec())));
        fields.push(("type", word(file_type(kind))));
        let slash = if kind == FileType::Directory { "/" } else { "" };
        let text = format!("  {}{slash}: {}", name.as_bytes().escape_ascii(), self.label(layer));
        Line { text, fields }
    }
}

fn failed(what: &str) -> impl FnOnce(Errno) -> InspectError {
    let what = what.to_owned();
    move |errno| InspectError::Layer { what, errno }
}

fn word(text: &str) -> Field {
    Field::Text(text.to_owned())
}

fn of_change(change: &Change) -> Line {
    let kind = match change.kind {
        ChangeKind::Added => "A",
        ChangeKind::Changed => "C",
        ChangeKind::Deleted => "D",
    };
    let fields = vec![
        ("kind", word(kind)),
        ("type", word(file_type(change.file_type))),
        ("size", Field::Number(change.size)),
        ("path", Field::Bytes(change.path.clone())),
    ];
    Line { text: change.to_string(), fields }
}

fn of_finding(finding: &Finding) -> Line {
    let area = match finding.area {
        Area::Upper => "upper",
        Area::Staging => "work",
    };
    let fields = vec![
        ("problem", word(finding.problem.word())),
        ("area", word(area)),
        ("path", Field::Bytes(finding.path.clone())),
        ("repaired", Field::Flag(finding.repaired)),
    ];
    Line { text: finding.to_string(), fields }
}

/// The word for a type.
fn file_type(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharDevice => "character-device",
        FileType::BlockDevice => "block-device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    }
}

/// The names in a path.
fn names(path: &[u8]) -> Result<Vec<Name<'_>>, InspectError> {
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    let names = parts.map(|part| {
        Name::new(part).map_err(|_| InspectError::Path {
            path: path.escape_ascii().to_string(),
            part: part.escape_ascii().to_string(),
        })
    });
    names.collect()
}
