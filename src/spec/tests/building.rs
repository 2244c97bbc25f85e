//! Checked compositions → filesystems: every key has its effect, and what cannot be built says so.

use std::sync::Arc;
use std::time::Duration;

use stratafs_core::{
    Behaviours, Context, DynFileSystem, Errno, Lookup, Name, Needs, NodeId, OpenFlags,
};

use crate::spec::{Composition, SpecError};

fn built(text: &str) -> Arc<dyn DynFileSystem> {
    Composition::parse(text).and_then(|c| c.build()).unwrap_or_else(|error| panic!("{error}"))
}

fn error_of(text: &str) -> SpecError {
    match Composition::parse(text).unwrap().build() {
        Ok(_) => panic!("{text} is built"),
        Err(error) => error,
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// How long a name, attributes and an absent name may be kept.
fn timeouts(filesystem: &dyn DynFileSystem) -> (Duration, Duration, Duration) {
    let cx = Context::internal();
    let entry = filesystem.mkdir(&cx, NodeId::ROOT, name("d"), 0o755).unwrap();
    let absent = match filesystem.lookup(&cx, NodeId::ROOT, name("absent")).unwrap() {
        Lookup::Absent(timeout) => timeout,
        Lookup::Found(entry) => panic!("{entry:?}"),
    };
    let attr = filesystem.getattr(&cx, entry.node, None).unwrap();
    filesystem.forget(entry.node, 1);
    (entry.entry_timeout, attr.timeout, absent)
}

#[test]
fn build_mem_honours_capacity_and_inodes() {
    let statfs =
        built("mem(capacity=8MiB, max_inodes=10)").statfs(&Context::internal(), NodeId::ROOT);
    let statfs = statfs.unwrap();
    assert_eq!(statfs.blocks * u64::from(statfs.frsize), 8 << 20);
    assert_eq!(statfs.files, 10);
}

#[test]
fn build_mem_honours_owner_and_mode_of_the_root() {
    let table: &[(&str, (u32, u32), [u32; 3])] = &[
        ("mem()", (0, 0), [0, 0, 0o755]),
        ("mem()", (7, 8), [7, 8, 0o755]),
        ("mem(mode=1777, uid=5, gid=6)", (7, 8), [5, 6, 0o1777]),
        ("mem(root-mode=0700, root-uid=5)", (7, 8), [5, 8, 0o700]),
        ("traced(readonly(mem()))", (7, 8), [7, 8, 0o755]),
    ];
    for (text, (uid, gid), expected) in table {
        let filesystem = Composition::parse(text).unwrap().build_for(*uid, *gid).unwrap();
        let attr = filesystem.getattr(&Context::internal(), NodeId::ROOT, None).unwrap().attr;
        assert_eq!([attr.uid, attr.gid, attr.mode & 0o7777], *expected, "{text}");
    }
}

#[test]
fn build_mem_honours_cache_and_timeouts() {
    let zero = Duration::ZERO;
    let second = Duration::from_secs(1);
    assert_eq!(timeouts(&*built("mem(cache=never)")), (zero, zero, zero));
    assert_eq!(timeouts(&*built("mem(cache=auto)")), (second, second, zero));
    assert!(timeouts(&*built("mem(cache=always)")).2 > second);
    assert_eq!(timeouts(&*built("mem()")), timeouts(&*built("mem(cache=always)")));
    // The timeouts count whichever order they are written in.
    let text = "mem(entry_timeout=2, attr_timeout=500ms, negative_timeout=0.25, cache=never)";
    let expected = (2 * second, Duration::from_millis(500), Duration::from_millis(250));
    assert_eq!(timeouts(&*built(text)), expected);
}

#[test]
fn build_mem_honours_locks_and_writeback() {
    let plain = built("mem(locks=local)").features();
    assert!(!plain.needs.contains(Needs::POSIX_LOCKS));
    assert!(!plain.behaviours.contains(Behaviours::WRITEBACK));
    assert!(built("mem(locks=remote)").features().needs.contains(Needs::POSIX_LOCKS));
    assert!(built("mem(writeback)").features().behaviours.contains(Behaviours::WRITEBACK));
}

#[test]
fn build_mem_honours_max_handles() {
    let filesystem = built("mem(max_handles=1, cache=auto)");
    let cx = Context::internal();
    let create = |text: &str| {
        filesystem.create(&cx, NodeId::ROOT, name(text), 0o644, OpenFlags::from_raw(2), false)
    };
    create("a").unwrap();
    assert_eq!(create("b").map(drop), Err(Errno::ENFILE));
}

#[test]
fn build_readonly_refuses_changes_in_either_form() {
    for text in ["readonly(mem())", "mem(readonly)", "mem(ro=yes)", "traced(readonly(mem()))"] {
        let made = built(text).mkdir(&Context::internal(), NodeId::ROOT, name("d"), 0o755);
        assert_eq!(made.map(drop), Err(Errno::EROFS), "{text}");
    }
    for text in ["mem()", "mem(readonly=no)", "traced(mem())"] {
        let made = built(text).mkdir(&Context::internal(), NodeId::ROOT, name("d"), 0o755);
        assert_eq!(made.map(drop), Ok(()), "{text}");
    }
}

#[test]
fn build_twice_shares_nothing() {
    let composition = Composition::parse("mem()").unwrap();
    let (first, second) = (composition.build().unwrap(), composition.build().unwrap());
    let cx = Context::internal();
    first.mkdir(&cx, NodeId::ROOT, name("d"), 0o755).unwrap();
    let found = second.lookup(&cx, NodeId::ROOT, name("d")).and_then(Lookup::found);
    assert_eq!(found.map(drop), Err(Errno::ENOENT));
}

#[test]
fn build_at_the_depth_limit_answers_through_every_layer() {
    let text = format!("{}mem(){}", "readonly(".repeat(63), ")".repeat(63));
    let filesystem = built(&text);
    assert!(filesystem.getattr(&Context::internal(), NodeId::ROOT, None).is_ok());
}

#[test]
fn build_of_a_host_directory_takes_every_key() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("extra")).unwrap();
    let path = directory.path().display();
    let filesystem = built(&format!(
        "passthrough({path}, ownership=virtual, readonly, exclusive, cache=auto, \
         entry_timeout=5, attr_timeout=6, negative_timeout=7, default_uid=5, default_gid=6, \
         fd_budget=100, max_handles=1k, extra_root={path}/extra, open=stateless, xattr=false, follow_root, writeback=no, \
         uid_map=map:0:1000:1, uid_map=forbid-guest:1:9, gid_map=\"squash-host:0:7:1000\")"
    ));
    assert!(filesystem.features().bears(Behaviours::NO_OPEN | Behaviours::READ_ONLY));
    assert!(!filesystem.features().bears(Behaviours::XATTR_USER));
    let context = Context::internal();
    let attributes = filesystem.getattr(&context, NodeId::ROOT, None).unwrap();
    assert_eq!(attributes.timeout, Duration::from_secs(6));
    let name = Name::new(b"a").unwrap();
    let refused = filesystem.mkdir(&context, NodeId::ROOT, name, 0o755);
    assert_eq!(refused.unwrap_err(), Errno::EROFS);
    assert!(built(&path.to_string()).getattr(&context, NodeId::ROOT, None).is_ok());
    let keeps_acls = |spec: String| built(&spec).features().bears(Behaviours::POSIX_ACL);
    assert!(keeps_acls(format!("passthrough({path}, ownership=virtual, posix_acl)")));
    assert!(!keeps_acls(format!("passthrough({path}, ownership=virtual)")));
}

