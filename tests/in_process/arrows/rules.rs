//! The absences, as a table, and what checks sources and manifests against it.

use toml::de::{DeTable, DeValue};

use super::source::{Named, Sources, is_within};

/// Rooms that must not name some paths.
#[derive(Debug)]
pub(super) struct Absence {
    pub(super) name: &'static str,
    /// Modules, with all in them; `*` stands for every one.
    who: &'static [&'static str],
    /// Modules among them that may.
    except: &'static [&'static str],
    /// Paths, with all in them; `OURS` stands for every crate of the workspace but their own room.
    never: &'static [&'static str],
    /// Of those, what they may name all the same.
    but: &'static [&'static str],
}

const OURS: &str = "OURS";
const CRATES: [&str; 11] = [
    "stratafs",
    "stratafs_core",
    "stratafs_sys",
    "stratafs_transfer",
    "stratafs_memfs",
    "stratafs_passthroughfs",
    "stratafs_overlayfs",
    "stratafs_dualfs",
    "stratafs_routerfs",
    "stratafs_testkit",
    "xtask",
];
const BACKENDS: &[&str] = &[
    "stratafs_memfs",
    "stratafs_passthroughfs",
    "stratafs_overlayfs",
    "stratafs_dualfs",
    "stratafs_routerfs",
];

/// What each room does not know. `super` is absent from it: paths are resolved before they are compared.
pub(super) const ABSENCES: &[Absence] = &[
    Absence {
        name: "core names no crate of ours",
        who: &["stratafs_core"],
        except: &[],
        never: &[OURS],
        but: &[],
    },
    Absence {
        name: "core makes no system call and starts no thread",
        who: &["stratafs_core"],
        except: &[],
        never: &[
            "libc",
            "std::env",
            "std::fs",
            "std::io::stderr",
            "std::io::stdin",
            "std::io::stdout",
            "std::net",
            "std::os::linux",
            "std::os::unix::fs",
            "std::os::unix::net",
            "std::os::unix::process",
            "std::process",
            "std::thread",
        ],
        but: &[],
    },
    Absence {
        name: "raw system calls are in sys alone",
        who: &["*"],
        // The last two are clients of a mount, on the other side of the kernel from every server.
        except: &["stratafs_sys", "stratafs_testkit::client", "xtask::bench"],
        never: &["rustix", "nix", "io_uring"],
        but: &[],
    },
    Absence {
        name: "protocol owns no descriptor and does no input or output",
        who: &["stratafs::protocol"],
        except: &[],
        never: &[
            "libc",
            "std::fs",
            "std::net",
            "std::os::fd::FromRawFd",
            "std::os::fd::IntoRawFd",
            "std::os::fd::OwnedFd",
            "std::os::fd::RawFd",
            "std::os::unix::fs",
            "std::os::unix::io",
            "std::os::unix::net",
            "std::process",
            "stratafs_sys",
        ],
        but: &[],
    },
    Absence {
        name: "protocol names core alone",
        who: &["stratafs::protocol"],
        except: &[],
        never: &[OURS],
        but: &["stratafs_core"],
    },
    Absence {
        name: "a transport names protocol, core and sys alone",
        who: &["stratafs::transport"],
        except: &[],
        never: &[OURS],
        but: &["stratafs::protocol", "stratafs_core", "stratafs_sys"],
    },
    Absence {
        name: "a backend names core, sys and transfer alone",
        who: BACKENDS,
        except: &[],
        never: &[OURS],
        but: &["stratafs_core", "stratafs_sys", "stratafs_transfer"],
    },
    Absence {
        name: "transfer names core and sys alone",
        who: &["stratafs_transfer"],
        except: &[],
        never: &[OURS],
        but: &["stratafs_core", "stratafs_sys"],
    },
    Absence {
        name: "sys names core alone",
        who: &["stratafs_sys"],
        except: &[],
        never: &[OURS],
        but: &["stratafs_core"],
    },
    Absence {
        name: "testkit names core and sys alone",
        who: &["stratafs_testkit"],
        except: &[],
        never: &[OURS],
        but: &["stratafs_core", "stratafs_sys"],
    },
    Absence {
        name: "only tests name testkit",
        who: &["*"],
        except: &["stratafs_testkit"],
        never: &["stratafs_testkit"],
        but: &[],
    },
    Absence {
        name: "the command's arguments name workspace, spec, oci, sandbox and transport alone",
        who: &["stratafs::cli"],
        except: &[],
        never: &[OURS],
        but: &[
            "stratafs::workspace",
            "stratafs::spec",
            "stratafs::oci",
            "stratafs::sandbox",
            "stratafs::transport",
        ],
    },
    Absence {
        name: "the sandbox names core and sys alone",
        who: &["stratafs::sandbox"],
        except: &[],
        never: &[OURS],
        but: &["stratafs_core", "stratafs_sys"],
    },
    Absence {
        name: "main names cli alone",
        who: &["stratafs_bin"],
        except: &[],
        never: &[OURS],
        but: &["stratafs::cli"],
    },
    Absence {
        name: "only main names cli",
        who: &["stratafs", "stratafs_testkit", "xtask"],
        except: &["stratafs::cli"],
        never: &["stratafs::cli"],
        but: &[],
    },
    Absence {
        name: "spec names the backends, oci and core alone",
        who: &["stratafs::spec"],
        except: &[],
        never: &[OURS],
        but: &[
            "stratafs::oci",
            "stratafs_core",
            "stratafs_memfs",
            "stratafs_passthroughfs",
            "stratafs_overlayfs",
            "stratafs_dualfs",
            "stratafs_routerfs",
        ],
    },
    Absence {
        name: "workspace names spec, oci, client, transport and core alone",
        who: &["stratafs::workspace"],
        except: &[],
        never: &[OURS],
        but: &[
            "stratafs::spec",
            "stratafs::oci",
            "stratafs::client",
            "stratafs::transport",
            "stratafs_core",
        ],
    },
];

