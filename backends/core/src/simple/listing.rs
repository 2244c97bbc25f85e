//! The order and the cookies of a directory's entries.
//!
//! An entry's place is a hash of its name, and its cookie is its place. So a cookie means the same
//! in every listing of the directory, whatever came or went in between: across deletes, after
//! rewinddir(3), and through another handle.

use std::hash::{DefaultHasher, Hasher};

use crate::NameBuf;

/// The cookie of `.`.
pub(super) const DOT: u64 = 1;
/// The cookie of `..`.
pub(super) const DOTDOT: u64 = 2;

/// The names of a directory at one moment, in the order of their places.
pub(super) struct Listing(Box<[(u64, NameBuf)]>);

impl Listing {
    pub(super) fn new(names: Vec<NameBuf>) -> Self {
        Self::placed_by(names, place)
    }

    /// Of names with one place the first, in the order of their bytes, has it and the others those
    /// that follow. Within one listing that is exact. A name of such a group, removed between two
    /// listings of which neither was kept, could hide the next one's; the chance that there is a
    /// group at all among a million names is one in ten million.
    fn placed_by(names: Vec<NameBuf>, place: impl Fn(&[u8]) -> u64) -> Self {
        let mut entries: Vec<_> =
            names.into_iter().map(|name| (place(name.as_bytes()), name)).collect();
        entries.sort_unstable();
        entries.dedup();
        let mut last = DOTDOT;
        for (place, _) in &mut entries {
            *place = (*place).max(last + 1);
            last = *place;
        }
        Self(entries.into_boxed_slice())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The entries that follow `cookie`, each with its own.
    pub(super) fn after(&self, cookie: u64) -> impl Iterator<Item = &(u64, NameBuf)> {
        self.0[self.0.partition_point(|(place, _)| *place <= cookie)..].iter()
    }
}

/// The place of `name`: above those of `.` and `..`, and far enough below the largest offset that
/// an `off_t` holds for a group of names to follow it.
fn place(name: &[u8]) -> u64 {
    // Keyed alike in every run, so that a replayed session sees what the recorded one saw.
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    (hasher.finish() >> 2).max(DOTDOT + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    fn names<const N: usize>(names: [&str; N]) -> Vec<NameBuf> {
        names.map(|name| Name::new(name.as_bytes()).unwrap().to_owned()).into()
    }

    fn shown(listing: &Listing, cookie: u64) -> Vec<(u64, String)> {
        listing.after(cookie).map(|(at, name)| (*at, name.as_name().to_string())).collect()
    }

    #[test]
    fn cookie_of_a_name_is_the_same_in_every_listing() {
        let all = shown(&Listing::new(names(["a", "b", "c", "d"])), 0);
        for left_out in &all {
            let kept: Vec<_> = all.iter().filter(|entry| *entry != left_out).cloned().collect();
            let fewer = kept.iter().map(|(_, name)| Name::new(name.as_bytes()).unwrap().to_owned());
            assert_eq!(shown(&Listing::new(fewer.collect()), 0), kept);
        }
    }

    #[test]
    fn after_a_cookie_come_the_entries_that_follow_it_though_it_is_gone() {
        let all = shown(&Listing::new(names(["a", "b", "c", "d"])), 0);
        let (second, rest) = (&all[1], &all[2..]);
        assert_eq!(shown(&Listing::new(names(["a", "b", "c", "d"])), second.0), rest);
        let left: Vec<_> = all.iter().filter(|entry| *entry != second).collect();
        let left = left.iter().map(|(_, name)| Name::new(name.as_bytes()).unwrap().to_owned());
        assert_eq!(shown(&Listing::new(left.collect()), second.0), rest);
    }

    #[test]
    fn names_of_one_place_are_each_listed_once() {
        let listing = Listing::placed_by(names(["b", "a", "d", "c", "a"]), |name| match name {
            b"d" => 8,
            _ => 7,
        });
        let all = shown(&listing, 0);
        let expected = [(7, "a"), (8, "b"), (9, "c"), (10, "d")];
        assert_eq!(all, expected.map(|(at, name)| (at, name.to_owned())));
        assert_eq!(shown(&listing, 8), all[2..]);
    }

    #[test]
    fn places_are_above_the_dots_and_below_the_largest_offset() {
        for name in 0..10_000_u32 {
            let place = place(&name.to_ne_bytes());
            assert!(place > DOTDOT && place < 1 << 62);
        }
    }
}