#[test]
fn build_of_a_missing_host_directory_says_so() {
    let error = error_of("passthrough(/nonexistent)");
    assert!(matches!(error, SpecError::Build { .. }));
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

#[test]
fn build_what_this_version_lacks_points_at_it_and_says_what_is_known() {
    let error = error_of("readonly(oci(/image))");
    assert!(matches!(error, SpecError::NotBuilt(_)));
    assert_eq!(
        error.to_string(),
        "cannot build the filesystem: oci is not yet built into this version\n\
         \u{20} readonly(oci(/image))\n\
         \u{20}          ^\n\
         \u{20} allowed here: mem, passthrough, overlay, dual, router, readonly, traced\n\
         \u{20} use one of these, or a later version"
    );
    for text in ["dual(a=mem(), b=oci(/i))", "overlay(lower=oci(/i))", "oci(/i)"] {
        assert!(matches!(error_of(text), SpecError::NotBuilt(_)), "{text}");
    }
}

#[test]
fn build_with_settings_that_the_backend_refuses_says_what_it_said() {
    let error = error_of("traced(mem(capacity=1))");
    let text = error.to_string();
    assert!(
        text.starts_with("cannot build the filesystem: building a MemFs: capacity 1"),
        "{text}"
    );
    assert!(text.contains("\n  traced(mem(capacity=1))\n         ^"), "{text}");
    let SpecError::Build { cause, .. } = error else {
        panic!("{text}");
    };
    assert!(cause.is::<stratafs_memfs::BuildError>());
}

#[test]
fn build_of_a_bare_path_serves_that_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"data").unwrap();
    let filesystem = built(&dir.path().display().to_string());
    let name = Name::new(b"f").unwrap();
    let found = filesystem.lookup(&Context::internal(), NodeId::ROOT, name).unwrap();
    assert_eq!(found.found().unwrap().attr.size, 4);
}