/// The only crate with `unsafe`.
const UNSAFE_CRATE: &str = "stratafs_sys";
/// Names of the two rules that are not about paths.
pub(super) const UNSAFE: &str = "unsafe is in sys alone";
pub(super) const FORBID: &str = "every other crate forbids unsafe code";

/// What each package may depend on of ours, and what it may never depend on of others'.
struct Manifest {
    package: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

const NO_SYSTEM: &[&str] = &["libc", "rustix", "nix", "io-uring", "clap", "vhost", "vm-memory"];
const BACKEND: &[&str] = &["stratafs-core", "stratafs-sys", "stratafs-transfer"];

const MANIFESTS: &[Manifest] = &[
    Manifest { package: "stratafs-core", ours: &[], never: NO_SYSTEM },
    Manifest { package: "stratafs-sys", ours: &["stratafs-core"], never: &["clap"] },
    Manifest {
        package: "stratafs-transfer",
        ours: &["stratafs-core", "stratafs-sys"],
        never: &["clap"],
    },
    Manifest { package: "stratafs-memfs", ours: BACKEND, never: NO_SYSTEM },
    Manifest { package: "stratafs-passthroughfs", ours: BACKEND, never: &["clap"] },
    Manifest { package: "stratafs-overlayfs", ours: BACKEND, never: &["clap"] },
    Manifest { package: "stratafs-dualfs", ours: BACKEND, never: NO_SYSTEM },
    Manifest { package: "stratafs-routerfs", ours: BACKEND, never: NO_SYSTEM },
    Manifest {
        package: "stratafs-testkit",
        ours: &["stratafs-core", "stratafs-sys"],
        never: &["clap"],
    },
    Manifest {
        package: "stratafs",
        ours: &[
            "stratafs-core",
            "stratafs-sys",
            "stratafs-transfer",
            "stratafs-memfs",
            "stratafs-passthroughfs",
            "stratafs-overlayfs",
            "stratafs-dualfs",
            "stratafs-routerfs",
        ],
        never: &[],
    },
    // The one task runner drives the command line, so that it builds in seconds.
    Manifest { package: "xtask", ours: &[], never: &[] },
];

/// A breach: the rule, and where and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Breach {
    pub(super) rule: String,
    pub(super) what: String,
}

