//! Mounting, unmounting, and what is mounted: mount(2), umount2(2), `/proc/self/mountinfo`.

use crate::{c_path, check};
use bitflags::bitflags;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

bitflags! {
    /// Flags of mount(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct MountFlags: libc::c_ulong {
        /// No writes (`MS_RDONLY`).
        const READ_ONLY = libc::MS_RDONLY;
        /// setuid and setgid bits and file capabilities are ignored (`MS_NOSUID`).
        const NO_SUID = libc::MS_NOSUID;
        /// Device nodes cannot be opened (`MS_NODEV`).
        const NO_DEV = libc::MS_NODEV;
        /// Programs cannot be run (`MS_NOEXEC`).
        const NO_EXEC = libc::MS_NOEXEC;
        /// Access times are not kept (`MS_NOATIME`).
        const NO_ATIME = libc::MS_NOATIME;
        /// Access times of directories are not kept (`MS_NODIRATIME`).
        const NO_DIR_ATIME = libc::MS_NODIRATIME;
        /// Access times are kept when older than the change (`MS_RELATIME`).
        const RELATIME = libc::MS_RELATIME;
        /// Every access is recorded (`MS_STRICTATIME`).
        const STRICT_ATIME = libc::MS_STRICTATIME;
        /// Writes are synchronous (`MS_SYNCHRONOUS`).
        const SYNCHRONOUS = libc::MS_SYNCHRONOUS;
        /// Changes of directories are synchronous (`MS_DIRSYNC`).
        const DIR_SYNC = libc::MS_DIRSYNC;
        /// Symbolic links are not followed (`MS_NOSYMFOLLOW`).
        const NO_SYMLINK_FOLLOW = libc::MS_NOSYMFOLLOW;
    }
}

/// Mounts `source` of type `kind` on `target`.
///
/// # Errors
/// * `EPERM`: no privilege to mount (`CAP_SYS_ADMIN`).
/// * `EBUSY`, `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`: about `target`.
/// * `ENODEV`: the kernel does not know `kind`.
/// * `EINVAL`: `data` has an option that the filesystem does not take.
pub fn mount(
    source: &CStr,
    target: &Path,
    kind: &CStr,
    flags: MountFlags,
    data: &CStr,
) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: all five are live, NUL-terminated strings or integers.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags.bits(),
            data.as_ptr().cast(),
        )
    })?;
    Ok(())
}

/// Lets no change of mounts in this namespace reach another one; theirs still come here
/// (`MS_SLAVE`).
///
/// # Errors
/// `EPERM`: no privilege (`CAP_SYS_ADMIN`).
pub fn keep_changes_here() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_SLAVE;
    let none = std::ptr::null();
    // SAFETY: the target is a NUL-terminated string; the others may be null for this change.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) }).map(drop)
}

/// Detaches the topmost mount at `target`: nobody finds it from now on, and it is gone when its
/// last user is (`MNT_DETACH`). A symbolic link is not followed (`UMOUNT_NOFOLLOW`).
///
/// # Errors
/// * `EPERM`: no privilege (`CAP_SYS_ADMIN`).
/// * `EINVAL`: nothing is mounted there.
/// * `ENOENT`: there is no such path.
pub fn detach(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    detach_raw(&target, 0)
}

/// [`detach`] without allocating; async-signal-safe. With `MNT_FORCE` in `flags` a FUSE connection
/// is aborted first.
pub(crate) fn detach_raw(target: &CStr, flags: libc::c_int) -> io::Result<()> {
    let flags = flags | libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: the path is a live, NUL-terminated string.
    check(unsafe { libc::umount2(target.as_ptr(), flags) })?;
    Ok(())
}

/// A device number, as the kernel tells filesystems apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its major number; 0 for filesystems without a block device.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

/// The device of whatever is topmost at `path`, without asking its server.
///
/// statx(2) with `AT_STATX_DONT_SYNC`, so it answers for a FUSE filesystem whose server hangs or
/// is dead. The final component is not followed if it is a symbolic link.
///
/// # Errors
/// * `ENOENT`, `ENOTDIR`, `EACCES`: about the path.
pub fn device_at(path: &Path) -> io::Result<Device> {
    device_at_raw(&c_path(path)?)
}

