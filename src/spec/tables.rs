//! What every backend and wrapper takes, as data.
//!
//! One [`Backend`] describes one name: it drives the check of a composition, the "allowed here" of
//! its errors and the printed help, so that a new backend is a new table and no new code here.

use std::fmt;

/// A name that can be called in a composition.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backend {
    /// The name.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// What users of other tools call it: only used to suggest the name.
    pub other_names: &'static [&'static str],
    /// The key that one bare value stands for, as in `passthrough(/srv)`.
    pub positional: Option<&'static str>,
    /// True if paths are keys, as in `router(/home=…)`; each takes a filesystem and is given once.
    pub has_mounts: bool,
    /// The keys, in groups that several backends share.
    pub keys: &'static [&'static [Key]],
    /// Whole compositions that use it.
    pub examples: &'static [&'static str],
}

/// One key of a backend.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// The name, which is the builder's method name.
    pub name: &'static str,
    /// Names that users of mount(8), tmpfs and overlayfs know it by.
    pub aliases: &'static [&'static str],
    /// The values that it takes.
    pub kind: Kind,
    /// True if it may be given more than once; the order then counts.
    pub repeats: bool,
    /// True if there is no composition without it.
    pub required: bool,
    /// What it does, in one line.
    pub help: &'static str,
}

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number of bytes, as in `1GiB`, `64M`, `2GB` or plain bytes.
    Size,
    /// A number of things, as in `100k`.
    Count,
    /// A time, as in `1`, `0.5`, `500ms` or `2h`.
    Time,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The number of a user or group.
    Id,
    /// Permissions in octal, as chmod(1) takes them.
    Mode,
    /// Nothing, which is `true`, or `true`, `false`, `yes`, `no`, `on`, `off`.
    Flag,
    /// A path on the host.
    Path,
    /// Filesystems as the kernel's overlay lists them, `PATH:PATH…`, topmost first. They are added
    /// to those of the key named.
    PathList(&'static str),
    /// A filesystem: a path, a call or a file.
    Filesystem,
    /// Any text.
    Text,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, aliases: &[], kind, repeats: false, required: false, help }
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// True if `name` is the key's name or one of its aliases.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_bytes() == name || self.aliases.iter().any(|alias| alias.as_bytes() == name)
    }
}

impl Kind {
    /// The values in the short form of a usage line.
    fn usage(self) -> String {
        match self {
            Self::Size => "SIZE".into(),
            Self::Count => "COUNT".into(),
            Self::Time => "TIME".into(),
            Self::Choice(words) => words.join("|"),
            Self::Id => "ID".into(),
            Self::Mode => "MODE".into(),
            Self::Flag => "true|false".into(),
            Self::Path => "PATH".into(),
            Self::PathList(_) => "PATH:PATH…".into(),
            Self::Filesystem => "FILESYSTEM".into(),
            Self::Text => "TEXT".into(),
        }
    }

    /// The values in words, as the "allowed here" of an error.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Size => "a size: bytes, K M G T (powers of 1024), KB MB GB TB (powers of 1000), \
                           or KiB MiB GiB TiB (powers of 1024)"
                .into(),
            Self::Count => "a count: a number, or one with k, M or G (powers of 1000)".into(),
            Self::Time => "a time: seconds as in 1 or 0.5, or a number with ms, s, m or h".into(),
            Self::Choice(words) => words.join(", "),
            Self::Id => format!("a number from 0 to {}", u32::MAX - 1),
            Self::Mode => "permissions in octal, from 0 to 7777".into(),
            Self::Flag => "true or false".into(),
            Self::Path => "a path beginning with / or .".into(),
            Self::PathList(_) => "paths beginning with / or ., with : between them".into(),
            Self::Filesystem => {
                "a filesystem: a path beginning with / or ., NAME(…), or @FILE.toml".into()
            }
            Self::Text => "any text; in quotes if it has spaces".into(),
        }
    }
}

impl fmt::Display for Key {
    /// Writes the key's usage, such as `capacity=SIZE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Flag => f.write_str(self.name),
            kind => write!(f, "{}={}", self.name, kind.usage()),
        }
    }
}

