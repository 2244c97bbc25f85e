//! Origins: what an object of the writable layer was copied up from.
//!
//! An origin is a file handle in the kernel's form, `struct ovl_fb`: a header, the UUID of the
//! filesystem, and the handle. It is used to tell objects apart, never to open one. Layers that
//! have no file handles get one of this overlay's own, under a UUID that no filesystem has: the
//! kernel takes it for the handle of a filesystem that is not there.

use stratafs_core::{Attr, Generation, Name, NameBuf, PersistentId};

/// `OVL_FH_MAGIC`.
const MAGIC: u8 = 0xfb;
/// Version, magic, length, flags and type, then the UUID.
const HEADER: usize = 21;
/// `OVL_FH_FLAG_BIG_ENDIAN`.
const BIG_ENDIAN: u8 = 1;
/// `OVL_FH_FLAG_PATH_UPPER`: the handle is one of the writable layer.
const PATH_UPPER: u8 = 4;
/// `OVL_FH_FLAG_ALL`.
const KNOWN_FLAGS: u8 = 7;

const ENDIAN: u8 = if cfg!(target_endian = "big") { BIG_ENDIAN } else { 0 };

/// The UUID of handles of this overlay's own.
const OWN: [u8; 16] = *b"stratafs-overlay";
/// Their type: FILEID_INVALID of linux/exportfs.h, which no filesystem decodes.
const OWN_KIND: u8 = 0xff;

/// Which layer a handle is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Lower,
    Upper,
}

/// The value that records `id`; empty where it does not fit, which says "from what is not known".
pub(crate) fn value(id: &PersistentId, of: Of) -> Vec<u8> {
    let PersistentId { fsid, bytes, .. } = id;
    let Some((kind, handle)) = bytes.split_first() else { return Vec::new() };
    encode(*kind, fsid, handle, of)
}

fn encode(kind: u8, fsid: &[u8; 16], handle: &[u8], of: Of) -> Vec<u8> {
    let Ok(len) = u8::try_from(HEADER + handle.len()) else { return Vec::new() };
    let flags = if of == Of::Upper { ENDIAN | PATH_UPPER } else { ENDIAN };
    [&[0, MAGIC, len, flags, kind][..], fsid, handle].concat()
}

/// The value for an object without a handle: its layer, counted from the bottom, and all that tells
/// it from another of that layer, now and in a later run. No layer changes, so its times do not.
pub(crate) fn own_value(layer: usize, attr: &Attr, generation: Generation) -> Vec<u8> {
    let layer = u32::try_from(layer).unwrap_or(u32::MAX);
    let handle = [
        &layer.to_le_bytes()[..],
        &attr.ino.to_le_bytes(),
        &generation.0.to_le_bytes(),
        &attr.ctime.sec.to_le_bytes(),
        &attr.ctime.nsec.to_le_bytes(),
    ];
    encode(OWN_KIND, &OWN, &handle.concat(), Of::Lower)
}

/// What a recorded origin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The object `ino` of the layer of this number, counted from the bottom.
    Own { layer: usize, ino: u64 },
    /// The object `ino` of the filesystem with this UUID.
    Host { fsid: [u8; 16], ino: u64 },
}

/// The origin that `value` records; `None` where it says nothing that can be understood here.
pub(crate) fn parse(value: &[u8]) -> Option<Origin> {
    let (kind, fsid, handle) = decode(value)?;
    if fsid == OWN {
        let layer = u32::from_le_bytes(handle.get(..4)?.try_into().ok()?);
        let ino = u64::from_le_bytes(handle.get(4..12)?.try_into().ok()?);
        return Some(Origin::Own { layer: usize::try_from(layer).ok()?, ino });
    }
    Some(Origin::Host { fsid, ino: inode(kind, handle)? })
}

/// Type, UUID and handle.
fn decode(value: &[u8]) -> Option<(u8, [u8; 16], &[u8])> {
    let (header, handle) = value.split_at_checked(HEADER)?;
    let [0, MAGIC, len, flags, kind, fsid @ ..] = header else { return None };
    let foreign = flags & BIG_ENDIAN != ENDIAN || flags & !KNOWN_FLAGS != 0;
    if foreign || usize::from(*len) != value.len() {
        return None;
    }
    Some((*kind, fsid.try_into().ok()?, handle))
}

