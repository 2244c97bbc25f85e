//! Finding objects on both sides, and the nodes that stand for them.

use std::sync::Arc;

use stratafs_core::{Attr, Entry, Errno, FileType, Generation, Lookup, Name, NodeId, Result};

use crate::DualFs;
use crate::node::{Node, Of, Place};
use crate::policy::Look;
use crate::record::{Links, Record, may_be_whiteout, parse_origin};
use crate::side::{Part, Real, record};
use crate::table::Key;

/// What the written side has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Absent,
    Whiteout,
    /// An object, which need not be the one that shows.
    Object,
}

/// What the sides have under a name.
pub(crate) struct Resolved {
    pub(crate) slot: Slot,
    pub(crate) object: Option<Object>,
}

impl Resolved {
    /// Whether what the written side has under the name does not show.
    pub(crate) fn hides_written(&self) -> bool {
        let of_other = |object: &Object| object.written.is_none() || object.is_alias();
        self.slot == Slot::Object && self.object.as_ref().is_some_and(of_other)
    }

    /// Whether the object was found through the index.
    pub(crate) fn is_alias(&self) -> bool {
        self.object.as_ref().is_some_and(Object::is_alias)
    }
}

/// An object that a lookup found. It owns no memory.
pub(crate) struct Object {
    pub(crate) written: Option<Part>,
    /// As [`Place::other`].
    pub(crate) other: Option<Part>,
}

impl Object {
    pub(crate) fn top(&self) -> Result<&Part> {
        self.written.as_ref().or(self.other.as_ref()).ok_or(Errno::EIO)
    }

    /// Whether it was found through the index: under its name the written side has nothing, or what
    /// does not show.
    fn is_alias(&self) -> bool {
        self.written.is_some() && self.other.as_ref().is_some_and(|other| !other.is_dir())
    }

    /// The key of the node that stands for it.
    pub(crate) fn key(&self) -> Result<Key> {
        self.top().map(|top| Key(top.side, top.id()))
    }
}

/// A directory in which names are looked for.
pub(crate) struct View {
    pub(crate) written: Option<Real>,
    pub(crate) other: Option<Real>,
    /// What the written side has in it may have records.
    pub(crate) careful: bool,
    is_root: bool,
    pub(crate) removed: bool,
}

impl Node {
    pub(crate) fn view(&self) -> View {
        self.with_place(|place| View {
            written: place.written.clone(),
            other: place.other.clone(),
            careful: place.other.is_some() || self.is_impure(),
            is_root: self.id == NodeId::ROOT,
            removed: place.removed,
        })
    }
}

impl DualFs {
    /// Whether `name` in `dir` is the staging directory's, which no client sees.
    pub(crate) fn reserves(&self, dir: &View, name: Name<'_>) -> bool {
        dir.is_root && self.staging.as_ref().is_some_and(|own| own.name == name.as_bytes())
    }
}

/// A node with a lookup that is given back on drop.
pub(crate) struct Looked<'a> {
    fs: &'a DualFs,
    pub(crate) node: Arc<Node>,
}

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        self.fs.table.forget(self.node.id, 1);
    }
}

impl DualFs {
    /// What both sides have under `name`.
    pub(crate) fn resolve(&self, dir: &View, name: Name<'_>) -> Result<Resolved> {
        let mut slot = Slot::Absent;
        if dir.removed || self.reserves(dir, name) {
            return Ok(Resolved { slot, object: None });
        }
        let (look, writes) = (self.look(), self.writes());
        let mut written = None;
        if let (true, Some(real)) = (look.includes(writes), &dir.written)
            && let Some(part) = real.child(name)?
        {
            if self.is_whiteout(&part)? {
                return Ok(Resolved { slot: Slot::Whiteout, object: None });
            }
            slot = Slot::Object;
            written = Some(part);
        }
        let mut other = None;
        if let (true, Some(real)) = (look.includes(writes.other()), &dir.other)
            && !self.settles(look, written.as_ref())?
        {
            other = real.child(name)?;
        }
        let object = self.chosen(look, written, other)?;
        Ok(Resolved { slot, object })
    }

    /// Whether what the written side has leaves nothing to be looked for on the other.
    fn settles(&self, look: Look, written: Option<&Part>) -> Result<bool> {
        let Some(part) = written else { return Ok(false) };
        if part.is_dir() {
            return self.has_record(part, Record::Opaque);
        }
        Ok(look == Look::Both(self.writes()) || !self.may_lose(part)?)
    }

