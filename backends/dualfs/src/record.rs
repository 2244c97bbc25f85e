//! The records that the written side holds: extended attributes of this filesystem's own.

use stratafs_core::Attr;

/// Where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `trusted.dual.*`, which takes privilege on the host.
    Trusted,
    /// `user.dual.*`.
    User,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Of an empty regular file: it is none, but says that its name is gone.
    Whiteout,
    /// Of a directory: nothing of the other side shows in it, nor in its place.
    Opaque,
    /// Of a regular file: it shows in place of what the other side has, whichever comes first.
    Written,
    /// What was transferred had this inode number on the other side.
    Origin,
    /// Of a directory: some of what is in it has records.
    Impure,
    /// Of a file that has other names on the other side: how many of its names there are not here,
    /// less the one in the index.
    Links,
}

/// What makes the name of a record one of another dual filesystem, that is nested in this one.
const ESCAPE: &[u8] = b"dual.";

impl Namespace {
    /// What the names of all records begin with.
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.dual.",
            Self::User => b"user.dual.",
        }
    }

    /// The full name of `record`.
    pub(crate) fn name(self, record: Record) -> &'static [u8] {
        macro_rules! names {
            ($prefix:literal) => {
                match record {
                    Record::Whiteout => concat!($prefix, "whiteout"),
                    Record::Opaque => concat!($prefix, "opaque"),
                    Record::Written => concat!($prefix, "written"),
                    Record::Origin => concat!($prefix, "origin"),
                    Record::Impure => concat!($prefix, "impure"),
                    Record::Links => concat!($prefix, "links"),
                }
            };
        }
        match self {
            Self::Trusted => names!("trusted.dual.").as_bytes(),
            Self::User => names!("user.dual.").as_bytes(),
        }
    }

    /// The name under which a side keeps what a client calls `name`; `None` where that is the same.
    pub(crate) fn escape(self, name: &[u8]) -> Option<Vec<u8>> {
        let rest = name.strip_prefix(self.prefix())?;
        Some([self.prefix(), ESCAPE, rest].concat())
    }

    /// What a client sees of an attribute that a side calls `name`.
    pub(crate) fn show(self, name: &[u8]) -> Shown {
        match name.strip_prefix(self.prefix()) {
            None => Shown::AsIs,
            Some(rest) => match rest.strip_prefix(ESCAPE) {
                Some(rest) => Shown::As([self.prefix(), rest].concat()),
                None => Shown::Hidden,
            },
        }
    }

    /// Whether an attribute is copied along: all but the records.
    pub(crate) fn is_copied(self, name: &[u8]) -> bool {
        match name.strip_prefix(self.prefix()) {
            None => true,
            Some(rest) => rest.starts_with(ESCAPE),
        }
    }
}

/// What a client sees of a side's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It, by its name.
    AsIs,
    /// It, by this name.
    As(Vec<u8>),
    /// Nothing.
    Hidden,
}

/// The longest record's value, in bytes: two numbers of 20 digits, a sign, a colon.
pub(crate) const LONGEST: usize = 64;

/// Whether an object may be a whiteout, so that it is worth looking for the record.
pub(crate) fn may_be_whiteout(attr: &Attr) -> bool {
    attr.kind() == stratafs_core::FileType::Regular && attr.size == 0
}

/// The number that an origin record holds.
pub(crate) fn parse_origin(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What a links record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    /// The inode number on the other side, which is the name in the index.
    pub(crate) origin: u64,
    /// What is to be added to the link count on the written side.
    pub(crate) more: i64,
}

impl Links {
    pub(crate) fn value(self) -> Vec<u8> {
        format!("{}:{}", self.origin, self.more).into_bytes()
    }

    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (origin, more) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self { origin: origin.parse().ok()?, more: more.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_and_show_are_each_other_s_inverse_and_records_are_hidden() {
        for namespace in [Namespace::Trusted, Namespace::User] {
            let own = namespace.name(Record::Opaque);
            let escaped = namespace.escape(own).unwrap();
            assert_eq!(namespace.show(own), Shown::Hidden);
            assert_eq!(namespace.show(&escaped), Shown::As(own.to_vec()));
            assert!(namespace.is_copied(&escaped) && !namespace.is_copied(own));
            assert_eq!(namespace.show(b"user.other"), Shown::AsIs);
            assert_eq!(namespace.escape(b"user.other"), None);
        }
    }

    #[test]
    fn parse_reads_what_is_written_and_nothing_else() {
        let links = Links { origin: u64::MAX, more: -3 };
        assert_eq!(Links::parse(&links.value()), Some(links));
        assert!(links.value().len() <= LONGEST);
        for value in [&b""[..], b"1", b":", b"1:", b"a:1", b"\xff"] {
            assert_eq!(Links::parse(value), None);
        }
        assert_eq!(parse_origin(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_origin(b"-1"), None);
    }
}
