//! Telling other clients' kernels what changed.
//!
//! A client that caches everything has to be told when another one, or a caller in this process,
//! changes what it keeps. Each session may attach a notifier; the session that a change came from
//! is left out. Called with no lock held, after the change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs_core::{Context, Name, NodeId, Notifier, Notifiers};

use crate::MemFs;
use crate::rank;

/// Offset and length of an `inval_inode` that means the attributes alone.
const ATTRIBUTES: (i64, i64) = (-1, 0);

/// The same that means all data too; of a directory, its listing.
const EVERYTHING: (i64, i64) = (0, 0);

/// Who is to be told.
#[derive(Default)]
pub(crate) struct Clients {
    notifiers: Notifiers,
    /// Whether there ever was one: without, a change costs no more than this look.
    any: AtomicBool,
}

impl MemFs {
    pub(crate) fn attach_notifier(&self, notifier: Arc<dyn Notifier>) {
        self.clients.notifiers.attach(notifier);
        self.clients.any.store(true, Ordering::Release);
    }

    fn tell(&self, cx: &Context<'_>, notice: impl Fn(&dyn Notifier)) {
        rank::assert_none();
        if self.clients.any.load(Ordering::Acquire) {
            self.clients.notifiers.each_but(cx.session, notice);
        }
    }

    /// The name `name` in `parent` is new or leads elsewhere.
    pub(crate) fn tell_name(&self, cx: &Context<'_>, parent: NodeId, name: Name<'_>) {
        self.tell(cx, |client| {
            client.inval_entry(parent, name);
            client.inval_inode(parent, EVERYTHING.0, EVERYTHING.1);
        });
    }

    /// The name `name` in `parent`, which led to `child`, is gone.
    pub(crate) fn tell_gone(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        child: NodeId,
    ) {
        self.tell(cx, |client| {
            client.delete(parent, child, name);
            client.inval_inode(parent, EVERYTHING.0, EVERYTHING.1);
            client.inval_inode(child, ATTRIBUTES.0, ATTRIBUTES.1);
        });
    }

    /// The attributes of `node` changed.
    pub(crate) fn tell_attr(&self, cx: &Context<'_>, node: NodeId) {
        self.tell(cx, |client| client.inval_inode(node, ATTRIBUTES.0, ATTRIBUTES.1));
    }

