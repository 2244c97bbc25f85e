//! Inode numbers that are unique across layers and stay when an object is copied up.
//!
//! The number of an object is that of the lowest place it came from: a file that was copied up
//! keeps the number of what it was copied from. Numbers of the first filesystem are shown as they
//! are; those of another carry its index in their topmost bits (`xino`), as long as they leave
//! these free. Those that do not are numbered by a table, for as long as the filesystem lives.
//!
//! Layers on one filesystem of the host share its numbers, so that those need no index at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Where the numbers of a layer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// The index of the layer's filesystem.
    pub(crate) filesystem: u32,
    /// The UUID of what is below it, where file handles of that give their inode numbers away.
    pub(crate) fsid: Option<[u8; 16]>,
    /// The index of the first filesystem with that UUID.
    shared: u32,
}

impl Space {
    pub(crate) fn new(filesystem: u32, fsid: Option<[u8; 16]>) -> Self {
        Self { filesystem, fsid, shared: filesystem }
    }
}

/// Numbers from this on are not the host's own: a share that spans several filesystems of the host
/// makes them.
const HOST_END: u64 = 1 << 48;

/// Makes inode numbers of layers' filesystems those of the merged tree.
pub(crate) struct Inos {
    /// By the number of the layer.
    spaces: Vec<Space>,
    /// Bits above which the index of the filesystem stands; 64 where there is but one.
    shift: u32,
    /// Whether numbers carry an index at all.
    xino: bool,
    /// The index of the numbers that the table gives out.
    spare: u64,
    table: Mutex<HashMap<(u32, u64), u64>>,
    next: AtomicU64,
}

impl Inos {
    /// For layers with these spaces, by their numbers.
    pub(crate) fn new(mut spaces: Vec<Space>, xino: bool) -> Self {
        let mut first = HashMap::new();
        for space in &mut spaces {
            space.shared = match space.fsid {
                Some(fsid) => *first.entry(fsid).or_insert(space.filesystem),
                None => space.filesystem,
            };
        }
        let filesystems = spaces.iter().map(|space| space.filesystem + 1).max().unwrap_or(1);
        let indices = u64::from(filesystems) + 1;
        let bits = u64::BITS - (indices - 1).leading_zeros();
        let shift = if filesystems <= 1 { 64 } else { 64 - bits };
        Self {
            spaces,
            shift,
            xino,
            spare: u64::from(filesystems),
            table: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// The UUID of what the layer of this number is on, where its file handles can be read.
    pub(crate) fn fsid(&self, layer: usize) -> Option<[u8; 16]> {
        self.spaces.get(layer)?.fsid
    }

    /// The number of the object `ino` of the layer of this number.
    pub(crate) fn map(&self, layer: usize, ino: u64) -> u64 {
        let Some(space) = self.spaces.get(layer) else { return self.number(u32::MAX, ino) };
        let filesystem = if ino < HOST_END { space.shared } else { space.filesystem };
        self.number(filesystem, ino)
    }

    /// The number of the object `ino` of the filesystem of this index.
    fn number(&self, filesystem: u32, ino: u64) -> u64 {
        if self.shift == 64 {
            return ino;
        }
        let fits = ino >> self.shift == 0;
        if fits && (self.xino || filesystem == 0) {
            return ino | (u64::from(filesystem) << self.shift);
        }
        let mut table = self.table.lock();
        *table.entry((filesystem, ino)).or_insert_with(|| {
            self.next.fetch_add(1, Ordering::Relaxed) | (self.spare << self.shift)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(count: u32) -> Vec<Space> {
        (0..count).map(|filesystem| Space::new(filesystem, None)).collect()
    }

    #[test]
    fn map_of_layers_on_one_filesystem_of_the_host_is_the_host_s() {
        let spaces = (0..3).map(|filesystem| Space::new(filesystem, Some([1; 16])));
        let inos = Inos::new(spaces.collect(), true);
        assert_eq!((inos.map(0, 7), inos.map(2, 7)), (7, 7));
        assert_ne!(inos.map(2, HOST_END), inos.map(1, HOST_END), "a share's own are another's");
    }

    #[test]
    fn map_of_several_filesystems_gives_no_number_twice() {
        for xino in [true, false] {
            let inos = Inos::new(spaces(3), xino);
            let mut seen = std::collections::HashSet::new();
            for filesystem in 0..3 {
                for ino in [1, 2, u64::MAX, u64::MAX >> 2, (u64::MAX >> 2) + 1] {
                    let number = inos.map(filesystem, ino);
                    assert!(seen.insert(number), "{filesystem} {ino} {xino}");
                    assert_eq!(inos.map(filesystem, ino), number, "stays");
                }
            }
            assert_eq!(inos.map(0, 7), 7, "the first is shown as it is");
        }
    }

    #[test]
    fn map_of_one_filesystem_changes_nothing() {
        assert_eq!(Inos::new(spaces(1), true).map(0, u64::MAX), u64::MAX);
    }
}
