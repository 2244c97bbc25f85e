//! The structures of the FUSE wire, as `include/uapi/linux/fuse.h` of Linux 6.18 lays them out.
//!
//! Numbers are in the byte order of the machine, for client and server share it. Each structure has
//! the kernel's name without `fuse_`, its fields the kernel's names, and none has padding of its own:
//! the codec writes field after field.

/// The major version: the only one there ever was.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version spoken here.
pub(crate) const MINOR: u32 = 45;
/// The oldest minor version accepted: before 7.31 (Linux 5.4) structures are shorter and
/// behaviours differ that nobody can test any more.
pub(crate) const MINOR_MIN: u32 = 31;
/// A uid or gid that the client left out (FUSE_INVALID_UIDGID).
pub(crate) const NO_ID: u32 = u32::MAX;

/// Defines structures with a codec that reads and writes field after field.
macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty,)*
        }

        #[allow(dead_code, reason = "a structure is read or written, seldom both")]
        impl $name {
            /// Bytes on the wire.
            pub(crate) const SIZE: usize = 0 $(+ size_of::<$ty>())*;

            /// The structure that `bytes` begin with, if they are long enough.
            #[inline]
            pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let rest = bytes;
                $(let (now, rest) = rest.split_first_chunk()?;
                let $field = <$ty>::from_ne_bytes(*now);)*
                let _ = rest;
                Some(Self { $($field,)* })
            }

            /// Its bytes.
            #[inline]
            pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
                let mut bytes = [0; Self::SIZE];
                let mut rest = &mut bytes[..];
                $(if let Some((now, later)) = std::mem::take(&mut rest).split_first_chunk_mut() {
                    *now = self.$field.to_ne_bytes();
                    rest = later;
                })*
                let _ = rest;
                bytes
            }
        }
    )*};
}

wire! {
    /// Begins every request; `total_extlen` counts the extensions at its end in units of 8 bytes.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16 }
    /// Begins every reply and notification.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// What INIT begins with, in every version.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// What follows in INIT where `flags` have INIT_EXT.
    InitInExt { flags2: u32 }
    /// The answer to INIT. 22 bytes of `unused` follow it.
    InitOut { major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16 }
    /// Attributes.
    AttrOut { ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32 }
    /// The head of the answer to LOOKUP and creations; [`AttrOut`] follows.
    EntryHead { nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32 }
    /// The head of the answer to GETATTR and SETATTR; [`AttrOut`] follows.
    AttrHead { attr_valid: u64, attr_valid_nsec: u32, dummy: u32 }
    ForgetIn { nlookup: u64 }
    ForgetOne { nodeid: u64, nlookup: u64 }
    BatchForgetIn { count: u32, dummy: u32 }
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// The answer to STATX: the head, then `fuse_statx` without its 112 bytes of spare.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare0: u64, spare1: u64,
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare2: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: i64, atimensec: u32, atime_reserved: i32,
        btime: i64, btimensec: u32, btime_reserved: i32,
        ctime: i64, ctimensec: u32, ctime_reserved: i32,
        mtime: i64, mtimensec: u32, mtime_reserved: i32,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32 }
    SetattrIn { valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64,
        mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32,
        unused4: u32, uid: u32, gid: u32, unused5: u32 }
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkdirIn { mode: u32, umask: u32 }
    RenameIn { newdir: u64 }
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    LinkIn { oldnodeid: u64 }
    OpenIn { flags: u32, open_flags: u32 }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32 }
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32 }
    WriteOut { size: u32, padding: u32 }
    StatfsOut { blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32,
        namelen: u32, frsize: u32, padding: u32, spare0: u64, spare1: u64, spare2: u64 }
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// What SETXATTR begins with, in every version.
    SetxattrIn { size: u32, flags: u32 }
    /// What follows in SETXATTR where SETXATTR_EXT was agreed on.
    SetxattrInExt { setxattr_flags: u32, padding: u32 }
    GetxattrIn { size: u32, padding: u32 }
    GetxattrOut { size: u32, padding: u32 }
    LkIn { fh: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, lk_flags: u32,
        padding: u32 }
    LkOut { start: u64, end: u64, kind: u32, pid: u32 }
    AccessIn { mask: u32, padding: u32 }
    InterruptIn { unique: u64 }
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// The head of an entry of a listing; the name follows, padded to 8 bytes.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    LseekOut { offset: u64 }
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64,
        len: u64, flags: u64 }
    CopyFileRangeOut { bytes_copied: u64 }
    SyncfsIn { padding: u64 }
    /// Begins an extension; one of type below 32 is a list of that many security contexts.
    ExtHeader { size: u32, kind: u32 }
    /// Begins a security context; its name with a NUL follows, then `size` bytes of value.
    Secctx { size: u32, padding: u32 }
    /// Begins the supplementary groups of an extension.
    SuppGroups { nr_groups: u32 }
    NotifyInvalInode { ino: u64, off: i64, len: i64 }
    NotifyInvalEntry { parent: u64, namelen: u32, flags: u32 }
    NotifyDelete { parent: u64, child: u64, namelen: u32, padding: u32 }
}

