//! Mounting and serving: the builder, and the handle of what is served.

use std::fmt;
use std::num::NonZero;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stratafs_core::{Behaviours, DynFileSystem, Errno, Negotiated};
use stratafs_sys::buffer::BufferSource;
use stratafs_sys::eventfd::EventFd;
use stratafs_sys::interrupt::Interrupt;
use stratafs_sys::signal::Termination;
use stratafs_sys::{creds, fuse, poll};

use super::attachment::{Attached, Attachment, become_user};
use super::crew::Crew;
use super::device::{Device, Kernel, NoRequest, Slot};
use super::error::MountError;
use super::notify::{self, Queue};
use super::options::MountOptions;
use super::worker::{self, Buffers, Workers};
use crate::protocol::notice::INC_EPOCH_MINOR;
use crate::protocol::{Rejected, Scratch, Session, SessionConfig, SessionState, TransportKind};

/// The largest request asked for, in bytes, where the kernel allows any: 16 MiB, from where on
/// fewer requests no longer show and two buffers of that size per thread begin to.
const MAX_WRITE_LIMIT: usize = 16 << 20;
/// What the kernel allows where it does not say: 256 pages (`FUSE_MAX_MAX_PAGES` before 6.13).
const MAX_PAGES_DEFAULT: usize = 256;
/// Room before the data of a write: the kernel wants 80 bytes for headers (`fuse_dev_do_read`), a
/// page keeps the data aligned.
const HEADER_ROOM: usize = 4096;
/// The kernel sends INIT as it mounts. A minute is for a host that swaps; after it something else
/// is wrong, and waiting longer would be waiting for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an unmount waits for requests that are being served. A filesystem stuck in one (a
/// dead network disk below it) must not keep a server from ending.
const GRACE: Duration = Duration::from_secs(10);
/// The fewest threads for a filesystem whose methods may wait for a disk: a few stuck in it leave
/// one to answer. They cost nothing while they rest.
const WAITING_THREADS: usize = 4;
/// Between two attempts to interrupt a worker that sleeps in the kernel.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(2);

/// What to mount, and how.
#[must_use]
pub struct Mount {
    filesystem: Arc<dyn DynFileSystem>,
    options: MountOptions,
    threads: Option<usize>,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("filesystem", &self.filesystem.features().kind)
            .field("options", &self.options)
            .field("threads", &self.threads)
            .finish()
    }
}

impl Mount {
    /// A mount of `filesystem`, with defaults for all else.
    pub fn builder(filesystem: Arc<dyn DynFileSystem>) -> Self {
        Self { filesystem, options: MountOptions::default(), threads: None }
    }

    /// Mounts with these options.
    pub fn options(mut self, options: MountOptions) -> Self {
        self.options = options;
        self
    }

