//! Copies one object from one filesystem to another.
//!
//! [`copy`] makes a new object in a staging directory: type, data, owner, extended attributes, mode
//! and times with their nanoseconds. The caller then publishes it by one rename; until then nobody
//! sees it. A copy that fails leaves nothing behind. [`copy_data`] gives an object that was made
//! without data its data later.
//!
//! Data goes by extents, so that holes stay holes. Within one filesystem its own
//! `copy_file_range` is asked first, which may share storage. Between two, one side's `read` is
//! nested into the other's `write`: where both have a file on the host, the kernel copies from one
//! to the other and may share storage too; where one is memory, its bytes are used where they lie.
//! No buffer grows with the file.
//!
//! | module | what it holds |
//! |---|---|
//! | `object` | [`copy`]: the steps, in their order |
//! | `data` | the data of a regular file |
//! | `pump` | one filesystem's `read` nested into another's `write` |
//! | `xattrs` | extended attributes |
//!
//! # Absences
//!
//! It knows no backend and no layer, takes no lock, and publishes nothing.

#![forbid(unsafe_code)]

mod data;
mod object;
mod pump;
mod xattrs;

pub use data::{Data, copy_data};
pub use object::{Options, Source, Target, copy};
pub use xattrs::{list, value};
