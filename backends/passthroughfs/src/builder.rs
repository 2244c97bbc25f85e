//! Options, checked as a whole before anything is served.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use stratafs_core::{Cache, CachePolicy, Errno, FileType, Name, NameBuf, NodeId};
use stratafs_sys::proc::Proc;
use stratafs_sys::stat::{self, Stat};
use stratafs_sys::{creds, file, handle, openat};

use crate::PassthroughFs;
use crate::acl::AclKind;
use crate::devices::Devices;
use crate::error::BuildError;
use crate::handles::Handles;
use crate::idmap::{IdMap, IdRule};
use crate::node::{Identity, Node};
use crate::owner::{Logged, host_kind, xattr};
use crate::pins::Pins;
use crate::record::{MAX_LEN, RECORD, Record};
use crate::table::Table;

/// How owners, modes and types are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// In an extended attribute, `user.containers.override_stat`: the host sees plain files and
    /// directories of the server's own user, without special bits. A file without the attribute
    /// shows the host's owner through the id maps, or the default owner. The default of a server
    /// without privilege.
    Virtual,
    /// For real, through the id maps; it takes a privileged server. The default of one.
    Host,
    /// Not at all: everything belongs to one owner, the default owner or whatever the id maps make
    /// of the host's; a chown to another is EPERM.
    Squash,
}

/// What an open of a file leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// A handle for each open.
    #[default]
    Handles,
    /// Nothing: the client need not open files at all (NO_OPEN), and the filesystem keeps some open
    /// by itself. Many times faster where small files are read; it excludes FUSE_PASSTHROUGH.
    Stateless,
}

/// The fewest pins that work: two directories and two objects of a rename, and some for threads.
pub(crate) const MIN_BUDGET: usize = 8;

/// The most pins by default: more cost memory and save little.
const MAX_BUDGET: usize = 65_536;

/// The default limit of open handles, where the descriptor limit allows it.
const MAX_HANDLES: usize = 1_048_576;

/// Settled options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) readonly: bool,
    pub(crate) ownership: Ownership,
    pub(crate) uid_map: IdMap,
    pub(crate) gid_map: IdMap,
    pub(crate) default_owner: Option<(u32, u32)>,
    pub(crate) cache: Cache,
    pub(crate) writeback: bool,
    pub(crate) xattr: bool,
    pub(crate) posix_acl: bool,
    pub(crate) open: OpenMode,
    pub(crate) exclusive: bool,
}

/// Builds a [`PassthroughFs`].
///
/// ```no_run
/// use stratafs_passthroughfs::{Ownership, PassthroughFs};
///
/// let share = PassthroughFs::builder()
///     .root_dir("/srv/guest")
///     .ownership(Ownership::Virtual)
///     .build()?;
/// # Ok::<(), stratafs_passthroughfs::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    root: Option<PathBuf>,
    extra: Option<PathBuf>,
    follow_root: bool,
    readonly: bool,
    ownership: Option<Ownership>,
    uid_map: IdMap,
    gid_map: IdMap,
    default_owner: Option<(u32, u32)>,
    policy: Option<CachePolicy>,
    entry_timeout: Option<Duration>,
    attr_timeout: Option<Duration>,
    negative_timeout: Option<Duration>,
    writeback: bool,
    no_xattr: bool,
    posix_acl: bool,
    fd_budget: Option<usize>,
    max_handles: Option<usize>,
    open: OpenMode,
    exclusive: bool,
    serve_as: Option<(u32, u32)>,
}

impl Builder {
    /// The directory to share, or a single file: then the root is a directory with that file alone
    /// in it, where nothing can be made, renamed or removed.
    pub fn root_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    /// A second directory on the same mount, in the same node table: see
    /// [`PassthroughFs::extra_root`].
    pub fn extra_root(mut self, path: impl Into<PathBuf>) -> Self {
        self.extra = Some(path.into());
        self
    }

    /// Whether a root that is a symbolic link to a directory is followed. Default: no.
    pub fn follow_root(mut self, follow: bool) -> Self {
        self.follow_root = follow;
        self
    }