    /// Whether what the written side has under a name gives way to what the other has there, if that
    /// comes first: it was not made through this filesystem. Objects that can have no record do not.
    fn may_lose(&self, part: &Part) -> Result<bool> {
        Ok(part.attr.kind() == FileType::Regular && !self.has_record(part, Record::Written)?)
    }

    /// Which of the two shows under a name that is looked for on both sides.
    fn chosen(
        &self,
        look: Look,
        written: Option<Part>,
        other: Option<Part>,
    ) -> Result<Option<Object>> {
        Ok(match (written, other) {
            (None, None) => None,
            (Some(written), None) => Some(Object { written: Some(written), other: None }),
            (None, Some(other)) => Some(self.with_index(other)?),
            (Some(written), Some(other)) => {
                let merged = written.is_dir() && other.is_dir();
                let written_first = look == Look::Both(self.writes());
                Some(if merged {
                    Object { written: Some(written), other: Some(other) }
                } else if written_first {
                    Object { written: Some(written), other: None }
                } else {
                    self.with_index(other)?
                })
            }
        })
    }

    /// An object of the other side, with what it was transferred to by another of its names.
    fn with_index(&self, other: Part) -> Result<Object> {
        let linked = self.is_linked(&other.attr);
        let written = if linked { self.indexed(other.attr.ino)? } else { None };
        Ok(Object { written, other: Some(other) })
    }

    pub(crate) fn has_record(&self, part: &Part, which: Record) -> Result<bool> {
        let found = record(part.node.fs(), part.id(), self.names.name(which), |_| Some(()))?;
        Ok(found.is_some())
    }

    pub(crate) fn is_whiteout(&self, part: &Part) -> Result<bool> {
        Ok(may_be_whiteout(&part.attr) && self.has_record(part, Record::Whiteout)?)
    }

    /// Whether the other side would show something under `name`, were it not for what the written
    /// side has there.
    pub(crate) fn shows_below(&self, dir: &View, name: Name<'_>) -> Result<bool> {
        match &dir.other {
            Some(real) if self.look().includes(real.side) => Ok(real.child(name)?.is_some()),
            _ => Ok(false),
        }
    }

    /// The inode number of `object`, which stays when it is transferred. `careful`: what is in its
    /// directory may have records.
    pub(crate) fn ino_of(&self, object: &Object, careful: bool) -> Result<u64> {
        let other = self.writes().other();
        if let Some(part) = object.written.as_ref().filter(|_| careful) {
            let name = self.names.name(Record::Origin);
            if let Some(ino) = record(part.node.fs(), part.id(), name, parse_origin)? {
                return Ok(self.inos.map(other, ino));
            }
        }
        let of = match &object.other {
            Some(part) => part,
            None => object.top()?,
        };
        Ok(self.inos.map(of.side, of.attr.ino))
    }

    /// The node that stands for `object`, found as `name` in `parent`, looked up once more; `None` if
    /// it is to be looked for again.
    fn enter(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        object: Object,
        careful: bool,
    ) -> Result<Option<(Arc<Node>, Attr)>> {
        let key = object.key()?;
        let attr = object.top()?.attr.clone();
        if let Some(node) = self.table.find_raised(key) {
            return Ok(Some((node, attr)));
        }
        let ino = self.ino_of(&object, careful)?;
        let generation = object.top()?.generation;
        let linked = match (&object.written, &object.other) {
            (None, Some(other)) if self.is_linked(&attr) => Some(other.attr.ino),
            _ => None,
        };
        let parent = Some((Arc::clone(parent), name.to_owned()));
        let (written, other) = (object.written.map(Part::kept), object.other.map(Part::kept));
        let (impure, links) = self.recorded(written.as_ref(), &attr, other.is_some())?;
        let of = Of { kind: attr.kind(), ino, generation, impure, links };
        let also = match (&written, &other) {
            (Some(_), Some(other)) if !attr.is_dir() => Some(Key(other.side, other.id())),
            _ => None,
        };
        let place = Place { written, other, parent, removed: false };
        let new = Node::new(self.table.number(), of, place, &self.table);
        let node = self.table.enter(key, new);
        if let Some(also) = also {
            self.table.add_key(&node, also);
        }
        if let Some(ino) = linked
            && node.written().is_none()
            && self.indexed(ino)?.is_some()
        {
            // It was transferred by another of its names meanwhile.
            self.table.drop_keys(&node, None);
            self.table.forget(node.id, 1);
            return Ok(None);
        }
        Ok(Some((node, attr)))
    }

