//! Users, and giving up root for good.

use crate::capability::{self, Capabilities};
use crate::check;
use std::ffi::{CStr, CString};
use std::io;

/// A user of the system's user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: CString,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's primary group.
    pub gid: u32,
}

/// This process's effective user; its group is the effective group.
#[must_use]
pub fn effective() -> (u32, u32) {
    // SAFETY: both calls take no arguments and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Looks a user up by name, or by number if `name` is one and no user is so called.
///
/// # Errors
/// * `NotFound`: there is no such user.
/// * Anything that the user database reports.
pub fn user(name: &str) -> io::Result<User> {
    let wanted = CString::new(name).map_err(|_| io::ErrorKind::NotFound)?;
    let by_name = query(|entry, buffer, found| {
        // SAFETY: all pointers describe live locals of `query`; the name is NUL-terminated.
        unsafe {
            libc::getpwnam_r(wanted.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found)
        }
    })?;
    if let Some(user) = by_name {
        return Ok(user);
    }
    let uid: u32 = name.parse().map_err(|_| io::ErrorKind::NotFound)?;
    let by_number = query(|entry, buffer, found| {
        // SAFETY: all pointers describe live locals of `query`.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })?;
    by_number.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The number of the group `name`, or of the number that `name` is.
///
/// # Errors
/// * `NotFound`: there is no such group.
/// * Anything that the group database reports.
pub fn group(name: &str) -> io::Result<u32> {
    let wanted = CString::new(name).map_err(|_| io::ErrorKind::NotFound)?;
    // A group may have thousands of members, all in one entry.
    let mut size = 1024;
    while size <= 1 << 24 {
        // SAFETY: group is integers and pointers, for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let mut buffer: Vec<libc::c_char> = vec![0; size];
        // SAFETY: all pointers describe live locals; the name is NUL-terminated.
        let error = unsafe {
            libc::getgrnam_r(
                wanted.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        match error {
            0 if !found.is_null() => return Ok(entry.gr_gid),
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => {
                return name.parse().map_err(|_| io::ErrorKind::NotFound.into());
            }
            libc::ERANGE => size *= 2,
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

type Lookup<'a> =
    dyn Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int + 'a;

/// Runs one of the reentrant lookups with a buffer that grows as long as it asks for more.
fn query<F>(lookup: F) -> io::Result<Option<User>>
where
    F: Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
{
    let lookup: &Lookup<'_> = &lookup;
    // An entry is a line of text; 1 MiB is far beyond any, and ends a database that never stops
    // asking.
    let mut size = 1024;
    while size <= 1 << 20 {
        // SAFETY: passwd is integers and pointers, for which zero is a value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let mut buffer = vec![0; size];
        match lookup(&mut entry, &mut buffer, &mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success pw_name points at a NUL-terminated string inside `buffer`.
                let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
                return Ok(Some(User { name, uid: entry.pw_uid, gid: entry.pw_gid }));
            }
            libc::ERANGE => size *= 2,
            libc::EINTR => {}
            // What the C library says for "no such entry" depends on the database; see NOTES of
            // getpwnam(3).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

/// Becomes `user` in every thread of this process, with all of the user's groups, for good.
///
/// Groups go first, since only root may set them. Then it proves that there is no way back: the
/// real, effective and saved ids are the user's, no capability is left, and becoming root again
/// is refused. After an error the process may be half way: end it.
///
/// # Errors
/// * `EPERM`: this process is not root, or a way back was left.
/// * `EINVAL`: `user` is root, which is no drop.
/// * `EAGAIN`: the user's limit of processes is reached.
pub fn drop_to(user: &User) -> io::Result<()> {
    if user.uid == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the name is NUL-terminated and lives through the call.
    check(unsafe { libc::initgroups(user.name.as_ptr(), user.gid) })?;
    // SAFETY: the C library's calls, not the kernel's, which would change one thread only.
    check(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })?;
    if way_back(user)? {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Whether this process could become root again.
fn way_back(user: &User) -> io::Result<bool> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the three locals live through the call.
    check(unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) })?;
    if [real, effective, saved] != [user.uid; 3] {
        return Ok(true);
    }
    // SAFETY: the three locals live through the call.
    check(unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) })?;
    if [real, effective, saved] != [user.gid; 3] {
        return Ok(true);
    }
    if !capability::permitted()?.is_empty() {
        return Ok(true);
    }
    // SAFETY: meant to fail; if it does not, the caller ends the process.
    Ok(unsafe { libc::setresuid(u32::MAX, 0, u32::MAX) } == 0)
}

/// Whether the calling thread has CAP_SYS_ADMIN now. In a user namespace that says little: what the
/// kernel asks of the first one it still refuses.
#[must_use]
pub fn is_admin() -> bool {
    capability::effective().is_ok_and(|has| has.contains(Capabilities::SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_by_name_and_by_number_agree() {
        let root = user("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user("0").unwrap(), root);
    }

    #[test]
    fn user_of_an_unknown_name_is_not_found() {
        for name in ["no-such-user", "4294967294", "", "ro\0ot"] {
            assert_eq!(user(name).unwrap_err().kind(), io::ErrorKind::NotFound, "{name:?}");
        }
    }

    #[test]
    fn group_by_name_and_number_is_found_and_nonsense_is_not() {
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(group("12345").unwrap(), 12345);
        assert_eq!(group("no such group").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn is_admin_is_what_proc_says() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(is_admin(), effective & 0x20_0000 != 0);
    }

    #[test]
    fn drop_to_root_is_refused() {
        let error = drop_to(&user("root").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