    /// Whether every change is refused with EROFS. Default: no.
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.readonly = readonly;
        self
    }

    /// How owners are kept. Default: [`Ownership::Host`] for root, [`Ownership::Virtual`] for
    /// everyone else.
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = Some(ownership);
        self
    }

    /// Adds a rule for user ids. The first that fits counts.
    pub fn uid_map(mut self, rule: IdRule) -> Self {
        self.uid_map.push(rule);
        self
    }

    /// Adds a rule for group ids. The first that fits counts.
    pub fn gid_map(mut self, rule: IdRule) -> Self {
        self.gid_map.push(rule);
        self
    }

    /// The owner shown of files without a record, or under [`Ownership::Squash`] of all. Default:
    /// the host's owner, through the id maps.
    pub fn default_owner(mut self, uid: u32, gid: u32) -> Self {
        self.default_owner = Some((uid, gid));
        self
    }

    /// How much a client may cache. Default: [`CachePolicy::Auto`], or [`CachePolicy::Always`] for an
    /// exclusive share.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long a name may be kept, instead of what the policy says.
    pub fn entry_timeout(mut self, timeout: Duration) -> Self {
        self.entry_timeout = Some(timeout);
        self
    }

    /// How long attributes may be kept, instead of what the policy says.
    pub fn attr_timeout(mut self, timeout: Duration) -> Self {
        self.attr_timeout = Some(timeout);
        self
    }

    /// How long a name may be taken to be absent, instead of what the policy says.
    pub fn negative_timeout(mut self, timeout: Duration) -> Self {
        self.negative_timeout = Some(timeout);
        self
    }

    /// Whether a client may keep written data for a while. Excludes FUSE_PASSTHROUGH. Default: no.
    pub fn writeback(mut self, writeback: bool) -> Self {
        self.writeback = writeback;
        self
    }

    /// Whether a client may use extended attributes. Default: yes.
    pub fn xattr(mut self, xattr: bool) -> Self {
        self.no_xattr = !xattr;
        self
    }

    /// Whether POSIX ACLs are kept, and checked by the client: by the host under
    /// [`Ownership::Host`], in a private attribute under [`Ownership::Virtual`]. A client then asks
    /// for the ACL of each object it checks; once one comes that checks none, none is shown or set.
    /// Default: no.
    pub fn posix_acl(mut self, posix_acl: bool) -> Self {
        self.posix_acl = posix_acl;
        self
    }

    /// How many objects stay pinned by a descriptor. Default: half of what the process may open
    /// beyond a reserve, at most 65,536.
    pub fn fd_budget(mut self, budget: usize) -> Self {
        self.fd_budget = Some(budget);
        self
    }

    /// How many files and directories clients may have open at a time; beyond it ENFILE. Default:
    /// the other half.
    pub fn max_handles(mut self, limit: usize) -> Self {
        self.max_handles = Some(limit);
        self
    }

    /// What an open leaves behind. Default: [`OpenMode::Handles`].
    pub fn open(mut self, open: OpenMode) -> Self {
        self.open = open;
        self
    }

    /// Whether nobody but the one client of this filesystem changes the directory. Then everything
    /// may be cached for as long as memory lasts. Default: no.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// The user and group that this process will have when it serves, where it drops from root in
    /// between. Default: those that it has now.
    pub fn serve_as(mut self, uid: u32, gid: u32) -> Self {
        self.serve_as = Some((uid, gid));
        self
    }

    /// Checks the options and opens the directory.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<PassthroughFs, BuildError> {
        let path = self.root.clone().ok_or(BuildError::NoRoot)?;
        let proc = Proc::open().map_err(|error| BuildError::NoProc(error.into()))?;
        let server = self.serve_as.unwrap_or_else(creds::effective);
        let options = self.options(server.0)?;
        let (budget, handles) = self.limits()?;

        let root = Root::open(&path, self.follow_root)?;
        let dir = root.listing(&path, &proc)?;
        if options.ownership == Ownership::Virtual {
            check_record(&path, &proc, &root, options.readonly)?;
        }
        if options.posix_acl
            && options.ownership == Ownership::Host
            && let Err(cause) = xattr(&proc, root.fd.as_fd(), AclKind::Access.name(), &mut [])
        {
            return Err(BuildError::NoAcl { path, cause });
        }
        if !options.readonly && root.only.is_none() {
            warn_of_refusals(&path, &proc, &root.fd);
        }
        let extra = self.extra.as_deref().map(|path| open_extra(path, self.follow_root, &root));
        let extra = extra.transpose()?;

        let fsid = fsid(&root.fd, &dir);
        let features = crate::features::of(&options, &root.fd, &dir, server.0, fsid.is_some());
        let mut fs = PassthroughFs {
            devices: Devices::new(root.stat.dev),
            table: Table::new(if extra.is_some() { 3 } else { 2 }),
            pins: Pins::new(budget),
            handles: Handles::new(handles),
            logged: Logged::default(),
            lends: AtomicBool::new(false),
            unchecked: AtomicBool::new(false),
            process_umask: process_umask(),
            root: Arc::new(root_node(NodeId::ROOT, &root.fd, &root.stat)),
            extra: None,
            only: root.only,
            root_dir: dir,
            options,
            server,
            proc,
            fsid,
            features,
        };
        let identity = fs.identity(&root.stat, &root.fd);
        fs.root.state.lock().identity = identity;
        fs.table.enter_root(&fs.root);
        if let Some((fd, stat)) = extra {
            let node = Arc::new(root_node(NodeId(2), &fd, &stat));
            let identity = fs.identity(&stat, &fd);
            node.state.lock().identity = identity;
            fs.table.enter_root(&node);
            fs.extra = Some(node);
        }
        Ok(fs)
    }

    fn options(&self, server: u32) -> Result<Options, BuildError> {
        if self.writeback && self.policy == Some(CachePolicy::Never) {
            let why = "writeback keeps written data at the client, which cache=never forbids";
            return Err(BuildError::Conflict(why));
        }
        let default = if self.exclusive { CachePolicy::Always } else { CachePolicy::Auto };
        let mut cache = Cache::new(self.policy.unwrap_or(default));
        cache.entry_timeout = self.entry_timeout.unwrap_or(cache.entry_timeout);
        cache.attr_timeout = self.attr_timeout.unwrap_or(cache.attr_timeout);
        cache.negative_timeout = self.negative_timeout.unwrap_or(cache.negative_timeout);
        let default = if server == 0 { Ownership::Host } else { Ownership::Virtual };
        let ownership = self.ownership.unwrap_or(default);
        if self.posix_acl && self.no_xattr {
            let why = "posix_acl keeps ACLs as extended attributes, which xattr=false forbids";
            return Err(BuildError::Conflict(why));
        }
        if self.posix_acl && ownership == Ownership::Squash {
            let why = "posix_acl names owners, and ownership=squash keeps none: use \
                       ownership=virtual or ownership=host";
            return Err(BuildError::Conflict(why));
        }
        Ok(Options {
            readonly: self.readonly,
            ownership,
            uid_map: self.uid_map.clone(),
            gid_map: self.gid_map.clone(),
            default_owner: self.default_owner,
            cache,
            writeback: self.writeback,
            xattr: !self.no_xattr,
            posix_acl: self.posix_acl,
            open: self.open,
            exclusive: self.exclusive,
        })
    }

    /// Pins and handles. What is left belongs to the server: its sockets, its queues.
    fn limits(&self) -> Result<(usize, usize), BuildError> {
        let limit = file::descriptor_limit().unwrap_or(1024);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let reserve = (limit / 2).min(64);
        let half = (limit - reserve) / 2;
        let budget = self.fd_budget.unwrap_or_else(|| half.clamp(MIN_BUDGET, MAX_BUDGET));
        if budget < MIN_BUDGET {
            return Err(BuildError::Budget(budget));
        }
        let rest = (limit - reserve).saturating_sub(budget).max(half / 2).max(4);
        Ok((budget, self.max_handles.unwrap_or(rest.min(MAX_HANDLES))))
    }
}

