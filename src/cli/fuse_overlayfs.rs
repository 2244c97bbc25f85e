//! `stratafs fuse-overlayfs`, and the program under that name: an overlay by the command line of
//! fuse-overlayfs(1), as far as scripts use it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser};

use super::logging::Level;
use super::mount::Mount;
use super::{Misuse, logging};
use crate::spec::ast::Word;

/// The name by which scripts call it.
const NAME: &str = "fuse-overlayfs";

const EXAMPLES: &str = "\
Examples:
  stratafs fuse-overlayfs -o lowerdir=/layers/app:/layers/base,upperdir=/up,workdir=/work /mnt/x
  stratafs fuse-overlayfs -f -o lowerdir=/odd\\:name -o ro /mnt/x

For scripts that call fuse-overlayfs, link the program under that name:
  ln -s \"$(command -v stratafs)\" /usr/local/bin/fuse-overlayfs

In lowerdir= the topmost layer comes first, and \\: is a colon in a path. Without upperdir= it is
read-only. Records are kept in trusted.overlay.* by root, in user.overlay.* by another user. What
`stratafs mount -o` takes is taken too. Exit codes: 0 it is mounted, or ended, 1 it could not be
done, 2 it was asked for wrongly.";

/// Mount an overlay by the command line of fuse-overlayfs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FuseOverlayfs {
    /// The directory to mount on; a source before it, as mount(8) gives, is taken and without effect
    #[arg(required = true, num_args = 1..=2, value_name = "MOUNTPOINT")]
    places: Vec<PathBuf>,

    /// Options with commas between them: lowerdir=A:B, upperdir=U, workdir=W, redirect_dir=, index=,
    /// metacopy=, xino=, userxattr, volatile, timeout=SECONDS, and mount options
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Serve in the foreground
    #[arg(short = 'f')]
    foreground: bool,

    /// Serve in the foreground and log every request
    #[arg(short = 'd', long = "debug")]
    debug: bool,
}

/// The program by its own name.
#[derive(Debug, Parser)]
#[command(name = NAME, version, disable_version_flag = true)]
struct Program {
    #[command(flatten)]
    args: FuseOverlayfs,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: (),
}

/// Does what is asked for if this process was started by the name; `None` if not.
pub(super) fn run_if_named() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    if Path::new(&name).file_name()? != NAME {
        return None;
    }
    let program = Program::parse();
    let level = program.args.log_level();
    logging::init(level, logging::Place::StandardError);
    Some(super::told(program.args.run(level)).into())
}

impl FuseOverlayfs {
    /// How much is logged if nothing else is said.
    pub(super) fn log_level(&self) -> Option<Level> {
        self.debug.then_some(Level::Debug)
    }

    /// Mounts, and serves unless in the background; the answer is the exit code.
    pub(super) fn run(&self, log_level: Option<Level>) -> Result<u8> {
        let effective = std::fs::metadata("/proc/self").map_or(u32::MAX, |attr| attr.uid());
        let asked = Asked::read(&self.options)?;
        let spec = asked.spec(self.debug, effective == 0)?;
        let mountpoint = self.places.last().cloned().unwrap_or_default();
        // So that whoever looks at the mount table finds what is looked for there.
        let mut options = vec![OsString::from(format!("fsname={NAME},subtype={NAME}"))];
        options.extend(asked.others);
        let background = !(self.foreground || self.debug);
        Mount::silent(spec.into(), mountpoint, options, background).run(log_level)
    }
}

/// What the options ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// The topmost first.
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    /// Keys of the overlay in a spec, and their values.
    keys: Vec<(&'static str, String)>,
    /// What is none of the overlay's.
    others: Vec<OsString>,
}

/// Options whose names and values are those of a spec's keys.
const KEYS: &[&str] = &["redirect_dir", "index", "metacopy", "userxattr", "volatile"];

/// Options of fuse-overlayfs that change nothing here.
const WITHOUT_EFFECT: &[&str] =
    &["threaded", "clone_fd", "max_idle_threads", "static_nlink", "fsync", "noacl", "plugins"];

/// Options of fuse-overlayfs that change what is shown, and are not known here.
const UNKNOWN: &[&str] = &[
    "squash_to_root",
    "squash_to_uid",
    "squash_to_gid",
    "uidmapping",
    "gidmapping",
    "xattr_permissions",
    "noxattrs",
    "ino32_t",
];

impl Asked {
    fn read(lists: &[OsString]) -> Result<Self> {
        let mut asked = Self::default();
        for list in lists {
            for option in split(list.as_bytes(), b',') {
                asked.add(option)?;
            }
        }
        Ok(asked)
    }

