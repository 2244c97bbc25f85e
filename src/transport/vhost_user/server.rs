//! Serving a share: the builder, and the handle of what is served.

use std::fmt;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stratafs_core::{Behaviours, DynFileSystem, Name, NodeId, Notifier, SessionId};
use stratafs_sys::eventfd::EventFd;
use stratafs_sys::poll;
use stratafs_sys::signal::Termination;
use vhost::vhost_user::{BackendReqHandler, Error};

use super::config::{self, Config, MAX_REQUEST_QUEUES, Tag};
use super::control::{Control, GRACE};
use super::error::ServeError;
use super::socket::Listener;
use super::worker::Pool;
use crate::protocol::{Session, SessionConfig, TransportKind};

/// How many requests that may take long are served at a time, unless told otherwise.
const DEFAULT_POOL: usize = 4;
/// A pause where the kernel is out of what a wait needs, so that the wait is no busy one.
const PAUSE: Duration = Duration::from_millis(100);

/// What to serve, and how.
#[must_use]
pub struct Share {
    filesystem: Arc<dyn DynFileSystem>,
    request_queues: usize,
    pool: Option<usize>,
    tag: Option<Tag>,
    is_readonly: bool,
    is_once: bool,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("filesystem", &self.filesystem.features().kind)
            .field("request_queues", &self.request_queues)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl Share {
    /// A share of `filesystem`, with defaults for all else.
    pub fn builder(filesystem: Arc<dyn DynFileSystem>) -> Self {
        Self {
            filesystem,
            request_queues: config::default_queues(),
            pool: None,
            tag: None,
            is_readonly: false,
            is_once: false,
        }
    }

    /// Offers so many request queues, 1 to [`MAX_REQUEST_QUEUES`]. Default: one for each CPU.
    pub fn request_queues(mut self, queues: usize) -> Self {
        self.request_queues = queues.clamp(1, MAX_REQUEST_QUEUES);
        self
    }

    /// Serves requests that may take long (fsync above all) by so many threads of their own; with 0
    /// the readers of the queues do. Default: 4, or none for a filesystem that promises
    /// [`Behaviours::PROMPT`].
    pub fn pool_threads(mut self, threads: usize) -> Self {
        self.pool = Some(threads);
        self
    }

    /// Tells the VMM this tag, by which the guest mounts the share. Without one the VMM chooses.
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Answers every change with EROFS.
    pub fn readonly(mut self, is_readonly: bool) -> Self {
        self.is_readonly = is_readonly;
        self
    }

    /// Ends when the first VMM has gone, rather than waiting for the next.
    pub fn once(mut self, is_once: bool) -> Self {
        self.is_once = is_once;
        self
    }

    /// Begins to serve whoever connects to `listener`, one VMM at a time.
    ///
    /// # Errors
    /// [`ServeError::Resource`].
    pub fn serve(self, listener: Listener) -> Result<Server, ServeError> {
        let features = self.filesystem.features();
        let mut config = SessionConfig::new(TransportKind::Virtio);
        config.readonly = self.is_readonly;
        let session = Arc::new(Session::new(self.filesystem, config, None));
        let client = Arc::new(Client { session: session.id(), is_closed: AtomicBool::new(false) });
        session.set_notifier(client.clone());
        let is_prompt = features.bears(Behaviours::PROMPT);
        let default_pool = if is_prompt { 0 } else { DEFAULT_POOL };
        let eventfd =
            || EventFd::new().map_err(|error| ServeError::resource("making an eventfd", error));
        let state = Arc::new(State {
            is_stopped: AtomicBool::new(false),
            stop: eventfd()?,
            ended: eventfd()?,
            stream: Mutex::new(None),
            connections: AtomicU64::new(0),
        });
        listener
            .set_nonblocking()
            .map_err(|error| ServeError::resource("preparing the socket", error))?;
        let pool = Pool::start(&session, self.pool.unwrap_or(default_pool), is_prompt)
            .map_err(|error| ServeError::resource("starting a thread", error))?;
        let config =
            Arc::new(Config { features, request_queues: self.request_queues, tag: self.tag });
        let acceptor = Acceptor {
            listener,
            state: Arc::clone(&state),
            session: Arc::clone(&session),
            pool: Arc::clone(&pool),
            config,
            is_once: self.is_once,
        };
        let mut server = Server { session, state, pool, client, thread: None };
        let thread = thread::Builder::new().name("stratafs-vmm".into());
        server.thread = Some(
            thread
                .spawn(move || acceptor.run())
                .map_err(|error| ServeError::resource("starting a thread", error))?,
        );
        Ok(server)
    }
}

/// The guest's kernel: it takes no notices, for mainline has no queue for them.
#[derive(Debug)]
struct Client {
    session: SessionId,
    is_closed: AtomicBool,
}

impl Notifier for Client {
    fn inval_inode(&self, _: NodeId, _: i64, _: i64) {}