/// Bytes of the answer to INIT since 7.23.
pub(crate) const INIT_OUT_SIZE: usize = 64;
/// Bytes of the answer to STATX.
pub(crate) const STATX_OUT_SIZE: usize = 288;
/// The type of the extension that holds supplementary groups (FUSE_EXT_GROUPS); lower ones are
/// counts of security contexts.
pub(crate) const EXT_GROUPS: u32 = 32;

/// `fuse_setattr_in.valid`.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const LOCKOWNER: u32 = 1 << 9;
    pub(crate) const CTIME: u32 = 1 << 10;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// `fuse_getattr_in.getattr_flags`: the handle is valid.
pub(crate) const GETATTR_FH: u32 = 1 << 0;
/// `fuse_open_in.open_flags`: clear setuid and setgid (7.33).
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `fuse_open_out.open_flags`: by the file of `backing_id` (7.40).
pub(crate) const FOPEN_PASSTHROUGH: u32 = 1 << 7;
/// `fuse_release_in.release_flags`: flush as at close(2).
pub(crate) const RELEASE_FLUSH: u32 = 1 << 0;
/// `fuse_release_in.release_flags`: give up the flock.
pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `fuse_write_in.write_flags`: from the page cache.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: clear setuid and setgid.
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fuse_fsync_in.fsync_flags`: the data alone.
pub(crate) const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `fuse_setxattr_in.setxattr_flags`: the ACL's setter may not keep setgid.
pub(crate) const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `fuse_lk_in.lk_flags`: a flock(2) lock.
pub(crate) const LK_FLOCK: u32 = 1 << 0;
/// `fuse_attr.flags`: the root of a mount within the share (7.32).
pub(crate) const ATTR_SUBMOUNT: u32 = 1 << 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!(InHeader::SIZE, 40);
        assert_eq!(OutHeader::SIZE, 16);
        assert_eq!(InitIn::SIZE, 16);
        assert_eq!(InitOut::SIZE + 22, INIT_OUT_SIZE);
        assert_eq!(AttrOut::SIZE, 88);
        assert_eq!(EntryHead::SIZE + AttrOut::SIZE, 128);
        assert_eq!(AttrHead::SIZE + AttrOut::SIZE, 104);
        assert_eq!(StatxOut::SIZE + 112, STATX_OUT_SIZE);
        assert_eq!(StatxIn::SIZE, 24);
        assert_eq!(SetattrIn::SIZE, 88);
        assert_eq!(MknodIn::SIZE, 16);
        assert_eq!(CreateIn::SIZE, 16);
        assert_eq!(OpenOut::SIZE, 16);
        assert_eq!(ReadIn::SIZE, 40);
        assert_eq!(WriteIn::SIZE, 40);
        assert_eq!(ReleaseIn::SIZE, 24);
        assert_eq!(FlushIn::SIZE, 24);
        assert_eq!(StatfsOut::SIZE, 80);
        assert_eq!(SetxattrIn::SIZE + SetxattrInExt::SIZE, 16);
        assert_eq!(LkIn::SIZE, 48);
        assert_eq!(LkOut::SIZE, 24);
        assert_eq!(IoctlIn::SIZE, 32);
        assert_eq!(FallocateIn::SIZE, 32);
        assert_eq!(Dirent::SIZE, 24);
        assert_eq!(LseekIn::SIZE, 24);
        assert_eq!(CopyFileRangeIn::SIZE, 56);
        assert_eq!(NotifyInvalInode::SIZE, 24);
        assert_eq!(NotifyInvalEntry::SIZE, 16);
        assert_eq!(NotifyDelete::SIZE, 24);
    }

    #[test]
    fn from_bytes_inverts_to_bytes_and_refuses_less() {
        let header = InHeader {
            len: 40,
            opcode: 3,
            unique: 0x0102_0304_0506_0708,
            nodeid: 1,
            uid: 9,
            gid: 10,
            pid: 11,
            total_extlen: 2,
            padding: 0,
        };
        let bytes = header.to_bytes();
        assert_eq!(InHeader::from_bytes(&bytes), Some(header));
        assert_eq!(bytes[8..16], 0x0102_0304_0506_0708_u64.to_ne_bytes());
        for len in 0..InHeader::SIZE {
            assert_eq!(InHeader::from_bytes(&bytes[..len]), None);
        }
    }
}
