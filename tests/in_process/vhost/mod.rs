//! virtio-fs without a virtual machine: the server, and a client that plays VMM and guest.

#[cfg(feature = "cli")]
mod command;
mod connection;
#[cfg(feature = "cli")]
mod every;
mod malformed;
mod random;
mod round_trip;
#[cfg(feature = "cli")]
mod sandbox;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use stratafs::transport::vhost_user::client::{Queue, Setup, Vmm, fuse};
use stratafs::transport::vhost_user::{Listener, Server, Share};
use stratafs_core::DynFileSystem;
use stratafs_memfs::MemFs;
use tempfile::TempDir;

/// A served share and the directory of its socket.
struct Served {
    server: Server,
    path: PathBuf,
    _directory: TempDir,
}

impl Served {
    fn new(filesystem: Arc<dyn DynFileSystem>) -> Self {
        Self::with(filesystem, |share| share)
    }

    fn with(filesystem: Arc<dyn DynFileSystem>, how: impl FnOnce(Share) -> Share) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("share.sock");
        let share = how(Share::builder(filesystem).request_queues(2));
        let server = share.serve(Listener::bind(&path, None).unwrap()).unwrap();
        Self { server, path, _directory: directory }
    }

    fn mem() -> Self {
        Self::new(Arc::new(MemFs::builder().build().unwrap()))
    }

    /// A VMM with one request queue.
    fn connect(&self) -> Guest {
        self.connect_as(&Setup::default())
    }

    fn connect_as(&self, setup: &Setup) -> Guest {
        let stream = UnixStream::connect(&self.path).unwrap();
        let (vmm, mut queues) = Vmm::connect(stream, setup).unwrap();
        let high = queues.remove(0);
        Guest { vmm, high, queues }
    }

    /// Itself and a VMM with INIT done.
    fn begin_for(self) -> (Self, Guest) {
        let guest = self.begin();
        (self, guest)
    }

    /// The same, with INIT done.
    fn begin(&self) -> Guest {
        let mut guest = self.connect();
        fuse::init(guest.queue()).unwrap();
        guest
    }
}

struct Guest {
    vmm: Vmm,
    high: Queue,
    queues: Vec<Queue>,
}

impl Guest {
    /// The first request queue.
    fn queue(&mut self) -> &mut Queue {
        &mut self.queues[0]
    }
}
