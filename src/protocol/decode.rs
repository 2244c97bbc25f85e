//! Reading a request's arguments.

use stratafs_core::{Errno, Name, NameError, Result, SecurityContext, XattrName};

use super::wire::{EXT_GROUPS, ExtHeader, NO_ID, Secctx, SuppGroups};

/// What is left of a request's arguments. Every step takes from the front; what is not there is
/// `EINVAL`, and nothing is read twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    rest: &'a [u8],
}

/// A structure of the wire that can be taken from the front of arguments.
macro_rules! take {
    ($args:expr, $ty:ty) => {
        $args
            .bytes(<$ty>::SIZE)
            .and_then(|bytes| <$ty>::from_bytes(bytes).ok_or(::stratafs_core::Errno::EINVAL))
    };
}
pub(crate) use take;

impl<'a> Args<'a> {
    /// The arguments `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (now, later) = self.rest.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.rest = later;
        Ok(now)
    }

    /// All that is left.
    pub(crate) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The bytes before the next NUL, which is passed over.
    pub(crate) fn string(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
        let string = self.bytes(end)?;
        self.bytes(1)?;
        Ok(string)
    }

    /// The name of a directory entry.
    pub(crate) fn name(&mut self) -> Result<Name<'a>> {
        Name::new(self.string()?).map_err(Errno::from)
    }

    /// The name of an attribute. One that is too long is ERANGE, as setxattr(2) has it.
    pub(crate) fn xattr_name(&mut self) -> Result<XattrName<'a>> {
        XattrName::new(self.string()?).map_err(|error| match error {
            NameError::TooLong => Errno::ERANGE,
            other => other.into(),
        })
    }
}

/// What a creation carries behind its arguments since 7.38.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extensions<'a> {
    /// The first label for the new object. More than one is what stacked security modules would
    /// send; the kernel sends one.
    pub(crate) security: Option<SecurityContext<'a>>,
    /// The caller's group that equals the parent's.
    pub(crate) group: Option<u32>,
}

impl<'a> Extensions<'a> {
    /// Reads the extensions `bytes`. Those of unknown type are passed over.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut found = Self::default();
        let mut all = Args::new(bytes);
        while all.len() > 0 {
            let head = take!(all, ExtHeader)?;
            let size = usize::try_from(head.size).map_err(|_| Errno::EINVAL)?;
            let body_len = size.checked_sub(ExtHeader::SIZE).ok_or(Errno::EINVAL)?;
            let padded = body_len.checked_next_multiple_of(8).ok_or(Errno::EINVAL)?;
            // Headers are 8 bytes, so a padded body keeps the next header aligned.
            let mut body = Args::new(all.bytes(padded)?);
            match head.kind {
                0 => {}
                1..EXT_GROUPS => found.security = security_context(&mut body)?,
                EXT_GROUPS => found.group = group(&mut body)?,
                _ => {}
            }
        }
        Ok(found)
    }
}

fn security_context<'a>(body: &mut Args<'a>) -> Result<Option<SecurityContext<'a>>> {
    let head = take!(body, Secctx)?;
    let name = body.xattr_name()?;
    let value = body.bytes(usize::try_from(head.size).map_err(|_| Errno::EINVAL)?)?;
    Ok((!value.is_empty()).then_some(SecurityContext::new(name, value)))
}

fn group(body: &mut Args<'_>) -> Result<Option<u32>> {
    if take!(body, SuppGroups)?.nr_groups == 0 {
        return Ok(None);
    }
    let (first, _) = body.remainder().split_first_chunk().ok_or(Errno::EINVAL)?;
    let gid = u32::from_ne_bytes(*first);
    Ok((gid != NO_ID).then_some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(kind: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(ExtHeader::SIZE + body.len()).unwrap();
        let mut bytes = ExtHeader { size, kind }.to_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
        let head = Secctx { size: u32::try_from(value.len()).unwrap(), padding: 0 };
        [&head.to_bytes()[..], name, b"\0", value].concat()
    }

    #[test]
    fn string_without_a_nul_is_einval() {
        assert_eq!(Args::new(b"abc").string(), Err(Errno::EINVAL));
        assert_eq!(Args::new(b"").string(), Err(Errno::EINVAL));
        let mut args = Args::new(b"a\0bc\0d");
        assert_eq!(args.string(), Ok(&b"a"[..]));
        assert_eq!(args.string(), Ok(&b"bc"[..]));
        assert_eq!(args.remainder(), b"d");
    }

    #[test]
    fn name_that_is_too_long_is_enametoolong_and_xattr_name_erange() {
        let long = [&[b'a'; 256][..], b"\0"].concat();
        assert_eq!(Args::new(&long).name(), Err(Errno::ENAMETOOLONG));
        assert_eq!(Args::new(&long).xattr_name(), Err(Errno::ERANGE));
        assert_eq!(Args::new(b"..\0").name(), Err(Errno::EINVAL));
    }

    #[test]
    fn extensions_give_label_and_group_in_any_order() {
        let context = extension(1, &label(b"security.selinux", b"value"));
        let groups = extension(EXT_GROUPS, &[1_u32.to_ne_bytes(), 77_u32.to_ne_bytes()].concat());
        for bytes in [[&context[..], &groups].concat(), [&groups[..], &context].concat()] {
            let found = Extensions::read(&bytes).unwrap();
            let security = found.security.unwrap();
            assert_eq!(security.name.as_bytes(), b"security.selinux");
            assert_eq!(security.value, b"value");
            assert_eq!(found.group, Some(77));
        }
    }

    #[test]
    fn extensions_cut_anywhere_are_refused_or_empty_and_never_panic() {
        let whole = extension(1, &label(b"security.selinux", b"value"));
        for len in 1..whole.len() {
            assert!(Extensions::read(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(Extensions::read(&[]).unwrap().security.is_none());
    }

    #[test]
    fn extension_with_a_size_that_lies_is_einval() {
        for size in [0, 1, 7, 9, 4096, u32::MAX] {
            let bytes = ExtHeader { size, kind: 40 }.to_bytes();
            assert!(Extensions::read(&bytes).is_err(), "size {size}");
        }
        let only_header = ExtHeader { size: 8, kind: 40 }.to_bytes();
        assert!(Extensions::read(&only_header).is_ok());
    }
}
