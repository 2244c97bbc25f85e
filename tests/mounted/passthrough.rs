//! Directories of the host, through the kernel.

use std::sync::Arc;

use stratafs_core::{CachePolicy, Errno, XattrMode};
use stratafs_passthroughfs::{Builder, OpenMode, Ownership, PassthroughFs};
use stratafs_testkit::{Caller, Capabilities, Client, ModelRun, Stack, World};
use tempfile::TempDir;

use crate::served::Served;

/// A share that is mounted, and the directory that it is of.
struct Share {
    served: Served,
    _dir: TempDir,
}

impl Share {
    /// `None` where nothing can be mounted.
    fn new(name: &str, ownership: Ownership, configure: fn(Builder) -> Builder) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(ownership);
        let fs = configure(builder.default_owner(0, 0)).build().unwrap();
        let shared = "the host's filesystem is used by others at the same time";
        let links = "symlinks of the host have no user attributes";
        let mut served =
            Served::over(name, Arc::new(fs))?.without(Capabilities::ACCOUNTING, shared);
        if ownership == Ownership::Virtual {
            served = served.without(Capabilities::XATTR_ON_SYMLINK, links);
        }
        Some(Self { served, _dir: dir })
    }

    fn run(self, run: impl FnOnce(&Stack)) {
        run(self.served.stack());
        self.served.end();
    }
}

fn passes_every_case(name: &str, ownership: Ownership, configure: fn(Builder) -> Builder) {
    if let Some(share) = Share::new(name, ownership, configure) {
        share.run(|stack| stack.run().assert_passed());
    }
}

#[test]
fn host_directory_with_virtual_ownership_passes_every_case() {
    passes_every_case("mounted passthrough(virtual)", Ownership::Virtual, |builder| builder);
}

#[test]
fn host_directory_with_host_ownership_passes_every_case() {
    passes_every_case("mounted passthrough(host)", Ownership::Host, |builder| builder);
}

#[test]
fn host_directory_without_opens_passes_every_case() {
    passes_every_case("mounted passthrough(open=stateless)", Ownership::Virtual, |builder| {
        builder.open(OpenMode::Stateless).fd_budget(100)
    });
}

#[test]
fn host_directory_with_a_writeback_cache_passes_every_case() {
    passes_every_case("mounted passthrough(writeback)", Ownership::Virtual, |builder| {
        builder.writeback(true)
    });
}

#[test]
fn host_directory_without_caches_passes_every_case() {
    passes_every_case("mounted passthrough(cache=never)", Ownership::Host, |builder| {
        builder.cache_policy(CachePolicy::Never)
    });
}

#[test]
fn host_directory_agrees_with_the_model() {
    let Some(share) =
        Share::new("mounted passthrough", Ownership::Virtual, |builder| builder.fd_budget(8))
    else {
        return;
    };
    share.run(|stack| ModelRun::from_env().run(stack).unwrap_or_else(|found| panic!("{found}")));
}

/// The value of an ACL: tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// What one user, of no group that counts, may read and make by ACLs alone.
fn keeps_acls(client: &dyn Client) {
    const NONE: u32 = u32::MAX;
    let (access, default): (&[u8], &[u8]) =
        (b"system.posix_acl_access", b"system.posix_acl_default");
    client.begin().unwrap();
    let w = World::new(client, b"".as_slice());
    let may_read = |path: &str| {
        client.set_caller(&Caller::user(1000, 1000)).unwrap();
        let read = w.read(path).map(drop);
        client.set_caller(&Caller::ROOT).unwrap();
        read
    };
    w.file("f", b"data").unwrap();
    w.chmod("f", 0o640).unwrap();
    assert_eq!(may_read("f"), Err(Errno::EACCES));
    let named = acl(&[(1, 6, NONE), (2, 4, 1000), (4, 0, NONE), (16, 4, NONE), (32, 0, NONE)]);
    w.setxattr("f", access, &named, XattrMode::Set).unwrap();
    assert_eq!(w.stat("f").unwrap().mode & 0o777, 0o640, "the mask is the group's bits");
    assert_eq!(may_read("f"), Ok(()));
    w.chmod("f", 0o600).unwrap();
    assert_eq!(may_read("f"), Err(Errno::EACCES), "the mask takes it away");
    w.chmod("f", 0o640).unwrap();
    assert_eq!(w.getxattr("f", access).unwrap(), named);
    assert_eq!(may_read("f"), Ok(()));

    w.mkdir("d", 0o755).unwrap();
    w.setxattr("d", default, &named, XattrMode::Set).unwrap();
    client.set_caller(&Caller::ROOT.with_umask(0o077)).unwrap();
    w.file("d/f", b"data").unwrap();
    w.mkdir("d/d", 0o777).unwrap();
    client.set_caller(&Caller::ROOT).unwrap();
    assert_eq!(w.stat("d/f").unwrap().mode & 0o777, 0o640, "the umask has no say");
    assert_eq!(may_read("d/f"), Ok(()));
    assert_eq!(w.getxattr("d/d", default).unwrap(), named);
    w.removexattr("f", access).unwrap();
    assert_eq!(may_read("f"), Err(Errno::EACCES));
    for path in ["f", "d"] {
        w.remove_all(path).unwrap();
    }
    client.end().unwrap();
}

#[test]
fn acls_of_a_host_directory_are_kept_and_checked_by_the_kernel() {
    for ownership in [Ownership::Virtual, Ownership::Host] {
        let name = "mounted passthrough(posix_acl)";
        let Some(share) = Share::new(name, ownership, |builder| builder.posix_acl(true)) else {
            return;
        };
        share.run(|stack| {
            let client = &**stack.client();
            // The umask and the ids are a thread's own.
            std::thread::scope(|scope| scope.spawn(|| keeps_acls(client)).join()).unwrap();
        });
    }
}

#[test]
fn host_directory_with_acls_passes_every_case() {
    passes_every_case("mounted passthrough(posix_acl)", Ownership::Virtual, |builder| {
        builder.posix_acl(true)
    });
}
