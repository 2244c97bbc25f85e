//! Requests of the FUSE protocol, as a guest's kernel sends them.

use std::io;

use super::queue::{Call, Queue, Reply};

/// The root's node.
pub const ROOT: u64 = 1;
/// Bytes of `fuse_entry_out`.
pub const ENTRY_OUT: u32 = 128;
/// Bytes of `fuse_attr_out`.
pub const ATTR_OUT: u32 = 104;

/// Opcodes that are sent here.
#[expect(missing_docs, reason = "each is the kernel's word")]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SYMLINK: u32 = 6;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RENAME: u32 = 12;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const INIT: u32 = 26;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const SYNCFS: u32 = 50;
}

/// Arguments, written field after field.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<u8>);

impl Args {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Appends a name, and the NUL that ends it.
    #[must_use]
    pub fn name(mut self, name: impl AsRef<[u8]>) -> Self {
        self.0.extend(name.as_ref());
        self.0.push(0);
        self
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An answer's field.
fn field<const N: usize>(payload: &[u8], at: usize) -> io::Result<[u8; N]> {
    payload
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or_else(|| io::Error::other("the answer is cut short"))
}

pub(super) fn number(payload: &[u8], at: usize) -> io::Result<u64> {
    field(payload, at).map(u64::from_ne_bytes)
}

/// Sends a request and takes its payload.
///
/// # Errors
/// What the server answers; `InvalidData` where it answers nothing.
pub fn call(
    queue: &mut Queue,
    opcode: u32,
    node: u64,
    args: &Args,
    room: u32,
) -> io::Result<Vec<u8>> {
    send(queue, &Call { opcode, node, args: args.bytes(), data: &[], room: Some(room) })
}

fn send(queue: &mut Queue, call: &Call<'_>) -> io::Result<Vec<u8>> {
    queue.call(call)?.ok_or(io::ErrorKind::InvalidData)?.ok()
}

/// The flags that a guest of Linux 6.12 offers, as far as they change what the server is sent: those
/// of INIT up to 2³¹.
const FLAGS: u32 = 0x73ff_fffb;

/// INIT, of FUSE 7.41 (Linux 6.12); the minor version that the server speaks.
///
/// # Errors
/// What the server answers.
pub fn init(queue: &mut Queue) -> io::Result<u32> {
    let mut args = Args::new().u32(7).u32(41).u32(1 << 17).u32(FLAGS).u32(0);
    for _ in 0..11 {
        args = args.u32(0);
    }
    let payload = call(queue, op::INIT, 0, &args, 64)?;
    field(&payload, 4).map(u32::from_ne_bytes)
}

/// DESTROY.
///
/// # Errors
/// What the server answers.
pub fn destroy(queue: &mut Queue) -> io::Result<()> {
    call(queue, op::DESTROY, 0, &Args::new(), 0).map(drop)
}

/// LOOKUP; the node.
///
/// # Errors
/// What the server answers.
pub fn lookup(queue: &mut Queue, parent: u64, name: impl AsRef<[u8]>) -> io::Result<u64> {
    let payload = call(queue, op::LOOKUP, parent, &Args::new().name(name), ENTRY_OUT)?;
    match number(&payload, 0)? {
        0 => Err(io::ErrorKind::NotFound.into()),
        node => Ok(node),
    }
}

/// FORGET, which has no answer.
///
/// # Errors
/// `TimedOut`: it did not come back.
pub fn forget(queue: &mut Queue, node: u64, count: u64) -> io::Result<()> {
    let args = Args::new().u64(count);
    let none = Call { opcode: op::FORGET, node, args: args.bytes(), data: &[], room: None };
    match queue.call(&none)? {
        None => Ok(()),
        Some(_) => Err(io::Error::other("FORGET was answered")),
    }
}

/// What GETATTR tells, as far as it is looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u32,
}

/// GETATTR.
///
/// # Errors
/// What the server answers.
pub fn getattr(queue: &mut Queue, node: u64) -> io::Result<Attributes> {
    let args = Args::new().u32(0).u32(0).u64(0);
    let payload = call(queue, op::GETATTR, node, &args, ATTR_OUT)?;
    // `fuse_attr_out` begins with 16 bytes of timeout; in `fuse_attr` the size is at 8, the mode at 60.
    let mode = u32::from_ne_bytes(field(&payload, 16 + 60)?);
    Ok(Attributes { size: number(&payload, 16 + 8)?, mode })
}

/// MKDIR; the node.
///
/// # Errors
/// What the server answers.
pub fn mkdir(queue: &mut Queue, parent: u64, name: impl AsRef<[u8]>) -> io::Result<u64> {
    let args = Args::new().u32(0o755).u32(0o22).name(name);
    number(&call(queue, op::MKDIR, parent, &args, ENTRY_OUT)?, 0)
}

/// CREATE for reading and writing; the node and the handle.
///
/// # Errors
/// What the server answers.
pub fn create(queue: &mut Queue, parent: u64, name: impl AsRef<[u8]>) -> io::Result<(u64, u64)> {
    let args = Args::new().u32(O_RDWR).u32(0o100_644).u32(0o22).u32(0).name(name);
    let payload = call(queue, op::CREATE, parent, &args, ENTRY_OUT + 16)?;
    Ok((number(&payload, 0)?, number(&payload, ENTRY_OUT as usize)?))
}

/// O_RDWR of open(2).
const O_RDWR: u32 = 2;

/// OPEN for reading and writing; the handle.
///
/// # Errors
/// What the server answers.
pub fn open(queue: &mut Queue, node: u64) -> io::Result<u64> {
    let payload = call(queue, op::OPEN, node, &Args::new().u32(O_RDWR).u32(0), 16)?;
    number(&payload, 0)
}

/// RELEASE.
///
/// # Errors
/// What the server answers.
pub fn release(queue: &mut Queue, node: u64, handle: u64) -> io::Result<()> {
    let args = Args::new().u64(handle).u32(O_RDWR).u32(0).u64(0);
    call(queue, op::RELEASE, node, &args, 0).map(drop)
}

/// Arguments of READ.
#[must_use]
pub fn read_args(handle: u64, offset: u64, size: u32) -> Args {
    Args::new().u64(handle).u64(offset).u32(size).u32(0).u64(0).u32(O_RDWR).u32(0)
}

/// READ.
///
/// # Errors
/// What the server answers.
pub fn read(
    queue: &mut Queue,
    node: u64,
    handle: u64,
    offset: u64,
    size: u32,
) -> io::Result<Vec<u8>> {
    call(queue, op::READ, node, &read_args(handle, offset, size), size)
}

/// Arguments of WRITE.
#[must_use]
pub fn write_args(handle: u64, offset: u64, size: u32) -> Args {
    read_args(handle, offset, size)
}

/// WRITE; how many bytes were taken.
///
/// # Errors
/// What the server answers.
pub fn write(
    queue: &mut Queue,
    node: u64,
    handle: u64,
    offset: u64,
    data: &[u8],
) -> io::Result<u32> {
    let size = u32::try_from(data.len()).map_err(io::Error::other)?;
    let args = write_args(handle, offset, size);
    let call = Call { opcode: op::WRITE, node, args: args.bytes(), data, room: Some(8) };
    field(&send(queue, &call)?, 0).map(u32::from_ne_bytes)
}

/// FSYNC.
///
/// # Errors
/// What the server answers.
pub fn fsync(queue: &mut Queue, node: u64, handle: u64) -> io::Result<()> {
    call(queue, op::FSYNC, node, &Args::new().u64(handle).u32(0).u32(0), 0).map(drop)
}

/// SYNCFS.
///
/// # Errors
/// What the server answers.
pub fn syncfs(queue: &mut Queue) -> io::Result<()> {
    call(queue, op::SYNCFS, ROOT, &Args::new().u64(0), 0).map(drop)
}

/// UNLINK.
///
/// # Errors
/// What the server answers.
pub fn unlink(queue: &mut Queue, parent: u64, name: impl AsRef<[u8]>) -> io::Result<()> {
    call(queue, op::UNLINK, parent, &Args::new().name(name), 0).map(drop)
}

/// The errno of a request that may be malformed; `None` where it came back unanswered.
///
/// # Errors
/// `TimedOut`: it did not come back.
pub fn errno_of(queue: &mut Queue, call: &Call<'_>) -> io::Result<Option<i32>> {
    Ok(queue.call(call)?.map(|Reply { errno, .. }| errno))
}
