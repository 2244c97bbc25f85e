//! `-o` options, as users of fuse filesystems and of mount(8) know them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use stratafs_core::{Behaviours, Features};
use stratafs_sys::creds;
use stratafs_sys::mount::MountFlags;

use super::attachment::find_user;
use super::error::MountError;

/// The longest `fsname`: mount(2) takes a page of text, and `/proc/mounts` shows it escaped.
const FSNAME_MAX: usize = 1000;
/// The longest `subtype`, which is part of the type's name.
const SUBTYPE_MAX: usize = 64;
/// The smallest read the kernel sends: a page (`fuse_fill_super`).
const MAX_READ_MIN: u32 = 4096;

/// How a filesystem is mounted. `None` is the default of its field.
///
/// `default_permissions` is no field: the kernel checks permissions on every mount, for no backend
/// does.
///
/// # Source
/// mount(8), fuse(8), mount.fuse3(8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountOptions {
    /// `ro`, `rw`: no writes. Default: what the filesystem promises.
    pub read_only: Option<bool>,
    /// `suid`, `nosuid`: setuid and setgid bits and file capabilities count. Default: no, as for
    /// every fuse filesystem. Needs root.
    pub suid: Option<bool>,
    /// `dev`, `nodev`: device nodes can be opened. Default: no, as above. Needs root.
    pub dev: Option<bool>,
    /// `exec`, `noexec`: programs can be run. Default: yes.
    pub exec: Option<bool>,
    /// `atime`, `noatime`: reads change access times. Default: yes.
    pub atime: Option<bool>,
    /// `diratime`, `nodiratime`: the same of directories alone. Default: yes.
    pub dir_atime: Option<bool>,
    /// `sync`, `async`: writes are synchronous. Default: no.
    pub synchronous: Option<bool>,
    /// `allow_other`: other users than the server's may use it. Default: yes if root serves it,
    /// for root serves everybody; no otherwise, and then `user_allow_other` in `/etc/fuse.conf`
    /// must allow it.
    pub allow_other: Option<bool>,
    /// `auto_unmount`: unmount even if the server is killed, once it is dead. It takes one more
    /// process. Default: no, or yes with [`Self::setuid`], where the server could not unmount by
    /// itself.
    pub auto_unmount: Option<bool>,
    /// `passthrough`, `nopassthrough`: the kernel reads and writes files of the host by itself, where
    /// the filesystem offers them and this process may (CAP_SYS_ADMIN, so not with
    /// [`Self::setuid`]). Default: yes. Asked for by name it excludes a writeback cache.
    pub passthrough: Option<bool>,
    /// `max_stack_depth=1|2`: 2 lets the kernel do so on files of a filesystem that is itself on
    /// another, an overlay say; then this mount can be no layer of a kernel overlay. Default: 1.
    pub max_stack_depth: Option<u32>,
    /// `fsname=NAME`: the source, as `df` shows it. Default: `stratafs:KIND`.
    pub fsname: Option<OsString>,
    /// `subtype=NAME`: what follows `fuse.` in the type. Default: `stratafs`.
    pub subtype: Option<OsString>,
    /// `max_read=BYTES`: the largest read that the kernel sends. Default: its own limit.
    pub max_read: Option<u32>,
    /// `setuid=USER`: root mounts, then the whole process becomes this user for good before it
    /// serves the first request. Default: stay.
    pub setuid: Option<String>,
}

type Switch = fn(&mut MountOptions) -> &mut Option<bool>;

/// Options without a value: name, field, and what the name means for it.
const SWITCHES: &[(&str, Switch, bool)] = &[
    ("ro", |o| &mut o.read_only, true),
    ("rw", |o| &mut o.read_only, false),
    ("suid", |o| &mut o.suid, true),
    ("nosuid", |o| &mut o.suid, false),
    ("dev", |o| &mut o.dev, true),
    ("nodev", |o| &mut o.dev, false),
    ("exec", |o| &mut o.exec, true),
    ("noexec", |o| &mut o.exec, false),
    ("atime", |o| &mut o.atime, true),
    ("noatime", |o| &mut o.atime, false),
    ("diratime", |o| &mut o.dir_atime, true),
    ("nodiratime", |o| &mut o.dir_atime, false),
    ("sync", |o| &mut o.synchronous, true),
    ("async", |o| &mut o.synchronous, false),
    ("allow_other", |o| &mut o.allow_other, true),
    ("auto_unmount", |o| &mut o.auto_unmount, true),
    ("passthrough", |o| &mut o.passthrough, true),
    ("nopassthrough", |o| &mut o.passthrough, false),
];

