//! The guest's memory: regions that the VMM shares, found by the guest's addresses and the VMM's.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::{Error, Result};
use vm_memory::{
    Address as _, GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap,
};

/// All of a guest's memory that the VMM has shared, mapped.
pub(super) type Mapped = GuestMemoryMmap<()>;

/// How many regions are taken: more than any VMM has (QEMU's slots end at 509).
pub(super) const MAX_REGIONS: usize = 509;

/// Where the VMM has a region in its own address space: ring addresses come as these.
#[derive(Clone, Copy, Debug)]
struct Window {
    vmm: u64,
    guest: u64,
    size: u64,
}

/// The memory table of one connection.
#[derive(Debug, Default)]
pub(super) struct Memory {
    mapped: Arc<Mapped>,
    windows: Vec<Window>,
}

impl Memory {
    /// Replaces all regions.
    pub(super) fn replace(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> Result<()> {
        if regions.len() != files.len() || regions.len() > MAX_REGIONS {
            return Err(Error::InvalidParam);
        }
        let mut table = Self::default();
        for (region, file) in regions.iter().zip(files) {
            table.add(region, file)?;
        }
        *self = table;
        Ok(())
    }

    /// Adds a region.
    pub(super) fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<()> {
        let (guest, vmm, size) = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let fits = size > 0 && guest.checked_add(size).is_some() && vmm.checked_add(size).is_some();
        if !fits || self.windows.len() >= MAX_REGIONS {
            return Err(Error::InvalidParam);
        }
        // Beyond the end of the file there would be memory that ends the process when it is touched.
        let metadata = file.metadata().map_err(Error::ReqHandlerError)?;
        let end = region.mmap_offset.checked_add(size).ok_or(Error::InvalidParam)?;
        if metadata.is_file() && metadata.len() < end {
            return Err(Error::InvalidParam);
        }
        let mapping = region.mmap_region(file)?;
        let mapping =
            GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or(Error::InvalidParam)?;
        let mapped = self.mapped.insert_region(Arc::new(mapping));
        self.mapped = Arc::new(mapped.map_err(|_| Error::InvalidParam)?);
        self.windows.push(Window { vmm, guest, size });
        Ok(())
    }

    /// Removes a region.
    pub(super) fn remove(&mut self, region: &VhostUserMemoryRegion) -> Result<()> {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        let removed = self.mapped.remove_region(GuestAddress(guest), size);
        let (mapped, _region) = removed.map_err(|_| Error::InvalidParam)?;
        self.mapped = Arc::new(mapped);
        self.windows.retain(|window| window.guest != guest);
        Ok(())
    }

    /// The memory as it is now. What is under way keeps what it has.
    pub(super) fn mapped(&self) -> Arc<Mapped> {
        Arc::clone(&self.mapped)
    }

    /// The guest's address of what the VMM has at `address`.
    pub(super) fn guest_address(&self, address: u64) -> Option<GuestAddress> {
        self.windows.iter().find_map(|window| {
            let offset = address.checked_sub(window.vmm)?;
            if offset >= window.size {
                return None;
            }
            window.guest.checked_add(offset).map(GuestAddress)
        })
    }
}

/// How many bytes from `address` on lie in one region, at most `len`; `None` where there is no
/// memory.
pub(super) fn contiguous(memory: &Mapped, address: GuestAddress, len: u32) -> Option<u32> {
    let (region, offset) = memory.to_region_addr(address)?;
    let left = region.len().checked_sub(offset.raw_value())?;
    // The smaller of the two is no more than `len`.
    Some(u32::try_from(left).unwrap_or(u32::MAX).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn region(guest: u64, vmm: u64, pages: u64) -> (VhostUserMemoryRegion, File) {
        let file = stratafs_sys::io::memory_file(c"test").unwrap();
        file.set_len(pages * PAGE).unwrap();
        (VhostUserMemoryRegion::new(guest, pages * PAGE, vmm, 0), file)
    }

    fn with(regions: &[(u64, u64, u64)]) -> Result<Memory> {
        let mut memory = Memory::default();
        for (guest, vmm, pages) in regions {
            let (region, file) = region(*guest, *vmm, *pages);
            memory.add(&region, file)?;
        }
        Ok(memory)
    }

    #[test]
    fn guest_address_is_found_within_a_region_and_not_beside_it() {
        let memory = with(&[(0, 0x10_0000, 2), (0x1_0000, 0x20_0000, 1)]).unwrap();
        for (vmm, guest) in [
            (0x10_0000, Some(0)),
            (0x10_1fff, Some(0x1fff)),
            (0x10_2000, None),
            (0x20_0010, Some(0x1_0010)),
            (0x0f_ffff, None),
            (u64::MAX, None),
        ] {
            let found = memory.guest_address(vmm).map(|address| address.0);
            assert_eq!(found, guest, "{vmm:#x}");
        }
    }

    #[test]
    fn add_of_a_region_that_overlaps_wraps_is_empty_or_has_no_file_behind_it_is_refused() {
        assert!(with(&[(0, 0x10_0000, 2), (PAGE, 0x20_0000, 1)]).is_err());
        assert!(with(&[(u64::MAX - PAGE + 1, 0x20_0000, 1)]).is_err());
        assert!(with(&[(0, u64::MAX - PAGE + 1, 1)]).is_err());
        let (_, file) = region(0, 0, 1);
        for size in [0, 2 * PAGE, u64::MAX / 2] {
            let region = VhostUserMemoryRegion::new(0, size, 0x10_0000, 0);
            assert!(Memory::default().add(&region, file.try_clone().unwrap()).is_err(), "{size}");
        }
    }

    #[test]
    fn remove_takes_a_region_away_and_leaves_what_is_under_way_its_own() {
        let mut memory = with(&[(0, 0x10_0000, 1), (0x1_0000, 0x20_0000, 1)]).unwrap();
        let before = memory.mapped();
        let gone = VhostUserMemoryRegion::new(0, PAGE, 0x10_0000, 0);
        memory.remove(&gone).unwrap();
        assert!(memory.guest_address(0x10_0000).is_none());
        assert!(memory.guest_address(0x20_0000).is_some());
        assert_eq!(contiguous(&memory.mapped(), GuestAddress(0), 8), None);
        assert_eq!(contiguous(&before, GuestAddress(0), 8), Some(8));
        assert!(memory.remove(&gone).is_err());
    }
}