    /// The data of `node` changed: `len` bytes from `offset`, or up to the end for a `len` of 0.
    pub(crate) fn tell_data(&self, cx: &Context<'_>, node: NodeId, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        self.tell(cx, |client| client.inval_inode(node, offset, len));
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use stratafs_core::{
        CopyRange, DynFileSystem, FallocateMode, HandleId, OpenFlags, RenameFlags, SessionId,
        SetAttr, SliceSource, WriteFlags, XattrMode, XattrName,
    };

    use super::*;
    use crate::test_util::{Fixture, ROOT, name, root};

    /// A client that writes down what it is told.
    struct Client(SessionId, Mutex<Vec<String>>);

    impl Client {
        fn attach(fx: &Fixture, session: u64) -> Arc<Self> {
            let client = Arc::new(Self(SessionId(session), Mutex::default()));
            fx.fs.attach(client.clone());
            client
        }

        fn told(&self) -> String {
            std::mem::take(&mut *self.1.lock()).join("; ")
        }

        fn note(&self, text: String) {
            self.1.lock().push(text);
        }
    }

    impl Notifier for Client {
        fn inval_inode(&self, node: NodeId, offset: i64, len: i64) {
            self.note(format!("inode {} {offset} {len}", node.0));
        }
        fn inval_entry(&self, parent: NodeId, name: Name<'_>) {
            self.note(format!("entry {} {name}", parent.0));
        }
        fn delete(&self, parent: NodeId, child: NodeId, name: Name<'_>) {
            self.note(format!("delete {} {} {name}", parent.0, child.0));
        }
        fn inval_all_entries(&self) {}
        fn session(&self) -> Option<SessionId> {
            Some(self.0)
        }
        fn reaches_kernel(&self) -> bool {
            true
        }
        fn is_closed(&self) -> bool {
            false
        }
    }

    #[test]
    fn every_change_is_told_to_the_other_sessions_and_not_to_its_own() {
        let fx = Fixture::new();
        let dir = fx.mkdir(ROOT, "d").0;
        let (own, other) = (Client::attach(&fx, 1), Client::attach(&fx, 2));
        let cx = &root().with_session(Some(SessionId(1)));
        let (fs, none) = (&fx.fs, HandleId::NONE);

        let file = fs.mknod(cx, ROOT, name("f"), 0, 0).unwrap().node;
        assert_eq!(other.told(), "entry 1 f; inode 1 0 0");
        fs.link(cx, file, NodeId(dir), name("g")).unwrap();
        assert_eq!(other.told(), format!("entry {dir} g; inode {dir} 0 0; inode {} -1 0", file.0));
        let file_told = |rest: &str| format!("inode {} {rest}", file.0);

        let mut source = SliceSource::new(b"data");
        fs.write(cx, file, none, 7, 4, WriteFlags::empty(), &mut source).unwrap();
        assert_eq!(other.told(), file_told("7 4"));
        let mut source = SliceSource::new(b"data");
        fs.write(cx, file, none, 0, 4, WriteFlags::APPEND, &mut source).unwrap();
        assert_eq!(other.told(), file_told("0 0"));
        fs.fallocate(cx, file, none, FallocateMode::empty(), 0, 9).unwrap();
        assert_eq!(other.told(), file_told("0 0"));
        let at = |offset| CopyRange::new(file, none, offset);
        fs.copy_file_range(cx, at(0), at(100), 3).unwrap();
        assert_eq!(other.told(), file_told("100 3"));
        let mut set = SetAttr::new();
        set.mode = Some(0o600);
        fs.setattr(cx, file, &set).unwrap();
        assert_eq!(other.told(), file_told("-1 0"));
        set.size = Some(1);
        fs.setattr(cx, file, &set).unwrap();
        assert_eq!(other.told(), file_told("0 0"));
        let user = XattrName::new(b"user.x").unwrap();
        fs.setxattr(cx, file, user, b"", XattrMode::Set, false).unwrap();
        fs.removexattr(cx, file, user).unwrap();
        assert_eq!(other.told(), [file_told("-1 0"), file_told("-1 0")].join("; "));
        fs.open(cx, file, OpenFlags::READ_WRITE.with_truncate(), false).unwrap();
        assert_eq!(other.told(), file_told("0 0"));

        fs.create(cx, ROOT, name("c"), 0, OpenFlags::READ_WRITE, false).unwrap();
        assert_eq!(other.told(), "entry 1 c; inode 1 0 0");
        fs.create(cx, ROOT, name("c"), 0, OpenFlags::READ_WRITE, false).unwrap();
        assert_eq!(other.told(), "", "opened as it is");
        let tmp = fs.tmpfile(cx, ROOT, 0, OpenFlags::READ_WRITE).unwrap().0.node;
        assert_eq!(other.told(), "");
        fs.link(cx, tmp, ROOT, name("t")).unwrap();
        other.told();

        fs.rename(cx, ROOT, name("c"), NodeId(dir), name("g"), RenameFlags::empty()).unwrap();
        let [from, to] = ["entry 1 c; inode 1 0 0".to_owned(), format!("entry {dir} g")];
        let replaced = format!("inode {dir} 0 0; {}", file_told("-1 0"));
        assert_eq!(other.told(), [from, to, replaced].join("; "));
        fs.unlink(cx, ROOT, name("f")).unwrap();
        assert_eq!(
            other.told(),
            format!("delete 1 {} f; inode 1 0 0; {}", file.0, file_told("-1 0"))
        );
        fs.mkdir(cx, ROOT, name("e"), 0).unwrap();
        fs.symlink(cx, ROOT, name("s"), b"t").unwrap();
        assert_eq!(other.told(), "entry 1 e; inode 1 0 0; entry 1 s; inode 1 0 0");
        fs.rmdir(cx, ROOT, name("e")).unwrap();
        assert!(other.told().starts_with("delete 1 "));

        assert_eq!(own.told(), "");
        fs.mkdir(&root(), ROOT, name("in process"), 0).unwrap();
        assert_eq!(own.told(), "entry 1 in process; inode 1 0 0");
    }

    #[test]
    fn a_refused_change_is_told_to_nobody() {
        let fx = Fixture::new();
        fx.mkdir(ROOT, "d");
        let client = Client::attach(&fx, 1);
        assert!(fx.fs.mkdir(&root(), ROOT, name("d"), 0).is_err());
        assert!(fx.unlink(ROOT, "d").is_err());
        assert!(fx.rename((ROOT, "x"), (ROOT, "y"), RenameFlags::empty()).is_err());
        assert_eq!(client.told(), "");
    }
}