    /// Serves with up to `threads` threads, at least one. Default: one for each CPU, and at least
    /// four where the filesystem does not promise [`Behaviours::PROMPT`], for each may have to wait.
    ///
    /// Only as many of them read requests as are needed to keep up.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Mounts on the directory `path` and begins to serve.
    ///
    /// As root by mount(2), otherwise through `fusermount3`. With [`MountOptions::setuid`] the
    /// whole process has become that user when this returns, and may have after an error.
    ///
    /// # Errors
    /// [`MountError`]; then nothing is left mounted.
    pub fn mount(self, path: &Path) -> Result<Server, MountError> {
        let features = self.filesystem.features();
        self.options.check_against(&features)?;
        let is_prompt = features.bears(Behaviours::PROMPT);
        let count = self.threads.unwrap_or_else(|| {
            let processors = thread::available_parallelism().map_or(1, NonZero::get);
            if is_prompt { processors } else { processors.max(WAITING_THREADS) }
        });
        let attached = Attachment::make(path, &self.options, &features)?;
        let Attached { attachment, connection, user } = attached;
        let path = attachment.path();
        let failed = |operation, error| MountError::resource(path, operation, error);
        let interrupt =
            Interrupt::install().map_err(|error| failed("taking a signal for its use", error))?;
        let ended = EventFd::new().map_err(|error| failed("making an eventfd", error))?;
        // Before root is given up: the device may be root's alone.
        let devices =
            devices(connection, count).map_err(|error| failed("cloning the device", error))?;
        if let Some(user) = user {
            become_user(&user)?;
        }
        let mut config = config();
        config.max_stack_depth = self.options.max_stack_depth.unwrap_or(1);
        let session = Arc::new(Session::new(self.filesystem, config, None));
        let queue = Arc::new(Queue::new(session.id(), notify::CAPACITY));
        session.set_notifier(queue.clone());
        let first = devices.first().ok_or_else(|| failed("cloning", Errno::EIO.into()))?;
        if self.options.passthrough == Some(false) {
            log::debug!("data goes through the server, not past it: nopassthrough");
        } else if creds::is_admin() {
            session.set_backing_registry(Arc::new(Kernel::behind(first)));
        } else {
            log::debug!("data goes through the server, not past it: without CAP_SYS_ADMIN");
        }
        let negotiated = handshake(&session, &config, first, path)?;
        queue.set_can_drop_all(negotiated.minor >= INC_EPOCH_MINOR);
        let crew = Crew::new(devices.len(), is_prompt);
        let mut server = Server {
            attachment,
            session,
            workers: Arc::new(Workers::new(crew, devices.len(), ended)),
            threads: Vec::with_capacity(devices.len()),
            notices: (queue, None),
            interrupt,
            is_down: false,
        };
        // From here on dropping the server takes everything back.
        server.start(devices, &config)?;
        Ok(server)
    }
}

/// One descriptor for each worker: clones, or where this process may not open the device again,
/// the same one for all.
fn devices(connection: OwnedFd, count: usize) -> std::io::Result<Vec<Arc<Device>>> {
    let mut clones = Vec::with_capacity(count);
    for _ in 1..count {
        match fuse::clone(connection.as_fd()) {
            Ok(clone) => clones.push(Arc::new(Device::new(clone))),
            Err(error)
                if matches!(
                    Errno::from_raw(error.raw_os_error().unwrap_or(0)),
                    Errno::EMFILE | Errno::ENFILE
                ) =>
            {
                return Err(error);
            }
            Err(error) => {
                log::debug!("workers share one descriptor: cloning it: {error}");
                let shared = Arc::new(Device::shared(connection));
                return Ok(vec![shared; count]);
            }
        }
    }
    let mut devices = vec![Arc::new(Device::new(connection))];
    devices.append(&mut clones);
    Ok(devices)
}

/// The configuration for this kernel: requests as large as it allows.
fn config() -> SessionConfig {
    // Reads are bounded in pages alone, so with the wrong size they would outgrow the buffers.
    let page = fuse::page_size();
    let limit = std::fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit");
    let pages = limit
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(MAX_PAGES_DEFAULT)
        .clamp(1, MAX_WRITE_LIMIT / page);
    let mut config = SessionConfig::new(TransportKind::Dev);
    config.max_pages = u16::try_from(pages).unwrap_or(u16::MAX);
    config.max_write = u32::try_from(pages * page).unwrap_or(u32::MAX);
    config
}

fn buffers(config: &SessionConfig) -> Buffers {
    Buffers::new(HEADER_ROOM + config.max_write as usize)
}

