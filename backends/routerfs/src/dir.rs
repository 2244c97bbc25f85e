//! Listings.
//!
//! A directory of a member is listed by the member; names of points are left out of that listing, and
//! listed after it. So the member's cookies are the client's, and those of points lie above them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use stratafs_core::{
    Added, Context, DirEntry, DirSink, Entry, Errno, HandleId, NameBuf, Needs, NodeId, OpenFlags,
    Opened, OpenedFlags, Result,
};

use crate::RouterFs;
use crate::ids::MADE_UP;
use crate::lookup::Place;
use crate::member::Member;
use crate::point::{Point, Real};

/// The cookies of `.` and `..` in a directory that is made up.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;

/// The bits of a point's cookie that say so; the others are the point's number.
const MARK: u64 = 0xffff_ffff_0000_0000;

/// What the cookies of points begin with: the topmost range that is no negative offset, and bits that
/// differ from router to router, since one may be in another and both may have mounts in one directory.
pub(crate) fn cookies() -> u64 {
    let salt = RandomState::new().hash_one(MARK) & 0xffff;
    (0x7fff << 48) | (salt << 32)
}

impl RouterFs {
    pub(crate) fn open_dir(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        flags: OpenFlags,
    ) -> Result<Opened> {
        let real = match self.place(id)? {
            Place::Real(real) => real,
            Place::MadeUp(_) => return Ok(Opened::stateless(OpenedFlags::empty())),
        };
        let pin = self.pin(&real.member)?;
        let mut opened = pin.member.fs.opendir(cx, real.node, flags)?;
        opened.handle = self.ids.opened(real.member.index, opened.handle);
        self.ids.node_opened(id);
        pin.keep();
        Ok(opened)
    }

    pub(crate) fn release_dir(&self, cx: &Context<'_>, id: NodeId, handle: HandleId) -> Result<()> {
        let real = match self.place(id)? {
            Place::Real(real) => real,
            Place::MadeUp(_) => return Ok(()),
        };
        let handle = self.ids.closed(real.member.index, handle)?;
        let done = real.member.fs.releasedir(cx, real.node, handle);
        self.ids.node_closed(id);
        self.lower(&real.member, 1);
        done
    }

    pub(crate) fn sync_dir(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        datasync: bool,
    ) -> Result<()> {
        match self.place(id)? {
            Place::Real(real) => {
                let handle = self.ids.handle(real.member.index, handle)?;
                real.member.fs.fsyncdir(cx, real.node, handle, datasync)
            }
            Place::MadeUp(_) => Ok(()),
        }
    }

    pub(crate) fn list(
        &self,
        cx: &Context<'_>,
        id: NodeId,
        handle: HandleId,
        cookie: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let at_points = cookie & MARK == self.cookies;
        match self.place(id)? {
            Place::Real(real) => {
                let point = real.member.point_at(real.node).filter(|point| !point.is_leaf());
                let mut some = false;
                if !at_points || point.is_none() {
                    let handle = self.ids.handle(real.member.index, handle)?;
                    let hide = point.as_deref();
                    let listed = self.list_real(cx, &real, hide, (handle, cookie), plus, sink)?;
                    if listed.full {
                        return Ok(());
                    }
                    some = listed.some;
                }
                let Some(point) = point else { return Ok(()) };
                let cookie = if at_points { cookie } else { self.cookies };
                self.list_points(cx, &point, cookie, plus, some, sink)
            }
            Place::MadeUp(point) => {
                let ino = self.ids.ino(MADE_UP, point.number);
                if !at_points && cookie < DOT && is_full(sink, &DirEntry::dot(ino, DOT)) {
                    return Ok(());
                }
                if !at_points && cookie < DOTDOT {
                    let up = match point.parent() {
                        Some((parent, _)) => self.ino_of(cx, &parent).unwrap_or(ino),
                        None => ino,
                    };
                    if is_full(sink, &DirEntry::dotdot(up, DOTDOT)) {
                        return Ok(());
                    }
                }
                let some = !at_points && cookie < DOTDOT;
                let cookie = if at_points { cookie } else { self.cookies };
                self.list_points(cx, &point, cookie, plus, some, sink)
            }
        }
    }

