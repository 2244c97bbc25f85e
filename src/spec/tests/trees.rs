//! Dual and router: compositions → filesystems of several.

use std::sync::Arc;

use stratafs_core::DynFileSystem;

use crate::spec::{Composition, SpecError};

fn composition(text: &str) -> Composition {
    Composition::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn built(text: &str) -> Arc<dyn DynFileSystem> {
    composition(text).build().unwrap_or_else(|error| panic!("{error}"))
}

fn error_of(text: &str) -> SpecError {
    match composition(text).build() {
        Ok(_) => panic!("{text} is built"),
        Err(error) => error,
    }
}

/// The size of the file at `path`; none if there is none.
fn size_at(fs: &Arc<dyn DynFileSystem>, path: &str) -> Option<u64> {
    let client = stratafs_testkit::InProcess::new(Arc::clone(fs));
    let world = stratafs_testkit::World::new(&client, "");
    world.stat(path).ok().map(|attr| attr.size)
}

#[test]
fn build_of_a_router_mounts_each_filesystem_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"data").unwrap();
    let host = dir.path().display();
    let text = format!("router(/=mem(), /home/me={host}, /ro=readonly({host}), nosuid=/home/me)");
    let fs = built(&text);
    assert_eq!(fs.features().kind, "router");
    assert_eq!(size_at(&fs, "home/me/f"), Some(4));
    assert_eq!(size_at(&fs, "ro/f"), Some(4));
    assert_eq!(size_at(&fs, "f"), None);
    let again = composition(&composition(&text).to_string());
    assert_eq!(again.to_string(), composition(&text).to_string());
    assert_eq!(size_at(&again.build().unwrap(), "home/me/f"), Some(4));
}

#[test]
fn build_of_a_router_whose_flag_names_no_mount_says_so() {
    let error = error_of("router(/=mem(), /a=mem(), nodev=/b)");
    assert_eq!(
        error.to_string(),
        "cannot build the filesystem: `nodev` is set for /b, where nothing is mounted\n\
         \u{20} router(/=mem(), /a=mem(), nodev=/b)\n\
         \u{20}                           ^\n\
         \u{20} allowed here: /, /a\n\
         \u{20} give the path of a mount, as it is written there"
    );
    let empty = error_of("router()").to_string();
    assert!(empty.contains("nothing is mounted"), "{empty}");
}

#[test]
fn build_of_a_dual_takes_each_policy_by_its_name_and_its_short_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"data").unwrap();
    let host = dir.path().display();
    for (policy, short, shows) in [
        ("read-backend-b-write-backend-a", "b-read-a-write", true),
        ("backend-a-only", "a-only", false),
        ("backend-a-fallback-to-backend-b-read", "a-fallback-b-read", true),
        ("merge-reads-backend-a-precedence", "merge_a_first", true),
    ] {
        for name in [policy, short] {
            let text = format!("dual(a=mem(), b={host}, policy={name}, userxattr)");
            let composition = composition(&text);
            let fs = composition.build().unwrap();
            assert_eq!(size_at(&fs, "f"), shows.then_some(4), "{name}");
            let again = self::composition(&composition.to_string()).build().unwrap();
            assert_eq!(format!("{again:?}"), format!("{fs:?}"));
        }
    }
    let default = built(&format!("dual(a=mem(), b={host})"));
    let fd = on_world(&default, |w| w.truncate("f", 9));
    assert_eq!((fd, size_at(&default, "f")), (Ok(()), Some(9)));
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"data", "B is never changed");
}

fn on_world<T>(
    fs: &Arc<dyn DynFileSystem>,
    work: impl FnOnce(&stratafs_testkit::World<'_>) -> T,
) -> T {
    let client = stratafs_testkit::InProcess::new(Arc::clone(fs));
    work(&stratafs_testkit::World::new(&client, ""))
}

#[test]
fn build_of_a_dual_that_does_not_fit_says_why() {
    let error = error_of("dual(a=readonly(mem()), b=mem())").to_string();
    assert!(error.contains("backend A (mem) is written and lacks write access"), "{error}");
}
