//! One good request of each opcode, for a client that has something to name.

use stratafs::protocol::Opcode;

use super::wire::{Body, Client, O_RDWR, create_body, node_of, read_body, write_body};

/// The node ids and handles of a client: `dir` in the root with `file` (holding `data`) and the
/// symlink `link` in it, both open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) dir: u64,
    pub(crate) file: u64,
    pub(crate) link: u64,
    pub(crate) fh: u64,
    pub(crate) dir_fh: u64,
}

impl Ids {
    /// Makes all of it.
    pub(crate) fn make(client: &mut Client) -> Self {
        let dir = client.mkdir(1, b"dir");
        let (file, fh) = client.create(dir, b"file");
        client.write(file, fh, 0, b"data").unwrap();
        let symlink = Body::new().name(b"link").name(b"target");
        let link = node_of(&client.ask(Opcode::Symlink, dir, &symlink).unwrap());
        let dir_fh = client.open(Opcode::Opendir, dir, 0).unwrap();
        Self { dir, file, link, fh, dir_fh }
    }

    pub(crate) fn holds(&self, node: u64) -> bool {
        [1, self.dir, self.file, self.link].contains(&node)
    }

    pub(crate) fn with_node(self, node: u64) -> Self {
        Self { dir: node, file: node, link: node, ..self }
    }

    pub(crate) fn with_handle(self, handle: u64) -> Self {
        Self { fh: handle, dir_fh: handle, ..self }
    }
}

/// A good request.
#[derive(Clone, Debug)]
pub(crate) struct Valid {
    pub(crate) opcode: Opcode,
    pub(crate) node: u64,
    pub(crate) body: Body,
    /// Whether it names a handle.
    pub(crate) uses_handle: bool,
}

