//! The FUSE protocol, driven from bytes.

mod alloc;
mod backing;
mod hostile;
mod init;
mod ledger;
mod locks;
mod malformed;
mod operations;
mod recorder;
mod requests;
mod share;
mod wire;
