//! The operations, one file for each family.
//!
//! Each reads its arguments, checks the ids in them against the session's ledger, calls the one
//! method of the filesystem that stands behind it, and puts the answer into the reply.

pub(crate) mod attr;
pub(crate) mod create;
pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod misc;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod xattr;

use stratafs_core::{Errno, Result};

use super::decode::Args;
use super::dispatch::{Call, Refusal, Served};
use super::opcode::Opcode;

/// Serves an operation that has a reply. INIT, DESTROY and SETLKW are the dispatcher's.
pub(crate) fn with_reply(call: &mut Call<'_>, opcode: Opcode) -> Served {
    match opcode {
        Opcode::Lookup => lookup::lookup(call),
        Opcode::Getattr => attr::getattr(call),
        Opcode::Statx => attr::statx(call),
        Opcode::Setattr => attr::setattr(call),
        Opcode::Readlink => lookup::readlink(call),
        Opcode::Symlink => create::symlink(call),
        Opcode::Mknod => create::mknod(call),
        Opcode::Mkdir => create::mkdir(call),
        Opcode::Unlink => remove::unlink(call),
        Opcode::Rmdir => remove::rmdir(call),
        Opcode::Rename => rename::rename(call),
        Opcode::Rename2 => rename::rename2(call),
        Opcode::Link => create::link(call),
        Opcode::Open => file::open(call),
        Opcode::Create => create::create(call),
        Opcode::Tmpfile => create::tmpfile(call),
        Opcode::Read => file::read(call),
        Opcode::Write => file::write(call),
        Opcode::Flush => file::flush(call),
        Opcode::Fsync => file::fsync(call),
        Opcode::Release => file::release(call),
        Opcode::Fallocate => file::fallocate(call),
        Opcode::Lseek => file::lseek(call),
        Opcode::CopyFileRange => file::copy_file_range(call),
        Opcode::CopyFileRange64 => file::copy_file_range_64(call),
        Opcode::Opendir => dir::opendir(call),
        Opcode::Readdir => dir::readdir(call),
        Opcode::Readdirplus => dir::readdirplus(call),
        Opcode::Fsyncdir => dir::fsyncdir(call),
        Opcode::Releasedir => dir::releasedir(call),
        Opcode::Getxattr => xattr::getxattr(call),
        Opcode::Setxattr => xattr::setxattr(call),
        Opcode::Listxattr => xattr::listxattr(call),
        Opcode::Removexattr => xattr::removexattr(call),
        Opcode::Access => attr::access(call),
        Opcode::Statfs => misc::statfs(call),
        Opcode::Syncfs => misc::syncfs(call),
        Opcode::Getlk => lock::getlk(call),
        Opcode::Setlk => lock::setlk(call),
        Opcode::Ioctl => misc::ioctl(call),
        Opcode::Init
        | Opcode::Destroy
        | Opcode::Setlkw
        | Opcode::Forget
        | Opcode::BatchForget
        | Opcode::Interrupt
        | Opcode::NotifyReply => Err(Refusal::Errno(Errno::EIO)),
    }
}

/// Serves an operation that has no reply.
pub(crate) fn without_reply(call: &mut Call<'_>, opcode: Opcode) -> Result<()> {
    match opcode {
        Opcode::Forget => lookup::forget(call),
        Opcode::BatchForget => lookup::batch_forget(call),
        Opcode::Interrupt => lock::interrupt(call),
        // Nothing is ever retrieved from a client's cache, so this answers nothing.
        _ => Ok(()),
    }
}

/// An offset or a length in a file, which the kernel counts with a sign.
///
/// # Errors
/// `EINVAL`: it would be negative there.
pub(crate) fn file_offset(value: u64) -> Result<u64> {
    if i64::try_from(value).is_ok() { Ok(value) } else { Err(Errno::EINVAL) }
}
