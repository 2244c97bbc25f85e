//! Notifications, as the bytes that a transport writes to its client.

use stratafs_core::{Name, NodeId};

use super::wire::{NotifyDelete, NotifyInvalEntry, NotifyInvalInode, OutHeader};

/// Something that a client's kernel is told unasked.
///
/// The kernel answers ENOENT where it keeps nothing of the object, which is no error to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Data and attributes of `node` changed: FUSE_NOTIFY_INVAL_INODE.
    InvalInode {
        /// The node.
        node: NodeId,
        /// The first byte; below 0 the attributes alone.
        offset: i64,
        /// How many bytes; 0 is up to the end.
        len: i64,
    },
    /// A name may lead elsewhere: FUSE_NOTIFY_INVAL_ENTRY.
    InvalEntry {
        /// The directory.
        parent: NodeId,
        /// The name in it.
        name: Name<'a>,
    },
    /// A name is looked up again before it is next used, but what is mounted on or opened through
    /// it stays: FUSE_NOTIFY_INVAL_ENTRY with FUSE_EXPIRE_ONLY, since 7.38.
    ExpireEntry {
        /// The directory.
        parent: NodeId,
        /// The name in it.
        name: Name<'a>,
    },
    /// A name is gone: FUSE_NOTIFY_DELETE. Whoever watches it by inotify(7) is told.
    Delete {
        /// The directory.
        parent: NodeId,
        /// What the name led to.
        child: NodeId,
        /// The name.
        name: Name<'a>,
    },
    /// Every name may lead elsewhere: FUSE_NOTIFY_INC_EPOCH, since 7.44.
    IncEpoch,
}

/// The codes of `enum fuse_notify_code`.
mod code {
    pub(super) const INVAL_INODE: i32 = 2;
    pub(super) const INVAL_ENTRY: i32 = 3;
    pub(super) const DELETE: i32 = 6;
    pub(super) const INC_EPOCH: i32 = 8;
}

/// `fuse_notify_inval_entry_out.flags`: expire, do not drop.
const EXPIRE_ONLY: u32 = 1 << 0;

/// The minor version since which a client knows [`Notice::IncEpoch`].
pub const INC_EPOCH_MINOR: u32 = 44;

impl Notice<'_> {
    /// The longest notice, in bytes.
    pub const MAX_SIZE: usize = OutHeader::SIZE + NotifyDelete::SIZE + 256;

    /// Replaces what `out` holds by the notice, header included. With a capacity of
    /// [`Notice::MAX_SIZE`] it allocates nothing.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        // The length is known at the end.
        out.extend_from_slice(&[0; OutHeader::SIZE]);
        let code = match *self {
            Self::InvalInode { node, offset, len } => {
                let body = NotifyInvalInode { ino: node.0, off: offset, len };
                out.extend_from_slice(&body.to_bytes());
                code::INVAL_INODE
            }
            Self::InvalEntry { parent, name } => {
                inval_entry(out, parent, name, 0);
                code::INVAL_ENTRY
            }
            Self::ExpireEntry { parent, name } => {
                inval_entry(out, parent, name, EXPIRE_ONLY);
                code::INVAL_ENTRY
            }
            Self::Delete { parent, child, name } => {
                let namelen = name_len(name);
                let body = NotifyDelete { parent: parent.0, child: child.0, namelen, padding: 0 };
                out.extend_from_slice(&body.to_bytes());
                put_name(out, name);
                code::DELETE
            }
            Self::IncEpoch => code::INC_EPOCH,
        };
        let len = u32::try_from(out.len()).unwrap_or(u32::MAX);
        // Unique 0 is what makes it a notice, and the code is where a reply has its error.
        if let Some(head) = out.first_chunk_mut() {
            *head = OutHeader { len, error: code, unique: 0 }.to_bytes();
        }
    }
}

fn inval_entry(out: &mut Vec<u8>, parent: NodeId, name: Name<'_>, flags: u32) {
    let body = NotifyInvalEntry { parent: parent.0, namelen: name_len(name), flags };
    out.extend_from_slice(&body.to_bytes());
    put_name(out, name);
}

fn name_len(name: Name<'_>) -> u32 {
    u32::try_from(name.as_bytes().len()).unwrap_or(u32::MAX)
}

/// The name and the NUL that `namelen` does not count.
fn put_name(out: &mut Vec<u8>, name: Name<'_>) {
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(notice: Notice<'_>) -> (OutHeader, Vec<u8>) {
        let mut out = Vec::with_capacity(Notice::MAX_SIZE);
        let capacity = out.capacity();
        notice.encode(&mut out);
        assert_eq!(out.capacity(), capacity, "it grew");
        let header = OutHeader::from_bytes(&out).unwrap();
        assert_eq!(header.len as usize, out.len());
        assert_eq!(header.unique, 0);
        (header, out.split_off(OutHeader::SIZE))
    }

    #[test]
    fn encode_puts_the_code_where_a_reply_has_its_error() {
        let longest = [b'n'; 255];
        let name = Name::new(&longest).unwrap();
        let (parent, child) = (NodeId(3), NodeId(4));
        for (notice, error, len) in [
            (Notice::InvalInode { node: child, offset: -1, len: 0 }, 2, 24),
            (Notice::InvalEntry { parent, name }, 3, 16 + 256),
            (Notice::ExpireEntry { parent, name }, 3, 16 + 256),
            (Notice::Delete { parent, child, name }, 6, 24 + 256),
            (Notice::IncEpoch, 8, 0),
        ] {
            let (header, body) = encoded(notice);
            assert_eq!((header.error, body.len()), (error, len), "{notice:?}");
        }
    }

    #[test]
    fn encode_of_an_entry_ends_in_its_name_and_a_nul() {
        let notice = Notice::ExpireEntry { parent: NodeId(9), name: Name::new(b"ab").unwrap() };
        let (_, body) = encoded(notice);
        let head = NotifyInvalEntry::from_bytes(&body).unwrap();
        assert_eq!((head.parent, head.namelen, head.flags), (9, 2, EXPIRE_ONLY));
        assert_eq!(&body[NotifyInvalEntry::SIZE..], b"ab\0");
    }
}
