//! Writing the parts that replies are made of.

use std::time::Duration;

use stratafs_core::{Attr, Entry, Errno, ReadSink, Result, TimedAttr};

use super::wire::{
    ATTR_SUBMOUNT, AttrHead, AttrOut, EntryHead, LkOut, STATX_OUT_SIZE, StatfsOut, StatxOut,
};

/// Bytes of the answer to LOOKUP and to a creation.
pub(crate) const ENTRY_OUT_SIZE: usize = EntryHead::SIZE + AttrOut::SIZE;
/// Bytes of the answer to GETATTR and SETATTR.
pub(crate) const ATTR_OUT_SIZE: usize = AttrHead::SIZE + AttrOut::SIZE;

/// Seconds and nanoseconds of a timeout, as the wire has them.
fn timeout(duration: Duration) -> (u64, u32) {
    (duration.as_secs(), duration.subsec_nanos())
}

/// Joins two parts of a reply whose sizes add up to `N`.
fn join<const A: usize, const B: usize, const N: usize>(a: [u8; A], b: [u8; B]) -> [u8; N] {
    const { assert!(A + B == N, "the parts are not the whole") };
    let mut whole = [0; N];
    let (head, tail) = whole.split_at_mut(A);
    head.copy_from_slice(&a);
    tail.copy_from_slice(&b);
    whole
}

fn attr_out(attr: &Attr, flags: u32) -> AttrOut {
    AttrOut {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        // Times before 1970 travel as two's complement.
        atime: attr.atime.sec.cast_unsigned(),
        mtime: attr.mtime.sec.cast_unsigned(),
        ctime: attr.ctime.sec.cast_unsigned(),
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags,
    }
}

/// `fuse_entry_out` of an object.
pub(crate) fn entry(entry: &Entry, submounts: bool) -> [u8; ENTRY_OUT_SIZE] {
    let (entry_valid, entry_valid_nsec) = timeout(entry.entry_timeout);
    let (attr_valid, attr_valid_nsec) = timeout(entry.attr_timeout);
    let head = EntryHead {
        nodeid: entry.node.0,
        generation: entry.generation.0,
        entry_valid,
        attr_valid,
        entry_valid_nsec,
        attr_valid_nsec,
    };
    let flags = if submounts && entry.submount { ATTR_SUBMOUNT } else { 0 };
    join(head.to_bytes(), attr_out(&entry.attr, flags).to_bytes())
}

/// `fuse_entry_out` of a name that is absent for as long: node id 0.
pub(crate) fn absent(valid: Duration) -> [u8; ENTRY_OUT_SIZE] {
    let (entry_valid, entry_valid_nsec) = timeout(valid);
    let head = EntryHead { entry_valid, entry_valid_nsec, ..EntryHead::default() };
    join(head.to_bytes(), AttrOut::default().to_bytes())
}

/// `fuse_attr_out`.
pub(crate) fn attr(timed: &TimedAttr) -> [u8; ATTR_OUT_SIZE] {
    let (attr_valid, attr_valid_nsec) = timeout(timed.timeout);
    let head = AttrHead { attr_valid, attr_valid_nsec, dummy: 0 };
    join(head.to_bytes(), attr_out(&timed.attr, 0).to_bytes())
}

/// STATX_BASIC_STATS of statx(2).
const STATX_BASIC: u32 = 0x7ff;
/// STATX_BTIME of statx(2).
const STATX_BTIME: u32 = 0x800;

