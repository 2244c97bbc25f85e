//! What a case has: a directory of its own on the filesystem under test, and calls in shell's terms.

use std::fmt;
use std::time::{Duration, Instant};

use stratafs_core::{
    Attr, Errno, FallocateMode, FileType, LockKind, OpenFlags, RenameFlags, Result, SeekTo,
    SetTime, StatFs, XattrMode,
};

use crate::client::{Caller, Client, Fd, InProcess, Listed};
use crate::verdict::{Failure, Verdict, equal};

/// The world of one case: an empty directory, and a client that works in it.
///
/// Paths are relative to that directory; the empty path is the directory. The calls are those of
/// [`Client`]; further ones put the common steps of cases into one word.
pub struct World<'c> {
    client: &'c dyn Client,
    root: Vec<u8>,
}

impl<'c> World<'c> {
    /// The world in the directory `root`, which exists; empty is the filesystem's root.
    #[must_use]
    pub fn new(client: &'c dyn Client, root: impl Into<Vec<u8>>) -> Self {
        Self { client, root: root.into() }
    }

    /// The client, whose paths start at the root of the filesystem.
    #[must_use]
    pub fn client(&self) -> &'c dyn Client {
        self.client
    }

    /// `path` from the root of the filesystem.
    #[must_use]
    pub fn path(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        match path.as_ref() {
            [] => self.root.clone(),
            // A slash in front would lead a mounted client out of the mount.
            path if self.root.is_empty() => path.to_vec(),
            path => [&self.root, &b"/"[..], path].concat(),
        }
    }

    /// The filesystem in this process, for a case that is declared to be
    /// [in process](crate::Place::InProcess) only.
    ///
    /// # Errors
    /// There is none.
    #[track_caller]
    pub fn raw(&self) -> Result<&'c InProcess, Failure> {
        self.client.in_process().ok_or_else(|| Failure::new("this case runs in process only"))
    }

    /// Makes the file `path` of mode 0644 with `data` in it.
    ///
    /// # Errors
    /// What create, write and close answer; `EEXIST` where it exists; `EIO` for a short write.
    pub fn file(&self, path: impl AsRef<[u8]>, data: &[u8]) -> Result<()> {
        let fd = self.create(path, OpenFlags::WRITE_ONLY.with_exclusive(), 0o644)?;
        let written = self.write_all(fd, 0, data);
        self.close(fd).and(written)
    }

    /// Writes all of `data` into `fd` from `offset`.
    ///
    /// # Errors
    /// What write answers; `EIO` for a short write.
    pub fn write_all(&self, fd: Fd, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.pwrite(fd, offset, data)? == data.len() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Writes `data` into the existing file `path` from `offset`.
    ///
    /// # Errors
    /// What open, write and close answer; `EIO` for a short write.
    pub fn write_at(&self, path: impl AsRef<[u8]>, offset: u64, data: &[u8]) -> Result<()> {
        let fd = self.open(path, OpenFlags::WRITE_ONLY)?;
        let written = self.write_all(fd, offset, data);
        self.close(fd).and(written)
    }

    /// All that is in the file `path`.
    ///
    /// # Errors
    /// What open, read and close answer.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let fd = self.open(path, OpenFlags::READ_ONLY)?;
        let data = self.read_fd(fd);
        self.close(fd).and(data)
    }

    /// All that is in the open file `fd`.
    ///
    /// # Errors
    /// What read answers.
    pub fn read_fd(&self, fd: Fd) -> Result<Vec<u8>> {
        const STEP: usize = 64 * 1024;
        let mut data = Vec::new();
        loop {
            let more = self.pread(fd, data.len() as u64, STEP)?;
            if more.is_empty() {
                return Ok(data);
            }
            data.extend(more);
        }
    }

    /// Whether there is an object at `path`.
    ///
    /// # Errors
    /// What stat answers, but ENOENT.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The whole listing of `path` in the order it comes in, `.` and `..` included.
    ///
    /// # Errors
    /// What opendir, readdir and close answer; `EIO` for a listing that does not end.
    pub fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<Listed>> {
        let fd = self.opendir(path)?;
        let all = self.list_from(fd, 0, 64);
        self.close(fd).and(all)
    }

    /// The listing of `fd` from `cookie` to the end, `step` entries at a time.
    ///
    /// # Errors
    /// What readdir answers; `EIO` for a listing that does not end.
    pub fn list_from(&self, fd: Fd, mut cookie: u64, step: usize) -> Result<Vec<Listed>> {
        const ENDLESS: usize = 1_000_000;
        let mut all: Vec<Listed> = Vec::new();
        while all.len() < ENDLESS {
            let more = self.readdir(fd, cookie, step)?;
            let Some(last) = more.last() else { return Ok(all) };
            cookie = last.cookie;
            all.extend(more);
        }
        Err(Errno::EIO)
    }

    /// The names in the listing of `path`, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn names(&self, path: impl AsRef<[u8]>) -> Result<Vec<String>> {
        Ok(names_of(&self.list(path)?))
    }

    /// Removes whatever is at `path`, with all that is in it.
    ///
    /// # Errors
    /// What stat, readdir, unlink and rmdir answer.
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        remove_all(self.client, &self.path(path))
    }

    /// Checks that `probe` gives `want`, in the end: through a kernel, a close and the end of a node
    /// reach a filesystem a little after the call that led to them.
    ///
    /// # Errors
    /// What `probe` answers; in process something else at once, through a kernel after half a
    /// minute.
    #[track_caller]
    pub fn settles<T: PartialEq + fmt::Debug>(
        &self,
        probe: impl Fn() -> Result<T>,
        want: &T,
        what: &str,
    ) -> Verdict {
        let got = settled(self.client, probe, want)?;
        equal(&got, want, what)
    }

    /// rename(2).
    ///
    /// # Errors
    /// The call's.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.rename2(from, to, RenameFlags::empty())
    }
}

