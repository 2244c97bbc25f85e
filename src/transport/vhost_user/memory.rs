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