/// Options with a value.
const VALUED: &[&str] = &["fsname", "subtype", "max_read", "max_stack_depth", "setuid"];
/// Options that this server acts on by itself: neither mount(2) nor `fusermount3` hears of them.
const OWN: &[&str] = &["auto_unmount", "passthrough", "nopassthrough"];

/// What fstab and mount(8) hand to every filesystem and mean for other programs, and what is
/// always so. Taken in silence.
const TAKEN: &[&str] = &[
    "defaults",
    "default_permissions",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "loud",
    "silent",
];

impl MountOptions {
    /// Reads option lists as given with one `-o` or several: options with commas between them;
    /// `\,` is a comma inside a value and `\\` a backslash.
    ///
    /// An option that nobody here knows is left out with a warning in the log.
    ///
    /// # Errors
    /// [`MountError::Option`]: an option contradicts an earlier one, lacks its value, has one that
    /// it does not take, or one of the wrong kind.
    pub fn parse(lists: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<Self, MountError> {
        let mut options = Self::default();
        for list in lists {
            for option in split(list.as_ref().as_bytes())? {
                if !option.is_empty() {
                    options.add(&option)?;
                }
            }
        }
        Ok(options)
    }

    fn add(&mut self, option: &[u8]) -> Result<(), MountError> {
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let wrong = |problem: &str, next: &str| MountError::option(option, problem, next);
        if let Some((text, field, on)) = SWITCHES.iter().find(|(text, ..)| text.as_bytes() == name)
        {
            if value.is_some() {
                return Err(wrong("it takes no value", &format!("write `{text}` alone")));
            }
            let field = field(self);
            if field.is_some_and(|earlier| earlier != *on) {
                return Err(wrong("an option before it says the opposite", "keep one of the two"));
            }
            *field = Some(*on);
            return Ok(());
        }
        if let Some(text) = VALUED.iter().find(|text| text.as_bytes() == name) {
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                return Err(wrong("it needs a value", &format!("write `{text}=VALUE`")));
            };
            return self.set(text, value, &wrong);
        }
        if !TAKEN.iter().any(|text| text.as_bytes() == name)
            && !name.starts_with(b"x-")
            && !name.starts_with(b"X-")
            && name != b"comment"
        {
            let name = String::from_utf8_lossy(name);
            log::warn!("mount option `{}` is not known here and left out", name.escape_debug());
        }
        Ok(())
    }

    fn set(
        &mut self,
        name: &str,
        value: &[u8],
        wrong: &dyn Fn(&str, &str) -> MountError,
    ) -> Result<(), MountError> {
        let twice = || wrong("an option before it says something else", "keep one of the two");
        if value.contains(&0) {
            return Err(wrong("a NUL is in its value", "leave the NUL out"));
        }
        let too_long = |max: usize| {
            (value.len() > max)
                .then(|| wrong("its value is too long", &format!("write at most {max} bytes")))
        };
        match name {
            "fsname" => match too_long(FSNAME_MAX) {
                Some(error) => Err(error),
                None => put(&mut self.fsname, OsString::from_vec(value.to_vec()), twice),
            },
            "subtype" => match too_long(SUBTYPE_MAX) {
                Some(error) => Err(error),
                None => put(&mut self.subtype, OsString::from_vec(value.to_vec()), twice),
            },
            "max_read" => {
                let bytes = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                match bytes {
                    Some(bytes) if bytes >= MAX_READ_MIN => put(&mut self.max_read, bytes, twice),
                    _ => Err(wrong(
                        "it wants a number of bytes, 4096 or more",
                        "write it without a unit, such as `max_read=131072`",
                    )),
                }
            }
            "max_stack_depth" => match value {
                b"1" => put(&mut self.max_stack_depth, 1, twice),
                b"2" => put(&mut self.max_stack_depth, 2, twice),
                _ => Err(wrong("the kernel stacks no filesystem deeper", "write 1 or 2")),
            },
            _ => match String::from_utf8(value.to_vec()) {
                Ok(user) => put(&mut self.setuid, user, twice),
                Err(_) => Err(wrong("it wants the name of a user", "see `getent passwd`")),
            },
        }
    }

