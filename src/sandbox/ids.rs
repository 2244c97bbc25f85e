//! Which users and groups a user namespace knows: every one by the number that it has on the host.
//!
//! A filesystem shows the host's owners, so a number must mean inside what it means outside. Root
//! gives a namespace all ids that it has itself; others their own, and those that `/etc/subuid`
//! grants them, through newuidmap(1).

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use stratafs_sys::creds;

/// Users, or groups.
struct Kind {
    /// The map's file in `/proc/PID`.
    map: &'static str,
    /// Who has which ranges.
    grants: &'static str,
    /// What writes the map for those who may not.
    program: &'static str,
    own: u32,
}

/// Numbers that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// Writes the maps of the user namespace that `process` is in.
///
/// # Errors
/// `EPERM`: not even the own id may be mapped.
pub(super) fn map(process: u32) -> io::Result<()> {
    let (uid, gid) = creds::effective();
    let name = creds::user(&uid.to_string()).ok().and_then(|user| user.name.into_string().ok());
    let users = Kind { map: "uid_map", grants: "/etc/subuid", program: "newuidmap", own: uid };
    let groups = Kind { map: "gid_map", grants: "/etc/subgid", program: "newgidmap", own: gid };
    users.write(process, uid, name.as_deref())?;
    groups.write(process, uid, name.as_deref())
}

impl Kind {
    fn write(&self, process: u32, user: u32, name: Option<&str>) -> io::Result<()> {
        if user == 0 && self.write_all(process).is_ok() {
            return Ok(());
        }
        let grants = fs::read_to_string(self.grants).unwrap_or_default();
        let mut ranges = granted(&grants, user, name);
        ranges.retain(|range| !range.holds(self.own));
        if !ranges.is_empty() && self.run(process, &ranges) {
            return Ok(());
        }
        if self.map == "gid_map" {
            // Whoever could leave a group could get at what is forbidden to its members.
            fs::write(format!("/proc/{process}/setgroups"), "deny")?;
        }
        fs::write(format!("/proc/{process}/{}", self.map), format!("{0} {0} 1\n", self.own))
    }

    /// All that there are in this namespace.
    fn write_all(&self, process: u32) -> io::Result<()> {
        let own = fs::read_to_string(format!("/proc/self/{}", self.map))?;
        let mut text = String::new();
        for line in own.lines() {
            let mut words = line.split_whitespace();
            if let (Some(inside), _, Some(count)) = (words.next(), words.next(), words.next()) {
                text.push_str(&format!("{inside} {inside} {count}\n"));
            }
        }
        fs::write(format!("/proc/{process}/{}", self.map), text)
    }

    /// Has the program write the map; whether it did.
    fn run(&self, process: u32, ranges: &[Range]) -> bool {
        let mut command = Command::new(self.program);
        command.arg(process.to_string());
        let own = Range { first: self.own, count: 1 };
        for range in [&[own], ranges].concat() {
            let (first, count) = (range.first.to_string(), range.count.to_string());
            command.args([&first, &first, &count]);
        }
        match command.stdin(Stdio::null()).stdout(Stdio::null()).output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                log::info!("sandbox: {}: {}", self.program, said.trim().escape_debug());
                false
            }
            Err(error) => {
                log::info!("sandbox: {}: {error}", self.program);
                false
            }
        }
    }
}

impl Range {
    fn holds(self, id: u32) -> bool {
        id.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }
}

/// The ranges that lines of `NAME:FIRST:COUNT` grant to a user by number or by name.
fn granted(text: &str, user: u32, name: Option<&str>) -> Vec<Range> {
    let number = user.to_string();
    let range = |line: &str| {
        let mut words = line.trim().split(':');
        let who = words.next()?;
        if who != number && Some(who) != name {
            return None;
        }
        let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (count > 0).then_some(Range { first, count })
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_takes_lines_of_the_user_by_name_and_number() {
        let text = "root:1:2\nalice:100000:65536\n1000:300000:10\nalice:5\n# x\nalice:9:0\n";
        let ranges = granted(text, 1000, Some("alice"));
        let expected =
            [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }];
        assert_eq!(ranges, expected);
        assert_eq!(granted(text, 1001, None), []);
    }

    #[test]
    fn range_holds_its_first_and_not_what_follows_its_last() {
        let range = Range { first: 10, count: 2 };
        assert_eq!([9, 10, 11, 12].map(|id| range.holds(id)), [false, true, true, false]);
    }
}
