//! Intercepts: what stands before a filesystem and looks at every request.
//!
//! [`Intercepted`] is the one place that forwards every method of the trait. Whatever refuses,
//! watches, counts, delays or shortens requests without changing what they mean is an
//! [`Intercept`], a type with one or two short methods.

#[cfg(test)]
pub(crate) mod fake;
mod forward;
mod op;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use op::{Op, OpKind};

use crate::{
    Access, Context, DirEntry, DynFileSystem, Entry, Features, FileLock, Lookup, Opened, Result,
    StatFs, TimedAttr,
};

/// What a request came to: what it answered, or the error.
pub type Outcome<'a> = Result<Answer<'a>>;

/// What a request answered, by reference.
///
/// Every [`Entry`] in it raised a lookup count by one, and every [`Opened`] is a handle to be
/// released. Those of a `readdirplus` come one by one, through [`Intercept::listed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Answer<'a> {
    /// That it is done.
    Done,
    /// An object: `lookup`, `link` and what makes one.
    Entry(&'a Entry),
    /// That the name is absent, for so long.
    Absent(Duration),
    /// Attributes.
    Attr(&'a TimedAttr),
    /// A handle: `open`, `opendir`.
    Opened(&'a Opened),
    /// An object and a handle on it: `create`, `tmpfile`.
    Created(&'a Entry, &'a Opened),
    /// How many bytes were moved or are there: `read`, `write`, `copy_file_range`, `readlink`,
    /// `getxattr`, `listxattr`.
    Bytes(usize),
    /// How many entries the listing took.
    Listed(usize),
    /// A position in a file.
    Offset(u64),
    /// Size and use of the filesystem.
    StatFs(&'a StatFs),
    /// A lock.
    Lock(&'a FileLock),
    /// An inode's flags.
    Flags(u32),
}

impl<'a> Answer<'a> {
    /// The object whose lookup count was raised by one, if any.
    #[must_use]
    pub const fn entry(&self) -> Option<&'a Entry> {
        match self {
            Self::Entry(entry) | Self::Created(entry, _) => Some(entry),
            _ => None,
        }
    }

    /// The handle that was opened, if any.
    #[must_use]
    pub const fn opened(&self) -> Option<&'a Opened> {
        match self {
            Self::Opened(opened) | Self::Created(_, opened) => Some(opened),
            _ => None,
        }
    }

    /// The bytes that were moved or are there, if it is about bytes.
    #[must_use]
    pub const fn bytes(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(*bytes),
            _ => None,
        }
    }
}

/// Something that looks at every request to a filesystem.
///
/// For each request `before` is called, then the filesystem, then `after`, on one thread (`setlkw`
/// apart). Each is called once. No lock of [`Intercepted`] is held, and nothing is allocated.
pub trait Intercept: Send + Sync + 'static {
    /// What `before` hands to `after` of the same request, such as the time it began: `()` for
    /// most.
    type Mark: Default + Send + 'static;

    /// A request is about to be made.
    ///
    /// Not asked of `forget` and `batch_forget`, which cannot be refused.
    ///
    /// # Errors
    /// Any, which is then the request's answer: the filesystem does not see it, and `after` is not
    /// called. A `release` or `releasedir` is made all the same, for a handle is gone whatever the
    /// answer; `after` is then called with the error and a default mark.
    fn before(&self, cx: &Context<'_>, op: &Op<'_>) -> Result<Self::Mark> {
        let _ = (cx, op);
        Ok(Self::Mark::default())
    }

    /// A request was answered.
    ///
    /// Of a `setlkw` this is when the lock was got or the wait ended, on whichever thread ended it,
    /// just before the client is answered; its context has no label any more. Of `forget` and
    /// `batch_forget` the context is an anonymous client's and the mark is the default.
    fn after(&self, cx: &Context<'_>, op: &Op<'_>, mark: Self::Mark, outcome: &Outcome<'_>) {
        let _ = (cx, op, mark, outcome);
    }

    /// An entry of a listing was taken by the client, between `before` and `after` of the `readdir`
    /// or `readdirplus` that is `op`. With `plus` the lookup count of that object was raised by one,
    /// whatever the request comes to.
    fn listed(&self, cx: &Context<'_>, op: &Op<'_>, entry: &DirEntry<'_>, plus: Option<&Entry>) {
        let _ = (cx, op, entry, plus);
    }

    /// How much of the `size` bytes of a `read`, a `write` or a `copy_file_range` to ask of the
    /// filesystem: more than `size` counts as `size`. Less makes a short read or write, which is
    /// legal everywhere, and 0 looks like the end of the file.
    fn limit(&self, cx: &Context<'_>, op: &Op<'_>, size: u64) -> u64 {
        let _ = (cx, op);
        size
    }

    /// What the intercepted filesystem needs and promises, given what `inner` does.
    fn features(&self, inner: Features) -> Features {
        inner
    }

    /// Whether it must see each read and write. Then the filesystem's backing files are withheld and
    /// [`PASSTHROUGH`](crate::Behaviours::PASSTHROUGH) is not promised, for the kernel would do the
    /// I/O by itself. The same answer at every call.
    fn sees_data(&self) -> bool {
        false
    }

    /// Whether a host file behind a node may be handed out for `access`, past the intercept.
    fn lends(&self, access: Access) -> bool {
        let _ = access;
        !self.sees_data()
    }
}