/// The inode number in a handle, of types of which it is known to be there.
fn inode(kind: u8, handle: &[u8]) -> Option<u64> {
    let word = |at: usize| -> Option<u64> {
        let bytes = handle.get(at * 4..at * 4 + 4)?;
        Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    let native = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
    match (kind, handle.len()) {
        // FILEID_INO32_GEN: number and generation.
        (1, 8) => word(0),
        // tmpfs uses that type for generation and both halves of the number.
        (1, 12) => Some(word(1)? | (word(2)? << 32)),
        // FILEID_INO64_GEN of XFS.
        (0x81, 12) => native(handle.get(..8)?),
        _ => None,
    }
}

/// The inode number that `id` gives away; `None` where that is not known of its type.
pub(crate) fn inode_of(id: &PersistentId) -> Option<u64> {
    let (kind, handle) = id.bytes.split_first()?;
    inode(*kind, handle)
}

/// The name in the index of what has this origin.
pub(crate) fn index_name(value: &[u8]) -> Option<NameBuf> {
    decode(value)?;
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    Name::new(hex.as_bytes()).ok().map(Name::to_owned)
}

/// The origin that a name in the index stands for.
pub(crate) fn of_index_name(name: Name<'_>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    if text.len() % 2 != 0 || text.bytes().any(|byte| !byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let value: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    decode(&value).is_some().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratafs_core::FileType;

    fn id(kind: u8, handle: &[u8]) -> PersistentId {
        PersistentId::new([7; 16], [&[kind], handle].concat())
    }

    #[test]
    fn value_is_the_kernel_s_structure() {
        let of_lower = value(&id(0x81, &[1, 2, 3]), Of::Lower);
        assert_eq!(of_lower.len(), 24);
        assert_eq!(of_lower[..5], [0, 0xfb, 24, ENDIAN, 0x81]);
        assert_eq!(of_lower[5..21], [7; 16]);
        assert_eq!(of_lower[21..], [1, 2, 3]);
        assert_eq!(value(&id(0x81, &[1, 2, 3]), Of::Upper)[3], ENDIAN | 4);
        assert!(value(&id(1, &[1; 300]), Of::Lower).is_empty());
    }

    #[test]
    fn parse_finds_the_number_in_handles_of_known_types_and_in_its_own() {
        let number = 0x0102_0304_u32.to_ne_bytes();
        let long = 0x0102_0304_0506_u64.to_ne_bytes();
        let shmem = [&[9; 4][..], &number, &5_u32.to_ne_bytes()].concat();
        for (kind, handle, ino) in [
            (1, [&number[..], &[9; 4]].concat(), 0x0102_0304),
            (1, shmem, 0x5_0102_0304),
            (0x81, [&long[..], &[9; 4]].concat(), 0x0102_0304_0506),
        ] {
            let id = id(kind, &handle);
            assert_eq!(inode_of(&id), Some(ino));
            let origin = parse(&value(&id, Of::Lower));
            assert_eq!(origin, Some(Origin::Host { fsid: [7; 16], ino }));
        }
        assert_eq!(parse(&value(&id(0x4d, &[1; 20]), Of::Lower)), None, "of Btrfs");
        let attr = Attr::new(77, FileType::Regular.mode_bits());
        let own = own_value(3, &attr, Generation(1));
        assert_eq!(parse(&own), Some(Origin::Own { layer: 3, ino: 77 }));
        assert_ne!(own, own_value(3, &attr, Generation(2)));
    }

    #[test]
    fn parse_of_a_hostile_value_is_none() {
        let good = value(&id(1, &[1; 8]), Of::Lower);
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len]), None, "{len}");
        }
        for (at, byte) in [(0, 1), (1, 0xfc), (2, 200), (3, 8), (3, ENDIAN ^ 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(parse(&bad), None, "{at}");
        }
        assert_eq!(parse(&encode(OWN_KIND, &OWN, b"short", Of::Lower)), None);
    }

    #[test]
    fn index_name_is_the_value_in_hexadecimal_and_back() {
        let good = value(&id(1, &[0xab; 8]), Of::Lower);
        let name = index_name(&good).unwrap();
        assert!(name.as_bytes().starts_with(b"00fb1d") && name.as_bytes().ends_with(b"abab"));
        assert_eq!(of_index_name(name.as_name()), Some(good));
        assert_eq!(index_name(b""), None);
        for text in ["#1", "00fb", "0", "00gg", "\u{e4}\u{e4}"] {
            assert_eq!(of_index_name(Name::new(text.as_bytes()).unwrap()), None, "{text}");
        }
    }
}