impl Backend {
    /// All keys.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().copied().flatten()
    }

    /// The key called `name`, by its name or an alias.
    pub fn key(&self, name: &[u8]) -> Option<&'static Key> {
        self.all_keys().find(|key| key.is_named(name))
    }

    /// What is allowed between the parentheses, as the "allowed here" of an error.
    pub(super) fn allowed(&self) -> String {
        let mounts = self.has_mounts.then(|| "/PATH=FILESYSTEM".to_owned());
        let keys = self.all_keys().map(|key| {
            if Some(key.name) == self.positional {
                format!("{} (or a bare {})", key, key.kind.usage())
            } else {
                key.to_string()
            }
        });
        let all: Vec<String> = mounts.into_iter().chain(keys).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }

    /// Every name and alias of a key, for suggestions.
    pub(super) fn key_names(&self) -> impl Iterator<Item = &'static str> {
        self.all_keys().flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
    }
}

impl fmt::Display for Backend {
    /// Writes the help page: the summary, one line per key, the examples.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.summary)?;
        let mut lines: Vec<(String, String)> = Vec::new();
        if self.has_mounts {
            let help = "the filesystem at this place of the tree; once for each place";
            lines.push(("/PATH=FILESYSTEM".into(), help.into()));
        }
        for key in self.all_keys() {
            let mut help = key.help.to_owned();
            if Some(key.name) == self.positional {
                help.push_str("; may be given bare");
            }
            if key.required {
                help.push_str("; needed");
            }
            if key.repeats {
                help.push_str("; may be repeated");
            }
            if !key.aliases.is_empty() {
                help.push_str(&format!("; also called {}", key.aliases.join(", ")));
            }
            lines.push((key.to_string(), help));
        }
        let width = lines.iter().map(|(usage, _)| usage.chars().count()).max().unwrap_or(0);
        for (usage, help) in lines {
            writeln!(f, "  {usage:width$}  {help}")?;
        }
        for example in self.examples {
            writeln!(f, "  example: {example}")?;
        }
        Ok(())
    }
}

const READONLY: Key =
    Key::new("readonly", Kind::Flag, "refuse every change with EROFS").alias(&["ro"]);

/// What every backend takes about the caches of the kernel that it is served to.
const CACHING: &[Key] = &[
    Key::new(
        "cache",
        Kind::Choice(&["never", "auto", "always"]),
        "how much the kernel may keep of data and attributes",
    ),
    Key::new("entry_timeout", Kind::Time, "how long the kernel may keep a name"),
    Key::new("attr_timeout", Kind::Time, "how long the kernel may keep attributes"),
    Key::new("negative_timeout", Kind::Time, "how long the kernel may keep that a name is absent"),
    READONLY,
];

const MEM: Backend = Backend {
    name: "mem",
    summary: "a filesystem in memory, empty at the start and gone at the end",
    other_names: &["memfs", "tmpfs", "ramfs", "memory", "ram"],
    positional: None,
    has_mounts: false,
    keys: &[
        &[
            Key::new("capacity", Kind::Size, "the most bytes that it holds").alias(&["size"]),
            Key::new("max_inodes", Kind::Count, "the most files, directories and links")
                .alias(&["nr_inodes"]),
            Key::new("max_handles", Kind::Count, "the most files open at a time"),
            Key::new("root_mode", Kind::Mode, "permissions of the root directory").alias(&["mode"]),
            Key::new("root_uid", Kind::Id, "owner of the root directory").alias(&["uid"]),
            Key::new("root_gid", Kind::Id, "group of the root directory").alias(&["gid"]),
            Key::new(
                "locks",
                Kind::Choice(&["local", "remote"]),
                "who keeps file locks: the kernel that mounts it, or this server",
            ),
            Key::new("writeback", Kind::Flag, "the kernel may keep written data for a while"),
        ],
        CACHING,
    ],
    examples: &["mem()", "mem(capacity=1GiB, max_inodes=100k, mode=1777)"],
};

