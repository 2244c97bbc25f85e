//! The opcodes of FUSE up to 7.45.

/// What a request asks for: `enum fuse_opcode` of `include/uapi/linux/fuse.h`.
///
/// Those that no filesystem method stands behind (BMAP, POLL, the DAX mappings, CUSE) are not here:
/// they are answered as unknown ones are, with ENOSYS, which the kernel then asks for no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "each is the kernel's word for a method of the trait")]
pub enum Opcode {
    Lookup = 1,
    Forget = 2,
    Getattr = 3,
    Setattr = 4,
    Readlink = 5,
    Symlink = 6,
    Mknod = 8,
    Mkdir = 9,
    Unlink = 10,
    Rmdir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Statfs = 17,
    Release = 18,
    Fsync = 20,
    Setxattr = 21,
    Getxattr = 22,
    Listxattr = 23,
    Removexattr = 24,
    Flush = 25,
    Init = 26,
    Opendir = 27,
    Readdir = 28,
    Releasedir = 29,
    Fsyncdir = 30,
    Getlk = 31,
    Setlk = 32,
    Setlkw = 33,
    Access = 34,
    Create = 35,
    Interrupt = 36,
    Destroy = 38,
    Ioctl = 39,
    NotifyReply = 41,
    BatchForget = 42,
    Fallocate = 43,
    Readdirplus = 44,
    Rename2 = 45,
    Lseek = 46,
    CopyFileRange = 47,
    Syncfs = 50,
    Tmpfile = 51,
    Statx = 52,
    CopyFileRange64 = 53,
}

impl Opcode {
    /// Every opcode that is served, in the order of their numbers.
    pub const ALL: [Self; 47] = [
        Self::Lookup,
        Self::Forget,
        Self::Getattr,
        Self::Setattr,
        Self::Readlink,
        Self::Symlink,
        Self::Mknod,
        Self::Mkdir,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::Link,
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Statfs,
        Self::Release,
        Self::Fsync,
        Self::Setxattr,
        Self::Getxattr,
        Self::Listxattr,
        Self::Removexattr,
        Self::Flush,
        Self::Init,
        Self::Opendir,
        Self::Readdir,
        Self::Releasedir,
        Self::Fsyncdir,
        Self::Getlk,
        Self::Setlk,
        Self::Setlkw,
        Self::Access,
        Self::Create,
        Self::Interrupt,
        Self::Destroy,
        Self::Ioctl,
        Self::NotifyReply,
        Self::BatchForget,
        Self::Fallocate,
        Self::Readdirplus,
        Self::Rename2,
        Self::Lseek,
        Self::CopyFileRange,
        Self::Syncfs,
        Self::Tmpfile,
        Self::Statx,
        Self::CopyFileRange64,
    ];

    /// The opcode with this number, if it is served.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Lookup,
            2 => Self::Forget,
            3 => Self::Getattr,
            4 => Self::Setattr,
            5 => Self::Readlink,
            6 => Self::Symlink,
            8 => Self::Mknod,
            9 => Self::Mkdir,
            10 => Self::Unlink,
            11 => Self::Rmdir,
            12 => Self::Rename,
            13 => Self::Link,
            14 => Self::Open,
            15 => Self::Read,
            16 => Self::Write,
            17 => Self::Statfs,
            18 => Self::Release,
            20 => Self::Fsync,
            21 => Self::Setxattr,
            22 => Self::Getxattr,
            23 => Self::Listxattr,
            24 => Self::Removexattr,
            25 => Self::Flush,
            26 => Self::Init,
            27 => Self::Opendir,
            28 => Self::Readdir,
            29 => Self::Releasedir,
            30 => Self::Fsyncdir,
            31 => Self::Getlk,
            32 => Self::Setlk,
            33 => Self::Setlkw,
            34 => Self::Access,
            35 => Self::Create,
            36 => Self::Interrupt,
            38 => Self::Destroy,
            39 => Self::Ioctl,
            41 => Self::NotifyReply,
            42 => Self::BatchForget,
            43 => Self::Fallocate,
            44 => Self::Readdirplus,
            45 => Self::Rename2,
            46 => Self::Lseek,
            47 => Self::CopyFileRange,
            50 => Self::Syncfs,
            51 => Self::Tmpfile,
            52 => Self::Statx,
            53 => Self::CopyFileRange64,
            _ => return None,
        })
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// Whether the client waits for an answer. FORGET, BATCH_FORGET, INTERRUPT and NOTIFY_REPLY
    /// have none.
    #[must_use]
    pub const fn has_reply(self) -> bool {
        !matches!(self, Self::Forget | Self::BatchForget | Self::Interrupt | Self::NotifyReply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_raw_inverts_raw_and_knows_no_other_number() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_raw(opcode.raw()), Some(opcode));
        }
        let known = (0..5000).filter_map(Opcode::from_raw).count();
        assert_eq!(known, Opcode::ALL.len());
    }
}
