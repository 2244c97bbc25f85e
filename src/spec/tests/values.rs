//! Words → values: sizes, counts, times, flags, choices, paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::spec::duration::parse_duration;
use crate::spec::node::{Checked, Node, Target};
use crate::spec::size::{parse_count, parse_size};
use crate::spec::{Composition, tables};

fn composition(text: &str) -> Composition {
    Composition::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn parse_size_follows_the_unit() {
    let table: &[(&str, u64)] = &[
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("1K", 1 << 10),
        ("1k", 1 << 10),
        ("1KiB", 1 << 10),
        ("1KB", 1000),
        ("1kb", 1000),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("64MB", 64_000_000),
        ("1G", 1 << 30),
        ("1GiB", 1 << 30),
        ("1gib", 1 << 30),
        ("1GB", 1_000_000_000),
        ("2T", 2 << 40),
        ("2TiB", 2 << 40),
        ("2TB", 2_000_000_000_000),
        ("1P", 1 << 50),
        ("1PB", 1_000_000_000_000_000),
        ("1.5G", 3 << 29),
        ("0.25KB", 250),
        ("0.3K", 307),
        ("1 GiB", 1 << 30),
        ("007", 7),
        ("18446744073709551615", u64::MAX),
    ];
    for (text, bytes) in table {
        assert_eq!(parse_size(text), Ok(ByteSize::b(*bytes)), "{text}");
    }
}

#[test]
fn parse_size_of_nonsense_says_why() {
    let table: &[(&str, &str)] = &[
        ("", "there is no number"),
        ("G", "it does not begin with a digit"),
        ("-1", "it is negative"),
        ("+1", "it does not begin with a digit"),
        ("1Q", "`Q` is no unit of size"),
        ("1\u{2}B", "`\\x02B` is no unit of size"),
        ("1Gi", "`Gi` is no unit of size"),
        ("1 G B", "`G B` is no unit of size"),
        ("0x10", "`x10` is no unit of size"),
        ("1e9", "`e9` is no unit of size"),
        ("1_000", "`_000` is no unit of size"),
        ("1.2.3G", "`1.2.3` is no decimal number"),
        (".5G", "`.5` is no decimal number"),
        ("5.G", "`5.` is no decimal number"),
        ("1.5", "it is not whole"),
        ("18446744073709551616", "it is more than 18446744073709551615 bytes"),
        ("16384P", "it is more than 18446744073709551615 bytes"),
        ("99999999999999999999999999999999999999999", "it is more than 18446744073709551615 bytes"),
        ("0.1234567890123456789G", "it has more than 18 digits after the point"),
    ];
    for (text, reason) in table {
        assert_eq!(parse_size(text), Err((*reason).to_owned()), "{text}");
    }
}

#[test]
fn parse_count_is_decimal() {
    let table: &[(&str, u64)] = &[
        ("0", 0),
        ("12", 12),
        ("100k", 100_000),
        ("100K", 100_000),
        ("1M", 1_000_000),
        ("2G", 2_000_000_000),
        ("1.5M", 1_500_000),
    ];
    for (text, count) in table {
        assert_eq!(parse_count(text), Ok(*count), "{text}");
    }
}

#[test]
fn parse_count_of_nonsense_says_why() {
    let table: &[(&str, &str)] = &[
        ("1Ki", "`Ki` is a unit of bytes, and this counts things"),
        ("1MB", "`MB` is a unit of bytes, and this counts things"),
        ("1T", "`T` is no unit of a count"),
        ("1.5", "it is not whole"),
        ("18446744073709551616", "it is more than 18446744073709551615"),
    ];
    for (text, reason) in table {
        assert_eq!(parse_count(text), Err((*reason).to_owned()), "{text}");
    }
}

#[test]
fn parse_duration_is_in_seconds_unless_it_has_a_unit() {
    let table: &[(&str, Duration)] = &[
        ("0", Duration::ZERO),
        ("1", Duration::from_secs(1)),
        ("1.5", Duration::from_millis(1500)),
        ("0.000000001", Duration::from_nanos(1)),
        ("0.00000000000000000001", Duration::ZERO),
        ("250us", Duration::from_micros(250)),
        ("500ms", Duration::from_millis(500)),
        ("2s", Duration::from_secs(2)),
        ("3m", Duration::from_secs(180)),
        ("0.5h", Duration::from_secs(1800)),
    ];
    for (text, time) in table {
        assert_eq!(parse_duration(text), Ok(*time), "{text}");
    }
}

#[test]
fn parse_duration_of_nonsense_says_why() {
    let table: &[(&str, &str)] = &[
        ("", "there is no number"),
        ("-1", "it is negative"),
        ("s", "it does not begin with a digit"),
        ("1d", "`d` is no unit of time"),
        ("1.", "`1.` is no decimal number"),
        ("1..2", "`1..2` is no decimal number"),
        ("99999999999999999999", "it is more than a hundred years"),
        ("9999999h", "it is more than a hundred years"),
    ];
    for (text, reason) in table {
        assert_eq!(parse_duration(text), Err((*reason).to_owned()), "{text}");
    }
}

fn shown(node: &Node) -> Vec<String> {
    let settings = node.settings.iter();
    settings.map(|s| format!("{}={}", target(&s.target), value(&s.value))).collect()
}

fn target(target: &Target) -> String {
    match target {
        Target::Key(key) => key.name.to_owned(),
        Target::Mount(path) => path.display().to_string(),
    }
}

fn value(value: &Checked) -> String {
    match value {
        Checked::Filesystem(node) => format!("{}{:?}", node.backend.name, shown(node)),
        other => format!("{other:?}"),
    }
}

#[test]
fn check_mem_decodes_every_key_and_alias() {
    let canonical = "mem(capacity=1GiB, max_inodes=100k, locks=remote, cache=never, \
                     entry_timeout=1, attr_timeout=500ms, negative_timeout=0, readonly)";
    let aliased = "mem(size=1G, nr-inodes=100000, locks=remote, cache=never, \
                   entry-timeout=1s, attr-timeout=0.5, negative-timeout=0s, ro=yes)";
    let expected = [
        "capacity=Size(1.0 GiB (1073741824 bytes))",
        "max_inodes=Count(100000)",
        "locks=Choice(\"remote\")",
        "cache=Choice(\"never\")",
        "entry_timeout=Time(1s)",
        "attr_timeout=Time(500ms)",
        "negative_timeout=Time(0ns)",
        "readonly=Flag(true)",
    ];
    assert_eq!(shown(composition(canonical).root()), expected);
    assert_eq!(shown(composition(aliased).root()), expected);
}

#[test]
fn check_mode_is_octal_and_id_decimal() {
    let root = composition("mem(mode=1777, uid=0, gid=4294967294)");
    let expected = ["root_mode=Mode(1023)", "root_uid=Id(0)", "root_gid=Id(4294967294)"];
    assert_eq!(shown(root.root()), expected);
    for text in ["mem(mode=8)", "mem(mode=17777)", "mem(uid=4294967295)", "mem(uid=root)"] {
        assert!(Composition::parse(text).is_err(), "{text}");
    }
}

#[test]
fn check_flag_takes_each_spelling() {
    for (text, expected) in [
        ("mem(ro)", true),
        ("mem(readonly=true)", true),
        ("mem(ro=on)", true),
        ("mem(readonly=yes)", true),
        ("mem(ro=false)", false),
        ("mem(ro=off)", false),
        ("mem(ro=no)", false),
    ] {
        assert_eq!(shown(composition(text).root()), [format!("readonly=Flag({expected})")]);
    }
}

#[test]
fn check_bare_path_is_passthrough() {
    let bare = composition("/srv/root");
    let full = composition("passthrough(root_dir=/srv/root)");
    assert_eq!(bare.root().backend, full.root().backend);
    assert_eq!(shown(bare.root()), shown(full.root()));
}

#[test]
fn check_path_keeps_every_byte() {
    let text = OsStr::from_bytes(b"/\xff\\xfe\\ \\$");
    let composition = Composition::parse(text).unwrap();
    let Checked::Path(path) = &composition.root().settings[0].value else {
        panic!("not a path");
    };
    assert_eq!(path.as_os_str().as_bytes(), b"/\xff\xfe $");
}

#[test]
fn check_overlay_lists_lowers_in_the_order_written() {
    let repeated = composition("overlay(lower=/a, lower=/b, lower=/c, upper=mem())");
    let listed = composition("overlay(lowerdir=/a:/b, lower=/c, upperdir=mem())");
    let expected = [
        "lower=passthrough[\"root_dir=Path(\\\"/a\\\")\"]",
        "lower=passthrough[\"root_dir=Path(\\\"/b\\\")\"]",
        "lower=passthrough[\"root_dir=Path(\\\"/c\\\")\"]",
        "upper=mem[]",
    ];
    assert_eq!(shown(repeated.root()), expected);
    assert_eq!(shown(listed.root()), expected);
}

#[test]
fn check_router_mounts_are_normalised() {
    let composition = composition("router(/=mem(), //home//me/=mem(), \"/a b\"=mem())");
    let mounts: Vec<_> = composition.root().settings.iter().map(|s| s.target.clone()).collect();
    let expected = ["/", "/home/me", "/a b"].map(|path| Target::Mount(PathBuf::from(path)));
    assert_eq!(mounts, expected);
}

#[test]
fn check_choice_reads_underscores_as_hyphens() {
    let text = "dual(a=mem(), b=mem(), policy=backend_a_only)";
    assert_eq!(shown(composition(text).root())[2], "policy=Choice(\"backend-a-only\")");
}

#[test]
fn check_every_example_of_every_table_is_accepted() {
    for backend in tables::BACKENDS {
        for example in backend.examples {
            let composition = composition(example);
            assert!(
                composition.root().backend == backend || !example.contains('('),
                "{example} is no example of {}",
                backend.name
            );
        }
    }
}

#[test]
fn tables_have_no_name_twice() {
    for backend in tables::BACKENDS {
        let mut names: Vec<_> = backend.key_names().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{}", backend.name);
        let positional = backend.positional.map(|name| backend.key(name.as_bytes()).is_some());
        assert_ne!(positional, Some(false), "{}", backend.name);
    }
}
