//! Files of the host that the kernel reads and writes by itself (FUSE_PASSTHROUGH).
//!
//! Whether it does is seen by an intercept that counts the reads and writes that reach the
//! filesystem.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use stratafs_core::{Context, Intercept, Intercepted, Op, Result};
use stratafs_passthroughfs::{Builder, Ownership, PassthroughFs};
use tempfile::TempDir;

use crate::stage::{Stage, wait_until};

const MIB: usize = 1 << 20;

/// Counts what reaches the filesystem, and needs to see none of it.
#[derive(Default)]
struct Counts {
    data: AtomicU64,
    all: AtomicU64,
}

impl Intercept for Counts {
    type Mark = ();

    fn before(&self, _: &Context<'_>, op: &Op<'_>) -> Result<()> {
        self.all.fetch_add(1, Ordering::SeqCst);
        if matches!(op, Op::Read { .. } | Op::Write { .. }) {
            self.data.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A host directory that is mounted.
struct Lent {
    stage: Stage,
    counts: Arc<Counts>,
    dir: TempDir,
}

impl Lent {
    /// `None` where nothing can be mounted, or this kernel passes nothing through.
    fn new(options: &str, configure: fn(Builder) -> Builder) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let builder = PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Host);
        let fs = configure(builder).build().unwrap();
        let counted = Intercepted::new(Arc::new(fs), Counts::default());
        let counts = Arc::clone(counted.intercept());
        let stage = Stage::with(Arc::new(counted), options, 2)?;
        Some(Self { stage, counts, dir })
    }

    fn passing(options: &str) -> Option<Self> {
        let lent = Self::new(options, |builder| builder)?;
        let probe = File::create(lent.path("probe")).unwrap();
        if lent.stage.server.passed_through() == 0 {
            eprintln!("\n********** skipped: this kernel passes no file through **********\n");
            return None;
        }
        drop(probe);
        fs::remove_file(lent.path("probe")).unwrap();
        lent.wait_until_none_is_left();
        Some(lent)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    fn host(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, len: usize) -> Vec<u8> {
        let data: Vec<u8> = (0..len).map(|at| (at * 31 / 8) as u8).collect();
        fs::write(self.host(name), &data).unwrap();
        data
    }

    /// Reads and writes that reached the filesystem since the last call.
    fn data_requests(&self) -> u64 {
        self.counts.data.swap(0, Ordering::SeqCst)
    }

    /// The kernel releases in its own time.
    fn wait_until_none_is_left(&self) {
        wait_until("every file is taken back", || self.stage.server.passed_through() == 0);
    }

    /// Ends the mount; no file may be left with the kernel.
    fn end(self) {
        self.wait_until_none_is_left();
        self.stage.server.unmount().unwrap();
    }
}

fn both(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn data_of_a_passed_through_file_is_the_hosts_and_no_request() {
    let Some(lent) = Lent::passing("") else { return };
    let mut data = lent.file("f", MIB);
    assert_eq!(fs::read(lent.path("f")).unwrap(), data);
    let file = both(&lent.path("f"));
    file.write_all_at(b"written here", 5000).unwrap();
    data[5000..5012].copy_from_slice(b"written here");
    assert!(fs::read(lent.host("f")).unwrap() == data);
    both(&lent.host("f")).write_all_at(b"written there", 70_000).unwrap();
    data[70_000..70_013].copy_from_slice(b"written there");
    let mut seen = vec![0; MIB];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == data);
    file.sync_all().unwrap();
    file.set_len(100).unwrap();
    assert_eq!(fs::metadata(lent.host("f")).unwrap().len(), 100);
    file.write_all_at(b"far", 1 << 32).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 32) + 3);
    assert_eq!(fs::metadata(lent.host("f")).unwrap().len(), (1 << 32) + 3);
    assert_eq!(lent.data_requests(), 0);
    drop(file);
    lent.end();
}