/// One of each opcode but INIT and DESTROY, INTERRUPT and NOTIFY_REPLY, in an order in which all
/// succeed.
pub(crate) fn valid_requests(ids: &Ids) -> Vec<Valid> {
    let mut all = Vec::new();
    let mut by_node = |opcode, node, body| {
        all.push(Valid { opcode, node, body, uses_handle: false });
    };
    let &Ids { dir, file, link, fh, dir_fh } = ids;
    let new = Body::new;
    by_node(Opcode::Lookup, dir, new().name(b"file"));
    by_node(Opcode::Getattr, file, new().u32(0).u32(0).u64(0));
    by_node(Opcode::Statx, file, new().u32(0).u32(0).u64(0).u32(0).u32(0xfff));
    by_node(Opcode::Setattr, file, setattr_mode(0o600));
    by_node(Opcode::Readlink, link, new());
    by_node(Opcode::Symlink, dir, new().name(b"l2").name(b"there"));
    by_node(Opcode::Mknod, dir, new().u32(0o010_644).u32(0).u32(0).u32(0).name(b"fifo"));
    by_node(Opcode::Mkdir, dir, new().u32(0o755).u32(0).name(b"sub"));
    by_node(Opcode::Rmdir, dir, new().name(b"sub"));
    by_node(Opcode::Unlink, dir, new().name(b"fifo"));
    by_node(Opcode::Rename, dir, new().u64(dir).name(b"l2").name(b"l3"));
    by_node(Opcode::Rename2, dir, new().u64(dir).u32(1).u32(0).name(b"l3").name(b"l4"));
    by_node(Opcode::Link, dir, new().u64(file).name(b"hard"));
    by_node(Opcode::Open, file, new().u32(O_RDWR).u32(0));
    by_node(Opcode::Create, dir, create_body(O_RDWR, 0o644, b"made"));
    by_node(Opcode::Tmpfile, dir, create_body(O_RDWR, 0o600, b"/"));
    by_node(Opcode::Statfs, dir, new());
    by_node(
        Opcode::Setxattr,
        file,
        new().u32(3).u32(0).u32(0).u32(0).name(b"user.a").bytes(b"abc"),
    );
    by_node(Opcode::Getxattr, file, new().u32(100).u32(0).name(b"user.a"));
    by_node(Opcode::Listxattr, file, new().u32(100).u32(0));
    by_node(Opcode::Removexattr, file, new().name(b"user.a"));
    by_node(Opcode::Opendir, dir, new().u32(0).u32(0));
    by_node(Opcode::Access, file, new().u32(4).u32(0));
    by_node(Opcode::Syncfs, dir, new().u64(0));

    let mut by_handle = |opcode, node, body| {
        all.push(Valid { opcode, node, body, uses_handle: true });
    };
    by_handle(Opcode::Getattr, file, new().u32(1).u32(0).u64(fh));
    by_handle(Opcode::Setattr, file, setattr_size(fh, 8));
    by_handle(Opcode::Write, file, write_body(fh, 0, b"data"));
    by_handle(Opcode::Read, file, read_body(fh, 0, 4096));
    by_handle(Opcode::Fsync, file, new().u64(fh).u32(1).u32(0));
    by_handle(Opcode::Flush, file, new().u64(fh).u64(0).u64(5));
    by_handle(Opcode::Fallocate, file, new().u64(fh).u64(0).u64(4096).u32(0).u32(0));
    by_handle(Opcode::Lseek, file, new().u64(fh).u64(0).u32(3).u32(0));
    for opcode in [Opcode::CopyFileRange, Opcode::CopyFileRange64] {
        by_handle(opcode, file, new().u64(fh).u64(0).u64(file).u64(fh).u64(100).u64(4).u64(0));
    }
    by_handle(Opcode::Readdir, dir, read_body(dir_fh, 0, 4096));
    by_handle(Opcode::Readdirplus, dir, read_body(dir_fh, 0, 4096));
    by_handle(Opcode::Fsyncdir, dir, new().u64(dir_fh).u32(0).u32(0));
    by_handle(Opcode::Getlk, file, lock_body(fh, 5, 1));
    by_handle(Opcode::Setlk, file, lock_body(fh, 5, 1));
    by_handle(Opcode::Setlkw, file, lock_body(fh, 5, 2));
    by_handle(Opcode::Ioctl, file, ioctl_body(fh, 0x8008_6601, b"", 8));
    by_handle(Opcode::Release, file, new().u64(fh).u32(0).u32(0).u64(0));
    by_handle(Opcode::Releasedir, dir, new().u64(dir_fh).u32(0).u32(0).u64(0));

    let mut forgets = |opcode, body| {
        all.push(Valid { opcode, node: file, body, uses_handle: false });
    };
    forgets(Opcode::Forget, new().u64(1));
    forgets(Opcode::BatchForget, new().u32(2).u32(0).u64(link).u64(1).u64(file).u64(1));
    all
}

/// `fuse_setattr_in` with a mode.
pub(crate) fn setattr_mode(mode: u32) -> Body {
    setattr(1, 0, 0, mode)
}

/// `fuse_setattr_in` with a size and a handle.
pub(crate) fn setattr_size(fh: u64, size: u64) -> Body {
    setattr(1 << 3 | 1 << 6, fh, size, 0)
}

/// `fuse_setattr_in` with these fields and no others.
pub(crate) fn setattr(valid: u32, fh: u64, size: u64, mode: u32) -> Body {
    let head = Body::new().u32(valid).u32(0).u64(fh).u64(size).u64(0);
    head.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0).u32(mode).u32(0).u32(0).u32(0).u32(0)
}

/// `fuse_lk_in` of a POSIX lock on the whole file; kinds are 0 (read), 1 (write), 2 (none).
pub(crate) fn lock_body(fh: u64, owner: u64, kind: u32) -> Body {
    let range = Body::new().u64(fh).u64(owner).u64(0).u64(i64::MAX.cast_unsigned());
    range.u32(kind).u32(77).u32(0).u32(0)
}

/// `fuse_ioctl_in` and its data.
pub(crate) fn ioctl_body(fh: u64, cmd: u32, data: &[u8], out_size: u32) -> Body {
    let size = u32::try_from(data.len()).unwrap();
    Body::new().u64(fh).u32(0).u32(cmd).u64(0).u32(size).u32(out_size).bytes(data)
}