#[test]
fn build_of_a_directory_that_is_not_there_says_what_to_do() {
    let text = error_of("traced(/no/such/directory)").to_string();
    assert!(text.contains("/no/such/directory: ENOENT"), "{text}");
    assert!(text.contains("make it, or check the spelling"), "{text}");
    let rule = error_of("passthrough(/tmp, uid_map=map:0:0)").to_string();
    assert!(rule.contains("write map:GUEST:HOST:COUNT"), "{rule}");
    assert!(
        rule.contains("\n  passthrough(/tmp, uid_map=map:0:0)\n                    ^"),
        "{rule}"
    );
}

#[test]
fn build_of_an_overlay_puts_the_first_lower_on_top() {
    let dir = tempfile::tempdir().unwrap();
    for (layer, file) in [("app", "both"), ("base", "both"), ("base", "below")] {
        std::fs::create_dir_all(dir.path().join(layer)).unwrap();
        std::fs::write(dir.path().join(layer).join(file), layer).unwrap();
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (app, base) = (at("app"), at("base"));
    for text in [
        format!("overlay(lower={app}, lower={base}, upper=mem())"),
        format!("overlay(lowerdir={app}:{base}, upper=mem(), redirect_dir=off, xino=false)"),
        format!("overlay(lower={app}, lower={base})"),
    ] {
        let fs = built(&text);
        let cx = Context::internal();
        let size = |name: &[u8]| {
            let found = fs.lookup(&cx, NodeId::ROOT, Name::new(name).unwrap()).unwrap();
            let entry = found.found().unwrap();
            fs.forget(entry.node, 1);
            entry.attr.size
        };
        assert_eq!((size(b"both"), size(b"below")), (3, 4), "{text}");
    }
}

#[test]
fn build_of_an_overlay_on_the_host_writes_to_upper_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("lower/f"), "lower").unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
    for writable in [
        format!("upper={upper}, work={work}"),
        format!("upper=passthrough({upper}, extra_root={work})"),
    ] {
        let text = format!("overlay(lower={lower}, {writable}, userxattr, volatile, cache=always)");
        let fs = built(&text);
        let cx = Context::internal();
        fs.unlink(&cx, NodeId::ROOT, Name::new(b"f").unwrap()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("lower/f")).unwrap(), b"lower");
        let whiteout = std::fs::symlink_metadata(dir.path().join("upper/f")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::rdev(&whiteout), 0);
        assert!(dir.path().join("work/work/incompat/volatile").is_dir());
        drop(fs);
        // A volatile one is not mounted again.
        std::fs::remove_dir_all(dir.path().join("work/work")).unwrap();
        std::fs::remove_file(dir.path().join("upper/f")).unwrap();
    }
}