/// What is shared.
struct Root {
    /// The directory; of a single file the one that it is in.
    fd: Arc<OwnedFd>,
    stat: Stat,
    only: Option<NameBuf>,
}

impl Root {
    fn open(path: &Path, follow: bool) -> Result<Self, BuildError> {
        let (fd, stat) = pin(path, follow)?;
        match host_kind(&stat) {
            FileType::Directory => Ok(Self { fd: Arc::new(fd), stat, only: None }),
            FileType::Symlink => Err(BuildError::Symlink(path.to_owned())),
            FileType::Regular => Self::single(path, &stat),
            _ => Err(BuildError::Type(path.to_owned())),
        }
    }

    /// A single file is found by its name in its directory each time, so that an editor that saves
    /// by renaming is followed, and no other name is.
    fn single(path: &Path, file: &Stat) -> Result<Self, BuildError> {
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let name = Name::new(name).map_err(|_| BuildError::Type(path.to_owned()))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (fd, stat) = pin(parent, true)?;
        let there = stat::of_child(fd.as_fd(), name).map_err(host("look up", path))?;
        if (there.dev, there.ino) != (file.dev, file.ino) {
            // The name is a link, and the file is elsewhere.
            return Err(BuildError::Symlink(path.to_owned()));
        }
        Ok(Self { fd: Arc::new(fd), stat, only: Some(name.to_owned()) })
    }

    /// The directory, open for real.
    fn listing(&self, path: &Path, proc: &Proc) -> Result<Option<OwnedFd>, BuildError> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
        match proc.reopen(self.fd.as_fd(), flags) {
            Ok(fd) => Ok(Some(fd)),
            // The directory of a single file need not be readable.
            Err(_) if self.only.is_some() => Ok(None),
            Err(error) => Err(open_error(path, error)),
        }
    }
}

