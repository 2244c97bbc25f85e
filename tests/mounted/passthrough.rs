//! Directories of the host, through the kernel.

use std::sync::Arc;

use stratafs_core::CachePolicy;
use stratafs_passthroughfs::{Builder, OpenMode, Ownership, PassthroughFs};
use stratafs_testkit::{Capabilities, ModelRun, Stack};
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