    /// The user and group that will serve: those of [`Self::setuid`], or this process's. A
    /// filesystem that is new with the mount is theirs.
    ///
    /// # Errors
    /// [`MountError::User`]: there is no such user, or it is root.
    pub fn server_ids(&self) -> Result<(u32, u32), MountError> {
        match &self.setuid {
            Some(name) => find_user(name).map(|user| (user.uid, user.gid)),
            None => Ok(creds::effective()),
        }
    }

    /// Finds options that the filesystem's own exclude.
    ///
    /// # Errors
    /// [`MountError::Option`]: `passthrough` is asked for, and a writeback cache is too.
    pub(super) fn check_against(&self, features: &Features) -> Result<(), MountError> {
        if self.passthrough == Some(true) && features.bears(Behaviours::WRITEBACK) {
            return Err(MountError::option(
                b"passthrough",
                "the filesystem has a writeback cache, which the kernel does not keep of files that \
                 it reads and writes by itself",
                "leave out `passthrough`, or the filesystem's `writeback`",
            ));
        }
        Ok(())
    }

    /// The flags of mount(2). `read_only` is the default of that field.
    pub(super) fn flags(&self, read_only: bool) -> MountFlags {
        let switches = [
            (MountFlags::READ_ONLY, self.read_only.unwrap_or(read_only)),
            (MountFlags::NO_SUID, !self.suid.unwrap_or(false)),
            (MountFlags::NO_DEV, !self.dev.unwrap_or(false)),
            (MountFlags::NO_EXEC, !self.exec.unwrap_or(true)),
            (MountFlags::NO_ATIME, !self.atime.unwrap_or(true)),
            (MountFlags::NO_DIR_ATIME, !self.dir_atime.unwrap_or(true)),
            (MountFlags::SYNCHRONOUS, self.synchronous.unwrap_or(false)),
        ];
        switches.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag).collect()
    }

    /// The option list for `fusermount3`, which knows the same names. `suid` and `dev` are for
    /// root; it refuses them itself.
    pub(super) fn for_fusermount(
        &self,
        fsname: &OsStr,
        subtype: &OsStr,
        read_only: bool,
    ) -> OsString {
        let mut list = b"default_permissions,fsname=".to_vec();
        escape(fsname.as_bytes(), &mut list);
        list.extend_from_slice(b",subtype=");
        escape(subtype.as_bytes(), &mut list);
        let mut resolved = self.clone();
        resolved.read_only = Some(self.read_only.unwrap_or(read_only));
        for (name, field, on) in SWITCHES {
            // The watcher is of ours, see `Attachment::watch`.
            if !OWN.contains(name) && *field(&mut resolved) == Some(*on) {
                list.push(b',');
                list.extend_from_slice(name.as_bytes());
            }
        }
        if let Some(bytes) = self.max_read {
            list.extend_from_slice(format!(",max_read={bytes}").as_bytes());
        }
        OsString::from_vec(list)
    }
}

/// Sets a field that may be given once, or again with the same value.
fn put<T: PartialEq>(
    field: &mut Option<T>,
    value: T,
    twice: impl Fn() -> MountError,
) -> Result<(), MountError> {
    if field.as_ref().is_some_and(|earlier| *earlier != value) {
        return Err(twice());
    }
    *field = Some(value);
    Ok(())
}

/// Splits at commas that no backslash precedes, and takes the backslashes out.
fn split(list: &[u8]) -> Result<Vec<Vec<u8>>, MountError> {
    let mut options = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b',' => {
                options.push(Vec::new());
                continue;
            }
            b'\\' => *bytes.next().ok_or_else(|| {
                MountError::option(list, "a lone backslash ends it", "write `\\\\` for a backslash")
            })?,
            other => other,
        };
        if let Some(option) = options.last_mut() {
            option.push(byte);
        }
    }
    Ok(options)
}

