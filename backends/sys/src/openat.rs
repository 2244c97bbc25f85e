//! Opening the child of a directory, and never anything outside it: openat2(2).

use crate::{c_path, check, with_name};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs_core::Name;

/// Set once openat2 answered ENOSYS: a kernel before 5.6, or a seccomp filter of that age.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// What confines an open: no `..` out of the directory, no symbolic link, no /proc link.
const RESOLVE: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// Pins the object at `path`, a path of the server's own and never a client's: O_PATH.
///
/// A final symbolic link is pinned itself unless `follow` is set. A path that ends in `/` would be
/// followed by the kernel all the same, so trailing slashes are taken off first.
///
/// # Errors
/// * `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`: about the path. `EINVAL`: it holds a NUL.
pub fn pin_path(path: &Path, follow: bool) -> io::Result<OwnedFd> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut bytes = path.as_os_str().as_bytes();
    while let [head @ .., b'/'] = bytes
        && !head.is_empty()
    {
        bytes = head;
    }
    let path = c_path(Path::new(OsStr::from_bytes(bytes)))?;
    let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
    open_raw(libc::AT_FDCWD, &path, libc::O_PATH | no_follow, 0)
}

/// Pins the child `name` of `dir`, whatever it is, a symbolic link itself: O_PATH, which runs no
/// code of a device, waits for no FIFO, and needs no permission on the object.
///
/// # Errors
/// * `ENOENT`: there is none. `ENOTDIR`, `EACCES`: about `dir`.
/// * `EMFILE`, `ENFILE`: no descriptor is left.
pub fn pin_child(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<OwnedFd> {
    open_child(dir, name, libc::O_PATH, 0)
}

/// [`pin_child`] of a directory.
///
/// # Errors
/// As [`pin_child`], and `ENOTDIR`: it is no directory.
pub fn pin_child_dir(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<OwnedFd> {
    open_child(dir, name, libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// Opens the child `name` of `dir` with the open(2) flags `flags`; close-on-exec, never a
/// controlling terminal, never through a symbolic link.
///
/// Only O_CREAT with O_EXCL or O_PATH is safe on a name that others may change: the rest could
/// open a device.
///
/// # Errors
/// Those of open(2); `ELOOP`: a symbolic link.
pub fn open_child(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_NOFOLLOW;
    with_name(name, |name| {
        if !NO_OPENAT2.load(Ordering::Relaxed) {
            match openat2(dir, name, flags, mode) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    NO_OPENAT2.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        // One component without `/` that is neither `.` nor `..`, so O_NOFOLLOW says it all.
        open_raw(dir.as_raw_fd(), name, flags, mode)
    })
}

/// Makes a regular file without a name on the filesystem of `dir`: O_TMPFILE.
///
/// # Errors
/// * `EOPNOTSUPP`, `EISDIR`, `ENOENT`: the filesystem has no such files, or `dir` was removed.
pub fn unnamed_file(dir: BorrowedFd<'_>, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    open_raw(dir.as_raw_fd(), c".", flags | libc::O_TMPFILE, mode)
}

/// Opens the directory `dir` once more, with a position of its own.
///
/// # Errors
/// * `EACCES`: not readable. `EMFILE`, `ENFILE`: no descriptor is left.
pub fn reopen_dir(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_raw(dir.as_raw_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// openat(2) of a path that is known to be safe.
pub(crate) fn open_raw(
    dir: libc::c_int,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags =
        flags | libc::O_CLOEXEC | if flags & libc::O_PATH == 0 { libc::O_NOCTTY } else { 0 };
    // SAFETY: the path is NUL-terminated and lives through the call.
    let fd = check(unsafe { libc::openat(dir, path.as_ptr(), flags, mode) })?;
    // SAFETY: the call above succeeded, so `fd` is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn openat2(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: open_how is three integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // O_PATH takes no flag but its companions.
    let extra = if flags & libc::O_PATH == 0 { libc::O_NOCTTY } else { 0 };
    how.flags = u64::from((flags | libc::O_CLOEXEC | extra).cast_unsigned());
    // A mode without a creation is refused.
    how.mode = if flags & libc::O_CREAT == 0 { 0 } else { u64::from(mode) };
    how.resolve = RESOLVE;
    // SAFETY: name is NUL-terminated; `how` is as long as said; both live through the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })?;
    let fd = libc::c_int::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EIO))?;
    // SAFETY: the call above succeeded, so `fd` is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn open_child_of_a_symlink_is_refused_and_pin_child_pins_the_link() {
        let dir = tempfile();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
        let root = pin_path(&dir, false).unwrap();
        let name = Name::new(b"link").unwrap();
        let error = open_child(root.as_fd(), name, libc::O_RDONLY, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let link = pin_child(root.as_fd(), name).unwrap();
        let stat = crate::stat::of(link.as_fd()).unwrap();
        assert_eq!(stat.mode & libc::S_IFMT, libc::S_IFLNK);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn open_child_without_openat2_follows_no_link_either() {
        let dir = tempfile();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        std::fs::write(dir.join("file"), b"").unwrap();
        let root = pin_path(&dir, false).unwrap();
        let name = |text: &'static [u8]| Name::new(text).unwrap();
        NO_OPENAT2.store(true, Ordering::Relaxed);
        let followed = open_child(root.as_fd(), name(b"link"), libc::O_RDONLY, 0);
        let through = pin_child_dir(root.as_fd(), name(b"link"));
        let link = pin_child(root.as_fd(), name(b"link"));
        let file = open_child(root.as_fd(), name(b"file"), libc::O_RDONLY, 0);
        NO_OPENAT2.store(false, Ordering::Relaxed);
        assert_eq!(followed.unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(through.unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
        let stat = crate::stat::of(link.unwrap().as_fd()).unwrap();
        assert_eq!(stat.mode & libc::S_IFMT, libc::S_IFLNK);
        assert!(file.is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn pin_path_of_a_link_with_a_trailing_slash_pins_the_link() {
        let dir = tempfile();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        let slashed = dir.join("link//");
        let link = pin_path(&slashed, false).unwrap();
        assert_eq!(crate::stat::of(link.as_fd()).unwrap().mode & libc::S_IFMT, libc::S_IFLNK);
        let target = pin_path(&slashed, true).unwrap();
        assert_eq!(crate::stat::of(target.as_fd()).unwrap().mode & libc::S_IFMT, libc::S_IFDIR);
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempfile() -> std::path::PathBuf {
        use std::sync::atomic::AtomicU32;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sys-openat-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }
}