/// [`device_at`] without allocating; async-signal-safe.
pub(crate) fn device_at_raw(path: &CStr) -> io::Result<Device> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: statx is a struct of integers, for which zero is a value.
    let mut attributes: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and `attributes` lives through the call. The mask is
    // empty: the device is always filled in.
    check(unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, &mut attributes) })?;
    Ok(Device { major: attributes.stx_dev_major, minor: attributes.stx_dev_minor })
}

/// One line of `/proc/PID/mountinfo`; proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's number, reused after it is gone.
    pub id: u64,
    /// The number of the mount it is on.
    pub parent_id: u64,
    /// The device of its files.
    pub device: Device,
    /// The directory of the filesystem that forms the root of this mount.
    pub root: PathBuf,
    /// Where it is mounted, seen from the reader's root.
    pub mount_point: PathBuf,
    /// Options of the mount, comma-separated.
    pub options: OsString,
    /// Its type, as `fuse.stratafs`.
    pub kind: OsString,
    /// Its source, for FUSE the `fsname`.
    pub source: OsString,
    /// Options of the filesystem, comma-separated.
    pub super_options: OsString,
}

/// All mounts that this process sees, in the order they were made.
///
/// # Errors
/// `ENOENT`, `EACCES`: `/proc` is not mounted or hidden. Lines that cannot be understood are left
/// out.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse_mountinfo).collect())
}

/// The topmost mount at exactly `mount_point`, an absolute path without symbolic links.
///
/// # Errors
/// As [`mounts`].
pub fn mount_at(mount_point: &Path) -> io::Result<Option<MountInfo>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.mount_point == mount_point))
}

/// Parses one line of mountinfo; `None` where it is not one.
#[must_use]
pub fn parse_mountinfo(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = parse_number(fields.next()?)?;
    let parent_id = parse_number(fields.next()?)?;
    let mut device = fields.next()?.split(|&byte| byte == b':');
    let major = u32::try_from(parse_number(device.next()?)?).ok()?;
    let minor = u32::try_from(parse_number(device.next()?)?).ok()?;
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    let options = unescape(fields.next()?);
    // A varying number of optional fields ends with a lone dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = unescape(fields.next().unwrap_or_default());
    Some(MountInfo {
        id,
        parent_id,
        device: Device { major, minor },
        root: root.into(),
        mount_point: mount_point.into(),
        options,
        kind,
        source,
        super_options,
    })
}

fn parse_number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> OsString {
    if !field.contains(&b'\\') {
        return OsStr::from_bytes(field).to_owned();
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_mountinfo_with_optional_fields_and_escapes_reads_every_field() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 shared:2 - fuse.stratafs stratafs:mem rw,user_id=0";
        let mount = parse_mountinfo(line).unwrap();
        assert_eq!((mount.id, mount.parent_id), (36, 35));
        assert_eq!(mount.device, Device { major: 98, minor: 0 });
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.mount_point, Path::new(r"/mnt 2\x"));
        assert_eq!(mount.options, "rw,noatime");
        assert_eq!(mount.kind, "fuse.stratafs");
        assert_eq!(mount.source, "stratafs:mem");
        assert_eq!(mount.super_options, "rw,user_id=0");
    }

    #[test]
    fn parse_mountinfo_of_truncated_lines_answers_none() {
        let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw";
        let whole = parse_mountinfo(line).unwrap();
        for len in 0..line.len() {
            if let Some(mount) = parse_mountinfo(&line[..len]) {
                assert_eq!(mount.mount_point, whole.mount_point);
                assert!(len >= line.len() - b"ext4 /dev/root rw".len());
            }
        }
    }

    #[test]
    fn unescape_of_a_lone_backslash_keeps_it() {
        assert_eq!(unescape(br"a\b\0\400\"), OsStr::new(r"a\b\0\400\"));
        assert_eq!(unescape(br"\011\377"), OsStr::from_bytes(b"\t\xff"));
    }

    #[test]
    fn mounts_of_this_process_agree_with_device_at_root() {
        let root = mount_at(Path::new("/")).unwrap().expect("a root mount");
        assert_eq!(device_at(Path::new("/")).unwrap(), root.device);
    }

    #[test]
    fn detach_of_a_missing_path_is_refused() {
        let error = detach(Path::new("/proc/no-such-mount")).unwrap_err();
        let errno = error.raw_os_error();
        assert!(errno == Some(libc::ENOENT) || errno == Some(libc::EPERM), "{error}");
        let nul = detach(Path::new(OsStr::from_bytes(b"/a\0b"))).unwrap_err();
        assert_eq!(nul.raw_os_error(), Some(libc::EINVAL));
    }
}
