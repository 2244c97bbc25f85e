//! The marks of the on-disk format, in the kernel's words.
//!
//! Source: <https://docs.kernel.org/filesystems/overlayfs.html>, and `fs/overlayfs/` of the kernel
//! where that is silent.

use stratafs_core::{Attr, FileType, Name, NameBuf};

/// Where the overlay keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `trusted.overlay.*`, which takes privilege on the host.
    Trusted,
    /// `user.overlay.*`, of the option `userxattr`.
    User,
}

/// An extended attribute of the overlay's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `y`: nothing below is merged into this directory. `x`: it may hold whiteouts that are files.
    Opaque,
    /// Where the lower parts of this directory are.
    Redirect,
    /// The data of this file is below.
    Metacopy,
    /// What this object was copied up from.
    Origin,
    /// `y`: objects that were copied up are in this directory.
    Impure,
    /// On an empty regular file in a directory that is opaque `x`: a whiteout.
    Whiteout,
    /// How many names more this file has than its object in the writable layer or below.
    Nlink,
    /// How many names a file of the index has in the read-only layer, for those of its names that
    /// lead to another file there. The kernel ignores it and hides it.
    LowerNlink,
    /// What of the writable layer an entry of the index is for.
    Upper,
    /// The inode number of what this file was copied up from, where its origin does not give it
    /// away. The kernel ignores it and hides it.
    Ino,
}

/// What makes a name of the overlay's own one of another overlay's, that is nested in this one.
const ESCAPE: &[u8] = b"overlay.";

impl Namespace {
    /// What the names of all records begin with.
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// The full name of `record`.
    pub(crate) fn name(self, record: Record) -> &'static [u8] {
        macro_rules! names {
            ($prefix:literal) => {
                match record {
                    Record::Opaque => concat!($prefix, "opaque"),
                    Record::Redirect => concat!($prefix, "redirect"),
                    Record::Metacopy => concat!($prefix, "metacopy"),
                    Record::Origin => concat!($prefix, "origin"),
                    Record::Impure => concat!($prefix, "impure"),
                    Record::Whiteout => concat!($prefix, "whiteout"),
                    Record::Nlink => concat!($prefix, "nlink"),
                    Record::LowerNlink => concat!($prefix, "stratafs.lower_nlink"),
                    Record::Upper => concat!($prefix, "upper"),
                    Record::Ino => concat!($prefix, "stratafs.ino"),
                }
            };
        }
        match self {
            Self::Trusted => names!("trusted.overlay.").as_bytes(),
            Self::User => names!("user.overlay.").as_bytes(),
        }
    }

    /// The name under which a layer keeps what a client calls `name`; `None` where that is the same.
    pub(crate) fn escape(self, name: &[u8]) -> Option<Vec<u8>> {
        let rest = name.strip_prefix(self.prefix())?;
        Some([self.prefix(), ESCAPE, rest].concat())
    }

    /// What a client sees of an attribute that a layer calls `name`.
    pub(crate) fn show(self, name: &[u8]) -> Shown {
        match name.strip_prefix(self.prefix()) {
            None => Shown::AsIs,
            Some(rest) => match rest.strip_prefix(ESCAPE) {
                Some(rest) => Shown::As([self.prefix(), rest].concat()),
                None => Shown::Hidden,
            },
        }
    }

    /// Whether an attribute of a layer is copied along: all but the overlay's own records.
    pub(crate) fn is_copied(self, name: &[u8]) -> bool {
        self.show(name) != Shown::Hidden
    }
}

/// What a client sees of a layer's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It, by its name.
    AsIs,
    /// It, by this name.
    As(Vec<u8>),
    /// Nothing.
    Hidden,
}

/// Whether an object is a whiteout: a character device `0:0`.
pub(crate) fn is_whiteout(attr: &Attr) -> bool {
    attr.kind() == FileType::CharDevice && attr.rdev == 0
}

/// The prefix of the name that hides another, in an OCI layer.
pub(crate) const OCI_PREFIX: &[u8] = b".wh.";

/// The name that makes a directory of an OCI layer opaque.
pub(crate) const OCI_OPAQUE: &[u8] = b".wh..wh..opq";

/// The name that hides `name` in an OCI layer, if there can be one.
pub(crate) fn oci_whiteout(name: Name<'_>) -> Option<NameBuf> {
    let whiteout = [OCI_PREFIX, name.as_bytes()].concat();
    Name::new(&whiteout).ok().map(Name::to_owned)
}

/// The longest redirect: `OVL_REDIRECT_MAX` of the kernel.
pub(crate) const REDIRECT_MAX: usize = 256;

/// Where the lower parts of a directory are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// At this path from the root of the layers.
    Absolute(Vec<NameBuf>),
    /// Under this name in the directory's parent.
    Sibling(NameBuf),
}