/// Serves INIT, and nothing else.
fn handshake(
    session: &Session,
    config: &SessionConfig,
    device: &Arc<Device>,
    path: &Path,
) -> Result<Negotiated, MountError> {
    let failed = |errno: Errno, cause: String, next| MountError::Handshake {
        path: path.to_owned(),
        errno,
        cause,
        next,
    };
    let mut buffers = buffers(config);
    let mut scratch = Scratch::new(config);
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut requests = 0;
    let mut rejected = "the kernel did not begin with INIT".to_owned();
    while requests < 2 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed(Errno::ETIMEDOUT, rejected, "see `dmesg`"));
        }
        match poll::readable([device.as_fd()], Some(left)) {
            Ok([ready]) if ready.any() => {}
            _ => continue,
        }
        match device.read(&mut buffers.request) {
            Ok(len) => {
                requests += 1;
                worker::serve(device, &mut buffers, len, &mut |source, slot| {
                    session.handle(source, slot, &mut scratch);
                });
            }
            Err(NoRequest::Again) => {}
            Err(NoRequest::Unmounted) => {
                let cause = "it was unmounted while it was being mounted".to_owned();
                return Err(failed(Errno::ENODEV, cause, "mount it again"));
            }
            Err(NoRequest::Failed(error)) => {
                let cause = format!("the kernel hands out no requests ({error})");
                return Err(failed(error.into(), cause, "see `dmesg`"));
            }
        }
        match session.state() {
            SessionState::Serving(negotiated) => return Ok(negotiated),
            SessionState::Rejected(why) => {
                rejected = why.to_string();
                // A kernel of a later major version was told ours, and asks once more.
                if !matches!(why, Rejected::Version { major: 8.., .. }) {
                    break;
                }
            }
            _ => {}
        }
    }
    let next = "use a kernel of 5.4 or newer; the log may know more about a filesystem's error";
    Err(failed(Errno::EPROTO, rejected, next))
}

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The filesystem was unmounted, or its connection aborted, by somebody else.
    Unmounted,
    /// The process was asked to end, by this signal. The filesystem is still mounted.
    Signal(i32),
}

/// A mounted filesystem that is being served. Dropping it unmounts.
pub struct Server {
    attachment: Attachment,
    /// The last reference to it: dropped, it calls waits off and gives back what clients held.
    session: Arc<Session>,
    workers: Arc<Workers>,
    threads: Vec<JoinHandle<()>>,
    notices: (Arc<Queue>, Option<JoinHandle<()>>),
    interrupt: Interrupt,
    is_down: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("mountpoint", &self.mountpoint())
            .field("threads", &self.threads.len())
            .finish()
    }
}

impl Server {
    fn start(
        &mut self,
        devices: Vec<Arc<Device>>,
        config: &SessionConfig,
    ) -> Result<(), MountError> {
        let path = self.attachment.path();
        let failed = |error| MountError::resource(path, "starting a thread", error);
        let count = devices.len();
        let writer = devices.first().cloned();
        for (index, device) in devices.into_iter().enumerate() {
            let session = Arc::clone(&self.session);
            let workers = Arc::clone(&self.workers);
            let interrupt = self.interrupt;
            let config = *config;
            let body = move || {
                if let Err(error) = interrupt.accept() {
                    log::error!("a thread that cannot be interrupted: {error}");
                }
                let mut scratch = Scratch::new(&config);
                let handle = |source: &mut BufferSource<'_>, slot: Slot<'_>| {
                    session.handle(source, slot, &mut scratch);
                };
                worker::run(&workers, &device, &mut buffers(&config), handle);
            };
            match thread::Builder::new().name(format!("stratafs-{index}")).spawn(body) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    for _ in index..count {
                        self.workers.leave();
                    }
                    return Err(failed(error));
                }
            }
        }
        if let Some(device) = writer {
            let queue = Arc::clone(&self.notices.0);
            let body = move || queue.drain(&device);
            let thread = thread::Builder::new().name("stratafs-notify".into()).spawn(body);
            self.notices.1 = Some(thread.map_err(failed)?);
        }
        Ok(())
    }

    /// Where it is mounted, absolute and without symbolic links.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        self.attachment.path()
    }

    /// How many files of the host the kernel reads and writes by itself now, past this server.
    #[must_use]
    pub fn passed_through(&self) -> usize {
        self.session.passed_through()
    }

    /// Waits until somebody else unmounts the filesystem.
    pub fn wait(&self) {
        while !self.has_ended(None) {}
    }

    /// Waits until somebody else unmounts the filesystem, for at most `limit`; says whether it
    /// was.
    #[must_use]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.has_ended(Some(left)) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Waits until somebody else unmounts the filesystem or the process is asked to end.
    #[must_use]
    pub fn wait_or(&self, termination: Termination) -> Ended {
        loop {
            let fds = [self.workers.ended.as_fd(), termination.as_fd()];
            match poll::readable(fds, None) {
                Ok([ended, _]) if ended.readable => return Ended::Unmounted,
                Ok(_) => {}
                // Out of memory in the kernel; a pause, for the wait must not become a busy one.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
            if let Some(signal) = termination.received() {
                return Ended::Signal(signal);
            }
        }
    }

    fn has_ended(&self, limit: Option<Duration>) -> bool {
        match poll::readable([self.workers.ended.as_fd()], limit) {
            Ok([ended]) => ended.readable,
            Err(_) => {
                thread::sleep(Duration::from_millis(100));
                false
            }
        }
    }

    /// Unmounts and ends all threads.
    ///
    /// Nobody finds the filesystem any more when this returns. Files that are still open in it
    /// answer `ENOTCONN`; waiting locks are called off. Harmless if it was unmounted before.
    ///
    /// # Errors
    /// [`MountError::Unmount`]: it is still mounted, and answers `ENOTCONN`.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), MountError> {
        if std::mem::replace(&mut self.is_down, true) {
            return Ok(());
        }
        // While requests are still served: the kernel may hold a notice until one is answered.
        self.notices.0.close();
        let notices = self.notices.1.take().into_iter();
        let mut all_ended = join_all(notices, |_| {});
        // And so may an unmount, which writes back what is dirty.
        let detached = self.attachment.detach();
        self.workers.stop();
        // A thread about to enter the kernel is missed, so this is repeated.
        all_ended &= join_all(self.threads.drain(..), |thread| self.interrupt.send(thread));
        if !all_ended {
            log::error!(
                "{}: the filesystem is stuck in a request; its threads are left behind",
                self.mountpoint().display()
            );
        }
        detached
    }
}

