//! A filesystem in the tree: put there on creation, taken away at the end, whatever happens
//! between.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use stratafs_core::{Behaviours, Errno, Features};
use stratafs_sys::creds::{self, User};
use stratafs_sys::fuse;
use stratafs_sys::fusermount::{self, Failure};
use stratafs_sys::mount::{self, Device};
use stratafs_sys::watcher::{By, Watcher};

use super::error::MountError;
use super::mountpoint::{self, OURS};
use super::options::MountOptions;

/// The root of every composition is a directory: the `rootmode` of the mount, in octal.
const ROOT_MODE: &str = "40000";

/// What [`Attachment::make`] made.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    /// The first descriptor of the connection.
    pub(super) connection: OwnedFd,
    /// Whom to become before the first request is served.
    pub(super) user: Option<User>,
}

/// What is mounted, and how it is taken away.
#[derive(Debug)]
pub(super) struct Attachment {
    path: PathBuf,
    device: Device,
    way: Way,
}

/// Who takes the mount away.
#[derive(Debug)]
enum Way {
    /// This process, as root.
    Direct,
    /// A process that waits for the end of this one, with the privileges that this one began with.
    Watched(Watcher),
    /// `fusermount3`, started for it.
    Fusermount,
    /// Nobody any more.
    Gone,
}

impl Attachment {
    /// Mounts on `path` by the way that this process can: mount(2) as root, or `fusermount3`.
    ///
    /// With `setuid` the mount belongs to that user already; the caller becomes it.
    pub(super) fn make(
        path: &Path,
        options: &MountOptions,
        features: &Features,
    ) -> Result<Attached, MountError> {
        let path = mountpoint::prepare(path)?;
        if creds::effective().0 == 0 {
            Self::direct(path, options, features)
        } else {
            Self::through_fusermount(path, options, features)
        }
    }

    fn direct(
        path: PathBuf,
        options: &MountOptions,
        features: &Features,
    ) -> Result<Attached, MountError> {
        let owner = options.setuid.as_deref().map(find_user).transpose()?;
        let (uid, gid) = owner.as_ref().map_or_else(creds::effective, |user| (user.uid, user.gid));
        let connection = fuse::open().map_err(MountError::device)?;
        let mut data = format!(
            "fd={},rootmode={ROOT_MODE},user_id={uid},group_id={gid},default_permissions",
            connection.as_raw_fd()
        );
        if options.allow_other.unwrap_or(owner.is_none()) {
            data.push_str(",allow_other");
        }
        if let Some(bytes) = options.max_read {
            data.push_str(&format!(",max_read={bytes}"));
        }
        let mut kind = b"fuse.".to_vec();
        kind.extend_from_slice(subtype(options).as_bytes());
        let flags = options.flags(features.bears(Behaviours::READ_ONLY));
        mount::mount(
            &text(fsname(options, features).into_vec())?,
            &path,
            &text(kind)?,
            flags,
            &text(data.into_bytes())?,
        )
        .map_err(|error| MountError::mount(&path, error))?;
        let device = match mount::device_at(&path) {
            Ok(device) => device,
            Err(error) => {
                let _ = mount::detach(&path);
                return Err(MountError::mount(&path, error));
            }
        };
        let mut attachment = Self { path, device, way: Way::Direct };
        if options.auto_unmount.unwrap_or(owner.is_some()) {
            attachment.watch(By::SystemCall)?;
        }
        Ok(Attached { attachment, connection, user: owner })
    }

    fn through_fusermount(
        path: PathBuf,
        options: &MountOptions,
        features: &Features,
    ) -> Result<Attached, MountError> {
        if let Some(user) = &options.setuid {
            return Err(MountError::User {
                user: user.clone(),
                errno: Errno::EPERM,
                cause: "only root can become another user",
                next: "leave `setuid` out, or run as root",
            });
        }
        let read_only = features.bears(Behaviours::READ_ONLY);
        let list = options.for_fusermount(&fsname(options, features), &subtype(options), read_only);
        let connection =
            fusermount::mount(&path, &list).map_err(|failure| refused(&path, failure))?;
        let device = match mount::device_at(&path) {
            Ok(device) => device,
            Err(error) => {
                let _ = fusermount::unmount(&path);
                return Err(MountError::mount(&path, error));
            }
        };
        let mut attachment = Self { path, device, way: Way::Fusermount };
        if options.auto_unmount == Some(true) {
            attachment.watch(By::Fusermount)?;
        }
        Ok(Attached { attachment, connection, user: None })
    }

    /// Leaves the unmounting to a process that survives this one.
    fn watch(&mut self, by: By) -> Result<(), MountError> {
        let watcher = Watcher::start(&self.path, self.device, by).map_err(|error| {
            MountError::resource(&self.path, "starting the process that unmounts", error)
        })?;
        self.way = Way::Watched(watcher);
        Ok(())
    }

    /// Where it is mounted, absolute and without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still what is on top at its path.
    fn is_there(&self) -> bool {
        mount::device_at(&self.path).is_ok_and(|now| now == self.device)
    }