    /// Lists what the member has, without the points that `hide` has.
    fn list_real(
        &self,
        cx: &Context<'_>,
        real: &Real,
        hide: Option<&Point>,
        (handle, cookie): (HandleId, u64),
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<Listed> {
        let member = &real.member;
        let above = if real.node == NodeId::ROOT { member.point_at(real.node) } else { None };
        let up = match above.as_deref().and_then(Point::parent) {
            Some((parent, _)) => Some(self.ino_of(cx, &parent)?),
            None => None,
        };
        // What is listed with its object is held by the client; the pin keeps the member meanwhile.
        let pin = self.pin(member)?;
        let mut through = Through {
            router: self,
            member,
            hide,
            up,
            sink,
            listed: Listed::default(),
            spare: Vec::new(),
        };
        let fs = &member.fs;
        let done = if plus && member.needs.contains(Needs::READDIRPLUS) {
            fs.readdirplus(cx, real.node, handle, cookie, &mut through)
        } else {
            fs.readdir(cx, real.node, handle, cookie, &mut through)
        };
        let Through { listed, spare, .. } = through;
        spare.into_iter().for_each(|node| fs.forget(node, 1));
        drop(pin);
        match done {
            Ok(()) => Ok(listed),
            // The member took what was hidden from the client for listed, so this error is late.
            Err(_) if listed.some => Ok(Listed { full: true, ..listed }),
            Err(errno) => Err(errno),
        }
    }

    /// Lists the points below `point` that come after `cookie`.
    fn list_points(
        &self,
        cx: &Context<'_>,
        point: &Arc<Point>,
        cookie: u64,
        plus: bool,
        mut some: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        for (name, child) in point.children() {
            let at = self.cookies | (child.number & !MARK);
            if at <= cookie {
                continue;
            }
            if !sink.fits(name.as_bytes().len()) {
                return Ok(());
            }
            match self.list_point(cx, &name, &child, at, plus, sink) {
                Ok(Added::Taken) => some = true,
                Ok(Added::Full) => return Ok(()),
                // It was unmounted meanwhile.
                Err(Errno::ESTALE) => {}
                Err(_) if some => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn list_point(
        &self,
        cx: &Context<'_>,
        name: &NameBuf,
        point: &Arc<Point>,
        cookie: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<Added> {
        let shown = self.show(cx, point)?;
        let entry = DirEntry::new(shown.attr.ino, shown.attr.kind(), name.as_name(), cookie);
        let added = sink.add(&entry, plus.then_some(&shown));
        if !plus || added == Added::Full {
            self.forget_node(shown.node, 1);
        }
        Ok(added)
    }
}

fn is_full(sink: &mut dyn DirSink, entry: &DirEntry<'_>) -> bool {
    sink.add(entry, None) == Added::Full
}

/// How a listing of a member went.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    /// The client's sink took something.
    some: bool,
    /// The client's sink is full.
    full: bool,
}

/// What a member lists, on its way to the client.
struct Through<'a> {
    router: &'a RouterFs,
    member: &'a Arc<Member>,
    hide: Option<&'a Point>,
    /// The inode number of `..`, where the member does not know it.
    up: Option<u64>,
    sink: &'a mut dyn DirSink,
    listed: Listed,
    /// Lookups of what is hidden, to be given back.
    spare: Vec<NodeId>,
}

impl DirSink for Through<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.sink.fits(name_len)
    }

    fn add(&mut self, entry: &DirEntry<'_>, plus: Option<&Entry>) -> Added {
        if self.hide.is_some_and(|point| point.has(entry.name)) {
            self.spare.extend(plus.map(|plus| plus.node));
            return Added::Taken;
        }
        let (router, member) = (self.router, self.member);
        let mut shown = *entry;
        shown.ino = match self.up {
            Some(up) if entry.name == b".." => up,
            _ => router.ids.ino(member.index, entry.ino),
        };
        let added = match plus {
            None => self.sink.add(&shown, None),
            Some(plus) => {
                let wrapped = router.wrapped(member, plus.clone());
                let added = self.sink.add(&shown, Some(&wrapped));
                match added {
                    Added::Taken => member.raise(1),
                    Added::Full => router.ids.forgotten(wrapped.node, 1),
                }
                added
            }
        };
        match added {
            Added::Taken => self.listed.some = true,
            Added::Full => self.listed.full = true,
        }
        added
    }
}