const PASSTHROUGH: Backend = Backend {
    name: "passthrough",
    summary: "one directory of the host; a bare path is short for it",
    other_names: &["passthroughfs", "bind", "dir", "directory", "host", "virtiofs"],
    positional: Some("root_dir"),
    has_mounts: false,
    keys: &[
        &[
            Key::new("root_dir", Kind::Path, "the directory").required(),
            Key::new(
                "extra_root",
                Kind::Path,
                "a second directory on the same mount, outside of what is served: an overlay's work",
            ),
            Key::new(
                "ownership",
                Kind::Choice(&["virtual", "host", "squash"]),
                "where owners and modes are kept: in an xattr, in the host's inode, or nowhere",
            ),
            Key::new("default_uid", Kind::Id, "the owner shown of files without a record"),
            Key::new("default_gid", Kind::Id, "the group shown of files without a record"),
            Key::new(
                "uid_map",
                Kind::Text,
                "how users translate: map:GUEST:HOST:COUNT, and virtiofsd's other forms",
            )
            .alias(&["translate_uid"])
            .repeats(),
            Key::new("gid_map", Kind::Text, "how groups translate, in the same forms")
                .alias(&["translate_gid"])
                .repeats(),
            Key::new("exclusive", Kind::Flag, "nobody else changes the directory meanwhile"),
            Key::new("follow_root", Kind::Flag, "the directory may be a symbolic link"),
            Key::new("xattr", Kind::Flag, "extended attributes may be used; true if not set"),
            Key::new("posix_acl", Kind::Flag, "POSIX ACLs are kept, and checked by the client"),
            Key::new("fd_budget", Kind::Count, "the most files of the host kept at hand"),
            Key::new("max_handles", Kind::Count, "the most files open at a time"),
            Key::new(
                "open",
                Kind::Choice(&["handles", "stateless"]),
                "whether files are opened at all: small ones read faster where they are not",
            ),
            Key::new("writeback", Kind::Flag, "the kernel may keep written data for a while"),
        ],
        CACHING,
    ],
    examples: &["/srv/root", "passthrough(/srv/root, readonly, cache=never)"],
};

const OVERLAY: Backend = Backend {
    name: "overlay",
    summary: "read-only layers with a writable one on top",
    other_names: &["overlayfs", "fuse_overlayfs", "union", "unionfs", "aufs"],
    positional: None,
    has_mounts: false,
    keys: &[
        &[
            Key::new("lower", Kind::Filesystem, "a read-only layer, the topmost first").repeats(),
            Key::new(
                "lowerdir",
                Kind::PathList("lower"),
                "read-only layers as mount(8) lists them, the topmost first; a path with a colon \
                 needs lower=",
            )
            .repeats(),
            Key::new("upper", Kind::Filesystem, "the writable layer").alias(&["upperdir"]),
            Key::new("work", Kind::Path, "the staging directory, on the same filesystem as upper")
                .alias(&["workdir"]),
            Key::new("userxattr", Kind::Flag, "keep the overlay's records in user.overlay.*"),
            Key::new(
                "redirect_dir",
                Kind::Choice(&["on", "off", "follow", "nofollow"]),
                "whether a directory with lower parts can be renamed, and such a one is followed",
            ),
            Key::new(
                "index",
                Kind::Flag,
                "names of one file stay so when it is copied up; true if not set",
            ),
            Key::new(
                "metacopy",
                Kind::Flag,
                "a change of attributes alone copies no data; such files are followed with it only",
            ),
            Key::new(
                "xino",
                Kind::Flag,
                "inode numbers carry their layer and stay in every run; true if not set",
            ),
            Key::new("volatile", Kind::Flag, "never sync: a crash of the host loses the upper"),
            Key::new(
                "whiteout",
                Kind::Choice(&["kernel", "oci"]),
                "how layers mark deletions: as the kernel does, or with .wh. names",
            ),
        ],
        CACHING,
    ],
    examples: &[
        "overlay(lower=/layers/app, lower=/layers/base, upper=mem(capacity=512MiB))",
        "overlay(lower=/layers/app, lower=/layers/base, upper=/var/up, work=/var/work)",
        "overlay(lower=oci(/images/app, ref=latest), upper=mem(capacity=1GiB))",
    ],
};

