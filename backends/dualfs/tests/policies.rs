//! The tables of the policies: for each policy and operation, which side is asked, which is written,
//! and what is transferred.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stratafs_core::{DynFileSystem, Errno, NodeId, OpKind, OpenFlags, Result, XattrMode};
use stratafs_dualfs::{DispatchPolicy, DualFs, Look, Plan, Request, Side, Transfer};
use stratafs_testkit::World;
use support::sides::{Sides, Watch, of_both, policies, side};
use support::{cx, mem, name, on};

/// A request, done to what B alone has.
struct Operation {
    name: &'static str,
    run: fn(&World<'_>) -> Result<()>,
    /// What A has afterwards under the names that it did not have.
    leaves: &'static [(&'static str, Left)],
}

/// What is left on A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A copy of what B has, or what was made of it.
    Object,
    /// A mark that it is gone.
    Mark,
}
use Left::{Mark, Nothing, Object};

const fn reading(name: &'static str, run: fn(&World<'_>) -> Result<()>) -> Operation {
    Operation { name, run, leaves: &[("d", Nothing), ("d/f", Nothing), ("d/sub", Nothing)] }
}

const fn changing(
    name: &'static str,
    run: fn(&World<'_>) -> Result<()>,
    leaves: &'static [(&'static str, Left)],
) -> Operation {
    Operation { name, run, leaves }
}

/// What reads: nothing is transferred, and A is never written.
const READS: &[Operation] = &[
    reading("lookup", |w| w.stat("d/f").map(drop)),
    reading("readdir", |w| w.list("d").map(drop)),
    reading("readlink", |w| w.readlink("d/link").map(drop)),
    reading("open and read", |w| w.read("d/f").map(drop)),
    reading("getxattr", |w| w.getxattr("d/f", b"user.x").map(drop)),
    reading("listxattr", |w| w.listxattr("d/f").map(drop)),
    reading("statfs", |w| w.statfs().map(drop)),
];

/// What changes: the object goes to A first, with its parents, and nothing else does.
const CHANGES: &[Operation] = &[
    changing(
        "write",
        |w| w.write_at("d/f", 1, b"X"),
        &[("d", Object), ("d/f", Object), ("d/g", Nothing), ("d/sub", Nothing)],
    ),
    changing(
        "open to be cut",
        |w| {
            let fd = w.create("d/f", OpenFlags::WRITE_ONLY.with_truncate(), 0o600)?;
            w.close(fd)
        },
        &[("d", Object), ("d/f", Object)],
    ),
    changing("truncate", |w| w.truncate("d/f", 2), &[("d", Object), ("d/f", Object)]),
    changing("chmod", |w| w.chmod("d/f", 0o600), &[("d", Object), ("d/f", Object)]),
    changing("chown", |w| w.chown("d/link", Some(7), None), &[("d", Object), ("d/link", Object)]),
    changing(
        "chmod of a directory",
        |w| w.chmod("d/sub", 0o700),
        &[("d", Object), ("d/sub", Object), ("d/sub/deep", Nothing)],
    ),
    changing(
        "setxattr",
        |w| w.setxattr("d/f", b"user.y", b"2", XattrMode::Set),
        &[("d", Object), ("d/f", Object)],
    ),
    changing("removexattr", |w| w.removexattr("d/f", b"user.x"), &[("d", Object), ("d/f", Object)]),
    changing(
        "create",
        |w| w.file("d/new", b""),
        &[("d", Object), ("d/new", Object), ("d/f", Nothing)],
    ),
    changing("mkdir", |w| w.mkdir("d/new", 0o755), &[("d", Object), ("d/new", Object)]),
    changing("symlink", |w| w.symlink("x", "d/new"), &[("d", Object), ("d/new", Object)]),
    changing("mknod", |w| w.mknod("d/new", 0o010_600, 0), &[("d", Object), ("d/new", Object)]),
    changing(
        "link",
        |w| w.link("d/f", "d/new"),
        &[("d", Object), ("d/f", Object), ("d/new", Object), ("d/g", Nothing)],
    ),
    // What is deleted is not copied first.
    changing("unlink", |w| w.unlink("d/f"), &[("d", Object), ("d/f", Mark), ("d/g", Nothing)]),
    changing("rmdir", |w| w.rmdir("empty"), &[("empty", Mark), ("d", Nothing)]),
];

/// Renames, with policies that transfer what is renamed.
const RENAMES: &[Operation] = &[
    changing(
        "rename of a file",
        |w| w.rename("d/f", "d/new"),
        &[("d", Object), ("d/f", Mark), ("d/new", Object), ("d/g", Nothing)],
    ),
    changing(
        "rename of a directory",
        |w| w.rename("d/sub", "new"),
        &[("d", Object), ("d/sub", Mark), ("new", Object), ("new/deep", Object), ("d/f", Nothing)],
    ),
];

