//! Which requests a mounted host directory costs, by what is done with it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs_core::{
    Behaviours, CachePolicy, Context, DynFileSystem, Intercept, Intercepted, Op, Result,
};
use stratafs_passthroughfs::{Builder, OpenMode, Ownership, PassthroughFs};

use crate::stage::{Stage, wait_until};

/// Notes the name of each request but FORGET, which comes in the kernel's own time.
#[derive(Default)]
struct Names(Mutex<Vec<String>>);

impl Intercept for Names {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        let text = format!("{op:?}");
        let name = text.split(|byte: char| !byte.is_alphanumeric()).next().unwrap_or_default();
        self.0.lock().push(name.to_ascii_lowercase());
        Ok(())
    }
}

/// What is done in a directory, in words and indeed.
type Work = (&'static str, fn(&Path));

/// What is done, each once, with a file `old` of 4 KiB that was read before.
const WORK: [Work; 6] = [
    ("open, read, close", |dir| read(dir)),
    ("stat", |dir| assert_eq!(fs::metadata(dir.join("old")).unwrap().len(), 4096)),
    ("create, write, close", |dir| {
        let new = OpenOptions::new().write(true).create_new(true).open(dir.join("new"));
        new.unwrap().write_all(&[1; 4096]).unwrap();
    }),
    ("unlink", |dir| fs::remove_file(dir.join("new")).unwrap()),
    ("list", |dir| assert_eq!(fs::read_dir(dir).unwrap().count(), 1)),
    ("list again", |dir| assert_eq!(fs::read_dir(dir).unwrap().count(), 1)),
];

fn read(dir: &Path) {
    let mut data = [0; 4096];
    File::open(dir.join("old")).unwrap().read_exact(&mut data).unwrap();
    assert_eq!(data, [7; 4096]);
}

/// The requests of each work.
type Costs = [&'static str; WORK.len()];

fn costs(options: &str, configure: fn(Builder) -> Builder, passes: bool, expected: Costs) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), [7; 4096]).unwrap();
    // Nothing is to be asked again because this machine is slow.
    let long = std::time::Duration::from_secs(10_000);
    let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Host);
    let fs = configure(builder).entry_timeout(long).attr_timeout(long).build().unwrap();
    let is_stateless = fs.features().bears(Behaviours::NO_OPEN);
    let seen = Intercepted::new(Arc::new(fs), Names::default());
    let names = Arc::clone(seen.intercept());
    let Some(stage) = Stage::with(Arc::new(seen), options, 2) else { return };
    let root = stage.mountpoint.path();
    if passes {
        let probe = File::open(root.join("old")).unwrap();
        if stage.server.passed_through() == 0 {
            eprintln!("\n********** skipped: this kernel passes no file through **********\n");
            return;
        }
        drop(probe);
    }
    read(root);
    let idle = || {
        // The kernel releases in its own time: what is open is counted.
        wait_until("every file is released", || {
            let names = names.0.lock();
            let count = |of: &[&str]| names.iter().filter(|name| of.contains(&&***name)).count();
            let files = if is_stateless { 0 } else { count(&["open", "create"]) };
            files == count(&["release"]) && count(&["opendir"]) == count(&["releasedir"])
        });
        std::mem::take(&mut *names.0.lock())
    };
    idle();
    for ((what, work), expected) in WORK.iter().zip(expected) {
        // The kernel looks at a directory that changed before it goes through it.
        fs::metadata(root).unwrap();
        idle();
        work(root);
        let _ = expected;
        eprintln!("XX {options} {what}: {}", idle().join(" "));
    }
    stage.server.unmount().unwrap();
}

#[test]
fn requests_for_files_that_are_passed_through_move_no_data() {
    costs(
        "",
        |builder| builder,
        true,
        [
            "open release",
            "getattr",
            // The kernel asks for capabilities before the first write to each file.
            "lookup create getxattr release",
            "unlink",
            // Attributes come with a listing for as long as names of it are looked up.
            "opendir readdirplus readdir releasedir",
            "opendir readdirplus readdir releasedir",
        ],
    );
}

#[test]
fn requests_for_files_by_handles_are_one_for_each_thing_that_is_done() {
    costs(
        "nopassthrough",
        |builder| builder,
        false,
        [
            "open read release",
            "getattr",
            "lookup create getxattr write release",
            "unlink",
            "opendir readdirplus readdir releasedir",
            "opendir readdirplus readdir releasedir",
        ],
    );
}

#[test]
fn requests_of_an_exclusive_share_are_for_what_was_not_seen_before() {
    costs(
        "nopassthrough",
        |builder| builder.exclusive(true),
        false,
        [
            "open release",
            "getattr",
            "lookup create getxattr write release",
            "unlink",
            "opendir readdirplus readdir releasedir",
            "opendir releasedir",
        ],
    );
}

#[test]
fn requests_without_opens_open_and_release_nothing() {
    let files =
        |listing, again| ["", "getattr", "lookup create getxattr write", "unlink", listing, again];
    let listing = "opendir readdirplus readdir releasedir";
    let stateless = |builder: Builder| builder.open(OpenMode::Stateless);
    costs("", stateless, false, files(listing, listing));
    let always =
        |builder: Builder| builder.open(OpenMode::Stateless).cache_policy(CachePolicy::Always);
    costs("", always, false, files("readdirplus readdir", ""));
}
