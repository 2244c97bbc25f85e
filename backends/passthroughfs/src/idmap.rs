//! Translating ids between client and host, in virtiofsd's forms.

use std::str::FromStr;

use stratafs_core::{Errno, Result};

/// One rule of an id map.
///
/// Its text is that of virtiofsd's `--translate-uid`:
///
/// | text | meaning |
/// |---|---|
/// | `map:GUEST:HOST:COUNT` | both ways |
/// | `guest:GUEST:HOST:COUNT` | what a client gives becomes this on the host |
/// | `host:HOST:GUEST:COUNT` | what the host has is shown as this |
/// | `squash-guest:GUEST:HOST:COUNT` | what a client gives becomes this one id |
/// | `squash-host:HOST:GUEST:COUNT` | what the host has is shown as this one id |
/// | `forbid-guest:GUEST:COUNT` | a client may not give these: EPERM |
///
/// ```
/// use stratafs_passthroughfs::IdRule;
/// let rule: IdRule = "map:0:100000:65536".parse().unwrap();
/// assert!("map:0:1".parse::<IdRule>().is_err());
/// # let _ = rule;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRule {
    kind: Kind,
    from: u32,
    to: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Map,
    Guest,
    Host,
    SquashGuest,
    SquashHost,
    ForbidGuest,
}

/// The text of an [`IdRule`] is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no id rule: write map:GUEST:HOST:COUNT, guest:GUEST:HOST:COUNT, \
     host:HOST:GUEST:COUNT, squash-guest:GUEST:HOST:COUNT, squash-host:HOST:GUEST:COUNT or \
     forbid-guest:GUEST:COUNT, where no range goes beyond 4294967294"
)]
pub struct IdRuleError(String);

impl FromStr for IdRule {
    type Err = IdRuleError;

    fn from_str(text: &str) -> std::result::Result<Self, IdRuleError> {
        parse(text).ok_or_else(|| IdRuleError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<IdRule> {
    let mut fields = text.split(':');
    let kind = match fields.next()? {
        "map" => Kind::Map,
        "guest" => Kind::Guest,
        "host" => Kind::Host,
        "squash-guest" => Kind::SquashGuest,
        "squash-host" => Kind::SquashHost,
        "forbid-guest" => Kind::ForbidGuest,
        _ => return None,
    };
    let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
    let from = number()?;
    let to = if kind == Kind::ForbidGuest { 0 } else { number()? };
    let count = number()?;
    if fields.next().is_some() || count == 0 {
        return None;
    }
    // u32::MAX is no id.
    from.checked_add(count)?;
    match kind {
        Kind::Map | Kind::Guest | Kind::Host => to.checked_add(count).map(drop)?,
        Kind::SquashGuest | Kind::SquashHost => to.checked_add(1).map(drop)?,
        Kind::ForbidGuest => {}
    }
    Some(IdRule { kind, from, to, count })
}

/// The rules of one kind of id. The first that fits counts; an id that none fits stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<IdRule>);

impl IdMap {
    pub(crate) fn push(&mut self, rule: IdRule) {
        self.0.push(rule);
    }

    /// What a client's `id` is on the host.
    pub(crate) fn to_host(&self, id: u32) -> Result<u32> {
        for rule in &self.0 {
            let Some(nth) = id.checked_sub(rule.from).filter(|nth| *nth < rule.count) else {
                continue;
            };
            match rule.kind {
                Kind::Map | Kind::Guest => return Ok(rule.to + nth),
                Kind::SquashGuest => return Ok(rule.to),
                Kind::ForbidGuest => return Err(Errno::EPERM),
                Kind::Host | Kind::SquashHost => {}
            }
        }
        Ok(id)
    }

    /// What a host's `id` is shown as.
    pub(crate) fn to_guest(&self, id: u32) -> u32 {
        for rule in &self.0 {
            let host = if rule.kind == Kind::Map { rule.to } else { rule.from };
            let Some(nth) = id.checked_sub(host).filter(|nth| *nth < rule.count) else {
                continue;
            };
            match rule.kind {
                Kind::Map => return rule.from + nth,
                Kind::Host => return rule.to + nth,
                Kind::SquashHost => return rule.to,
                Kind::Guest | Kind::SquashGuest | Kind::ForbidGuest => {}
            }
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &[&str]) -> IdMap {
        IdMap(rules.iter().map(|rule| rule.parse().unwrap()).collect())
    }

    #[test]
    fn map_translates_both_ways_and_leaves_the_rest() {
        let map = map(&["map:0:100000:1000"]);
        assert_eq!((map.to_host(7), map.to_guest(100_007)), (Ok(100_007), 7));
        assert_eq!((map.to_host(1000), map.to_guest(101_000)), (Ok(1000), 101_000));
    }

    #[test]
    fn one_way_rules_go_one_way() {
        let map = map(&[
            "host:1000:0:1",
            "squash-guest:0:1000:4294967294",
            "guest:0:5:1",
            "squash-host:0:65534:10",
        ]);
        assert_eq!((map.to_host(0), map.to_host(77)), (Ok(1000), Ok(1000)));
        assert_eq!((map.to_guest(1000), map.to_guest(3), map.to_guest(10)), (0, 65534, 10));
    }

    #[test]
    fn forbid_guest_refuses_what_no_earlier_rule_took() {
        let map = map(&["map:0:1000:1", "forbid-guest:0:4294967294"]);
        assert_eq!((map.to_host(0), map.to_host(1)), (Ok(1000), Err(Errno::EPERM)));
    }

    #[test]
    fn rules_out_of_range_or_shape_are_refused() {
        for text in [
            "",
            "map",
            "map:0:0",
            "map:0:0:0",
            "map:0:0:1:",
            "map:1:0:4294967295",
            "map:0:1:4294967295",
            "squash-guest:0:4294967295:1",
            "mop:0:0:1",
            "forbid-guest:0:1:1",
            "map:-1:0:1",
            "map:a:0:1",
        ] {
            assert!(text.parse::<IdRule>().is_err(), "{text}");
        }
    }
}
