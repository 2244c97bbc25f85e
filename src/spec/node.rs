//! What a composition means: a tree of backends with decoded settings.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::error::Place;
use super::tables::{Backend, Key};

/// A backend with its settings: one filesystem of a composition.
#[derive(Debug)]
#[non_exhaustive]
pub struct Node {
    /// The table of the backend.
    pub backend: &'static Backend,
    /// What was set, in the order written.
    pub settings: Vec<Setting>,
    /// Where the filesystem is written.
    pub place: Place,
}

/// One setting of a [`Node`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Setting {
    /// What is set.
    pub target: Target,
    /// What it is set to.
    pub value: Checked,
    /// Where the setting is written.
    pub place: Place,
}

impl Setting {
    fn sets(&self, name: &str) -> bool {
        matches!(self.target, Target::Key(key) if key.name == name)
    }
}

/// What a [`Setting`] sets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A key of the backend.
    Key(&'static Key),
    /// A place in the tree: router only.
    Mount(PathBuf),
}

/// A value of the kind that its key takes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Checked {
    /// [`Kind::Size`](super::tables::Kind::Size).
    Size(ByteSize),
    /// [`Kind::Count`](super::tables::Kind::Count).
    Count(u64),
    /// [`Kind::Time`](super::tables::Kind::Time).
    Time(Duration),
    /// [`Kind::Id`](super::tables::Kind::Id).
    Id(u32),
    /// [`Kind::Mode`](super::tables::Kind::Mode).
    Mode(u32),
    /// [`Kind::Choice`](super::tables::Kind::Choice).
    Choice(&'static str),
    /// [`Kind::Flag`](super::tables::Kind::Flag).
    Flag(bool),
    /// [`Kind::Path`](super::tables::Kind::Path); a relative path from a file is resolved against the file's directory.
    Path(PathBuf),
    /// [`Kind::Filesystem`](super::tables::Kind::Filesystem), and each part of a [`Kind::PathList`](super::tables::Kind::PathList).
    Filesystem(Box<Node>),
    /// [`Kind::Text`](super::tables::Kind::Text).
    Text(OsString),
}

impl Node {
    /// The value of the key called `name`, if it was set; the first, if it repeats.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.sets(name))
    }

    /// Every value of the key called `name`, in the order written.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Setting> {
        self.settings.iter().filter(move |setting| setting.sets(name))
    }

    /// The size that the key called `name` is set to.
    pub fn size(&self, name: &str) -> Option<ByteSize> {
        match self.get(name)?.value {
            Checked::Size(size) => Some(size),
            _ => None,
        }
    }

    /// The count that the key called `name` is set to.
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.get(name)?.value {
            Checked::Count(count) => Some(count),
            _ => None,
        }
    }

    /// The user or group that the key called `name` is set to.
    pub fn id(&self, name: &str) -> Option<u32> {
        match self.get(name)?.value {
            Checked::Id(id) => Some(id),
            _ => None,
        }
    }

    /// The permissions that the key called `name` is set to.
    pub fn mode(&self, name: &str) -> Option<u32> {
        match self.get(name)?.value {
            Checked::Mode(mode) => Some(mode),
            _ => None,
        }
    }

    /// The time that the key called `name` is set to.
    pub fn time(&self, name: &str) -> Option<Duration> {
        match self.get(name)?.value {
            Checked::Time(time) => Some(time),
            _ => None,
        }
    }

    /// The word that the key called `name` is set to.
    pub fn choice(&self, name: &str) -> Option<&'static str> {
        match self.get(name)?.value {
            Checked::Choice(word) => Some(word),
            _ => None,
        }
    }

    /// True if the flag called `name` is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Setting { value: Checked::Flag(true), .. }))
    }

    /// The path that the key called `name` is set to.
    pub fn path(&self, name: &str) -> Option<&Path> {
        match &self.get(name)?.value {
            Checked::Path(path) => Some(path),
            _ => None,
        }
    }

    /// The texts that the key called `name` is set to, in the order written, and where.
    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a OsStr, &'a Place)> {
        self.get_all(name).filter_map(|setting| match &setting.value {
            Checked::Text(text) => Some((text.as_os_str(), &setting.place)),
            _ => None,
        })
    }

    /// The filesystem that the key called `name` is set to.
    pub fn filesystem(&self, name: &str) -> Option<&Node> {
        match &self.get(name)?.value {
            Checked::Filesystem(node) => Some(node),
            _ => None,
        }
    }
}
