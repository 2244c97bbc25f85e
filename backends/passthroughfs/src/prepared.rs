//! Objects that are whole before they have a name.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stratafs_core::{Behaviours, Errno, Name, NameBuf, Result};
use stratafs_sys::at::{self, Place, Rename};
use stratafs_sys::openat;

use crate::PassthroughFs;

/// Makes names of this process's own.
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// A file that is being made: without a name, or where the host has no such files by a name of this
/// process's own. What is not put in place is gone when this is.
pub(crate) struct Prepared {
    pub(crate) fd: Arc<OwnedFd>,
    dir: Arc<OwnedFd>,
    aside: Option<NameBuf>,
}

impl PassthroughFs {
    /// A new, empty file on the filesystem of the directory `dir`, of no use to others yet.
    pub(crate) fn prepare(&self, dir: &Arc<OwnedFd>) -> Result<Prepared> {
        let unnamed = if self.features.bears(Behaviours::TMPFILE) {
            self.with_room(|| openat::unnamed_file(dir.as_fd(), libc::O_RDWR, 0o600))
        } else {
            Err(Errno::EOPNOTSUPP)
        };
        let (fd, aside) = match unnamed {
            Ok(fd) => (fd, None),
            Err(Errno::EISDIR | Errno::EOPNOTSUPP | Errno::EINVAL) => {
                let name = aside()?;
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let make = || openat::open_child(dir.as_fd(), name.as_name(), flags, 0o600);
                (self.with_room(make)?, Some(name))
            }
            Err(errno) => return Err(errno),
        };
        let prepared = Prepared { fd: Arc::new(fd), dir: Arc::clone(dir), aside };
        if self.process_umask & 0o600 != 0 {
            self.proc.set_mode(prepared.fd.as_fd(), 0o600)?;
        }
        Ok(prepared)
    }

    /// Gives a prepared file the name `name`, in one step.
    ///
    /// # Errors
    /// `EEXIST`: there is another by that name.
    pub(crate) fn put(&self, prepared: &mut Prepared, name: Name<'_>) -> Result<()> {
        let dir = prepared.dir.as_fd();
        let Some(aside) = &prepared.aside else {
            return Ok(self.proc.link(prepared.fd.as_fd(), dir, name)?);
        };
        let from = Place { dir, name: aside.as_name() };
        match at::rename(from, Place { dir, name }, Rename::NO_REPLACE).map_err(Errno::from) {
            // The host cannot rename without replacing; a second name replaces nothing either.
            Err(Errno::EINVAL) => Ok(self.proc.link(prepared.fd.as_fd(), dir, name)?),
            Err(errno) => Err(errno),
            Ok(()) => {
                prepared.aside = None;
                Ok(())
            }
        }
    }

    /// Puts a prepared file where `name` leads, in one step, and gives what was there a name of this
    /// process's own, which is that of the result.
    pub(crate) fn exchange(&self, prepared: &mut Prepared, name: Name<'_>) -> Result<NameBuf> {
        let dir = prepared.dir.as_fd();
        let aside = match prepared.aside.take() {
            Some(aside) => aside,
            None => {
                let aside = aside()?;
                self.proc.link(prepared.fd.as_fd(), dir, aside.as_name())?;
                aside
            }
        };
        let from = Place { dir, name: aside.as_name() };
        match at::rename(from, Place { dir, name }, Rename::EXCHANGE) {
            Ok(()) => Ok(aside),
            Err(error) => {
                prepared.aside = Some(aside);
                Err(error.into())
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(aside) = &self.aside
            && let Err(error) = at::remove_file(self.dir.as_fd(), aside.as_name())
        {
            log::error!("passthrough: {:?} was made aside, and stays: {error}", aside);
        }
    }
}

fn aside() -> Result<NameBuf> {
    let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
    let name = format!(".stratafs-{}-{number}", std::process::id());
    Ok(Name::new(name.as_bytes())?.to_owned())
}

#[cfg(test)]
mod tests {
    use stratafs_core::{Context, Credentials, DynFileSystem, NodeId, SetAttr};

    use super::*;
    use crate::Ownership;

    /// A share of a host without unnamed files.
    fn share(dir: &tempfile::TempDir) -> PassthroughFs {
        let builder = PassthroughFs::builder().root_dir(dir.path());
        let mut fs = builder.ownership(Ownership::Virtual).default_owner(0, 0).build().unwrap();
        fs.features.behaviours.remove(Behaviours::TMPFILE);
        fs
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn put_without_unnamed_files_makes_it_aside_and_leaves_nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        let fs = share(&dir);
        let cx = Context::new(1, Some(Credentials::new(7, 8)));
        let name = |text: &'static [u8]| Name::new(text).unwrap();
        let pipe = fs.mknod(&cx, NodeId::ROOT, name(b"pipe"), 0o010_644, 0).unwrap();
        assert_eq!((pipe.attr.mode, pipe.attr.uid), (0o010_644, 7));
        let link = fs.symlink(&cx, NodeId::ROOT, name(b"link"), b"target").unwrap();
        assert_eq!((link.attr.mode, link.attr.uid, link.attr.size), (0o120_777, 7, 6));
        assert_eq!(names(&dir), ["link", "pipe"]);
        let again = fs.symlink(&cx, NodeId::ROOT, name(b"pipe"), b"target");
        assert_eq!(again.unwrap_err(), Errno::EEXIST);
        assert_eq!(names(&dir), ["link", "pipe"], "what could not be put in place is gone");
    }

    #[test]
    fn exchange_without_unnamed_files_leaves_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let fs = share(&dir);
        std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
        let cx = Context::new(1, Some(Credentials::new(0, 0)));
        let name = Name::new(b"link").unwrap();
        let link = fs.lookup(&cx, NodeId::ROOT, name).unwrap().found().unwrap();
        let mut set = SetAttr::new();
        set.uid = Some(9);
        let attr = fs.setattr(&cx, link.node, &set).unwrap().attr;
        assert_eq!((attr.uid, attr.mode), (9, 0o120_777));
        assert_eq!(names(&dir), ["link"]);
        assert_eq!(std::fs::read(dir.path().join("link")).unwrap(), b"target");
    }
}