fn fill(w: &World<'_>) {
    w.mkdir("d", 0o755).unwrap();
    w.file("d/f", b"of B").unwrap();
    w.setxattr("d/f", b"user.x", b"1", XattrMode::Set).unwrap();
    w.file("d/g", b"of B").unwrap();
    w.symlink("f", "d/link").unwrap();
    w.mkdir("d/sub", 0o755).unwrap();
    w.file("d/sub/deep", b"of B").unwrap();
    w.mkdir("empty", 0o755).unwrap();
}

/// What A has at `path`, seen past the filesystem.
fn left(a: &Arc<dyn DynFileSystem>, path: &str) -> Left {
    on(a, |w| match w.stat(path) {
        Err(_) => Nothing,
        Ok(_) if w.getxattr(path, b"trusted.dual.whiteout").is_ok() => Mark,
        Ok(_) => Object,
    })
}

/// Which changes of A may be made by an operation that changes nothing: none.
fn changes(watch: &Watch) -> Vec<OpKind> {
    let reads = [
        OpKind::Lookup,
        OpKind::Forget,
        OpKind::Getattr,
        OpKind::Readlink,
        OpKind::Open,
        OpKind::Read,
        OpKind::Release,
        OpKind::Opendir,
        OpKind::Readdir,
        OpKind::Readdirplus,
        OpKind::Releasedir,
        OpKind::Getxattr,
        OpKind::Listxattr,
        OpKind::Statfs,
        OpKind::Flush,
        OpKind::Lseek,
    ];
    watch.kinds().into_iter().filter(|kind| !reads.contains(kind)).collect()
}

/// Both sides, watched.
fn watched() -> (Sides, Arc<Watch>, Arc<Watch>) {
    let (a, of_a) = Watch::over(mem());
    let (b, of_b) = Watch::over(side(fill));
    (Sides { a, b }, of_a, of_b)
}

fn done(policy: &Arc<dyn DispatchPolicy>, operation: &Operation) {
    let (sides, of_a, of_b) = watched();
    let fs = sides.build(policy);
    of_a.clear();
    of_b.clear();
    let at = format!("{} with {}", operation.name, policy.name());
    assert_eq!(on(&fs, operation.run), Ok(()), "{at}");
    assert_eq!(changes(&of_b), [], "B is never written: {at}");
    let reads = operation.leaves.iter().all(|(_, left)| *left == Nothing);
    assert_eq!(changes(&of_a).is_empty(), reads, "{at}: {:?}", of_a.kinds());
    for (path, expected) in operation.leaves {
        assert_eq!(left(&sides.a, path), *expected, "{path} on A after {at}");
    }
}

#[test]
fn reads_of_what_b_has_transfer_nothing_and_write_nowhere() {
    for policy in of_both() {
        READS.iter().for_each(|operation| done(&policy, operation));
    }
}

#[test]
fn changes_of_what_b_has_go_to_a_with_what_the_table_says() {
    for policy in of_both() {
        CHANGES.iter().for_each(|operation| done(&policy, operation));
    }
}

#[test]
fn renames_of_what_b_has_transfer_it_or_are_exdev_as_the_table_says() {
    let [read_b, fallback, merge] = of_both();
    for policy in [read_b, merge] {
        RENAMES.iter().for_each(|operation| done(&policy, operation));
    }
    for operation in RENAMES {
        let (sides, of_a, of_b) = watched();
        let fs = sides.build(&fallback);
        of_a.clear();
        assert_eq!(on(&fs, operation.run), Err(Errno::EXDEV), "{}", operation.name);
        assert_eq!((changes(&of_a), changes(&of_b)), (vec![], vec![]), "{}", operation.name);
    }
}

#[test]
fn backend_a_only_never_asks_b() {
    let (sides, _, of_b) = watched();
    let fs = sides.build(&policies()[1]);
    of_b.clear();
    on(&fs, |w| {
        assert_eq!(w.stat("d").unwrap_err(), Errno::ENOENT);
        assert_eq!(w.names("").unwrap(), [""; 0]);
        w.mkdir("d", 0o755).unwrap();
        w.file("d/f", b"of A").unwrap();
        w.rename("d", "e").unwrap();
        w.statfs().unwrap();
    });
    assert_eq!(of_b.kinds(), []);
    assert_eq!(on(&sides.a, |w| w.read("e/f")), Ok(b"of A".to_vec()));
}

