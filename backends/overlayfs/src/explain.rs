//! Which layer shows what under a path, and what hides what.

use std::fmt;

use stratafs_core::{Errno, FileType, Name, NodeId, Result};

use crate::OverlayFs;
use crate::builder::layer_name;
use crate::layer::UPPER;
use crate::lookup::{Object, Probe};
use crate::merge::Visible;

/// What becomes of what a layer has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gives the attributes, and of a file the data.
    Shown,
    /// It is a directory whose entries are merged in.
    Merged,
    /// It gives the data of a file whose attributes are shown from above.
    Data,
    /// It is a file that was copied up by another of its names, and gives attributes and data.
    Linked,
    /// Something above hides it.
    Hidden,
    /// It is a whiteout: the name is deleted here.
    Whiteout,
}

/// What one layer has under a path; see [`OverlayFs::explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// The layer: 0 is the writable one, read-only ones count from 1 at the top.
    pub layer: usize,
    /// Its type; of a whiteout none.
    pub file_type: Option<FileType>,
    /// What becomes of it.
    pub role: Role,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Shown => "shows",
            Role::Merged => "is merged in with",
            Role::Data => "gives the data of",
            Role::Linked => "shows, by another name,",
            Role::Hidden => "is hidden with",
            Role::Whiteout => return write!(f, "{} deletes it", layer_name(self.layer)),
        };
        let what = match self.file_type {
            Some(FileType::Regular) => "a file",
            Some(FileType::Directory) => "a directory",
            Some(FileType::Symlink) => "a symlink",
            _ => "a special file",
        };
        write!(f, "{} {role} {what}", layer_name(self.layer))
    }
}

impl OverlayFs {
    /// What each layer has under `path`, the topmost first: what is shown, what is merged in, what is
    /// deleted, and what is hidden. Layers that have nothing there, or in which an ancestor is hidden,
    /// are left out. The empty path is the root.
    ///
    /// # Errors
    /// * `ENOENT`, `ENOTDIR`: an ancestor is not there, or is no directory.
    pub fn explain(&self, path: &[Name<'_>]) -> Result<Vec<Part>> {
        let mut dir = self.table.get(NodeId::ROOT)?.place();
        let Some((last, ancestors)) = path.split_last() else {
            let role = |at| if at == 0 { Role::Shown } else { Role::Merged };
            let parts = dir.stack().enumerate().map(|(at, real)| Part {
                layer: real.layer,
                file_type: Some(FileType::Directory),
                role: role(at),
            });
            return Ok(parts.collect());
        };
        for name in ancestors {
            let object = self.resolve(&dir, *name)?.object.ok_or(Errno::ENOENT)?;
            if !object.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            dir = object.as_place();
        }
        let object = self.resolve(&dir, *last)?.object;
        let mut parts = Vec::new();
        for base in dir.stack() {
            let part = match self.probe(base, *last)? {
                Probe::Absent => continue,
                Probe::Whiteout => {
                    Part { layer: base.layer, file_type: None, role: Role::Whiteout }
                }
                Probe::Object { attr, .. } => Part {
                    layer: base.layer,
                    file_type: Some(attr.kind()),
                    role: role_of(object.as_ref(), base.layer, true),
                },
            };
            parts.push(part);
        }
        // What a redirect brings in lies under another name; so does a copy in the index.
        let stack = object.iter().flat_map(|object| object.upper.iter().chain(&object.lowers));
        for real in stack {
            if !parts.iter().any(|part| part.layer == real.layer && part.role != Role::Hidden) {
                let file_type = object.as_ref().map(|object| object.attr.kind());
                let role = role_of(object.as_ref(), real.layer, false);
                parts.push(Part { layer: real.layer, file_type, role });
            }
        }
        parts.sort_by_key(|part| part.layer);
        Ok(parts)
    }

    /// Calls `each` with every entry that shows in the directory `path`, and the number of the
    /// topmost layer that has it. The empty path is the root.
    ///
    /// # Errors
    /// * `ENOENT`, `ENOTDIR`: it is not there, or is no directory.
    pub fn explain_entries(
        &self,
        path: &[Name<'_>],
        mut each: impl FnMut(Name<'_>, FileType, usize),
    ) -> Result<()> {
        let mut dir = self.table.get(NodeId::ROOT)?.place();
        for name in path {
            let object = self.resolve(&dir, *name)?.object.ok_or(Errno::ENOENT)?;
            if !object.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            dir = object.as_place();
        }
        self.visible(&dir, |Visible { item, kind, from }| {
            each(item.name.as_name(), kind, from.layer);
            Ok(true)
        })
    }
}

/// What becomes of what the layer of this number has, when `object` is what is shown. `named`: it
/// has it under the name that is asked for.
fn role_of(object: Option<&Object>, layer: usize, named: bool) -> Role {
    let Some(object) = object else { return Role::Hidden };
    let stack: Vec<usize> =
        object.upper.iter().chain(&object.lowers).map(|real| real.layer).collect();
    match stack.iter().position(|number| *number == layer) {
        Some(0) if layer == UPPER && !named && !object.is_dir() => Role::Linked,
        Some(0) => Role::Shown,
        Some(_) if object.is_dir() => Role::Merged,
        Some(at) if at + 1 == stack.len() => Role::Data,
        Some(_) | None => Role::Hidden,
    }
}