/// `fuse_statx_out`: everything known, whatever was asked for.
pub(crate) fn statx(timed: &TimedAttr) -> [u8; STATX_OUT_SIZE] {
    let (attr_valid, attr_valid_nsec) = timeout(timed.timeout);
    let attr = &timed.attr;
    let btime = attr.btime.unwrap_or_default();
    let out = StatxOut {
        attr_valid,
        attr_valid_nsec,
        mask: STATX_BASIC | if attr.btime.is_some() { STATX_BTIME } else { 0 },
        blksize: attr.blksize,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: u16::try_from(attr.mode & 0xffff).unwrap_or(0),
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.sec,
        atimensec: attr.atime.nsec,
        btime: btime.sec,
        btimensec: btime.nsec,
        ctime: attr.ctime.sec,
        ctimensec: attr.ctime.nsec,
        mtime: attr.mtime.sec,
        mtimensec: attr.mtime.nsec,
        // The kernel's 32-bit encoding of a device number: minor 8 bits, major 12, minor 12 more.
        rdev_major: (attr.rdev & 0x000f_ff00) >> 8,
        rdev_minor: (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0x000f_ff00),
        ..StatxOut::default()
    };
    join(out.to_bytes(), [0; STATX_OUT_SIZE - StatxOut::SIZE])
}

/// `fuse_statfs_out`.
pub(crate) fn statfs(st: &stratafs_core::StatFs) -> [u8; StatfsOut::SIZE] {
    StatfsOut {
        blocks: st.blocks,
        bfree: st.bfree,
        bavail: st.bavail,
        files: st.files,
        ffree: st.ffree,
        bsize: st.bsize,
        namelen: st.namelen,
        frsize: st.frsize,
        ..StatfsOut::default()
    }
    .to_bytes()
}

/// `fuse_lk_out`.
pub(crate) fn lock(start: u64, end: u64, kind: u32, pid: u32) -> [u8; LkOut::SIZE] {
    LkOut { start, end, kind, pid }.to_bytes()
}

/// Appends all of `bytes` to a reply.
///
/// # Errors
/// `EIO`: they do not fit, which a check of the room before the filesystem was called rules out
/// for a sink that keeps its word.
pub(crate) fn put(out: &mut dyn ReadSink, bytes: &[u8]) -> Result<()> {
    if out.write_slice(bytes)? == bytes.len() { Ok(()) } else { Err(Errno::EIO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratafs_core::{NodeId, Timestamp};

    #[test]
    fn entry_marks_a_submount_only_where_the_client_knows_them() {
        let mut mount = Entry::new(NodeId(5), Attr::new(5, 0o040_755));
        mount.submount = true;
        let flags_of = |bytes: [u8; ENTRY_OUT_SIZE]| {
            AttrOut::from_bytes(&bytes[EntryHead::SIZE..]).unwrap().flags
        };
        assert_eq!(flags_of(entry(&mount, true)), ATTR_SUBMOUNT);
        assert_eq!(flags_of(entry(&mount, false)), 0);
    }

    #[test]
    fn attr_keeps_times_before_1970() {
        let mut old = Attr::new(1, 0o100_644);
        old.mtime = Timestamp::new(-2, 5);
        let bytes = attr(&TimedAttr::new(old, Duration::new(1, 7)));
        let head = AttrHead::from_bytes(&bytes).unwrap();
        let out = AttrOut::from_bytes(&bytes[AttrHead::SIZE..]).unwrap();
        assert_eq!((head.attr_valid, head.attr_valid_nsec), (1, 7));
        assert_eq!((out.mtime.cast_signed(), out.mtimensec), (-2, 5));
    }

    #[test]
    fn statx_shows_the_birth_only_where_it_is_known() {
        let mut attributes = Attr::new(1, 0o100_644);
        attributes.rdev = 0x0012_3456;
        let read = |attr: &Attr| {
            StatxOut::from_bytes(&statx(&TimedAttr::new(attr.clone(), Duration::ZERO))).unwrap()
        };
        assert_eq!(read(&attributes).mask, STATX_BASIC);
        attributes.btime = Some(Timestamp::new(7, 8));
        let out = read(&attributes);
        assert_eq!((out.mask, out.btime, out.btimensec), (STATX_BASIC | STATX_BTIME, 7, 8));
        assert_eq!((out.rdev_major, out.rdev_minor), (0x234, 0x156));
    }
}
