//! A filesystem that nothing can change.

use crate::{Access, Behaviours, Context, Errno, Features, Intercept, Op, Result};

/// An intercept that refuses every change with `EROFS`, before the filesystem sees it.
///
/// What changes something is [`Op::is_mutation`]'s to say; an open that could write, cut or clear
/// privileges is among it. Everything else passes, locks too, for these are not stored.
///
/// Promises what only a filesystem that can be written to could keep ([`EXCHANGE`], [`WHITEOUT`],
/// [`TMPFILE`], [`STAGING_RENAME`]) are withdrawn, and [`READ_ONLY`] is made. Needs stay: a change
/// must still be sent to be refused by its right name.
///
/// [`EXCHANGE`]: Behaviours::EXCHANGE
/// [`WHITEOUT`]: Behaviours::WHITEOUT
/// [`TMPFILE`]: Behaviours::TMPFILE
/// [`STAGING_RENAME`]: Behaviours::STAGING_RENAME
/// [`READ_ONLY`]: Behaviours::READ_ONLY
///
/// # Source
/// The `ro` of mount(8); `EROFS` of the man pages of section 2
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOnly;

impl ReadOnly {
    /// The intercept.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Intercept for ReadOnly {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        if op.is_mutation() { Err(Errno::EROFS) } else { Ok(()) }
    }

    fn features(&self, mut inner: Features) -> Features {
        inner.behaviours.remove(
            Behaviours::EXCHANGE
                | Behaviours::WHITEOUT
                | Behaviours::TMPFILE
                | Behaviours::STAGING_RENAME,
        );
        inner.promising(Behaviours::READ_ONLY)
    }

    fn lends(&self, access: Access) -> bool {
        access == Access::Read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::intercept::fake::{Fake, every_method};
    use crate::{DynFileSystem, HandleId, Intercepted, NodeId, OpenFlags};

    /// The methods that change something with the operands that `every_method` gives them.
    const MUTATIONS: &[&str] = &[
        "setattr",
        "symlink",
        "mknod",
        "mkdir",
        "unlink",
        "rmdir",
        "rename",
        "link",
        "open",
        "create",
        "tmpfile",
        "write",
        "fallocate",
        "copy_file_range",
        "setxattr",
        "removexattr",
        "set_inode_flags",
    ];

    #[test]
    fn every_mutation_is_refused_before_the_filesystem_sees_it() {
        let fake = Arc::new(Fake::default());
        let fs = Intercepted::new(Arc::<Fake>::clone(&fake), ReadOnly::new());
        let answers = every_method(&fs);
        let reached = fake.methods();
        for (method, answer) in answers {
            let refused = MUTATIONS.contains(&method);
            assert_eq!(answer.starts_with("Err(EROFS)"), refused, "{method} answered {answer}");
            assert_eq!(!reached.contains(&method), refused, "{method} reached the filesystem");
        }
    }

    #[test]
    fn open_is_refused_if_it_could_change_anything() {
        let fs = Intercepted::new(Arc::new(Fake::default()), ReadOnly::new());
        let open = |flags, kill_priv| {
            fs.open(&Context::new(1, None), NodeId(2), flags, kill_priv).map(|opened| opened.handle)
        };
        assert_eq!(open(OpenFlags::READ_ONLY, false), Ok(HandleId(71)));
        for flags in [
            OpenFlags::WRITE_ONLY,
            OpenFlags::READ_WRITE,
            OpenFlags::WRITE_ONLY.with_append(),
            OpenFlags::READ_ONLY.with_truncate(),
        ] {
            assert_eq!(open(flags, false), Err(Errno::EROFS), "{flags:?}");
        }
        assert_eq!(open(OpenFlags::READ_ONLY, true), Err(Errno::EROFS), "clears setuid");
    }

    #[test]
    fn mapping_source_for_writing_is_withheld() {
        let fs = Intercepted::new(Arc::new(Fake::lending()), ReadOnly::new());
        assert!(fs.mapping_source(NodeId(2), Access::Read).is_some());
        assert!(fs.mapping_source(NodeId(2), Access::ReadWrite).is_none());
    }

    #[test]
    fn features_say_that_it_is_read_only_and_keep_the_needs() {
        let fake = Fake::default();
        let inner = fake.features();
        let features = Intercepted::new(Arc::new(fake), ReadOnly::new()).features();
        assert!(features.bears(Behaviours::READ_ONLY | Behaviours::PASSTHROUGH));
        assert!(inner.bears(Behaviours::EXCHANGE) && !features.bears(Behaviours::EXCHANGE));
        assert_eq!(features.needs, inner.needs);
    }
}
