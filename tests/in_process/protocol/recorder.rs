//! Filesystems to look through.

use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Context, DirSink, DynFileSystem, Errno, Features, HandleId, Intercept, Intercepted, Lookup,
    Name, Needs, Negotiated, NodeId, Notifier, Op, Outcome, Result, TimedAttr,
};
use stratafs_memfs::{Builder, Locks, MemFs};
use stratafs_testkit::counted;

/// What a filesystem is to claim instead of its features.
type ChangeFeatures = fn(Features) -> Features;

/// Notes each request that reaches a filesystem, in its own words; answers instead of it where told
/// to.
#[derive(Default)]
pub(crate) struct Recorder {
    seen: Mutex<Vec<String>>,
    features: Option<ChangeFeatures>,
    errno: Mutex<Option<Errno>>,
}

impl Recorder {
    /// What was seen since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock())
    }

    /// Has every request fail so.
    pub(crate) fn fail(&self, errno: Option<Errno>) {
        *self.errno.lock() = errno;
    }
}

impl Intercept for Recorder {
    type Mark = ();

    fn before(&self, cx: &Context<'_>, op: &Op<'_>) -> Result<()> {
        let mut text = format!("{op:?}");
        if cx.umask != 0 {
            text += &format!(" umask {:o}", cx.umask);
        }
        if let Some(group) = cx.supplementary_group {
            text += &format!(" group {group}");
        }
        if let Some(security) = cx.security {
            text += &format!(" {:?}={}", security.name, security.value.escape_ascii());
        }
        if cx.caller.is_none() {
            text += " anonymous";
        }
        assert!(cx.session.is_some() && !cx.is_internal(), "{text}");
        self.seen.lock().push(text);
        (*self.errno.lock()).map_or(Ok(()), Err)
    }

    fn features(&self, inner: Features) -> Features {
        self.features.map_or(inner, |change| change(inner))
    }
}

/// A MemFs whose account of lookups and handles is kept, and whose requests are noted.
pub(crate) struct Stage {
    pub(crate) fs: Arc<dyn DynFileSystem>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) counts: Arc<counted::Ledger>,
}

impl Stage {
    pub(crate) fn new(builder: Builder) -> Self {
        Self::with_features(builder, |features| features)
    }

    /// One that claims other features.
    pub(crate) fn with_features(builder: Builder, features: ChangeFeatures) -> Self {
        Self::over(Arc::new(builder.build().unwrap()), features)
    }

    /// One over any filesystem, which claims these features.
    pub(crate) fn over(fs: Arc<dyn DynFileSystem>, features: ChangeFeatures) -> Self {
        let (counted, counts) = counted::Ledger::keep(fs);
        let recorder = Recorder { features: Some(features), ..Recorder::default() };
        let recorded = Intercepted::new(counted, recorder);
        let recorder = Arc::clone(recorded.intercept());
        Self { fs: Arc::new(recorded), recorder, counts }
    }

    /// The filesystem alone, which asserts as it goes that everything was given back.
    pub(crate) fn into_checked(self) -> Arc<dyn DynFileSystem> {
        Arc::new(Intercepted::new(Arc::clone(&self.fs), Checked(self)))
    }

    /// Asserts that everything was given back, and nothing twice.
    pub(crate) fn assert_balanced(&self) {
        if let Err(failure) = self.counts.check() {
            panic!("{failure}");
        }
    }
}

impl Default for Stage {
    /// One that every request reaches.
    fn default() -> Self {
        let builder = MemFs::builder().locks(Locks::Remote);
        Self::with_features(builder, |features| features.needing(Needs::all()))
    }
}

/// Lets everything pass, and looks at the account in the end.
struct Checked(Stage);

impl Intercept for Checked {
    type Mark = ();

    fn after(&self, _: &Context<'_>, _: &Op<'_>, _: (), _: &Outcome<'_>) {
        self.0.recorder.take();
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.assert_balanced();
        }
    }
}

/// A filesystem of which nothing but its features matters, and whether it began and ended.
pub(crate) struct Hollow {
    pub(crate) features: Features,
    pub(crate) begins: std::result::Result<(), Errno>,
    pub(crate) life: Mutex<Vec<&'static str>>,
}

impl Hollow {
    pub(crate) fn new(features: Features) -> Arc<Self> {
        Arc::new(Self { features, begins: Ok(()), life: Mutex::default() })
    }
}

impl DynFileSystem for Hollow {
    fn features(&self) -> Features {
        self.features
    }
    fn init(&self, _: &Negotiated) -> Result<()> {
        self.life.lock().push("init");
        self.begins
    }
    fn destroy(&self, cx: &Context<'_>) {
        assert!(cx.session.is_some(), "whose session ends is told");
        self.life.lock().push("destroy");
    }
    fn attach(&self, _: Arc<dyn Notifier>) {
        self.life.lock().push("attach");
    }
    fn lookup(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<Lookup> {
        Err(Errno::ENOENT)
    }
    fn forget(&self, _: NodeId, _: u64) {}
    fn getattr(&self, _: &Context<'_>, _: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Err(Errno::EIO)
    }
    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        _: &mut dyn DirSink,
    ) -> Result<()> {
        Ok(())
    }
    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
}