    fn inval_entry(&self, _: NodeId, _: Name<'_>) {}

    fn delete(&self, _: NodeId, _: NodeId, _: Name<'_>) {}

    fn inval_all_entries(&self) {}

    fn session(&self) -> Option<SessionId> {
        Some(self.session)
    }

    fn reaches_kernel(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }
}

/// What the acceptor and the handle share.
#[derive(Debug)]
struct State {
    is_stopped: AtomicBool,
    /// Readable once the server is to end.
    stop: EventFd,
    /// Readable once nobody is served any more.
    ended: EventFd,
    /// The connection that is served, to be shut down.
    stream: Mutex<Option<UnixStream>>,
    connections: AtomicU64,
}

impl State {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.stop.signal();
        if let Some(stream) = &*self.stream.lock() {
            // It fails where the VMM was faster.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The thread that waits for VMMs and serves what they say.
struct Acceptor {
    listener: Listener,
    state: Arc<State>,
    session: Arc<Session>,
    pool: Arc<Pool>,
    config: Arc<Config>,
    is_once: bool,
}

impl Acceptor {
    fn run(&self) {
        while !self.state.is_stopped() {
            let fds = [self.listener.as_fd(), self.state.stop.as_fd()];
            if poll::readable(fds, None).is_err() {
                thread::sleep(PAUSE);
                continue;
            }
            match self.listener.accept() {
                Ok(stream) => {
                    let spoke = self.serve(stream);
                    if spoke && self.is_once {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::error!("accepting a connection: {error}");
                    thread::sleep(PAUSE);
                }
            }
        }
        self.state.ended.signal();
    }

    /// Serves a connection until it ends; whether anything was said on it.
    fn serve(&self, stream: UnixStream) -> bool {
        let begun = stream.set_nonblocking(false).and_then(|()| {
            *self.state.stream.lock() = Some(stream.try_clone()?);
            Control::new(&self.config, &self.session, &self.pool)
        });
        let control = match begun {
            Ok(control) => Arc::new(std::sync::Mutex::new(control)),
            Err(error) => {
                log::error!("serving a connection: {error}");
                self.state.stream.lock().take();
                return false;
            }
        };
        // A stop that came before there was a stream to shut down.
        if self.state.is_stopped() {
            self.state.stop();
        }
        self.state.connections.fetch_add(1, Ordering::SeqCst);
        log::info!("a VMM has connected");
        let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(&control));
        let spoke = self.listen(&mut handler);
        drop(handler);
        let mut control = control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !control.end() {
            log::error!("the filesystem is stuck in a request; its threads are left behind");
        }
        self.state.stream.lock().take();
        log::info!("the VMM has gone");
        spoke
    }

    /// Does what the VMM says until it has gone.
    fn listen(&self, handler: &mut BackendReqHandler<std::sync::Mutex<Control>>) -> bool {
        let mut spoke = false;
        loop {
            // What a VMM sends must not end the server, whatever it is.
            let handled = catch_unwind(AssertUnwindSafe(|| handler.handle_request()));
            match handled {
                Ok(Ok(())) => spoke = true,
                Ok(Err(Error::SocketRetry(_))) => {}
                Ok(Err(Error::Disconnected | Error::SocketBroken(_))) => return spoke,
                Ok(Err(error)) => {
                    if !self.state.is_stopped() {
                        log::warn!("the VMM is let go of: it sent a bad message: {error}");
                    }
                    return spoke;
                }
                Err(_) => {
                    log::error!("the VMM is let go of: its message made the server panic");
                    return spoke;
                }
            }
        }
    }
}

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The one VMM that was to be served has gone.
    Disconnected,
    /// The process was asked to end, by this signal.
    Signal(i32),
}

/// A share that is being served. Dropping it stops it.
pub struct Server {
    session: Arc<Session>,
    state: Arc<State>,
    pool: Arc<Pool>,
    client: Arc<Client>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Server {
    /// The session with the guest: kept over connections, until an INIT or a DESTROY.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Whether a VMM is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.stream.lock().is_some()
    }

    /// Waits, for at most `limit`, until nobody is served any more; says whether that is so.
    #[must_use]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll::readable([self.state.ended.as_fd()], Some(left)) {
                Ok([ended]) if ended.readable => return true,
                Ok(_) => {}
                Err(_) => thread::sleep(PAUSE),
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Waits until nobody is served any more or the process is asked to end.
    #[must_use]
    pub fn wait_or(&self, termination: Termination) -> Ended {
        loop {
            let fds = [self.state.ended.as_fd(), termination.as_fd()];
            match poll::readable(fds, None) {
                Ok([ended, _]) if ended.readable => return Ended::Disconnected,
                Ok(_) => {}
                Err(_) => thread::sleep(PAUSE),
            }
            if let Some(signal) = termination.received() {
                return Ended::Signal(signal);
            }
        }
    }

    /// Answers what is under way, lets the VMM go and ends all threads; whether they ended, which
    /// they do unless the filesystem is stuck in a request.
    pub fn stop(mut self) -> bool {
        self.shut_down()
    }

    fn shut_down(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.state.stop();
        let deadline = Instant::now() + GRACE + GRACE;
        let mut threads = vec![thread];
        let is_over = super::worker::join(&mut threads, deadline);
        self.pool.close();
        let is_over = self.pool.join(deadline) && is_over;
        self.client.is_closed.store(true, Ordering::Relaxed);
        if !is_over {
            log::error!("the filesystem is stuck in a request; its threads are left behind");
        }
        is_over
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}
