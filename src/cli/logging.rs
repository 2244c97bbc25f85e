//! `--log-level`, `RUST_LOG` and `--syslog`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use clap::ValueEnum;
use env_logger::Target;
use log::LevelFilter;

/// Where the local log listens; syslog(3).
const SYSLOG: &str = "/dev/log";
/// The facility of servers, LOG_DAEMON, in its place in a priority.
const DAEMON: u8 = 3 << 3;

/// The least severe messages that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Nothing.
    Off,
    /// What failed and lost something.
    Error,
    /// What is wrong but was coped with.
    Warn,
    /// What happens once, such as a mount.
    Info,
    /// What happens often.
    Debug,
    /// Every request.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The standard error.
    StandardError,
    /// The log of the host; the standard error where there is none.
    Syslog,
}

/// Logs from now on. A given level wins over `RUST_LOG`.
pub(super) fn init(level: Option<Level>, place: Place) {
    let mut logger = env_logger::Builder::new();
    logger.filter_level(LevelFilter::Warn);
    match level {
        Some(level) => logger.filter_level(level.into()),
        None => logger.parse_default_env(),
    };
    let mut lost = None;
    if place == Place::Syslog {
        match Syslog::connect() {
            Ok(syslog) => to_syslog(&mut logger, syslog),
            Err(error) => lost = Some(error),
        }
    }
    logger.init();
    if let Some(error) = lost {
        log::warn!("{SYSLOG}: {error}: logging to the standard error");
    }
}

/// A message is a datagram, which begins with its priority and who sends it. The number is that of
/// the process that was started, which a server in a sandbox does not know for its own.
fn to_syslog(logger: &mut env_logger::Builder, syslog: Syslog) {
    let process = std::process::id();
    logger.target(Target::Pipe(Box::new(syslog))).format(move |out, record| {
        let severity = match record.level() {
            log::Level::Error => 3,
            log::Level::Warn => 4,
            log::Level::Info => 6,
            log::Level::Debug | log::Level::Trace => 7,
        };
        let (module, text) = (record.target(), record.args());
        write!(out, "<{}>stratafs[{process}]: {module}: {text}", DAEMON | severity)
    });
}

/// A connection to the host's log, which stays where its path is not to be seen any more.
struct Syslog(UnixDatagram);

impl Syslog {
    fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG)?;
        // A log that is slow must not make a server so.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Write for Syslog {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        // What does not arrive is lost: there is nobody else to tell.
        let _ = self.0.send(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