/// Joins threads that are ending, nudging them again and again; `false` if one did not in time.
fn join_all(
    threads: impl Iterator<Item = JoinHandle<()>>,
    nudge: impl Fn(&JoinHandle<()>),
) -> bool {
    let deadline = Instant::now() + GRACE;
    let mut all_ended = true;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            nudge(&thread);
            thread::sleep(INTERRUPT_PERIOD);
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            all_ended = false;
        }
    }
    all_ended
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            log::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Opcode;
    use crate::protocol::null::NullFs;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    /// A handshake with a kernel that speaks FUSE `major`.`minor`, and then is silent.
    fn handshake_with(major: u32, minor: u32) -> Result<Negotiated, MountError> {
        let (ours, mut kernel) = UnixStream::pair().unwrap();
        let fields = [56, Opcode::Init.raw(), 1, 0, 0, 0, 0, 0, 0, 0, major, minor, 1 << 17, 0];
        kernel.write_all(&fields.map(u32::to_ne_bytes).concat()).unwrap();
        let device = Arc::new(Device::new(ours.into()));
        let config = config();
        let session = Session::new(Arc::new(NullFs::new()), config, None);
        let negotiated = handshake(&session, &config, &device, Path::new("/m"));
        drop(kernel);
        negotiated
    }

    #[test]
    fn handshake_with_a_kernel_that_is_too_old_fails_at_once_in_words() {
        assert_eq!(handshake_with(7, 31).unwrap().minor, 31);
        for (major, minor) in [(7, 30), (6, 45)] {
            let text = handshake_with(major, minor).unwrap_err().to_string();
            assert!(
                text.contains("EPROTO") && text.contains(&format!("{major}.{minor}")),
                "{text}"
            );
        }
    }

    #[test]
    fn devices_where_the_connection_cannot_be_cloned_are_one_for_all() {
        let (connection, _kernel) = UnixStream::pair().unwrap();
        let devices = devices(connection.into(), 3).unwrap();
        assert_eq!(devices.len(), 3);
        assert!(devices.iter().all(|device| Arc::ptr_eq(device, &devices[0])));
    }

    #[test]
    fn config_asks_for_what_the_kernel_allows_within_the_limit() {
        let config = config();
        let bytes = config.max_write as usize;
        assert_eq!(bytes, usize::from(config.max_pages) * fuse::page_size());
        assert!((fuse::page_size()..=MAX_WRITE_LIMIT).contains(&bytes));
        assert_eq!(buffers(&config).request.len(), bytes + HEADER_ROOM);
    }
}
