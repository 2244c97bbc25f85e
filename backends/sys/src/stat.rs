//! Attributes of objects and filesystems: statx(2), fstatfs(2).

use crate::{check, with_name};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use stratafs_core::{Name, Timestamp};

/// What statx(2) tells of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The device of its filesystem: major number above 32 bits of minor number.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// The mount it was reached by; 0 before Linux 5.8.
    pub mount: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Size in bytes.
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
    /// Creation, where the filesystem keeps it.
    pub btime: Option<Timestamp>,
}

const MASK: libc::c_uint = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

/// The attributes of `file`, which may be an O_PATH descriptor.
///
/// # Errors
/// None is known for an open descriptor of a local filesystem.
pub fn of(file: BorrowedFd<'_>) -> io::Result<Stat> {
    statx(file, c"", libc::AT_EMPTY_PATH)
}

/// The attributes of the child `name` of `dir`, a symbolic link's own.
///
/// # Errors
/// * `ENOENT`: there is none. `ENOTDIR`, `EACCES`: about `dir`.
pub fn of_child(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<Stat> {
    with_name(name, |name| statx(dir, name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT))
}

fn statx(at: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<Stat> {
    // SAFETY: statx is a struct of integers, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and `found` lives through the call.
    check(unsafe { libc::statx(at.as_raw_fd(), path.as_ptr(), flags, MASK, &mut found) })?;
    let time = |t: libc::statx_timestamp| Timestamp::new(t.tv_sec, t.tv_nsec);
    Ok(Stat {
        dev: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
        ino: found.stx_ino,
        mount: found.stx_mnt_id,
        mode: u32::from(found.stx_mode),
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        rdev: (found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        blksize: found.stx_blksize,
        atime: time(found.stx_atime),
        mtime: time(found.stx_mtime),
        ctime: time(found.stx_ctime),
        btime: (found.stx_mask & libc::STATX_BTIME != 0).then(|| time(found.stx_btime)),
    })
}

/// What fstatfs(2) tells of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStat {
    /// Its type: a magic number of linux/magic.h.
    pub magic: i64,
    /// Its identity, as far as it has one.
    pub fsid: [u8; 8],
    /// Size and use.
    pub usage: stratafs_core::StatFs,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// The filesystem that `file` is on; an O_PATH descriptor will do.
///
/// # Errors
/// * `EIO`: the filesystem cannot tell.
pub fn filesystem(file: BorrowedFd<'_>) -> io::Result<FsStat> {
    // SAFETY: statfs64 is a struct of integers, for which zero is a value.
    let mut found: libc::statfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: `found` lives through the call.
    check(unsafe { libc::fstatfs64(file.as_raw_fd(), &mut found) })?;
    let unit = |value: i64| u32::try_from(value).unwrap_or(4096);
    let mut usage = stratafs_core::StatFs::default();
    usage.blocks = found.f_blocks;
    usage.bfree = found.f_bfree;
    usage.bavail = found.f_bavail;
    usage.files = found.f_files;
    usage.ffree = found.f_ffree;
    usage.bsize = unit(found.f_bsize);
    usage.frsize = if found.f_frsize == 0 { usage.bsize } else { unit(found.f_frsize) };
    usage.namelen = unit(found.f_namelen);
    let mut fsid = [0; 8];
    // SAFETY: fsid_t is two integers, eight bytes without padding.
    let words: [i32; 2] = unsafe { std::mem::transmute(found.f_fsid) };
    fsid[..4].copy_from_slice(&words[0].to_ne_bytes());
    fsid[4..].copy_from_slice(&words[1].to_ne_bytes());
    Ok(FsStat {
        magic: found.f_type,
        fsid,
        usage,
        read_only: found.f_flags.cast_unsigned() & libc::ST_RDONLY != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn of_a_file_agrees_with_the_standard_library() {
        let file = File::open("/proc/self/exe").unwrap();
        let ours = of(file.as_fd()).unwrap();
        let std = file.metadata().unwrap();
        assert_eq!((ours.ino, ours.mode, ours.size), (std.ino(), std.mode(), std.len()));
        assert_eq!((ours.ctime.sec, i64::from(ours.ctime.nsec)), (std.ctime(), std.ctime_nsec()));
        assert_eq!((ours.dev >> 32) as u32, libc::major(std.dev()));
    }

    #[test]
    fn of_child_that_is_absent_is_enoent() {
        let proc = File::open("/proc").unwrap();
        let error = of_child(proc.as_fd(), Name::new(b"no-such").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn filesystem_of_proc_has_its_magic() {
        let proc = File::open("/proc").unwrap();
        assert_eq!(filesystem(proc.as_fd()).unwrap().magic, libc::PROC_SUPER_MAGIC);
    }
}