#[test]
fn append_goes_to_the_hosts_end_whoever_wrote_last() {
    let Some(lent) = Lent::passing("") else { return };
    lent.file("f", 0);
    let append = |path| OpenOptions::new().append(true).open(path).unwrap();
    let (here, there) = (append(lent.path("f")), append(lent.host("f")));
    for (mut file, text) in [(&here, "1"), (&there, "host"), (&here, "2")] {
        file.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(fs::read(lent.path("f")).unwrap(), b"1host2");
    assert_eq!(lent.data_requests(), 0);
    drop(here);
    lent.end();
}

#[test]
fn second_open_of_any_kind_joins_the_first() {
    let Some(lent) = Lent::passing("") else { return };
    let data = lent.file("f", 3 * 4096);
    let reader = File::open(lent.path("f")).unwrap();
    // O_DIRECT has another number elsewhere.
    if cfg!(target_arch = "x86_64") {
        let direct = OpenOptions::new().read(true).custom_flags(0o40_000).open(lent.path("f"));
        let direct = direct.unwrap();
        // What is read directly goes to where a page may begin.
        let mut room = vec![0_u8; 3 * 4096];
        let at = room.as_ptr().align_offset(4096);
        direct.read_exact_at(&mut room[at..at + 4096], 4096).unwrap();
        assert!(room[at..at + 4096] == data[4096..8192]);
    }
    let writer = both(&lent.path("f"));
    writer.write_all_at(b"new", 0).unwrap();
    let mut start = [0; 3];
    reader.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"new");
    let truncating = File::create(lent.path("f")).unwrap();
    for file in [&reader, &writer, &truncating] {
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
    truncating.write_all_at(b"anew", 0).unwrap();
    reader.read_exact_at(&mut start, 1).unwrap();
    assert_eq!(&start, b"new");
    assert_eq!(lent.data_requests(), 0);
    assert_eq!(lent.stage.server.passed_through(), 1, "one file for the node");
    drop((reader, writer, truncating));
    lent.end();
}

#[test]
fn map_of_a_passed_through_file_is_the_hosts_page() {
    let Some(lent) = Lent::passing("") else { return };
    lent.file("f", 8192);
    // A program that maps the file shared, changes it, and says what it sees of a change by the host.
    let script = "import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(f, 8192)
m[5000:5003] = b'map'
h = os.open(sys.argv[2], os.O_RDWR)
assert os.pread(h, 3, 5000) == b'map'
os.pwrite(h, b'host', 6000)
assert m[6000:6004] == b'host'
os.close(f)
assert m[6000:6004] == b'host'
";
    let python = Command::new("python3")
        .args(["-c", script])
        .args([lent.path("f"), lent.host("f")])
        .output();
    let Ok(ran) = python else {
        eprintln!("\n********** skipped: python3 is not installed **********\n");
        return;
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(lent.data_requests(), 0);
    lent.end();
}

#[test]
fn unlinked_file_is_passed_through_until_it_is_closed() {
    let Some(lent) = Lent::passing("") else { return };
    let data = lent.file("f", MIB);
    let file = both(&lent.path("f"));
    fs::remove_file(lent.path("f")).unwrap();
    file.write_all_at(b"more", MIB as u64).unwrap();
    let mut seen = vec![0; MIB + 4];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen[..MIB] == data && &seen[MIB..] == b"more");
    assert_eq!((lent.data_requests(), lent.stage.server.passed_through()), (0, 1));
    drop(file);
    lent.end();
}

#[test]
fn new_file_is_passed_through_from_the_first_byte() {
    let Some(lent) = Lent::passing("") else { return };
    fs::write(lent.path("new"), vec![5; MIB]).unwrap();
    assert!(fs::read(lent.host("new")).unwrap() == vec![5; MIB]);
    assert_eq!(lent.data_requests(), 0);
    lent.end();
}

#[test]
fn random_writes_cost_no_request_at_all() {
    let Some(lent) = Lent::passing("") else { return };
    lent.file("f", MIB);
    let file = both(&lent.path("f"));
    // The kernel asks once for capabilities, and then knows.
    file.write_all_at(&[1; 4096], 0).unwrap();
    let before = lent.counts.all.load(Ordering::SeqCst);
    for index in 0..1000_u64 {
        let at = index * 2_654_435_761 % 255 * 4096;
        file.write_all_at(&[index as u8; 4096], at).unwrap();
    }
    // RELEASE and FORGET of what was opened before may come late.
    let requests = lent.counts.all.load(Ordering::SeqCst) - before;
    assert!(requests <= 2, "{requests} requests for 1000 writes");
    drop(file);
    lent.end();
}

#[test]
fn setuid_file_is_written_through_the_server_which_clears_it() {
    let Some(lent) = Lent::passing("allow_other") else { return };
    lent.file("f", 4096);
    let mode = |mode| fs::set_permissions(lent.path("f"), Permissions::from_mode(mode)).unwrap();
    // Alone, beside a reader that is passed through, and become so while it is open.
    for reader_first in [false, true] {
        mode(0o4777);
        let reader = reader_first.then(|| File::open(lent.path("f")).unwrap());
        write_as_nobody(&lent, "exec 3<>\"$0\"; echo x >&3");
        assert_eq!(fs::metadata(lent.host("f")).unwrap().mode() & 0o7777, 0o777);
        drop(reader);
        assert!(lent.data_requests() > 0);
        lent.wait_until_none_is_left();
    }
    mode(0o777);
    write_as_nobody(
        &lent,
        "exec 3<>\"$0\"; until [ -u \"$0\" ]; do touch \"$0.w\"; done; echo x >&3",
    );
    assert_eq!(fs::metadata(lent.host("f")).unwrap().mode() & 0o7777, 0o777);
    lent.end();
}

/// Runs a shell on `f` as a user whose writes clear privileges. When it waits, the file becomes
/// setuid.
fn write_as_nobody(lent: &Lent, script: &str) {
    fs::set_permissions(lent.stage.mountpoint.path(), Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(lent.stage.mountpoint.beside(), Permissions::from_mode(0o755)).unwrap();
    let mut shell = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script])
        .arg(lent.path("f"))
        .spawn()
        .unwrap();
    let (waits, mut is_changed) = (lent.path("f.w"), false);
    wait_until("the shell ends", || {
        if !is_changed && waits.exists() {
            fs::set_permissions(lent.path("f"), Permissions::from_mode(0o4777)).unwrap();
            is_changed = true;
        }
        shell.try_wait().unwrap().is_some()
    });
    assert!(shell.wait().unwrap().success());
}

