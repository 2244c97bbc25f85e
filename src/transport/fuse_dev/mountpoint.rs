//! Whether a directory can be mounted on, without ever waiting for a server that does not answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stratafs_core::Errno;
use stratafs_sys::fusermount;
use stratafs_sys::mount::{self, MountInfo};

use super::error::MountError;

/// How long a server that is already mounted there may take to answer before it counts as alive
/// but stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The default subtype, and the beginning of the default source: by these a mount is known as one
/// of ours.
pub(super) const OURS: &str = "stratafs";

/// Checks `path` and answers it absolute and without symbolic links.
///
/// A dead mount of ours, left by a killed server, is taken away first.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    // realpath(3) asks no server about the last component, so this also works on dead mounts.
    let path = fs::canonicalize(path).map_err(|error| unreachable(path, error))?;
    // Each round takes one mount away; dead mounts can lie on top of each other.
    for _ in 0..16 {
        let error = match probe(&path) {
            Ok(()) => break,
            Err(error) => error,
        };
        let there = mount::mount_at(&path).ok().flatten();
        let errno = Errno::from(error);
        match there {
            Some(there) if errno == Errno::ENOTCONN && is_ours(&there) => {
                take_away(&path)?;
                log::info!("{}: took away the mount of a server that is gone", path.display());
            }
            Some(there) if errno == Errno::ENOTCONN => {
                let cause = format!(
                    "a dead mount ({}) is in the way; its server is gone",
                    there.kind.display()
                );
                return Err(MountError::mountpoint(&path, errno, cause, unmount_hint(&path)));
            }
            _ => return Err(unreachable(&path, errno.into())),
        }
    }
    match mount::mount_at(&path) {
        Ok(Some(there)) if is_ours(&there) => {
            let cause = format!(
                "it is the mountpoint of another stratafs ({}) already",
                there.source.display()
            );
            Err(MountError::mountpoint(&path, Errno::EBUSY, cause, unmount_hint(&path)))
        }
        // Without /proc nothing is known, and stacking on a foreign mount is the caller's right.
        _ => Ok(path),
    }
}

fn unreachable(path: &Path, error: io::Error) -> MountError {
    let errno = Errno::from(error);
    let (cause, next) = match errno {
        Errno::ENOENT => ("there is no such directory", format!("mkdir -p {}", quoted(path))),
        Errno::ENOTDIR => ("it is not a directory", "name a directory".to_owned()),
        Errno::EACCES => ("the way to it is not open to this user", "check its parents".to_owned()),
        Errno::ELOOP => ("its symbolic links go in circles", "name another directory".to_owned()),
        Errno::ETIMEDOUT => {
            ("the server that is mounted there does not answer", unmount_hint(path))
        }
        Errno::ENOTCONN => ("a dead mount is in the way; its server is gone", unmount_hint(path)),
        _ => ("it cannot be looked at", "check the filesystem that it is on".to_owned()),
    };
    MountError::mountpoint(path, errno, cause, next)
}

fn unmount_hint(path: &Path) -> String {
    let path = quoted(path);
    format!("unmount it first: umount -l {path} (root) or fusermount3 -uz {path} (its user)")
}

/// `path` as a word for a shell, so that the advice can be pasted.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn is_ours(there: &MountInfo) -> bool {
    let kind = there.kind.to_string_lossy();
    let source = there.source.to_string_lossy();
    kind == format!("fuse.{OURS}")
        || (kind.starts_with("fuse") && source.starts_with(&format!("{OURS}:")))
}

/// Asks whatever is at `path` for its attributes.
///
/// In a thread of its own: a server that hangs would keep this one in an uninterruptible sleep.
fn probe(path: &Path) -> io::Result<()> {
    let (answer, answered) = mpsc::channel();
    let asked = path.to_owned();
    thread::Builder::new().name("stratafs-probe".into()).spawn(move || {
        let result = fs::symlink_metadata(asked).and_then(|attributes| {
            if attributes.is_dir() { Ok(()) } else { Err(Errno::ENOTDIR.into()) }
        });
        // Nobody listens any more after the timeout.
        let _ = answer.send(result);
    })?;
    answered.recv_timeout(PROBE_TIMEOUT).unwrap_or_else(|_| Err(Errno::ETIMEDOUT.into()))
}

fn take_away(path: &Path) -> Result<(), MountError> {
    if mount::detach(path).is_ok() {
        return Ok(());
    }
    fusermount::unmount(path).map_err(|_| {
        let cause = "a dead mount is in the way, and this user may not take it away";
        MountError::mountpoint(path, Errno::ENOTCONN, cause, unmount_hint(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(path: &Path) -> String {
        prepare(path).unwrap_err().to_string()
    }

    #[test]
    fn prepare_of_a_missing_path_says_mkdir() {
        let text = text_of(Path::new("/no/such dir"));
        assert!(text.contains("ENOENT") && text.contains("mkdir -p '/no/such dir'"), "{text}");
    }

    #[test]
    fn prepare_of_a_file_says_it_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = text_of(file.path());
        assert!(text.contains("ENOTDIR") && text.contains("name a directory"), "{text}");
    }

    #[test]
    fn prepare_through_a_symbolic_link_answers_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(prepare(&link).unwrap(), real);
    }

    #[test]
    fn quoted_path_survives_a_shell() {
        assert_eq!(quoted(Path::new("/mnt/a-b_c.d")), "/mnt/a-b_c.d");
        assert_eq!(quoted(Path::new("/mnt/it's $x")), r"'/mnt/it'\''s $x'");
    }

    #[test]
    fn is_ours_by_type_or_by_source_of_a_fuse_mount() {
        let there = |kind: &str, source: &str| {
            let line = format!("36 35 0:9 / /mnt rw - {kind} {source} rw");
            is_ours(&mount::parse_mountinfo(line.as_bytes()).unwrap())
        };
        assert!(there("fuse.stratafs", "anything"));
        assert!(there("fuse.other", "stratafs:mem"));
        assert!(!there("fuse.other", "other"));
        assert!(!there("tmpfs", "stratafs:mem"));
    }
}