const DUAL: Backend = Backend {
    name: "dual",
    summary: "two filesystems under one tree, with a policy that chooses between them",
    other_names: &["dualfs", "mirror", "merge", "mergerfs"],
    positional: None,
    has_mounts: false,
    keys: &[
        &[
            Key::new("a", Kind::Filesystem, "backend A").alias(&["backend_a"]).required(),
            Key::new("b", Kind::Filesystem, "backend B").alias(&["backend_b"]).required(),
            Key::new(
                "policy",
                Kind::Choice(&[
                    "read-backend-b-write-backend-a",
                    "backend-a-only",
                    "backend-a-fallback-to-backend-b-read",
                    "merge-reads-backend-a-precedence",
                    "b-read-a-write",
                    "a-only",
                    "a-fallback-b-read",
                    "merge-a-first",
                ]),
                "which of the two an operation goes to; the last four are short for the first four",
            ),
            Key::new(
                "userxattr",
                Kind::Flag,
                "keep records in user.dual.*, which takes no privilege",
            ),
        ],
        CACHING,
    ],
    examples: &["dual(a=mem(capacity=64MiB), b=/srv, policy=merge-reads-backend-a-precedence)"],
};

const ROUTER: Backend = Backend {
    name: "router",
    summary: "several filesystems in one tree, each at its own path",
    other_names: &["routerfs", "mounts", "namespace"],
    positional: None,
    has_mounts: true,
    keys: &[
        &[
            Key::new(
                "nosuid",
                Kind::Path,
                "a mount whose setuid bits and capabilities do not count",
            )
            .repeats(),
            Key::new("nodev", Kind::Path, "a mount whose devices cannot be opened").repeats(),
            Key::new("noexec", Kind::Path, "a mount whose files cannot be executed").repeats(),
        ],
        CACHING,
    ],
    examples: &[
        "router(/=mem(), /home/me=passthrough(/home/me), /tmp=mem(capacity=1GiB))",
        "router(/=/srv/root, /tmp=mem(mode=1777), nosuid=/tmp, nodev=/tmp)",
    ],
};

const OCI: Backend = Backend {
    name: "oci",
    summary: "the layers of an image in an OCI image layout, merged and read-only",
    other_names: &["image", "docker", "container", "layout"],
    positional: Some("layout"),
    has_mounts: false,
    keys: &[
        &[
            Key::new("layout", Kind::Path, "the directory of the image layout").required(),
            Key::new("ref", Kind::Text, "the image's name in the layout's index")
                .alias(&["reference", "tag"]),
        ],
        CACHING,
    ],
    examples: &["oci(/images/app, ref=latest)"],
};

const INNER: Key = Key::new("inner", Kind::Filesystem, "the filesystem that is wrapped").required();

const READ_ONLY: Backend = Backend {
    name: "readonly",
    summary: "a filesystem that refuses every change with EROFS",
    other_names: &["ro", "read_only"],
    positional: Some("inner"),
    has_mounts: false,
    keys: &[&[INNER]],
    examples: &["readonly(mem())"],
};

const TRACED: Backend = Backend {
    name: "traced",
    summary: "a filesystem that logs its requests at levels debug and trace",
    other_names: &["trace", "debug", "log", "strace"],
    positional: Some("inner"),
    has_mounts: false,
    keys: &[&[INNER]],
    examples: &["traced(mem(capacity=64MiB))"],
};

/// Every name, in the order of the help.
pub const BACKENDS: &[Backend] = &[MEM, PASSTHROUGH, OVERLAY, DUAL, ROUTER, OCI, READ_ONLY, TRACED];

/// The backend or wrapper called `name`; `-` reads as `_`.
pub fn find(name: &[u8]) -> Option<&'static Backend> {
    BACKENDS.iter().find(|backend| {
        backend.name.len() == name.len()
            && backend.name.bytes().zip(name).all(|(a, &b)| a == b || (a == b'_' && b == b'-'))
    })
}

/// The names of all backends, in the order of the help.
pub fn names() -> String {
    BACKENDS.iter().map(|backend| backend.name).collect::<Vec<_>>().join(", ")
}

/// The name of the backend that `word` was probably meant to be: a near miss of it, or what another
/// tool calls it.
pub fn suggest(word: &[u8]) -> Option<&'static str> {
    let candidates =
        BACKENDS.iter().flat_map(|b| std::iter::once(b.name).chain(b.other_names.iter().copied()));
    let near = super::error::near_miss(word, candidates)?;
    BACKENDS.iter().find(|b| b.name == near || b.other_names.contains(&near)).map(|b| b.name)
}
