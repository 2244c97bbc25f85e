//! POSIX ACLs: what they are set to, what new objects inherit and what a chmod makes of them, all as
//! in a plain directory, whose kernel is asked.

use std::sync::Arc;

use stratafs_core::{
    Behaviours, Context, Credentials, DynFileSystem, Errno, Negotiated, NodeId, OpenFlags,
    XattrMode, XattrName,
};
use stratafs_passthroughfs::{BuildError, Ownership, PassthroughFs};
use stratafs_testkit::{Caller, Client, InProcess, Mounted, World};

use crate::support::{Share, host_xattr, is_root, root};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NOBODY: u32 = u32::MAX;

/// The value of an ACL in the short words of setfacl(1): `u::rwx,u:1000:r,g::rx,m::rx,o::-`.
fn acl(text: &str) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let fields: Vec<_> = entry.split(':').collect();
        let [kind, id, permissions] = fields[..] else { panic!("{entry}") };
        let tag: u16 = match (kind, id) {
            ("u", "") => 0x01,
            ("u", _) => 0x02,
            ("g", "") => 0x04,
            ("g", _) => 0x08,
            ("m", _) => 0x10,
            ("o", _) => 0x20,
            _ => panic!("{entry}"),
        };
        let bit = |letter, bit: u16| if permissions.contains(letter) { bit } else { 0 };
        value.extend(tag.to_le_bytes());
        value.extend((bit('r', 4) | bit('w', 2) | bit('x', 1)).to_le_bytes());
        value.extend(id.parse().unwrap_or(NOBODY).to_le_bytes());
    }
    value
}

/// ACLs that say more than a mode, and some that do not.
const ACLS: [&str; 6] = [
    "u::rwx,g::rx,o::",
    "u::rw,u:1000:rwx,g::r,m::rw,o::r",
    "u::r,u:0:,u:7:rwx,g::rwx,g:50:x,m::x,o::x",
    "u::rwx,g::rwx,m::r,o::",
    "u::,u:1000:,g::,g:2000:rwx,m::,o::",
    "u::rwx,u:1000:rwx,u:1001:rwx,u:1002:rwx,g::rwx,g:1000:rwx,m::rwx,o::rwx",
];

const MODES: [u32; 6] = [0o777, 0o644, 0o600, 0o070, 0o007, 0o6755];

/// What an object is, ACLs included.
fn shown(w: &World<'_>, path: &str) -> String {
    let attr = w.stat(path).unwrap();
    let acl = |name: &str| w.getxattr(path, name.as_bytes());
    let mut names = w.listxattr(path).unwrap();
    // A host may label every file of its own accord.
    names.retain(|name| name.starts_with(b"system."));
    names.sort();
    let names: Vec<_> = names.iter().map(|name| name.escape_ascii().to_string()).collect();
    let (access, default) = (acl(ACCESS), acl(DEFAULT));
    format!("{:o} {}:{} {access:?} {default:?} {names:?}", attr.mode, attr.uid, attr.gid)
}