    /// What the records of an object of the written side say of its node.
    fn recorded(
        &self,
        written: Option<&Real>,
        attr: &Attr,
        indexed: bool,
    ) -> Result<(bool, Option<Links>)> {
        let Some(real) = written else { return Ok((false, None)) };
        if attr.is_dir() {
            return Ok((real.has_record(self.names.name(Record::Impure))?, None));
        }
        if attr.nlink == 1 && !indexed {
            return Ok((false, None));
        }
        Ok((false, real.record(self.names.name(Record::Links), Links::parse)?))
    }

    /// The node of an object that was just made on the written side, looked up once.
    pub(crate) fn enter_new(
        &self,
        parent: Option<(&Arc<Node>, Name<'_>)>,
        part: Part,
    ) -> Arc<Node> {
        let key = Key(part.side, part.id());
        let (kind, generation) = (part.attr.kind(), part.generation);
        let ino = self.inos.map(part.side, part.attr.ino);
        let of = Of { kind, ino, generation, impure: false, links: None };
        let parent = parent.map(|(dir, name)| (Arc::clone(dir), name.to_owned()));
        let place = Place { written: Some(part.kept()), other: None, parent, removed: false };
        self.table.enter(key, Node::new(self.table.number(), of, place, &self.table))
    }

    /// The root's node.
    pub(crate) fn enter_root(&self) -> Result<()> {
        let look = self.look();
        let writes = self.writes();
        let root = |side| Real::root(side, self.side(side));
        let kept = |side| look.includes(side).then(|| root(side));
        let place = Place {
            written: kept(writes),
            other: kept(writes.other()),
            parent: None,
            removed: false,
        };
        let number = place.other.as_ref().map_or_else(|| place.top(), Ok)?;
        let ino = self.inos.map(number.side, number.attr()?.ino);
        let impure = match &place.written {
            Some(real) => real.has_record(self.names.name(Record::Impure))?,
            None => false,
        };
        let (kind, generation) = (FileType::Directory, Generation::default());
        let of = Of { kind, ino, generation, impure, links: None };
        self.table.set_root(Arc::new(Node::new(NodeId::ROOT, of, place, &self.table)));
        Ok(())
    }

    /// The node of `name` in `parent`, with a lookup to be given back.
    pub(crate) fn find(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
    ) -> Result<Option<(Arc<Node>, Attr)>> {
        parent.require_dir()?;
        loop {
            let _names = parent.names.read();
            let view = parent.view();
            let Some(object) = self.resolve(&view, name)?.object else { return Ok(None) };
            if let Some(found) = self.enter(parent, name, object, view.careful)? {
                return Ok(Some(found));
            }
        }
    }

    /// Whether something shows under `name` in `parent` at this moment.
    pub(crate) fn exists(&self, parent: &Node, name: Name<'_>) -> Result<bool> {
        // What is removed meanwhile may answer anything.
        let _names = parent.names.read();
        Ok(self.resolve(&parent.view(), name)?.object.is_some())
    }

    /// As [`find`](Self::find), with the lookup given back on drop.
    pub(crate) fn find_held(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
    ) -> Result<Option<Looked<'_>>> {
        let found = self.find(parent, name)?;
        Ok(found.map(|(node, _)| Looked { fs: self, node }))
    }

    /// Whether `object` is what `node` stands for.
    pub(crate) fn is_still(&self, object: Option<&Object>, node: Option<&Arc<Node>>) -> bool {
        match (object.map(Object::key), node) {
            (Some(Ok(key)), Some(node)) => node.keys().lock().contains(&key),
            (None, None) => true,
            _ => false,
        }
    }

    pub(crate) fn look_up(&self, parent: NodeId, name: Name<'_>) -> Result<Lookup> {
        let parent = self.table.get(parent)?;
        Ok(match self.find(&parent, name)? {
            Some((node, attr)) => Lookup::Found(self.entry(&node, attr)),
            None => Lookup::Absent(self.cache.negative_timeout),
        })
    }

    /// What the client is told of `node`, whose object has these attributes.
    pub(crate) fn entry(&self, node: &Node, attr: Attr) -> Entry {
        Entry::new(node.id, self.shown(node, attr))
            .with_timeouts(self.cache.entry_timeout, self.cache.attr_timeout)
            .with_generation(node.generation)
    }
}