/// A filesystem with an intercept before it.
pub struct Intercepted<I> {
    inner: Arc<dyn DynFileSystem>,
    // Shared with the reply of a setlkw, which may come when this is gone.
    intercept: Arc<I>,
}

impl<I: Intercept> Intercepted<I> {
    /// `inner`, with `intercept` before it.
    #[must_use]
    pub fn new(inner: Arc<dyn DynFileSystem>, intercept: I) -> Self {
        Self { inner, intercept: Arc::new(intercept) }
    }

    /// The filesystem behind.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn DynFileSystem> {
        &self.inner
    }

    /// The intercept, to be read or steered while it is in use.
    #[must_use]
    pub fn intercept(&self) -> &Arc<I> {
        &self.intercept
    }
}

impl<I: fmt::Debug> fmt::Debug for Intercepted<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted")
            .field("intercept", &self.intercept)
            .field("inner", &self.inner)
            .finish()
    }
}

/// What a method's result looks like to an intercept.
trait Summary {
    fn summary(&self) -> Answer<'_>;
}

impl Summary for () {
    fn summary(&self) -> Answer<'_> {
        Answer::Done
    }
}

impl Summary for Lookup {
    fn summary(&self) -> Answer<'_> {
        match self {
            Self::Found(entry) => Answer::Entry(entry),
            Self::Absent(timeout) => Answer::Absent(*timeout),
        }
    }
}

impl Summary for Entry {
    fn summary(&self) -> Answer<'_> {
        Answer::Entry(self)
    }
}

impl Summary for TimedAttr {
    fn summary(&self) -> Answer<'_> {
        Answer::Attr(self)
    }
}

impl Summary for Opened {
    fn summary(&self) -> Answer<'_> {
        Answer::Opened(self)
    }
}

impl Summary for (Entry, Opened) {
    fn summary(&self) -> Answer<'_> {
        Answer::Created(&self.0, &self.1)
    }
}

impl Summary for usize {
    fn summary(&self) -> Answer<'_> {
        Answer::Bytes(*self)
    }
}

impl Summary for u64 {
    fn summary(&self) -> Answer<'_> {
        Answer::Offset(*self)
    }
}

impl Summary for StatFs {
    fn summary(&self) -> Answer<'_> {
        Answer::StatFs(self)
    }
}

impl Summary for FileLock {
    fn summary(&self) -> Answer<'_> {
        Answer::Lock(self)
    }
}

impl Summary for u32 {
    fn summary(&self) -> Answer<'_> {
        Answer::Flags(*self)
    }
}