#[test]
fn many_opens_of_one_file_at_a_time_all_succeed_and_leave_nothing() {
    let Some(lent) = Lent::passing("") else { return };
    let data = lent.file("f", 70_000);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (lent, data) = (&lent, &data);
            scope.spawn(move || {
                for round in 0..300 {
                    let file = match (worker + round) % 3 {
                        0 => both(&lent.path("f")),
                        _ => File::open(lent.path("f")).unwrap(),
                    };
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, 60_000).unwrap();
                    assert_eq!(byte[0], data[60_000]);
                }
            });
        }
    });
    assert_eq!(lent.data_requests(), 0);
    lent.end();
}

#[test]
fn nopassthrough_and_a_writeback_cache_bring_the_data_here() {
    for (options, configure) in [
        ("nopassthrough", (|builder| builder) as fn(Builder) -> Builder),
        ("", |builder| builder.writeback(true)),
    ] {
        let Some(lent) = Lent::new(options, configure) else { return };
        let data = lent.file("f", MIB);
        assert!(fs::read(lent.path("f")).unwrap() == data);
        assert!(lent.data_requests() > 0);
        assert_eq!(lent.stage.server.passed_through(), 0);
        lent.end();
    }
}

#[test]
fn passthrough_asked_for_beside_a_writeback_cache_is_refused_in_words() {
    use stratafs::transport::fuse_dev::{Mount, MountOptions};
    let dir = tempfile::tempdir().unwrap();
    let fs = PassthroughFs::builder().root_dir(dir.path()).writeback(true).build().unwrap();
    let options = MountOptions::parse(["passthrough"]).unwrap();
    let refused = Mount::builder(Arc::new(fs)).options(options).mount(dir.path()).unwrap_err();
    assert!(refused.is_misuse() && refused.to_string().contains("writeback"), "{refused}");
}

#[test]
fn file_of_a_stacked_filesystem_is_passed_through_where_the_depth_allows_it() {
    for (options, passes) in [("", false), ("max_stack_depth=2", true)] {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(at);
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &overlay]).arg(&merged);
        if !crate::stage::can_mount() || !mount.status().unwrap().success() {
            eprintln!("\n********** skipped: no overlay can be mounted **********\n");
            return;
        }
        let _unmount = Unmount(merged.clone());
        let builder = PassthroughFs::builder().root_dir(&merged).ownership(Ownership::Host);
        let stage = Stage::with(Arc::new(builder.build().unwrap()), options, 2).unwrap();
        let mut file = File::create(stage.path("f")).unwrap();
        assert_eq!(stage.server.passed_through(), usize::from(passes), "{options}");
        file.write_all(b"data").unwrap();
        assert_eq!(fs::read(upper.join("f")).unwrap(), b"data");
        drop(file);
        stage.server.unmount().unwrap();
    }
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
