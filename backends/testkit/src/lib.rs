//! Conformance cases, models and fault injection for stratafs backends.
//!
//! For authors of a filesystem: give yours to [`Stack::in_process`], run the map, and assert that
//! it passed.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn my_filesystem() -> Arc<dyn stratafs_core::DynFileSystem> { unimplemented!() }
//! use stratafs_testkit::{Capabilities, Stack};
//!
//! Stack::in_process("mine", my_filesystem())
//!     .without(Capabilities::HARD_LINKS, "the medium has none")
//!     .run()
//!     .assert_passed();
//! ```
//!
//! The same cases run through a kernel, by [`Stack::mounted`] on the directory where the filesystem
//! is mounted. They are written from the contract of
//! [`DynFileSystem`](stratafs_core::DynFileSystem), the man pages and what the kernel's own
//! filesystems do; the tests of this package run them on tmpfs and on whatever filesystem the
//! temporary directory is on.
//!
//! # What a filesystem cannot do
//!
//! A capability that is missing is a gap, declared with its reason ([`Stack::without`]); a single
//! case can be excused ([`Stack::excuse`]). In process, what
//! [`Features`](stratafs_core::Features) leave out is a gap of itself. Nothing is skipped silently:
//! the [`Report`] counts and gives reasons, and an excuse for a case that is no more fails the run.
//!
//! Every case starts in an empty directory of its own, as root without a umask, and ends with a leak
//! check: every lookup forgotten, every handle released (in process), and as many blocks and inodes
//! in use as before, unless [`ACCOUNTING`](Capabilities::ACCOUNTING) is a gap.
//!
//! # Beyond the map
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn my_filesystem() -> Arc<dyn stratafs_core::DynFileSystem> { unimplemented!() }
//! # fn my_layer(_: Arc<dyn stratafs_core::DynFileSystem>) -> Arc<dyn stratafs_core::DynFileSystem> {
//! #     unimplemented!() }
//! use stratafs_core::{Errno, Intercepted};
//! use stratafs_testkit::{Faulty, ModelRun, Stack, Stress, sweep};
//!
//! let stack = Stack::in_process("mine", my_filesystem());
//! // Random operations, compared with a model after every step and cut down when they differ.
//! ModelRun::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
//! // Four threads on a few names, and a look at the tree that they leave.
//! Stress::from_env().run(&stack).unwrap_or_else(|found| panic!("{found}"));
//! // A layer over a filesystem of which each request fails in its turn.
//! let build = |faulty: Faulty| my_layer(Arc::new(Intercepted::new(my_filesystem(), faulty)));
//! sweep(Errno::EIO, build, |w| w.file("f", b"data"), |_| Ok(())).unwrap();
//! ```
//!
//! `STRATAFS_MODEL_LISTS`, `STRATAFS_MODEL_LONGEST`, `STRATAFS_MODEL_SEED`,
//! `STRATAFS_STRESS_OPERATIONS` and `STRATAFS_STRESS_SEED` make the random runs longer, or others.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | [`Client`]: a filesystem in the terms of the system calls, in process or mounted |
//! | [`case`] | [`Case`]: what one promise looks like |
//! | [`runner`] | [`Stack`]: what the map runs on; [`Report`]: how that went |
//! | [`world`] | [`World`]: what a case works with |
//! | [`verdict`] | the checks of a case |
//! | [`capability`] | [`Capabilities`]: what a case needs |
//! | [`counted`] | [`Ledger`]: the leak check |
//! | [`model`] | [`ModelRun`]: random operations against a plain model |
//! | [`stress`] | [`Stress`]: many threads at random |
//! | [`faulty`] | [`Faulty`]: requests that fail, and [`sweep`]: each in its turn |
//! | [`consistency`] | [`check_tree`]: whether a tree makes sense by itself |
//!
//! # A case of your own
//!
//! ```
//! use stratafs_testkit::{Case, Family, Verdict, World, equal};
//!
//! fn mkdir_twice_makes_two(world: &World<'_>) -> Verdict {
//!     world.mkdir("a", 0o755)?;
//!     world.mkdir("b", 0o755)?;
//!     equal(world.names("")?, ["a", "b"], "the listing")
//! }
//! const CASE: Case = Case::new("mkdir_twice_makes_two", Family::Create, mkdir_twice_makes_two);
//! ```
//!
//! # Lock order
//!
//! The tables of a client and of a [`Ledger`] are leaves: nothing is called while one is locked.
//!
//! # Absences
//!
//! It knows no backend and mounts nothing. Hostile names cannot be written down here, since
//! [`Name`](stratafs_core::Name) refuses them: they are for the tests of whoever parses requests.

#![forbid(unsafe_code)]

pub mod capability;
pub mod case;
mod cases;
pub mod client;
pub mod consistency;
pub mod counted;
pub mod faulty;
pub mod model;
pub mod runner;
pub mod stress;
pub mod verdict;
pub mod world;

pub use capability::Capabilities;
pub use case::{Case, Family, Place};
pub use cases::cases;
pub use client::{Caller, Client, Fd, InProcess, Listed, Mounted};
pub use consistency::check_tree;
pub use counted::{Counted, Ledger};
pub use faulty::{Faulty, sweep};
pub use model::{Disagreement, ModelRun};
pub use runner::{Report, Stack};
pub use stress::Stress;
pub use verdict::{Failure, Verdict, equal, holds, refused, refused_any};
pub use world::World;