    fn add(&mut self, option: &[u8]) -> Result<()> {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let name = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or("?");
        let value = parts.next();
        let path = |value: Option<&[u8]>| -> Result<PathBuf> {
            match value.filter(|value| !value.is_empty()) {
                Some(value) => absolute(&unescaped(value)),
                None => {
                    bail!(Misuse(format!("cannot mount an overlay: {name}= needs a directory")))
                }
            }
        };
        if let Some(key) = KEYS.iter().find(|key| **key == name) {
            let value = value.unwrap_or(b"true");
            self.keys.retain(|(known, _)| known != key);
            self.keys.push((key, Word::new(value).to_string()));
        } else if name == "lowerdir" {
            let dirs = split(value.unwrap_or_default(), b':');
            self.lowers = dirs.into_iter().map(|dir| path(Some(dir))).collect::<Result<_>>()?;
        } else if name == "upperdir" {
            self.upper = Some(path(value)?);
        } else if name == "workdir" {
            self.work = Some(path(value)?);
        } else if name == "xino" {
            // `auto` is what is done if nothing is said.
            if let Some(value) = value.filter(|value| *value != b"auto") {
                self.keys.push(("xino", Word::new(value).to_string()));
            }
        } else if name == "timeout" {
            let value = Word::new(value.unwrap_or_default()).to_string();
            self.keys.push(("entry_timeout", value.clone()));
            self.keys.push(("attr_timeout", value));
        } else if WITHOUT_EFFECT.contains(&name) {
            log::info!("{NAME}: the option {name} is without effect");
        } else if UNKNOWN.contains(&name) {
            let next = "leave it out, or use fuse-overlayfs itself";
            let text = format!("cannot mount an overlay: the option {name} is not known\n  {next}");
            bail!(Misuse(text));
        } else if !option.is_empty() {
            self.others.push(OsString::from_vec(option.to_vec()));
        }
        Ok(())
    }

    /// The composition. `privileged`: this process may keep records in `trusted.`.
    fn spec(&self, traced: bool, privileged: bool) -> Result<String> {
        if self.lowers.is_empty() && self.upper.is_none() {
            let next = "give -o lowerdir=DIR:DIR…";
            bail!(Misuse(format!("cannot mount an overlay: it has no layer\n  {next}")));
        }
        let mut args: Vec<String> = Vec::new();
        let mut arg = |key: &str, path: &Path| {
            let mut text = format!("{key}=");
            // To a string nothing fails.
            let _ = write!(text, "{}", Word::new(path.as_os_str().as_bytes()));
            args.push(text);
        };
        self.lowers.iter().for_each(|lower| arg("lower", lower));
        self.upper.iter().for_each(|upper| arg("upper", upper));
        self.work.iter().for_each(|work| arg("work", work));
        let says_where = self.keys.iter().any(|(key, _)| *key == "userxattr");
        if !privileged && !says_where {
            args.push("userxattr".to_owned());
        }
        args.extend(self.keys.iter().map(|(key, value)| format!("{key}={value}")));
        let overlay = format!("overlay({})", args.join(", "));
        Ok(if traced { format!("traced({overlay})") } else { overlay })
    }
}

/// The parts of `list` between `separator`s that no backslash is in front of.
fn split(list: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in list.iter().enumerate() {
        if !escaped && *byte == separator {
            parts.push(list.get(start..at).unwrap_or_default());
            start = at + 1;
        }
        escaped = !escaped && *byte == b'\\';
    }
    parts.push(list.get(start..).unwrap_or_default());
    parts
}

/// `value` without the backslashes that escape what follows.
fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        let kept = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        plain.push(*kept);
    }
    plain
}

/// A server in the background is in another directory.
fn absolute(path: &[u8]) -> Result<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    std::path::absolute(path)
        .with_context(|| format!("cannot mount an overlay: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lists: &[&str]) -> Result<Asked> {
        Asked::read(&lists.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn spec(lists: &[&str]) -> String {
        asked(lists).unwrap().spec(false, true).unwrap()
    }

    #[test]
    fn program_definition_is_consistent() {
        use clap::CommandFactory as _;
        Program::command().debug_assert();
    }

    #[test]
    fn options_become_a_spec_with_the_topmost_layer_first() {
        assert_eq!(
            spec(&["lowerdir=/a:/b,upperdir=/u", "workdir=/w,index=off,ro"]),
            "overlay(lower=/a, lower=/b, upper=/u, work=/w, index=off)"
        );
        assert_eq!(asked(&["lowerdir=/a,ro", "noatime"]).unwrap().others, ["ro", "noatime"]);
        assert_eq!(spec(&["lowerdir=/a", "lowerdir=/b"]), "overlay(lower=/b)", "the last counts");
    }

    #[test]
    fn escapes_keep_colons_commas_and_backslashes_in_paths() {
        let asked = asked(&[r"lowerdir=/a\:b:/c\,d:/e\\:/f g"]).unwrap();
        assert_eq!(asked.lowers, ["/a:b", "/c,d", r"/e\", "/f g"].map(PathBuf::from));
        let spec = asked.spec(true, false).unwrap();
        let parsed = crate::spec::Composition::parse(&spec).unwrap();
        assert!(spec.starts_with("traced(overlay(lower=/a:b, lower=\"/c,d\""), "{spec}");
        assert!(spec.ends_with("userxattr))"), "{spec}");
        assert_eq!(parsed.to_string().matches("lower=").count(), 4);
    }

    #[test]
    fn what_is_missing_or_would_show_other_things_is_misuse() {
        let says = |lists: &[&str]| {
            let error = asked(lists).and_then(|asked| asked.spec(false, true)).unwrap_err();
            assert!(error.is::<Misuse>());
            error.to_string()
        };
        assert!(says(&["ro"]).contains("no layer"));
        assert!(says(&["upperdir="]).contains("upperdir= needs a directory"));
        assert!(says(&["lowerdir=/a,squash_to_root"]).contains("squash_to_root is not known"));
        assert_eq!(spec(&["lowerdir=/a,threaded=0,xino=auto"]), "overlay(lower=/a)");
    }
}
