//! POSIX ACLs as bytes: the value of `system.posix_acl_access` and `system.posix_acl_default`.
//!
//! A version and then entries of eight bytes, little-endian, as linux/posix_acl_xattr.h has them.
//! What is not a valid ACL is refused by the rules of `posix_acl_valid`: the entries of owner, group
//! and others once each, in the order of their tags, and a mask where there are named ones.

use std::ffi::CStr;

use stratafs_core::{Errno, Result};

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;

/// `ACL_UNDEFINED_ID`: the id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// Which of the two an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AclKind {
    /// Who may do what.
    Access,
    /// What is made in a directory starts with it.
    Default,
}

impl AclKind {
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"system.posix_acl_access" => Some(Self::Access),
            b"system.posix_acl_default" => Some(Self::Default),
            _ => None,
        }
    }

    /// The name of the attribute, on the host and for a client.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Access => c"system.posix_acl_access",
            Self::Default => c"system.posix_acl_default",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A valid ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads a value; `None` is one without entries, which stands for no ACL.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: of another version. `EINVAL`: not valid.
    pub(crate) fn parse(value: &[u8]) -> Result<Option<Self>> {
        let Some((version, rest)) = value.split_first_chunk() else {
            return if value.is_empty() { Ok(None) } else { Err(Errno::EINVAL) };
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (entries, rest) = rest.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let read = |[a, b, c, d, id @ ..]: &[u8; 8]| Entry {
            tag: u16::from_le_bytes([*a, *b]),
            permissions: u16::from_le_bytes([*c, *d]),
            id: u32::from_le_bytes(*id),
        };
        let acl = Self(entries.iter().map(read).collect());
        match acl.0.is_empty() {
            true => Ok(None),
            false if acl.is_valid() => Ok(Some(acl)),
            false => Err(Errno::EINVAL),
        }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let is_entry = |entry: &Entry| {
            let known = matches!(entry.tag, OWNER | USER | GROUP | NAMED_GROUP | MASK | OTHERS);
            let named = matches!(entry.tag, USER | NAMED_GROUP);
            known && entry.permissions <= 7 && !(named && entry.id == NOBODY)
        };
        let named = count(USER) + count(NAMED_GROUP) > 0;
        self.0.iter().all(is_entry)
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [OWNER, GROUP, OTHERS].iter().all(|tag| count(*tag) == 1)
            && (count(MASK) == 1 || (count(MASK) == 0 && !named))
    }

    /// The value.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(4 + 8 * self.0.len());
        value.extend(VERSION.to_le_bytes());
        for Entry { tag, permissions, id } in &self.0 {
            let id = if matches!(*tag, USER | NAMED_GROUP) { *id } else { NOBODY };
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    /// Whether the permission bits say as much.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The tag of the entry that the group's bits of a mode stand for.
    fn group_class(&self) -> u16 {
        if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP }
    }

    /// The permission bits of an object with this ACL: `posix_acl_equiv_mode`.
    pub(crate) fn mode(&self) -> u32 {
        let group = self.group_class();
        let bits = |entry: &Entry| match entry.tag {
            OWNER => u32::from(entry.permissions) << 6,
            OTHERS => u32::from(entry.permissions),
            tag if tag == group => u32::from(entry.permissions) << 3,
            _ => 0,
        };
        self.0.iter().map(bits).sum()
    }

    /// The same with the entries that permission bits stand for as `mode` says: what a chmod makes
    /// of it.
    pub(crate) fn with_mode(mut self, mode: u32) -> Self {
        let group = self.group_class();
        for entry in &mut self.0 {
            let shift = match entry.tag {
                OWNER => 6,
                OTHERS => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.permissions = (mode >> shift & 7) as u16;
        }
        self
    }

    /// The same with other ids.
    ///
    /// # Errors
    /// Those of `user` and `group`.
    pub(crate) fn map(
        mut self,
        user: impl Fn(u32) -> Result<u32>,
        group: impl Fn(u32) -> Result<u32>,
    ) -> Result<Self> {
        for entry in &mut self.0 {
            match entry.tag {
                USER => entry.id = user(entry.id)?,
                NAMED_GROUP => entry.id = group(entry.id)?,
                _ => {}
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |(tag, permissions, id): &(u16, u16, u32)| Entry {
            tag: *tag,
            permissions: *permissions,
            id: *id,
        };
        Acl(entries.iter().map(entry).collect()).to_bytes()
    }

    const NONE: u32 = NOBODY;

    #[test]
    fn parse_of_a_valid_value_gives_it_back() {
        for entries in [
            &[(OWNER, 7, NONE), (GROUP, 5, NONE), (OTHERS, 0, NONE)][..],
            &[(OWNER, 7, NONE), (GROUP, 5, NONE), (MASK, 4, NONE), (OTHERS, 0, NONE)],
            &[
                (OWNER, 6, NONE),
                (USER, 7, 1000),
                (USER, 0, 5),
                (GROUP, 4, NONE),
                (NAMED_GROUP, 2, 0),
                (MASK, 6, NONE),
                (OTHERS, 4, NONE),
            ],
        ] {
            let value = value(entries);
            assert_eq!(Acl::parse(&value).unwrap().unwrap().to_bytes(), value);
        }
        assert_eq!(Acl::parse(b""), Ok(None));
        assert_eq!(Acl::parse(&VERSION.to_le_bytes()), Ok(None));
    }

    #[test]
    fn parse_of_anything_else_is_refused() {
        let (owner, group, others) = ((OWNER, 7, NONE), (GROUP, 5, NONE), (OTHERS, 0, NONE));
        let (user, mask) = ((USER, 7, 1000), (MASK, 7, NONE));
        for entries in [
            &[owner][..],
            &[owner, group],
            &[owner, others],
            &[group, others],
            &[group, owner, others],
            &[owner, group, others, others],
            &[owner, owner, group, others],
            &[owner, user, group, others],
            &[owner, group, user, mask, others],
            &[owner, group, mask, mask, others],
            &[owner, (USER, 7, NONE), group, mask, others],
            &[owner, (USER, 8, 1000), group, mask, others],
            &[owner, group, (0x40, 7, NONE), others],
        ] {
            assert_eq!(Acl::parse(&value(entries)), Err(Errno::EINVAL), "{entries:?}");
        }
        let good = value(&[owner, group, others]);
        for len in [1, 3, 5, 11, 27] {
            assert_eq!(Acl::parse(&good[..len]), Err(Errno::EINVAL), "{len} bytes");
        }
        let mut other = good;
        other[0] = 1;
        assert_eq!(Acl::parse(&other), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn mode_is_that_of_owner_mask_and_others() {
        let acl = |entries| Acl::parse(&value(entries)).unwrap().unwrap();
        let plain = acl(&[(OWNER, 6, NONE), (GROUP, 5, NONE), (OTHERS, 1, NONE)]);
        assert!(plain.is_mode());
        assert_eq!((plain.mode(), plain.with_mode(0o4720).mode()), (0o651, 0o720));
        let entries =
            [(OWNER, 6, NONE), (USER, 7, 9), (GROUP, 5, NONE), (MASK, 4, NONE), (OTHERS, 1, NONE)];
        let named = acl(&entries);
        assert!(!named.is_mode());
        assert_eq!(named.mode(), 0o641);
        let changed = named.with_mode(0o750);
        assert_eq!(changed.mode(), 0o750);
        assert_eq!((changed.0[1].permissions, changed.0[2].permissions), (7, 5), "those stay");
    }
}
