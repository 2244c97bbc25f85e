//! One request to a filesystem, as an intercept sees it.

use crate::{
    CopyRange, FallocateMode, FileLock, HandleId, LockFlavour, LockOwner, Name, NodeId, OpenFlags,
    Release, RenameFlags, SeekTo, SetAttr, WriteFlags, XattrMode, XattrName,
};

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $($field:ident: $type:ty),* $(,)? })*) => {
        /// One request: a variant for each method of [`DynFileSystem`](crate::DynFileSystem) that
        /// carries one, with its operands; data and listings stay where they are.
        #[derive(Clone, Copy, Debug)]
        #[expect(missing_docs, reason = "the operands of the method of that name, which has them")]
        #[non_exhaustive]
        pub enum Op<'a> {
            $($(#[$doc])* $variant { $($field: $type),* },)*
        }

        /// Which request it is: an [`Op`] without its operands, to count and to tabulate by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum OpKind {
            $($(#[$doc])* $variant,)*
        }

        impl OpKind {
            /// Every kind, in the order of the trait's methods; `kind as usize` is its place here.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name of the trait's method.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl Op<'_> {
            /// Which request it is.
            #[must_use]
            pub const fn kind(&self) -> OpKind {
                match self { $(Self::$variant { .. } => OpKind::$variant,)* }
            }
        }
    };
}

ops! {
    /// Finds a name.
    Lookup = "lookup" { parent: NodeId, name: Name<'a> }
    /// Gives lookups of a node back. Cannot be refused.
    Forget = "forget" { node: NodeId, count: u64 }
    /// Gives lookups of several nodes back. Cannot be refused.
    BatchForget = "batch_forget" { nodes: &'a [(NodeId, u64)] }
    /// Reads attributes.
    Getattr = "getattr" { node: NodeId, handle: Option<HandleId> }
    /// Changes attributes.
    Setattr = "setattr" { node: NodeId, set: &'a SetAttr }
    /// Reads a symlink's target.
    Readlink = "readlink" { node: NodeId }
    /// Makes a symlink.
    Symlink = "symlink" { parent: NodeId, name: Name<'a>, target: &'a [u8] }
    /// Makes a file, device, FIFO or socket.
    Mknod = "mknod" { parent: NodeId, name: Name<'a>, mode: u32, rdev: u32 }
    /// Makes a directory.
    Mkdir = "mkdir" { parent: NodeId, name: Name<'a>, mode: u32 }
    /// Removes a name that leads to no directory.
    Unlink = "unlink" { parent: NodeId, name: Name<'a> }
    /// Removes an empty directory.
    Rmdir = "rmdir" { parent: NodeId, name: Name<'a> }
    /// Moves or swaps names.
    Rename = "rename" {
        parent: NodeId, name: Name<'a>,
        new_parent: NodeId, new_name: Name<'a>,
        flags: RenameFlags,
    }
    /// Gives a node a further name.
    Link = "link" { node: NodeId, new_parent: NodeId, new_name: Name<'a> }
    /// Opens a file.
    Open = "open" { node: NodeId, flags: OpenFlags, kill_priv: bool }
    /// Makes a file and opens it.
    Create = "create" {
        parent: NodeId, name: Name<'a>, mode: u32, flags: OpenFlags, kill_priv: bool,
    }
    /// Makes a file without a name and opens it.
    Tmpfile = "tmpfile" { parent: NodeId, mode: u32, flags: OpenFlags }
    /// Reads data; `size` is as asked for, before any [limit](super::Intercept::limit).
    Read = "read" { node: NodeId, handle: HandleId, offset: u64, size: usize }
    /// Writes data; `size` is as asked for, before any [limit](super::Intercept::limit).
    Write = "write" {
        node: NodeId, handle: HandleId, offset: u64, size: usize, flags: WriteFlags,
    }
    /// A descriptor was closed.
    Flush = "flush" { node: NodeId, handle: HandleId, owner: LockOwner }
    /// Makes a file durable.
    Fsync = "fsync" { node: NodeId, handle: HandleId, datasync: bool }
    /// Ends a file's handle. It is gone whatever the answer.
    Release = "release" { node: NodeId, handle: HandleId, release: Release }
    /// Allocates, frees or moves storage.
    Fallocate = "fallocate" {
        node: NodeId, handle: HandleId, mode: FallocateMode, offset: u64, len: u64,
    }
    /// Finds data or a hole.
    Lseek = "lseek" { node: NodeId, handle: HandleId, offset: u64, to: SeekTo }
    /// Copies data; `len` is as asked for, before any [limit](super::Intercept::limit).
    CopyFileRange = "copy_file_range" { from: CopyRange, to: CopyRange, len: u64 }
    /// Opens a directory.
    Opendir = "opendir" { node: NodeId, flags: OpenFlags }
    /// Lists a directory.
    Readdir = "readdir" { node: NodeId, handle: HandleId, cookie: u64 }
    /// Lists a directory with each entry looked up.
    Readdirplus = "readdirplus" { node: NodeId, handle: HandleId, cookie: u64 }
    /// Makes a directory's entries durable.
    Fsyncdir = "fsyncdir" { node: NodeId, handle: HandleId, datasync: bool }
    /// Ends a directory's handle. It is gone whatever the answer.
    Releasedir = "releasedir" { node: NodeId, handle: HandleId }
    /// Reads an extended attribute; `size` is the room for its value.
    Getxattr = "getxattr" { node: NodeId, name: XattrName<'a>, size: usize }
    /// Sets an extended attribute.
    Setxattr = "setxattr" {
        node: NodeId, name: XattrName<'a>, value: &'a [u8], mode: XattrMode, clear_setgid: bool,
    }
    /// Lists extended attributes; `size` is the room for their names.
    Listxattr = "listxattr" { node: NodeId, size: usize }
    /// Removes an extended attribute.
    Removexattr = "removexattr" { node: NodeId, name: XattrName<'a> }
    /// Asks for a right.
    Access = "access" { node: NodeId, mask: u32 }
    /// Asks for size and use of the filesystem.
    Statfs = "statfs" { node: NodeId }
    /// Makes the filesystem durable.
    Syncfs = "syncfs" { node: NodeId }
    /// Asks for a lock in the way.
    Getlk = "getlk" { node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock }
    /// Takes or gives up a lock without waiting.
    Setlk = "setlk" {
        node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock, flavour: LockFlavour,
    }
    /// Waits for a lock.
    Setlkw = "setlkw" {
        node: NodeId, handle: HandleId, owner: LockOwner, lock: FileLock, flavour: LockFlavour,
    }
    /// Reads an inode's flags.
    InodeFlags = "inode_flags" { node: NodeId }
    /// Sets an inode's flags.
    SetInodeFlags = "set_inode_flags" { node: NodeId, flags: u32 }
}

impl<'a> Op<'a> {
    /// The name of the trait's method.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Whether it would change something that a client can see: the namespace, attributes, data.
    ///
    /// Of the opens these are the ones that may write, cut or clear privileges, so that a
    /// filesystem which lets none of these through stays as it is. Locks, `fsync` and the end of
    /// handles and lookups change nothing by themselves.
    #[must_use]
    pub const fn is_mutation(&self) -> bool {
        match self {
            Self::Setattr { .. }
            | Self::Symlink { .. }
            | Self::Mknod { .. }
            | Self::Mkdir { .. }
            | Self::Unlink { .. }
            | Self::Rmdir { .. }
            | Self::Rename { .. }
            | Self::Link { .. }
            | Self::Create { .. }
            | Self::Tmpfile { .. }
            | Self::Write { .. }
            | Self::Fallocate { .. }
            | Self::CopyFileRange { .. }
            | Self::Setxattr { .. }
            | Self::Removexattr { .. }
            | Self::SetInodeFlags { .. } => true,
            Self::Open { flags, kill_priv, .. } => {
                flags.writable() || flags.truncate() || *kill_priv
            }
            Self::Opendir { flags, .. } => flags.writable() || flags.truncate(),
            Self::Lookup { .. }
            | Self::Forget { .. }
            | Self::BatchForget { .. }
            | Self::Getattr { .. }
            | Self::Readlink { .. }
            | Self::Read { .. }
            | Self::Flush { .. }
            | Self::Fsync { .. }
            | Self::Release { .. }
            | Self::Lseek { .. }
            | Self::Readdir { .. }
            | Self::Readdirplus { .. }
            | Self::Fsyncdir { .. }
            | Self::Releasedir { .. }
            | Self::Getxattr { .. }
            | Self::Listxattr { .. }
            | Self::Access { .. }
            | Self::Statfs { .. }
            | Self::Syncfs { .. }
            | Self::Getlk { .. }
            | Self::Setlk { .. }
            | Self::Setlkw { .. }
            | Self::InodeFlags { .. } => false,
        }
    }

    /// The node that is asked: of a request by name its parent, of a copy the source. `None` of a
    /// `batch_forget`, which has its own list.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        Some(match self {
            Self::Lookup { parent, .. }
            | Self::Symlink { parent, .. }
            | Self::Mknod { parent, .. }
            | Self::Mkdir { parent, .. }
            | Self::Unlink { parent, .. }
            | Self::Rmdir { parent, .. }
            | Self::Rename { parent, .. }
            | Self::Create { parent, .. }
            | Self::Tmpfile { parent, .. } => *parent,
            Self::CopyFileRange { from, .. } => from.node,
            Self::BatchForget { .. } => return None,
            Self::Forget { node, .. }
            | Self::Getattr { node, .. }
            | Self::Setattr { node, .. }
            | Self::Readlink { node }
            | Self::Link { node, .. }
            | Self::Open { node, .. }
            | Self::Read { node, .. }
            | Self::Write { node, .. }
            | Self::Flush { node, .. }
            | Self::Fsync { node, .. }
            | Self::Release { node, .. }
            | Self::Fallocate { node, .. }
            | Self::Lseek { node, .. }
            | Self::Opendir { node, .. }
            | Self::Readdir { node, .. }
            | Self::Readdirplus { node, .. }
            | Self::Fsyncdir { node, .. }
            | Self::Releasedir { node, .. }
            | Self::Getxattr { node, .. }
            | Self::Setxattr { node, .. }
            | Self::Listxattr { node, .. }
            | Self::Removexattr { node, .. }
            | Self::Access { node, .. }
            | Self::Statfs { node }
            | Self::Syncfs { node }
            | Self::Getlk { node, .. }
            | Self::Setlk { node, .. }
            | Self::Setlkw { node, .. }
            | Self::InodeFlags { node }
            | Self::SetInodeFlags { node, .. } => *node,
        })
    }

    /// The second node of a request with two: the new parent, or the target of a copy.
    #[must_use]
    pub const fn other_node(&self) -> Option<NodeId> {
        match self {
            Self::Rename { new_parent, .. } | Self::Link { new_parent, .. } => Some(*new_parent),
            Self::CopyFileRange { to, .. } => Some(to.node),
            _ => None,
        }
    }

    /// The handle that is used; of a copy the source's.
    #[must_use]
    pub const fn handle(&self) -> Option<HandleId> {
        match self {
            Self::Getattr { handle, .. } => *handle,
            Self::Setattr { set, .. } => set.handle,
            Self::CopyFileRange { from, .. } => Some(from.handle),
            Self::Read { handle, .. }
            | Self::Write { handle, .. }
            | Self::Flush { handle, .. }
            | Self::Fsync { handle, .. }
            | Self::Release { handle, .. }
            | Self::Fallocate { handle, .. }
            | Self::Lseek { handle, .. }
            | Self::Readdir { handle, .. }
            | Self::Readdirplus { handle, .. }
            | Self::Fsyncdir { handle, .. }
            | Self::Releasedir { handle, .. }
            | Self::Getlk { handle, .. }
            | Self::Setlk { handle, .. }
            | Self::Setlkw { handle, .. } => Some(*handle),
            _ => None,
        }
    }

    /// The name of the entry that is asked for, made, moved or removed; of a `link` the new one.
    #[must_use]
    pub const fn entry_name(&self) -> Option<Name<'a>> {
        match self {
            Self::Lookup { name, .. }
            | Self::Symlink { name, .. }
            | Self::Mknod { name, .. }
            | Self::Mkdir { name, .. }
            | Self::Unlink { name, .. }
            | Self::Rmdir { name, .. }
            | Self::Rename { name, .. }
            | Self::Create { name, .. } => Some(*name),
            Self::Link { new_name, .. } => Some(*new_name),
            _ => None,
        }
    }
}
