//! What a filesystem gave to its client, and was given back.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::intercept::{Answer, Intercept, Intercepted, Op, Outcome};
use stratafs_core::{
    Context, DirEntry, DynFileSystem, Entry, Errno, FileType, Generation, HandleId, NodeId,
};

use crate::{Failure, Verdict};

/// A filesystem with a [`Ledger`] of what it gives.
pub type Counted = Intercepted<Ledger>;

/// The lookups and the handles that a filesystem gave and was not given back yet, and what it did on
/// the way that its contract forbids:
///
/// * `ENOSYS` as an answer, of any method;
/// * more lookups forgotten than were given, or a handle released twice, by its client or layer;
/// * one node for two objects, a handle that is open already;
/// * a cookie of 0, a listing whose inode number or type is not the object's;
/// * more bytes than were asked for.
#[derive(Default)]
pub struct Ledger(Mutex<Held>);

#[derive(Default)]
struct Held {
    nodes: HashMap<NodeId, Node>,
    handles: HashMap<(HandleId, Kind), NodeId>,
    violations: Vec<String>,
}

struct Node {
    lookups: u64,
    identity: (u64, Generation, FileType),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    File,
    Dir,
}

/// More of them say nothing new.
const MOST_VIOLATIONS: usize = 20;

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `fs` with a ledger, and the ledger.
    #[must_use]
    pub fn keep(fs: Arc<dyn DynFileSystem>) -> (Arc<Counted>, Arc<Self>) {
        let counted = Intercepted::new(fs, Self::new());
        let ledger = Arc::clone(counted.intercept());
        (Arc::new(counted), ledger)
    }

    /// Fails if something is held, or was done that may not be. Either way the ledger is empty
    /// afterwards.
    ///
    /// # Errors
    /// As said: what is wrong, in words.
    pub fn check(&self) -> Verdict {
        let held = std::mem::take(&mut *self.0.lock());
        let mut wrong = held.violations;
        wrong.extend(held.nodes.iter().map(|(node, kept)| {
            format!("{node:?} (ino {}) has {} lookups left", kept.identity.0, kept.lookups)
        }));
        wrong.extend(
            held.handles
                .iter()
                .map(|((handle, _), node)| format!("{handle:?} of {node:?} is open")),
        );
        if wrong.is_empty() { Ok(()) } else { Err(Failure::nowhere(wrong.join("; "))) }
    }

    /// How many nodes have lookups, and how many handles are open.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let held = self.0.lock();
        (held.nodes.len(), held.handles.len())
    }
}

impl Held {
    fn violation(&mut self, text: impl FnOnce() -> String) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(text());
        }
    }

    fn give(&mut self, op: &Op<'_>, entry: &Entry) {
        if entry.node.0 == 0 {
            return self.violation(|| format!("{} gave node 0", op.name()));
        }
        if entry.node == NodeId::ROOT {
            return;
        }
        let identity = (entry.attr.ino, entry.generation, entry.attr.kind());
        let node = self.nodes.entry(entry.node).or_insert(Node { lookups: 0, identity });
        node.lookups += 1;
        let before = node.identity;
        if before != identity {
            self.violation(|| {
                format!("{:?} is {before:?}, and {} gave it as {identity:?}", entry.node, op.name())
            });
        }
    }

    fn take_back(&mut self, node: NodeId, count: u64) {
        if node == NodeId::ROOT {
            return;
        }
        let given = self.nodes.get_mut(&node);
        let enough = given.is_some_and(|kept| {
            let enough = kept.lookups >= count;
            kept.lookups = kept.lookups.saturating_sub(count);
            enough
        });
        if self.nodes.get(&node).is_some_and(|kept| kept.lookups == 0) {
            self.nodes.remove(&node);
        }
        if !enough {
            self.violation(|| format!("{node:?} was forgotten {count} times, more than given"));
        }
    }

    fn open(&mut self, op: &Op<'_>, node: NodeId, handle: HandleId, kind: Kind) {
        if handle != HandleId::NONE && self.handles.insert((handle, kind), node).is_some() {
            self.violation(|| format!("{} gave {handle:?}, which is open", op.name()));
        }
    }

    fn release(&mut self, handle: HandleId, kind: Kind) {
        if handle != HandleId::NONE && self.handles.remove(&(handle, kind)).is_none() {
            self.violation(|| format!("{handle:?} was released, and was not open"));
        }
    }

    fn answered(&mut self, op: &Op<'_>, answer: &Answer<'_>) {
        if let Some(entry) = answer.entry() {
            self.give(op, entry);
        }
        if let Some(opened) = answer.opened() {
            let kind = if matches!(op, Op::Opendir { .. }) { Kind::Dir } else { Kind::File };
            let node = answer.entry().map(|entry| entry.node).or(op.node());
            self.open(op, node.unwrap_or(NodeId::ROOT), opened.handle, kind);
        }
        if let (Op::Read { size, .. } | Op::Write { size, .. }, Some(moved)) = (op, answer.bytes())
            && moved > *size
        {
            self.violation(|| format!("{} of {size} bytes moved {moved}", op.name()));
        }
    }
}

impl Intercept for Ledger {
    type Mark = ();

    fn after(&self, _: &Context<'_>, op: &Op<'_>, (): (), outcome: &Outcome<'_>) {
        let mut held = self.0.lock();
        match outcome {
            Err(Errno::ENOSYS) => held.violation(|| format!("{} answered ENOSYS", op.name())),
            Err(_) => {}
            Ok(answer) => held.answered(op, answer),
        }
        match op {
            Op::Forget { node, count } => held.take_back(*node, *count),
            Op::BatchForget { nodes } => {
                nodes.iter().for_each(|(node, count)| held.take_back(*node, *count));
            }
            Op::Release { handle, .. } => held.release(*handle, Kind::File),
            Op::Releasedir { handle, .. } => held.release(*handle, Kind::Dir),
            _ => {}
        }
    }

    fn listed(&self, _: &Context<'_>, op: &Op<'_>, entry: &DirEntry<'_>, plus: Option<&Entry>) {
        let mut held = self.0.lock();
        if entry.cookie == 0 {
            held.violation(|| format!("{} gave a cookie of 0", op.name()));
        }
        let Some(plus) = plus else { return };
        held.give(op, plus);
        let kind = entry.kind.unwrap_or(plus.attr.kind());
        if (plus.attr.ino, plus.attr.kind()) != (entry.ino, kind) {
            held.violation(|| {
                format!(
                    "{} listed ino {} {:?}, whose object is ino {} {:?}",
                    op.name(),
                    entry.ino,
                    entry.kind,
                    plus.attr.ino,
                    plus.attr.kind()
                )
            });
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, handles) = self.held();
        write!(f, "Ledger({nodes} nodes, {handles} handles)")
    }
}