/// Checks sources against every absence.
pub(super) fn breaches(sources: &Sources) -> Vec<Breach> {
    let mut all = Vec::new();
    for named in sources.named().iter().filter(|named| !named.test) {
        for absence in ABSENCES.iter().filter(|absence| absence.is_broken_by(named)) {
            all.push(Breach {
                rule: absence.name.to_owned(),
                what: format!("{}: {} names {}", named.place, named.module, named.path),
            });
        }
    }
    for (module, place) in sources.unsafe_places() {
        if !is_within(&module, UNSAFE_CRATE) {
            all.push(Breach { rule: UNSAFE.to_owned(), what: place });
        }
    }
    for (root, file) in &sources.permissive_roots {
        if root != UNSAFE_CRATE {
            all.push(Breach {
                rule: FORBID.to_owned(),
                what: format!("{file} lacks #![forbid(unsafe_code)]"),
            });
        }
    }
    all.sort();
    all.dedup();
    all
}

impl Absence {
    fn is_broken_by(&self, named: &Named) -> bool {
        let is_in = |rooms: &[&str]| rooms.iter().any(|room| is_within(&named.module, room));
        let Some(room) = self.who.iter().find(|who| **who == "*" || is_in(&[who])) else {
            return false;
        };
        let names = |path: &str| is_within(&named.path, path);
        if is_in(self.except) || self.but.iter().any(|but| names(but)) {
            return false;
        }
        self.never.iter().any(|never| match *never {
            OURS => CRATES.contains(&crate_of(&named.path)) && !names(room),
            // `use std::*` may bring what is forbidden, so it is refused as if it did.
            path => names(path) || (named.glob && is_within(path, &named.path)),
        })
    }
}

fn crate_of(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

/// Checks one package's manifest; dependencies of tests are free.
pub(super) fn manifest_breaches(text: &str) -> Vec<Breach> {
    let manifest = DeTable::parse(text).expect("a manifest is TOML").into_inner();
    let own = manifest.get("package").and_then(|package| package.get_ref().get("name"));
    let package = own.and_then(|name| name.get_ref().as_str()).expect("a package has a name");
    let Some(rule) = MANIFESTS.iter().find(|rule| rule.package == package) else {
        return vec![breach(package, "stands in no row of the table of packages")];
    };
    let mut breaches = Vec::new();
    for dependency in dependencies(&manifest) {
        let ours = dependency == "stratafs" || dependency.starts_with("stratafs-");
        if ours && !rule.ours.contains(&dependency.as_str()) {
            breaches.push(breach(package, &format!("depends on {dependency}")));
        }
        if rule.never.contains(&dependency.as_str()) {
            breaches.push(breach(package, &format!("depends on {dependency}")));
        }
    }
    breaches
}

fn breach(package: &str, what: &str) -> Breach {
    Breach { rule: format!("the dependencies of {package}"), what: what.to_owned() }
}

/// Names of packages in `dependencies` and `build-dependencies`, for every target.
fn dependencies(manifest: &DeTable<'_>) -> Vec<String> {
    fn table<'a>(value: &DeValue<'a>) -> DeTable<'a> {
        value.as_table().cloned().unwrap_or_default()
    }
    let mut tables = vec![manifest.clone()];
    if let Some(targets) = manifest.get("target") {
        tables.extend(table(targets.get_ref()).values().map(|target| table(target.get_ref())));
    }
    let mut names = Vec::new();
    for (name, value) in tables
        .iter()
        .flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")])
        .flatten()
        .flat_map(|kind| table(kind.get_ref()))
    {
        let renamed = value.get_ref().as_table().and_then(|value| value.get("package"));
        let renamed = renamed.and_then(|package| package.get_ref().as_str());
        names.push(renamed.unwrap_or(name.get_ref()).to_owned());
    }
    names
}
