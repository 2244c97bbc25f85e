//! Landlock: which directories a thread can open and change things below; landlock(7).
//!
//! It does not concern stat, chmod, and what is opened with `O_PATH`.

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `struct landlock_ruleset_attr` of linux/landlock.h, its first field: the kernel takes the size.
#[repr(C)]
struct Ruleset {
    handled: u64,
}

/// `struct landlock_path_beneath_attr` of linux/landlock.h.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    directory: i32,
}

// linux/landlock.h.
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
/// `LANDLOCK_ACCESS_FS_EXECUTE`, the first.
const EXECUTE: u64 = 1;
/// Everything up to `LANDLOCK_ACCESS_FS_REFER`, which version 2 has.
const UP_TO_REFER: u64 = (1 << 14) - 1;
/// `LANDLOCK_ACCESS_FS_TRUNCATE`, which version 3 has.
const TRUNCATE: u64 = 1 << 14;

/// The version that the kernel has; `None` where it has none or it is off.
#[must_use]
pub fn version() -> Option<u32> {
    let null = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag no attributes are read.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, null, 0_usize, CREATE_RULESET_VERSION)
    };
    u32::try_from(version).ok()
}

/// Lets this thread, and those that it starts, open files, and make, move and remove them, below
/// `directories` alone, and execute none.
///
/// # Errors
/// * `EOPNOTSUPP`, `ENOSYS`: the kernel has none, or not the version 2: before it, every rename
///   from one directory to another was refused.
/// * `EPERM`: the thread may gain privileges: see
///   [`gain_no_privileges`](crate::process::gain_no_privileges).
/// * `E2BIG`: there are 16 layers of rules already.
pub fn restrict_to(directories: &[BorrowedFd<'_>]) -> io::Result<()> {
    let handled = match version() {
        Some(0 | 1) | None => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        Some(2) => UP_TO_REFER,
        Some(_) => UP_TO_REFER | TRUNCATE,
    };
    let ruleset = Ruleset { handled };
    // SAFETY: the struct is as long as said and lives through the call.
    let answer = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0_u32,
        )
    })?;
    let number = RawFd::try_from(answer).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call has just made it, and nobody else knows it.
    let rules = unsafe { OwnedFd::from_raw_fd(number) };
    for directory in directories {
        let beneath = Beneath { allowed: handled & !EXECUTE, directory: directory.as_raw_fd() };
        // SAFETY: the struct has the layout of the kind of rule that is said, and lives through the
        // call.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const beneath,
                0_u32,
            )
        })?;
    }
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::gain_no_privileges;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn restrict_to_a_directory_leaves_it_and_no_other() {
        if version().is_none_or(|version| version < 2) {
            return;
        }
        let place = std::env::temp_dir().join(format!("sys-landlock-{}", std::process::id()));
        for name in ["in/a", "in/b", "out"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        let path = place.clone();
        let thread = std::thread::spawn(move || {
            let directory = File::open(path.join("in")).unwrap();
            gain_no_privileges().unwrap();
            restrict_to(&[directory.as_fd()]).unwrap();
            fs::write(path.join("in/a/file"), "x").unwrap();
            fs::rename(path.join("in/a/file"), path.join("in/b/file")).unwrap();
            fs::read(path.join("in/b/file")).unwrap();
            let error = fs::write(path.join("out/file"), "x").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            let error = fs::rename(path.join("in/b/file"), path.join("out/file")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        });
        let outcome = thread.join();
        fs::remove_dir_all(&place).unwrap();
        outcome.unwrap();
    }
}
