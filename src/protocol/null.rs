//! A filesystem that does nothing: what a request costs by itself, and a seam for fuzzing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stratafs_core::{
    Attr, Behaviours, Context, DirEntry, DirSink, DynFileSystem, Entry, Features, FileType,
    HandleId, Lookup, Name, Needs, NodeId, OpenFlags, Opened, OpenedFlags, ReadSink, Result,
    SetAttr, TimedAttr, WriteFlags, WriteSource,
};

/// The one file.
const FILE: NodeId = NodeId(2);
/// Long enough for any test.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A directory in which every name is the same empty-handed file: reads give zeros, writes vanish,
/// nothing is counted, nothing fails.
///
/// It keeps no lookup counts and no handles, though it numbers them, so it can be asked for anything
/// in any order.
#[derive(Debug, Default)]
pub struct NullFs {
    entries: u64,
    handles: AtomicU64,
}

impl NullFs {
    /// A root that lists as empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: 0, handles: AtomicU64::new(0) }
    }

    /// The same with a root that lists `entries` names.
    #[must_use]
    pub const fn with_entries(mut self, entries: u64) -> Self {
        self.entries = entries;
        self
    }

    fn opened(&self) -> Opened {
        let last = self.handles.fetch_add(1, Ordering::Relaxed);
        Opened::new(HandleId(last.wrapping_add(1)), OpenedFlags::empty())
    }

    fn attr(node: NodeId) -> Attr {
        if node == NodeId::ROOT {
            return Attr::new(node.0, 0o040_755);
        }
        let mut attr = Attr::new(node.0, 0o100_644);
        attr.size = i64::MAX.cast_unsigned();
        attr
    }

    fn entry() -> Entry {
        Entry::new(FILE, Self::attr(FILE)).with_timeouts(TIMEOUT, TIMEOUT)
    }

    fn list(&self, cookie: u64, sink: &mut dyn DirSink, plus: bool) {
        for index in cookie..self.entries {
            let Some(name) = EntryName::of(index) else { return };
            let Ok(name) = Name::new(name.as_bytes()) else { return };
            let next = index.saturating_add(1);
            let entry = DirEntry::new(FILE.0, FileType::Regular, name, next);
            let object = plus.then(Self::entry);
            if sink.add(&entry, object.as_ref()) == stratafs_core::Added::Full {
                return;
            }
        }
    }
}

/// `file-` and a number of seven digits, without an allocation.
struct EntryName([u8; 12]);

impl EntryName {
    fn of(index: u64) -> Option<Self> {
        let mut name = *b"file-0000000";
        let mut rest = index;
        for digit in name.get_mut(5..)?.iter_mut().rev() {
            *digit = b'0'.checked_add(u8::try_from(rest.checked_rem(10)?).ok()?)?;
            rest = rest.checked_div(10)?;
        }
        Some(Self(name))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl DynFileSystem for NullFs {
    fn features(&self) -> Features {
        Features::new("null")
            .needing(
                Needs::OPEN
                    | Needs::OPENDIR
                    | Needs::FLUSH
                    | Needs::FSYNC
                    | Needs::FSYNCDIR
                    | Needs::READDIRPLUS
                    | Needs::STATX
                    | Needs::RENAME2,
            )
            .promising(Behaviours::PROMPT | Behaviours::PARALLEL_DIROPS | Behaviours::EXCLUSIVE)
            .with_node_id_bits(2)
    }

    fn lookup(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<Lookup> {
        Ok(Lookup::Found(Self::entry()))
    }

    fn forget(&self, _: NodeId, _: u64) {}

    fn getattr(&self, _: &Context<'_>, node: NodeId, _: Option<HandleId>) -> Result<TimedAttr> {
        Ok(TimedAttr::new(Self::attr(node), TIMEOUT))
    }

    fn setattr(&self, _: &Context<'_>, node: NodeId, _: &SetAttr) -> Result<TimedAttr> {
        Ok(TimedAttr::new(Self::attr(node), TIMEOUT))
    }

    fn mknod(&self, _: &Context<'_>, _: NodeId, _: Name<'_>, _: u32, _: u32) -> Result<Entry> {
        Ok(Self::entry())
    }

    fn unlink(&self, _: &Context<'_>, _: NodeId, _: Name<'_>) -> Result<()> {
        Ok(())
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: OpenFlags, _: bool) -> Result<Opened> {
        Ok(self.opened())
    }

    fn create(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: Name<'_>,
        _: u32,
        _: OpenFlags,
        _: bool,
    ) -> Result<(Entry, Opened)> {
        Ok((Self::entry(), self.opened()))
    }

    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        size: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        sink.write_zeros(size)
    }

    fn write(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        _: u64,
        size: usize,
        _: WriteFlags,
        _: &mut dyn WriteSource,
    ) -> Result<usize> {
        Ok(size)
    }

    fn fsync(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: OpenFlags) -> Result<Opened> {
        Ok(self.opened())
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(cookie, sink, false);
        Ok(())
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: HandleId,
        cookie: u64,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.list(cookie, sink, true);
        Ok(())
    }

    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        Ok(())
    }
}