#[test]
fn build_of_an_overlay_whose_upper_and_work_do_not_fit_says_what_to_do() {
    for (text, said) in [
        ("overlay(lower=/, upper=/tmp)", "`work` is not set"),
        ("overlay(lower=mem(), upper=mem(), work=/tmp)", "no directory of the host"),
        ("overlay(lower=mem(), work=/tmp)", "`upper` is not"),
        ("overlay(lower=/, upper=passthrough(/tmp, extra_root=/var), work=/var)", "keep one"),
        ("overlay()", "no layer"),
    ] {
        let error = error_of(text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn build_of_an_overlay_of_directories_that_lie_in_one_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["up/inner", "work/inner", "base"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    for (lower, upper, work, says) in [
        ("up/inner", "up", "work", "lies in `upper` (ELOOP)"),
        ("work/inner", "up", "work", "lies in `work` (ELOOP)"),
        ("base", "up", "up/inner", "`work` lies in `upper`"),
        ("base", "work/inner", "work", "`upper` lies in `work`"),
        ("up", "up", "work", "are one directory (ELOOP)"),
        ("work", "up", "work", "are one directory (ELOOP)"),
        ("base", "up", "up", "the second root is the root itself"),
    ] {
        let (lower, upper, work) = (at(lower), at(upper), at(work));
        let text = format!("overlay(lower={lower}, upper={upper}, work={work}, userxattr)");
        let said = error_of(&text).to_string();
        assert!(said.contains(says), "{text}: {said}");
        if says.contains(" lies in ") {
            let text = format!("overlay(lower=readonly({lower}), upper={upper}, work={work})");
            assert!(error_of(&text).to_string().contains(says), "{text}");
        }
    }
    // What contains the others is read where nothing is written through it.
    let (whole, up, work) = (dir.path().display(), at("up"), at("work"));
    built(&format!("overlay(lower={whole}, upper={up}, work={work}, userxattr)"));
}

#[test]
fn build_of_an_overlay_whose_upper_or_work_is_in_use_is_refused_until_that_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["up", "work", "up2", "work2"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let text = |upper: &str, work: &str| {
        format!("overlay(lower=mem(), upper={}, work={}, userxattr)", at(upper), at(work))
    };
    let first = built(&text("up", "work"));
    for (upper, work, name) in [("up", "work2", "`upper`"), ("up2", "work", "`work`")] {
        let error = error_of(&text(upper, work));
        assert!(matches!(error, SpecError::Build { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(name) && said.contains("in use by another filesystem"), "{said}");
    }
    // To be looked at it may be in use, to be mended it may not.
    let composition = Composition::parse(text("up", "work")).unwrap();
    composition.inspect().unwrap();
    assert!(composition.inspect_alone().is_err());
    drop(first);
    let alone = composition.inspect_alone().unwrap();
    error_of(&text("up", "work"));
    drop(alone);
    built(&text("up", "work"));
}

#[test]
fn build_of_a_dual_whose_written_side_is_in_use_is_refused_until_that_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let staged = format!("dual(a=traced({path}), b=mem(), userxattr)");
    let first = built(&staged);
    let error = error_of(&staged);
    assert!(matches!(error, SpecError::Build { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("`a`") && said.contains("in use by another filesystem"), "{said}");
    // Which stages nothing.
    built(&format!("dual(a={path}, b=mem(), policy=backend-a-only, userxattr)"));
    drop(first);
    built(&staged);
}

#[test]
fn build_of_an_overlay_with_work_on_another_filesystem_says_so() {
    let here = tempfile::tempdir().unwrap();
    let Ok(there) = tempfile::tempdir_in("/dev/shm") else { return };
    let device = |dir: &tempfile::TempDir| {
        std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(dir.path()).unwrap())
    };
    if device(&here) == device(&there) {
        return;
    }
    let (upper, work) = (here.path().display(), there.path().display());
    let said = error_of(&format!("overlay(lower=mem(), upper={upper}, work={work})")).to_string();
    assert!(said.contains("EXDEV"), "{said}");
}

#[test]
fn build_of_an_overlay_with_a_missing_layer_names_it() {
    for text in [
        "overlay(lower=/nonexistent/layer)",
        "overlay(lower=mem(), lowerdir=/tmp:/nonexistent/layer)",
        "overlay(lower=mem(), upper=/nonexistent/layer, work=/tmp)",
        "overlay(lower=mem(), upper=/tmp, work=/nonexistent/layer)",
    ] {
        let said = error_of(text).to_string();
        assert!(said.contains("/nonexistent/layer") && said.contains("ENOENT"), "{text}: {said}");
    }
}

#[test]
fn build_of_an_overlay_of_five_hundred_directories_works() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<String> = (0..500)
        .map(|layer| {
            let path = dir.path().join(layer.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("same"), layer.to_string()).unwrap();
            std::fs::write(path.join(format!("of-{layer}")), "").unwrap();
            path.display().to_string()
        })
        .collect();
    let fs = built(&format!("overlay(lowerdir={}, upper=mem())", paths.join(":")));
    let find = |text: &str| fs.lookup(&Context::internal(), NodeId::ROOT, name(text)).unwrap();
    let Lookup::Found(same) = find("same") else { panic!("it is there") };
    assert_eq!(same.attr.size, 1, "that of layer 0");
    assert!(matches!(find("of-499"), Lookup::Found(_)));
    fs.unlink(&Context::internal(), NodeId::ROOT, name("same")).unwrap();
    assert!(matches!(find("same"), Lookup::Absent(_)));
}