    /// Takes the mount away, unless somebody else did: nobody finds it any more, and who is in it
    /// keeps it until they leave.
    pub(super) fn detach(&mut self) -> Result<(), MountError> {
        let way = std::mem::replace(&mut self.way, Way::Gone);
        if matches!(way, Way::Gone) || !self.is_there() {
            // A watcher, dropped here, sees the same and ends.
            return Ok(());
        }
        let cause = match way {
            Way::Direct => mount::detach(&self.path).err().map(|error| error.to_string()),
            Way::Watched(watcher) => {
                watcher.finish();
                None
            }
            Way::Fusermount => by_fusermount(&self.path),
            Way::Gone => None,
        };
        if !self.is_there() {
            return Ok(());
        }
        let path = self.path.display();
        Err(MountError::Unmount {
            path: self.path.clone(),
            cause: cause.unwrap_or_else(|| "it is still mounted".to_owned()),
            next: format!("umount -l {path} (root) or fusermount3 -uz {path} (its user)"),
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            log::error!("{error}");
        }
    }
}

fn by_fusermount(path: &Path) -> Option<String> {
    match fusermount::unmount(path) {
        Ok(()) => None,
        Err(Failure::Refused(text)) => Some(text),
        Err(Failure::Start(error) | Failure::Protocol(error)) => Some(error.to_string()),
    }
}

fn fsname(options: &MountOptions, features: &Features) -> OsString {
    // Never the whole spec: it may hold names that other users of the host are not to see.
    options.fsname.clone().unwrap_or_else(|| format!("{OURS}:{}", features.kind).into())
}

fn subtype(options: &MountOptions) -> OsString {
    options.subtype.clone().unwrap_or_else(|| OsStr::new(OURS).to_owned())
}

/// The option parser refuses NULs, but a program may have set the fields itself.
fn text(bytes: Vec<u8>) -> Result<CString, MountError> {
    CString::new(bytes).map_err(|error| {
        MountError::option(&error.into_vec(), "a NUL is in its value", "leave the NUL out")
    })
}

pub(super) fn find_user(name: &str) -> Result<User, MountError> {
    let user = creds::user(name).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        MountError::User {
            user: name.to_owned(),
            errno: if missing { Errno::ENOENT } else { error.into() },
            cause: if missing { "there is no such user" } else { "the user database failed" },
            next: "see `getent passwd` for the users of this host",
        }
    })?;
    if user.uid == 0 {
        return Err(MountError::User {
            user: name.to_owned(),
            errno: Errno::EINVAL,
            cause: "that is root, which gives nothing up",
            next: "name another user, or leave `setuid` out",
        });
    }
    Ok(user)
}

/// Gives root up for good, in the whole process.
pub(super) fn become_user(user: &User) -> Result<(), MountError> {
    creds::drop_to(user).map_err(|error| MountError::User {
        user: user.name.to_string_lossy().into_owned(),
        errno: error.into(),
        cause: "root could not be given up for good",
        next: "start it with all capabilities and without securebits, or leave `setuid` out",
    })
}

fn refused(path: &Path, failure: Failure) -> MountError {
    let (cause, next) = match failure {
        Failure::Start(error) if error.kind() == std::io::ErrorKind::NotFound => (
            "it is not installed".to_owned(),
            "install it (Debian, Ubuntu, Fedora: package fuse3), or mount as root",
        ),
        Failure::Start(error) => (error.to_string(), "check that it can be run, or mount as root"),
        Failure::Protocol(error) => (
            format!("it ended without a word ({error})"),
            "check that it is setuid root (`ls -l $(command -v fusermount3)`), or mount as root",
        ),
        Failure::Refused(text) => {
            let next = if text.contains("/dev/fuse") && text.contains("ermission denied") {
                "let users open it as on most hosts (chmod 666 /dev/fuse), or mount as root"
            } else if text.contains("user_allow_other") {
                "add a line `user_allow_other` to /etc/fuse.conf, or leave `allow_other` out"
            } else if text.contains("/dev/fuse") {
                "load the module (`modprobe fuse`), or start the container with --device /dev/fuse"
            } else {
                "mount on a directory that you own and can write to, or mount as root"
            };
            (text, next)
        }
    };
    MountError::Fusermount { path: path.to_owned(), cause, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsname_by_default_is_the_kind_alone() {
        let features = Features::new("mem");
        assert_eq!(fsname(&MountOptions::default(), &features), "stratafs:mem");
        let named = MountOptions { fsname: Some("x".into()), ..MountOptions::default() };
        assert_eq!(fsname(&named, &features), "x");
    }

    #[test]
    fn find_user_of_nobody_known_or_root_is_refused_with_advice() {
        for (name, word) in [("no-such-user", "ENOENT"), ("root", "EINVAL"), ("0", "EINVAL")] {
            let text = find_user(name).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains(name), "{text}");
        }
    }

    #[test]
    fn refused_for_a_known_reason_says_what_to_do() {
        let text = |failure| refused(Path::new("/m"), failure).to_string();
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(text(Failure::Start(missing)).contains("package fuse3"));
        let said = "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        assert!(text(Failure::Refused(said.to_owned())).contains("add a line"));
    }
}
