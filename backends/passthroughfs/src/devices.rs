//! Inode numbers that stay apart where a share spans several filesystems.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// The devices seen, the root's first. Its lock is a leaf.
pub(crate) struct Devices {
    root: u64,
    others: RwLock<Vec<u64>>,
    count: AtomicUsize,
}

/// How far the index of a device is shifted into an inode number: real ones are smaller.
const SHIFT: u32 = 48;

/// How many devices are told apart; the numbers of those beyond may collide.
const MAX_DEVICES: usize = 1 << (64 - SHIFT);

impl Devices {
    pub(crate) fn new(root: u64) -> Self {
        Self { root, others: RwLock::default(), count: AtomicUsize::new(0) }
    }

    /// Whether `dev` is the device of the share's root.
    pub(crate) fn is_root(&self, dev: u64) -> bool {
        dev == self.root
    }

    /// The inode number that the client sees: the host's own on the root's device, and with the
    /// device's index in its top bits on others.
    pub(crate) fn ino(&self, dev: u64, ino: u64) -> u64 {
        if self.is_root(dev) { ino } else { ino ^ (self.index(dev) << SHIFT) }
    }

    fn index(&self, dev: u64) -> u64 {
        let find = |others: &[u64]| others.iter().position(|other| *other == dev);
        if let Some(index) = find(&self.others.read()) {
            return index as u64 + 1;
        }
        if self.count.load(Ordering::Relaxed) + 1 >= MAX_DEVICES {
            return MAX_DEVICES as u64 - 1;
        }
        let mut others = self.others.write();
        let index = find(&others).unwrap_or_else(|| {
            others.push(dev);
            self.count.store(others.len(), Ordering::Relaxed);
            others.len() - 1
        });
        index as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ino_on_another_device_differs_and_is_stable() {
        let devices = Devices::new(5);
        assert_eq!(devices.ino(5, 12), 12);
        let (one, two) = (devices.ino(6, 12), devices.ino(7, 12));
        assert!(one != 12 && two != 12 && one != two);
        assert_eq!((devices.ino(6, 12), devices.ino(7, 12)), (one, two));
    }
}