/// All that is made and changed, each step with what it answers and what is there then.
fn story(client: &dyn Client) -> Vec<String> {
    client.begin().unwrap();
    let w = World::new(client, b"".as_slice());
    let set = |path: &str, name: &str, text: &str| {
        w.setxattr(path, name.as_bytes(), &acl(text), XattrMode::Set)
    };
    let mut told = Vec::new();
    let mut tell = |step: String, outcome: Result<(), Errno>, path: &str| {
        told.push(format!("{step}: {outcome:?}, {}", shown(&w, path)));
    };
    w.mkdir("dir", 0o2770).unwrap();
    w.chmod("dir", 0o2775).unwrap();
    w.chown("dir", None, Some(50)).unwrap();
    for (number, text) in ACLS.into_iter().enumerate() {
        tell(format!("default {text}"), set("dir", DEFAULT, text), "dir");
        for (mode, umask) in MODES.iter().flat_map(|mode| [0, 0o022, 0o777].map(|u| (*mode, u))) {
            let at = |kind: &str| format!("dir/{kind}-{number}-{mode:o}-{umask:o}");
            let step = |what: &str| format!("{what} of {mode:o} with umask {umask:o} under {text}");
            client.set_caller(&Caller::user(0, 9).with_umask(umask)).unwrap();
            let made = w.create(at("file"), OpenFlags::READ_WRITE.with_exclusive(), mode);
            tell(step("create"), made.and_then(|fd| w.close(fd)), &at("file"));
            tell(step("mkdir"), w.mkdir(at("dir"), mode & 0o1777), &at("dir"));
            tell(step("mknod"), w.mknod(at("node"), 0o100_000 | mode, 0), &at("node"));
            tell(step("mkfifo"), w.mknod(at("fifo"), 0o010_000 | mode, 0), &at("fifo"));
            let fd = w.tmpfile("dir", OpenFlags::READ_WRITE, mode).unwrap();
            tell(step("tmpfile"), w.link_fd(fd, at("unnamed")), &at("unnamed"));
            w.close(fd).unwrap();
        }
        client.set_caller(&Caller::ROOT).unwrap();
        w.symlink("target", format!("dir/link-{number}")).unwrap();
        assert_eq!(w.stat(format!("dir/link-{number}")).unwrap().mode, 0o120_777);
    }
    w.file("file", b"").unwrap();
    for (text, mode) in ACLS.iter().flat_map(|text| MODES.map(|mode| (*text, mode))) {
        tell(format!("access {text}"), set("file", ACCESS, text), "file");
        tell(format!("chmod {mode:o} of {text}"), w.chmod("file", mode), "file");
        tell(format!("access {text} again"), set("dir", ACCESS, text), "dir");
        tell(format!("chown of {text}"), w.chown("file", Some(mode), None), "file");
    }
    for (path, name) in
        [("dir", ACCESS), ("dir", DEFAULT), ("file", ACCESS), ("file", ACCESS), ("file", DEFAULT)]
    {
        tell(format!("none {name}"), set(path, name, ""), path);
        tell(format!("default of a file, {name}"), set("file", DEFAULT, ACLS[1]), "file");
        tell(format!("invalid {name}"), set(path, name, "u::rwx,u:1:rwx,g::,o::"), path);
        tell(format!("invalid {name}"), set(path, name, "u::rwx"), path);
    }
    told.push(format!("{:?}", w.getxattr("file", ACCESS.as_bytes())));
    client.end().unwrap();
    told
}

/// What a kernel makes of it, where its filesystem has ACLs.
fn on_the_host() -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let client = Mounted::new(dir.path()).unwrap();
    let w = World::new(&client as &dyn Client, b"".as_slice());
    let access = ACCESS.as_bytes();
    match w.setxattr("", access, &acl(ACLS[1]), XattrMode::Set) {
        Ok(()) => w.removexattr("", access).unwrap(),
        Err(errno) => {
            eprintln!("SKIPPED: ACLs on the host: {errno}");
            return None;
        }
    }
    // The umask and the ids are a thread's own there.
    Some(std::thread::scope(|scope| scope.spawn(|| story(&client)).join().unwrap()))
}

fn agrees_with_the_host(ownership: Ownership) {
    if !is_root("changing owners") {
        return;
    }
    let Some(expected) = on_the_host() else { return };
    let share = Share::new(|builder| builder.ownership(ownership).posix_acl(true));
    let got = story(&share.client);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
}

#[test]
fn acls_under_host_ownership_are_what_the_host_makes_of_them() {
    agrees_with_the_host(Ownership::Host);
}

#[test]
fn acls_under_virtual_ownership_are_what_a_host_would_make_of_them() {
    agrees_with_the_host(Ownership::Virtual);
}