fn escape(value: &[u8], list: &mut Vec<u8>) {
    for &byte in value {
        if matches!(byte, b',' | b'\\') {
            list.push(b'\\');
        }
        list.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> MountOptions {
        MountOptions::parse([list]).unwrap()
    }

    #[test]
    fn parse_of_every_switch_sets_its_field_alone() {
        for (name, field, on) in SWITCHES {
            let mut expected = MountOptions::default();
            *field(&mut expected) = Some(*on);
            assert_eq!(parse(name), expected, "{name}");
        }
    }

    #[test]
    fn parse_of_values_in_several_lists_sets_them() {
        let options = MountOptions::parse([
            r"fsname=a\,b\\c=d,max_read=4096",
            "subtype=x,setuid=nobody,max_stack_depth=2",
        ]);
        let expected = MountOptions {
            fsname: Some(r"a,b\c=d".into()),
            max_read: Some(4096),
            subtype: Some("x".into()),
            setuid: Some("nobody".into()),
            max_stack_depth: Some(2),
            ..MountOptions::default()
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn parse_of_generic_and_unknown_options_leaves_them_out() {
        for list in ["", ",,", "defaults,_netdev,x-systemd.automount,comment=a", "no_such,uid=7"] {
            assert_eq!(parse(list), MountOptions::default(), "{list}");
        }
    }

    #[test]
    fn parse_of_wrong_options_names_them_and_what_to_write() {
        for (list, words) in [
            ("ro,noatime,rw", ["`rw`", "opposite"]),
            ("nosuid,suid", ["`suid`", "opposite"]),
            ("ro=1", ["`ro=1`", "no value"]),
            ("fsname", ["`fsname`", "needs a value"]),
            ("fsname=", ["`fsname=`", "needs a value"]),
            ("fsname=a,fsname=b", ["`fsname=b`", "something else"]),
            ("max_read=64k", ["`max_read=64k`", "number of bytes"]),
            ("max_read=4095", ["`max_read=4095`", "4096 or more"]),
            ("max_read=99999999999", ["`max_read=99999999999`", "number"]),
            ("setuid", ["`setuid`", "needs a value"]),
            ("max_stack_depth=3", ["`max_stack_depth=3`", "1 or 2"]),
            ("passthrough,nopassthrough", ["`nopassthrough`", "opposite"]),
            ("ro\\", ["`ro\\\\`", "backslash"]),
            ("subtype=a\0b", ["`subtype=a\\0b`", "NUL"]),
        ] {
            let error = MountOptions::parse([list]).unwrap_err();
            assert!(error.is_misuse());
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "{list}: {text}");
            }
        }
        let long = format!("subtype={}", "x".repeat(SUBTYPE_MAX + 1));
        assert!(MountOptions::parse([long]).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn parse_of_the_same_twice_is_no_contradiction() {
        assert_eq!(parse("ro,ro,fsname=a,fsname=a"), parse("ro,fsname=a"));
    }

    #[test]
    fn flags_by_default_are_nosuid_and_nodev() {
        let plain = MountFlags::NO_SUID | MountFlags::NO_DEV;
        assert_eq!(MountOptions::default().flags(false), plain);
        assert_eq!(MountOptions::default().flags(true), plain | MountFlags::READ_ONLY);
        assert_eq!(parse("rw").flags(true), plain);
        let all = parse("ro,suid,dev,noexec,noatime,nodiratime,sync").flags(false);
        assert_eq!(all, MountFlags::all() & (all | MountFlags::READ_ONLY));
        assert!(all.contains(
            MountFlags::READ_ONLY
                | MountFlags::NO_EXEC
                | MountFlags::NO_ATIME
                | MountFlags::NO_DIR_ATIME
                | MountFlags::SYNCHRONOUS
        ));
        assert!(!all.intersects(plain));
    }

    #[test]
    fn passthrough_by_name_excludes_a_writeback_cache() {
        let plain = Features::new("x").promising(Behaviours::PASSTHROUGH);
        let cached = plain.promising(Behaviours::WRITEBACK);
        for list in ["", "nopassthrough"] {
            assert!(parse(list).check_against(&cached).is_ok(), "{list}");
        }
        assert!(parse("passthrough").check_against(&plain).is_ok());
        let text = parse("passthrough").check_against(&cached).unwrap_err().to_string();
        assert!(text.contains("writeback") && text.contains("leave out"), "{text}");
    }

    #[test]
    fn for_fusermount_lists_what_was_asked_for_and_escapes_commas() {
        let list = parse("allow_other,noatime,max_read=8192,nopassthrough").for_fusermount(
            OsStr::new(r"a,b\c"),
            OsStr::new("s"),
            true,
        );
        assert_eq!(
            list,
            r"default_permissions,fsname=a\,b\\c,subtype=s,ro,noatime,allow_other,max_read=8192"
        );
    }

    #[test]
    fn server_ids_are_the_process_s_own_unless_another_user_is_named() {
        assert_eq!(parse("ro").server_ids().unwrap(), creds::effective());
        let nobody = creds::user("nobody").unwrap();
        assert_eq!(parse("setuid=nobody").server_ids().unwrap(), (nobody.uid, nobody.gid));
        let error = parse("setuid=no-such-user").server_ids().unwrap_err();
        assert!(matches!(error, MountError::User { .. }), "{error}");
    }
}
