//! Attributes of an object and of a filesystem.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{HandleId, LockOwner};

/// The file-type bits of a mode: S_IFMT of inode(7).
pub const S_IFMT: u32 = 0o170_000;
/// The set-user-id bit of a mode.
pub const S_ISUID: u32 = 0o4000;
/// The set-group-id bit of a mode.
pub const S_ISGID: u32 = 0o2000;
/// The sticky bit of a mode.
pub const S_ISVTX: u32 = 0o1000;
/// The execute bit of the group.
pub const S_IXGRP: u32 = 0o010;

/// The type of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device; `0:0` is a whiteout to a layering filesystem.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileType {
    /// The type in the S_IFMT bits of `mode`, if they are a type.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & S_IFMT {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The S_IFMT bits.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The type as readdir(3) gives it in `d_type`: the S_IFMT bits shifted down by 12.
    #[must_use]
    pub const fn dirent_type(self) -> u32 {
        self.mode_bits() >> 12
    }
}

/// A moment: seconds and nanoseconds since 1970, as statx(2) has it. Ordered in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub sec: i64,
    /// Nanoseconds after `sec`, below 1,000,000,000.
    pub nsec: u32,
}

impl Timestamp {
    /// The moment `sec` seconds and `nsec` nanoseconds after the epoch.
    #[must_use]
    pub const fn new(sec: i64, nsec: u32) -> Self {
        Self { sec, nsec }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => {
                Self::new(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos())
            }
            Err(before) => {
                let before = before.duration();
                let sec = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self::new(-sec, 0),
                    nsec => Self::new(-sec - 1, 1_000_000_000 - nsec),
                }
            }
        }
    }
}

/// The attributes of an object, as stat(2) shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attr {
    /// The inode number that the client sees (`st_ino`); equal to `d_ino` in listings.
    pub ino: u64,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Number of names (`st_nlink`).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, in the kernel's 32-bit encoding (`new_encode_dev`).
    pub rdev: u32,
    /// Size in bytes; of a symlink, the length of its target.
    pub size: u64,
    /// Storage in use, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred unit of I/O, in bytes.
    pub blksize: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the object.
    pub ctime: Timestamp,
    /// Creation, where the filesystem knows it; only statx(2) shows it.
    pub btime: Option<Timestamp>,
}

impl Attr {
    /// Attributes of an empty object `ino` of type and permissions `mode`: one name, owned by root,
    /// times at the epoch.
    #[must_use]
    pub fn new(ino: u64, mode: u32) -> Self {
        let epoch = Timestamp::default();
        Self {
            ino,
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            btime: None,
        }
    }

    /// The type; a mode without one counts as a regular file, as the kernel's `fs_umode_to_ftype`
    /// callers treat it.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

/// Attributes with the time they may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedAttr {
    /// The attributes.
    pub attr: Attr,
    /// How long the client may keep them.
    pub timeout: Duration,
}

impl TimedAttr {
    /// `attr`, to be kept for `timeout`.
    #[must_use]
    pub fn new(attr: Attr, timeout: Duration) -> Self {
        Self { attr, timeout }
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The filesystem's own present (UTIME_NOW of utimensat(2)).
    Now,
    /// This moment.
    At(Timestamp),
}

/// What a setattr changes; an absent field stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAttr {
    /// Permission bits (07777); type bits in it are ignored.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: shorter cuts, longer extends by a hole.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of the data.
    pub mtime: Option<SetTime>,
    /// Last change of the object; a client with a writeback cache sends its own.
    pub ctime: Option<Timestamp>,
    /// The handle through which ftruncate(2) or fchmod(2) came.
    pub handle: Option<HandleId>,
    /// The owner of locks to be checked against a truncate.
    pub lock_owner: Option<LockOwner>,
    /// Clear setuid, setgid (where the group may execute) and file capabilities. Under
    /// [`Behaviours::KILLPRIV_V2`](crate::Behaviours::KILLPRIV_V2) a request with no other field is
    /// exactly this.
    pub kill_priv: bool,
}

impl SetAttr {
    /// Nothing to change; set the fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What statfs(2) shows of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatFs {
    /// Size in units of `frsize`.
    pub blocks: u64,
    /// Free, in units of `frsize`.
    pub bfree: u64,
    /// Free to others than root, in units of `frsize`.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub ffree: u64,
    /// Preferred unit of I/O, in bytes.
    pub bsize: u32,
    /// The unit of the block counts, in bytes.
    pub frsize: u32,
    /// Longest name, in bytes.
    pub namelen: u32,
}

impl Default for StatFs {
    /// Unknown: all counts zero, blocks of 4096 bytes, names of 255 bytes.
    fn default() -> Self {
        Self {
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            bsize: 4096,
            frsize: 4096,
            namelen: 255,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_mode_inverts_mode_bits() {
        use FileType::*;
        for kind in [Regular, Directory, Symlink, CharDevice, BlockDevice, Fifo, Socket] {
            assert_eq!(FileType::from_mode(kind.mode_bits() | 0o7777), Some(kind));
        }
        assert_eq!(FileType::from_mode(0o644), None);
    }

    #[test]
    fn timestamp_before_the_epoch_keeps_nanoseconds_positive() {
        let half_before = UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(Timestamp::from(half_before), Timestamp::new(-1, 500_000_000));
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(2)), Timestamp::new(-2, 0));
        assert_eq!(Timestamp::from(UNIX_EPOCH + Duration::new(3, 4)), Timestamp::new(3, 4));
    }
}
