//! `--log-level` and `RUST_LOG`.

use clap::ValueEnum;
use log::LevelFilter;

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

/// Logs to the standard error from now on. A given level wins over `RUST_LOG`.
pub(super) fn init(level: Option<Level>) {
    let mut logger = env_logger::Builder::new();
    logger.filter_level(LevelFilter::Warn);
    match level {
        Some(level) => logger.filter_level(level.into()),
        None => logger.parse_default_env(),
    };
    logger.init();
}