impl Redirect {
    /// The redirect that `value` records; `None` where it is none.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let names = |path: &[u8]| -> Option<Vec<NameBuf>> {
            let parts = path.split(|byte| *byte == b'/');
            parts.map(|name| Name::new(name).ok().map(Name::to_owned)).collect()
        };
        match value.strip_prefix(b"/") {
            Some(path) => names(path).map(Self::Absolute),
            None => Name::new(value).ok().map(|name| Self::Sibling(name.to_owned())),
        }
    }

    /// What records it.
    pub(crate) fn value(&self) -> Vec<u8> {
        match self {
            Self::Sibling(name) => name.as_bytes().to_vec(),
            Self::Absolute(names) => {
                names.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
            }
        }
    }
}

/// What a count of names is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NlinkOf {
    /// That of the object in the writable layer.
    Upper,
    /// That of the object it was copied up from.
    Lower,
}

/// The value of a record of how many names more than `of` an object has in the merged tree.
pub(crate) fn nlink_value(of: NlinkOf, more: i64) -> Vec<u8> {
    let letter = if of == NlinkOf::Upper { 'U' } else { 'L' };
    format!("{letter}{more:+}").into_bytes()
}

/// What such a record says.
pub(crate) fn parse_nlink(value: &[u8]) -> Option<(NlinkOf, i64)> {
    let (letter, number) = value.split_first()?;
    let of = match letter {
        b'U' => NlinkOf::Upper,
        b'L' => NlinkOf::Lower,
        _ => return None,
    };
    let signed = matches!(number.first(), Some(b'+' | b'-'));
    let number: i32 = std::str::from_utf8(number).ok().filter(|_| signed)?.parse().ok()?;
    Some((of, i64::from(number)))
}

/// The value of an inode record: the layer, counted from the bottom, and the number in it.
pub(crate) fn ino_value(layer: usize, ino: u64) -> Vec<u8> {
    format!("{layer}:{ino}").into_bytes()
}

/// The layer and the number that an inode record holds.
pub(crate) fn parse_ino(value: &[u8]) -> Option<(usize, u64)> {
    let (layer, ino) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((layer.parse().ok()?, ino.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameBuf {
        Name::new(text.as_bytes()).unwrap().to_owned()
    }

    #[test]
    fn escape_and_show_are_each_other_s_inverse_and_records_are_hidden() {
        for namespace in [Namespace::Trusted, Namespace::User] {
            let own = namespace.name(Record::Opaque);
            let escaped = namespace.escape(own).unwrap();
            assert_eq!(namespace.show(own), Shown::Hidden);
            assert_eq!(namespace.show(&escaped), Shown::As(own.to_vec()));
            let twice = namespace.escape(&escaped).unwrap();
            assert_eq!(namespace.show(&twice), Shown::As(escaped.clone()));
            assert!(namespace.is_copied(&escaped) && !namespace.is_copied(own));
            assert_eq!(namespace.show(b"user.other"), Shown::AsIs);
            assert_eq!(namespace.escape(b"user.other"), None);
        }
        assert_eq!(Namespace::Trusted.show(b"user.overlay.opaque"), Shown::AsIs);
    }

    #[test]
    fn redirect_of_a_hostile_value_is_none() {
        for value in [&b""[..], b"/", b"a/b", b"/a//b", b"/a/../b", b"..", b"/a/", b"/a\0b"] {
            assert_eq!(Redirect::parse(value), None, "{}", value.escape_ascii());
        }
        let absolute = Redirect::Absolute(vec![name("a"), name("b")]);
        assert_eq!(Redirect::parse(b"/a/b"), Some(absolute.clone()));
        assert_eq!(absolute.value(), b"/a/b");
        assert_eq!(Redirect::parse(b"a"), Some(Redirect::Sibling(name("a"))));
    }

    #[test]
    fn parse_nlink_reads_what_nlink_value_writes_and_nothing_else() {
        for (of, more, text) in
            [(NlinkOf::Upper, 0, "U+0"), (NlinkOf::Lower, -2, "L-2"), (NlinkOf::Upper, 3, "U+3")]
        {
            assert_eq!(nlink_value(of, more), text.as_bytes());
            assert_eq!(parse_nlink(text.as_bytes()), Some((of, more)));
        }
        for value in [&b""[..], b"U", b"U1", b"X+1", b"U+", b"U++1", b"L+99999999999"] {
            assert_eq!(parse_nlink(value), None, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn parse_ino_reads_what_ino_value_writes_and_nothing_else() {
        assert_eq!(parse_ino(&ino_value(3, u64::MAX)), Some((3, u64::MAX)));
        for value in [&b""[..], b"1", b"1:", b":1", b"a:1", b"1:-1", b"\xff:1"] {
            assert_eq!(parse_ino(value), None);
        }
    }
}