#[test]
fn name_that_both_have_leads_where_the_policy_looks_first() {
    let [read_b, fallback, merge] = of_both();
    for (policy, shown) in [(read_b, b"of B"), (fallback, b"of A"), (merge, b"of A")] {
        let a = side(|w| {
            w.mkdir("d", 0o755).unwrap();
            w.file("d/f", b"of A").unwrap();
            w.file("d/a", b"of A").unwrap();
        });
        let sides = Sides { a, b: side(fill) };
        on(&sides.build(&policy), |w| {
            assert_eq!(w.read("d/f").unwrap(), shown, "{}", policy.name());
            let mut names = w.names("d").unwrap();
            names.sort();
            assert_eq!(names, ["a", "f", "g", "link", "sub"], "merged, each once");
            w.write_at("d/f", 0, b"new").unwrap();
        });
        // What was written is read, whichever side comes first; in a later run too.
        let written = [b"new", &shown[3..]].concat();
        on(&sides.build(&policy), |w| assert_eq!(w.read("d/f").unwrap(), written));
    }
}

#[test]
fn statfs_is_of_a_or_of_both_as_the_policy_says() {
    let blocks = |fs: &Arc<dyn DynFileSystem>| {
        let stat = fs.statfs(&cx(), NodeId::ROOT).unwrap();
        (stat.blocks - stat.bfree, stat.bfree)
    };
    let data = vec![7; 1 << 20];
    let sides = Sides::new(|w| w.file("large", &data).unwrap());
    let (of_b, _) = blocks(&sides.b);
    for policy in policies() {
        let fs = sides.build(&policy);
        let (of_a, free) = blocks(&sides.a);
        let counts_b = policy.name() == "merge-reads-backend-a-precedence";
        let used = of_a + if counts_b { of_b } else { 0 };
        assert_eq!(blocks(&fs), (used, free), "{}", policy.name());
    }
}

/// Brings a file of B over as soon as it is opened.
struct ReadThrough;

impl DispatchPolicy for ReadThrough {
    fn name(&self) -> &'static str {
        "read-through"
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        let look = Look::Both(Side::A);
        match request.op {
            OpKind::Open => Plan::write(look, Transfer::Object),
            _ if request.changes => Plan::write(look, Transfer::Nothing),
            _ => Plan::read(look),
        }
    }
}

/// The other way round: B is written.
struct WritesB;

impl DispatchPolicy for WritesB {
    fn name(&self) -> &'static str {
        "writes-b"
    }

    fn written(&self) -> Side {
        Side::B
    }

    fn plan(&self, request: &Request<'_>) -> Plan {
        let look = Look::Both(Side::B);
        if request.changes { Plan::write(look, Transfer::Tree) } else { Plan::read(look) }
    }
}

#[test]
fn policy_of_an_embedder_is_done_as_it_says() {
    let sides = Sides::new(fill);
    let fs = sides.build(&(Arc::new(ReadThrough) as Arc<dyn DispatchPolicy>));
    on(&fs, |w| {
        w.stat("d/f").unwrap();
        assert_eq!(left(&sides.a, "d/f"), Nothing);
        w.read("d/f").unwrap();
        assert_eq!(left(&sides.a, "d/f"), Object);
        assert_eq!(w.chmod("d/g", 0o600).unwrap_err(), Errno::EROFS, "nothing else is transferred");
        assert_eq!(w.unlink("d/g").unwrap_err(), Errno::EROFS);
        w.unlink("d/f").unwrap();
    });
    let (a, b) = (side(fill), mem());
    let dual = DualFs::builder().backend_a(Arc::clone(&a)).backend_b(Arc::clone(&b));
    let fs: Arc<dyn DynFileSystem> = Arc::new(dual.policy(WritesB).build().unwrap());
    on(&fs, |w| {
        w.write_at("d/f", 0, b"X").unwrap();
        w.rename("d", "moved").unwrap();
    });
    assert_eq!(on(&a, |w| w.read("d/f")), Ok(b"of B".to_vec()), "A is not changed");
    assert_eq!(on(&b, |w| w.read("moved/f")), Ok(b"Xf B".to_vec()));
}

#[test]
fn name_of_a_policy_is_the_one_in_a_composition() {
    let names = policies().map(|policy| policy.name());
    assert_eq!(
        names,
        [
            "read-backend-b-write-backend-a",
            "backend-a-only",
            "backend-a-fallback-to-backend-b-read",
            "merge-reads-backend-a-precedence"
        ]
    );
    assert!(fs_debug().contains("read-backend-b-write-backend-a"));
}

fn fs_debug() -> String {
    let fs = DualFs::builder().backend_a(mem()).backend_b(mem()).build().unwrap();
    assert!(fs.lookup(&cx(), NodeId::ROOT, name("x")).is_ok());
    format!("{fs:?}")
}