#[test]
fn acl_under_virtual_ownership_is_none_on_the_host_and_private_to_this_filesystem() {
    let share = Share::new(|builder| builder.posix_acl(true));
    let w = share.world();
    w.mkdir("dir", 0o755).unwrap();
    w.setxattr("dir", DEFAULT.as_bytes(), &acl(ACLS[2]), XattrMode::Set).unwrap();
    w.file("dir/f", b"").unwrap();
    assert_eq!(w.getxattr("dir/f", ACCESS.as_bytes()).map(|value| value.len()), Ok(60));
    for path in ["dir", "dir/f"] {
        for name in [ACCESS, DEFAULT] {
            assert_eq!(host_xattr(&share.host(path), name), None, "{path} {name}");
            let private = format!("user.stratafs.{name}");
            assert_eq!(w.getxattr(path, private.as_bytes()).unwrap_err(), Errno::ENODATA);
            let set = w.setxattr(path, private.as_bytes(), b"", XattrMode::Set);
            assert_eq!(set.unwrap_err(), Errno::EPERM);
        }
        assert_eq!(share.host_mode(path) & 0o7077, 0, "plain on the host");
    }
    // Another server of the same directory shows the same, and without the option none of it.
    let again = |posix_acl| {
        let builder = PassthroughFs::builder().root_dir(share.dir.path());
        let builder = builder.ownership(Ownership::Virtual).posix_acl(posix_acl);
        InProcess::new(Arc::new(builder.build().unwrap()))
    };
    let (with, without) = (again(true), again(false));
    for path in ["dir", "dir/f"] {
        let shown_by = |client: &InProcess| shown(&World::new(client, b"".as_slice()), path);
        assert_eq!(shown_by(&with), shown(&w, path));
    }
    let refused = without.getxattr(b"dir/f", ACCESS.as_bytes());
    assert_eq!(refused.unwrap_err(), Errno::EOPNOTSUPP);
    let refused = without.setxattr(b"dir/f", ACCESS.as_bytes(), &acl(ACLS[0]), XattrMode::Set);
    assert_eq!(refused.unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(without.listxattr(b"dir/f").unwrap(), [b""; 0]);
}

#[test]
fn acl_of_mapped_ids_names_the_host_s_on_the_host() {
    if !is_root("host ownership") || on_the_host().is_none() {
        return;
    }
    let share = Share::new(|builder| {
        let builder = builder.ownership(Ownership::Host).posix_acl(true);
        let builder = builder.uid_map("map:0:100000:10000".parse().unwrap());
        let builder = builder.uid_map("forbid-guest:0:4294967294".parse().unwrap());
        builder.gid_map("map:0:200000:10000".parse().unwrap())
    });
    let w = share.world();
    w.file("f", b"").unwrap();
    let text = "u::rw,u:1000:rwx,g::r,g:50:x,m::rw,o::r";
    w.setxattr("f", ACCESS.as_bytes(), &acl(text), XattrMode::Set).unwrap();
    let on_host = acl("u::rw,u:101000:rwx,g::r,g:200050:x,m::rw,o::r").escape_ascii().to_string();
    assert_eq!(host_xattr(&share.host("f"), ACCESS), Some(on_host));
    assert_eq!(w.getxattr("f", ACCESS.as_bytes()).unwrap(), acl(text));
    let forbidden = acl("u::rw,u:10000:rwx,g::r,m::rw,o::r");
    let refused = w.setxattr("f", ACCESS.as_bytes(), &forbidden, XattrMode::Set);
    assert_eq!(refused.unwrap_err(), Errno::EPERM);
}

#[test]
fn acl_of_who_may_not_keep_setgid_clears_it() {
    for ownership in [Ownership::Virtual, Ownership::Host] {
        if ownership == Ownership::Host && (!is_root("host ownership") || on_the_host().is_none()) {
            continue;
        }
        let share = Share::new(|builder| builder.ownership(ownership).posix_acl(true));
        let w = share.world();
        w.file("f", b"").unwrap();
        let entry = share.lookup(NodeId::ROOT, "f").unwrap();
        for (text, clear, mode) in
            [(ACLS[1], false, 0o6664), (ACLS[1], true, 0o4664), (ACLS[0], true, 0o4750)]
        {
            w.chmod("f", 0o6755).unwrap();
            let name = XattrName::new(ACCESS.as_bytes()).unwrap();
            let value = acl(text);
            share.fs.setxattr(&root(), entry.node, name, &value, XattrMode::Set, clear).unwrap();
            let got = w.stat("f").unwrap().mode & 0o7777;
            assert_eq!(got, mode, "{ownership:?} {text}: {got:o}");
        }
        share.fs.forget(entry.node, 1);
    }
}

#[test]
fn default_acl_counts_at_once_and_no_longer_than_it_is_there() {
    let share = Share::new(|builder| builder.posix_acl(true));
    let w = share.world();
    let cx = Context::new(1, Some(Credentials::new(0, 0))).with_umask(0o077);
    let made = |name: &str| {
        let name = stratafs_core::Name::new(name.as_bytes()).unwrap();
        let entry = share.fs.mknod(&cx, NodeId::ROOT, name, 0o100_666, 0).unwrap();
        share.fs.forget(entry.node, 1);
        entry.attr.mode & 0o777
    };
    assert_eq!(made("before"), 0o600);
    w.setxattr("", DEFAULT.as_bytes(), &acl("u::rwx,g::rwx,o::r"), XattrMode::Set).unwrap();
    assert_eq!(made("under"), 0o664);
    w.removexattr("", DEFAULT.as_bytes()).unwrap();
    assert_eq!(made("after"), 0o600);
}

#[test]
fn acl_that_is_none_on_the_host_is_eio_and_nothing_is_made_by_a_guess() {
    let share = Share::new(|builder| builder.posix_acl(true));
    let w = share.world();
    w.mkdir("dir", 0o755).unwrap();
    let private = format!("user.stratafs.{DEFAULT}");
    crate::support::set_host_xattr(&share.host("dir"), &private, b"garbage");
    assert_eq!(w.getxattr("dir", DEFAULT.as_bytes()).unwrap_err(), Errno::EIO);
    assert_eq!(w.mkdir("dir/new", 0o755).unwrap_err(), Errno::EIO);
    assert_eq!(w.names("dir").unwrap(), [""; 0]);
    w.removexattr("dir", DEFAULT.as_bytes()).unwrap();
    w.mkdir("dir/new", 0o755).unwrap();
}

#[test]
fn acls_are_promised_only_where_they_are_asked_for_and_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || PassthroughFs::builder().root_dir(dir.path()).ownership(Ownership::Virtual);
    let bears = |posix_acl| {
        builder().posix_acl(posix_acl).build().unwrap().features().bears(Behaviours::POSIX_ACL)
    };
    assert_eq!((bears(true), bears(false)), (true, false));
    for refused in [
        builder().posix_acl(true).xattr(false).build(),
        builder().posix_acl(true).ownership(Ownership::Squash).build(),
    ] {
        assert!(matches!(refused, Err(BuildError::Conflict(_))), "{refused:?}");
    }
    let without = PassthroughFs::builder().root_dir("/proc").ownership(Ownership::Host);
    let refused = without.posix_acl(true).build().unwrap_err();
    assert!(matches!(refused, BuildError::NoAcl { .. }), "{refused}");
    for word in ["read", "/proc", "EOPNOTSUPP", "leave posix_acl out"] {
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
fn acls_that_somebody_does_not_check_are_neither_shown_nor_set() {
    let share = Share::new(|builder| builder.posix_acl(true));
    let w = share.world();
    w.file("f", b"").unwrap();
    let set = || w.setxattr("f", ACCESS.as_bytes(), &acl(ACLS[1]), XattrMode::Set);
    share.fs.init(&Negotiated::new(45, 4096, Behaviours::POSIX_ACL)).unwrap();
    set().unwrap();
    assert_eq!(w.listxattr("f").unwrap(), [ACCESS.as_bytes()]);
    share.fs.init(&Negotiated::new(45, 4096, Behaviours::empty())).unwrap();
    assert_eq!(set().unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(w.getxattr("f", ACCESS.as_bytes()).unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(w.listxattr("f").unwrap(), [b""; 0]);
}