fn pin(path: &Path, follow: bool) -> Result<(OwnedFd, Stat), BuildError> {
    let fd = openat::pin_path(path, follow).map_err(|error| open_error(path, error))?;
    let stat = stat::of(fd.as_fd()).map_err(host("stat", path))?;
    Ok((fd, stat))
}

fn open_error(path: &Path, error: io::Error) -> BuildError {
    let cause = Errno::from(error);
    let hint = match cause {
        Errno::ENOENT => "make it, or check the spelling",
        Errno::ENOTDIR => "a part of the path is no directory",
        Errno::EACCES => "the server's user may not go there or read it",
        Errno::ELOOP => "its symbolic links lead in a circle",
        Errno::ENAMETOOLONG => "give a shorter path, from a directory nearer to it",
        Errno::ENOTCONN => "a FUSE server died there: unmount it with umount -l",
        Errno::ESTALE => "its server has it no more: unmount and mount it again",
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
        _ => "the host refused; its log (dmesg) may say why",
    };
    BuildError::Open { path: path.to_owned(), cause, hint }
}

fn host(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |error| BuildError::Host { operation, path, cause: error.into() }
}

fn open_extra(path: &Path, follow: bool, root: &Root) -> Result<(Arc<OwnedFd>, Stat), BuildError> {
    if root.only.is_some() {
        let why = "a share of a single file has no second root";
        return Err(BuildError::Conflict(why));
    }
    let (fd, stat) = pin(path, follow)?;
    match host_kind(&stat) {
        FileType::Directory => {}
        FileType::Symlink => return Err(BuildError::Symlink(path.to_owned())),
        _ => return Err(BuildError::ExtraType(path.to_owned())),
    }
    if (stat.dev, stat.mount) != (root.stat.dev, root.stat.mount) {
        return Err(BuildError::ExtraMount(path.to_owned()));
    }
    if stat.ino == root.stat.ino {
        return Err(BuildError::Conflict("the second root is the root itself"));
    }
    Ok((Arc::new(fd), stat))
}

/// Makes sure that records can be kept, and that the root's own is one.
fn check_record(path: &Path, proc: &Proc, root: &Root, readonly: bool) -> Result<(), BuildError> {
    let mut text = [0; MAX_LEN];
    let fits = |text: &[u8]| {
        let record = Record::parse(text);
        record.is_ok_and(|record| matches!(record.kind, None | Some(FileType::Directory)))
    };
    let corrupt = |text: &[u8]| {
        let text = text.escape_ascii().to_string();
        Err(BuildError::Record { path: path.to_owned(), text })
    };
    match xattr(proc, root.fd.as_fd(), RECORD, &mut text) {
        Ok(None) => Ok(()),
        Ok(Some(len)) if fits(&text[..len]) => Ok(()),
        Ok(Some(len)) => corrupt(&text[..len]),
        Err(Errno::ERANGE) => corrupt(b"(too long)"),
        Err(_) if readonly => Ok(()),
        Err(cause) => Err(BuildError::NoXattr { path: path.to_owned(), cause }),
    }
}

/// Says beforehand what every change of the root would be refused for. Below it things may differ,
/// and may change, so it is no error.
fn warn_of_refusals(path: &Path, proc: &Proc, root: &OwnedFd) {
    let Err(error) = proc.may_change_dir(root.as_fd()) else { return };
    let cause = Errno::from(error);
    let hint = match cause {
        Errno::EROFS => "it is mounted read-only: serve it with readonly, or mount it rw",
        Errno::EACCES => "serve it as its owner, or with readonly",
        _ => return,
    };
    log::warn!("passthrough: change {}: {cause}, as clients will see: {hint}", path.display());
}

fn root_node(id: NodeId, fd: &Arc<OwnedFd>, stat: &Stat) -> Node {
    let identity = Identity::of(stat).unwrap_or_else(|| Identity::new(stat, 0));
    let node = Node::new(id, FileType::Directory, FileType::Directory, identity);
    node.state.lock().pin = Some(Arc::clone(fd));
    node
}

/// The filesystem's UUID, or what it has of an identity; `None` where it has no file handles.
fn fsid(root: &OwnedFd, dir: &Option<OwnedFd>) -> Option<[u8; 16]> {
    handle::of(root.as_fd()).ok()?;
    if let Some(dir) = dir
        && let Ok(uuid) = handle::filesystem_uuid(dir.as_fd())
    {
        return Some(uuid);
    }
    let fsid = stat::filesystem(root.as_fd()).ok()?.fsid;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&fsid);
    (fsid != [0; 8]).then_some(bytes)
}

/// The umask of this process, which the host applies to what is made. It is the whole process's,
/// so a library leaves it alone and mends the modes.
fn process_umask() -> u32 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0o777 };
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o777)
}