/// What `probe` gives as soon as it is `want`, or when there is no point in waiting longer.
pub(crate) fn settled<T: PartialEq>(
    client: &dyn Client,
    probe: impl Fn() -> Result<T>,
    want: &T,
) -> Result<T> {
    let patience = Duration::from_secs(if client.in_process().is_some() { 0 } else { 30 });
    let deadline = Instant::now() + patience;
    loop {
        let got = probe()?;
        if got == *want || Instant::now() >= deadline {
            return Ok(got);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names of `entries`, sorted, without `.` and `..`; other bytes than ASCII are escaped.
pub(crate) fn names_of(entries: &[Listed]) -> Vec<String> {
    let mut names: Vec<_> = entries
        .iter()
        .filter(|entry| entry.name != b"." && entry.name != b"..")
        .map(|entry| entry.name.escape_ascii().to_string())
        .collect();
    names.sort();
    names
}

/// Removes whatever is at `path` from the root, with all that is in it.
pub(crate) fn remove_all(client: &dyn Client, path: &[u8]) -> Result<()> {
    if client.stat(path)?.kind() != FileType::Directory {
        return client.unlink(path);
    }
    let world = World::new(client, path);
    // Listed again until nothing is left, for what is removed may shift what follows.
    for _ in 0..16 {
        let entries = world.list("")?;
        let entries: Vec<_> =
            entries.iter().filter(|e| e.name != b"." && e.name != b"..").collect();
        if entries.is_empty() {
            return client.rmdir(path);
        }
        for entry in entries {
            remove_all(client, &world.path(&entry.name))?;
        }
    }
    Err(Errno::ENOTEMPTY)
}

/// The calls of [`Client`] with the paths of the world.
macro_rules! forward {
    ($($(#[$doc:meta])* $name:ident => $call:ident(
        $($path:ident),*; $($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl World<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// The call's.
            pub fn $name(&self, $($path: impl AsRef<[u8]>,)* $($arg: $type),*) -> Result<$result> {
                self.client.$call($(&self.path($path),)* $($arg),*)
            }
        )*}
    };
}

forward! {
    /// lstat(2).
    stat => stat(path;) -> Attr;
    /// fstat(2).
    fstat => fstat(; fd: Fd) -> Attr;
    /// chmod(2).
    chmod => chmod(path; mode: u32) -> ();
    /// lchown(2).
    chown => chown(path; uid: Option<u32>, gid: Option<u32>) -> ();
    /// truncate(2).
    truncate => truncate(path; size: u64) -> ();
    /// ftruncate(2).
    ftruncate => ftruncate(; fd: Fd, size: u64) -> ();
    /// utimensat(2).
    utimens => utimens(path; atime: Option<SetTime>, mtime: Option<SetTime>) -> ();
    /// readlink(2).
    readlink => readlink(path;) -> Vec<u8>;
    /// mknod(2).
    mknod => mknod(path; mode: u32, rdev: u32) -> ();
    /// mkdir(2).
    mkdir => mkdir(path; mode: u32) -> ();
    /// unlink(2).
    unlink => unlink(path;) -> ();
    /// rmdir(2).
    rmdir => rmdir(path;) -> ();
    /// renameat2(2).
    rename2 => rename(from, to; flags: RenameFlags) -> ();
    /// link(2).
    link => link(from, to;) -> ();
    /// open(2) of what exists.
    open => open(path; flags: OpenFlags) -> Fd;
    /// open(2) with O_CREAT.
    create => create(path; flags: OpenFlags, mode: u32) -> Fd;
    /// open(2) with O_TMPFILE.
    tmpfile => tmpfile(path; flags: OpenFlags, mode: u32) -> Fd;
    /// pread(2).
    pread => pread(; fd: Fd, offset: u64, len: usize) -> Vec<u8>;
    /// pwrite(2).
    pwrite => pwrite(; fd: Fd, offset: u64, data: &[u8]) -> usize;
    /// fsync(2).
    fsync => fsync(; fd: Fd, datasync: bool) -> ();
    /// close(2).
    close => close(; fd: Fd) -> ();
    /// fallocate(2).
    fallocate => fallocate(; fd: Fd, mode: FallocateMode, offset: u64, len: u64) -> ();
    /// lseek(2) for data or holes.
    seek => seek(; fd: Fd, offset: u64, to: SeekTo) -> u64;
    /// copy_file_range(2).
    copy_range => copy_range(; from: (Fd, u64), to: (Fd, u64), len: u64) -> usize;
    /// flock(2) with LOCK_NB.
    flock => flock(; fd: Fd, kind: LockKind) -> ();
    /// open(2) of a directory.
    opendir => opendir(path;) -> Fd;
    /// A part of a listing.
    readdir => readdir(; fd: Fd, cookie: u64, max: usize) -> Vec<Listed>;
    /// lgetxattr(2).
    getxattr => getxattr(path; name: &[u8]) -> Vec<u8>;
    /// lgetxattr(2) into `size` bytes.
    getxattr_sized => getxattr_sized(path; name: &[u8], size: usize) -> usize;
    /// lsetxattr(2).
    setxattr => setxattr(path; name: &[u8], value: &[u8], mode: XattrMode) -> ();
    /// llistxattr(2).
    listxattr => listxattr(path;) -> Vec<Vec<u8>>;
    /// llistxattr(2) into `size` bytes.
    listxattr_sized => listxattr_sized(path; size: usize) -> usize;
    /// lremovexattr(2).
    removexattr => removexattr(path; name: &[u8]) -> ();
    /// statfs(2).
    statfs => statfs(;) -> StatFs;
    /// Asks for `caller` from now on.
    set_caller => set_caller(; caller: &Caller) -> ();
}

impl World<'_> {
    /// symlink(2).
    ///
    /// # Errors
    /// The call's.
    pub fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        self.client.symlink(target.as_ref(), &self.path(path))
    }

    /// linkat(2) of an open file.
    ///
    /// # Errors
    /// The call's.
    pub fn link_fd(&self, fd: Fd, to: impl AsRef<[u8]>) -> Result<()> {
        self.client.link_fd(fd, &self.path(to))
    }
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(\"{}\" of {:?})", self.root.escape_ascii(), self.client)
    }
}
